"""Images that do not fit into memory: decoded and resized on each read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing
from zoo.data.decoding import decode_image, resized
from zoo.data.trees import Read
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf

CGROUP = Path("/sys/fs/cgroup")
PART = 256  # images that are read at once
COPIES = 3  # of images in memory while they are read and divided into splits


class Streamed:
    """Images of image files as an array uint8 [N, H, W, C] that holds none of them: it has a length, a shape and a
    type; a number gives an image, a slice or an array of positions or booleans some of them, `numpy.asarray` all.

    Args:
        reads: functions that return the bytes of the files.
        size: height and width to which they are resized.
        channels: 1 or 3.
        crop: see `zoo.data.load`.
        background: see `zoo.data.load`.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, reads: Sequence[Read], size: tuple[int, int], channels: int, *, crop: bool, background: int
    ) -> None:
        self.reads: Any = np.empty(len(reads), object)
        self.reads[:] = reads
        self.size, self.channels, self.crop, self.background = size, channels, crop, background

    def __len__(self) -> int:
        return len(self.reads)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self.reads), *self.size, self.channels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self._resized(self.reads[index])
        return self._with(self.reads[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.parts():
            yield from part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = np.empty(self.shape, np.uint8)
            for number, image in enumerate(pool.map(self._resized, self.reads)):
                images[number] = image
        return images if dtype is None else images.astype(dtype)

    def parts(self) -> Iterator[np.ndarray]:
        """All images in order, some at a time."""
        for first in range(0, len(self), PART):
            yield np.asarray(self[first : first + PART])

    def joined(self, other: Streamed) -> Streamed:
        """These images, followed by others of the same kind."""
        return self._with(np.concatenate([self.reads, other.reads]))

    def gather(self, index: tf.Tensor) -> tf.Tensor:
        """The images at positions int [B], uint8 [B, H, W, C], in the graph of a `tf.data` map."""

        def one(number: tf.Tensor) -> tf.Tensor:  # in the graph: eager calls within a map would block its threads
            pixels = tf.numpy_function(lambda place: self._pixels(self.reads[place]), [number], tf.uint8)
            image = tf.ensure_shape(pixels, [None, None, self.channels])[None]
            if self.crop:
                image = preprocessing.crop_to_proportions(image, self.size)
            return tf.cast(tf.round(preprocessing.resize(image, self.size)[0]), tf.uint8)

        return tf.map_fn(one, index, fn_output_signature=tf.TensorSpec(self.shape[1:], tf.uint8))

    def _with(self, reads: np.ndarray) -> Streamed:
        return Streamed(reads.tolist(), self.size, self.channels, crop=self.crop, background=self.background)

    def _pixels(self, read: Read) -> np.ndarray:
        pixels = decode_image(read(), self.background).pixels
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], self.channels)))

    def _resized(self, read: Read) -> np.ndarray:
        image = resized(decode_image(read(), self.background).pixels, self.size, crop=self.crop)
        return np.broadcast_to(image, (*self.size, self.channels))


def in_graph(array: np.ndarray | Streamed) -> Any:
    """An array as `gather` takes it: a constant, which is copied once, or the images as they are."""
    return array if isinstance(array, Streamed) else tf.constant(array)


def gather(array: Any, index: tf.Tensor) -> tf.Tensor:
    """The rows of an array of `in_graph` at positions int [B]."""
    return array.gather(index) if isinstance(array, Streamed) else tf.gather(array, index)


def budget() -> int:
    """Bytes that decoded images may take: ZOO_CACHE_GB, or half of the memory that is free.

    Raises:
        ZooError: for a value of ZOO_CACHE_GB that is no number from 0 on.
    """
    given = os.environ.get("ZOO_CACHE_GB")
    if not given:
        return _free_memory() // 2
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = -1.0
    if not gigabytes >= 0:
        raise ZooError(f"ZOO_CACHE_GB must be a number of gigabytes from 0 on, not {given!r}")
    return int(gigabytes * 1e9)


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine's, and of its container's (cgroup v2)."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux: all that there is
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        most, taken = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return free
    return min(free, max(most - taken, 0))
