"""Export: one directory that plain TensorFlow serves and that this package fine-tunes, verified before it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from etils import epy

from zoo import tasks
from zoo.artifacts.examples import examples
from zoo.artifacts.index import INDEX, update_index
from zoo.artifacts.manifest import FORMAT, GOLDEN, MANIFEST, check_name, file_entries, newest_version, parse_manifest
from zoo.artifacts.verification import verify
from zoo.errors import ZooError, unknown
from zoo.files import naming, write_json, written
from zoo.loading import Predictor
from zoo.spec import ModelSpec, Preprocessing
from zoo.tasks.image_task import image_shape
from zoo.training.callbacks import best_epoch
from zoo.training.evaluation import evaluate_splits, predicted_class_ids
from zoo.training.runs import Run, data_of, provenance
from zoo.weights import assign, named_weights

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.exporting import formats

GOLDEN_COUNTS = (1, 7)  # batch sizes at which the served model is compared
FORMATS = ("tensorflow", "onnx", "litert", "keras")
STORAGES = ("float32", "float16", "auto")
Storage = Literal["float32", "float16", "auto"]


def export(
    source: Run | Sequence[Run] | Predictor | keras.Model,
    path: str | os.PathLike,
    *,
    format: str = "tensorflow",
    storage: Storage | None = None,
    spec: ModelSpec | None = None,
    classes: Sequence[str] = (),
    vocabulary: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    input_shape: tuple | None = None,
    arguments: Mapping[str, Any] | None = None,
    tta: Sequence[str] = (),
    features: Sequence[str] = (),
) -> Path:
    """Write a trained network, verify that the written one computes the same numbers, and return its path.

    Args:
        source: a run; several runs of one training with different seeds, of which the one with the best validation
            score is written, with the scores of all; loaded weights (`zoo.load`), which are written again with their
            training record; or a bare model with what the artifact needs beside its weights: `spec`, the names of its
            `classes`, the `vocabulary` of a text task, and a `preprocessing`, an `input_shape` and builder `arguments`
            if they are not the spec's.
        path: `FOLDER/NAME.TAG` with the spec's name, which gets a sub-directory for each version; a file for the other
            formats.
        format: `tensorflow` (SavedModel), `onnx`, `litert` or `keras`.
        storage: type of the stored weights: `float32` (the default; for loaded weights the type that they have),
            `float16` for half the size, where the served graph computes in float32 on the rounded weights, or `auto`:
            float16 where that changes no predicted class on the validation split of the training data.
        tta: names of test-time augmentations over which the served graph averages, see `zoo.load`; the scores in the
            manifest are those without.
        features: names of layers of a classifier of images whose outputs the signature `features` returns.

    Raises:
        ZooError: for a path that cannot be written or has another name, a full disk, a format that cannot hold the
            network, or outputs that differ by more than 1e-5. Nothing is left behind then, and earlier versions are
            unchanged.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if storage is not None and storage not in STORAGES:
        raise unknown("storage", storage, STORAGES)
    runs = [source] if isinstance(source, Run) else list(source) if isinstance(source, Sequence) else []
    one = best_of(runs) if runs else source
    task: tasks.Task
    if isinstance(one, Run | Predictor):
        task, model = one.task, one.model
    elif spec is None:
        raise ZooError("a bare model needs spec=, the ModelSpec that it was built from")
    elif spec.ensemble:
        raise ZooError(f"{spec.name} is exported as what create_ensemble returns, not as a bare model")
    else:
        task, model = _task_of(one, spec, classes, vocabulary, preprocessing, input_shape, arguments or {}), one
    if tta:
        task = task.with_views(tta)
    if features:
        task = task.with_features(features)
    path = Path(path)
    if format != "tensorflow":
        with written(path, tf.errors.OpError) as temporary, full_precision():
            formats.write(task, model, temporary, format)
        return path
    check_name(path, task.spec.name)
    if isinstance(one, Predictor) and one.artifact is None:
        raise ZooError("a loaded run has no training record: export the run itself")
    run = one if isinstance(one, Run) else None
    if isinstance(one, Predictor) and one.artifact:
        content = _content_again(one)
        storage = storage or one.artifact.manifest["weights"]["storage"]
        if storage == "auto":
            raise ZooError("storage auto is for runs: loaded weights keep the type that they have")
    elif storage == "auto":
        rounded = _rounded(run) if run else None
        storage, run = ("float16", rounded) if rounded else ("float32", run)
        content = _content(task, run, runs)
    else:
        content = _content(task, run, runs)
    if path.is_dir():
        _refuse_another(newest_version(path), task, content)
    version = path / str(max((int(child.name) for child in path.glob("*") if child.name.isdecimal()), default=0) + 1)
    with written(version, tf.errors.OpError) as temporary, full_precision():
        values = _write_saved_model(task, model, temporary, storage or "float32")
        manifest = {
            "format": FORMAT,
            "name": path.name,
            "model": task.describe(),
            "weights": {
                "storage": storage or "float32",
                "parameters": int(sum(value.size for value in values.values())),
            },
            **content,
            **task.serving_notes,
            "provenance": provenance(),
            "files": file_entries(temporary),
        }
        write_json(temporary / MANIFEST, manifest)
        verify(temporary)
    with naming(path.parent / INDEX):
        update_index(path.parent)
    return version


