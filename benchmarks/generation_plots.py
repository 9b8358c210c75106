"""Pictures of a trained generator: samples beside their nearest training images, and the codes of InfoGAN.

python benchmarks/generation_plots.py dcgan_small.mnist       writes docs/dcgan_small.png
python benchmarks/generation_plots.py infogan.mnist           writes docs/infogan.png as well as its codes
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import zoo
from zoo.tasks import pictures, sample_metrics

DOCS = Path(__file__).parent.parent / "docs"
ROWS, COLUMNS = 8, 8


def with_nearest(source: str, data: str) -> np.ndarray:
    """Rows of samples, each followed by a row of the training images that are nearest to them by their pixels."""
    samples = zoo.sample(source, ROWS // 2 * COLUMNS, seed=1)
    training = zoo.data.load(data, image_size=samples.shape[1:3]).splits["train"].inputs
    beside = training[sample_metrics.nearest(samples, training)]
    rows = [
        part for pair in zip(np.split(samples, ROWS // 2), np.split(beside, ROWS // 2), strict=True) for part in pair
    ]
    return pictures.grid(np.concatenate(rows), COLUMNS)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="NAME.TAG, or an exported directory")
    parser.add_argument("--data", default="mnist", help="the data that it was trained on")
    options = parser.parse_args()
    task = zoo.load(options.source).task
    pictures.write(DOCS / f"{task.spec.name}.png", [with_nearest(options.source, options.data)])
    if task.categories and not task.classes:
        pictures.write(DOCS / f"{task.spec.name}_codes.png", [codes(options.source)])


if __name__ == "__main__":
    main()
