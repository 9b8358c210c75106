"""What a user should read before and after a training: how many examples there are, and what the scores are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data import Dataset
from zoo.errors import listed, note
from zoo.tasks import ImageTask, Task

FAR = 0.1  # chosen: a share of the training examples that is this far above that of the validation examples


def class_counts(dataset: Dataset) -> str:
    """The number of examples of each split, and of each class in the training split."""
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    train = dataset.splits["train"]
    labels, without = train.labeled().targets, len(train) - len(train.labeled())
    if labels is None or labels.ndim != 1 or not dataset.classes:
        return f"{dataset.name}: {sizes}"
    counts = np.bincount(labels, minlength=len(dataset.classes))
    named = listed((f"{name} {count:,}" for name, count in zip(dataset.classes, counts, strict=True)), 20)
    return f"{dataset.name}: {sizes}; classes in train: {named}" + (f", without a label {without:,}" if without else "")


def note_conversion(task: Task, dataset: Dataset) -> None:
    """A note where color images become gray for the network, or gray ones colored."""
    if not isinstance(task, ImageTask) or dataset.shape[-1] == task.channels:
        return
    height, width, _ = (side or "H" for side in task.input_shape)
    become = "color images become gray" if task.channels == 1 else "gray images become images of three equal channels"
    note(
        f"{dataset.name}: {become}, as the network takes them; --input-shape {height},{width},{dataset.shape[-1]} "
        "gives it another first layer"
    )


def of_run(task: Task, dataset: Dataset, rows: Sequence[Mapping[str, Any]], best_epoch: int) -> list[str]:
    """What must be known of a finished run besides its scores; nothing for most runs.

    Args:
        rows: one an epoch, with training and `val_` scores.
        best_epoch: the epoch, from 1, whose weights are kept.
    """
    if task.monitor is None or not best_epoch:
        return []
    found, name, row = [], task.monitor.name, rows[best_epoch - 1]
    score, labels = row[f"val_{name}"], dataset.splits["validation"].labeled().targets
    if task.monitor.is_share and labels is not None and labels.ndim == 1:
        chance = float(np.bincount(labels).max()) / len(labels)
        spread = task.monitor.standard_deviation(chance, len(labels)) or 0.0
        if score <= chance + spread:
            found.append(
                f"the best validation {name}, {score:.4f}, is no better than chance: always predicting the largest "
                f"class has {chance:.4f} ± {spread:.4f}; try more epochs, another learning rate or another network"
            )
    if task.monitor.is_share and name in row and row[name] - score > FAR:
        found.append(
            f"training {name} {row[name]:.4f} is far above validation {score:.4f}: the network overfits; more data, "
            "augmentation or fewer epochs help"
        )
    if best_epoch == 1 and len(rows) > 1:
        found.append(
            f"the best validation {name} is that of epoch 1 of {len(rows)}: the later epochs made it worse, a lower "
            "learning rate may help"
        )
    return found
