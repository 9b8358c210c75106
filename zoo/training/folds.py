"""Cross-validation: the same training on each fold of a data set."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any

from zoo.errors import ZooError, say
from zoo.files import write_json
from zoo.training.runs import Run

SUMMARY = "folds.json"


def cross_validate(
    train: Callable[..., Run], name: str | os.PathLike, data: Any, *, folds: int = 5, **arguments: Any
) -> list[Run]:
    """Train or fine-tune on each fold of a data set; an interrupted one is resumed.

    The examples of train and validation are divided into as many parts, the same ones for each seed. Each run has one
    of them as its test split, and validates on 15% of the others. The directory of the runs gets `folds.json`, with
    the test score of each run, their mean and their standard deviation.

    Args:
        train: `zoo.train` or `zoo.fine_tune`.
        name: what it takes first: a model, or trained weights.
        folds: 2 or more.
        arguments: further ones of `train`; `out` is the directory of all runs.

    Raises:
        ZooError: as `train`, and for fewer than two folds or more than there are examples.
    """
    if folds < 2:
        raise ZooError(f"cross-validation needs at least 2 folds, not {folds}")
    runs = []
    for number in range(1, folds + 1):
        say(f"fold {number} of {folds}")
        runs.append(train(name, data, fold=(number, folds), **arguments))
    write_json(runs[0].directory.parent / SUMMARY, spread(runs))
    return runs


def spread(runs: list[Run]) -> dict[str, Any]:
    """Name of the monitored metric (the loss where nothing is monitored), its value on the test split of each run,
    their `mean` and `standard_deviation`."""
    monitor = runs[0].task.monitor
    metric = "loss" if monitor is None else monitor.name
    scores = [run.metrics["test"][metric] for run in runs]
    return {
        "metric": metric,
        "test": scores,
        "mean": statistics.mean(scores),
        "standard_deviation": statistics.stdev(scores),
    }
