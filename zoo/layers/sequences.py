"""Layers of texts and other sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="zoo")


def _share(name: str, value: float) -> float:
    """The value, where it may be the share of numbers that are zero in training."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, not {value}")
    return value


@register
class LSTM(keras.layers.LSTM):
    """Keras' LSTM with weight drop: in each training step a share of the recurrent weights is zero, the same ones for
    all rows and times, and the others are scaled up (Merity, Keskar and Socher 2018, "Regularizing and Optimizing LSTM
    Language Models", section 2).

    In training without a mask the inputs of all times are multiplied by the kernel at once, which is faster.

    Args:
        weight_drop: the share of recurrent weights, from 0 to below 1.
    """

    def __init__(self, units: int, weight_drop: float = 0.0, **kwargs: Any) -> None:
        super().__init__(units, **{"use_cudnn": False, **kwargs})
        self.weight_drop = _share("weight_drop", weight_drop)
        self.weight_drop_seed = keras.random.SeedGenerator(self.cell.seed)

    def inner_loop(self, sequences: Any, initial_state: Sequence[Any], mask: Any, training: bool = False) -> tuple:
        cell, plain = self.cell, not (self.dropout or self.recurrent_dropout or self.go_backwards)
        if not training or mask is not None or not plain:
            if training and self.weight_drop:
                raise ValueError("weight_drop works without a mask, another dropout in the layer and go_backwards")
            return super().inner_loop(sequences, initial_state, mask, training=training)
        kernel = ops.cast(cell.recurrent_kernel, cell.compute_dtype)
        if self.weight_drop:
            kernel = keras.random.dropout(kernel, self.weight_drop, seed=self.weight_drop_seed)
        projected = ops.matmul(ops.swapaxes(sequences, 0, 1), ops.cast(cell.kernel, cell.compute_dtype))
        projected = projected + ops.cast(cell.bias, cell.compute_dtype)  # [T, B, 4 * units]

        def step(states: tuple, inputs: Any) -> tuple:
            h, c = states
            gates = ops.split(inputs + ops.matmul(h, kernel), 4, axis=-1)
            i, f, o = (cell.recurrent_activation(gates[gate]) for gate in (0, 1, 3))
            c = f * c + i * cell.activation(gates[2])
            states = o * cell.activation(c), c
            return states, states

        (h, c), (outputs, _) = ops.scan(step, tuple(initial_state), projected)
        return h, ops.swapaxes(outputs, 0, 1) if self.return_sequences else h[:, None], [h, c]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_drop": self.weight_drop}


@register
class TokenDropout(keras.layers.Layer):
    """Vectors [B, T, D] of tokens, int [B, T]; in training a share of the kinds of token is zero wherever they occur in
    the batch, and the others are scaled up: embedding dropout (Gal and Ghahramani 2016, section 4.2).

    Args:
        vocabulary_size: number of token ids.
        rate: the share, from 0 to below 1.
    """

    def __init__(self, vocabulary_size: int, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size, self.rate = vocabulary_size, _share("embedding dropout", rate)
        self.seed = keras.random.SeedGenerator()

    def call(self, inputs: Sequence[Any], training: bool = False) -> Any:
        tokens, vectors = inputs
        if not training or not self.rate:
            return vectors
        kept = keras.random.dropout(ops.ones((self.vocabulary_size, 1), vectors.dtype), self.rate, seed=self.seed)
        return vectors * ops.take(kept, tokens, axis=0)

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> tuple:
        return input_shape[1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "rate": self.rate}


@register
class WordDropout(keras.layers.Layer):
    """Token numbers, int [B, T]; in training a share of the words is replaced by the unknown word, which is trained by
    that (Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text Classification", section 3).

    Args:
        rate: the share, from 0 to below 1.
        unknown: number of the unknown word; smaller numbers, such as padding, are kept.
    """

    def __init__(self, rate: float, unknown: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.unknown = _share("word_dropout", rate), unknown
        self.seed = keras.random.SeedGenerator()

    def call(self, tokens: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return tokens
        dropped = keras.random.uniform(ops.shape(tokens), seed=self.seed) < self.rate
        return ops.where(ops.logical_and(dropped, tokens > self.unknown), self.unknown, tokens)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "unknown": self.unknown}


@register
class GlobalMaxPooling1D(keras.layers.GlobalMaxPooling1D):
    """Keras' maximum over time, [B, T, D] to [B, D], without the masked times."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is not None:
            lowest = -1e4  # below all activations, and within the range of every floating-point type
            inputs = ops.where(ops.expand_dims(mask, -1), inputs, ops.cast(lowest, inputs.dtype))
        return super().call(inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None
