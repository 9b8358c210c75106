"""Folders and archives of images: one folder for each class, or images with their masks."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.dataset import Parts, Split, by_split, in_order, split_of
from zoo.data.decoding import (
    IMAGE_FORMATS,
    WHITE,
    Decoded,
    Size,
    decode_all,
    decode_image,
    report_changes,
    resized,
    stack,
)
from zoo.data.masks import MASK_WORD, are_pairs, paired_files, read_pairs
from zoo.data.streamed import Streamed, exceeds_budget
from zoo.data.trees import LeftOut, Read, Tree, all_files, files, folders, open_tree
from zoo.errors import ZooError, listed, note, unknown

MUCH_LARGER = 4  # chosen: the factor from which on it is said that images lose most of their detail
REDUCED = "reduced to {} x {} pixels, the network's input; --input-shape for another"
MOST_NAMED = 20  # files that an error names

UNLABELED = ""  # the one class folder of images without classes

Groups = dict[str, dict[str, Tree]]  # by split the folders of classes, or those of images and masks


def read_images(
    path: Path,
    image_size: Size,
    *,
    crop: bool = False,
    background: int = WHITE,
    strict: bool = False,
    labels: bool = True,
) -> Parts:
    """The images of a folder or archive, with one folder for each class or with masks, optionally in one folder for
    each split, or without labels; see `zoo.data.load`.

    Raises:
        ZooError: for files that cannot be used, with their names, for misplaced folders, and, if `strict` is set, for
            files that are not read.
    """
    left_out = LeftOut()
    tree = open_tree(path, left_out)
    groups = _groups(tree, path, left_out)
    if not labels and not any(groups.values()) and files(tree):
        groups = {"train": {UNLABELED: {**files(tree)}}}
    paired = [split for split, group in groups.items() if are_pairs(group)]
    if paired and len(paired) < len(groups):
        other = next(split for split in groups if split not in paired)
        raise ZooError(f"{path}: {paired[0]} contains images and masks, {other} does not: add these two folders")
    if not paired:
        _refuse_masks_among_images(groups, path)
    left_out.report(path, strict=strict)
    if paired:
        return read_pairs(groups, path, image_size, background)
    return _read_classes(groups, path, image_size, crop, background, strict)


def _groups(tree: Tree, path: Path, left_out: LeftOut) -> Groups:
    """The folders of classes, or of images and masks, by split."""
    found = folders(tree)
    while len(found) == 1 and folders(*found.values()) and not split_of(next(iter(found))):  # it only wraps the others
        _leave_files(tree, left_out)
        (tree,) = found.values()
        found = folders(tree)
    if not found and (pairs := paired_files(tree)):  # 1.png beside 1_mask.png
        return {"train": pairs}
    if pair := are_pairs(found):
        _leave_files(tree, left_out)
        for name in found.keys() - pair:
            left_out.add_folder(name, found[name])
        image_folder, mask_folder = pair
        images, masks = (_splits_among(folders(found[name]), path) for name in pair)
        if images and masks and not files(found[image_folder]):  # images/train beside masks/train
            if images.keys() != masks.keys():
                raise ZooError(f"{path}: {image_folder} has {', '.join(images)}, {mask_folder} has {', '.join(masks)}")
            return {split: {image_folder: images[split], mask_folder: masks[split]} for split in images}
        return {"train": {name: found[name] for name in pair}}
    splits = _splits_among(found, path)
    if not splits:
        if found:
            _leave_files(tree, left_out)
        return {"train": found}
    _leave_files(tree, left_out)
    groups: Groups = {}
    for split, folder in splits.items():
        group = folders(folder)
        if not group and (pairs := paired_files(folder)):
            group = pairs
        elif not group:
            raise ZooError(f"{path}: {split} has no class folders: put its images into one folder for each class")
        else:
            _leave_files(folder, left_out)
        if pair := are_pairs(group):
            for name in group.keys() - pair:
                left_out.add_folder(name, group[name])
            group = {name: group[name] for name in pair}
        groups[split] = group
    return groups


def _splits_among(found: Mapping[str, Tree], path: Path) -> dict[str, Tree]:
    """Folders by the splits that their names mean, in the order of `SPLITS`; empty where they are other folders.

    Raises:
        ZooError: for two folders of one split, and folders of splits beside others.
    """
    meant = {name: split_of(name) for name in found}
    # a class may have the name of a split, such as `train` beside `car` and `bus`: its folder contains the images
    named = {name: split for name, split in meant.items() if split and (folders(found[name]) or all(meant.values()))}
    if not named:
        return {}
    others = found.keys() - named
    if others:
        raise ZooError(
            f"{path}: {listed(sorted(named))} are folders of splits, {listed(sorted(others))} are not: move these away"
        )
    return by_split({name: found[name] for name in named}, path)


def _leave_files(tree: Tree, left_out: LeftOut) -> None:
    """Adds the files beside folders to those that are left out."""
    for name in files(tree):
        left_out.add(name)


def _refuse_masks_among_images(groups: Groups, path: Path) -> None:
    """Raises ZooError for class folders in which images lie beside their masks."""
    for group in groups.values():
        for name, folder in group.items():
            stems = {Path(file).stem for file in files(folder)}
            masks = [stem for stem in stems if (found := MASK_WORD.search(stem)) and stem[: found.start()] in stems]
            if masks:
                raise ZooError(
                    f"{path}: class folder {name!r} contains images beside their masks, such as {min(masks)}: put them "
                    "into the folders images and masks, or remove the masks"
                )


def _read_classes(groups: Groups, path: Path, image_size: Size, crop: bool, background: int, strict: bool) -> Parts:
    """Images of 8 bits in one folder for each class."""
    first = next(iter(groups))
    classes = in_order(groups[first])
    if not classes:
        raise ZooError(f"{path} has no class folders: put the images into one folder for each class")
    reads: dict[str, Read] = {}
    splits: list[str] = []
    class_ids: list[int] = []
    for split, group in groups.items():
        for name, folder in group.items():
            place = name if len(groups) == 1 else f"{split}/{name}"
            if name not in classes:
                hint = f"class folder {place!r} has no counterpart in {first}: add it or remove this one"
                raise ZooError(f"{path}: {hint}; {unknown('class', name, classes)}")
            if folders(folder):
                raise ZooError(
                    f"{path}: class folder {place!r} contains further folders: put only image files into it, or "
                    "remove it"
                )
            if not folder:
                raise ZooError(f"{path}: class folder {place!r} is empty of images: add some, or remove it")
            reads |= {
                f"{place}/{file}".lstrip("/"): read for file, read in folder.items() if not isinstance(read, dict)
            }
            splits += [split] * len(folder)
            class_ids += [classes.index(name)] * len(folder)

    streams = image_size is not None and exceeds_budget(len(reads), image_size, path.name)

    def decode(data: bytes) -> Decoded:
        decoded = decode_image(data, background)
        notes, pixels = decoded.notes, decoded.pixels
        if image_size is not None and min(pixels.shape[:2]) > MUCH_LARGER * max(image_size):
            notes = (*notes, REDUCED.format(*image_size))
        # a copy: a view would keep all pixels in memory
        return Decoded(pixels[:0].copy() if streams else resized(pixels, image_size, crop=crop), notes=notes)

    decoded, faults = decode_all(reads, decode, path.name)
    kept = np.array([name in decoded for name in reads])
    lost = set(zip(splits, class_ids, strict=True)) - set(
        zip(np.array(splits)[kept].tolist(), np.array(class_ids)[kept].tolist(), strict=True)
    )
    if faults:  # a class of which nothing remains cannot be left out
        _report_faults(faults, len(reads), path, strict=strict or bool(lost))
    report_changes(decoded, path)
    images: Any
    if streams and image_size is not None:
        channels = max(one.pixels.shape[2] for one in decoded.values())
        files_read = [(name, reads[name]) for name in decoded]
        images = Streamed(files_read, image_size, channels, crop=crop, background=background)
    else:
        images = stack((one.pixels for one in decoded.values()), path)
    unlabeled = classes == (UNLABELED,)
    targets = None if unlabeled else np.array(class_ids, np.int64)[kept]
    whole = Split(images, targets, np.array([*decoded], object))
    classes = () if unlabeled else classes
    return {split: whole.take(np.array(splits)[kept] == split) for split in groups}, classes


def _report_faults(faults: Mapping[str, str], count: int, path: Path, *, strict: bool) -> None:
    """Print one line that names the files that are not images; raises ZooError with them if `strict` is set."""
    named = listed((f"{name} ({reason})" for name, reason in faults.items()), MOST_NAMED)
    text = f"{len(faults)} of {count} files are not images ({', '.join(IMAGE_FORMATS)}) of 8 bits"
    if strict:
        raise ZooError(f"{path}: {text}: {named}")
    note(f"{path.name}: {text} and are left out: {named}; --strict refuses them")


def image_files(words: str) -> list[tuple[str, Read]]:
    """The files that a path means, by their paths: itself, those in a folder and in its folders, or those that its
    wildcards match; empty where there is none."""
    path = Path(words).expanduser()
    if path.is_dir():
        left_out = LeftOut()
        tree = open_tree(path, left_out)
        left_out.report(path, strict=False)
        return [(str(path / name), read) for name, read in all_files(tree)]
    if path.is_file():
        return [(words, path.read_bytes)]
    found = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(words) else []  # noqa: PTH207  also absolute
    return [pair for name in found for pair in image_files(name)]
