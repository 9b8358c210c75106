"""Reproduction: weights retrained from their manifest, and their test score checked against the recorded range."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data import Dataset
from zoo.errors import ZooError
from zoo.loading import Predictor
from zoo.metrics import get_metric
from zoo.training.devices import strategy
from zoo.training.evaluation import evaluate_splits
from zoo.training.runs import Run, data_of
from zoo.training.trainer import train

SPREAD = 0.01  # chosen: the assumed standard deviation of a score that is no share of examples and has one run
STANDARD_DEVIATIONS = 3  # how many standard deviations a score may lie from the recorded mean
SAME = 1.5e-4  # how far the stored weights' score may lie from the manifest's: one image of 10,000, not two
SMOKE_EXAMPLES = 10_000
SMOKE_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A successful reproduction.

    Attributes:
        measured: the test score of `metric`, in the recorded range from `low` to `high`. For a smoke test it is the
            score of the stored weights, and `run` is the short training.
    """

    name: str
    metric: str
    measured: float
    low: float
    high: float
    run: Run


def reproduce(
    source: str | os.PathLike,
    *,
    data: str | os.PathLike | Dataset | None = None,
    smoke: bool = False,
    seed: int | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
) -> Reproduction:
    """Retrain exported weights from their manifest, from scratch on the same data, and check the test score.

    Args:
        data: the place of the data set, if it is not found by the name in the manifest; it must have the same
            fingerprint.
        smoke: evaluate the stored weights again, and train for two epochs on at most 10,000 examples only: the loss
            must fall, or the validation score where lower is better, and the accuracy of a classifier be twice that of
            chance (with two classes 75 %).
        seed: in place of the manifest's.
        out: the run's directory, `runs/NAME.TAG.reproduced-SEED` by default; an interrupted run in it is resumed.

    Raises:
        ZooError: where the score is outside the recorded range, and for weights that were not trained from scratch by
            a recipe alone.
    """
    strategy(devices)  # logical CPUs can be requested only before a network is built
    predictor = Predictor(source)
    artifact, task = predictor.artifact, predictor.task
    assert artifact is not None, "a name or path is read as an artifact"
    training, scores = artifact.manifest["training"], artifact.manifest["scores"]
    if not training or "members" in training or "origin" in training:
        raise ZooError(f"{artifact.name} was not trained from scratch by a recipe: reproduce what it was made from")
    if given := training.get("given_in_python") or (training["data"].get("given") and {"data": "a tf.data.Dataset"}):
        raise ZooError(f"{artifact.name} was trained with objects given in Python ({', '.join(given)}): run that again")
    if scores["metric"] is None:
        raise ZooError(f"{artifact.name} records no score to reproduce")
    dataset = data_of(training, task, predictor.recipe, data)
    recipe, seed = predictor.recipe, training["seed"] if seed is None else seed
    if smoke:
        dataset, whole = _slice(dataset), dataset
        recipe = recipe.replace(epochs=SMOKE_EPOCHS, ema=None, schedule={})
    name = f"{artifact.name}.{'smoke' if smoke else 'reproduced'}-{seed}"
    run = train(
        task.spec.name, dataset, recipe=recipe, out=out or Path("runs") / name, devices=devices, seed=seed,
        deterministic=training.get("deterministic", False), input_shape=task.input_shape, arguments=task.arguments,
    )  # fmt: skip
    if smoke:
        _check_learning(artifact.name, run)
        test = {"test": whole.splits["test"]}
        measured = evaluate_splits(task, predictor.model, test, predictor.recipe)["test"][scores["metric"]]
        low, high = scores["test"] - SAME, scores["test"] + SAME
    else:
        measured = run.metrics["test"][scores["metric"]]
        low, high = recorded_range(scores, len(dataset.splits["test"]))
    if not low <= measured <= high:
        raise ZooError(
            f"{artifact.name} is not reproduced: test {scores['metric']} {measured:.4f} is outside "
            f"{low:.4f} to {high:.4f}; the run is in {run.directory}"
        )
    return Reproduction(artifact.name, scores["metric"], measured, low, high, run)


def recorded_range(scores: Mapping[str, Any], examples: int) -> tuple[float, float]:
    """Where another run's test score may lie: three standard deviations about the mean of the recorded runs. That is
    the standard deviation of the runs, or that of a share of so many examples (binomial) where it is larger; the
    metric's own spread, or `SPREAD`, takes the place of the latter for scores that are no such share."""
    center = scores["test"] if scores["mean"] is None else scores["mean"]
    metric = get_metric(scores["metric"])
    least = metric.standard_deviation(center, examples)
    if least is None:
        least = SPREAD if metric.spread is None else metric.spread * center
    spread = STANDARD_DEVIATIONS * max(scores["standard_deviation"] or 0.0, least)
    return center - spread, center + spread


def _slice(dataset: Dataset) -> Dataset:
    """The data set with fewer examples, drawn at random, because a folder's come class by class."""
    splits = {name: split.sample(SMOKE_EXAMPLES) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, splits=splits, fingerprint="")


def _check_learning(name: str, run: Run) -> None:
    """Raises ZooError unless the loss fell, or the monitored metric where lower is better (the sum of two adversarial
    losses says nothing), and the accuracy of a classifier is twice that of chance; with two classes, where that is
    impossible, half way from chance to 1 is enough."""
    monitor = run.task.monitor
    chance = 1 / len(run.task.classes) if monitor and monitor.is_share else 0.0
    enough = min(2 * chance, (1 + chance) / 2)
    key = f"val_{monitor.name}" if monitor and monitor.lower_is_better else "loss"
    first, last = run.history[0][key], run.history[-1][key]
    if not last < first or not run.history[-1].get("val_accuracy", 1.0) > enough:
        raise ZooError(f"{name} does not learn: {key} {first:.4f}, then {last:.4f}; the run is in {run.directory}")
