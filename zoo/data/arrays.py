"""Splits from plain arrays, whose shapes, types and values are checked, and `.npz` files.

**Names in `.npz` files**, in any case and order: `x`, `images`, `data` or `inputs` for the inputs, `y`, `labels`,
`targets` or `masks` for the targets, together with `train`, `val`, `valid`, `validation`, `dev` or `test`, and
`classes` or `class_names`. Those of Keras and of MedMNIST are such names. Without the name of a split an array belongs
to train. `arr_0` and `arr_1`, NumPy's own names, are inputs and targets.

**Inputs** are texts [N], or images [N, H, W], [N, H, W, C], or [N, C, H, W] with C of 1 or 3, which are transposed.
Images with labels, or without targets, become uint8: integers from 0 to 255 as they are, of 16 bits the upper 8,
floating-point values from 0 to 1 times 255, those from 0 to 255 rounded. Images with masks stay uint8, uint16 or float.

**Targets** are labels or masks.

- Labels are whole numbers from 0 on or texts, [N] or [N, 1], or one-hot, [N, K]. The classes are the values that occur
  in train, or the columns; their names are the values or `classes`.
- Masks [N, H, W] of class ids up to 254. The classes are the values that occur; 255 as uint8 is `IGNORED`.
- Masks [N, H, W, K] of K > 1 overlapping classes, of 0 and 1, and 255 as uint8.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo.data.dataset import IGNORED, Parts, Split, in_order, split_of
from zoo.data.decoding import UPPER_BITS, Size
from zoo.errors import ZooError, listed, note

INPUTS = set("x images image imgs img data inputs input features texts text".split())
TARGETS = set("y labels label targets target masks mask".split())
CLASSES = set("classes classnames labelnames targetnames names categories".split())
LEAST_SIDE = 5  # pixels: [N, 3, 8, 8] holds images with the channels first, [N, 3, 3, 3] may hold any


def read_npz(path: Path, image_size: Size) -> Parts:
    """The splits of an `.npz` file, by the names that this module describes; `image_size` does not change arrays.

    Raises:
        ZooError: for an unreadable file, missing inputs, two arrays of one meaning, and arrays that `from_arrays`
            refuses.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ZooError(
            f"{path} cannot be read as plain arrays ({error}): write it with numpy.savez, without objects"
        ) from error
    if arrays.keys() == {"arr_0", "arr_1"}:
        arrays = {"x": arrays["arr_0"], "y": arrays["arr_1"]}
        note(f"{path.name}: arr_0 is taken for the inputs, arr_1 for the targets")
    keys: dict[tuple[str, str], str] = {}
    unknown = []
    for key in arrays:
        meaning = _meaning(key)
        if meaning is None:
            unknown.append(key)
        elif meaning in keys:
            raise ZooError(f"{path}: {keys[meaning]} and {key} are both the {' '.join(meaning)}: remove one of them")
        else:
            keys[meaning] = key
    splits = {
        split: Split(arrays[key], arrays[keys["targets", split]] if ("targets", split) in keys else None)
        for (role, split), key in keys.items()
        if role == "inputs"
    }
    alone = [key for (role, split), key in keys.items() if role == "targets" and split not in splits]
    if not splits:
        raise ZooError(
            f"{path} has no x_train, only {', '.join(arrays) or 'nothing'}: name the arrays x_train, y_train"
        )
    if left := unknown + alone:
        note(f"{path.name}: left out the arrays {listed(left)}")
    names = arrays[keys["classes", ""]] if ("classes", "") in keys else None
    return from_arrays(splits, None if names is None else [_text(name) for name in np.ravel(names)], path)


