"""From images to a network's input: resizing by its definition, padding, ranges, channels, encoded images."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from zoo import Preprocessing, ZooError
from zoo import preprocessing as pre
from zoo.data import decoding


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def resized_in_float64(images, size):
    """Bilinear resizing with antialiasing, written down from its definition: a triangle around each output pixel."""
    images = images.astype(np.float64)
    for axis, outputs in enumerate(size, start=1):
        inputs = images.shape[axis]
        scale = inputs / outputs
        centers = (np.arange(outputs) + 0.5) * scale
        distances = np.abs(np.arange(inputs) + 0.5 - centers[:, None]) / max(scale, 1)
        weights = np.maximum(0, 1 - distances)
        weights /= weights.sum(axis=1, keepdims=True)
        images = np.moveaxis(np.tensordot(weights, images, (1, axis)), 0, axis)
    return images


def in_graph(size, channels, dtype=tf.uint8):
    """`resize` for images of any number, height and width."""
    spec = tf.TensorSpec([None, None, None, channels], dtype)
    return tf.function(lambda images: pre.resize(images, size), input_signature=[spec], autograph=False)


SIZES = [
    ((1, 1, 1, 1), (28, 28)),
    ((3, 1, 1, 3), (1, 1)),
    ((2, 2, 3, 3), (28, 28)),
    ((2, 28, 28, 3), (29, 27)),
    ((2, 28, 28, 1), (17, 40)),
    ((3, 33, 57, 3), (28, 28)),
    ((1, 1, 500, 3), (28, 28)),
    ((1, 500, 1, 1), (28, 28)),
    ((2, 31, 31, 1), (1, 1)),
    ((2, 300, 400, 3), (224, 224)),
    ((1, 257, 255, 10), (256, 256)),
    ((1, 29, 31, 3), (301, 501)),
    ((1, 2000, 3000, 3), (28, 28)),
    ((1, 2000, 3000, 1), (224, 225)),
]


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_resizing_by_its_definition_and_as_tensorflow_does_it(shape, size):
    images = noise(*shape)
    resized = in_graph(size, shape[-1])(images).numpy()
    assert resized.dtype == np.float32
    assert resized.shape == (shape[0], *size, shape[-1])
    np.testing.assert_allclose(resized, resized_in_float64(images, size), rtol=0, atol=2e-4)
    # tf.image.resize computes the centers in float32, and is itself further from the definition
    np.testing.assert_allclose(resized, tf.image.resize(images, size, antialias=True), rtol=0, atol=1e-2)
    np.testing.assert_array_equal(pre.resize(tf.constant(images), size), resized)


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (2, 33, 65, 3), (1, 224, 224, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_the_right_size_keep_their_exact_values(shape, dtype):
    images, size = noise(*shape, dtype=dtype), shape[1:3]
    np.testing.assert_array_equal(in_graph(size, shape[-1], dtype)(images), images.astype(np.float32))
    np.testing.assert_array_equal(pre.resize(images, size), images.astype(np.float32))


def test_an_image_of_one_color_keeps_it():
    images = np.full((1, 37, 91, 3), (10, 200, 255), np.uint8)
    resized = in_graph((50, 28), 3)(images)
    np.testing.assert_allclose(resized, np.broadcast_to(np.float32([10, 200, 255]), (1, 50, 28, 3)), rtol=1e-6)


def test_the_graph_has_no_operation_that_other_runtimes_lack():
    function = tf.function(lambda images: pre.apply(images, Preprocessing(size=(40, 28), pad_to=(42, 32)), 3))
    graph = function.get_concrete_function(tf.TensorSpec([None, None, None, 3], tf.uint8)).graph
    assert {node.op for node in graph.as_graph_def().node} <= set(
        "Placeholder Const Identity Cast Shape StridedSlice Reshape Pack Range AddV2 Sub Mul RealDiv FloorDiv Maximum "
        "Minimum Abs Sum BatchMatMulV2 MatMul ConcatV2 SplitV Unpack Pad".split()
    )


def test_padding_and_range():
    images = np.zeros((1, 2, 3, 1), np.uint8)
    images[0, 0, 0] = 255
    lenet = Preprocessing(size=(2, 3), pad_to=(4, 6), low=-0.1, high=1.175)
    expected = np.full((4, 6), -0.1, np.float32)
    expected[1, 1] = 1.175  # of three columns one is added to the left, two to the right
    np.testing.assert_allclose(pre.apply(images, lenet, 1)[0, ..., 0], expected, atol=1e-6)
    assert pre.apply(noise(2, 7, 9, 1), lenet, 1).shape == (2, 4, 6, 1)


def test_mean_and_standard_deviation():
    bands = Preprocessing(mean=(10.0, -1.0), std=(2.0, 0.5), dtype="float32")
    images = np.float32([[[[14, 0]], [[10, -1]]]])
    np.testing.assert_allclose(pre.apply(images, bands, 2), [[[[2, 2]], [[0, 0]]]])


def test_preprocessing_measured_on_bands():
    images = np.stack([np.full((2, 4, 4), 7.0), noise(2, 4, 4)], axis=-1).astype(np.float32)
    known = np.zeros((2, 4, 4), bool)
    known[:, :2] = True
    measured = pre.for_bands(Preprocessing(), images, known)
    assert measured.dtype == "float32"
    inputs = pre.apply(images, measured, 2).numpy()[known]
    np.testing.assert_allclose(inputs.mean(axis=0), (0, 0), atol=1e-6)
    np.testing.assert_allclose(inputs.std(axis=0), (0, 1), atol=1e-6)  # a band of one value is not divided by 0
    assert pre.for_bands(Preprocessing(), noise(2, 4, 4, 3), known) == Preprocessing()
    assert pre.for_bands(Preprocessing(), noise(2, 4, 4, 4), known).dtype == "float32"


def test_another_input_shape_keeps_the_margin():
    lenet = Preprocessing(size=(28, 28), pad_to=(32, 32), low=-0.1)
    assert pre.for_input(lenet, (32, 32, 1), (20, 50, 1)) == dataclasses.replace(lenet, size=(16, 46), pad_to=(20, 50))
    assert pre.for_input(lenet, (32, 32, 1), (32, 32, 3)) == lenet
    assert pre.for_input(Preprocessing(size=(28, 28)), (28, 28, 1), (10, 12, 1)) == Preprocessing(size=(10, 12))


def test_gray_and_color():
    gray, color = noise(2, 3, 3, 1), noise(2, 3, 3, 3)
    np.testing.assert_array_equal(pre.to_channels(gray, 3), np.repeat(gray, 3, axis=-1))
    luma = color @ [0.2989, 0.587, 0.114]  # ITU-R BT.601, as decoders of JPEG files compute gray
    np.testing.assert_allclose(pre.to_channels(color, 1)[..., 0], luma, atol=1)
    np.testing.assert_array_equal(pre.to_channels(color, 3), color)
    for given, wanted in ((4, 3), (3, 2), (1, 5)):
        with pytest.raises(ZooError, match=f"images have {given} channels, the network takes {wanted}"):
            pre.to_channels(noise(1, 2, 2, given), wanted)


def test_encoded_images_of_several_sizes():
    images = [noise(40, 30, 3), noise(9, 57, 3)]
    encoded = tf.stack([tf.io.encode_png(images[0]), tf.io.encode_jpeg(images[1])])
    images[1] = decoding.decode_image(encoded[1].numpy()).pixels
    to = Preprocessing(size=(16, 12), pad_to=(20, 12), low=-1.0)
    decoded = tf.function(lambda data: pre.decode(data, to, 3), input_signature=[tf.TensorSpec([None], tf.string)])
    inputs = decoded(encoded).numpy()
    assert inputs.shape == (2, 20, 12, 3)
    for image, given in zip(images, inputs, strict=True):
        np.testing.assert_allclose(given[2:18], resized_in_float64(image[None], (16, 12))[0] / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize(("shape", "rows", "columns"), [((30, 50), (0, 30), (5, 45)), ((60, 20), (22, 37), (0, 20))])
def test_images_are_cropped_to_the_proportions_of_the_network(shape, rows, columns):
    """As the paper of AlexNet crops them: nothing is stretched, the shorter side is kept whole."""
    image = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    middle = image[:, slice(*rows), slice(*columns)]
    cropped, plain = (Preprocessing(size=(6, 8), fit=fit) for fit in ("crop", "stretch"))
    np.testing.assert_allclose(pre.apply(image, cropped, 3), pre.apply(middle, plain, 3), atol=1e-6)
    np.testing.assert_array_equal(decoding.resized(image[0], (6, 8), crop=True), decoding.resized(middle[0], (6, 8)))
