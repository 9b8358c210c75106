"""From pictures to a network's input, in the graph: the same operations in training and in serving."""

from __future__ import annotations

import dataclasses

import numpy as np
from etils import epy

from zoo.errors import ZooError
from zoo.spec import Preprocessing

with epy.lazy_imports():
    import tensorflow as tf


def for_input(preprocessing: Preprocessing, spec_shape: tuple, input_shape: tuple) -> Preprocessing:
    """The preprocessing for a network that was built for another input shape: the same margin, the other size."""
    if preprocessing.size is None or tuple(spec_shape[:2]) == tuple(input_shape[:2]):
        return preprocessing
    margin = [whole - inner for whole, inner in zip(spec_shape[:2], preprocessing.size, strict=True)]
    size = (input_shape[0] - margin[0], input_shape[1] - margin[1])
    return dataclasses.replace(preprocessing, size=size, pad_to=tuple(input_shape[:2]) if any(margin) else None)


def for_bands(preprocessing: Preprocessing, images: np.ndarray, known: np.ndarray) -> Preprocessing:
    """The preprocessing for images [N, H, W, C] of any type: as it is for pictures of 8 bits and at most three bands;
    others are served as float32 and each band is brought to mean 0 and variance 1 by what it has in these images where
    `known`, bool [N, H, W], is true."""
    if images.dtype == np.uint8 and images.shape[-1] <= 3:
        return preprocessing
    mean, deviation = [], []
    for number in range(images.shape[-1]):  # one at a time: sums in float64 take room
        band = images[..., number][known]
        mean.append(float(band.mean(dtype=np.float64)))
        deviation.append(float(band.std(dtype=np.float64)) or 1.0)
    return dataclasses.replace(preprocessing, mean=tuple(mean), deviation=tuple(deviation), dtype="float32")


def to_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Images [B, H, W, C] with grey made colour or colour made grey.

    Raises:
        ZooError: for any other change of the number of channels.
    """
    check_channels(images.shape[-1], channels)
    if images.shape[-1] == channels:
        return images
    return tf.image.rgb_to_grayscale(images) if channels == 1 else tf.image.grayscale_to_rgb(images)


def check_channels(given: int, wanted: int) -> None:
    """Raises ZooError unless the channels are the same, or grey and colour, of which one can be made the other."""
    if given != wanted and {given, wanted} != {1, 3}:
        raise ZooError(f"images have {given} channels, the network takes {wanted}")


def apply(images: tf.Tensor, preprocessing: Preprocessing, channels: int) -> tf.Tensor:
    """Images [B, H, W, C], values 0..`full_scale`, to the network's input, float32 [B, H', W', channels]."""
    images = tf.cast(to_channels(images, channels), tf.float32)
    if preprocessing.size is not None and tuple(images.shape[1:3]) != tuple(preprocessing.size):
        images = tf.image.resize(images, preprocessing.size, antialias=True)
    if preprocessing.pad_to is not None:
        (height, width), (inner_height, inner_width) = preprocessing.pad_to, preprocessing.size
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        images = tf.image.pad_to_bounding_box(images, top, left, height, width)
    if preprocessing.mean:
        return (images - tf.constant(preprocessing.mean)) / tf.constant(preprocessing.deviation)
    scale = (preprocessing.high - preprocessing.low) / preprocessing.full_scale
    return images * scale + preprocessing.low


def decode(encoded: tf.Tensor, preprocessing: Preprocessing, channels: int) -> tf.Tensor:
    """PNG or JPEG bytes, string [B], to the network's input, float32 [B, H', W', channels]; the preprocessing must
    name a size, since the pictures may have several."""
    height, width = preprocessing.pad_to or preprocessing.size

    def decode_one(data: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(data, channels=channels, expand_animations=False)
        return apply(tf.ensure_shape(image, [None, None, channels])[None], preprocessing, channels)[0]

    return tf.map_fn(decode_one, encoded, fn_output_signature=tf.TensorSpec([height, width, channels], tf.float32))
