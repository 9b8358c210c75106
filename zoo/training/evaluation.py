"""Evaluation: loss and metrics of a network on splits of a data set, and its predictions example by example."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epy

from zoo import tasks
from zoo.data import Split
from zoo.errors import unknown
from zoo.loading import Predictor, Source
from zoo.recipe import Recipe
from zoo.training.batches import evaluation_batches, fitting_batch, load_for

with epy.lazy_imports():
    import keras


def evaluate(source: Source, data: Any, *, split: str = "test", tta: Iterable[str] = ()) -> dict[str, float]:
    """Loss and metrics of a trained network on a split of a data set.

    Args:
        source: `name.tag`, an exported directory, or a run.
        data: a data set's name or path, see `zoo.data.load`.
        split: `train`, `validation` or `test`.
        tta: names of test-time augmentations (`mirror`, `shift`, `crops`): the accuracy of the mean over them is
            measured too, as `averaged_accuracy`.

    Raises:
        ZooError: for data with other classes than the network's, an unknown split, and test-time augmentations that the
            task does not have.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    task = predictor.task
    dataset = task.select(load_for(task.spec, task.input_shape, predictor.recipe, data))
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    averaged = Predictor(predictor, tta) if (tta := tuple(tta)) else None  # refuses unknown names before the work
    scores = evaluate_splits(task, predictor.model, {split: dataset.splits[split]}, predictor.recipe)[split]
    if averaged is not None:
        right = predicted_class_ids(averaged, dataset.splits[split]) == dataset.splits[split].targets
        scores["averaged_accuracy"] = float(np.mean(right))
    return scores


def evaluate_splits(
    task: tasks.Task, model: keras.Model, splits: Mapping[str, Split], recipe: Recipe
) -> dict[str, dict[str, float]]:
    """By split the recipe's loss and the task's metrics of a model, on one device."""
    trainer = task.compile(model, recipe, keras.optimizers.SGD)  # once: tracing takes longer than a small split
    scores = {}
    for name, split in splits.items():
        measured = trainer.evaluate(evaluation_batches(task, split), verbose=0, return_dict=True)
        scores[name] = {key: float(value) for key, value in measured.items()}
        scores[name] |= task.dataset_metrics(model, functools.partial(evaluation_batches, task, split), recipe.options)
    return scores


def predicted_class_ids(predictor: Predictor, split: Split) -> np.ndarray:
    """The predicted class of each example, int64 [N], or of each of its pixels, int64 [N, H, W]."""
    inputs = predictor.task.serving_inputs(split)
    batch_size = fitting_batch(inputs.shape, 256)
    parts = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
    return np.concatenate([predictor(part)["class_ids"] for part in parts])
