"""Losses that Keras lacks. Each divides by the number of replicas as Keras' own do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import ops


class QuadraticCost(keras.losses.Loss):
    """Half the squared distance of output and target, summed over the outputs: Nielsen chapter 1, equation (6)."""

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return 0.5 * ops.sum(ops.square(y_pred - y_true), axis=-1)


class MapCriterion(keras.losses.Loss):
    """LeCun et al. 1998, equation (9), on distances y [B, K]: y of the right class plus log(exp(-j) + sum exp(-y)).

    The constant `j` bounds the penalty of classes that are far away already; the paper says only that it is
    positive.
    """

    def __init__(self, j: float = 0.1, **options: object) -> None:
        super().__init__(**options)
        self.j = j

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        right = ops.sum(y_true * y_pred, axis=-1)
        rivals = ops.concatenate([-y_pred, ops.full_like(y_pred[:, :1], -self.j)], axis=-1)
        return right + ops.logsumexp(rivals, axis=-1)


class MaskLoss(keras.losses.Loss):
    """The sum of losses of masks, one-hot [B, H, W, K], against logits of that shape.

    Args:
        parts: functions of masks and logits that return a loss a pixel, [B, H, W], or one of all pixels.
    """

    def __init__(self, parts: Sequence[Callable], **options: object) -> None:
        super().__init__(**options)
        self.parts = parts

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return sum(part(y_true, y_pred) for part in self.parts)


def dice(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """1 - the Dice coefficient of masks and softmax of logits, mean over the classes: each counts alike, however few
    pixels it has (Milletari, Navab and Ahmadi 2016, V-Net, section 3, there with squares in the denominator)."""
    return ops.mean(keras.losses.dice(y_true, ops.softmax(y_pred), axis=(0, 1, 2)))


def jaccard(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """1 - intersection over union of masks and softmax of logits, mean over the classes."""
    probabilities = ops.softmax(y_pred)
    both, either = (
        ops.sum(value, axis=(0, 1, 2))
        for value in (y_true * probabilities, y_true + probabilities - y_true * probabilities)
    )
    return 1 - ops.mean(both / (either + keras.config.epsilon()))
