"""Examples of signatures: inputs, and what a network computes for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epy

from zoo import tasks

with epy.lazy_imports():
    import tensorflow as tf


def examples(
    task: tasks.Task, signatures: Mapping[str, Any], cases: Mapping[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    """Inputs and outputs of each signature.

    Args:
        cases: by a label the number of examples and the seed of `task.golden_inputs`.

    Returns:
        Arrays by `SIGNATURE/LABEL/inputs/NAME` and `SIGNATURE/LABEL/outputs/NAME`.
    """
    found: dict[str, np.ndarray] = {}
    for label, (count, seed) in cases.items():
        for name, inputs in task.golden_inputs(count, seed).items():
            outputs = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
            found |= {f"{name}/{label}/inputs/{key}": value for key, value in inputs.items()}
            found |= {f"{name}/{label}/outputs/{key}": _plain(value.numpy()) for key, value in outputs.items()}
    return found


def _plain(value: np.ndarray) -> np.ndarray:
    """Texts as NumPy's own type, so that no pickle is needed."""
    return np.array([text.decode() for text in value.ravel()]).reshape(value.shape) if value.dtype == object else value
