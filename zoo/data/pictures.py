"""Folders and archives of pictures: one folder a class, or images and their masks."""

from __future__ import annotations

import functools
import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from etils import epy

from zoo.data.dataset import Split
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf
    import tqdm
    from PIL import Image

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
PROGRESS_FROM = 2000  # a progress bar for more files than this
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

Parts = tuple[dict[str, Split], tuple[str, ...]]  # the splits that a source brings, and its class names
Size = tuple[int, int] | None


# Folders and archives of pictures are both read into a tree of dictionaries by name; a leaf gives the file's bytes.
Read = Callable[[], bytes]
Tree = dict[str, "Tree | Read"]


def read_folder(path: Path, image_size: Size) -> Parts:
    def tree(folder: Path) -> Tree:
        entries = sorted(entry for entry in folder.iterdir() if not _ignored(entry.name))
        return {entry.name: tree(entry) if entry.is_dir() else entry.read_bytes for entry in entries}

    return _pictures(tree(path), path, image_size)


def read_zip(path: Path, image_size: Size) -> Parts:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ZooError(f"{path} is no zip archive or is cut short ({error}): fetch it again") from error
    lock = threading.Lock()  # the archive is one open file

    def read(entry: zipfile.ZipInfo) -> bytes:
        with lock:
            return archive.read(entry)

    root: Tree = {}
    with archive:
        for entry in archive.infolist():
            *folders, name = entry.filename.removesuffix("/").split("/")
            if any(map(_ignored, (*folders, name))):
                continue
            node = root
            for folder in folders:
                node = node.setdefault(folder, {})
                if not isinstance(node, dict):
                    raise ZooError(f"{path} holds {folder!r} both as a file and as a folder: write it anew")
            node.setdefault(name, {} if entry.is_dir() else functools.partial(read, entry))
        return _pictures(root, path, image_size)


def _ignored(name: str) -> bool:
    return name in ("", "__MACOSX") or name.startswith(".")


def _folders(tree: Tree) -> dict[str, Tree]:
    return {name: entry for name, entry in sorted(tree.items()) if isinstance(entry, dict)}


def _pictures(tree: Tree, path: Path, image_size: Size) -> Parts:
    """Pictures in one folder a class, perhaps within a folder a split; or images and their masks."""
    folders = _folders(tree)
    while len(folders) == 1 and _folders(*folders.values()):  # a folder that only wraps the others
        folders = _folders(*folders.values())
    masks = {"labels", "masks"} & set(folders)
    if len(folders) == 2 and "images" in folders and masks:
        return _masked_pictures(folders["images"], folders[masks.pop()], path, image_size)
    groups = {"train": folders}
    if "train" in folders and set(folders) <= set(SPLIT_FOLDERS):
        groups = {SPLIT_FOLDERS[name]: _folders(folder) for name, folder in folders.items()}
    classes = tuple(groups["train"])
    if not classes:
        raise ZooError(f"{path} has no class folders: put the pictures into one folder a class")
    files, splits, labels = {}, [], []
    for split, group in groups.items():
        for name, folder in group.items():
            place = name if len(groups) == 1 else f"{split}/{name}"
            if name not in classes:
                raise ZooError(f"{path}: class folder {place!r} has no counterpart in train: add it or remove this one")
            if not folder or _folders(folder):
                what = "holds further folders" if folder else "is empty"
                raise ZooError(
                    f"{path}: class folder {place!r} {what}: it must hold picture files alone, or be removed"
                )
            files |= {f"{place}/{file}": read for file, read in folder.items()}
            splits += [split] * len(folder)
            labels += [classes.index(name)] * len(folder)
    whole = Split(_read_pictures(files, path, image_size), np.array(labels, np.int64))
    return {split: whole.take(np.array(splits) == split) for split in groups}, classes


def _masked_pictures(images: Tree, masks: Tree, path: Path, image_size: Size) -> Parts:
    """Images and grey masks of the same names; the values that occur in the masks are the classes, in order."""
    by_stem = [{Path(name).stem: read for name, read in sorted(tree.items())} for tree in (images, masks)]
    single = sorted(set(by_stem[0]) ^ set(by_stem[1]))
    if single or not images or len(images) != len(masks):
        named = f" ({', '.join(single[:5])})" if single else ""
        raise ZooError(f"{path}: images and masks must be pairs of files of one name; some are not{named}")
    inputs = _read_pictures(by_stem[0], path, image_size)
    values = _read_pictures(by_stem[1], path, image_size, "nearest")
    if values.shape != (*inputs.shape[:3], 1):
        raise ZooError(f"{path}: masks {values.shape[1:]} must be grey and as large as the images {inputs.shape[1:]}")
    classes, targets = np.unique(values[..., 0], return_inverse=True)
    return {"train": Split(inputs, targets.reshape(values.shape[:3]))}, tuple(map(str, classes))


def _read_pictures(files: Mapping[str, Read], path: Path, image_size: Size, method: str = "bilinear") -> np.ndarray:
    """Files by name to uint8 [N, H, W, C]; all that are no pictures are reported together."""

    def decode(read: Read) -> np.ndarray | None:
        try:
            picture = _decode(read())
        except Exception:  # a broken file makes Pillow and zipfile raise errors of a dozen kinds
            return None
        return resized(picture, image_size, method)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decode, files.values())
        bar = tqdm.tqdm(decoded, path.name, len(files), unit=" files", disable=len(files) <= PROGRESS_FROM)
        pictures = dict(zip(files, bar, strict=True))
    broken = [name for name, picture in pictures.items() if picture is None]
    if broken:
        named = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        formats = ", ".join(IMAGE_FORMATS)
        raise ZooError(f"{path}: {len(broken)} of {len(files)} files are no 8-bit pictures ({formats}): {named}")
    return stack(pictures.values(), path)


def _decode(data: bytes) -> np.ndarray:
    """The first frame as uint8 [H, W, 1] or [H, W, 3], as it is stored: not turned by EXIF, without transparency."""
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would cut the values off at 255
            raise ValueError("more than 8 bits a channel")
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))[..., None]
        picture = np.asarray(image.convert("RGB"))
        grey = image.mode == "P" and (picture == picture[..., :1]).all()  # a palette is the only mode of many GIFs
        return picture[..., :1] if grey else picture


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
