"""The receptive field that is computed from a network's layers is that of its outputs."""

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from zoo import layers as zoo_layers
from zoo.tiling.receptive_field import receptive_field


def unet(**arguments):
    return zoo.get_spec("unet").build(**{"width": 1, "depth": 2, "dropout": 0.0} | arguments)


def plain(*stack):
    """A network of these layers, one after the other."""
    x = inputs = keras.Input((None, None, 1))
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def two_ways():
    x = inputs = keras.Input((None, None, 1))
    far = layers.Conv2D(1, 3, dilation_rate=4, padding="same")(x)
    low = layers.AveragePooling2D(2, padding="same")(layers.ReLU()(x))
    low = layers.Conv2DTranspose(1, 2, strides=2)(layers.DepthwiseConv2D(3, padding="same")(low))
    return keras.Model(inputs, layers.Maximum()([far, zoo_layers.CropLike()([low, inputs])]))


def uneven():
    """Windows whose position differs for odd sizes, and kernels without a center."""
    x = inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(1, (3, 4), strides=2, padding="same")(x)
    x = layers.Conv2D(1, (1, 2), padding="same")(x)
    x = layers.Conv2DTranspose(1, 3, strides=2, padding="same")(x)
    return keras.Model(inputs, zoo_layers.CropLike()([x, inputs]))


def further_in_odd_sizes():
    x = inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(1, 3, strides=2, padding="same")(x)
    x = layers.Conv2D(1, 2)(layers.ZeroPadding2D(((1, 0), (1, 0)))(x))
    return keras.Model(inputs, zoo_layers.CropLike()([layers.Conv2DTranspose(1, 2, strides=2)(x), inputs]))


def shared():
    layer = layers.Conv2D(1, 3, padding="same")
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, layer(layer(inputs)))


def of_members():
    """Sub-models with equal receptive fields of different layers, and one of them called twice."""
    inputs = keras.Input((None, None, 1))
    members = [plain(layers.Conv2D(1, 5, padding="same")), unet(depth=1)]
    return keras.Model(inputs, layers.Concatenate()([member(inputs) for member in (*members, members[0])]))


NETWORKS = {
    "a layer twice": shared,
    "members": of_members,
    "unet_tiny": lambda: zoo.create_model("unet_tiny"),
    "unet, one level": lambda: unet(depth=1),
    "unet, unpadded": lambda: unet(padded=False),
    "unet, four levels": lambda: unet(depth=4, padded=False),
    "unet, normalized": lambda: unet(padded=True, normalization=True, skip="add"),
    "one pixel": lambda: plain(layers.Conv2D(1, 1)),
    "two ways": two_ways,
    "uneven": uneven,
    "further in odd sizes": further_in_odd_sizes,
    "far apart": lambda: plain(layers.Conv2D(1, 3, dilation_rate=3), layers.ZeroPadding2D(((0, 6), (0, 6)))),
    "shifted": lambda: plain(layers.ZeroPadding2D(((3, 0), (0, 1))), layers.Cropping2D(((0, 3), (1, 0)))),
    "higher than wide": lambda: plain(layers.Conv2D(1, (9, 3), padding="same")),
}


def measured_radius(model, stride):
    """The largest distance at which a pixel changes an output, for all positions relative to the stride, in a network
    whose weights are all positive."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        is_offset = variable.path.endswith(("bias", "beta", "moving_mean"))
        variable.assign(np.zeros(variable.shape) if is_offset else random.uniform(0.5, 1, variable.shape))
    radius = 0
    for size in (256, 255):
        for place in range(128, 128 + stride):
            for row, column in ((place, 128), (128, place)):
                image = np.zeros((1, size, size, 1), np.float32)
                image[0, row, column] = 1
                reached = np.argwhere(np.array(model(image)).sum((0, -1)) > 0)
                radius = max(radius, np.abs(reached - (row, column)).max())
    return radius


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_radius_is_that_of_the_outputs(name):
    model = NETWORKS[name]()
    radius, stride = receptive_field(model)
    assert radius == measured_radius(model, stride)


@pytest.mark.parametrize(("name", "expected"), [("unet", 16), ("unet_small", 16), ("unet_tiny", 4)])
def test_networks_of_the_zoo(name, expected):
    """The reach of the convolutions plus the width of one pixel of the lowest level."""
    from zoo.models.unet import lost_by_convolutions

    depth = zoo.get_spec(name).arguments["depth"]
    assert receptive_field(zoo.create_model(name)) == (lost_by_convolutions(depth) + 2**depth - 1, expected)


def sequential():
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, keras.Sequential([layers.Conv2D(1, 3)], name="inner")(inputs))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: plain(layers.UpSampling2D(2, name="larger")), "larger (UpSampling2D)"),
        (lambda: plain(layers.GlobalAveragePooling2D(keepdims=True, name="whole")), "whole (GlobalAveragePooling2D)"),
        (lambda: plain(lambda x: layers.Concatenate(1, name="below")([x, x])), "below (Concatenate)"),
        (lambda: plain(lambda x: x + 1), "(Add)"),
        (sequential, "inner is unknown: it is not Functional"),
        (lambda: plain(layers.Conv2D(1, 3, strides=2)), "has 63 pixels for 128"),
    ],
)
def test_unsupported_networks(build, message):
    with pytest.raises(zoo.ZooError) as error:
        receptive_field(build())
    assert message in str(error.value)
