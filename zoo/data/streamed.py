"""Images that do not fit into memory: decoded and resized on each read."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing
from zoo.data.decoding import UNREADABLE, Unusable, decode_image, resized
from zoo.data.trees import Read
from zoo.errors import ZooError, note

with epy.lazy_imports():
    import tensorflow as tf

CGROUP = Path("/sys/fs/cgroup")
PART = 256  # images that are read at once
COPIES = 3  # of images in memory while they are read and divided into splits


class Streamed:
    """Images of image files as an array uint8 [N, H, W, C] that holds none of them: it has a length, a shape and a
    type; a number gives an image, a slice or an array of positions or booleans some of them, `numpy.asarray` all.

    Args:
        files: names of the files and functions that return their bytes.
        size: height and width to which they are resized.
        channels: 1 or 3.
        crop: see `zoo.data.load`.
        background: see `zoo.data.load`.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, files: Iterable[tuple[str, Read]], size: tuple[int, int], channels: int, *, crop: bool, background: int
    ) -> None:
        self.files: Any = np.fromiter(files, object)
        self.size, self.channels, self.crop, self.background = size, channels, crop, background

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self.files), *self.size, self.channels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self._resized(self.files[index])
        return self._with(self.files[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.parts():
            yield from part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = np.empty(self.shape, np.uint8)
            for number, image in enumerate(pool.map(self._resized, self.files)):
                images[number] = image
        return images if dtype is None else images.astype(dtype)

    def parts(self) -> Iterator[np.ndarray]:
        """All images in order, some at a time."""
        for first in range(0, len(self), PART):
            yield np.asarray(self[first : first + PART])

    def joined(self, other: Streamed) -> Streamed:
        """These images, followed by others of the same kind."""
        return self._with(np.concatenate([self.files, other.files]))

    def gather(self, index: tf.Tensor) -> tf.Tensor:
        """The images at positions int [B], uint8 [B, H, W, C], in the graph of a `tf.data` map."""

        def one(number: tf.Tensor) -> tf.Tensor:  # in the graph: eager calls within a map would block its threads
            pixels = tf.numpy_function(lambda place: self._in_channels(self.files[place]), [number], tf.uint8)
            image = tf.ensure_shape(pixels, [None, None, self.channels])[None]
            if self.crop:
                image = preprocessing.crop_to_proportions(image, self.size)
            return tf.cast(tf.round(preprocessing.resize(image, self.size)[0]), tf.uint8)

        return tf.map_fn(one, index, fn_output_signature=tf.TensorSpec(self.shape[1:], tf.uint8))

    def _with(self, files: np.ndarray) -> Streamed:
        return Streamed(files, self.size, self.channels, crop=self.crop, background=self.background)

    def _pixels(self, file: tuple[str, Read]) -> np.ndarray:
        name, read = file
        try:
            return decode_image(read(), self.background).pixels
        except Exception as error:  # of any kind, for a file that is broken or gone
            reason = error if isinstance(error, Unusable | OSError) else UNREADABLE
            raise ZooError(f"{name} could be read before and cannot now ({reason}): restore it") from error

    def _in_channels(self, file: tuple[str, Read]) -> np.ndarray:
        pixels = self._pixels(file)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], self.channels)))

    def _resized(self, file: tuple[str, Read]) -> np.ndarray:
        return np.broadcast_to(resized(self._pixels(file), self.size, crop=self.crop), (*self.size, self.channels))


@contextlib.contextmanager
def naming_files() -> Iterator[None]:
    """Within it, TensorFlow's error for an image that cannot be read any more is the `ZooError` that names the file."""
    try:
        yield
    except tf.errors.OpError as error:
        if found := re.search(rf"{ZooError.__name__}: (.+)", error.message):
            raise ZooError(found[1]) from error
        raise


def in_graph(array: np.ndarray | Streamed) -> Any:
    """An array as `gather` takes it: a constant, which is copied once, or the images as they are."""
    return array if isinstance(array, Streamed) else tf.constant(array)


def gather(array: Any, index: tf.Tensor) -> tf.Tensor:
    """The rows of an array of `in_graph` at positions int [B]."""
    return array.gather(index) if isinstance(array, Streamed) else tf.gather(array, index)


def exceeds_budget(count: int, size: tuple[int, int], name: str) -> bool:
    """Whether so many images of a size in pixels exceed the memory budget; prints a note if they do."""
    needed, allowed = COPIES * count * math.prod((*size, 3)), budget()
    if needed > allowed:
        note(
            f"{name}: {count} images of {size[0]} x {size[1]} pixels need {needed / 1e9:.2g} GB of memory, more than "
            f"{allowed / 1e9:.2g} GB (ZOO_CACHE_GB, or half of what is free): they are decoded again in each epoch"
        )
    return needed > allowed


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
