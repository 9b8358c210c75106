"""Image files to arrays, in one way for all that read images: common formats by Pillow, TIFF with bands, and .npy."""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, TypeVar

import numpy as np
from etils import epy

from zoo import preprocessing, progress
from zoo.data.trees import Read
from zoo.errors import ZooError, note
from zoo.exif import ORIENTATION, TURNS

with epy.lazy_imports():
    import tensorflow as tf
    from PIL import Image, ImageOps, TiffImagePlugin

# All of Pillow's would be too many: for EPS it starts Ghostscript, and some formats are hardly ever tested. A JPEG file
# may turn out to be MPO, a photograph with previews.
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes, in either byte order; + for files above 4 GB
NPY = b"\x93NUMPY"
PROGRESS_FROM = 2000  # more files than this show a progress bar
WHITE = OPAQUE = 255
BITS_PER_SAMPLE = 0x0102  # a tag of TIFF
UNREADABLE = "unreadable or truncated"
# NumPy parses headers of .npy files as Python, whose parser fails now and then in threads (CPython issue 106905).
NPY_HEADERS = threading.Lock()
# What is changed of a file or left out of it.
TURNED = "turned upright by their EXIF orientation"
FIRST_FRAME = "the first of several frames"
UPPER_BITS = "the upper 8 of 16 bits"
COMPOSITED = "transparency on a background of gray value {} (255 is white)"

Size = tuple[int, int] | None
T = TypeVar("T")


class Unusable(ValueError):
    """A file that cannot be used; its text is the reason."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The pixels of a file, [H, W, C], the names of its bands if it has names, and what was changed or left out."""

    pixels: np.ndarray
    bands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
            return Unusable(UNREADABLE)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(decode_one, files.values())
        bar = progress.bar(len(files), "files", over=results, title=title, least=PROGRESS_FROM)
        decoded, faults = {}, {}
        for name, result in zip(files, bar, strict=True):
            if isinstance(result, Unusable):
                faults[name] = str(result)
            else:
                decoded[name] = result
        return decoded, faults


def decode_image(data: bytes, background: int = WHITE, *, deep: bool = False) -> Decoded:
    """An image file as everybody sees it, uint8 [H, W, 1] (gray) or [H, W, 3] (RGB): the one reader of images that are
    classified, in training, prediction and the server.

    EXIF orientation is applied. Transparency is composited on the background. CMYK and palettes become RGB, a palette
    of grays gray. Of 16 bits the upper 8 are used, as TensorFlow's own decoders do. Of several frames or pages the
    first is used. ICC profiles are not applied.

    Args:
        data: the bytes of a file in one of `IMAGE_FORMATS`.
        background: gray value from 0 to 255 that transparent pixels show.
        deep: keep gray values of 16 bits, uint16.

    Raises:
        Unusable: for another format, values of more than 16 bits, too many pixels, and an image that is blank on the
            background although its transparency shows something.
        Exception: of any kind, for a truncated file.
    """
    with _open(data) as image:
        decoded = pixels_of(image, background, deep=deep)
    if _has_16_bits(data) and UPPER_BITS not in decoded.notes and not (deep and decoded.pixels.dtype == np.uint16):
        return dataclasses.replace(decoded, notes=(*decoded.notes, UPPER_BITS))  # which Pillow has kept
    return decoded


def pixel_count(data: bytes) -> int:
    """The pixels of an image file by its header; 0 for one that is not among `IMAGE_FORMATS` or is damaged."""
    try:
        with _open(data) as image:
            return image.width * image.height
    except Exception:  # for a broken file Pillow raises a dozen kinds of errors
        return 0


def pixels_of(image: Image.Image, background: int = WHITE, *, deep: bool = False) -> Decoded:
    """The pixels of an image of Pillow, as `decode_image` describes them."""
    frames = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: previews beside a photograph
    notes = [FIRST_FRAME] if frames else []
    kind = image.format
    reduced = isinstance(image, TiffImagePlugin.TiffImageFile) and 16 in image.tag_v2.get(BITS_PER_SAMPLE, ())
    image, turned = _upright(image)
    notes += [TURNED] if turned else []
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint16)[..., None]
        if deep:
            return Decoded(values, notes=tuple(notes))
        return Decoded((values >> 8).astype(np.uint8), notes=(*notes, UPPER_BITS))
    if image.mode in ("I", "F"):
        raise Unusable("32 bits a channel: save it with 8 or 16")
    if reduced:  # Pillow has kept the upper bits
        notes.append(UPPER_BITS)
    gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        pixels = np.asarray(image.convert("L" if gray else "RGB"))
    else:
        layers = np.asarray(image.convert("LA" if gray else "RGBA"))
        pixels = composited(layers, background)
        if (layers[..., -1] < OPAQUE).any():
            if np.ptp(layers[..., -1]) and (pixels == pixels[:1, :1]).all():
                raise Unusable(f"blank: its opaque pixels have the gray value {background} of the background")
            notes.append(COMPOSITED.format(background))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if image.mode in ("P", "PA") and (pixels == pixels[..., :1]).all():  # many GIFs are gray and have a palette
        pixels = pixels[..., :1]
    return Decoded(pixels, notes=tuple(notes))