def _refuse_another(found: Path, task: tasks.Task, content: Mapping[str, Any]) -> None:
    """Raises ZooError where the newest version is of another network, input shape or data set, or of other classes: the
    new one would take its name."""
    try:
        manifest = parse_manifest(found)
    except ZooError:  # damaged, or none of zoo's
        return

    def kind(model: Mapping[str, Any], training: Mapping[str, Any] | None) -> dict[str, Any]:
        described = {"network": model["spec"], **{f"argument {k}": v for k, v in model["arguments"].items()}}
        described["input shape"] = model["input_shape"]
        if training is not None and "data" in training:
            described["data set"] = training["data"]["name"]
            described["classes of the data"] = model["classes"]  # a folder that has grown keeps them
        return json.loads(json.dumps(described))

    before, now = kind(manifest["model"], manifest["training"]), kind(task.describe(), content["training"])
    if "data set" not in now or "data set" not in before:
        before, now = ({key: value for key, value in one.items() if "data" not in key} for one in (before, now))
    different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if different:
        there = ", ".join(f"{key} {str(before.get(key))[:40]}, not {str(now.get(key))[:40]}" for key in different)
        raise ZooError(f"{found.parent} contains other weights ({there}): export under another tag, or remove it")


def _content(task: tasks.Task, run: Run | None, runs: Sequence[Run]) -> dict[str, Any]:
    """What the manifest records of a training: scores, the training's record, the results of all runs."""
    return {
        "scores": _scores(task, run, runs),
        "training": _training(run) if run else None,
        "runs": [_result(one) for one in runs],
    }


def _content_again(predictor: Predictor) -> dict[str, Any]:
    """The same of an artifact that is written again."""
    assert predictor.artifact is not None
    return {key: predictor.artifact.manifest[key] for key in ("scores", "training", "runs")}


def _task_of(
    model: keras.Model,
    spec: ModelSpec,
    classes: Sequence[str],
    vocabulary: Sequence[str],
    preprocessing: Preprocessing | None,
    input_shape: tuple | None,
    arguments: Mapping[str, Any],
) -> tasks.Task:
    """The task of a bare model."""
    shape, default = image_shape(spec, input_shape)
    task = tasks.get_task(spec.task)(
        spec, shape, tuple(classes), tuple(vocabulary), preprocessing or default, dict(arguments)
    )
    built, given = (
        {key: tuple(variable.shape) for key, variable in named_weights(network).items()}
        for network in (task.build(), model)
    )
    if built != given:
        key = sorted({*built.items()} ^ {*given.items()})[0][0]
        raise ZooError(
            f"the model is not {spec.name} with {len(classes)} classes: {key} is {given.get(key, 'missing')} in the "
            f"model and {built.get(key, 'missing')} in the network of the spec"
        )
    return task


def _write_saved_model(task: tasks.Task, model: keras.Model, directory: Path, storage: str) -> dict[str, np.ndarray]:
    """Write the SavedModel and its golden examples; return the weights as they were stored."""
    variables = named_weights(model)
    values = {key: variable.numpy().astype(storage) for key, variable in variables.items()}
    module = tf.Module()
    module.weights = {key: tf.Variable(value, trainable=False) for key, value in values.items()}
    served = task.served(model)

    def network(inputs: Any) -> Any:
        stored = [(variable, tf.cast(module.weights[key], tf.float32)) for key, variable in variables.items()]
        with keras.StatelessScope(state_mapping=stored):
            return served(inputs, training=False)

    signatures = task.signatures(model, network)
    module.tracked = list(signatures.resources)
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # its message names the folder as it is called until it is whole
    try:
        tf.saved_model.save(module, str(directory), signatures=dict(signatures))
    finally:
        logger.setLevel(level)
    golden = directory / GOLDEN
    golden.parent.mkdir(exist_ok=True)
    np.savez(golden, allow_pickle=False, **golden_examples(task, values))
    return values


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Float32 computed as float32: a recent GPU would round products to 10 bits of mantissa (TF32), which differs from
    what a CPU serves by more than an export may."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def golden_examples(task: tasks.Task, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and outputs of each signature, computed by the Keras network that holds the stored weights."""
    reference = task.build()
    assign(named_weights(reference), {key: value.astype(np.float32) for key, value in values.items()})
    return examples(task, task.signatures(reference), {str(count): (count, 0) for count in GOLDEN_COUNTS})


