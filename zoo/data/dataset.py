"""A data set in memory: its splits, its class names and its fingerprint."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from etils import epy

from zoo.data import streamed
from zoo.data.streamed import Streamed
from zoo.errors import ZooError, unknown

with epy.lazy_imports():
    import tensorflow as tf
    from sklearn import model_selection

# The splits, each with the names that its folder, file or array may have, in any case, alone or followed by "set" or
# "data" as in "training_set".
SPLIT_NAMES = {"train": "train(ing)?", "validation": "val(id(ation)?)?|dev", "test": "test(ing)?"}
SPLITS = tuple(SPLIT_NAMES)
HELD_OUT = 0.15  # share of train for each split that a data set lacks
UNLABELED = -1  # in class ids: examples without a label
IGNORED = 255  # in masks: pixels that count neither in the loss nor in a metric

T = TypeVar("T")


def split_of(name: str) -> str | None:
    """The split that a name means, such as `validation` for `valid` and `Val`; None for any other name."""
    for split, pattern in SPLIT_NAMES.items():
        if re.fullmatch(rf"({pattern})([ _-]?(set|data))?", name.lower()):
            return split
    return None


def by_split(named: Mapping[str, T], where: str | Path) -> dict[str, T]:
    """Values by the splits that their names mean, in the order of `SPLITS`; empty where a name means none.

    Raises:
        ZooError: for two names of one split.
    """
    meant = {name: split_of(name) for name in named}
    if None in meant.values():
        return {}
    found: dict[str | None, str] = {}
    for name, split in meant.items():
        if split in found:
            raise ZooError(f"{where}: {found[split]} and {name} both mean {split}: rename one of them")
        found[split] = name
    return {split: named[found[split]] for split in SPLITS if split in found}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    Args:
        inputs: images [N, H, W, C] of uint8, uint16 or float32, or texts [N]; `zoo.data.streamed.Streamed` in place of
            an array where the images do not fit into memory.
        targets: class ids int64 [N], `UNLABELED` for an example without a label; masks of exclusive classes, uint8
            [N, H, W], each pixel a class id or `IGNORED`; masks of overlapping classes, uint8 [N, H, W, K], each value
            0, 1 or `IGNORED`; or None.
        names: the names of the files that the inputs were read from, [N]; None where they have none.
    """

    inputs: np.ndarray
    targets: np.ndarray | None = None
    names: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def head(self, count: int) -> Split:
        """The first `count` examples, or all if there are fewer."""
        return self.take(slice(count))

    def sample(self, count: int) -> Split:
        """`count` randomly drawn examples, the same ones each time, or all if there are fewer."""
        return self.take(np.random.default_rng(0).permutation(len(self))[:count])

    def take(self, index: slice | np.ndarray) -> Split:
        """The examples that a slice, an array of positions or a boolean array [N] selects."""
        arrays = (None if array is None else array[index] for array in (self.targets, self.names))
        return Split(self.inputs[index], *arrays)

    def labeled(self) -> Split:
        """The examples that have a label: all where there are no class ids."""
        if self.targets is None or self.targets.ndim != 1 or UNLABELED not in self.targets:
            return self
        return self.take(self.targets != UNLABELED)

    def as_tf(self) -> tf.data.Dataset:
        """Single examples as pairs (input, target), or as (input,) if there are no targets."""
        arrays = (self.inputs,) if self.targets is None else (self.inputs, self.targets)
        if not isinstance(self.inputs, Streamed):
            return tf.data.Dataset.from_tensor_slices(arrays)
        parts = [streamed.in_graph(array) for array in arrays]
        return tf.data.Dataset.range(len(self)).map(
            lambda number: tuple(streamed.gather(part, number[None])[0] for part in parts), tf.data.AUTOTUNE
        )


