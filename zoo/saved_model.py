"""Export: one directory that plain TensorFlow serves and that this package fine-tunes, proven before it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from etils import epy

from zoo import artifacts, tasks
from zoo.errors import ZooError, unknown
from zoo.files import naming, write_json, written
from zoo.loading import Predictor
from zoo.runs import Run, data_of, provenance
from zoo.spec import ModelSpec, Preprocessing
from zoo.tasks.base import image_shape
from zoo.training import evaluate
from zoo.weights import assign, named_weights

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo import formats

GOLDEN_COUNTS = (1, 7)  # batch sizes at which the served model is compared
FORMATS = ("tensorflow", "onnx", "litert", "keras")
STORAGES = ("float32", "float16", "auto")


def export(
    source: Run | Sequence[Run] | Predictor | keras.Model,
    path: str | os.PathLike,
    *,
    format: str = "tensorflow",
    storage: Literal["float32", "float16", "auto"] = "float32",
    spec: ModelSpec | None = None,
    classes: Sequence[str] = (),
    vocabulary: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    input_shape: tuple | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Path:
    """Write a trained network, prove that what was written gives the same numbers, and return where it lies.

    Args:
        source: a run; several runs of one training that differ in their seed, of which the one that is best on
            validation is written, with the figures of all; loaded weights (`zoo.load`), for other formats than a
            SavedModel; or a bare model with what the artifact needs beside its weights: `spec`, the names of its
            `classes`, the `vocabulary` of a text task, and a `preprocessing`, an `input_shape` and builder
            `arguments` other than the spec's.
        path: `FOLDER/NAME.TAG` with the spec's name, which gets a sub-directory for each version; with another
            format than `tensorflow` a file.
        format: `tensorflow` (SavedModel), `onnx`, `litert` or `keras`.
        storage: `float16` halves the weights; the served graph computes in float32 on the rounded weights. `auto` is
            that where it changes no class on the validation split of the data that the network was trained on.

    Raises:
        ZooError: for a path that cannot be written or is named otherwise, a full disk, a format that cannot hold
            the network, or outputs that differ by more than 1e-5. Nothing is left behind then, and earlier
            versions stay as they were.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if storage not in STORAGES:
        raise unknown("storage", storage, STORAGES)
    runs = [source] if isinstance(source, Run) else source if isinstance(source, Sequence) else []
    if runs:
        source = best_of(runs)
    if isinstance(source, Run | Predictor):
        task, model = source.task, source.model
    elif spec is None:
        raise ZooError("a bare model needs spec=, the ModelSpec that it was built from")
    elif not spec.recipes:
        raise ZooError(f"{spec.name} is exported as what create_ensemble returns, not as a bare model")
    else:
        task, model = _task_of(source, spec, classes, vocabulary, preprocessing, input_shape, arguments or {}), source
    path = Path(path)
    if format != "tensorflow":
        with written(path, tf.errors.OpError) as temporary, full_precision():
            formats.write(task, model, temporary, format)
        return path
    if isinstance(source, Predictor):
        raise ZooError("loaded weights are written to other formats only: a SavedModel is exported from its run")
    artifacts.check_name(path, task.spec.name)
    version = path / str(
        max((int(child.name) for child in path.glob("[0-9]*") if child.name.isdecimal()), default=0) + 1
    )
    run = source if isinstance(source, Run) else None
    if storage == "auto":
        rounded = _rounded(run) if run else None
        storage = "float16" if rounded else "float32"
        run = rounded or run
    with written(version, tf.errors.OpError) as temporary, full_precision():
        values = _write_saved_model(task, model, temporary, storage)
        manifest = {
            "format": artifacts.FORMAT,
            "name": path.name,
            "model": task.describe(),
            "weights": {"storage": storage, "parameters": int(sum(value.size for value in values.values()))},
            "figures": _figures(task, run, runs),
            "training": _training(run) if run else None,
            "runs": [_outcome(one) for one in runs],
            "provenance": provenance(),
        }
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        manifest["files"] = {
            file.relative_to(temporary).as_posix(): {"size": file.stat().st_size, "sha256": artifacts.sha256(file)}
            for file in files
        }
        write_json(temporary / artifacts.MANIFEST, manifest)
        artifacts.verify(temporary)
    with naming(path.parent / artifacts.INDEX):
        artifacts.write_index(path.parent)
    return version


