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
    for name, split in splits.items():
        if not len(split):
            raise ZooError(f"given data: no example in {name}: each split needs at least one")
    return from_arrays(splits, names, "given data")


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
