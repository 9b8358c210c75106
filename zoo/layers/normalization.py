"""Normalization of feature maps and of weights."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="zoo")


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
        stddev = ops.std(outputs, axis=0) + 1e-8
        self.scale.assign(1 / stddev)
        self.bias.assign(-ops.mean(outputs, axis=0) / stddev)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return *input_shape[:-1], self.units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "train_scale": self.train_scale}
