"""The network of an artifact, built anew from the registry, its manifest and its weights: no stored graph is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zoo import tasks
from zoo.artifacts.manifest import Artifact
from zoo.weights import assign, named_weights

if TYPE_CHECKING:
    import keras


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
    """The network of an artifact that `open_artifact` returned, with its serving signatures traced anew.

    Raises:
        ZooError: for a manifest that describes no network of the registry, and weights that do not fit it.
    """
    task = tasks.restore(artifact.manifest["model"])
    model = task.build()
    assign(named_weights(model), artifact.arrays())
    return Rebuilt(task, model, task.signatures(model))
