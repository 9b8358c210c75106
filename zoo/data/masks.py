"""Images with masks: pairs of files with the same name; the classes of the masks are exclusive or overlap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.data.dataset import IGNORED, Parts, Split
from zoo.data.decoding import (
    NPY,
    TIFF,
    Size,
    Unusable,
    decode_all,
    decode_any,
    decode_raw,
    resized,
    resized_mask,
)
from zoo.data.trees import Read, Tree, folders
from zoo.errors import ZooError

MASK_FOLDERS = ("labels", "masks")
MOST_CLASSES = IGNORED  # their ids are 0 to 254
MOST_NAMED = 10  # files that an error names

Groups = Mapping[str, Mapping[str, Tree]]  # the two folders of each split
Faults = dict[str, str]  # by the names of files that cannot be used, the reasons


class _Pair(NamedTuple):
    """The file names of an image and of its masks: a single one, or one for each class."""

    split: str
    image: str
    masks: tuple[str, ...]


class _Mask(NamedTuple):
    """Integers [H, W, K], the names of the K bands if they have names, and the values of a single band."""

    values: np.ndarray
    names: tuple[str, ...]
    labels: frozenset[int]


def are_pairs(group: Mapping[str, Tree]) -> bool:
    """Whether these are two folders, one of images and one of masks."""
    return len(group) == 2 and "images" in group and any(name in group for name in MASK_FOLDERS)


def read_pairs(groups: Groups, path: Path, image_size: Size) -> Parts:
    """Images and masks as `zoo.data.load` describes them.

    Args:
        groups: for each split, train first, the folders `images`, and `labels` or `masks`.
        path: the folder or archive, for errors.
        image_size: see `zoo.data.load`.

    Raises:
        ZooError: for all files without a matching image or mask, with the reasons, and for too many label values.
    """
    faults: Faults = {}
    class_folders = tuple(sorted({name for group in groups.values() for name in folders(_masks(group)[1])}))
    pairs, files = _match(groups, class_folders, faults)
    images, image_faults = decode_all({pair.image: files[pair.image] for pair in pairs}, decode_any, path.name)
    mask_files = {name: files[name] for pair in pairs for name in pair.masks}
    masks, mask_faults = decode_all(mask_files, _decode_mask, path.name)
    faults |= image_faults | mask_faults
    pairs = [pair for pair in pairs if not faults.keys() & {pair.image, *pair.masks}]
    _compare(pairs, images, masks, class_folders, faults)
    if faults:
        named = ", ".join(f"{name} ({faults[name]})" for name in sorted(faults)[:MOST_NAMED])
        more = f", and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
        raise ZooError(f"{path}: files that do not form a pair of an image and its mask: {named}{more}")
    if not any(pair.split == "train" for pair in pairs):
        raise ZooError(f"{path}: there are no images to train on: put images into images, and their masks beside it")
    classes, labels = _classes(pairs, masks, class_folders)
    if labels and len(labels) > MOST_CLASSES:
        raise ZooError(
            f"{path}: the masks contain {len(labels)} label values, more than {MOST_CLASSES}: are these images, not "
            "masks? A mask that was once saved as JPEG contains dozens: draw it again and save it as PNG"
        )
    height, width = image_size or np.max([image.shape[:2] for image in images.values()], axis=0)
    bands, dtype = images[pairs[0].image].shape[2], np.result_type(*{image.dtype for image in images.values()})

    def split_of(name: str) -> Split:
        chosen = [pair for pair in pairs if pair.split == name]
        inputs = np.zeros((len(chosen), height, width, bands), dtype)
        targets = np.full((len(chosen), height, width, 1 if labels else len(classes)), IGNORED, np.uint8)
        for row, pair in enumerate(chosen):
            image = resized(images[pair.image], image_size)
            values = np.concatenate([masks[mask].values for mask in pair.masks], axis=-1)
            mask = (np.searchsorted(labels, values) if labels else values != 0).astype(np.uint8)
            inputs[row, : image.shape[0], : image.shape[1]] = image
            targets[row, : image.shape[0], : image.shape[1]] = resized_mask(mask, image_size)
        return Split(inputs, targets[..., 0] if labels else targets)

    return {split: split_of(split) for split in groups}, classes


def _classes(
    pairs: list[_Pair], masks: Mapping[str, _Mask], class_folders: tuple[str, ...]
) -> tuple[tuple[str, ...], list[int]]:
    """The class names, and the label values of exclusive classes in their order."""
    first = masks[pairs[0].masks[0]]
    count = first.values.shape[2]
    if class_folders or count > 1:
        return class_folders or first.names or tuple(str(number + 1) for number in range(count)), []
    labels = sorted(frozenset().union(*(masks[pair.masks[0]].labels for pair in pairs)))
    return tuple(map(str, labels)), labels


def _masks(group: Mapping[str, Tree]) -> tuple[str, Tree]:
    """The name and the contents of the folder of masks."""
    return next((name, group[name]) for name in MASK_FOLDERS if name in group)


def _match(groups: Groups, class_folders: tuple[str, ...], faults: Faults) -> tuple[list[_Pair], dict[str, Read]]:
    """The pairs by name, and all files; files without a pair are added to the faults."""
    pairs: list[_Pair] = []
    files: dict[str, Read] = {}

    def by_stem(place: str, folder: Tree) -> dict[str, str]:
        names: dict[str, str] = {}
        for file, entry in sorted(folder.items()):
            name, stem = f"{place}/{file}", Path(file).stem
            if isinstance(entry, dict):
                faults[name] = "a folder"
            elif stem in names:
                faults[name] = f"same name as {names[stem]}"
            else:
                names[stem], files[name] = name, entry
        return names

    for split, group in groups.items():
        prefix = "" if len(groups) == 1 else f"{split}/"
        name, tree = _masks(group)
        places = {f"{prefix}{name}": tree}
        if class_folders:
            faults |= {f"{prefix}{name}/{file}": "beside the class folders" for file in tree.keys() - folders(tree)}
            places = {f"{prefix}{name}/{label}": folders(tree).get(label, {}) for label in class_folders}
        images = by_stem(f"{prefix}images", group["images"])
        masks = {place: by_stem(place, folder) for place, folder in places.items()}
        for stem, image in images.items():
            missing = [place for place in places if stem not in masks[place]]
            if missing:
                faults[image] = f"no mask in {', '.join(missing)}"
            else:
                pairs.append(_Pair(split, image, tuple(names[stem] for names in masks.values())))
        for names in masks.values():
            faults |= {names[stem]: "no image" for stem in names.keys() - images.keys()}
    return pairs, files


def _decode_mask(data: bytes) -> _Mask:
    values, names = decode_raw(data, indexed=True)
    if values.shape[2] == 3 and not data.startswith((*TIFF, NPY)):
        if (values != values[..., :1]).any():
            raise Unusable("a color mask: store label values in a gray or palette image")
        values = values[..., :1]
    if values.dtype not in (np.uint8, np.uint16):
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int32)
        if (whole != values).any():  # also NaN
            raise Unusable("label values must be whole numbers of at most 32 bits")
        values = whole
    labels = frozenset(np.unique(values).tolist() if values.shape[2] == 1 else ())
    if len(labels) > 2 and data.startswith(b"\xff\xd8"):
        raise Unusable(f"a JPEG, which blurs label values, {len(labels)} of them: save masks as PNG")
    return _Mask(values, names, labels)


def _compare(
    pairs: list[_Pair],
    images: Mapping[str, np.ndarray],
    masks: Mapping[str, _Mask],
    class_folders: tuple[str, ...],
    faults: Faults,
) -> None:
    """Adds to the faults the files that do not match the other file of their pair, the first pair, or train."""
    if not pairs:
        return
    first_image, first_mask = pairs[0].image, pairs[0].masks[0]
    bands = images[first_image].shape[2]
    layers = 1 if class_folders else masks[first_mask].values.shape[2]
    for pair in pairs:
        image = images[pair.image]
        if image.shape[2] != bands:
            faults[pair.image] = f"{image.shape[2]} bands, {first_image} has {bands}"
        for name in pair.masks:
            *size, count = masks[name].values.shape
            if tuple(size) != image.shape[:2]:
                faults[name] = "{} x {} pixels, its image {} x {}".format(*size, *image.shape)
            elif count != layers:
                faults[name] = f"{count} bands, not {layers}" + ("" if class_folders else f" as {first_mask}")
            elif layers > 1 and masks[name].names != masks[first_mask].names:
                faults[name] = f"band names differ from those of {first_mask}"
    known = frozenset().union(*(masks[pair.masks[0]].labels for pair in pairs if pair.split == "train"))
    # a faulty file of train may contain further labels
    if known and not class_folders and not any(name.startswith("train/") for name in faults):
        for pair in pairs:
            new = sorted(masks[pair.masks[0]].labels - known)
            if new:
                faults[pair.masks[0]] = f"unknown label value {', '.join(map(str, new[:5]))}, not in train"