def _meaning(key: str) -> tuple[str, str] | None:
    """What an array is by its name: `inputs` or `targets` and a split, or `classes`; None for any other."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", key).lower())
    if "".join(words) in CLASSES:
        return "classes", ""
    splits = {split for word in words if (split := split_of(word))}
    role = "targets" if TARGETS & {*words} else "inputs" if INPUTS & {*words} else None
    return (role, *(splits or {"train"})) if role and len(splits) < 2 else None  # type: ignore[return-value]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def from_arrays(splits: Mapping[str, Split], names: Sequence[str] | None, where: str | Path) -> Parts:
    """Splits with the shapes and types that `Split` documents, and their class names.

    Args:
        splits: inputs and targets of some splits, as this module describes them.
        names: the class names: of the labels 0, 1, ..., or of the values that occur, in ascending order.
        where: the file or other source, for errors.

    Raises:
        ZooError: for arrays of another shape or type, for values that are no inputs or targets, for splits that differ
            in the shape of their examples or of which train lacks a class, and for too few names.
    """
    inputs = _inputs({name: _channels_last(split, f"{where}: {name}") for name, split in splits.items()}, where)
    checked = {name: _checked(inputs[name], split.targets, f"{where}: {name}") for name, split in splits.items()}
    checked, names = _without_columns(checked, names, where)
    first = checked["train"] if "train" in checked else next(iter(checked.values()))
    for name, split in checked.items():
        if _shapes(split) != _shapes(first):
            raise ZooError(f"{where}: the examples of {name} differ in kind or size from those of train")
    targets = {name: split.targets for name, split in checked.items() if split.targets is not None}
    if not targets:
        return checked, ()
    known = next(iter(targets.values())) if "train" not in targets else targets["train"]
    _check_masks(known, where)
    if known.ndim < 4:
        targets, classes = _by_value(targets, known, names, where)
    else:
        count = known.shape[-1]
        classes = tuple(str(number + 1) for number in range(count)) if names is None else tuple(names)
        if len(classes) != count:
            raise ZooError(f"{where} names {len(classes)} classes, its targets have {count}: name each class once")
    return {
        name: Split(split.inputs, targets[name].astype(np.int64 if targets[name].ndim == 1 else np.uint8))
        for name, split in checked.items()
    }, classes


def _without_columns(
    splits: dict[str, Split], names: Sequence[str] | None, where: str | Path
) -> tuple[dict[str, Split], Sequence[str] | None]:
    """The splits with one-hot labels as class ids, and the names of their classes: each column is one."""
    for name, split in splits.items():
        if split.targets is not None and split.targets.ndim == 2:
            count = split.targets.shape[1]
            names = [*map(str, range(count))] if names is None else names
            if len(names) != count:
                raise ZooError(f"{where}: {name} has one-hot labels of {count} classes, not {len(names)}")
            splits[name] = Split(split.inputs, split.targets.argmax(axis=1))
    return splits, names


def _check_masks(masks: np.ndarray, where: str | Path) -> None:
    """Raises ZooError for masks in which nothing is left beside 0 where 255 marks ignored pixels."""
    ignored = _ignored(masks)
    if ignored.any() and not masks.any(where=~ignored):
        raise ZooError(f"{where}: the masks contain only 0 and {IGNORED}, which marks ignored pixels: use 0 and 1")


def _by_value(
    targets: Mapping[str, np.ndarray], known: np.ndarray, names: Sequence[str] | None, where: str | Path
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """By split the ids of labels or masks, and the class names, where the values that occur are the classes."""
    values = np.unique(known[~_ignored(known)])
    for name, found in targets.items():
        new = np.setdiff1d(found[~_ignored(found)], values)
        if len(new):
            raise ZooError(f"{where}: {name} has the labels {listed(map(str, new))}, of which train has no example")
    whole = values.dtype.kind in "iu" and len(values) > 0
    if names is not None and whole and len(names) > values[-1]:
        return dict(targets), tuple(names)
    if names is not None and len(names) != len(values):
        raise ZooError(f"{where} names {len(names)} classes, its targets have {len(values)}: name each class once")
    if whole and int(values[-1]) != len(values) - 1:
        pairs = listed(f"{value} is {name}" for value, name in zip(values, names or map(str, values), strict=True))
        note(f"{where}: the classes are the values that occur, {pairs if names else listed(map(str, values))}")
    ids = {name: np.where(_ignored(found), IGNORED, np.searchsorted(values, found)) for name, found in targets.items()}
    if not whole and names is None:  # texts, of which numbers are ordered by value
        classes = in_order(map(str, values))
        order = np.array([classes.index(str(value)) for value in values], np.int64)
        return {name: order[found] for name, found in ids.items()}, classes
    return ids, tuple(names or map(str, values))


def as_images(array: np.ndarray, *, deep: bool = False) -> np.ndarray:
    """One image [H, W] or [H, W, C], C up to 4, or several [N, H, W] or [N, H, W, C], as [N, H, W, C].

    Args:
        array: numbers; the module's docstring says which become uint8.
        deep: keep values of more than 8 bits, as those of images with masks.

    Raises:
        ZooError: for another shape or type.
    """
    where = f"an array {array.dtype} {array.shape}"
    if array.size == 0 and (array.ndim == 1 or 0 in array.shape[:1]):
        return np.zeros((0, 1, 1, 1), np.uint8)
    if array.ndim == 2:
        array = array[None, ..., None]
    elif array.ndim == 3:
        array = array[None] if array.shape[-1] <= 4 else array[..., None]
    if array.ndim != 4 or array.dtype.kind not in "buif":
        raise ZooError(f"{where} is no image [H, W] or [H, W, C], nor several: give numbers of that shape")
    (images,) = _inputs({"": _channels_last(Split(array), where)}, where, masks=deep).values()
    return images


def _channels_last(split: Split, what: str) -> Split:
    """The split with images [N, H, W, C] where they are [N, C, H, W]; any other as it is."""
    x, y = split.inputs, split.targets
    fits_masks = y is not None and y.ndim in (3, 4) and y.shape[1:3] == x.shape[1:3]
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < LEAST_SIDE or fits_masks:
        return split
    note(f"{what} inputs {x.shape} have the channels first: they are transposed to [N, H, W, C]")
    return Split(np.moveaxis(x, 1, 3), y, split.names)


def _inputs(splits: Mapping[str, Split], where: str | Path, *, masks: bool | None = None) -> dict[str, np.ndarray]:
    """By split its texts [N] or images [N, H, W, C], all of one type.

    Args:
        masks: whether the images keep more than 8 bits; if None, as the targets are.
    """
    arrays = {}
    for name, split in splits.items():
        x = split.inputs
        if x.dtype.kind == "f":
            with np.errstate(over="ignore"):
                x = x.astype(np.float32, copy=False)
            if not np.isfinite(x).all():
                raise ZooError(f"{where}: {name} inputs contain NaN or infinite values: replace them")
        arrays[name] = x = x[..., None] if x.ndim == 3 else x
        if x.dtype.kind in "buifc" and x.ndim != 4:
            raise ZooError(
                f"{where}: {name} inputs {x.dtype} {x.shape} must be uint8, uint16 or float [N, H, W, C], or texts [N]"
            )
        if masks is None:
            masks = split.targets is not None and split.targets.ndim > 2
    used = [x for x in arrays.values() if x.size]
    if not used or any(x.dtype.kind not in "buif" for x in used):
        return arrays
    dtype = np.result_type(*{x.dtype for x in used})
    low, high = min(x.min() for x in used), max(x.max() for x in used)
    change, text = _to_bits(dtype, float(low), float(high), used, masks=bool(masks))
    if text:
        note(f"{where}: images of type {dtype}, values {low:g} to {high:g}: {text}")
    return {name: change(x) for name, x in arrays.items()}


def _to_bits(
    dtype: np.dtype, low: float, high: float, arrays: Sequence[np.ndarray], *, masks: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """The function that converts images of one type and range, and what a note says of it, if anything."""
    kind, bits = dtype.kind, dtype.itemsize * 8
    if kind == "b":
        return lambda x: x.astype(np.uint8) * 255, "true is read as 255"
    if kind in "iu" and low >= 0 and (high <= 255 and not (masks and bits == 16)):
        return lambda x: x.astype(np.uint8, copy=False), ""
    if kind in "iu" and low >= 0 and high < 2**16:
        if masks:
            return lambda x: x.astype(np.uint16, copy=False), ""
        return lambda x: (x.astype(np.int64) >> 8).astype(np.uint8), f"read as {UPPER_BITS}"
    if kind == "f" and low >= 0 and high <= 255 and not masks:
        if 0 < high <= 1:
            return lambda x: np.rint(x * 255).astype(np.uint8), "multiplied by 255"
        return lambda x: np.rint(x).astype(np.uint8), ""
    if kind == "f" and low >= 0 and 1 < high <= 255 and all((np.rint(x) == x).all() for x in arrays):
        return lambda x: x.astype(np.uint8), ""
    return lambda x: x.astype(np.float32 if kind == "f" else dtype, copy=False), ""


def _shapes(split: Split) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shapes of one example's input and target."""
    return split.inputs.shape[1:], None if split.targets is None else split.targets.shape[1:]


