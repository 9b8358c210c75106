"""Losses and metrics of classifiers, and what other tasks' losses use. All are divided by the number of replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import ops

from zoo import layers as zoo_layers
from zoo.errors import ZooError, unknown


class QuadraticCost(keras.losses.Loss):
    """Half the squared distance of the sigmoid activations of logits [B, K] and targets [B, K], summed over the
    outputs: Nielsen chapter 1, equation (6)."""

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return 0.5 * ops.sum(ops.square(ops.sigmoid(y_pred) - y_true), axis=-1)


class MapCriterion(keras.losses.Loss):
    """LeCun et al. 1998, equation (9), on distances y [B, K]: y of the right class plus log(exp(-j) + sum exp(-y)).

    The constant `j` bounds the penalty of classes that are already far away; the paper says only that it is positive.
    """

    def __init__(self, j: float = 0.1, **options: object) -> None:
        super().__init__(**options)
        self.j = j

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        right = ops.sum(y_true * y_pred, axis=-1)
        rivals = ops.concatenate([-y_pred, ops.full_like(y_pred[:, :1], -self.j)], axis=-1)
        return right + ops.logsumexp(rivals, axis=-1)


SMOOTHED: dict[str, Callable[[float], keras.losses.Loss]] = {
    "cross_entropy": lambda smoothing: keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    ),
    "binary_cross_entropy": lambda smoothing: keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=smoothing
    ),
}
PLAIN: dict[str, Callable[[], keras.losses.Loss]] = {"quadratic": QuadraticCost, "rbf_map": MapCriterion}


def classification_loss(name: str, label_smoothing: float) -> keras.losses.Loss:
    """The loss of that name on logits or distances [B, K] and one-hot targets [B, K].

    Raises:
        ZooError: for an unknown loss, and label smoothing for a loss without it.
    """
    loss = named({**SMOOTHED, **PLAIN}, name, "classification")
    if name in SMOOTHED:
        return loss(label_smoothing)
    if label_smoothing:
        raise ZooError(f"label_smoothing is for the losses {' and '.join(SMOOTHED)}, not for {name}")
    return loss()


class SeveralOutputs(keras.losses.Loss):
    """The weighted sum of a loss over several outputs of a network, [B, outputs, K], with the same targets [B, K]."""

    def __init__(self, loss: keras.losses.Loss, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.weights = loss, weights

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return sum(weight * self.loss.call(y_true, y_pred[:, i]) for i, weight in enumerate(self.weights))


def named(losses: dict, name: str, task: str) -> Callable:
    """The loss of that name; raises ZooError for one that the task does not know."""
    if name not in losses:
        raise unknown(f"loss of {task}", name, losses)
    return losses[name]


def shared(loss: tf.Tensor) -> tf.Tensor:
    """A replica's share of a loss: the gradients of all replicas are added."""
    return loss / tf.distribute.get_strategy().num_replicas_in_sync


def accuracy(outputs: str, several: bool = False) -> keras.metrics.Metric:
    """The share of examples whose most probable class is the target's.

    Args:
        outputs: `ModelSpec.outputs`.
        several: whether predictions are [B, outputs, K], of which the first output counts.
    """

    def categorical(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        y_pred = y_pred[:, 0] if several else y_pred
        return keras.metrics.categorical_accuracy(y_true, zoo_layers.probabilities(y_pred, outputs))

    return keras.metrics.MeanMetricWrapper(categorical, name="accuracy")
