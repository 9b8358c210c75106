"""Random numbers that generators take."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="zoo")


@register
class ToUniform(keras.layers.Layer):
    """Standard normal latents [B, Z], of which the first `count` become uniform within `low` .. 1: all networks take
    latents of one distribution, and those whose paper has uniform ones convert them.

    Args:
        count: None for all.
    """

    def __init__(self, count: int | None = None, low: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count, self.low = count, low

    def call(self, inputs: Any) -> Any:
        uniform = self.low + (1 - self.low) / 2 * (to_uniform(inputs[:, : self.count]) + 1)
        return uniform if self.count is None else ops.concatenate([uniform, inputs[:, self.count :]], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "low": self.low}


def to_uniform(normal: Any) -> Any:
    """Standard normal values to values uniform within -1..1: the distribution function, scaled."""
    return ops.erf(normal / math.sqrt(2))
