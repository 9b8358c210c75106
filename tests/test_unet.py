"""U-Net is the network of its paper and takes images of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.models import unet

RNG = np.random.default_rng(0)


def small(**arguments):
    return zoo.get_spec("unet").build(**{"width": 2, "depth": 2, "dropout": 0.0} | arguments)


def test_the_papers_network():
    """Figure 1: 23 convolutional layers, 64 to 1,024 channels; 572 pixels in, 388 out."""
    model = zoo.get_spec("unet").build()
    convolutions = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
    ]
    assert len(convolutions) == 23
    assert {layer.filters for layer in convolutions} == {64, 128, 256, 512, 1024, 2}
    assert unet.lost_by_convolutions(4) == (572 - 388) / 2


@pytest.mark.slow_but_one
@pytest.mark.parametrize("arguments", [{}, {"padded": True}, {"normalization": True}, {"skip": "add"}, {"depth": 1}])
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 18), (64, 64)])
def test_any_height_and_width(arguments, size):
    assert small(**arguments)(np.zeros((2, *size, 1), "float32")).shape == (2, *size, 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_unpadded_convolutions_depend_on_the_image_and_its_mirror_alone(depth):
    """The output of a part of an image, surrounded by the image and not by its mirror, is that part of the output."""
    model, lost = small(depth=depth), unet.lost_by_convolutions(depth)
    inner = keras.Model(model.get_layer("level1_conv1").input, model.get_layer("up1_relu2").output)
    whole = RNG.normal(size=(1, 2 * lost + 4 + 2**depth * 2, 2 * lost + 4 + 2**depth * 3, 1)).astype("float32")
    mirrored = np.array(model.get_layer("mirror")(whole))
    output = np.array(inner(mirrored))
    assert output.shape[1] == mirrored.shape[1] - 2 * lost
    rows = slice(2**depth, None)  # a shift by whole pixels of the bottom keeps the grid of the poolings
    np.testing.assert_allclose(inner(mirrored[:, rows, rows]), output[:, rows, rows], atol=1e-5)


def test_an_unknown_skip_is_refused():
    with pytest.raises(zoo.ZooError, match="concatenat"):
        small(skip="concatenat")


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["unet", "unet_small"])
def test_an_export_serves_any_size(name, tmp_path, unverified):
    spec = zoo.get_spec(name)
    arguments = {"width": 2, "depth": 2}
    model = spec.build(**arguments)
    path = zoo.export(model, tmp_path / f"{name}.any", spec=spec, classes=("no", "yes"), arguments=arguments)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    for size in ((3, 70), (41, 22)):
        images = RNG.integers(0, 256, (1, *size, 1), dtype=np.uint8)
        served = serve(images=tf.constant(images))
        assert served["class_ids"].shape == (1, *size)
        np.testing.assert_allclose(served["probabilities"], zoo.load(path)(images)["probabilities"], atol=1e-5)
