"""Trained weights made again by their manifest's recipe, and held against the figures that it states."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import artifacts
from zoo.data import Dataset
from zoo.devices import strategy
from zoo.errors import ZooError
from zoo.loading import Predictor
from zoo.runs import Run, data_of
from zoo.training import evaluate, train

DEVIATION = 0.01  # chosen, for a figure that is no share of examples and has one run, which tells of no other
DEVIATIONS = 3  # how many standard deviations a figure may lie from the stored mean
SAME = 1.5e-4  # how far the stored weights' figure may lie from the manifest's: one picture of 10,000, not two
SMOKE_EXAMPLES = 10_000
SMOKE_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What came of it: `measured`, the test figure of `metric`, lies in the stored range from `low` to `high`. Of a
    smoke test, `measured` is the stored weights' figure and `run` the short training."""

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
    """Train exported weights again by their manifest, from scratch on the same data, and compare the test figure.

    Args:
        data: where the data set is, if not under the name that the manifest gives; it must have the same
            fingerprint.
        smoke: measure the stored weights anew, and train for two epochs on at most 10,000 examples only: the loss
            must fall, and a classifier be right twice as often as chance (of two classes, three times in four).
        seed: another than the manifest's.
        out: the run's directory, `runs/NAME.TAG.reproduced-SEED` by default; a broken-off run in it goes on.

    Raises:
        ZooError: where the figure is outside the stored range, and for weights that were not trained from scratch.
    """
    artifact = artifacts.open_artifact(source)
    strategy(devices)  # logical CPUs can be asked for only before a network is built
    predictor, training, figures = Predictor(source), artifact.manifest["training"], artifact.manifest["figures"]
    task = predictor.task
    if not training or "members" in training or "origin" in training:
        raise ZooError(f"{artifact.name} was not trained from scratch by a recipe: reproduce what it was made from")
    if figures["metric"] is None:
        raise ZooError(f"{artifact.name} states no figure to reproduce")
    dataset = data_of(training, task, data)
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
        measured = evaluate(task, predictor.model, test, predictor.recipe)["test"][figures["metric"]]
        low, high = figures["test"] - SAME, figures["test"] + SAME
    else:
        measured = run.metrics["test"][figures["metric"]]
        low, high = stored_range(figures, len(dataset.splits["test"]))
    if not low <= measured <= high:
        raise ZooError(
            f"{artifact.name} is not reproduced: test {figures['metric']} {measured:.4f} is outside "
            f"{low:.4f} to {high:.4f}; the run is in {run.directory}"
        )
    return Reproduction(artifact.name, figures["metric"], measured, low, high, run)


def stored_range(figures: Mapping[str, Any], examples: int) -> tuple[float, float]:
    """Where another run's test figure may lie: three standard deviations about the mean of the stored runs, that of
    the runs or, where that is larger, that of a share of so many examples (binomial), and `DEVIATION` for figures that
    are no such share."""
    centre = figures.get("mean") or figures["test"]
    least = artifacts.binomial(centre, examples) if figures["metric"] == "accuracy" else DEVIATION
    deviation = max(figures.get("deviation") or 0.0, least)
    return centre - DEVIATIONS * deviation, centre + DEVIATIONS * deviation


def _slice(dataset: Dataset) -> Dataset:
    """The data set with fewer examples, drawn at random: a folder's come class by class."""
    splits = {name: split.sample(SMOKE_EXAMPLES) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, splits=splits, fingerprint="")


def _check_learning(name: str, run: Run) -> None:
    """Raises ZooError unless the loss fell, and a classifier is right twice as often as chance, which nobody is with
    two classes: half way from chance to always is enough."""
    first, last = run.history[0], run.history[-1]
    chance = 1 / len(run.task.classes) if run.task.metric == "accuracy" else 0.0
    enough = min(2 * chance, (1 + chance) / 2)
    if not last["loss"] < first["loss"] or not last.get("val_accuracy", 1.0) > enough:
        raise ZooError(
            f"{name} does not learn: loss {first['loss']:.4f}, then {last['loss']:.4f}; the run is in {run.directory}"
        )
