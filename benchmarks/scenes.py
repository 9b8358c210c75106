"""Segmentation of the made-up scenes: what the 20 bands of a pixel alone tell, without its surroundings.

    python benchmarks/scenes.py

Gradient-boosted trees a class, fitted to a sample of the training pixels; each class is said to be there from the
probability on that gives the best intersection over union on the validation scenes. That and the mean over classes
are taken over all pixels of the test scenes at once.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import write_results
from sklearn.ensemble import HistGradientBoostingClassifier

from zoo.data import Split, scenes

THRESHOLDS = np.linspace(0.1, 0.9, 17)


def iou(masks: np.ndarray, found: np.ndarray) -> float:
    """Intersection over union of two boolean arrays."""
    return np.count_nonzero(masks & found) / np.count_nonzero(masks | found)


def pixels(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Bands [P, 20] and masks [P, 4] of all pixels."""
    return split.inputs.reshape(-1, scenes.BANDS), split.targets.reshape(-1, len(scenes.CLASSES)).astype(bool)


def by_pixel(splits: dict[str, Split], sample: int) -> dict[str, float]:
    """The intersection over union on test by class, of a classifier that sees single pixels."""
    (x, y), (x_validation, y_validation), (x_test, y_test) = (pixels(split) for split in splits.values())
    some = np.random.default_rng(0).choice(len(x), sample, replace=False)
    found = {}
    for number, name in enumerate(scenes.CLASSES):
        model = HistGradientBoostingClassifier(random_state=0).fit(x[some], y[some, number])
        validation = model.predict_proba(x_validation)[:, 1]
        threshold = max(THRESHOLDS, key=lambda t: iou(y_validation[:, number], validation > t))
        found[name] = iou(y_test[:, number], model.predict_proba(x_test)[:, 1] > threshold)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100_000, help="training pixels")
    sample = parser.parse_args().sample
    found = by_pixel(scenes.data()[0], sample)
    found["mean"] = float(np.mean(list(found.values())))
    for name, value in found.items():
        print(f"{name:9} {value:.3f}")
    print(write_results("scenes", {"sample": sample, "iou": {"by pixel": found}}))
