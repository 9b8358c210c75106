"""Data sets given as Python objects: a finite `tf.data.Dataset` of pairs, or one for each split."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epy

from zoo.data.arrays import from_arrays
from zoo.data.dataset import SPLITS, Parts, Split
from zoo.errors import ZooError, unknown

with epy.lazy_imports():
    import tensorflow as tf

GIVEN = "given"  # the name of these data sets
BATCH = 256  # single examples that are read at once


def read_given(data: tf.data.Dataset | Mapping[str, tf.data.Dataset | Split]) -> Parts:
    """The splits of given objects as `zoo.data.load` describes them, and their class names.

    Raises:
        ZooError: for other objects, unknown splits, a data set without end or with other elements than pairs, and
            inputs or targets that no task takes.
    """
    named = dict(data) if isinstance(data, Mapping) else {"train": data}
    for name in named:
        if name not in SPLITS:
            raise unknown("split", str(name), SPLITS)
    if "train" not in named:
        raise ZooError(f"the given data has no train split, only {', '.join(named) or 'nothing'}: add one")
    names = _class_names(named.values())
    splits = {name: _read(one, f"given data: {name}") for name, one in named.items()}
    splits, names = _with_class_ids(splits, names)
    return from_arrays(_of_one_type(splits), names, "given data")


def _class_names(given: Iterable[Any]) -> tuple[str, ...] | None:
    """The attribute that `keras.utils.image_dataset_from_directory` sets."""
    found = {tuple(map(str, one.class_names)) for one in given if getattr(one, "class_names", None)}
    if len(found) > 1:
        raise ZooError("given data: the splits have different class_names: give all of them the same classes")
    return found.pop() if found else None


def _read(data: Any, where: str) -> Split:
    """A data set's examples as arrays, in its own order."""
    if isinstance(data, Split):
        return data
    if not isinstance(data, tf.data.Dataset):
        raise ZooError(
            f"{where} is a {type(data).__name__}: give the name or path of a data set, a tf.data.Dataset of pairs "
            "(input, target), or a mapping of train, validation and test to such data sets"
        )
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ZooError(f"{where} has no end: leave out repeat(), or limit it by take(count)")
    batches = _in_batches(data, where)
    columns: list[list[np.ndarray]] = [[] for _ in _components(batches)]
    try:
        for batch in batches.as_numpy_iterator():
            for column, values in zip(columns, batch if isinstance(batch, tuple) else (batch,), strict=True):
                column.append(values)
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{[^}]*\}\}|\[\[.*|\[Op:.*", "", error.message, flags=re.DOTALL)  # names of nodes
        raise ZooError(f"{where} cannot be read: {textwrap.shorten(reason, 300)}") from error
    inputs, *targets = (_joined(column, where) for column in columns)
    return Split(_decoded(inputs, where), *targets)


def _components(data: tf.data.Dataset) -> tuple[Any, ...]:
    """The specs of an element's tensors: of a pair (input, target), or of an input alone."""
    return data.element_spec if isinstance(data.element_spec, tuple) else (data.element_spec,)


def _in_batches(data: tf.data.Dataset, where: str) -> tf.data.Dataset:
    """The data set in batches: as it is, or its single examples batched."""
    specs = _components(data)
    if len(specs) not in (1, 2) or not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        found = textwrap.shorten(str(data.element_spec), 200)
        raise ZooError(f"{where} has elements {found}: give pairs (input, target) of dense tensors")
    if any(spec.shape.rank is None for spec in specs):
        raise ZooError(f"{where} has tensors of unknown rank: set their shapes, such as by tf.ensure_shape")
    inputs = specs[0]
    further_axes = inputs.shape.rank - (0 if inputs.dtype == tf.string else 3)  # than those of a text or of [H, W, C]
    if further_axes == 0 and inputs.dtype != tf.string:  # perhaps a batch of images [B, H, W]
        batched = None not in inputs.shape[1:] and all(spec.shape.rank and spec.shape[0] is None for spec in specs)
    else:
        batched = further_axes > 0
    if not batched:
        known = all(spec.shape.is_fully_defined() for spec in specs)
        data = data.batch(BATCH if known else 1)  # examples of different sizes do not fit into one batch
    if any(spec.shape.rank == 0 for spec in _components(data)):
        raise ZooError(f"{where} has batches of inputs with single targets: batch both or neither")
    return data


def _joined(batches: list[np.ndarray], where: str) -> np.ndarray:
    """Batches [B, ...] as one array [N, ...]."""
    if not batches:
        raise ZooError(f"{where} has no example: each split needs at least one")
    shapes = sorted({batch.shape[1:] for batch in batches})
    if len(shapes) > 1:
        found = ", ".join(map(str, shapes[:3]))
        raise ZooError(f"{where} has examples of {len(shapes)} shapes ({found}, ...): bring all to the same shape")
    return np.concatenate(batches)


def _decoded(inputs: np.ndarray, where: str) -> np.ndarray:
    """Texts as str, images as they are."""
    if inputs.dtype.kind != "O":
        return inputs
    try:
        return np.array([text.decode() for text in inputs], object)
    except UnicodeDecodeError as error:
        raise ZooError(f"{where} has a text that is not UTF-8 ({error.reason}): encode all texts as UTF-8") from error


def _with_class_ids(
    splits: dict[str, Split], names: tuple[str, ...] | None
) -> tuple[dict[str, Split], tuple[str, ...] | None]:
    """The splits with one-hot labels as class ids and whole floating-point targets as integers, and the class names:
    one-hot labels have as many classes as columns, also if they are not named."""
    changed = {}
    for name, split in splits.items():
        y = split.targets
        if y is not None and y.dtype.kind == "f" and np.isfinite(y).all() and (np.rint(y) == y).all():
            y = y.astype(np.int64)
        if y is not None and y.ndim == 2 and y.shape[1] > 1:
            if y.dtype.kind not in "iub" or not ((y == 0) | (y == 1)).all() or (y.sum(axis=1) != 1).any():
                raise ZooError(
                    f"given data: {name} targets {y.dtype} {y.shape} of inputs {split.inputs.shape} are not one-hot: "
                    "give class ids [N], and images with a channel axis"
                )
            names = names or tuple(map(str, range(y.shape[1])))
            if len(names) != y.shape[1]:
                raise ZooError(f"given data: {name} has one-hot labels of {y.shape[1]} classes, not {len(names)}")
            y = y.argmax(axis=1)
        changed[name] = Split(split.inputs, y)
    return changed, names


def _of_one_type(splits: dict[str, Split]) -> dict[str, Split]:
    """The splits with images of one type.

    Floating-point images with a range of 0 to 255 become uint8 if they lose nothing by it; without masks fractions are
    rounded, as those of resized image files are, since networks that label whole images take 8 bits. Images with a
    range of 0 to 1 are on another scale and stay as they are.
    """
    arrays = [split.inputs for split in splits.values() if len(split)]
    if not arrays or any(x.dtype.kind in "OU" for x in arrays):
        return splits
    dtype = np.result_type(*{x.dtype for x in arrays})
    if dtype.kind == "f" and min(x.min() for x in arrays) >= 0 and 1 < max(x.max() for x in arrays) <= 255:
        targets = splits["train"].targets
        has_masks = targets is not None and targets.ndim > 2
        if not has_masks or all((np.rint(x) == x).all() for x in arrays):
            return {
                name: Split(np.rint(split.inputs).astype(np.uint8), split.targets) for name, split in splits.items()
            }
    return {name: Split(split.inputs.astype(dtype, copy=False), split.targets) for name, split in splits.items()}
