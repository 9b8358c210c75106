"""Plots of runs and searches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestRegressor

from zoo.metrics import Metric
from zoo.search_space import Range

if TYPE_CHECKING:
    from zoo.tasks import Task
    from zoo.training.tuner import Trial


def training_curves(rows: list[dict[str, float]], task: Task, best_epoch: int, path: Path) -> None:
    """Plot training and validation scores by epoch, with the gap between them shaded and the best epoch marked. Scores
    of single classes are left out, and those of the training alone."""
    kinds = [name.removeprefix("mean_") for name in rows[0] if name.startswith("mean_")]
    of_a_class = {f"{kind}_{label}" for kind in kinds for label in task.classes}
    validated = (name.removeprefix("val_") for name in rows[0] if name.startswith("val_"))
    names = [name for name in validated if name not in of_a_class]
    figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        marker = "o" if len(epochs) == 1 else ""  # a line through one point is invisible
        validation = [row[f"val_{name}"] for row in rows]
        if name in rows[0]:
            train = [row[name] for row in rows]
            gap = f"gap at the end {train[-1] - validation[-1]:+.4f}"
            axes.plot(epochs, train, marker=marker, label="training")
            axes.fill_between(epochs, train, validation, alpha=0.15, label=gap)
        axes.plot(epochs, validation, marker=marker, color="tab:orange", label="validation")
        axes.axvline(best_epoch, color="gray", linestyle=":", label=f"best epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axes.legend(fontsize="small")
    figure.suptitle(task.spec.name)
    figure.savefig(path, dpi=100)


def accuracy_by_epsilon(rows: list[dict[str, float]], title: str, path: Path) -> None:
    """Plot the accuracy on adversarial images against the largest change of a pixel."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["epsilon"] for row in rows], [row["accuracy"] for row in rows], marker="o")
    axes.set(xlabel="epsilon, as a share of the full scale", ylabel="accuracy", ylim=(0, 1), title=title)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def search(trials: Sequence[Trial], space: Mapping[str, Range], metric: Metric, path: Path) -> None:
    """Plot the trials of a search, the best ones first, as lines through their values; and how much of the score each
    value explains, by the mean decrease of impurity in a forest of regression trees."""
    places = np.array([[values.place(trial.values[key]) for key, values in space.items()] for trial in trials])
    scores = np.array([trial.score for trial in trials])
    figure = Figure(figsize=(3 + 1.5 * len(space), 6), layout="constrained")
    above, below = figure.subplots(2, 1)
    worst_first = [metric.rank(score) for score in scores[::-1]]  # of equal ones the first is the best
    ranks = np.argsort(np.argsort(worst_first, kind="stable"))[::-1] / max(len(trials) - 1, 1)
    for line, rank in sorted(zip(places.tolist(), ranks, strict=True), key=lambda pair: pair[1]):
        above.plot([*line, rank], color=colormaps["viridis"](rank), alpha=0.4 + 0.6 * rank)
    above.set_xticks(range(len(space) + 1), [*space, f"{metric.name} (rank)"])
    above.set(yticks=(), ylim=(-0.15, 1.15), title=f"{len(trials)} trials, the best ones bright")
    ends = [(json.dumps(values.ends()[0]), json.dumps(values.ends()[-1])) for values in space.values()]
    ends.append((f"{scores[np.argmin(ranks)]:.4f}", f"{scores[np.argmax(ranks)]:.4f}"))
    for column, (low, high) in enumerate(ends):
        above.axvline(column, color="gray", linewidth=0.5)
        above.text(column, -0.04, low, ha="center", va="top", fontsize="small", backgroundcolor="white")
        above.text(column, 1.04, high, ha="center", va="bottom", fontsize="small", backgroundcolor="white")
    forest = RandomForestRegressor(random_state=0).fit(places, scores)
    below.barh([*space], forest.feature_importances_)
    below.set(title="share of the score that each explains", xlim=(0, 1))
    figure.savefig(path, dpi=100)