def _ignored(targets: np.ndarray) -> np.ndarray:
    """Which pixels of masks are marked as ignored; labels never are."""
    if targets.dtype != np.uint8 or targets.ndim < 3:
        return np.zeros(targets.shape, bool)
    return targets == IGNORED


def _checked(x: np.ndarray, y: np.ndarray | None, what: str) -> Split:
    """A split whose inputs are texts or images, and whose targets are of one of the module's kinds."""
    are_images = x.ndim == 4 and x.dtype in (np.uint8, np.uint16, np.float32)
    if not are_images and not (x.ndim == 1 and (x.dtype.kind == "U" or all(isinstance(text, str) for text in x))):
        raise ZooError(f"{what} inputs {x.dtype} {x.shape} must be uint8, uint16 or float [N, H, W, C], or texts [N]")
    if y is None:
        return Split(x)
    if y.ndim in (2, 4) and y.shape[-1] == 1:  # [N, 1], as in Keras' CIFAR-10
        y = y[..., 0]
    if x.shape[:1] != y.shape[:1]:
        raise ZooError(f"{what} inputs {x.shape} and targets {y.shape} differ in number: give each input one target")
    if y.ndim == 1 and (y.dtype.kind in "US" or (y.dtype.kind == "O" and all(isinstance(v, str | bytes) for v in y))):
        return Split(x, np.array([_text(value).strip() for value in y]))
    if y.dtype.kind == "f" and np.isfinite(y).all() and (np.rint(y) == y).all():
        y = y.astype(np.int64)
    if y.ndim == 2:
        if y.dtype.kind not in "iub" or not ((y == 0) | (y == 1)).all() or (y.sum(axis=1) != 1).any():
            raise ZooError(
                f"{what} targets {y.dtype} {y.shape} of inputs {x.shape} are not one-hot: give class ids [N], and "
                "images with a channel axis"
            )
        return Split(x, y)
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
