"""Draws docs/results.png, the test errors of all published weights beside the reported ones, and docs/mistakes.png,
every test digit that the best of them gets wrong.

ZOO_DATA_DIR=... python benchmarks/result_plots.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import zoo
from zoo import data, report
from zoo.training.evaluation import predicted_class_ids

DOCS = Path(__file__).parent.parent / "docs"
RECIPES = {
    "paper": ("tab:blue", "paper's recipe (see its deviations)"),
    "modern": ("tab:orange", "modern recipe"),
}
COLUMNS = 12  # digits a line


def draw_errors(rows: list[dict]) -> None:
    """One line for each reported score: its error as a cross, the measured ones as dots with standard deviations."""
    best: dict[tuple[str, float | None], float] = {}
    for row in rows:
        key = row["name"], row["reported"]
        best[key] = max(row["test"], best.get(key, 0.0))
    keys = sorted(best, key=best.get, reverse=True)
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(keys) + 1), layout="constrained")
    for row in rows:
        line = keys.index((row["name"], row["reported"]))
        recipe = "modern" if row["tag"].endswith("modern") else "paper"
        if row["reported"]:
            axes.plot(100 * (1 - row["reported"]), line, "x", color="black")
        error, spread = 100 * (1 - row["mean"]), 100 * row["standard_deviation"]
        axes.errorbar(error, line, xerr=spread, fmt="o", color=RECIPES[recipe][0], markersize=5)
    axes.plot([], [], "x", color="black", label="reported")
    for color, label in RECIPES.values():
        axes.plot([], [], "o", color=color, label=label)
    axes.set_xscale("log")
    several = [name for name, _ in keys]
    names = [name if several.count(name) == 1 else f"{name} ({reported:.4f})" for name, reported in keys]
    axes.set(xlabel="test error in %, MNIST", yticks=range(len(names)), yticklabels=names)
    ticks = [0.2, 0.3, 0.5, 1, 2, 5, 10]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(DOCS / "results.png", dpi=110)


def draw_mistakes(row: dict) -> None:
    """The misclassified digits, each with its class and the predicted one."""
    name = f"{row['name']}.{row['tag']}"
    split = data.load(row["dataset"]).splits["test"]
    predicted = predicted_class_ids(zoo.load(name), split)
    wrong = np.flatnonzero(predicted != split.targets)
    lines = -(-len(wrong) // COLUMNS)
    figure, grid = plt.subplots(lines, COLUMNS, figsize=(COLUMNS, 1.25 * lines + 0.5))
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, wrong, strict=False):
        axes.imshow(split.inputs[index, ..., 0], cmap="gray_r")
        axes.set_title(f"{split.targets[index]}, not {predicted[index]}", fontsize=8)
    figure.suptitle(f"{name}: {len(wrong)} errors on {len(split):,} test images", fontsize=10)
    figure.savefig(DOCS / "mistakes.png", dpi=80)


if __name__ == "__main__":
    rows = [row for row in report.rows() if (row["dataset"], row["metric"]) == ("mnist", "accuracy") and row["tag"]]
    draw_errors(rows)
    draw_mistakes(max(rows, key=lambda row: row["validation"]))
