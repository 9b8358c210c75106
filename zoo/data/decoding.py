"""Image files to arrays: PNG, JPEG, BMP and GIF, TIFF with any number of bands, and .npy."""

from __future__ import annotations

import functools
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

from zoo import preprocessing
from zoo.data.trees import Read
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf
    import tqdm
    from PIL import Image

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes, in either byte order; + for files above 4 GB
NPY = b"\x93NUMPY"
PROGRESS_FROM = 2000  # more files than this show a progress bar

Size = tuple[int, int] | None
T = TypeVar("T")


class Unusable(ValueError):
    """A file that cannot be used; its text is the reason."""


def decode_all(
    files: Mapping[str, Read], decode: Callable[[bytes], T], title: str
) -> tuple[dict[str, T], dict[str, str]]:
    """Decodes files in parallel.

    Args:
        files: by name, functions that return their bytes.
        decode: what to call with the bytes of each file.
        title: title of the progress bar.

    Returns:
        The decoded files by name, and by name the reasons for those that cannot be decoded.
    """

    def decode_one(read: Read) -> T | Unusable:
        try:
            return decode(read())
        except ZooError:  # not the fault of this file
            raise
        except Unusable as error:
            return error
        except Exception:  # for a broken file Pillow, rasterio and zipfile raise a dozen kinds of errors
            return Unusable("unreadable or truncated")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(decode_one, files.values())
        bar = tqdm.tqdm(results, title, len(files), unit=" files", disable=len(files) <= PROGRESS_FROM)
        decoded, faults = {}, {}
        for name, result in zip(files, bar, strict=True):
            if isinstance(result, Unusable):
                faults[name] = str(result)
            else:
                decoded[name] = result
        return decoded, faults


def decode_image_file(data: bytes, *, indexed: bool = False) -> np.ndarray:
    """The first frame of a PNG, JPEG, BMP or GIF file as uint8 [H, W, 1] or [H, W, 3], as stored: EXIF orientation is
    not applied, transparency is dropped.

    Args:
        indexed: return the indices of a palette image, not its colors.

    Raises:
        Exception: of any kind, for another format, a truncated file, or gray values of more than 8 bits.
    """
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would clip the values at 255
            raise Unusable("more than 8 bits a channel")
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))[..., None]
        if indexed and image.mode == "P" and image.format != "GIF":  # GIF writers reorder the colors
            return np.asarray(image)[..., None]
        pixels = np.asarray(image.convert("RGB"))
        gray = image.mode == "P" and (pixels == pixels[..., :1]).all()  # many GIFs are gray and have a palette
        return pixels[..., :1] if gray else pixels


def decode_any(data: bytes) -> np.ndarray:
    """An image file of any supported format as [H, W, C]: stored uint8 and uint16 are kept, other numbers become
    float32.

    Raises:
        Unusable: for values that are not finite, and as `decode_raw`.
        ZooError: for a TIFF file if rasterio is not installed.
        Exception: of any kind, for another format or a truncated file.
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
    """An image file of any supported format as stored, [H, W, C], and the names of its bands, () if it has none.

    Args:
        indexed: see `decode_image_file`.

    Raises:
        Unusable: for a TIFF file with several pages, a .npy array of another shape, and values that are not real
            numbers.
        ZooError, Exception: see `decode_any`.
    """
    names: tuple[str, ...] = ()
    if data.startswith(TIFF):
        raw, names = _decode_tiff(data)
    elif data.startswith(NPY):
        raw = np.load(io.BytesIO(data), allow_pickle=False)
        raw = raw[..., None] if raw.ndim == 2 else raw
    elif data[12:16] == b"IHDR" and data[24] == 16:  # a PNG of 16 bits, of which Pillow keeps only 8 in color images
        raw = tf.io.decode_png(data, dtype=tf.uint16).numpy()
        raw = raw[..., : {2: 1, 4: 3}.get(raw.shape[2], raw.shape[2])]  # without transparency
    else:
        raw = decode_image_file(data, indexed=indexed)
    if raw.ndim != 3 or not raw.size:
        raise Unusable(f"shape {raw.shape}, neither [H, W] nor [H, W, C]")
    if raw.dtype.kind not in "buif":
        raise Unusable(f"{raw.dtype} values, not real numbers")
    return raw.astype(np.uint8) if raw.dtype.kind == "b" else raw, names


def _decode_tiff(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    rasterio = import_rasterio()
    # only this driver: others of GDAL's follow addresses that a file contains
    with rasterio.io.MemoryFile(data) as file, file.open(driver="GTiff") as tiff:
        if len(tiff.subdatasets) > 1:
            raise Unusable(f"{len(tiff.subdatasets)} pages: write each to its own file")
        names = tuple(tiff.descriptions)
        named = all(names) and len(set(names)) == len(names)
        return np.moveaxis(tiff.read(), 0, -1), names if named else ()


def import_rasterio() -> ModuleType:
    """rasterio, without its warnings on TIFF files that are not georeferenced; raises ZooError if it is not
    installed."""
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise ZooError(f"TIFF files need rasterio ({error}): pip install 'zoo[geotiff]'") from None
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def resized(image: np.ndarray, size: Size) -> np.ndarray:
    """An image [H, W, C] resized to (height, width) in pixels by the operation of the serving graph, of the same
    type."""
    if size is None or image.shape[:2] == tuple(size):
        return image
    pixels = _resizer(tuple(size), image.shape[2], image.dtype)(image[None])[0].numpy()
    return (np.rint(pixels) if image.dtype.kind == "u" else pixels).astype(image.dtype)


@functools.cache
def _resizer(size: tuple[int, int], channels: int, dtype: np.dtype) -> Callable[[np.ndarray], tf.Tensor]:
    """`preprocessing.resize` as a graph function for images [1, H, W, channels]: eager calls are 20 times slower."""
    images = tf.TensorSpec([1, None, None, channels], dtype)
    return tf.function(lambda images: preprocessing.resize(images, size), input_signature=[images], autograph=False)


def resized_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask [H, W, K] resized to (height, width) in pixels; each pixel has the values of the nearest one."""
    if size is None or mask.shape[:2] == tuple(size):
        return mask
    return tf.image.resize(mask, size, "nearest").numpy()


def stack(images: Iterable[np.ndarray], where: str | Path) -> np.ndarray:
    """Images [H, W, C] as one array [N, H, W, C]: gray if all are gray, otherwise gray images become RGB.

    Raises:
        ZooError: for images of several sizes.
    """
    images = list(images)
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        named = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        raise ZooError(f"{where}: images have {len(sizes)} sizes ({named}, ...): give image_size=(height, width)")
    channels = max(image.shape[2] for image in images)
    return np.stack([np.broadcast_to(image, (*sizes[0], channels)) for image in images])
