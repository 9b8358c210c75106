"""From images to a network's input, in the graph: the same operations in training and in serving.

Only operations that OpenVINO, LiteRT and ONNX have too, and no control flow: a `tf.cond` that skips the resizing of
images of the right size makes OpenVINO 2026.4 return NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epy

from zoo import exif
from zoo.errors import ZooError
from zoo.spec import Preprocessing

with epy.lazy_imports():
    import tensorflow as tf

# What the graph of a served network decodes, for its metadata: TensorFlow has no decoder for other formats.
ENCODED = {
    "formats": ["PNG", "JPEG", "GIF", "WEBP", "BMP of 24 or 32 bits"],
    "exif_orientation": "applied to JPEG",
    "16_bits": "the upper 8 are used",
    "animation": "the first frame",
}
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # first bytes
MOST_PIXELS = 2**26  # of the images of one call
BAND = 16  # outputs of one product in `resize`: one product for a whole large image would mostly multiply by zeros


def for_input(preprocessing: Preprocessing, spec_shape: tuple, input_shape: tuple) -> Preprocessing:
    """The preprocessing for a network that was built for another input shape: the same margin around another size."""
    if preprocessing.size is None or tuple(spec_shape[:2]) == tuple(input_shape[:2]):
        return preprocessing
    margin = [outer - inner for outer, inner in zip(spec_shape[:2], preprocessing.size, strict=True)]
    size, sides = (input_shape[0] - margin[0], input_shape[1] - margin[1]), tuple(input_shape[:2])
    if preprocessing.crop_to is not None:
        return dataclasses.replace(preprocessing, size=size, crop_to=sides)
    return dataclasses.replace(preprocessing, size=size, pad_to=sides if any(margin) else None)


def for_channels(preprocessing: Preprocessing, channels: int | None) -> Preprocessing:
    """The preprocessing for images of another number of channels: the average of mean and std in each of them."""
    if channels is None or len(preprocessing.mean) in (0, channels):
        return preprocessing
    mean, std = ((sum(values) / len(values),) * channels for values in (preprocessing.mean, preprocessing.std))
    return dataclasses.replace(preprocessing, mean=mean, std=std)


def for_bands(preprocessing: Preprocessing, images: np.ndarray, known: np.ndarray) -> Preprocessing:
    """The preprocessing for images of any type and number of bands.

    It stays as it is for 8-bit images of at most three bands. Others are served as float32, and each band is normalized
    to mean 0 and variance 1.

    Args:
        images: [N, H, W, C].
        known: bool [N, H, W], the pixels that mean and variance are measured on.
    """
    if images.dtype == np.uint8 and images.shape[-1] <= 3:
        return preprocessing
    mean, std = [], []
    for number in range(images.shape[-1]):  # one band at a time: sums in float64 need memory
        band = images[..., number][known]
        mean.append(float(band.mean(dtype=np.float64)))
        std.append(float(band.std(dtype=np.float64)) or 1.0)
    return dataclasses.replace(preprocessing, mean=tuple(mean), std=tuple(std), dtype="float32")


def resize(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Images resized by bilinear interpolation with antialiasing, as by `tf.image.resize(..., antialias=True)`.

    Images that already have the size come back with exactly their values.

    Args:
        images: numbers [B, H, W, C] of any type; H and W are at least 1 and may be unknown in the graph.
        size: height and width in pixels; each times the images' own must be below 2**30.

    Returns:
        float32 [B, height, width, C].
    """
    if tuple(images.shape[1:3]) == tuple(size):
        return tf.cast(images, tf.float32)
    height, width = size
    channels, shape = images.shape[-1], tf.shape(images)
    inputs = [shape[axis] if images.shape[axis] is None else images.shape[axis] for axis in (1, 2)]
    rows = tf.reshape(images, [shape[0], shape[1], shape[2] * channels])
    rows = tf.concat(
        [
            tf.matmul(weights, tf.cast(rows[:, first:end], tf.float32))
            for first, end, weights in _bands(inputs[0], height)
        ],
        axis=1,
    )
    columns = tf.reshape(rows, [shape[0] * height, shape[2] * channels])
    same_channel = tf.constant(np.eye(channels, dtype=np.float32)[:, None, :])
    products = []
    for first, end, weights in _bands(inputs[1], width):  # with zeros between channels: faster than moving the axes
        weights = tf.reshape(weights[:, None, :, None] * same_channel, [-1, (end - first) * channels])
        products.append(tf.matmul(columns[:, first * channels : end * channels], weights, transpose_b=True))
    return tf.reshape(tf.concat(products, axis=1), [shape[0], height, width, channels])


