"""Images with masks: pairs of files with the same name; the classes of the masks are exclusive or overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
    decode_bands,
    decode_labels,
    report_changes,
    resized,
    resized_mask,
)
from zoo.data.trees import Read, Tree, files, folders
from zoo.errors import ZooError, listed, note

IMAGE_FOLDERS = set("images image imgs img jpegimages inputs".split())  # in any case
MASK_FOLDERS = set(
    "labels label masks mask gt gts groundtruth ground_truth annotations annotation segmentations segmentation "
    "segmentationclass targets".split()
)
# The words at the end of the names of masks and of images, such as 1_mask.png and 1_sat.png, or at their beginning.
MASK_WORD = re.compile(r"[ _.-]+(masks?|labels?|gt|groundtruth|seg|segmentation|annotation|labelids)$", re.IGNORECASE)
AFFIX = re.compile(
    rf"^(mask|label|gt|seg|image|img)[ _.-]+|{MASK_WORD.pattern}|[ _.-]+(image|img|sat|leftimg8bit|l)$", re.IGNORECASE
)
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


def are_pairs(group: Mapping[str, Tree]) -> tuple[str, str] | None:
    """The names of the two folders of images and of masks, where there is one of each."""
    images, masks = ([name for name in group if name.lower() in known] for known in (IMAGE_FOLDERS, MASK_FOLDERS))
    return (images[0], masks[0]) if len(images) == len(masks) == 1 else None


def paired_files(tree: Tree) -> dict[str, Tree] | None:
    """The images and the masks of one folder in which they are told apart by the end of their names, `1.png` and
    `1_mask.png`; None for other files."""
    found = {Path(file).stem: (file, read) for file, read in files(tree).items()}
    masks = {stem: match.start() for stem in found if (match := MASK_WORD.search(stem))}
    if not masks or {stem[:end] for stem, end in masks.items()} != found.keys() - masks.keys():
        return None
    return {
        "images": dict(found[stem] for stem in found.keys() - masks.keys()),
        "masks": dict(found[stem] for stem in masks),
    }


def read_pairs(groups: Groups, path: Path, image_size: Size, background: int) -> Parts:
    """Images and masks as `zoo.data.load` describes them.

    Args:
        groups: for each split, train first, the folders of images and of masks, see `are_pairs`.
        path: the folder or archive, for errors.
        image_size, background: see `zoo.data.load`.

    Raises:
        ZooError: for all files without a matching image or mask, with the reasons, and for too many label values.
    """
    faults: Faults = {}
    class_folders = tuple(sorted({name for group in groups.values() for name in folders(_masks(group)[1])}))
    pairs, reads = _match(groups, class_folders, faults, path)
    image_files = {pair.image: reads[pair.image] for pair in pairs}
    decoded, image_faults = decode_all(image_files, lambda data: decode_bands(data, background), path.name)
    images = {name: one.pixels for name, one in decoded.items()}
    mask_files = {name: reads[name] for pair in pairs for name in pair.masks}
    masks, mask_faults = decode_all(mask_files, _decode_mask, path.name)
    faults |= image_faults | mask_faults
    pairs = [pair for pair in pairs if not faults.keys() & {pair.image, *pair.masks}]
    _compare(pairs, images, masks, class_folders, faults)
    if faults:
        named = listed((f"{name} ({faults[name]})" for name in sorted(faults)), MOST_NAMED)
        raise ZooError(f"{path}: files that do not form a pair of an image and its mask: {named}")
    if not any(pair.split == next(iter(groups)) for pair in pairs):
        raise ZooError(f"{path}: there are no images to train on: put images into images, and their masks beside it")
    report_changes(decoded, path)
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
        names = np.array([pair.image for pair in chosen], object)
        return Split(inputs, targets[..., 0] if labels else targets, names)

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
    pair = are_pairs(group)
    assert pair is not None, "these are folders of pairs"
    return pair[1], group[pair[1]]


def _match(
    groups: Groups, class_folders: tuple[str, ...], faults: Faults, path: Path
) -> tuple[list[_Pair], dict[str, Read]]:
    """The pairs by name, and all files; files without a pair are added to the faults."""
    pairs: list[_Pair] = []
    reads: dict[str, Read] = {}
    by_affix: list[tuple[str, str]] = []

    def by_stem(place: str, folder: Tree) -> dict[str, str]:
        names: dict[str, str] = {}
        for file, entry in sorted(folder.items()):
            name, stem = f"{place}/{file}", Path(file).stem
            if isinstance(entry, dict):
                faults[name] = "a folder"
            elif stem in names:
                faults[name] = f"same name as {names[stem]}"
            else:
                names[stem], reads[name] = name, entry
        return names

    for split, group in groups.items():
        prefix = "" if len(groups) == 1 else f"{split}/"
        name, tree = _masks(group)
        (image_folder,) = group.keys() - {name}
        places = {f"{prefix}{name}": tree}
        if class_folders:
            faults |= {f"{prefix}{name}/{file}": "beside the class folders" for file in files(tree)}
            places = {f"{prefix}{name}/{label}": folders(tree).get(label, {}) for label in class_folders}
        images = by_stem(f"{prefix}{image_folder}", group[image_folder])
        masks = {}
        for place, folder in places.items():
            masks[place] = names = by_stem(place, folder)
            for image, mask in _by_affix(images, names).items():
                by_affix.append((images[image], names[mask]))
                names[image] = names.pop(mask)
        for stem, image in images.items():
            missing = [place for place in places if stem not in masks[place]]
            if missing:
                expected = ", ".join(f"{place}/{stem}.png" for place in missing)
                faults[image] = f"no mask in {', '.join(missing)}, such as {expected}"
            else:
                pairs.append(_Pair(split, image, tuple(names[stem] for names in masks.values())))
        for names in masks.values():
            faults |= {names[stem]: "no image" for stem in names.keys() - images.keys()}
    if by_affix:
        image, mask = by_affix[0]
        note(f"{path.name}: {len(by_affix)} masks are paired by a part of their names, such as {mask} with {image}")
    return pairs, reads


def _by_affix(images: Mapping[str, str], masks: Mapping[str, str]) -> dict[str, str]:
    """For image stems without a mask of the same stem the stem of the mask that is the same but for words such as
    `_mask`, where exactly one is."""

    def plain(stems: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for stem in stems:
            found.setdefault(AFFIX.sub("", stem), []).append(stem)
        return found

    rest = plain(masks.keys() - images.keys())
    return {
        stems[0]: rest[key][0]
        for key, stems in plain(images.keys() - masks.keys()).items()
        if len(stems) == len(rest.get(key, ())) == 1
    }


def _decode_mask(data: bytes) -> _Mask:
    decoded = decode_labels(data)
    values, names = decoded.pixels, decoded.bands
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
