"""Training and evaluation of recurrent networks on streams: their state is carried from window to window."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

STREAMS = 8  # in which a text is evaluated with its state carried; each begins with a zero state
STEP = 256  # characters of each stream at once


class StreamTrainer(keras.Model):
    """Trains a network [B, T] on consecutive windows of `rows` streams (truncated back-propagation through time).

    In training the state of a row is carried on where its window follows the one before, and is zero where it does
    not. In evaluation each window begins with a zero state. The carried state is part of the variables.

    Args:
        network: takes a dict of `tokens` and states, returns a dict of `logits` and the new states.
        rows: the largest batch in training.
    """

    def __init__(self, network: keras.Model, rows: int) -> None:
        super().__init__()
        self.network = network
        self.widths = state_widths(network)
        self.carried = {
            name: self.add_weight((rows, width), initializer="zeros", trainable=False, name=f"carried_{name}")
            for name, width in self.widths.items()
        }
        self.last = self.add_weight(
            (rows,), initializer=keras.initializers.Constant(-2), dtype="int32", trainable=False, name="last_window"
        )

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Logits [B, T, V] of `tokens` int [B, T], whose windows have the numbers `window` int [B] in the text."""
        tokens, window = inputs["tokens"], inputs["window"]
        rows = ops.shape(tokens)[0]
        if not training:
            return self.network({"tokens": tokens, **zero_states(self.widths, rows)}, training=False)["logits"]
        follows = ops.expand_dims(window == self.last[:rows] + 1, 1)
        states = {name: ops.where(follows, state[:rows], 0.0) for name, state in self.carried.items()}
        outputs = self.network({"tokens": tokens, **states}, training=True)
        for name, state in self.carried.items():
            state.assign(ops.concatenate([ops.cast(outputs[name], state.dtype), state[rows:]]))
        self.last.assign(ops.concatenate([window, self.last[rows:]]))
        return outputs["logits"]


class Perplexity(keras.metrics.SparseCategoricalCrossentropy):
    """e to the mean nats a token."""

    def __init__(self, name: str) -> None:
        super().__init__(name, from_logits=True)

    def result(self) -> Any:
        return ops.exp(super().result())


class Bits(keras.metrics.SparseCategoricalCrossentropy):
    """Mean bits a token."""

    def __init__(self, name: str) -> None:
        super().__init__(name, from_logits=True)

    def result(self) -> Any:
        return super().result() / math.log(2)


def state_widths(network: keras.Model) -> dict[str, int]:
    """Units of each recurrent state by its name: all inputs but the tokens."""
    return {name: tensor.shape[-1] for name, tensor in network.input.items() if name != "tokens"}


def zero_states(widths: dict[str, int], rows: Any) -> dict[str, Any]:
    """The states [rows, width] at the beginning of a text."""
    return {name: ops.zeros((rows, width)) for name, width in widths.items()}


def carried_loss(network: keras.Model, tokens: np.ndarray, targets: np.ndarray) -> float:
    """Mean nats a token of a text with the state carried through it, in up to `STREAMS` parallel parts.

    Args:
        tokens: int [N].
        targets: the tokens that follow each, int [N].
    """
    streams = min(STREAMS, len(tokens))
    length = len(tokens) // streams

    @tf.function(reduce_retracing=True)
    def step(tokens: tf.Tensor, targets: tf.Tensor, states: dict) -> tuple:
        outputs = network({"tokens": tokens, **states}, training=False)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, tf.cast(outputs["logits"], tf.float32))
        return tf.reduce_sum(nats), {name: outputs[name] for name in states}

    rows, expected = (array[: streams * length].reshape(streams, length) for array in (tokens, targets))
    total, states = 0.0, zero_states(state_widths(network), streams)
    for start in range(0, length, STEP):
        part = slice(start, start + STEP)
        nats, states = step(tf.constant(rows[:, part]), tf.constant(expected[:, part]), states)
        total += float(nats)
    return total / (streams * length)
