"""Large images, read and written window by window as .npy or GeoTIFF, or as a whole in other formats."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from etils import epy

from zoo.data.decoding import (
    IMAGE_FORMATS,
    UNREADABLE,
    WHITE,
    Unusable,
    decode_raw,
    import_rasterio,
    tiff_orientation,
)
from zoo.errors import ZooError, note
from zoo.exif import TURNS
from zoo.files import written

with epy.lazy_imports():
    from PIL import Image

GDAL_CACHE = 64 * 2**20  # bytes; GDAL's own default is 5 % of the machine's memory
PILLOW_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}  # by suffix
TIFFS = (".tif", ".tiff")

Read = Callable[[slice, slice], np.ndarray]
Write = Callable[[slice, slice, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image that is read in windows.

    Attributes:
        name: its name in errors.
        shape: height and width in pixels, channels.
        dtype: type of its values.
        read: maps rows and columns, two slices with a start and an end, to a new array [h, w, C].
        georeference: `crs` and `transform` of a GeoTIFF file, as rasterio defines them; empty for other images.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    read: Read
    georeference: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_scene(source: Any, background: int = WHITE) -> Scene:
    """An image to be read in windows.

    Args:
        source: an array [H, W, C] or [H, W], or the path of a .npy or GeoTIFF file, or of an image file, which is
            decoded as a whole, see `zoo.data.decoding.decode_bands`.
        background: gray value from 0 to 255 that transparent pixels of image files show.

    Raises:
        ZooError: for a missing or truncated file, another file format, and an array of another shape.
    """
    if not isinstance(source, str | os.PathLike):
        array = np.asarray(source)
        return _scene("the scene", lambda: array)
    path = Path(source)
    if not path.is_file():
        raise ZooError(f"no file {path}")
    suffix = path.suffix.lower()
    if suffix in TIFFS:
        return _open_tiff(path)
    if suffix == ".npy":
        # mapped again for each window: touched pages count as the process's memory until their mapping is closed
        return _scene(str(path), lambda: _load_npy(path))
    image = _load_image(path, background)
    return _scene(str(path), lambda: image)


def check_target(path: str | os.PathLike, suffixes: Collection[str], source: Any) -> Path:
    """The path of a file to write.

    Args:
        path: the path as given by the user.
        suffixes: the allowed ones.
        source: the image, as for `open_scene`, which must not be overwritten.

    Raises:
        ZooError: for another suffix, a missing folder, and the path of the source itself.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ZooError(f"cannot write {path}: its name must end with {' or '.join(suffixes)}")
    if not path.parent.is_dir() or path.is_dir():
        raise ZooError(f"cannot write {path}: {'it is a folder' if path.is_dir() else f'no folder {path.parent}'}")
    if isinstance(source, str | os.PathLike) and path.resolve() == Path(source).resolve():
        raise ZooError(f"cannot write {path}: it is the image itself")
    return path


