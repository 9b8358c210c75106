"""A picture of what the codes of InfoGAN do: its categories from top to bottom, and beside them its continuous codes.

python benchmarks/infogan_codes.py    writes docs/infogan_codes.png
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import zoo
from zoo.tasks import pictures

PICTURE = Path(__file__).parent.parent / "docs" / "infogan_codes.png"
COLUMNS = 8


def codes(source: str) -> np.ndarray:
    """For each of the first two latents, which InfoGAN makes its continuous codes, the ten categories from top to
    bottom while it grows from left to right."""
    predictor = zoo.load(source)
    latents = np.tile(tf.random.stateless_normal([1, predictor.task.latents], [1, 0]), (10 * COLUMNS, 1))
    parts = []
    for number in (0, 1):
        varied = latents.copy()
        varied[:, number] = np.tile(np.linspace(-2, 2, COLUMNS), 10)
        labels = np.repeat(np.arange(10, dtype=np.int32), COLUMNS)
        parts.append(pictures.grid(predictor(varied.astype(np.float32), labels)["images"], COLUMNS))
    return np.concatenate(parts, axis=1)


if __name__ == "__main__":
    pictures.write(PICTURE, [codes("infogan.mnist")])
