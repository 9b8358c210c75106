"""The few layers that Keras lacks, written with `keras.ops`, channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
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
class Gelu(keras.layers.Layer):
    """x times the standard normal distribution function at x, written with `erf`: Keras' own form needs `erfc`, which
    few of the formats have that networks are exported to."""

    def call(self, inputs: Any) -> Any:
        return inputs * (0.5 * (1.0 + ops.erf(inputs * 0.5**0.5)))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


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


@register
class LocalResponseNormalization(keras.layers.Layer):
    """a / (`k` + `alpha` * S) ** `beta`, where S is the sum of squares over the `n` neighboring channels, fewer at the
    ends (Krizhevsky, Sutskever and Hinton 2012, section 3.3, whose constants are the default). Some libraries divide
    `alpha` by `n`; this layer does not."""

    def __init__(self, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def call(self, inputs: Any) -> Any:
        channels, side = inputs.shape[-1], self.n // 2
        squares = ops.pad(ops.square(inputs), ((0, 0), (0, 0), (0, 0), (side, side)))
        total = sum(squares[..., shift : shift + channels] for shift in range(2 * side + 1))
        return inputs / (self.k + self.alpha * total) ** self.beta

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "n": self.n, "alpha": self.alpha, "beta": self.beta}


@register
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalization; in training on the TensorFlow backend it runs TensorFlow's fused kernel, which reads
    the features fewer times. Keras' own passes take much of a training step of U-Net on a CPU. The kernel keeps the
    sample's variance: n / (n - 1) times that of Keras, for n pixels."""

    def call(self, inputs: Any, training: bool | None = None, mask: None = None) -> Any:
        if not (training and self.trainable and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        offset = ops.cast(self.beta, "float32")
        scale = ops.cast(self.gamma, "float32") if self.scale else ops.ones_like(offset)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return outputs


@register
class CropLike(keras.layers.Layer):
    """Images [B, H, W, C] cropped to the height and width of second ones.

    Args:
        keep: `start` crops at the bottom and the right, `middle` crops all sides equally.
    """

    def __init__(self, keep: str = "start", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep = keep

    def call(self, inputs: Sequence[Any]) -> Any:
        image, like = inputs
        (height, width), (inner_height, inner_width) = ops.shape(image)[1:3], ops.shape(like)[1:3]
        top, left = (0, 0) if self.keep == "start" else ((height - inner_height) // 2, (width - inner_width) // 2)
        return image[:, top : top + inner_height, left : left + inner_width]

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> tuple:
        (batch, _, _, channels), (_, height, width, _) = input_shape
        return batch, height, width, channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keep": self.keep}


@register
class MirrorPadding2D(keras.layers.Layer):
    """Images [B, H, W, C] of any size, padded by their mirror image.

    Args:
        margin: pixels added on each side.
        divisor, remainder: the fewest further pixels are added at the bottom and the right, so that the height and the
            width leave `remainder` when divided by `divisor`.
    """

    def __init__(self, margin: int, divisor: int = 1, remainder: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.margin, self.divisor, self.remainder = margin, divisor, remainder

    def call(self, inputs: Any) -> Any:
        for axis in (1, 2):
            size = ops.shape(inputs)[axis]
            whole = size + 2 * self.margin
            whole = whole + (self.remainder - whole) % self.divisor
            period = ops.maximum(2 * (size - 1), 1)  # there and back, without the edge twice
            place = (ops.arange(whole) - self.margin) % period
            inputs = ops.take(inputs, ops.minimum(place, period - place), axis=axis)
        return inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, *sides, channels = input_shape
        whole = [None if side is None else side + 2 * self.margin for side in sides]
        return batch, *(w and w + (self.remainder - w) % self.divisor for w in whole), channels

    def get_config(self) -> dict[str, Any]:
        own = {"margin": self.margin, "divisor": self.divisor, "remainder": self.remainder}
        return {**super().get_config(), **own}


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
        self.weight_drop = weight_drop
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
        self.vocabulary_size, self.rate = vocabulary_size, rate
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
        self.rate, self.unknown = rate, unknown
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


@register
class WeightNormalizedDense(keras.layers.Layer):
    """x @ (g * v / |v|) + b, where |v| is the length of each column (Salimans and Kingma 2016, equation (2)).

    `initialize` sets g and b so that the outputs of a batch have mean 0 and variance 1 (equation (6)).

    Args:
        units: outputs.
        train_scale: whether g is trained, or keeps its initial value.
    """

    def __init__(self, units: int, train_scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.train_scale = units, train_scale

    def build(self, input_shape: tuple) -> None:
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(0.0, 0.1), name="kernel")
        self.scale = self.add_weight(
            shape=(self.units,),
            initializer=keras.initializers.Constant(math.sqrt(2)),  # keeps the variance through a layer of ReLU
            trainable=self.train_scale,
            name="scale",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        lengths = ops.sqrt(ops.sum(ops.square(self.kernel), axis=0) + 1e-12)
        return ops.matmul(inputs, self.kernel * (self.scale / lengths)) + self.bias

    def initialize(self, inputs: Any) -> None:
        """Set scale and bias by a batch of the layer's inputs [B, D]."""
        self.scale.assign(ops.ones_like(self.scale))
        self.bias.assign(ops.zeros_like(self.bias))
        outputs = self(inputs)
        deviation = ops.std(outputs, axis=0) + 1e-8
        self.scale.assign(1 / deviation)
        self.bias.assign(-ops.mean(outputs, axis=0) / deviation)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return *input_shape[:-1], self.units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "train_scale": self.train_scale}


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
