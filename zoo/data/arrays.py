"""Splits from plain arrays, whose shapes, types and values are checked, and `.npz` files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo.data.dataset import IGNORED, SPLITS, Parts, Split
from zoo.data.decoding import Size
from zoo.errors import ZooError


def read_npz(path: Path, image_size: Size) -> Parts:
    """The splits of an `.npz` file as `zoo.data.load` describes them; `image_size` does not change arrays.

    Raises:
        ZooError: for an unreadable file, a missing `x_train`, and arrays that `from_arrays` refuses.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {
                key.replace("_val", "_validation") if key.endswith("_val") else key: archive[key] for key in archive
            }
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ZooError(
            f"{path} cannot be read as plain arrays ({error}): write it with numpy.savez, without objects"
        ) from error
    if "x_train" not in arrays:
        raise ZooError(
            f"{path} has no x_train, only {', '.join(arrays) or 'nothing'}: name the arrays x_train, y_train"
        )
    splits = {name: Split(arrays[f"x_{name}"], arrays.get(f"y_{name}")) for name in SPLITS if f"x_{name}" in arrays}
    names = arrays.get("classes")
    return from_arrays(splits, None if names is None else [str(name) for name in np.ravel(names)], path)


def from_arrays(splits: Mapping[str, Split], names: Sequence[str] | None, where: str | Path) -> Parts:
    """Splits with the shapes and types that `Split` documents, and their class names.

    Args:
        splits: inputs and targets of train, and perhaps of the others, as `zoo.data.load` describes those of `.npz`
            files.
        names: the class names in order of the class ids; numbered if None.
        where: the file or other source, for errors.

    Raises:
        ZooError: for arrays of another shape or type, for values that are no inputs or targets, for splits that differ
            in the shape of their examples, and for too few names.
    """
    checked = {name: _checked(split, f"{where}: {name}") for name, split in splits.items()}
    train = checked["train"]
    for name, split in checked.items():
        if _shapes(split) != _shapes(train):
            raise ZooError(f"{where}: the examples of {name} differ in kind or size from those of train")
    if train.targets is None:
        return checked, ()
    ignored = _ignored(train.targets)
    if ignored.any() and not train.targets.any(where=~ignored):
        raise ZooError(f"{where}: the masks contain only 0 and {IGNORED}, which marks ignored pixels: use 0 and 1")
    overlapping = train.targets.ndim == 4
    counts = [_class_count(split.targets) for split in checked.values() if split.targets is not None]
    count = train.targets.shape[3] if overlapping else max(counts)
    classes = tuple(str(number + overlapping) for number in range(count)) if names is None else tuple(names)
    if len(classes) < count or (overlapping and len(classes) > count):
        raise ZooError(f"{where} names {len(classes)} classes, its targets have {count}: name each class once")
    return checked, classes


def _shapes(split: Split) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shapes of one example's input and target."""
    return split.inputs.shape[1:], None if split.targets is None else split.targets.shape[1:]


def _class_count(targets: np.ndarray) -> int:
    """The number of class ids from 0 to the highest."""
    return 1 + int(targets.max(initial=0, where=~_ignored(targets)))


def _ignored(targets: np.ndarray) -> np.ndarray:
    """Which pixels are marked as ignored."""
    return (targets == IGNORED) & (targets.dtype == np.uint8)


def _checked(split: Split, what: str) -> Split:
    x, y = split.inputs, split.targets
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise ZooError(f"{what} inputs contain NaN or infinite values: replace them")
    if x.ndim == 3:
        x = x[..., None]
    are_images = x.ndim == 4 and x.dtype in (np.uint8, np.uint16, np.float32)
    if not are_images and not (x.ndim == 1 and (x.dtype.kind == "U" or all(isinstance(text, str) for text in x))):
        raise ZooError(f"{what} inputs {x.dtype} {x.shape} must be uint8, uint16 or float [N, H, W, C], or texts [N]")
    if y is None:
        return Split(x)
    if y.ndim in (2, 4) and y.shape[-1] == 1:  # [N, 1], as in Keras' CIFAR-10
        y = y[..., 0]
    if x.shape[:1] != y.shape[:1]:
        raise ZooError(f"{what} inputs {x.shape} and targets {y.shape} differ in number: give each input one target")
    whole = y.dtype.kind in "iub" and y.min(initial=0) >= 0
    if not whole or not (y.ndim == 1 or (y.ndim in (3, 4) and y.shape[:3] == x.shape[:3])):
        raise ZooError(
            f"{what} targets {y.dtype} {y.shape} must be class ids from 0 on, [N] or [N, H, W], or masks [N, H, W, K]"
        )
    if y.ndim == 1:
        return Split(x, y.astype(np.int64))
    highest = y.max(initial=0, where=~_ignored(y))
    if highest > (IGNORED - 1 if y.ndim == 3 else 1):
        allowed = f"class ids up to {IGNORED - 1}" if y.ndim == 3 else "0 and 1, since their classes may overlap"
        raise ZooError(f"{what} masks contain {highest}: use {allowed}, and {IGNORED} as uint8 for pixels to ignore")
    return Split(x, y.astype(np.uint8))
