"""Segmentation of the synthetic scenes: a classifier of single pixels against U-Net, which sees their surroundings.

    python benchmarks/scenes.py

The classifier of pixels is one model of gradient-boosted trees a class, fitted to a sample of the training pixels, with
the probability threshold that has the best intersection over union on the validation scenes. Scores are taken over all
pixels of the test scenes at once. U-Net is trained without augmentation, with the symmetries of the square, and from
there fine-tuned for each class alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import write_results
from sklearn.ensemble import HistGradientBoostingClassifier

import zoo
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


def by_unet(runs: Path) -> dict[str, dict[str, float]]:
    """The intersection over union on test by class, of `unet_satellite` trained without augmentation, with the
    symmetries of the square, and then with a network fine-tuned for each class."""
    found = {}
    for recipe, title in {"plain": "U-Net", "modern": "U-Net, D4"}.items():
        whole = zoo.train("unet_satellite", "scenes", recipe=recipe, out=runs / f"unet_satellite.scenes_{recipe}-0")
        found[title] = of_classes(whole)
    start = zoo.export(whole, runs / "unet_satellite.scenes")
    refined = [
        zoo.fine_tune(start, "scenes", only_class=name, out=runs / f"unet_satellite.scenes-{name}-0")
        for name in scenes.CLASSES
    ]
    return {**found, "each class refined": of_classes(zoo.create_ensemble(refined, data="scenes"))}


def of_classes(run: zoo.Run) -> dict[str, float]:
    return {name: run.metrics["test"][f"iou_{name}"] for name in scenes.CLASSES}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100_000, help="training pixels of the classifier by pixel")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where interrupted trainings are resumed")
    options = parser.parse_args()
    found = {"by pixel": by_pixel(scenes.data()[0], options.sample), **by_unet(options.runs)}
    table = ["| IoU on the test scenes | mean | " + " | ".join(scenes.CLASSES) + " |", "|---" * 6 + "|"]
    for title, ious in found.items():
        ious["mean"] = float(np.mean(list(ious.values())))
        table.append(f"| {title} | " + " | ".join(f"{ious[name]:.3f}" for name in ("mean", *scenes.CLASSES)) + " |")
    print("\n".join(table))
    print(write_results("scenes", {"sample": options.sample, "iou": found}))
