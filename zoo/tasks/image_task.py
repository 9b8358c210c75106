"""What tasks on images share."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.data.arrays import as_images
from zoo.data.decoding import WHITE, Decoded, Unusable, composited, decode_image, pixels_of
from zoo.data.images import image_files
from zoo.data.trees import Read
from zoo.errors import ZooError, listed
from zoo.recipe import Augmentation
from zoo.spec import ModelSpec, Preprocessing
from zoo.tasks.base import Item, Task, checked

with epy.lazy_imports():
    import keras
    import tensorflow as tf
    from PIL import Image

    from zoo.data import augmentation as augmentation_ops
    from zoo.tasks import pictures

MOST_NUMBERS = 2**27  # in the outputs of a layer for one call: 0.5 GB
MOST_PIXELS_OF_ANY_SIZE = 2**21  # of the images of one call, where the network takes them as they are

Move = Callable[[Any, Any], tuple[Any, Any]]  # images and their masks or None, each example by a map of its own


class ImageTask(Task):
    """What tasks on images share: shapes, augmentation, example files."""

    dtypes: ClassVar[tuple[str, ...]] = ("uint8",)  # of the images that it takes
    one_class_each: ClassVar[bool] = False  # whether an example is an image and its class, as cutout and mixup need it
    has_masks: ClassVar[bool] = False  # whether the second array of an example is a mask that moves with its image

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        channels = self.input_shape[-1]
        assert channels is not None, "a network of images knows its channels"
        return channels

    @classmethod
    def check_inputs(cls, data: Dataset) -> None:
        dtype = data.first.inputs.dtype
        if dtype.kind in "OU":
            raise ZooError(f"data set {data.name} contains texts, the network takes images")
        if dtype.name not in cls.dtypes:
            raise ZooError(f"data set {data.name} has {dtype.name} images, the network takes {' or '.join(cls.dtypes)}")

    def serving_inputs(self, split: Split) -> np.ndarray:
        return np.asarray(pre.to_channels(split.inputs, self.channels)).astype(self.preprocessing.dtype, copy=False)

    def augment(
        self, batch: tuple, seed: tf.Tensor, augmentation: Augmentation, copy: tf.Tensor, turn: tf.Tensor
    ) -> tuple:
        if augmentation.expand_shift:
            batch = self._moved(batch, lambda images, masks: augmentation_ops.shift_expansion(images, masks, copy))
        images, *rest = batch
        images = tf.cast(images, tf.float32)
        if augmentation.color_jitter:
            images = augmentation_ops.color_jitter(images, seed, augmentation.color_jitter)
        if augmentation.color_pca:
            images = augmentation_ops.color_pca(images, seed, augmentation.color_pca)
        window = self.preprocessing.crop_to
        # in pixels of the resized image, which this one may not be yet
        if window and self.preprocessing.size and None not in images.shape[1:3]:
            sides = zip(window, images.shape[1:3], self.preprocessing.size, strict=True)
            window = tuple(part * side / whole for part, side, whole in sides)

        def move(images: tf.Tensor, masks: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
            return augmentation_ops.augment(images, masks, seed, augmentation, turn, window)

        return self._moved((images, *rest), move)

    def _moved(self, batch: tuple, move: Move) -> tuple:
        """A batch with its images, and what belongs to their pixels, moved."""
        images, *rest = batch
        return (move(images, None)[0], *rest)

    def items(self, given: Any) -> list[Item]:
        """Images of files, of the files of folders, and those that wildcards match; of bytes, of Pillow and in arrays
        [H, W], [H, W, C], [N, H, W] or [N, H, W, C]; and lists of them."""
        items: list[Item] = []
        missing: list[str] = []
        self._collect(given, items, missing)
        if missing:
            raise ZooError(f"no file {listed(missing)}")
        return items

    def _collect(self, given: Any, items: list[Item], missing: list[str]) -> None:
        if isinstance(given, str | os.PathLike):
            path = os.fspath(given)
            files = image_files(path)
            missing += [] if files else [f"in {path}" if Path(path).is_dir() else path]
            items += [Item(name, functools.partial(self._from_file, read), name != path) for name, read in files]
        elif isinstance(given, bytes | bytearray):
            items.append(Item(f"image {len(items)}", functools.partial(self._from_file, lambda: bytes(given))))
        elif isinstance(given, Image.Image):
            decoded = pixels_of(given.copy(), self.preprocessing.background, deep=self.preprocessing.dtype != "uint8")
            items.append(Item(f"image {len(items)}", functools.partial(self._prepared, decoded)))
        elif isinstance(given, Iterable) and not hasattr(given, "__array__"):
            for one in given:
                self._collect(one, items, missing)
        else:
            for pixels in as_images(np.asarray(given), deep=self.preprocessing.dtype != "uint8"):
                items.append(Item(f"image {len(items)}", functools.partial(self._prepared, Decoded(pixels))))

    def _from_file(self, read: Read) -> tuple[np.ndarray, tuple[str, ...]]:
        return self._prepared(self.decode(read()))

    def decode(self, data: bytes) -> Decoded:
        """The image in the bytes of a file."""
        return decode_image(data, self.preprocessing.background)

    def _prepared(self, decoded: Decoded) -> tuple[np.ndarray, tuple[str, ...]]:
        """An image [H, W, C] as `serving_default` takes it, and what the reader changed."""
        pixels = decoded.pixels
        if self.preprocessing.dtype == "uint8" != pixels.dtype.name:
            raise Unusable(f"{pixels.dtype.name} values, the network takes uint8")
        if pixels.dtype == np.uint8 and pixels.shape[-1] in (2, 4) and self.channels in (1, 3):
            pixels = composited(pixels, self.preprocessing.background)
        if pixels.shape[-1] != self.channels and {pixels.shape[-1], self.channels} != {1, 3}:
            raise Unusable(f"{pixels.shape[-1]} channels, the network takes {self.channels}")
        return self.serving_inputs(Split(pixels[None]))[0], decoded.notes

    def bounded(self, inputs: tf.Tensor, model: keras.Model) -> tf.Tensor:
        """The inputs of a call, [B, ...], where they are not too many: the call fails otherwise, before it computes."""
        most = MOST_NUMBERS // widest(self.served(model))
        fits, message = tf.shape(inputs)[0] <= most, f"a call takes at most {most} images"
        if inputs.shape.rank == 4:
            pixels = MOST_PIXELS_OF_ANY_SIZE if None in self.input_shape else pre.MOST_PIXELS
            fits &= tf.reduce_prod(tf.cast(tf.shape(inputs)[:3], tf.int64)) <= pixels
            message += f", together {pixels} pixels"
        return checked(inputs, fits, message)

    def example(self, split: Split, directory: Path) -> str:
        image = split.inputs[0]
        if image.dtype != np.uint8 or image.shape[-1] not in (1, 3):
            return ""
        path = directory / "example.png"
        pictures.as_image(image).save(path)
        return str(path)

    def golden_images(self, count: int, seed: int = 0) -> np.ndarray:
        """Random images [count, H, W, C] of the type and size that the preprocessing produces; for another seed than 0
        of any size up to twice that."""
        size = self.preprocessing.size or (20, 28)  # no multiple of 8: odd feature maps are compared too
        generator = np.random.default_rng(seed)
        if seed:
            size = tuple(generator.integers(1, 2 * np.array(size), endpoint=True))
        shape = (count, *size, self.channels)
        if self.preprocessing.dtype == "float32":
            return generator.normal(self.preprocessing.mean, self.preprocessing.std, shape).astype(np.float32)
        return generator.integers(0, 256, shape, dtype=np.uint8)


def widest(model: keras.Model) -> int:
    """The largest number of outputs that a layer has for one example; axes without a fixed length count once."""
    parts = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    nodes = [node for operation in model.operations for node in operation._inbound_nodes]  # a shared layer has several
    shapes = [tensor.shape for node in nodes for tensor in node.output_tensors]
    return max([*map(widest, parts), *(math.prod(axis or 1 for axis in shape[1:]) for shape in shapes)])


def image_shape(
    spec: ModelSpec, input_shape: tuple | None, channels: int | None = None, background: int = WHITE
) -> tuple[tuple[int | None, ...], Preprocessing]:
    """The network's input shape and the preprocessing that leads to it from images of so many channels, which may be
    transparent.

    Raises:
        ZooError: for channels that cannot be converted to the network's.
    """
    shape = tuple(input_shape or spec.input_shape)
    pre.check_channels(channels or shape[-1], shape[-1])
    preprocessing = pre.for_channels(pre.for_input(spec.preprocessing, spec.input_shape, shape), shape[-1])
    return shape, dataclasses.replace(preprocessing, background=background)


def image_size(spec: ModelSpec, input_shape: tuple | None) -> tuple[int, int] | None:
    """Height and width, in pixels, to which image files of other sizes are resized as they are read: the size that the
    serving graph resizes to. None for texts, and for networks that take any size."""
    if len(spec.input_shape) != 3:
        return None
    shape, preprocessing = image_shape(spec, input_shape)
    height, width = preprocessing.size or shape[:2]
    return None if height is None or width is None else (height, width)