def best_of(runs: Sequence[Run]) -> Run:
    """The run with the best validation score, the first of equals.

    Raises:
        ZooError: for runs that differ in more than their seed, or not in their seed.
    """
    same = ("model", "data", "recipe", "backend", "origin", "stages")
    for run in runs[1:]:
        other = [key for key in same if run.record.get(key) != runs[0].record.get(key)]
        if other:
            raise ZooError(
                f"{run.directory} and {runs[0].directory} are not runs of one training: different {', '.join(other)}"
            )
    seeds = [run.record.get("seed") for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ZooError(f"the runs have the seeds {', '.join(map(str, seeds))}: each must have another")
    if len(runs) == 1:  # also an ensemble, which has no epochs
        return runs[0]
    best_rows = [run.history[run.best_epoch - 1] for run in runs]
    return runs[best_epoch(best_rows, runs[0].task.monitor) - 1]


def _scores(task: tasks.Task, run: Run | None, runs: Sequence[Run]) -> dict[str, Any]:
    """The scores that the index shows: those measured here, the mean and the standard deviation of the test score over
    all runs, and the score reported for the same data set and metric, and for the same recipe where there is one."""
    metric = task.monitor.name if task.monitor else None
    dataset = run.record["data"]["name"] if run else None
    recipe = run.record.get("recipe_name") if run else None
    same = [score for score in task.spec.reported if score.dataset == dataset and score.metric == metric]
    reported = next((score for score in same if score.recipe == recipe), same[0] if same else None)
    if run and run.record.get("variant"):  # another network than the reference's
        reported = None
    tested = [one.metrics["test"][metric] for one in runs if metric and metric in one.metrics["test"]]
    validated = run.metrics if run and metric else {"validation": {}, "test": {}}
    return {
        "dataset": dataset,
        "metric": metric,
        **{split: validated[split].get(metric or "") for split in ("validation", "test")},
        "runs": len(tested),
        "mean": statistics.mean(tested) if tested else None,
        "standard_deviation": statistics.stdev(tested) if len(tested) > 1 else None,
        "reported": reported.value if reported else None,
        "reference": reported.reference if reported else None,
    }


def _result(run: Run) -> dict[str, Any]:
    """The result of one of several runs."""
    seconds = sum(row["seconds"] for row in run.history)
    result = {"seed": run.record.get("seed"), "metrics": run.metrics, "seconds": round(seconds, 1)}
    return {**result, "best_epoch": run.record.get("best_epoch"), "provenance": run.record.get("provenance")}


def _training(run: Run) -> dict[str, Any]:
    """The run's record and its history."""
    return {key: value for key, value in run.record.items() if key not in ("model", "trained", "example")}


def _rounded(run: Run) -> Run | None:
    """The run with its weights rounded to float16 and its scores measured again, where that changes no predicted class
    on the validation split of its data; None where it does, where no classes are predicted, and for a run without
    data."""
    predictor = Predictor(run)
    if run.record["data"]["name"] is None or not predictor.predicts_classes:
        return None
    dataset = data_of(run.record, run.task, run.recipe)
    rounded = dataclasses.replace(run, model=run.task.build())
    values = {key: v.numpy().astype(np.float16).astype(np.float32) for key, v in named_weights(run.model).items()}
    assign(named_weights(rounded.model), values)
    before, after = (predicted_class_ids(one, dataset.splits["validation"]) for one in (predictor, Predictor(rounded)))
    if not np.array_equal(before, after):
        return None
    metrics = evaluate_splits(run.task, rounded.model, {name: dataset.splits[name] for name in run.metrics}, run.recipe)
    return dataclasses.replace(rounded, record={**run.record, "metrics": metrics})
