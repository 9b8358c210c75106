"""Images too large to hold, read window by window, and results written so: .npy, GeoTIFF; PNG and JPEG as a whole."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.decoding import decode_raw, import_rasterio
from zoo.errors import ZooError
from zoo.files import written

GDAL_CACHE = 64 * 2**20  # bytes; GDAL's own default is a twentieth of the machine's memory
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}  # Pillow's formats by suffix
TIFFS = (".tif", ".tiff")

Read = Callable[[slice, slice], np.ndarray]
Write = Callable[[slice, slice, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image of which windows are read.

    Attributes:
        name: what it is called in errors.
        shape: height and width in pixels, channels.
        read: rows and columns, both slices with a start and an end, to an array [h, w, C] of its own.
        georeference: `crs` and `transform` of a GeoTIFF, in rasterio's terms; empty for others.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    read: Read
    georeference: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_scene(source: Any) -> Scene:
    """An array [H, W, C] or [H, W], or the path of a .npy, GeoTIFF, PNG or JPEG file, to be read in windows.

    Pictures of PNG and JPEG are decoded as a whole: as they are stored, not turned by EXIF, without transparency.

    Raises:
        ZooError: for a file that is missing, of another kind or cut short, and an array of another shape.
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
        # mapped anew for each window: what a mapping has touched counts as the process's memory until it is closed
        return _scene(str(path), lambda: _load_npy(path))
    if suffix in PICTURES:
        picture = _load_picture(path)
        return _scene(str(path), lambda: picture)
    raise ZooError(f"{path} is of no known form: give {', '.join(('.npy', *TIFFS, *PICTURES))}")


def check_target(path: str | os.PathLike, suffixes: Collection[str], source: Any) -> Path:
    """The path to write to.

    Raises:
        ZooError: for a path with another suffix, in no folder, or of the source itself.
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
    """Make a .npy file of zeros; raises OSError for a full disk, which would kill a process that writes to a map."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)


@contextlib.contextmanager
def new_raster(path: Path, shape: tuple[int, ...], dtype: np.dtype, georeference: Mapping[str, Any]) -> Iterator[Write]:
    """Writes windows of a raster [H, W] or [H, W, K]; the file is there once all are written, or not at all.

    Args:
        path: ends with .npy, .tif or .png; the last holds one band, in memory until the end.
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
            about = {"height": height, "width": width, "count": bands, "dtype": np.dtype(dtype).name, **georeference}
            with _gdal() as gdal, gdal.open(
                temporary, "w", driver="GTiff", compress="deflate", bigtiff="if_safer", **about
            ) as target:  # fmt: skip

                def write(rows: slice, columns: slice, values: np.ndarray) -> None:
                    bands = np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)
                    target.write(bands, window=((rows.start, rows.stop), (columns.start, columns.stop)))

                yield write
            try:
                _open_tiff(temporary)
            except ZooError:  # GDAL closes a file without an error whether or not there was room for its last blocks
                raise OSError("not all could be written: make room on the disk") from None
        else:
            temporary.touch()  # what cannot be written is found out before anything is computed
            picture = np.zeros(shape, dtype)
            yield lambda rows, columns, values: picture.__setitem__((rows, columns), values)
            Image.fromarray(picture).save(temporary, PICTURES[suffix])


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
        raise ZooError(f"{path} is no readable .npy file or is cut short: {error}") from None


def _load_picture(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return decode_raw(path.read_bytes())[0]
    except Image.DecompressionBombError:
        raise ZooError(f"{path} is too large to be decoded as a whole: give it as .npy or GeoTIFF") from None
    except Exception:  # a broken file makes Pillow raise errors of a dozen kinds
        raise ZooError(f"{path} is no readable picture or is cut short: give a PNG or JPEG file") from None


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
        except gdal.errors.RasterioIOError as error:
            raise ZooError(f"{path} is no readable TIFF file or is cut short: {error}") from None
        if len(dataset.subdatasets) > 1:
            raise ZooError(f"{path} has {len(dataset.subdatasets)} pages: write each to a file of its own")
        if _end_of_blocks(dataset) > path.stat().st_size:
            raise ZooError(f"{path} is cut short: it ends before its last block; fetch or write it again")

    def read(rows: slice, columns: slice) -> np.ndarray:
        with _gdal() as gdal:
            try:
                bands = dataset.read(window=((rows.start, rows.stop), (columns.start, columns.stop)))
            except gdal.errors.RasterioIOError as error:
                raise ZooError(f"{path} cannot be read, it is damaged or cut short: {error}") from None
        return np.moveaxis(bands, 0, -1)

    georeference = {"crs": dataset.crs, "transform": dataset.transform}
    return Scene(str(path), (*dataset.shape, dataset.count), np.dtype(dataset.dtypes[0]), read, georeference)


def _end_of_blocks(dataset: Any) -> int:
    """The first byte after all blocks of pixels."""
    ends = [0]
    for band, (height, width) in zip(dataset.indexes, dataset.block_shapes, strict=True):
        for row in range(math.ceil(dataset.height / height)):
            for column in range(math.ceil(dataset.width / width)):
                block = f"{column}_{row}"
                offset = dataset.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx=band)
                if offset is not None:  # a block of zeros alone may be left out
                    ends.append(int(offset) + int(dataset.get_tag_item(f"BLOCK_SIZE_{block}", "TIFF", bidx=band)))
    return max(ends)