Parts = tuple[dict[str, Split], tuple[str, ...]]  # the splits that a source contains, and its class names


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Args:
        name: the name as the user typed it; for a path, its stem.
        splits: `train`, `validation` and `test`, each with at least one example; or some of them, see `whole`.
        classes: the class names in order of the class ids; empty if there are no targets.
        fingerprint: sha256 of the arrays (dtype, shape, bytes) of each split in order and of the class names;
            computed if empty.
        ignored_class: the class that `without_class` removed.
        given: whether the examples are Python objects of the caller, which no name or path finds again.
        own: whether it was read from a path of the user's, so that its name may be that of another data set too.
        whole: whether its splits are those of the source, of which nothing is held out.
        background: gray value from 0 to 255 that transparent pixels of image files show.

    Raises:
        ZooError: for a missing or unknown split, or a split without examples.
    """

    name: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    ignored_class: str | None = None
    given: bool = False
    own: bool = False
    whole: bool = False
    background: int = 255

    def __post_init__(self) -> None:
        if not (set(SPLITS) >= set(self.splits) != set() if self.whole else set(self.splits) == set(SPLITS)):
            raise ZooError(f"data set {self.name} has splits {', '.join(self.splits)}; it needs {', '.join(SPLITS)}")
        empty = [name for name in SPLITS if name in self.splits and not len(self.splits[name])]
        if empty:
            raise ZooError(f"data set {self.name} has no example in {', '.join(empty)}: each split needs at least one")
        object.__setattr__(self, "fingerprint", self.fingerprint or _fingerprint(self.splits, self.classes))

    @property
    def train(self) -> tf.data.Dataset:
        """The training split, see `Split.as_tf`."""
        return self.splits["train"].as_tf()

    @property
    def validation(self) -> tf.data.Dataset:
        """The validation split, see `Split.as_tf`."""
        return self.splits["validation"].as_tf()

    @property
    def test(self) -> tf.data.Dataset:
        """The test split, see `Split.as_tf`."""
        return self.splits["test"].as_tf()

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image; () for texts."""
        return self.first.inputs.shape[1:]

    @property
    def first(self) -> Split:
        """The training split, or the first one of those that there are."""
        return next(self.splits[name] for name in SPLITS if name in self.splits)

    def without_class(self, name: str) -> Dataset:
        """This data set with the pixels of one class set to `IGNORED` and the ids above it lowered by one. The result
        has its own fingerprint.

        Raises:
            ZooError: for an unknown class, and for targets that are not masks of exclusive classes.
        """
        number = self._class_number(name, 3, "masks of exclusive classes, the only ones with a class to ignore")

        def change(masks: np.ndarray) -> np.ndarray:
            lowered = masks - ((masks > number) & (masks != IGNORED))
            return np.where(masks == number, IGNORED, lowered).astype(masks.dtype)

        changed = self._changed(change, self.classes[:number] + self.classes[number + 1 :])
        return dataclasses.replace(changed, ignored_class=name)

    def only_classes(self, *names: str) -> Dataset:
        """This data set with the masks of some of its overlapping classes, in this order. The result has its own
        fingerprint.

        Raises:
            ZooError: for an unknown class, and for targets that are not masks of overlapping classes.
        """
        needed = "masks of overlapping classes, the only ones from which classes can be selected"
        numbers = [self._class_number(name, 4, needed) for name in names]
        return self._changed(lambda masks: masks[..., numbers], names)

    def with_labels(self, per_class: int, seed: int = 0) -> Dataset:
        """This data set with the labels of at most `per_class` training examples of each class, drawn by the seed; the
        others become `UNLABELED`. Validation and test keep theirs. The result has its own fingerprint.

        Raises:
            ZooError: for targets that are not class ids.
        """
        if "train" not in self.splits:
            return self
        train = self.splits["train"]
        if train.targets is None or train.targets.ndim != 1:
            raise ZooError(f"data set {self.name} has no class ids, the only targets that labels_per_class removes")
        order, targets = np.random.default_rng(seed).permutation(len(train)), np.full_like(train.targets, UNLABELED)
        for label in range(len(self.classes)):
            kept = order[train.targets[order] == label][:per_class]
            targets[kept] = label
        splits = {**self.splits, "train": dataclasses.replace(train, targets=targets)}
        return dataclasses.replace(self, splits=splits, fingerprint="")

    def fold(self, number: int, count: int) -> Dataset:
        """One of the `count` data sets of a cross-validation, by its `number` from 1 on: its test split is one of
        `count` parts of the examples of train and validation, stratified by class where each class has as many
        examples, and its validation split is held out of the rest. A test split of this data set is left out. The
        result has its own fingerprint.

        Raises:
            ZooError: for fewer than two folds, more than there are examples, and a number that is none of them.
        """
        parts = [self.splits[name] for name in ("train", "validation") if name in self.splits]
        if not parts:
            raise ZooError(f"data set {self.name} has a test split alone: folds are made of train and validation")
        whole = functools.reduce(_joined, parts)
        if not 2 <= count <= len(whole) or not 1 <= number <= count:
            raise ZooError(f"{self.name} has {len(whole)} examples to fold: fold {number} of {count} is none of them")
        labels = whole.targets if whole.targets is not None and whole.targets.ndim == 1 else np.zeros(len(whole), int)
        stratified = np.unique(labels, return_counts=True)[1].min() >= count
        kind = model_selection.StratifiedKFold if stratified else model_selection.KFold
        rest, part = [*kind(count, shuffle=True, random_state=0).split(labels, labels)][number - 1]
        splits = complete({"train": whole.take(rest), "test": whole.take(part)}, seed=0)
        return dataclasses.replace(self, splits=splits, fingerprint="", whole=False)

    def with_classes(self, classes: tuple[str, ...]) -> Dataset:
        """This data set with class ids that count in other classes, of which its own are some: in any order, and some
        may be missing. The result has its own fingerprint. Not for overlapping classes."""
        ids = np.array([classes.index(name) for name in self.classes])

        def change(targets: np.ndarray) -> np.ndarray:
            if targets.ndim == 1:
                return np.where(targets == UNLABELED, UNLABELED, ids[targets])
            return np.where(targets == IGNORED, IGNORED, ids[np.where(targets == IGNORED, 0, targets)]).astype(np.uint8)

        return self._changed(change, classes)

    def _class_number(self, name: str, axes: int, needed: str) -> int:
        targets = self.first.targets
        if targets is None or targets.ndim != axes:
            raise ZooError(f"data set {self.name} has no {needed}")
        if name not in self.classes:
            raise unknown(f"class of {self.name}", name, self.classes)
        return self.classes.index(name)

    def _changed(self, change: Callable[[np.ndarray], np.ndarray], classes: tuple[str, ...]) -> Dataset:
        splits = {
            name: dataclasses.replace(split, targets=None if split.targets is None else change(split.targets))
            for name, split in self.splits.items()
        }
        return dataclasses.replace(self, splits=splits, classes=classes, fingerprint="", ignored_class=None)


