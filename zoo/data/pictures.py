"""Folders and archives of pictures: one folder a class, or images and their masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zoo.data.dataset import SPLITS, Parts, Split
from zoo.data.decoding import IMAGE_FORMATS, Size, Unusable, decode_all, decode_picture, resized, stack
from zoo.data.masks import are_pairs, read_pairs
from zoo.data.trees import Tree, folders, open_tree
from zoo.errors import ZooError

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def read_pictures(path: Path, image_size: Size) -> Parts:
    """Pictures of a folder or `.zip`: in one folder a class, or images and their masks; perhaps in a folder a split.

    Raises:
        ZooError: for files that cannot be used, all of them named, and folders that are out of place.
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
            raise ZooError(f"{path}: {paired[0]} holds images and masks, {other} does not: give it these two folders")
        return read_pairs(groups, path, image_size)


def _read_classes(groups: Mapping[str, Mapping[str, Tree]], path: Path, image_size: Size) -> Parts:
    """Pictures of 8 bits in one folder a class."""
    classes = tuple(groups["train"])
    if not classes:
        raise ZooError(f"{path} has no class folders: put the pictures into one folder a class")
    files, splits, labels = {}, [], []
    for split, group in groups.items():
        for name, folder in group.items():
            place = name if len(groups) == 1 else f"{split}/{name}"
            if name not in classes:
                raise ZooError(f"{path}: class folder {place!r} has no counterpart in train: add it or remove this one")
            if not folder or folders(folder):
                what = "holds further folders" if folder else "is empty"
                raise ZooError(
                    f"{path}: class folder {place!r} {what}: it must hold picture files alone, or be removed"
                )
            files |= {f"{place}/{file}": read for file, read in folder.items()}
            splits += [split] * len(folder)
            labels += [classes.index(name)] * len(folder)
    pictures = decode_all(files, lambda data: resized(decode_picture(data), image_size), path.name)
    broken = [name for name, picture in pictures.items() if isinstance(picture, Unusable)]
    if broken:
        named = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        formats = ", ".join(IMAGE_FORMATS)
        raise ZooError(f"{path}: {len(broken)} of {len(files)} files are no 8-bit pictures ({formats}): {named}")
    whole = Split(stack(pictures.values(), path), np.array(labels, np.int64))
    return {split: whole.take(np.array(splits) == split) for split in groups}, classes
