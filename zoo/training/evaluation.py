"""Evaluation: loss and metrics of a network on splits of a data set, and its predictions example by example."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epy

from zoo import tasks
from zoo.data import Dataset, Split, streamed
from zoo.data.dataset import SPLITS, complete
from zoo.errors import ZooError, note, unknown
from zoo.loading import Predictor, Source
from zoo.recipe import Recipe
from zoo.training.batches import evaluation_batches, fitting_batch, load_for
from zoo.training.classified import Classified

with epy.lazy_imports():
    import keras


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured on one split of a data set.

    Attributes:
        part: the name of the split; `all` for all examples of a source without splits.
        split: its examples.
        scores: the loss and the metrics by name.
        classified: the predictions, where each example has one class; None for other tasks.
    """

    part: str
    split: Split
    scores: dict[str, float]
    classified: Classified | None


def evaluate(
    source: Source, data: Any, *, split: str | None = None, tta: Iterable[str] = (), strict: bool = False
) -> dict[str, float]:
    """Loss and metrics of a trained network on a data set, of which some classes may be missing.

    Args:
        source: `name.tag`, an exported directory, or a run.
        data: a data set's name or path, or a loaded one; see `zoo.data.load`.
        split: `train`, `validation` or `test`; by default test, or all examples of a source without splits. A split
            that the source lacks is held out of train as in training.
        tta: names of test-time augmentations (`mirror`, `shift`, `crops`): the accuracy of the mean over them is
            measured too, as `averaged_accuracy`.
        strict: raise for files in a folder or archive that are not read.

    Raises:
        ZooError: for data with other classes than the network's, an unknown split, and a source of several splits
            without test where none is chosen, and test-time augmentations that the task does not have.
    """
    return examine(source, data, split=split, tta=tta, strict=strict).scores


def examine(
    source: Source, data: Any, *, split: str | None = None, tta: Iterable[str] = (), strict: bool = False
) -> Evaluation:
    """As `evaluate`, with the examples and the predictions."""
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    task = predictor.task
    averaged = Predictor(predictor, tta) if (tta := tuple(tta)) else None  # refuses unknown names before the work
    if split is not None and split not in SPLITS:
        raise unknown("split", split, SPLITS)
    load = functools.partial(load_for, task.spec, task.input_shape, predictor.recipe, data, strict=strict)
    dataset = load(hold_out=False)
    part, name = _part(dataset, split)
    if part not in dataset.splits:
        dataset = load()
        note(f"{dataset.name} has no {part} split of its own: {part} is what training holds out of it")
    elif name == "all":
        _note_if_trained_on(predictor, dataset)
    dataset = task.select(dataset)
    chosen = dataset.splits[part].labeled()
    scores = evaluate_splits(task, predictor.model, {part: chosen}, predictor.recipe)[part]
    classified = classify(predictor, chosen)
    if classified is not None:
        levels = [float(image.mean()) for image in chosen.inputs] if chosen.inputs.dtype == np.uint8 else []
        if words := predictor.brightness_warning(levels):
            note(words)
    if averaged is not None:
        right = predicted_class_ids(averaged, chosen) == chosen.targets
        scores["averaged_accuracy"] = float(np.mean(right))
    return Evaluation(name, chosen, scores, classified)


def classify(predictor: Predictor, split: Split) -> Classified | None:
    """The predictions for labeled examples that have one class each; None for other tasks."""
    if not predictor.predicts_classes or split.targets is None or split.targets.ndim != 1:
        return None
    return Classified(predictor.task.classes, split.targets, _outputs(predictor, split, "probabilities"))


def _part(dataset: Dataset, split: str | None) -> tuple[str, str]:
    """The split of a data set that is measured, and how it is called."""
    if split is not None:
        return split, split
    if "test" in dataset.splits:
        return "test", "test"
    if len(dataset.splits) > 1:
        raise ZooError(f"{dataset.name} has the splits {', '.join(dataset.splits)}, and no test: choose one with split")
    (only,) = dataset.splits
    return only, "all"


def _note_if_trained_on(predictor: Predictor, dataset: Dataset) -> None:
    """A note where the examples are those that the network was trained on, most of them."""
    training = (predictor.artifact.manifest["training"] or {}) if predictor.artifact else {}
    recorded = training.get("data", {})
    if recorded.get("name") != dataset.name or dataset.splits.keys() != {"train"}:
        return
    whole = Dataset(dataset.name, complete(dataset.splits, seed=0), dataset.classes)
    if whole.fingerprint == recorded.get("fingerprint"):
        note(
            f"the network was trained on {dataset.name}, on {recorded['examples']['train']} of these examples: the "
            "split test measures those that were held out"
        )


@streamed.naming_files()
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
    return _outputs(predictor, split, "class_ids")


def _outputs(predictor: Predictor, split: Split, name: str) -> np.ndarray:
    """An output of `serving_default` for all examples of a split."""
    batch_size = fitting_batch(split.inputs.shape, 256)
    parts = (split.take(slice(start, start + batch_size)) for start in range(0, len(split), batch_size))
    return np.concatenate([predictor(predictor.task.serving_inputs(part))[name] for part in parts])
