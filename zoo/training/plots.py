"""Plots of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from zoo.tasks import Task


def training_curves(rows: list[dict[str, float]], task: Task, best_epoch: int, path: Path) -> None:
    """Plot training and validation scores by epoch, with the gap between them shaded and the best epoch marked. Scores
    of single classes are left out."""
    kinds = [name.removeprefix("mean_") for name in rows[0] if name.startswith("mean_")]
    of_a_class = {f"{kind}_{label}" for kind in kinds for label in task.classes}
    names = [name for name in rows[0] if f"val_{name}" in rows[0] and name not in of_a_class]
    figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        train, validation = [row[name] for row in rows], [row[f"val_{name}"] for row in rows]
        axes.plot(epochs, train, label="training")
        axes.plot(epochs, validation, label="validation")
        axes.fill_between(
            epochs, train, validation, alpha=0.15, label=f"gap at the end {train[-1] - validation[-1]:+.4f}"
        )
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