def crop_to_proportions(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The middle of images [B, H, W, C], as large as fits into them with the proportions of (height, width)."""
    known = None not in images.shape[1:3]
    height, width = images.shape[1:3] if known else tf.unstack(tf.shape(images)[1:3])
    least, most = (min, max) if known else (tf.minimum, tf.maximum)
    down = least(height, most(width * size[0] // size[1], 1))
    across = least(width, most(height * size[1] // size[0], 1))
    top, left = (height - down) // 2, (width - across) // 2
    return images[:, top : top + down, left : left + across]


def _bands(inputs: int | tf.Tensor, outputs: int) -> list[tuple[Any, Any, Any]]:
    """The resizing of one side from `inputs` to `outputs` pixels, `BAND` outputs at a time.

    An input pixel's weight falls linearly from 1 at the output pixel's center to 0 at a distance of one pixel, measured
    in the larger of the two kinds of pixels. The weights of an output sum to 1. Distances are integers in units of
    1 / (2 * outputs) input pixels, so weights are as exact as float32 can be, and 0 or 1 where the sizes are equal.

    Returns:
        For each band the first and the end of the inputs that the outputs need, and their weights, float32 [outputs,
        inputs]; arrays for a side of known size, which stand in the graph as constants.
    """
    if isinstance(inputs, int):
        with tf.init_scope():
            return [(int(first), int(end), band.numpy()) for first, end, band in _bands(tf.constant(inputs), outputs)]
    reach = 2 * tf.maximum(inputs, outputs)
    centers = 2 * np.arange(outputs, dtype=np.int32) + 1
    distances = (2 * tf.range(inputs) + 1) * outputs - centers[:, None] * inputs
    weights = tf.maximum(0.0, 1 - tf.cast(tf.abs(distances), tf.float32) / tf.cast(reach, tf.float32))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    lowest, highest = centers[::BAND], np.minimum(centers[::BAND] + 2 * (BAND - 1), centers[-1])
    firsts = tf.unstack(tf.maximum((lowest * inputs - reach) // (2 * outputs), 0))
    ends = tf.unstack(tf.minimum((highest * inputs + reach) // (2 * outputs) + 1, inputs))
    bands = tf.split(weights, list((highest - lowest) // 2 + 1))
    return [(first, end, band[:, first:end]) for first, end, band in zip(firsts, ends, bands, strict=True)]


def to_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Images [B, H, W, C] converted from gray to color or from color to gray.

    Raises:
        ZooError: for any other change of the number of channels.
    """
    check_channels(images.shape[-1], channels)
    if images.shape[-1] == channels:
        return images
    convert = tf.image.rgb_to_grayscale if channels == 1 else tf.image.grayscale_to_rgb
    return convert(tf.convert_to_tensor(images))


def check_channels(given: int, wanted: int) -> None:
    """Raises ZooError unless the channels are the same, or gray and color, which are converted into each other."""
    if given != wanted and {given, wanted} != {1, 3}:
        raise ZooError(f"images have {given} channels, the network takes {wanted}")


def apply(images: tf.Tensor, preprocessing: Preprocessing, channels: int) -> tf.Tensor:
    """Images [B, H, W, C], values 0..`full_scale`, to the network's input, float32 [B, H', W', channels]."""
    images = to_channels(images, channels)
    if preprocessing.size is not None:
        if preprocessing.fit == "crop":
            images = crop_to_proportions(images, preprocessing.size)
        images = resize(images, preprocessing.size)
    images = tf.cast(images, tf.float32)
    if preprocessing.crop_to is not None:
        (height, width), (top, left) = preprocessing.crop_to, _margins(images.shape[1:3], preprocessing.crop_to)
        images = images[:, top : top + height, left : left + width]
    if preprocessing.pad_to is not None:
        margins = [outer - inner for outer, inner in zip(preprocessing.pad_to, images.shape[1:3], strict=True)]
        images = tf.pad(images, [(0, 0), *((margin // 2, margin - margin // 2) for margin in margins), (0, 0)])
    if preprocessing.mean:
        return (images - tf.constant(preprocessing.mean)) / tf.constant(preprocessing.std)
    scale = (preprocessing.high - preprocessing.low) / preprocessing.full_scale
    return images * scale + preprocessing.low


def _margins(outer: Iterable[int], inner: Iterable[int]) -> tuple[int, ...]:
    """Pixels above and on the left of a window in the middle."""
    return tuple((whole - part) // 2 for whole, part in zip(outer, inner, strict=True))


def decode(encoded: tf.Tensor, preprocessing: Preprocessing, channels: int) -> tf.Tensor:
    """The bytes of image files, string [B], to the network's input, float32 [B, H', W', channels].

    The images may have several sizes if the preprocessing has one. `ENCODED` says what the graph decodes; the pixels
    are those of `zoo.data.decoding.decode_image`.
    The call fails for an image of more than `MOST_PIXELS`: PNG and JPEG files are not decoded then.
    """
    height, width = preprocessing.pad_to or preprocessing.crop_to or preprocessing.size or (None, None)

    def decode_one(data: tf.Tensor) -> tf.Tensor:
        file = _small(data, _pixels_in_header(data))
        image = tf.cond(
            _starts(data, JPEG),  # the method is Pillow's: another one differs in a few gray values
            lambda: exif.upright(tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE"), data),
            lambda: tf.io.decode_image(file, expand_animations=False),
        )
        image = tf.ensure_shape(image, [None, None, None])
        image = tf.cast(_small(image, tf.reduce_prod(tf.cast(tf.shape(image)[:2], tf.int64))), tf.int32)
        stored = tf.shape(image)[2]  # gray, gray with alpha, RGB, RGB with alpha
        has_alpha = tf.equal(stored % 2, 0)
        alpha = tf.where(has_alpha & ~_starts(data, b"BM"), image[..., -1:], 255)  # BMP: unused bytes
        color = image[..., : stored - tf.cast(has_alpha, tf.int32)]
        color = (color * alpha + preprocessing.background * (255 - alpha) + 127) // 255
        gray = color[..., :1]
        rgb = color + tf.zeros([3], tf.int32)
        if channels == 3:
            image = rgb
        else:  # gray is gray already, and the weights of the conversion do not add up to 1
            converted = tf.cast(to_channels(tf.cast(rgb, tf.uint8), 1), tf.int32)
            image = tf.where(stored < 3, gray, converted)
        image = tf.ensure_shape(image, [None, None, channels])
        return apply(image[None], preprocessing, channels)[0]

    return tf.map_fn(decode_one, encoded, fn_output_signature=tf.TensorSpec([height, width, channels], tf.float32))


def _small(value: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """The value, where the image has not too many pixels; the call fails otherwise."""
    message = f"an image has more than {MOST_PIXELS} pixels"
    with tf.control_dependencies([tf.debugging.Assert(pixels <= MOST_PIXELS, [message])]):
        return tf.identity(value)


def _pixels_in_header(data: tf.Tensor) -> tf.Tensor:
    """The pixels of a PNG or JPEG file by its header, int64; 0 for other formats and damaged headers."""

    def png() -> tf.Tensor:  # width and height are bytes 16 to 23 (PNG specification, section 11.2.1)
        return tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)

    def jpeg() -> tf.Tensor:
        return tf.image.extract_jpeg_shape(data)[:2]

    def none() -> tf.Tensor:
        return tf.zeros([2], tf.int32)

    is_png = _starts(data, PNG) & (tf.strings.length(data) >= 24)
    sides = tf.cond(is_png, png, lambda: tf.cond(_starts(data, JPEG), jpeg, none))
    return tf.reduce_prod(tf.cast(sides, tf.int64))


def _starts(data: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.strings.substr(data, 0, len(start)) == start