def _fingerprint(splits: Mapping[str, Split], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in splits if len(splits) < len(SPLITS) else SPLITS:
        for array in (splits[name].inputs, splits[name].targets):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            if isinstance(array, Streamed):
                for part in array.parts():
                    digest.update(part.data)
                continue
            texts = array.dtype.kind in "OU"  # their bytes in memory are addresses, or depend on the longest text
            digest.update(json.dumps(array.tolist()).encode() if texts else np.ascontiguousarray(array).data)
    digest.update(json.dumps(classes).encode())
    return digest.hexdigest()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their ids: numbers by value where all are numbers, otherwise by character."""
    names = sorted(names)
    return tuple(sorted(names, key=int) if all(re.fullmatch(r"-?\d+", name) for name in names) else names)


def complete(splits: Mapping[str, Split], seed: int) -> dict[str, Split]:
    """All three splits: those that are missing are taken from train, `HELD_OUT` of it each. Of a class with too few
    examples for each split all stay in train."""
    train, found = splits["train"], dict(splits)
    missing = [name for name in ("test", "validation") if name not in found]
    count = max(1, round(HELD_OUT * len(train)))
    rare = _rare_classes(train, 1 + len(missing)) if missing else []
    kept = np.isin(train.targets, rare) if rare and train.targets is not None else np.zeros(len(train), bool)
    few, train = train.take(kept), train.take(~kept)
    for name in missing:
        rest, held_out = _hold_out(train, min(count, len(train)), seed)
        found[name], train = train.take(held_out), train.take(rest)
    if rare:
        train = _joined(train, few)
    return {"train": train, "validation": found["validation"], "test": found["test"]}


def _rare_classes(split: Split, parts: int) -> list[int]:
    """The class ids with fewer examples than parts; none where the others are too few to be held out by class."""
    if split.targets is None or split.targets.ndim != 1:
        return []
    ids, sizes = np.unique(split.targets, return_counts=True)
    common = ids[sizes >= parts]
    held_out = round(HELD_OUT * len(split))
    return ids[sizes < parts].tolist() if 2 <= len(common) <= held_out else []


def _joined(first: Split, second: Split) -> Split:
    """The examples of both, which have the same parts."""

    def joined(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
        return None if one is None or other is None else np.concatenate([one, other])

    if isinstance(first.inputs, Streamed):
        inputs = cast(np.ndarray, first.inputs.joined(cast(Streamed, second.inputs)))
    else:
        inputs = np.concatenate([first.inputs, second.inputs])
    return Split(inputs, joined(first.targets, second.targets), joined(first.names, second.names))


def _hold_out(split: Split, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the examples that remain and of `count` that are held out, both in their original order."""
    labels, rest = split.targets, len(split) - count
    if rest <= 0:
        return np.arange(0), np.arange(len(split))
    if labels is not None:
        # masks contain several classes each and are not stratified; nor are labels with too few examples of a class
        sizes = np.unique(labels, return_counts=True)[1] if labels.ndim == 1 else [0]
        if min(sizes) < 2 or min(count, rest) < len(sizes):
            labels = None
    parts = model_selection.train_test_split(np.arange(len(split)), test_size=count, random_state=seed, stratify=labels)
    return np.sort(parts[0]), np.sort(parts[1])
