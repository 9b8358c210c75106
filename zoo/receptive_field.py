"""How far around a pixel a network sees, and on what grid: what decides how its input may be cut into tiles.

A network of images is followed along one axis at a time. What an element of a feature map sees is an interval of the
image's pixels, and each kind of layer is a table of which elements of its input make an element of its output.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import keras
import numpy as np
from keras import layers

from zoo import layers as zoo_layers
from zoo.errors import ZooError

WINDOWS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
)
POINTWISE = (
    layers.Activation,
    layers.BatchNormalization,
    zoo_layers.BatchNormalization,
    layers.Dropout,
    layers.ELU,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.SpatialDropout2D,
)
MERGES = (
    layers.Add,
    layers.Average,
    layers.Concatenate,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)

NOTHING = np.array([[2**40], [-(2**40)]])  # the interval of what sees no pixel: neutral for least and greatest


def receptive_field(model: keras.Model) -> tuple[int, int]:
    """The radius and the stride of a Functional network from images [B, H, W, C] to [B, H, W, K].

    Returns:
        The radius in pixels: an output depends on no input that is further away along either axis. And the stride in
        pixels: moved by a multiple of it, the input gives the same output, moved as far.

    Raises:
        ZooError: for a layer of a kind that is not known here, or an output that is not of the input's size.
    """
    radius, stride = 0, 1
    for axis in (1, 2):
        size, reach, step = 64, 64, 1
        while size < 2 * reach + step:  # until what the middle sees no longer ends at the edges
            size *= 2
            step = _follow(model, axis, size)[1]
            # where the windows of strided layers lie may depend on what the size leaves when divided by the stride
            reach = max(_reach(_follow(model, axis, size + more)[0]) for more in range(step))
        radius, stride = max(radius, reach), math.lcm(stride, step)
    return radius, stride


def _reach(seen: np.ndarray) -> int:
    """The greatest distance between an output [2, size] and what it sees."""
    pixels = np.arange(seen.shape[1])
    return int(max((pixels - seen[0]).max(), (seen[1] - pixels).max()))


def _follow(model: keras.Model, axis: int, size: int) -> tuple[np.ndarray, int]:
    """First and last pixel, [2, size], that each output sees along an axis of an image of that size; and the stride."""
    pixels = np.arange(size)
    found = _through_model(model, axis, (np.stack([pixels, pixels]), Fraction(1)))
    seen, _ = found[-1]
    if seen.shape[1] != size:
        raise ZooError(f"{model.name} makes {seen.shape[1]} pixels of {size}: only an output of the input's size tiles")
    return seen, math.lcm(*(apart.numerator for _, apart in found))


def _through_model(model: keras.Model, axis: int, image: tuple) -> list[tuple[np.ndarray, Fraction]]:
    """What the elements of all feature maps see, those of sub-models too, and the output's last: intervals, and how
    many pixels apart they are; given the same of the input."""
    if not hasattr(model, "_nodes_by_depth") or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ZooError(f"how far {model.name} sees cannot be told: it is no Functional model of one input and output")
    found, inner = {id(model.inputs[0]): image}, []
    for depth in sorted(model._nodes_by_depth, reverse=True):  # Keras' graph, from input to output
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            seen = [found[id(tensor)] for tensor in node.input_tensors]
            if isinstance(node.operation, keras.Model):
                inner += _through_model(node.operation, axis, seen[0])
                result = inner[-1]
            else:
                result = _through(node.operation, axis, node.input_tensors, seen)
            found[id(node.output_tensors[0])] = result
    output = found.pop(id(model.outputs[0]))
    return [*inner, *found.values(), output]


def _through(layer: Any, axis: int, inputs: list[Any], seen: list[tuple]) -> tuple[np.ndarray, Fraction]:
    """The intervals [2, N] of a layer's output, and how many pixels its elements are apart."""
    kind, (intervals, apart) = type(layer), seen[0]
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _unknown(layer, "has its channels first")
    if kind in POINTWISE:
        return seen[0]
    if kind in MERGES and getattr(layer, "axis", -1) in (-1, 3):
        first, last = zip(*(each for each, _ in seen), strict=True)
        return np.stack([np.min(first, axis=0), np.max(last, axis=0)]), apart
    shapes = [(1, *[each.shape[1]] * 2, tensor.shape[-1]) for tensor, (each, _) in zip(inputs, seen, strict=True)]
    side, entries = axis - 1, intervals.shape[1]
    if kind in WINDOWS:
        count = layer.compute_output_shape(shapes[0])[axis]
        kernel = (layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size)[side]
        stride, dilation = layer.strides[side], getattr(layer, "dilation_rate", (1, 1))[side]
        padding = (count - 1) * stride + (kernel - 1) * dilation + 1 - entries if layer.padding == "same" else 0
        sources = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - max(padding, 0) // 2
        return _gather(intervals, sources), apart * stride
    if kind is layers.Conv2DTranspose and layer.output_padding is None and layer.dilation_rate[side] == 1:
        count = layer.compute_output_shape(shapes[0])[axis]
        kernel, stride = layer.kernel_size[side], layer.strides[side]
        cut = max(kernel - stride, 0) // 2 if layer.padding == "same" else 0
        places = np.arange(count)[:, None] + cut - np.arange(kernel)
        return _gather(intervals, np.where(places % stride == 0, places // stride, -1)), apart / stride
    if kind is zoo_layers.CropLike:
        count = seen[1][0].shape[1]
        start = 0 if layer.keep == "start" else (entries - count) // 2
    elif kind is layers.Cropping2D:
        start, end = layer.cropping[side]
        count = entries - start - end
    elif kind is layers.ZeroPadding2D:
        before, after = layer.padding[side]
        start, count = -before, entries + before + after
    elif kind is zoo_layers.MirrorPadding2D:
        start, count = -layer.margin, layer.compute_output_shape(shapes[0])[axis]
        period = max(2 * (entries - 1), 1)
        places = (np.arange(count) + start) % period
        return _gather(intervals, np.minimum(places, period - places)[:, None]), apart
    else:
        raise _unknown(layer, "is of a kind that it does not know")
    return _gather(intervals, np.arange(start, start + count)[:, None]), apart


def _gather(intervals: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """What elements see that are made of those elements, [N, taps]; those outside are padding."""
    inside = (sources >= 0) & (sources < intervals.shape[1])
    first, last = np.where(inside, intervals[:, sources.clip(0, intervals.shape[1] - 1)], NOTHING[..., None])
    return np.stack([first.min(axis=1), last.max(axis=1)])


def _unknown(layer: Any, why: str) -> ZooError:
    return ZooError(f"how far {layer.name} ({type(layer).__name__}) sees cannot be told: the layer {why}")
