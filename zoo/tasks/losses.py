"""Losses that Keras lacks. Each divides by the number of replicas as Keras' own do."""

from __future__ import annotations

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
