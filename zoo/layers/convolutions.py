"""Convolutions and subsampling whose weights Keras does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

register = keras.saving.register_keras_serializable(package="zoo")


@register
class Subsampling2D(keras.layers.Layer):
    """The sum over each `size` x `size` window, times a coefficient, plus a bias: [B, H, W, C] to
    [B, H // size, W // size, C]. Each channel has one trained coefficient and one trained bias (LeCun et al. 1998,
    section II.B, layer S2). The squashing function that follows in the paper is a separate layer here."""

    def __init__(
        self,
        size: int = 2,
        coefficient_initializer: Any = "ones",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.coefficient_initializer = keras.initializers.get(coefficient_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: tuple) -> None:
        shape = (input_shape[-1],)
        self.coefficient = self.add_weight(shape=shape, initializer=self.coefficient_initializer, name="coefficient")
        self.bias = self.add_weight(shape=shape, initializer=self.bias_initializer, name="bias")

    def call(self, inputs: Any) -> Any:
        mean = ops.average_pool(inputs, self.size, self.size, padding="valid", data_format="channels_last")
        return mean * (self.size**2 * self.coefficient) + self.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, height, width, channels = input_shape
        return batch, height and height // self.size, width and width // self.size, channels

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "coefficient_initializer": keras.initializers.serialize(self.coefficient_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@register
class ConnectionTableConv2D(keras.layers.Layer):
    """Convolution without padding that connects an output map only to the input maps that a table lists for it:
    [B, H, W, C] to [B, H - k + 1, W - k + 1, outputs] (LeCun et al. 1998, section II.B, table I).

    Only the connected kernels are weights, [k, k, connections]. They are placed in a dense kernel with zeros elsewhere,
    so that one plain convolution runs (and exports) where groups or slices would need many.

    Args:
        table: for each output map the input maps that it is connected to.
        kernel_size: k, in pixels.
        bound: initial weights and biases are uniform within +-`bound` / fan-in of their output map (appendix A: 2.4).

    Raises:
        ValueError: when it is built, for a table that lists more input maps than there are.
    """

    def __init__(self, table: Sequence[Sequence[int]], kernel_size: int, bound: float = 2.4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = [list(maps) for maps in table]
        self.kernel_size, self.bound = kernel_size, bound

    def build(self, input_shape: tuple) -> None:
        channels, fans = input_shape[-1], np.array([len(maps) for maps in self.table])
        highest = max(max(maps) for maps in self.table)
        if highest >= channels:
            raise ValueError(f"the table lists input map {highest}, the input has {channels}")
        # which connection each entry of the dense kernel is taken from; the last index stands for the zero
        self.source = np.full((channels, len(self.table)), fans.sum(), "int32")
        pairs = [(source, output) for output, maps in enumerate(self.table) for source in maps]
        for connection, pair in enumerate(pairs):
            self.source[pair] = connection
        limits = (self.bound / (self.kernel_size**2 * fans)).astype("float32")
        self.kernel = self.add_weight(
            shape=(self.kernel_size, self.kernel_size, len(pairs)),
            initializer=_uniform_within(np.repeat(limits, fans)),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(len(self.table),), initializer=_uniform_within(limits), name="bias")

    def call(self, inputs: Any) -> Any:
        padded = ops.pad(self.kernel, ((0, 0), (0, 0), (0, 1)))
        kernel = ops.take(padded, self.source, axis=-1)
        return ops.conv(inputs, kernel, padding="valid", data_format="channels_last") + self.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, height, width, _ = input_shape
        margin = self.kernel_size - 1
        return batch, height and height - margin, width and width - margin, len(self.table)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "table": self.table,
            "kernel_size": self.kernel_size,
            "bound": self.bound,
        }


def _uniform_within(limits: np.ndarray) -> Any:
    """An initializer, uniform within +-limits, which are broadcast over the weight's last axis."""
    unit = keras.initializers.RandomUniform(-1.0, 1.0)
    return lambda shape, dtype=None: unit(shape, dtype) * ops.cast(limits, dtype)


@register
class FixedKernelConv2D(keras.layers.Layer):
    """Convolution without padding, whose kernel is stored but not trained, plus a trained bias:
    [B, H, W, C] to [B, H - k + 1, W - k + 1, filters]."""

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size = filters, kernel_size

    def build(self, input_shape: tuple) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", trainable=False, name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        return ops.conv(inputs, self.kernel, padding="valid", data_format="channels_last") + self.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, height, width, _ = input_shape
        margin = self.kernel_size - 1
        return batch, height and height - margin, width and width - margin, self.filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "kernel_size": self.kernel_size}


@register
class LocallyConnected2D(keras.layers.Layer):
    """Convolution with zero padding whose kernel and bias differ from place to place: [B, H, W, C] to
    [B, H, W, filters] (the "local" layers of cuda-convnet).

    Args:
        filters: number of output channels.
        kernel_size: k, odd, in pixels.
    """

    def __init__(
        self, filters: int, kernel_size: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size = filters, kernel_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple) -> None:
        _, height, width, channels = input_shape
        shape = (height * width, self.kernel_size**2 * channels, self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=(height, width, self.filters), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = inputs.shape
        margin = self.kernel_size // 2
        padded = ops.pad(inputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        shifts = range(self.kernel_size)
        windows = ops.concatenate(
            [padded[:, down : down + height, right : right + width] for down in shifts for right in shifts], axis=-1
        )
        windows = ops.reshape(windows, (-1, height * width, self.kernel_size**2 * channels))
        places = ops.matmul(ops.transpose(windows, (1, 0, 2)), self.kernel)  # a matrix product for each place
        return ops.reshape(ops.transpose(places, (1, 0, 2)), (-1, height, width, self.filters)) + self.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return *input_shape[:3], self.filters

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        own = {"filters": self.filters, "kernel_size": self.kernel_size, "kernel_initializer": initializer}
        return {**super().get_config(), **own}


@register
class Dirac(keras.initializers.Initializer):
    """Kernels [k, k, C, F] whose first C filters pass a channel each on unchanged; the others are uniform within
    +- 1 / sqrt(fan-in) (Jordan 2024, section 3.1, and PyTorch's initialization of convolutions)."""

    def __init__(self, seed: int | None = None) -> None:
        self.uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed)

    def __call__(self, shape: tuple, dtype: Any = None) -> Any:
        size, _, channels, filters = shape
        passing = np.zeros(shape, "float32")
        for channel in range(min(channels, filters)):
            passing[size // 2, size // 2, channel, channel] = 1
        first = np.arange(filters) < channels
        return ops.where(first, ops.cast(passing, dtype), self.uniform(shape, dtype))