def reserve_npy(path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    """Create a .npy file of zeros. Raises OSError for a full disk, which would kill a process that writes to a mapped
    file."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)


@contextlib.contextmanager
def new_raster(path: Path, shape: tuple[int, ...], dtype: np.dtype, georeference: Mapping[str, Any]) -> Iterator[Write]:
    """A function that writes windows of a raster; the file exists once all are written, or not at all.

    Args:
        path: ends with .npy, .tif, .tiff or .png. A PNG file has one band, which is in memory until the end.
        shape: [H, W] or [H, W, K].
        dtype: type of its values.
        georeference: see `Scene`, for a GeoTIFF file.

    Raises:
        ZooError: for a file that cannot be written.
    """
    suffix = path.suffix.lower()
    with written(path) as temporary:
        if suffix == ".npy":
            reserve_npy(temporary, shape, dtype)

            def write(rows: slice, columns: slice, values: np.ndarray) -> None:
                np.load(temporary, mmap_mode="r+")[rows, columns] = values

            yield write
        elif suffix in TIFFS:
            height, width, bands = (*shape, 1)[:3]
            profile = {"height": height, "width": width, "count": bands, "dtype": np.dtype(dtype).name, **georeference}
            with _gdal() as gdal, gdal.open(
                temporary, "w", driver="GTiff", compress="deflate", bigtiff="if_safer", **profile
            ) as target:  # fmt: skip

                def write(rows: slice, columns: slice, values: np.ndarray) -> None:
                    bands = np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)
                    target.write(bands, window=((rows.start, rows.stop), (columns.start, columns.stop)))

                yield write
            try:
                _open_tiff(temporary)
            except ZooError:  # GDAL reports no error if there is no room for the last blocks of a file
                raise OSError("the file is incomplete: free some disk space") from None
        else:
            temporary.touch()  # an unwritable path fails before anything is computed
            image = np.zeros(shape, dtype)
            yield lambda rows, columns, values: image.__setitem__((rows, columns), values)
            Image.fromarray(image).save(temporary, PILLOW_FORMATS[suffix])


def _scene(name: str, load: Callable[[], np.ndarray]) -> Scene:
    array = load()
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ZooError(f"{name} must be an image [H, W, C] or [H, W], not an array of shape {array.shape}")

    def read(rows: slice, columns: slice) -> np.ndarray:
        window = np.array(load()[rows, columns])
        return window.reshape(*window.shape[:2], -1)

    return Scene(name, (*array.shape, 1)[:3], array.dtype, read)


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, "r")  # refuses Python objects
    except (ValueError, EOFError, OSError) as error:
        raise ZooError(f"{path} is not a readable .npy file or is truncated: {error}") from None


def _load_image(path: Path, background: int) -> np.ndarray:
    formats = ", ".join(("npy", "GeoTIFF", *IMAGE_FORMATS))
    try:
        decoded = decode_raw(path.read_bytes(), background)
    except Unusable as error:
        raise ZooError(f"{path} is not a usable image ({error}): give one of {formats}") from None
    except ZooError:
        raise
    except Exception:  # for a broken file Pillow raises a dozen kinds of errors
        raise ZooError(f"{path} is not a usable image ({UNREADABLE}): give one of {formats}") from None
    for change in decoded.notes:
        note(f"{path}: {change}")
    return decoded.pixels


@contextlib.contextmanager
def _gdal() -> Iterator[ModuleType]:
    """rasterio, with a small block cache."""
    rasterio = import_rasterio()
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        yield rasterio


def _open_tiff(path: Path) -> Scene:
    with _gdal() as gdal:
        try:
            dataset = gdal.open(path, driver="GTiff")
            with path.open("rb") as file:
                turned = tiff_orientation(file) in TURNS
        except gdal.errors.RasterioIOError as error:
            raise ZooError(f"{path} is not a readable TIFF file or is truncated: {error}") from None
        if len(dataset.subdatasets) > 1:
            raise ZooError(f"{path} has {len(dataset.subdatasets)} pages: write each to its own file")
        if _end_of_blocks(dataset) > path.stat().st_size:
            raise ZooError(f"{path} is truncated, it ends before its last block: download or write it again")
    if turned:
        image = _load_image(path, WHITE)
        return _scene(str(path), lambda: image)

    def read(rows: slice, columns: slice) -> np.ndarray:
        with _gdal() as gdal:
            try:
                bands = dataset.read(window=((rows.start, rows.stop), (columns.start, columns.stop)))
            except gdal.errors.RasterioIOError as error:
                raise ZooError(f"{path} cannot be read, it is damaged or truncated: {error}") from None
        return np.moveaxis(bands, 0, -1)

    georeference = {"crs": dataset.crs, "transform": dataset.transform}
    return Scene(str(path), (*dataset.shape, dataset.count), np.dtype(dataset.dtypes[0]), read, georeference)


def _end_of_blocks(dataset: Any) -> int:
    """Position of the first byte after all blocks of pixels."""
    ends = [0]
    for band, (height, width) in zip(dataset.indexes, dataset.block_shapes, strict=True):
        for row in range(math.ceil(dataset.height / height)):
            for column in range(math.ceil(dataset.width / width)):
                block = f"{column}_{row}"
                offset = dataset.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx=band)
                if offset is not None:  # a file may leave out blocks of zeros
                    ends.append(int(offset) + int(dataset.get_tag_item(f"BLOCK_SIZE_{block}", "TIFF", bidx=band)))
    return max(ends)
