"""What U-Net's source says of it, and that it takes images of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import registry
from zoo.models import unet

RNG = np.random.default_rng(0)


def small(**arguments):
    return registry.build(zoo.get_spec("unet"), **{"width": 2, "depth": 2, "dropout": 0.0} | arguments)


def test_the_papers_network():
    """Figure 1: 23 convolutional layers, 64 to 1,024 channels; 572 pixels for 388."""
    model = registry.build(zoo.get_spec("unet"))
    convolutions = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
    ]
    assert len(convolutions) == 23
    assert {layer.filters for layer in convolutions} == {64, 128, 256, 512, 1024, 2}
    assert unet.lost_by_convolutions(4) == (572 - 388) / 2


@pytest.mark.parametrize("arguments", [{}, {"padded": True}, {"normalisation": True}, {"skip": "add"}, {"depth": 1}])
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 18), (64, 64)])
def test_any_height_and_width(arguments, size):
    assert small(**arguments)(np.zeros((2, *size, 1), "float32")).shape == (2, *size, 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_unpadded_convolutions_see_nothing_but_the_image_and_its_mirror(depth):
    """A part of an image, with what lies around it in place of its mirror, gives that part of the result."""
    model, lost = small(depth=depth), unet.lost_by_convolutions(depth)
    inner = keras.Model(model.get_layer("level1_conv1").input, model.get_layer("up1_relu2").output)
    whole = RNG.normal(size=(1, 2 * lost + 4 + 2**depth * 2, 2 * lost + 4 + 2**depth * 3, 1)).astype("float32")
    mirrored = np.array(model.get_layer("mirror")(whole))
    result = np.array(inner(mirrored))
    assert result.shape[1] == mirrored.shape[1] - 2 * lost
    rows = slice(2**depth, None)  # a step of whole pixels of the bottom leaves the grid where it was
    np.testing.assert_allclose(inner(mirrored[:, rows, rows]), result[:, rows, rows], atol=1e-5)


def test_an_unknown_skip_is_refused():
    with pytest.raises(zoo.ZooError, match="concatenat"):
        small(skip="concatenat")


@pytest.mark.parametrize("name", ["unet", "unet_small"])
def test_exported_it_serves_any_size(name, tmp_path, unproven):
    spec = zoo.get_spec(name)
    arguments = {"width": 2, "depth": 2}
    model = registry.build(spec, **arguments)
    path = zoo.export(model, tmp_path / f"{name}.any", spec=spec, classes=("no", "yes"), arguments=arguments)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    for size in ((3, 70), (41, 22)):
        images = RNG.integers(0, 256, (1, *size, 1), dtype=np.uint8)
        served = serve(images=tf.constant(images))
        assert served["class_ids"].shape == (1, *size)
        np.testing.assert_allclose(served["probabilities"], zoo.load(path)(images)["probabilities"], atol=1e-5)