def decode_bands(data: bytes, background: int = WHITE) -> Decoded:
    """An image file with the values of its bands, [H, W, C]: stored uint8 and uint16 are kept, other numbers become
    float32. For TIFF files, .npy arrays and PNG files of 16 bits; any other file as `decode_image` reads it.

    EXIF orientation is applied, and the transparency of PNG files is composited on the background.

    Raises:
        Unusable: for values that are not finite, and as `decode_raw`.
        ZooError: for a TIFF file if rasterio is not installed.
        Exception: of any kind, for another format or a truncated file.
    """
    decoded = decode_raw(data, background)
    if decoded.pixels.dtype in (np.uint8, np.uint16):
        return decoded
    with np.errstate(over="ignore"):
        pixels = decoded.pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise Unusable("NaN or infinite values")
    return dataclasses.replace(decoded, pixels=pixels)


def decode_raw(data: bytes, background: int = WHITE) -> Decoded:
    """As `decode_bands`, with numbers of any type as they are stored.

    Raises:
        Unusable: for a TIFF file with several pages, a .npy array of another shape, values that are not real numbers,
            and as `decode_image`.
        ZooError, Exception: see `decode_bands`.
    """
    if data.startswith(TIFF):
        return _checked(_decode_tiff(data))
    if data.startswith(NPY):
        return _checked(_decode_npy(data))
    if _has_16_bits(data):  # of which Pillow keeps only 8 in color images
        pixels, notes = tf.io.decode_png(data, dtype=tf.uint16).numpy(), []
        with _open(data) as image:
            turn = image.getexif().get(ORIENTATION, 1)
        if turn in TURNS:
            pixels, notes = turned_by(pixels, turn), [TURNED]
        if pixels.shape[-1] in (2, 4):
            if (pixels[..., -1] < 2**16 - 1).any():
                notes.append(COMPOSITED.format(background))
            pixels = composited(pixels, background)
        return Decoded(pixels, notes=tuple(notes))
    return decode_image(data, background, deep=True)


def decode_labels(data: bytes) -> Decoded:
    """A mask with its values as they are stored, [H, W, C]: of a palette image the indices, of a GIF file the gray
    values, since GIF writers reorder the colors. EXIF orientation is applied.

    Raises:
        Unusable: for transparency, several frames, and as `decode_raw`.
        ZooError, Exception: see `decode_bands`.
    """
    if data.startswith(TIFF):
        return _checked(_decode_tiff(data, colors=False))
    if data.startswith(NPY):
        return _checked(_decode_npy(data))
    with _open(data) as image:
        if getattr(image, "is_animated", False):
            raise Unusable("several frames: save a mask as an image of one")
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
            raise Unusable("an alpha channel, which masks cannot have: save it without transparency")
        if image.format == "PPM":
            raise Unusable("a PPM file, whose values depend on its header: save masks as PNG")
        if image.mode not in ("1", "L", "P", "RGB") or _has_16_bits(data):
            return decode_raw(data)
        upright, turned = _upright(image)
        if image.mode != "P" or image.format == "GIF":
            upright = upright.convert("RGB" if image.mode in ("P", "RGB") else "L")
        values = np.asarray(upright)
        return Decoded(values.reshape(*values.shape[:2], -1), notes=(TURNED,) if turned else ())


def _checked(decoded: Decoded) -> Decoded:
    pixels = decoded.pixels
    if pixels.ndim != 3 or not pixels.size:
        raise Unusable(f"shape {pixels.shape}, neither [H, W] nor [H, W, C]")
    if pixels.dtype.kind not in "buif":
        raise Unusable(f"{pixels.dtype} values, not real numbers")
    return dataclasses.replace(decoded, pixels=pixels.astype(np.uint8)) if pixels.dtype.kind == "b" else decoded


