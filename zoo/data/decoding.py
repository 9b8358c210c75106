"""Files of pictures to arrays: what Pillow reads, TIFF of any number of bands, and .npy."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
from etils import epy

from zoo.data.trees import Read
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf
    import tqdm
    from PIL import Image

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes, of either byte order; + for files above 4 GB
NPY = b"\x93NUMPY"
PROGRESS_FROM = 2000  # a progress bar for more files than this

Size = tuple[int, int] | None
T = TypeVar("T")


class Unusable(ValueError):
    """A file that cannot be used, and why."""


def decode_all(files: Mapping[str, Read], decode: Callable[[bytes], T], title: str) -> dict[str, T | Unusable]:
    """What `decode` makes of each file by name; for those that it cannot decode the reason."""

    def decode_one(read: Read) -> T | Unusable:
        try:
            return decode(read())
        except ZooError:  # nothing that is the file's own fault
            raise
        except Unusable as error:
            return error
        except Exception:  # a broken file makes Pillow, rasterio and zipfile raise errors of a dozen kinds
            return Unusable("unreadable or cut short")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decode_one, files.values())
        bar = tqdm.tqdm(decoded, title, len(files), unit=" files", disable=len(files) <= PROGRESS_FROM)
        return dict(zip(files, bar, strict=True))


def decode_picture(data: bytes, *, indexed: bool = False) -> np.ndarray:
    """A PNG, JPEG, BMP or GIF file's first frame as uint8 [H, W, 1] or [H, W, 3], as it is stored: not turned by EXIF,
    without transparency.

    Args:
        indexed: give a palette's indices, not its colours.

    Raises:
        Exception: of any kind, for what is none, is cut short or holds grey values of more than 8 bits.
    """
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would cut the values off at 255
            raise Unusable("more than 8 bits a channel")
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))[..., None]
        if indexed and image.mode == "P" and image.format != "GIF":  # writers of GIF order the colours anew
            return np.asarray(image)[..., None]
        picture = np.asarray(image.convert("RGB"))
        grey = image.mode == "P" and (picture == picture[..., :1]).all()  # a palette is the only mode of many GIFs
        return picture[..., :1] if grey else picture


def decode_image(data: bytes) -> np.ndarray:
    """A picture, TIFF or .npy file as [H, W, C]: uint8 or uint16 where it is, any other numbers as float32.

    Raises:
        Unusable: for values that are no finite numbers, and where `decode_raw` does.
        ZooError: for a TIFF where rasterio is not installed.
        Exception: of any kind, for what is no such file or is cut short.
    """
    image, _ = decode_raw(data)
    if image.dtype in (np.uint8, np.uint16):
        return image
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    if not np.isfinite(image).all():
        raise Unusable("NaN or infinite values")
    return image


def decode_raw(data: bytes, *, indexed: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """A picture, TIFF or .npy file as it is stored, [H, W, C], and the names of its bands, () where it has none.

    Args:
        indexed: as for `decode_picture`.

    Raises:
        Unusable: for a TIFF of several pages, an .npy file of another shape, and values that are no real numbers.
        ZooError, Exception: as `decode_image`.
    """
    names: tuple[str, ...] = ()
    if data.startswith(TIFF):
        raw, names = _decode_tiff(data)
    elif data.startswith(NPY):
        raw = np.load(io.BytesIO(data), allow_pickle=False)
        raw = raw[..., None] if raw.ndim == 2 else raw
    elif data[12:16] == b"IHDR" and data[24] == 16:  # a PNG of 16 bits, of which Pillow would keep 8 if it is coloured
        raw = tf.io.decode_png(data, dtype=tf.uint16).numpy()
        raw = raw[..., : {2: 1, 4: 3}.get(raw.shape[2], raw.shape[2])]  # without transparency
    else:
        raw = decode_picture(data, indexed=indexed)
    if raw.ndim != 3 or not raw.size:
        raise Unusable(f"shape {raw.shape}, neither [H, W] nor [H, W, C]")
    if raw.dtype.kind not in "buif":
        raise Unusable(f"{raw.dtype} values, no real numbers")
    return raw.astype(np.uint8) if raw.dtype.kind == "b" else raw, names


def _decode_tiff(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    rasterio = import_rasterio()
    # only this driver: others of GDAL's follow addresses that a file holds
    with rasterio.io.MemoryFile(data) as file, file.open(driver="GTiff") as tiff:
        if len(tiff.subdatasets) > 1:
            raise Unusable(f"{len(tiff.subdatasets)} pages: write each to a file of its own")
        names = tuple(tiff.descriptions)
        named = all(names) and len(set(names)) == len(names)
        return np.moveaxis(tiff.read(), 0, -1), names if named else ()


def import_rasterio() -> ModuleType:
    """rasterio, silent about TIFFs that do not say where on Earth they lie; raises ZooError where it is missing."""
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise ZooError(f"TIFF files need rasterio ({error}): pip install 'zoo[geotiff]'") from None
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def resized(picture: np.ndarray, size: Size, method: str = "bilinear") -> np.ndarray:
    if size is None or picture.shape[:2] == tuple(size):
        return picture
    resized = tf.image.resize(picture, size, method, antialias=True).numpy()  # the operation that the served graph uses
    return (np.rint(resized) if picture.dtype.kind == "u" else resized).astype(picture.dtype)


def stack(pictures: Iterable[np.ndarray], where: str | Path) -> np.ndarray:
    """Pictures [H, W, C] to one array [N, H, W, C]: grey if all are, else the grey ones made RGB."""
    pictures = list(pictures)
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        named = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        raise ZooError(f"{where}: pictures are of {len(sizes)} sizes ({named}, ...): give image_size=(height, width)")
    channels = max(picture.shape[2] for picture in pictures)
    return np.stack([np.broadcast_to(picture, (*sizes[0], channels)) for picture in pictures])