def _task_of(
    model: keras.Model,
    spec: ModelSpec,
    classes: Sequence[str],
    vocabulary: Sequence[str],
    preprocessing: Preprocessing | None,
    input_shape: tuple | None,
    arguments: Mapping[str, Any],
) -> tasks.Task:
    """The task that a bare model was built for."""
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
    """Write the SavedModel and its golden examples; returns the weights as they were stored."""
    variables = named_weights(model)
    values = {key: variable.numpy().astype(storage) for key, variable in variables.items()}
    module = tf.Module()
    module.weights = {key: tf.Variable(value, trainable=False) for key, value in values.items()}
    numeric = task.numeric_network(model)

    def network(inputs: Any) -> Any:
        stored = [(variable, tf.cast(module.weights[key], tf.float32)) for key, variable in variables.items()]
        with keras.StatelessScope(state_mapping=stored):
            return numeric(inputs, training=False)

    signatures = task.signatures(model, network)
    module.tracked = [getattr(function, "tracked", None) for function in signatures.values()]
    tf.saved_model.save(module, str(directory), signatures=signatures)
    golden = directory / artifacts.GOLDEN
    golden.parent.mkdir(exist_ok=True)
    np.savez(golden, **golden_examples(task, model, values))
    return values


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Float32 computed as such: a recent GPU rounds products to 10 bits of mantissa otherwise (TF32), further from what
    a CPU serves than an export may be."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def golden_examples(task: tasks.Task, model: keras.Model, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and outputs of each signature, computed by the Keras network that holds the stored weights."""
    reference = task.build()
    assign(named_weights(reference), {key: value.astype(np.float32) for key, value in values.items()})
    signatures = task.signatures(reference)
    golden = {}
    for count in GOLDEN_COUNTS:
        for name, inputs in task.golden_inputs(count).items():
            outputs = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
            golden |= {f"{name}/{count}/inputs/{key}": value for key, value in inputs.items()}
            golden |= {f"{name}/{count}/outputs/{key}": _plain(value.numpy()) for key, value in outputs.items()}
    return golden


def _plain(value: np.ndarray) -> np.ndarray:
    """Texts as NumPy's own type, so that no pickle is needed."""
    return np.array([text.decode() for text in value.ravel()]).reshape(value.shape) if value.dtype == object else value


def best_of(runs: Sequence[Run]) -> Run:
    """The run that is best on validation, the first of equals.

    Raises:
        ZooError: for runs that differ in more than their seed, or not in that.
    """
    same = ("model", "data", "recipe", "backend", "origin", "stages")
    for run in runs[1:]:
        other = [key for key in same if run.record.get(key) != runs[0].record.get(key)]
        if other:
            raise ZooError(
                f"{run.directory} and {runs[0].directory} are no runs of one training: other {', '.join(other)}"
            )
    seeds = [run.record.get("seed") for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ZooError(f"the runs have the seeds {', '.join(map(str, seeds))}: each must have another")
    if len(runs) == 1:  # also an ensemble, which has no epochs
        return runs[0]
    return max(runs, key=lambda run: run.task.goodness(run.history[run.best_epoch - 1]))


def _figures(task: tasks.Task, run: Run | None, runs: Sequence[Run]) -> dict[str, Any]:
    """What the index shows: the metric measured here beside the published one of the same data set, and of the same
    recipe where there is one; the mean and the standard deviation of the test figure over all runs."""
    dataset = run.record["data"]["name"] if run else None
    recipe = run.record.get("recipe_name") if run else None
    same = [f for f in task.spec.published if f.dataset == dataset and f.metric == task.metric]
    published = next((f for f in same if f.recipe == recipe), same[0] if same else None)
    tested = [one.metrics["test"][task.metric] for one in runs if task.metric in one.metrics["test"]]
    return {
        "dataset": dataset,
        "metric": task.metric,
        "validation": run.metrics["validation"].get(task.metric) if run else None,
        "test": run.metrics["test"].get(task.metric) if run else None,
        "runs": len(tested),
        "mean": statistics.mean(tested) if tested else None,
        "deviation": statistics.stdev(tested) if len(tested) > 1 else None,
        "published": published.value if published else None,
        "source": published.source if published else None,
    }


def _outcome(run: Run) -> dict[str, Any]:
    """What came of one of several runs."""
    seconds = sum(row["seconds"] for row in run.history)
    outcome = {"seed": run.record.get("seed"), "metrics": run.metrics, "seconds": round(seconds, 1)}
    return {**outcome, "best_epoch": run.record.get("best_epoch"), "provenance": run.record.get("provenance")}


def _training(run: Run) -> dict[str, Any]:
    """How the weights came about: the run's record and its history."""
    return {key: value for key, value in run.record.items() if key not in ("model", "trained", "example")}


def _rounded(run: Run) -> Run | None:
    """The run with its weights rounded to float16 and its figures measured anew, where that changes no class on the
    validation split of the data that it was trained on; None where it does, where it tells no classes, and where the
    run has no data."""
    predictor = Predictor(run)
    if run.record["data"]["name"] is None or not predictor.tells_classes:
        return None
    dataset = data_of(run.record, run.task)
    rounded = dataclasses.replace(run, model=run.task.build())
    values = {key: v.numpy().astype(np.float16).astype(np.float32) for key, v in named_weights(run.model).items()}
    assign(named_weights(rounded.model), values)
    before, after = (one.class_ids(dataset.splits["validation"]) for one in (predictor, Predictor(rounded)))
    if not np.array_equal(before, after):
        return None
    metrics = evaluate(run.task, rounded.model, {name: dataset.splits[name] for name in run.metrics}, run.recipe)
    return dataclasses.replace(rounded, record={**run.record, "metrics": metrics})
