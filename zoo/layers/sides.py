"""Images of any height and width: cropped and padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="zoo")


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
