"""Digits from ten labels a class: ssgan against the same classifier on these labels alone, and against pseudo-labels.

    python benchmarks/few_labels.py --draws 0 1 2 --epochs 300    (MNIST in ZOO_DATA_DIR, or it is downloaded)

Each draw of the labels is a run of its own in `runs/few_labels`, and an interrupted benchmark resumes. `--runs` takes
finished runs of `ssgan`, such as those of `jax_few_labels.py`, in place of new ones, and their draws. Every draw is
printed and written, and stands in docs/generation.md; the epoch is chosen on the 10,000 validation images. The ensemble
is the mean of the probabilities of all draws' networks.

Pseudo-labels (Lee 2013) are the classes that the classifier with augmentation predicts with a probability above 0.95; a
classifier is trained on them and on the ten labels as if all were labels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import RESULTS, write_between, write_results

import zoo
from zoo.data import Dataset, Split
from zoo.data.dataset import UNLABELED

CONFIDENT = 0.95
PAGE = Path(__file__).parent.parent / "docs" / "generation.md"


def probabilities(run: zoo.Run, images: np.ndarray) -> np.ndarray:
    """The run's probabilities [N, K] for images uint8 [N, 28, 28, 1]."""
    predictor = zoo.load(run)
    parts = (images[start : start + 1_000] for start in range(0, len(images), 1_000))
    return np.concatenate([predictor(part)["probabilities"] for part in parts])


def pseudo_labeled(teacher: zoo.Run, data: Dataset) -> Dataset:
    """The data with the classes of which the teacher is confident in place of missing labels."""
    train = data.splits["train"]
    predicted = probabilities(teacher, train.inputs)
    guessed = np.where(predicted.max(1) > CONFIDENT, predicted.argmax(1), UNLABELED)
    targets = np.where(train.targets != UNLABELED, train.targets, guessed)
    return Dataset(f"{data.name}-pseudo", {**data.splits, "train": Split(train.inputs, targets)}, data.classes)


def draw() -> None:
    """Writes a table of each result file into docs/generation.md, the longest training first."""
    lines = []
    found = [json.loads(file.read_text(encoding="utf-8")) for file in RESULTS.glob("few_labels_*.json")]
    for results in sorted(found, key=lambda each: -each["epochs"]):
        mean, rows = results["mean"], results["test_accuracy"]
        lines += [
            "",
            f"| draw of the labels, {results['epochs']} epochs | {' | '.join(mean)} |",
            f"|---|{'---|' * len(mean)}",
            *(f"| {row['draw']} | {' | '.join(f'{row[name]:.4f}' for name in mean)} |" for row in rows),
            f"| mean | {' | '.join(f'{value:.4f}' for value in mean.values())} |",
            f"| ensemble | {' | ' * (len(mean) - 1)}{results['ensemble']:.4f} |",
        ]
    write_between(PAGE, "few labels", "\n".join(lines[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="seeds of the draws of labels")
    parser.add_argument("--runs", nargs="+", type=zoo.load_run, help="finished runs of ssgan, one a draw")
    parser.add_argument("--epochs", type=int, default=300, help="of ssgan")
    parser.add_argument("--baseline-epochs", type=int, help="of the classifiers, in place of their recipes'")
    options = parser.parse_args()
    mnist, folder = zoo.data.load("mnist"), Path("runs/few_labels")
    test, rows, ensemble = mnist.splits["test"], [], 0.0
    fewer: dict[str, Any] = {"epochs": options.baseline_epochs} if options.baseline_epochs else {}
    finished = {run.record["recipe"]["options"]["labels_seed"]: run for run in options.runs or ()}
    for seed in finished or options.draws:
        few = {"labels_per_class": 10, "labels_seed": seed}
        alone, augmented = (
            zoo.train("ssgan_classifier", "mnist", recipe=recipe, out=folder / f"{recipe}-{seed}", **few, **fewer)
            for recipe in ("labels", "augmented")
        )
        guesses = pseudo_labeled(augmented, mnist.with_labels(10, seed))
        pseudo = zoo.train("ssgan_classifier", guesses, out=folder / f"pseudo-{seed}", epochs=10, batch_size=100)
        run = finished.get(seed) or zoo.train(
            "ssgan", "mnist", out=folder / f"ssgan-{seed}-{options.epochs}", epochs=options.epochs, **few
        )
        runs = {"labels alone": alone, "augmented": augmented, "pseudo-labels": pseudo, "ssgan": run}
        rows.append({"draw": seed, **{name: one.metrics["test"]["accuracy"] for name, one in runs.items()}})
        ensemble = ensemble + probabilities(run, test.inputs)
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    names = [name for name in rows[0] if name != "draw"]
    means = {name: statistics.mean(row[name] for row in rows) for name in names}
    joined = float((np.argmax(ensemble, 1) == test.targets).mean())
    print("mean  ", "  ".join(f"{name} {value:.4f}" for name, value in means.items()), f" ensemble {joined:.4f}")
    results = {"epochs": options.epochs, "test_accuracy": rows, "mean": means, "ensemble": joined}
    path = write_results(f"few_labels_{options.epochs}", results)
    draw()
    print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
