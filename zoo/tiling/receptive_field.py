"""The receptive field and the stride of a network, which determine how its input may be cut into tiles.

The network is followed along one axis at a time. The receptive field of an element of a feature map is an interval of
the image's pixels, and each kind of layer is a table of the input elements from which each output element is computed.
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

EMPTY = np.array([[2**40], [-(2**40)]])  # the empty interval, neutral for minimum and maximum

Field = tuple[np.ndarray, Fraction]  # intervals [2, N] of the elements of a feature map, and their distance in pixels


def receptive_field(model: keras.Model) -> tuple[int, int]:
    """The radius of the receptive field and the stride of a Functional network from [B, H, W, C] to [B, H, W, K].

    Returns:
        The radius in pixels: an output depends on no input that is further away along either axis. And the stride in
        pixels: where the input is shifted by a multiple of it, the output is the same, shifted as far.

    Raises:
        ZooError: for an unknown kind of layer, or an output whose size is not the input's.
    """
    radius, stride = 0, 1
    for axis in (1, 2):
        size, reach, step = 64, 64, 1
        while size < 2 * reach + step:  # until the field of the middle pixel ends within the image
            size *= 2
            step = _follow(model, axis, size)[1]
            # the position of the windows of strided layers may depend on the remainder of the size by the stride
            reach = max(_reach(_follow(model, axis, size + more)[0]) for more in range(step))
        radius, stride = max(radius, reach), math.lcm(stride, step)
    return radius, stride


def _reach(intervals: np.ndarray) -> int:
    """The largest distance between an output and a pixel of its receptive field, for intervals [2, size]."""
    pixels = np.arange(intervals.shape[1])
    return int(max((pixels - intervals[0]).max(), (intervals[1] - pixels).max()))


def _follow(model: keras.Model, axis: int, size: int) -> tuple[np.ndarray, int]:
    """The first and last pixel, [2, size], of the field of each output along an axis of an image of that size; and the
    stride."""
    pixels = np.arange(size)
    found = _through_model(model, axis, (np.stack([pixels, pixels]), Fraction(1)))
    intervals, _ = found[-1]
    if intervals.shape[1] != size:
        raise ZooError(
            f"the output of {model.name} has {intervals.shape[1]} pixels for {size}: tiles need an output of the "
            "input's size"
        )
    return intervals, math.lcm(*(distance.numerator for _, distance in found))


def _through_model(model: keras.Model, axis: int, image: Field) -> list[Field]:
    """The fields of all feature maps, those of sub-models included, the output's last; given the input's."""
    if not hasattr(model, "_nodes_by_depth") or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ZooError(
            f"the receptive field of {model.name} is unknown: it is not Functional with one input and output"
        )
    found: dict[int, Field] = {id(model.inputs[0]): image}
    inner: list[Field] = []
    for depth in sorted(model._nodes_by_depth, reverse=True):  # Keras' graph, from input to output
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            fields = [found[id(tensor)] for tensor in node.input_tensors]
            if isinstance(node.operation, keras.Model):
                inner += _through_model(node.operation, axis, fields[0])
                result = inner[-1]
            else:
                result = _through_layer(node.operation, axis, node.input_tensors, fields)
            found[id(node.output_tensors[0])] = result
    output = found.pop(id(model.outputs[0]))
    return [*inner, *found.values(), output]


def _through_layer(layer: Any, axis: int, inputs: list[Any], fields: list[Field]) -> Field:
    """The field of a layer's output."""
    kind, (intervals, distance) = type(layer), fields[0]
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _unknown(layer, "has data_format channels_first")
    if kind in POINTWISE:
        return fields[0]
    if kind in MERGES and getattr(layer, "axis", -1) in (-1, 3):
        first, last = zip(*(each for each, _ in fields), strict=True)
        return np.stack([np.min(first, axis=0), np.max(last, axis=0)]), distance
    shapes = [(1, *[each.shape[1]] * 2, tensor.shape[-1]) for tensor, (each, _) in zip(inputs, fields, strict=True)]
    side, entries = axis - 1, intervals.shape[1]
    if kind in WINDOWS:
        count = layer.compute_output_shape(shapes[0])[axis]
        kernel = (layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size)[side]
        stride, dilation = layer.strides[side], getattr(layer, "dilation_rate", (1, 1))[side]
        padding = (count - 1) * stride + (kernel - 1) * dilation + 1 - entries if layer.padding == "same" else 0
        sources = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - max(padding, 0) // 2
        return _gather(intervals, sources), distance * stride
    if kind is layers.Conv2DTranspose and layer.output_padding is None and layer.dilation_rate[side] == 1:
        count = layer.compute_output_shape(shapes[0])[axis]
        kernel, stride = layer.kernel_size[side], layer.strides[side]
        cut = max(kernel - stride, 0) // 2 if layer.padding == "same" else 0
        places = np.arange(count)[:, None] + cut - np.arange(kernel)
        return _gather(intervals, np.where(places % stride == 0, places // stride, -1)), distance / stride
    if kind is zoo_layers.CropLike:
        count = fields[1][0].shape[1]
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
        return _gather(intervals, np.minimum(places, period - places)[:, None]), distance
    else:
        raise _unknown(layer, "is of an unsupported kind")
    return _gather(intervals, np.arange(start, start + count)[:, None]), distance


def _gather(intervals: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The intervals [2, N] of elements computed from those at `sources` [N, taps]; sources outside are padding."""
    inside = (sources >= 0) & (sources < intervals.shape[1])
    first, last = np.where(inside, intervals[:, sources.clip(0, intervals.shape[1] - 1)], EMPTY[..., None])
    return np.stack([first.min(axis=1), last.max(axis=1)])


def _unknown(layer: Any, why: str) -> ZooError:
    return ZooError(f"the receptive field of {layer.name} ({type(layer).__name__}) is unknown: the layer {why}")
