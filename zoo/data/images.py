"""Folders and archives of images: one folder for each class, or images with their masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zoo.data.dataset import SPLITS, Parts, Split
from zoo.data.decoding import IMAGE_FORMATS, Size, decode_all, decode_image_file, resized, stack
from zoo.data.masks import are_pairs, read_pairs
from zoo.data.trees import Read, Tree, folders, open_tree
from zoo.errors import ZooError

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def read_images(path: Path, image_size: Size) -> Parts:
    """The images of a folder or `.zip`, with one folder for each class or with masks, optionally in one folder for each
    split; see `zoo.data.load`.

    Raises:
        ZooError: for files that cannot be used, with their names, and for misplaced folders.
    """
    with open_tree(path) as tree:
        found = folders(tree)
        while len(found) == 1 and folders(*found.values()):  # a folder that only wraps the others
            found = folders(*found.values())
        groups = {"train": found}
        if "train" in found and set(found) <= set(SPLIT_FOLDERS):
            groups = {SPLIT_FOLDERS[name]: folders(folder) for name, folder in found.items()}
            groups = {split: groups[split] for split in SPLITS if split in groups}
        paired = [split for split, group in groups.items() if are_pairs(group)]
        if not paired:
            return _read_classes(groups, path, image_size)
        if len(paired) < len(groups):
            other = next(split for split in groups if split not in paired)
            raise ZooError(f"{path}: {paired[0]} contains images and masks, {other} does not: add these two folders")
        return read_pairs(groups, path, image_size)


def _read_classes(groups: Mapping[str, Mapping[str, Tree]], path: Path, image_size: Size) -> Parts:
    """8-bit images in one folder for each class."""
    classes = tuple(groups["train"])
    if not classes:
        raise ZooError(f"{path} has no class folders: put the images into one folder for each class")
    files: dict[str, Read] = {}
    splits: list[str] = []
    labels: list[int] = []
    for split, group in groups.items():
        for name, folder in group.items():
            place = name if len(groups) == 1 else f"{split}/{name}"
            if name not in classes:
                raise ZooError(f"{path}: class folder {place!r} has no counterpart in train: add it or remove this one")
            reads = {file: entry for file, entry in folder.items() if not isinstance(entry, dict)}
            if not folder or len(reads) < len(folder):
                what = "contains further folders" if folder else "is empty"
                raise ZooError(f"{path}: class folder {place!r} {what}: put only image files into it, or remove it")
            files |= {f"{place}/{file}": read for file, read in reads.items()}
            splits += [split] * len(reads)
            labels += [classes.index(name)] * len(reads)
    images, faults = decode_all(files, lambda data: resized(decode_image_file(data), image_size), path.name)
    if faults:
        named = ", ".join([*faults][:5]) + (", ..." if len(faults) > 5 else "")
        formats = ", ".join(IMAGE_FORMATS)
        raise ZooError(f"{path}: {len(faults)} of {len(files)} files are not 8-bit images ({formats}): {named}")
    whole = Split(stack(images.values(), path), np.array(labels, np.int64))
    return {split: whole.take(np.array(splits) == split) for split in groups}, classes
