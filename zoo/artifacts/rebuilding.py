"""The network of an artifact, built anew from the registry, its manifest and its weights: no stored graph is run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epy

from zoo import tasks
from zoo.artifacts.manifest import Artifact
from zoo.errors import ZooError
from zoo.tasks.image_task import widest
from zoo.weights import assign, named_weights

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras

SPARE = 2**20  # weights that a manifest may ask for beyond those stored: the comparison of shapes names what differs
SPARE_ARRAYS = 64
MOST_ACTIVATIONS = 2**26  # numbers that a layer may return for one example


class Rebuilt(NamedTuple):
    """What an artifact's manifest and weights describe.

    Attributes:
        task: the network's task.
        model: the network with the artifact's weights in float32.
        signatures: by name a `tf.function` with an `input_signature`: what the artifact's own graph must compute.
    """

    task: tasks.Task
    model: keras.Model
    signatures: tasks.Signatures


def rebuild(artifact: Artifact) -> Rebuilt:
    """The network of an artifact that `open_artifact` returned, with its serving signatures; `serving_default` is
    traced, the others when they are first called.

    Raises:
        ZooError: for a manifest that describes no network of the registry, or a larger one than its weights file holds,
            weights that do not fit it, and preprocessing that the network cannot have.
    """
    task, model = rebuild_network(artifact)
    with _refusing(artifact, "its preprocessing does not fit its network"):
        signatures = task.signatures(model)
        signatures["serving_default"].get_concrete_function()
    return Rebuilt(task, model, signatures)


def rebuild_network(artifact: Artifact) -> tuple[tasks.Task, keras.Model]:
    """The task of an artifact and its network with its weights; raises as `rebuild`, but for preprocessing."""
    task = tasks.restore(artifact.manifest["model"])
    stored = artifact.entries()
    numbers = sum(math.prod(entry.shape) for entry in stored.values())
    if (largest := _largest((task.input_shape, task.arguments))) > numbers + SPARE:
        raise ZooError(
            f"{artifact.path} is refused: its manifest has the number {largest:.3g}, its weights file {numbers:,}"
        )
    with _refusing(artifact, "its network cannot be built"), _limited(len(stored) + SPARE_ARRAYS, numbers + SPARE):
        model = task.build()
    if (largest := widest(model)) > MOST_ACTIVATIONS:
        raise ZooError(
            f"{artifact.path} is refused: a layer of its network returns {largest:,} numbers for one example, more "
            f"than {MOST_ACTIVATIONS:,}"
        )
    assign(named_weights(model), artifact.arrays())
    return task, model


@contextlib.contextmanager
def _refusing(artifact: Artifact, what: str) -> Iterator[None]:
    """Turns any error into a ZooError: Keras raises all kinds for arguments that nobody chose."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ZooError(f"{artifact.path} is refused: {what}: {reason}") from None


def _largest(value: Any) -> float:
    """The largest number within lists and mappings; 0 where there is none."""
    if isinstance(value, dict):
        return _largest(list(value.values()))
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


@contextlib.contextmanager
def _limited(arrays: int, numbers: int) -> Iterator[None]:
    """Refuses variables beyond so many, and beyond so many numbers in all, before they are allocated."""
    left_arrays, left_numbers = arrays, numbers

    def create(next_creator: Any, **options: Any) -> Any:
        nonlocal left_arrays, left_numbers
        value = options["initial_value"]
        if callable(value):
            with tf.Graph().as_default():  # in which nothing is computed
                value = value()
        if tf.as_dtype(options["dtype"] or value.dtype).is_floating:  # the others are the states of random generators
            left_numbers -= math.prod(value.shape)
        left_arrays -= 1
        if left_arrays < 0 or left_numbers < 0:
            raise ZooError("the manifest describes a larger network than its weights file holds: it is refused")
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield
