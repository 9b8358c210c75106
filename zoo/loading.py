"""Trained networks by name: as a plain Keras model, or ready to predict."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from etils import epy

from zoo import artifacts, progress, registry, tasks
from zoo import preprocessing as pre
from zoo.artifacts.rebuilding import rebuild, rebuild_network
from zoo.data import brightness
from zoo.data.decoding import UNREADABLE, Unusable
from zoo.errors import ZooError, graph_error, listed, note, unknown
from zoo.recipe import Recipe
from zoo.spec import check_keras
from zoo.weights import LoadReport, assign, load_arrays, named_weights

with epy.lazy_imports():
    import keras
    import tensorflow as tf


class Trained(Protocol):
    """A network with its task, such as a run or a predictor."""

    task: tasks.Task
    model: keras.Model
    recipe: Recipe


BATCH = 64  # inputs that are read and predicted at once
LARGEST_BATCH = 2**21  # numbers in the images of a batch
PROGRESS_FROM = 200  # more inputs than this show a progress bar
MOST_NAMED = 20  # inputs that an error names

Source = str | os.PathLike | Trained
T = TypeVar("T")


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
        name: `name` for initial weights, or `name.tag` for the weights of that tag.
        weights: a tag, the path of an exported directory, or True for the default tag.
        input_shape: the network's input without the batch axis, if not the spec's.
        classes: number of outputs; if it is not that of the weights, the head has initial weights.

    Raises:
        ZooError: for an unknown name or tag, an artifact that is damaged or of another network, weights that do not
            fit.
    """
    check_keras()
    spec = registry.get_spec(name)
    tag = name.partition(".")[2] if weights is None else weights
    if not tag:
        return spec.build(input_shape, classes, **arguments)
    source: str | os.PathLike
    if tag is True:
        source = spec.name
    elif isinstance(tag, os.PathLike) or os.sep in tag:
        source = tag
    else:
        source = f"{spec.name}.{tag}"
    artifact = artifacts.open_artifact(source)
    origin = tasks.restore(artifact.manifest["model"])
    if origin.spec.name != spec.name:
        raise ZooError(f"{artifact.path} contains weights of {origin.spec.name}, not of {spec.name}")
    _, model = rebuild_network(artifact)
    outputs = len(origin.classes) if classes is None else classes
    if input_shape is None and outputs == len(origin.classes) and not arguments:
        return model
    model = spec.build(input_shape or origin.input_shape, outputs, **{**origin.arguments, **arguments})
    assign(named_weights(model), artifact.arrays(), reinitialize=spec.head if outputs != len(origin.classes) else ())
    return model


def load_weights(
    model: keras.Model, source: str | os.PathLike | Mapping[str, np.ndarray], *, reinitialize: Iterable[str] = ()
) -> LoadReport:
    """Load weights into a model, strictly.

    Args:
        source: `name.tag` of the zoo, an exported directory, an `.npz` file, or arrays by key.
        reinitialize: wildcards of layer names that may keep their initial weights, such as the spec's head.

    Returns:
        What happened to each key.

    Raises:
        ZooError: for a source that is missing, damaged or does not fit; the model is unchanged then.
    """
    if not isinstance(source, Mapping):
        path = Path(source)
        source = load_arrays(path) if path.suffix == ".npz" else artifacts.open_artifact(source).arrays()
    return assign(named_weights(model), source, reinitialize)


class Predictor:
    """A trained network with its task; calling it runs a serving signature in this process.

    Args:
        source: `name.tag`, an exported directory, or a run.
        tta: names of test-time augmentations, over which it averages: `mirror`, `shift`, `crops`.

    Attributes:
        task: classes, preprocessing and everything else that gives the network's numbers a meaning.
        model: the plain Keras model.
        recipe: the recipe that it was trained by; the spec's first one if that is not known.
        artifact: the artifact that it was read from; None for a run.

    Raises:
        ZooError: for an artifact that is missing or damaged, and test-time augmentations that the task does not have.
    """

    def __init__(self, source: Source, tta: Iterable[str] = ()) -> None:
        check_keras()
        self.artifact: artifacts.Artifact | None = None
        if isinstance(source, str | os.PathLike):
            self.artifact = artifacts.open_artifact(source)
            self.task, self.model, self.signatures = rebuild(self.artifact)
            if training := self.artifact.manifest["training"]:
                self.recipe = tasks.read_recipe(training["recipe"], self.task.spec.task)
            else:
                self.recipe = self.task.with_options(self.task.spec.recipe())
        else:
            self.task, self.model, self.recipe = source.task, source.model, source.recipe
            self.artifact = getattr(source, "artifact", None)
            self.signatures = self.task.signatures(self.model)
        if tta := tuple(tta):
            self.task = self.task.with_views(tta)
            self.signatures = self.task.signatures(self.model)

    def __call__(self, *inputs: Any, signature: str = "serving_default", **named: Any) -> dict[str, np.ndarray]:
        """The outputs of a signature by name.

        Args:
            inputs: the signature's inputs in order, or by name; each with its batch axis.

        Raises:
            ZooError: for an unknown signature or input, an input of another shape or type than the signature's, and
                one that the signature refuses.
        """
        if signature not in self.signatures:
            raise unknown(f"signature of {self.task.spec.name}", signature, self.signatures)
        function = self.signatures[signature]
        specs = {spec.name: spec for spec in function.input_signature}
        given = {**dict(zip(specs, inputs, strict=False)), **named}
        if given.keys() != specs.keys() or len(inputs) + len(named) != len(specs):
            raise ZooError(f"the signature {signature} takes {', '.join(specs)}, not {', '.join(given) or 'nothing'}")
        tensors = {name: _tensor(given[name], spec) for name, spec in specs.items()}
        try:
            return {name: value.numpy() for name, value in function(**tensors).items()}
        except tf.errors.InvalidArgumentError as error:
            raise ZooError(f"the signature {signature} refuses its inputs: {graph_error(error.message)}") from None

    def brightness_warning(self, levels: Sequence[float]) -> str:
        """What to say where images are much brighter or darker than those that the network was trained on.

        Args:
            levels: the mean value of each image, 0 to 255.
        """
        if self.artifact is None or not levels:
            return ""
        return brightness.warning(self.artifact.manifest["training"] or {}, levels)

    @property
    def predicts_classes(self) -> bool:
        """Whether `class_ids` are among its outputs."""
        return "class_ids" in self.signatures["serving_default"].get_concrete_function().structured_outputs


