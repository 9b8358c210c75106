"""A data set in memory: its splits, its classes, and what identifies it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping

import numpy as np
from etils import epy

from zoo.errors import ZooError, unknown

with epy.lazy_imports():
    import tensorflow as tf
    from sklearn import model_selection

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.15  # share of train for each split that a data set does not bring
IGNORED = 255  # in masks: pixels that count for nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    Args:
        inputs: images [N, H, W, C] of uint8, uint16 or float32, or texts [N].
        targets: class ids int64 [N]; masks of exclusive classes, uint8 [N, H, W], a class id or `IGNORED` a pixel;
            masks of classes that may overlap, uint8 [N, H, W, K], each 0, 1 or `IGNORED`; or None.
    """

    inputs: np.ndarray
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def head(self, count: int) -> Split:
        """The first `count` examples, all where there are fewer."""
        return self.take(slice(count))

    def sample(self, count: int) -> Split:
        """`count` examples drawn at random, always the same ones; all where there are fewer."""
        return self.take(np.random.default_rng(0).permutation(len(self))[:count])

    def take(self, index: slice | np.ndarray) -> Split:
        return Split(self.inputs[index], None if self.targets is None else self.targets[index])

    def as_tf(self) -> tf.data.Dataset:
        """Single examples as pairs (input, target), as (input,) where there are no targets."""
        arrays = (self.inputs,) if self.targets is None else (self.inputs, self.targets)
        return tf.data.Dataset.from_tensor_slices(arrays)


Parts = tuple[dict[str, Split], tuple[str, ...]]  # the splits that a source brings, and its class names


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Args:
        name: as the user typed it, for a path its stem.
        splits: `train`, `validation` and `test`, each of at least one example.
        classes: their names in order of the class ids; empty where there are no targets.
        fingerprint: sha256 of the arrays (dtype, shape, bytes) of each split in order and of the class names;
            computed where none is given.
        ignored_class: the class that `without_class` has left out.

    Raises:
        ZooError: for other splits, or one without examples.
    """

    name: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    ignored_class: str | None = None

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ZooError(f"data set {self.name} has splits {', '.join(self.splits)}; it needs {', '.join(SPLITS)}")
        empty = [name for name in SPLITS if not len(self.splits[name])]
        if empty:
            raise ZooError(f"data set {self.name} has no example in {', '.join(empty)}: each split needs one at least")
        object.__setattr__(self, "fingerprint", self.fingerprint or _fingerprint(self.splits, self.classes))

    @property
    def train(self) -> tf.data.Dataset:
        return self.splits["train"].as_tf()

    @property
    def validation(self) -> tf.data.Dataset:
        return self.splits["validation"].as_tf()

    @property
    def test(self) -> tf.data.Dataset:
        return self.splits["test"].as_tf()

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image; () for texts."""
        return self.splits["train"].inputs.shape[1:]

    def without_class(self, name: str) -> Dataset:
        """The data set with the pixels of one class `IGNORED` and the ids above moved down by one; it has a fingerprint
        of its own.

        Raises:
            ZooError: for an unknown class, and for targets that are no masks of exclusive classes.
        """
        number = self._class_number(name, 3, "masks of exclusive classes, of which one can be ignored")

        def change(masks: np.ndarray) -> np.ndarray:
            lowered = masks - ((masks > number) & (masks != IGNORED))
            return np.where(masks == number, IGNORED, lowered).astype(masks.dtype)

        return self._changed(change, self.classes[:number] + self.classes[number + 1 :], name)

    def only_classes(self, *names: str) -> Dataset:
        """The data set with the masks of some of several classes that may overlap, in this order; it has a fingerprint
        of its own.

        Raises:
            ZooError: for an unknown class, and for targets that are no masks of such classes.
        """
        numbers = [
            self._class_number(name, 4, "masks of overlapping classes, of which one can be taken") for name in names
        ]
        return self._changed(lambda masks: masks[..., numbers], names)

    def _class_number(self, name: str, axes: int, needed: str) -> int:
        targets = self.splits["train"].targets
        if targets is None or targets.ndim != axes:
            raise ZooError(f"data set {self.name} has no {needed}")
        if name not in self.classes:
            raise unknown(f"class of {self.name}", name, self.classes)
        return self.classes.index(name)

    def _changed(
        self, change: Callable[[np.ndarray], np.ndarray], classes: tuple[str, ...], ignored_class: str | None = None
    ) -> Dataset:
        splits = {split: Split(part.inputs, change(part.targets)) for split, part in self.splits.items()}
        return Dataset(self.name, splits, classes, ignored_class=ignored_class)


def _fingerprint(splits: Mapping[str, Split], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in SPLITS:
        for array in (splits[name].inputs, splits[name].targets):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            texts = array.dtype.kind in "OU"  # their bytes in memory are addresses, or depend on the longest
            digest.update(json.dumps(array.tolist()).encode() if texts else np.ascontiguousarray(array).data)
    digest.update(json.dumps(classes).encode())
    return digest.hexdigest()


def complete(splits: dict[str, Split], seed: int) -> dict[str, Split]:
    """The splits with those that are missing taken from train."""
    train = splits["train"]
    count = max(1, round(HELD_OUT * len(train)))
    for name in ("test", "validation"):
        if name not in splits:
            rest, held = _held_out(train, min(count, len(train)), seed)
            splits, train = {**splits, name: train.take(held)}, train.take(rest)
    return {"train": train, "validation": splits["validation"], "test": splits["test"]}


def _held_out(split: Split, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices that stay and `count` that are held out, both in their old order."""
    labels, rest = split.targets, len(split) - count
    if rest <= 0:
        return np.arange(0), np.arange(len(split))
    if labels is not None:
        sizes = np.unique(labels, return_counts=True)[1] if labels.ndim == 1 else [0]  # masks have many classes each
        if min(sizes) < 2 or min(count, rest) < len(sizes):  # not one of each class a side
            labels = None
    parts = model_selection.train_test_split(np.arange(len(split)), test_size=count, random_state=seed, stratify=labels)
    return np.sort(parts[0]), np.sort(parts[1])
