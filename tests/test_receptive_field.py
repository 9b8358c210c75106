"""The receptive field that is told of a network is what its outputs show."""

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from zoo import layers as zoo_layers
from zoo import registry
from zoo.receptive_field import receptive_field


def unet(**arguments):
    return registry.build(zoo.get_spec("unet"), **{"width": 1, "depth": 2, "dropout": 0.0} | arguments)


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
    """Windows that lie elsewhere for odd sizes, and kernels with no middle."""
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
    """Sub-models that see as far as each other, by other ways, and one of them called twice."""
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
    "unet, normalised": lambda: unet(padded=True, normalisation=True, skip="add"),
    "a pixel alone": lambda: plain(layers.Conv2D(1, 1)),
    "two ways": two_ways,
    "uneven": uneven,
    "further in odd sizes": further_in_odd_sizes,
    "far apart": lambda: plain(layers.Conv2D(1, 3, dilation_rate=3), layers.ZeroPadding2D(((0, 6), (0, 6)))),
    "moved": lambda: plain(layers.ZeroPadding2D(((3, 0), (0, 1))), layers.Cropping2D(((0, 3), (1, 0)))),
    "higher than wide": lambda: plain(layers.Conv2D(1, (9, 3), padding="same")),
}


def seen_in_truth(model, stride):
    """How far a pixel reaches, both ways and from everywhere on the grid, in a network of positive weights only."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        is_offset = variable.path.endswith(("bias", "beta", "moving_mean"))
        variable.assign(np.zeros(variable.shape) if is_offset else random.uniform(0.5, 1, variable.shape))
    furthest = 0
    for size in (256, 255):
        for place in range(128, 128 + stride):
            for row, column in ((place, 128), (128, place)):
                image = np.zeros((1, size, size, 1), np.float32)
                image[0, row, column] = 1
                reached = np.argwhere(np.array(model(image)).sum((0, -1)) > 0)
                furthest = max(furthest, np.abs(reached - (row, column)).max())
    return furthest


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_that_of_the_outputs(name):
    model = NETWORKS[name]()
    radius, stride = receptive_field(model)
    assert radius == seen_in_truth(model, stride)


@pytest.mark.parametrize(("name", "expected"), [("unet", 16), ("unet_small", 16), ("unet_tiny", 4)])
def test_of_the_zoo(name, expected):
    """The convolutions' reach, and from the one end of a pixel of the lowest level to its other."""
    from zoo.models.unet import lost_by_convolutions

    depth = zoo.get_spec(name).arguments["depth"]
    assert receptive_field(zoo.create_model(name)) == (lost_by_convolutions(depth) + 2**depth - 1, expected)


def sequential():
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, keras.Sequential([layers.Conv2D(1, 3)], name="inner")(inputs))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: plain(layers.UpSampling2D(2, name="larger")), "larger (UpSampling2D)"),
        (lambda: plain(layers.GlobalAveragePooling2D(keepdims=True, name="whole")), "whole (GlobalAveragePooling2D)"),
        (lambda: plain(lambda x: layers.Concatenate(1, name="below")([x, x])), "below (Concatenate)"),
        (lambda: plain(lambda x: x + 1), "(Add)"),
        (sequential, "inner sees cannot be told: it is no Functional model"),
        (lambda: plain(layers.Conv2D(1, 3, strides=2)), "makes 63 pixels of 128"),
    ],
)
def test_what_cannot_be_told(build, word):
    with pytest.raises(zoo.ZooError) as error:
        receptive_field(build())
    assert word in str(error.value)