def _tensor(value: Any, spec: tf.TensorSpec) -> tf.Tensor:
    array = np.asarray(value)
    is_text = array.dtype.kind in "OUS"
    if not spec.shape.rank and array.dtype.kind in "if":
        array = array.astype(spec.dtype.as_numpy_dtype)  # a Python number has no type of its own
    if is_text != (spec.dtype == tf.string) or not (is_text or array.dtype == spec.dtype.as_numpy_dtype):
        raise ZooError(f"{spec.name} must be of type {spec.dtype.name}, not {array.dtype}")
    if not spec.shape.is_compatible_with(array.shape):
        raise ZooError(f"{spec.name} must be of shape {spec.shape}, not {array.shape}")
    return tf.constant(array)


def load(source: Source, tta: Iterable[str] = ()) -> Predictor:
    """A trained network, by `name.tag`, directory or run, ready to predict; see `Predictor` for `tta`."""
    return Predictor(source, tta)


@overload
def features(
    source: Source, images: None = None, layers: Iterable[str] | None = None
) -> Callable[[np.ndarray], dict[str, np.ndarray]]: ...
@overload
def features(source: Source, images: np.ndarray, layers: Iterable[str] | None = None) -> dict[str, np.ndarray]: ...
def features(source: Source, images: np.ndarray | None = None, layers: Iterable[str] | None = None) -> Any:
    """The outputs of layers within a trained network, such as vectors for a search among images.

    Args:
        source: `name.tag`, an exported directory, or a run; a network of images.
        images: [N, H, W, C] as the network is served; without them a function of images is returned.
        layers: names of layers; the spec's `features` by default.

    Returns:
        By layer float32 [N, ...].

    Raises:
        ZooError: for a layer that the network does not have, and networks of texts.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    call = _extractor(predictor, tuple(layers or predictor.task.spec.features))

    def of_images(images: np.ndarray) -> dict[str, np.ndarray]:
        parts = [call(tf.constant(images[first : first + 256])) for first in range(0, len(images), 256)]
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}

    return of_images if images is None else of_images(images)


def _extractor(predictor: Predictor, names: tuple[str, ...]) -> Callable[[Any], dict[str, tf.Tensor]]:
    """What computes the outputs of layers for images [B, H, W, C]; raises ZooError as `features`."""
    task, served = predictor.task, predictor.task.served(predictor.model)
    if not isinstance(task, tasks.ImageTask):
        raise ZooError(f"{task.spec.name} takes no images: features are those of networks of images")
    tasks.check_layers(served, names)
    inner = keras.Model(served.input, {name: served.get_layer(name).output for name in names})
    return tf.function(
        lambda batch: inner(pre.apply(batch, task.preprocessing, task.channels), training=False),
        autograph=False,
        reduce_retracing=True,  # for images of any size
    )


def embed(
    source: Source, inputs: Any, layer: str | None = None, *, strict: bool = False
) -> tuple[list[str], np.ndarray]:
    """Vectors of images as a user has them, such as for a search among the images of a folder.

    Args:
        source, inputs, strict: as for `predict`.
        layer: the layer whose outputs they are; by default the last one of the spec's `features`.

    Returns:
        The names of the inputs, and float32 [N, D].

    Raises:
        ZooError: as `predict` and `features`, and for a network whose spec names no features.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    spec = predictor.task.spec
    if layer is None and not spec.features:
        raise ZooError(f"{spec.name} names no features: give a layer")
    name = layer or spec.features[-1]
    call = _extractor(predictor, (name,))
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for batch in _read_batches(predictor, predictor.task.items(inputs), strict):
        found = _by_size(batch, lambda images: call(tf.constant(images))[name].numpy().reshape(len(images), -1))
        names += [one for one, _ in batch]
        vectors += found
    sizes = {vector.shape for vector in vectors}
    if len(sizes) > 1:
        raise ZooError(f"the outputs of {name} have {len(sizes)} sizes: give images of one size, or a later layer")
    return names, np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


