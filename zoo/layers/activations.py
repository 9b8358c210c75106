"""Activation functions, and the scores that a softmax turns into probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="zoo")


@register
class ScaledTanh(keras.layers.Layer):
    """`amplitude` * tanh(`slope` * x), elementwise (LeCun et al. 1998, equation (6) and appendix A, whose constants are
    the default). With the default, f(1) = 1 and f(-1) = -1: targets lie where the curvature is greatest, not in the
    flat ends."""

    def __init__(self, amplitude: float = 1.7159, slope: float = 2 / 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.amplitude, self.slope = amplitude, slope

    def call(self, inputs: Any) -> Any:
        return self.amplitude * ops.tanh(self.slope * inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "amplitude": self.amplitude, "slope": self.slope}


@register
class Gelu(keras.layers.Layer):
    """x times the standard normal distribution function at x, written with `erf`: Keras' own form needs `erfc`, which
    few of the formats have that networks are exported to."""

    def call(self, inputs: Any) -> Any:
        return inputs * (0.5 * (1.0 + ops.erf(inputs * 0.5**0.5)))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


@register
class EuclideanRBF(keras.layers.Layer):
    """Squared distances [B, K] of inputs [B, D] to K fixed codes (LeCun et al. 1998, equation (7)).

    Args:
        codes: the codes [K, D], kept as a weight that is stored but not trained.
    """

    def __init__(self, codes: Sequence[Sequence[float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.values = [list(code) for code in codes]

    def build(self, input_shape: tuple) -> None:
        self.codes = self.add_weight(
            shape=(len(self.values), input_shape[-1]),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(self.values, dtype),
            trainable=False,
            name="codes",
        )

    def call(self, inputs: Any) -> Any:
        return ops.sum(ops.square(ops.expand_dims(inputs, 1) - self.codes), axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0], len(self.values)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "codes": self.values}


def probabilities(scores: Any, kind: str) -> Any:
    """A network's outputs [..., K] as probabilities that sum to 1.

    Args:
        kind: `ModelSpec.outputs`: `logits` go through a softmax, `distances` through a softmax of their negative; the
            activations of `sigmoid` logits are divided by their sum.
    """
    if kind == "sigmoid":
        # With s the sigmoid, s(z_k) / sum_j s(z_j) = exp(log s(z_k)) / sum_j exp(log s(z_j)): the softmax of log s(z),
        # which is finite where all activations underflow to 0. log s(z) = -log(1 + exp(-z)) is written so that the
        # exponential never overflows, and not as `ops.log_sigmoid`, whose softplus overflows in LiteRT for z < -88.
        scores = ops.minimum(scores, 0.0) - ops.log(1.0 + ops.exp(-ops.abs(scores)))
    return ops.softmax(-scores if kind == "distances" else scores)
