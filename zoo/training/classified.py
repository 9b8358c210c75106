"""What a classifier did on labeled examples: confusion matrix, precision and recall by class, calibration, errors."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo.data import Split
from zoo.errors import ZooError
from zoo.files import written

with epy.lazy_imports():
    from sklearn import metrics

    from zoo.tasks import pictures

MOST_IMAGES = 50  # of the errors in a run's report
BINS = 15  # of the calibration error: Guo et al. 2017, On Calibration of Modern Neural Networks, section 5


@dataclasses.dataclass(frozen=True)
class Classified:
    """Predictions for labeled examples.

    Args:
        classes: names of the K classes in order of their ids.
        labels: true class ids, int64 [N].
        probabilities: float32 [N, K].
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each example, int64 [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """The number of examples by true class (rows) and predicted class (columns), int64 [K, K]."""
        return metrics.confusion_matrix(self.labels, self.predicted, labels=range(len(self.classes)))

    def per_class(self) -> list[dict[str, Any]]:
        """By class its name, its number of `examples`, `precision` (the share of true ones among those predicted; None
        where it was never predicted), and `recall` (the share found; None where it has no example), from 0 to 1."""
        precision, recall, _, examples = metrics.precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.classes)), zero_division=np.nan
        )
        rows = zip(self.classes, examples.tolist(), precision.tolist(), recall.tolist(), strict=True)
        return [
            {"class": name, "examples": count, "precision": _or_none(exact), "recall": _or_none(found)}
            for name, count, exact, found in rows
        ]

    def calibration_error(self) -> float:
        """The expected calibration error, from 0 to 1: the mean difference between the probability of the predicted
        class and the share of right predictions, in `BINS` bins of equal width (Guo et al. 2017, equation 5)."""
        confidence, right = self.probabilities.max(axis=1), self.predicted == self.labels
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        sums = (np.bincount(bins, values, BINS) for values in (confidence, right))
        return float(np.abs(np.subtract(*sums)).sum() / len(self.labels)) if len(self.labels) else 0.0

    def errors(self) -> np.ndarray:
        """Positions of the examples that were predicted wrongly, those of the most confident predictions first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.probabilities.max(axis=1)[wrong], kind="stable")]

    def as_plain(self) -> dict[str, Any]:
        """`classes`, `confusion`, `per_class` and `calibration_error` as plain data."""
        return {
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "per_class": self.per_class(),
            "calibration_error": self.calibration_error(),
        }

    def as_csv(self) -> str:
        """A table with a line for each class: its name, examples, precision, recall, and its row of the confusion
        matrix."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["class", "examples", "precision", "recall", *(f"predicted {name}" for name in self.classes)])
        for row, counts in zip(self.per_class(), self.confusion.tolist(), strict=True):
            writer.writerow([*row.values(), *counts])
        return table.getvalue()


def _or_none(share: float) -> float | None:
    return None if math.isnan(share) else share


def write_report(directory: Path, split: Split, classified: Classified) -> None:
    """Write `confusion.csv`, see `Classified.as_csv`, and the examples that were predicted wrongly, see `write_errors`,
    with the images of the `MOST_IMAGES` most confident errors. A folder that exists is replaced."""
    shutil.rmtree(directory, ignore_errors=True)
    with written(directory) as temporary:
        temporary.mkdir()
        (temporary / "confusion.csv").write_text(classified.as_csv(), encoding="utf-8")
        _write_errors(temporary, split, classified, MOST_IMAGES)


def write_errors(directory: Path, split: Split, classified: Classified) -> None:
    """Write the examples that were predicted wrongly: `errors.csv` with their names, true and predicted classes and
    probabilities, the most confident first; and of images a PNG file each, as the network saw it, in a folder
    `TRUE_as_PREDICTED`.

    Raises:
        ZooError: for a folder that exists and is not empty, or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ZooError(f"{directory} exists and is not empty: give a new folder for the errors")
    if directory.exists():
        directory.rmdir()
    with written(directory) as temporary:
        temporary.mkdir()
        _write_errors(temporary, split, classified)


def _write_errors(directory: Path, split: Split, classified: Classified, most_images: int | None = None) -> None:
    errors, predicted = classified.errors(), classified.predicted
    are_images = split.inputs.dtype == np.uint8 and split.inputs.shape[-1] in (1, 3)
    with (directory / "errors.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["input", "file", "true", "predicted", "probability"])
        for rank, number in enumerate(errors.tolist(), start=1):
            true, wrong = (classified.classes[ids[number]] for ids in (classified.labels, predicted))
            text = split.inputs[number] if split.inputs.ndim == 1 else f"example {number}"
            name = text if split.names is None else split.names[number]
            place = ""
            if are_images and rank <= (most_images or rank):
                place = f"{_plain(true)}_as_{_plain(wrong)}/{rank:04d}_{_plain(Path(str(name)).stem)}.png"
                (directory / place).parent.mkdir(exist_ok=True)
                pictures.as_image(split.inputs[number]).save(directory / place)
            probability = float(classified.probabilities[number].max())
            table.writerow([name, place, true, wrong, f"{probability:.4f}"])


def _plain(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)[:80]