def predict(source: Source, inputs: Any, *, tta: Iterable[str] = (), strict: bool = False) -> list[dict[str, Any]]:
    """Predictions for inputs as a user has them.

    Args:
        inputs: for a task on images paths of files and folders, with wildcards or without, the bytes of files, images
            of Pillow, and arrays [H, W], [H, W, C], [N, H, W] or [N, H, W, C]; for a task on texts texts. One, or any
            number of them.
        tta: names of test-time augmentations, see `Predictor`.
        strict: whether files of folders, and those that wildcards match, must all be readable; otherwise a note names
            those that are left out.

    Returns:
        For each input a dict of plain data; for classification `input`, `class`, `probability`, and `probabilities` in
        the order of `classes`.

    Raises:
        ZooError: for files that are missing or cannot be read, all at once, and where nothing can be read.
    """
    tta = tuple(tta)
    predictor = source if isinstance(source, Predictor) and not tta else Predictor(source, tta)
    results: list[dict[str, Any]] = []

    def summaries(inputs: np.ndarray) -> list[dict[str, Any]]:
        outputs = predictor(inputs)
        one = ({name: value[row : row + 1] for name, value in outputs.items()} for row in range(len(inputs)))
        return [predictor.task.summary(row) for row in one]

    for batch in _read_batches(predictor, predictor.task.items(inputs), strict):
        found = _by_size(batch, summaries)
        results += [{"input": name, **row} for (name, _), row in zip(batch, found, strict=True)]
    return results


Batch = list[tuple[str, np.ndarray]]  # names and inputs of any sizes


def _read_batches(predictor: Predictor, items: list[tasks.Item], strict: bool) -> Iterator[Batch]:
    """The inputs in batches, read in parallel; at the end notes on what their readers changed, and on files of folders
    that cannot be read.

    Raises:
        ZooError: at the end, for other inputs that cannot be read, and with `strict` for those too; no more batches
            follow the first of them.
    """
    faults: dict[str, str] = {}
    left_out: dict[str, str] = {}
    changes: dict[str, list[str]] = {}
    levels: list[float] = []
    bar = progress.bar(len(items), "inputs", least=PROGRESS_FROM)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), BATCH):
            part = items[start : start + BATCH]
            bar.update(len(part))
            batch = []
            for item, (value, notes) in zip(part, pool.map(_read, part), strict=True):
                if isinstance(value, str):
                    (left_out if item.found and not strict else faults)[item.name] = value
                    continue
                batch.append((item.name, value))
                for change in notes:
                    changes.setdefault(change, []).append(item.name)
            if not faults:  # all of them are named, nothing more is predicted
                levels += [float(value.mean()) for _, value in batch if value.dtype == np.uint8]
                yield batch
    if faults or len(left_out) == len(items) > 0:
        raise ZooError(_unreadable(faults or left_out, len(items)))
    if left_out:
        note(f"{_unreadable(left_out, len(items))}; they are left out, --strict refuses them")
    for change, names in changes.items():
        note(f"{len(names)} of {len(items)} files, such as {names[0]}: {change}")
    if words := predictor.brightness_warning(levels):
        note(words)


def _unreadable(faults: Mapping[str, str], count: int) -> str:
    named = listed((f"{name} ({reason})" for name, reason in faults.items()), MOST_NAMED)
    return f"{len(faults)} of {count} inputs cannot be read: {named}"


def _read(item: tasks.Item) -> tuple[np.ndarray | str, tuple[str, ...]]:
    """The value of an input and what its reader changed; or the reason for which it has none."""
    try:
        return item.read()
    except (Unusable, ZooError) as error:
        return str(error), ()
    except Exception:  # for a broken file Pillow, rasterio and TensorFlow raise a dozen kinds of errors
        return UNREADABLE, ()


def _by_size(batch: Batch, call: Callable[[np.ndarray], Sequence[T]]) -> list[T]:
    """What a function returns for inputs of any sizes, in their order; those of one size are passed at once."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (_, value) in enumerate(batch):
        groups.setdefault(value.shape, []).append(row)
    found: dict[int, T] = {}
    for shape, rows in groups.items():
        size = max(min(len(rows), LARGEST_BATCH // max(math.prod(shape), 1)), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            found |= zip(part, call(np.stack([batch[row][1] for row in part])), strict=True)
    return [found[row] for row in range(len(batch))]
