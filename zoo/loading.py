"""Trained networks by name: as a plain Keras model, or ready to predict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import artifacts, registry, tasks
from zoo.data import Split
from zoo.data import load as load_data
from zoo.data.pipeline import fitting_batch
from zoo.errors import ZooError
from zoo.recipe import Recipe, from_dict
from zoo.runs import Run
from zoo.tasks.base import picture_size
from zoo.training import evaluate as evaluate_splits
from zoo.weights import LoadReport, assign, load_arrays, named_weights

with epy.lazy_imports():
    import keras
    import tensorflow as tf


def create_model(
    name: str,
    weights: str | os.PathLike | bool | None = None,
    *,
    input_shape: tuple | None = None,
    classes: int | None = None,
    **arguments: Any,
) -> keras.Model:
    """A network of the registry as a plain Keras model.

    Args:
        name: `name` for fresh weights, or `name.tag` for those of that tag.
        weights: a tag, the path of an exported directory, or True for the default tag.
        input_shape: the network's input without the batch axis, where it is not the spec's.
        classes: number of outputs; with another number than the weights', the head is fresh.

    Raises:
        ZooError: for an unknown name or tag, an artifact that is damaged or of another network, weights that do
            not fit.
    """
    spec = registry.get_spec(name)
    tag = name.partition(".")[2] if weights is None else weights
    if not tag:
        return registry.build(spec, input_shape, classes, **arguments)
    if tag is True:
        source: str | os.PathLike = spec.name
    elif isinstance(tag, os.PathLike) or os.sep in tag:
        source = tag
    else:
        source = f"{spec.name}.{tag}"
    artifact = artifacts.open_artifact(source)
    origin = tasks.restore(artifact.manifest["model"])
    if origin.spec.name != spec.name:
        raise ZooError(f"{artifact.path} holds weights of {origin.spec.name}, not of {spec.name}")
    outputs = len(origin.classes) if classes is None else classes
    shape = input_shape or origin.input_shape
    model = registry.build(spec, shape, outputs, **{**origin.arguments, **arguments})
    assign(named_weights(model), artifact.arrays(), reinitialise=spec.head if outputs != len(origin.classes) else ())
    return model


def load_weights(
    model: keras.Model, source: str | os.PathLike | Mapping[str, np.ndarray], *, reinitialise: Iterable[str] = ()
) -> LoadReport:
    """Load weights into a model and tell what became of each key.

    Args:
        source: `name.tag` of the zoo, an exported directory, an `.npz` file, or arrays by key.
        reinitialise: wildcards of layer names that may keep their fresh weights, such as the spec's head.

    Raises:
        ZooError: for a source that is missing, damaged or does not fit; the model is left as it was.
    """
    if not isinstance(source, Mapping):
        path = Path(source)
        source = load_arrays(path) if path.suffix == ".npz" else artifacts.open_artifact(source).arrays()
    return assign(named_weights(model), source, reinitialise)


class Predictor:
    """A trained network with its task; calling it runs the serving signature on Keras' side.

    Attributes:
        task: classes, preprocessing and all else that gives the network's numbers a meaning.
        model: the plain Keras model.
        recipe: what it was trained by; the spec's first where that is not known.
    """

    def __init__(self, source: str | os.PathLike | Run) -> None:
        if isinstance(source, Run):
            self.task, self.model, self.recipe = source.task, source.model, source.recipe
        else:
            artifact = artifacts.open_artifact(source)
            self.task = tasks.restore(artifact.manifest["model"])
            self.model = self.task.build()
            assign(named_weights(self.model), artifact.arrays())
            trained = artifact.manifest["training"]
            self.recipe = from_dict(Recipe, trained["recipe"]) if trained else self.task.spec.recipe()
        self.function = self.task.signatures(self.model)["serving_default"]

    def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
        """The outputs of `serving_default` by name, for its one input with a batch axis.

        Raises:
            ZooError: for an input of another shape or type than the signature's.
        """
        (spec,) = self.function.input_signature
        inputs = np.asarray(inputs)
        is_text = inputs.dtype.kind in "OUS"
        if is_text != (spec.dtype == tf.string) or not (is_text or inputs.dtype == spec.dtype.as_numpy_dtype):
            raise ZooError(f"{spec.name} must be of type {spec.dtype.name}, not {inputs.dtype}")
        if not spec.shape.is_compatible_with(inputs.shape):
            raise ZooError(f"{spec.name} must be of shape {spec.shape}, not {inputs.shape}")
        return {name: value.numpy() for name, value in self.function(tf.constant(inputs)).items()}

    @property
    def tells_classes(self) -> bool:
        """Whether `class_ids` are among its outputs."""
        return "class_ids" in self.function.get_concrete_function().structured_outputs

    def class_ids(self, split: Split) -> np.ndarray:
        """The most probable class of each example, int64 [N], or of each of its pixels, computed batch by batch."""
        inputs = self.task.serving_inputs(split)
        batch_size = fitting_batch(inputs.shape, 256)
        parts = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
        return np.concatenate([self(part)["class_ids"] for part in parts])


def load(source: str | os.PathLike | Run) -> Predictor:
    """A trained network, by `name.tag`, directory or run, ready to predict."""
    return Predictor(source)


def predict(source: str | os.PathLike | Run | Predictor, inputs: str | Iterable[str]) -> list[dict[str, Any]]:
    """What the network says of each input: paths of pictures, or texts, by its task.

    Returns:
        For each input a dict of plain data: for classification `input`, `class`, `probability`, `probabilities`.

    Raises:
        ZooError: for files that are missing or no pictures, before anything is predicted.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    read = [(str(words), predictor.task.read(str(words))) for words in inputs]
    return [{"input": words, **predictor.task.summary(predictor(value))} for words, value in read]


def evaluate(source: str | os.PathLike | Run, data: Any, *, split: str = "test") -> dict[str, float]:
    """Loss and metrics of a trained network on a split of a data set.

    Raises:
        ZooError: for data whose classes are not the network's.
    """
    predictor = Predictor(source)
    task = predictor.task
    size = picture_size(task.spec, task.input_shape)
    dataset = task.narrowed(load_data(data, image_size=size, ignored_class=predictor.recipe.ignored_class))
    task.check_data(dataset)
    if split not in dataset.splits:
        raise ZooError(f"unknown split {split!r}: use train, validation or test")
    return evaluate_splits(task, predictor.model, {split: dataset.splits[split]}, predictor.recipe)[split]