def _open(data: bytes) -> Image.Image:
    """The image in these bytes, not yet decoded."""
    if not data:
        raise Unusable("an empty file")
    try:
        return _pillow().open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError:
        raise Unusable(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except Image.UnidentifiedImageError:
        brand = data[4:12] if data[4:8] == b"ftyp" else b""
        kind = "AVIF" if brand.startswith(b"ftypavi") else "HEIC" if brand[4:7] in (b"hei", b"mif", b"hev") else ""
        raise Unusable(f"{kind} image, save it as JPEG or PNG" if kind else UNREADABLE) from None


@functools.cache
def _pillow() -> ModuleType:
    """Pillow's `Image`, without its warning of large images: it refuses those that are too large."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image with its EXIF orientation applied, and whether that changed it."""
    try:
        turned = image.getexif().get(ORIENTATION, 1) in TURNS
    except Exception:  # damaged metadata, for which Pillow raises several kinds of errors
        image.load()
        return image, False
    if not turned:
        image.load()
        return image, False
    return ImageOps.exif_transpose(image), True


def turned_by(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, C] as the EXIF orientation says that they are to be seen (Exif 2.32, tag 0x0112)."""
    transposed, down, across = TURNS.get(orientation, (False, 1, 1))
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[::down, ::across])


def composited(layers: np.ndarray, background: int) -> np.ndarray:
    """Unsigned pixels [..., C + 1], of which the last channel is opacity, in front of a gray background of 0 to 255:
    [..., C] of the same type. `zoo.preprocessing.decode` computes the same in the graph."""
    opaque = int(np.iinfo(layers.dtype).max)
    color, alpha = layers[..., :-1].astype(np.int64), layers[..., -1:].astype(np.int64)
    behind = background * opaque // OPAQUE
    return ((color * alpha + behind * (opaque - alpha) + opaque // 2) // opaque).astype(layers.dtype)


def _has_16_bits(data: bytes) -> bool:
    """Whether this is a PNG file of 16 bits a channel."""
    return data[12:16] == b"IHDR" and data[24:25] == b"\x10"


def _decode_npy(data: bytes) -> Decoded:
    with NPY_HEADERS:
        raw = np.load(io.BytesIO(data), allow_pickle=False)
    return Decoded(raw[..., None] if raw.ndim == 2 else raw)


def _decode_tiff(data: bytes, *, colors: bool = True) -> Decoded:
    """The bands of a TIFF file; of an image with a palette its colors, or else their indices."""
    rasterio = import_rasterio()
    # only this driver: others of GDAL's follow addresses that a file contains
    with rasterio.io.MemoryFile(data) as file, file.open(driver="GTiff") as tiff:
        if len(tiff.subdatasets) > 1:
            raise Unusable(f"{len(tiff.subdatasets)} pages: write each to its own file")
        if colors and tiff.colorinterp[0] == rasterio.enums.ColorInterp.palette:
            return decode_image(data)
        names, turn = tuple(tiff.descriptions), tiff_orientation(io.BytesIO(data))
        named = all(names) and len(set(names)) == len(names)
        pixels = turned_by(np.moveaxis(tiff.read(), 0, -1), turn)
        return Decoded(pixels, names if named else (), (TURNED,) if turn in TURNS else ())


def tiff_orientation(file: BinaryIO) -> int:
    """The orientation in the header of a TIFF file, which GDAL does not apply; 1 where it has none."""
    header = file.read(8)
    if header[2:3] == b"+" or header[3:4] == b"+":
        header += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(directory.next)
    directory.load(file)
    return int(directory.get(ORIENTATION, 1))


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


def report_changes(decoded: Mapping[str, Decoded], path: Path) -> None:
    """One line for each kind of change that the reader made to files, with the number of them and the first."""
    changed: dict[str, list[str]] = collections.defaultdict(list)
    for name, one in decoded.items():
        for text in one.notes:
            changed[text].append(name)
    for text, names in changed.items():
        note(f"{path.name}: {len(names)} of {len(decoded)} files, such as {names[0]}: {text}")


def resized(image: np.ndarray, size: Size, *, crop: bool = False) -> np.ndarray:
    """An image [H, W, C] resized to (height, width) in pixels by the operation of the serving graph, of the same type;
    cropped to these proportions first, or stretched."""
    if size is None or image.shape[:2] == tuple(size):
        return image
    pixels = _resizer(tuple(size), crop, image.shape[2], image.dtype)(image[None])[0].numpy()
    return (np.rint(pixels) if image.dtype.kind == "u" else pixels).astype(image.dtype)


@functools.cache
def _resizer(size: tuple[int, int], crop: bool, channels: int, dtype: np.dtype) -> Callable[[np.ndarray], tf.Tensor]:
    """`preprocessing.resize` as a graph function for images [1, H, W, channels]: eager calls are 20 times slower."""
    images = tf.TensorSpec([1, None, None, channels], dtype)

    def resize(images: tf.Tensor) -> tf.Tensor:
        return preprocessing.resize(preprocessing.crop_to_proportions(images, size) if crop else images, size)

    return tf.function(resize, input_signature=[images], autograph=False)


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
