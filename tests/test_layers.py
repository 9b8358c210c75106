"""Each layer of `zoo.layers` against NumPy, rebuilt from its configuration, and with its gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo import layers as zoo_layers
from zoo import tasks, testing

RNG = np.random.default_rng(0)
TABLE = [[0, 1], [2], [0, 1, 2], [1]]


def sliding_sum(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Images [B, H, W] correlated with one kernel [k, k], without padding."""
    size = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    return np.einsum("bhwij,ij->bhw", windows, kernel)


def convolved_by_table(x: np.ndarray, layer: zoo_layers.ConnectionTableConv2D) -> np.ndarray:
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    maps, connection = [], 0
    for output, inputs in enumerate(TABLE):
        total = bias[output]
        for source in inputs:
            total = total + sliding_sum(x[..., source], kernel[..., connection])
            connection += 1
        maps.append(total)
    return np.stack(maps, axis=-1)


def subsampled(x: np.ndarray, layer: zoo_layers.Subsampling2D) -> np.ndarray:
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    total = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return total * layer.coefficient.numpy() + layer.bias.numpy()


def normalized(x: np.ndarray, layer: zoo_layers.LocalResponseNormalization) -> np.ndarray:
    result = np.empty_like(x)
    for i in range(x.shape[-1]):
        near = x[..., max(0, i - 2) : min(x.shape[-1], i + 3)]
        result[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    return result


def distances(x: np.ndarray, layer: zoo_layers.EuclideanRBF) -> np.ndarray:
    return np.array([[((row - code) ** 2).sum() for code in layer.codes.numpy()] for row in x])


CASES = {
    "scaled_tanh": (zoo_layers.ScaledTanh(), (3, 7), lambda x, layer: 1.7159 * np.tanh(2 / 3 * x)),
    "subsampling": (
        zoo_layers.Subsampling2D(2, coefficient_initializer="random_normal", bias_initializer="random_normal"),
        (2, 7, 6, 3),
        subsampled,
    ),
    "connection_table": (zoo_layers.ConnectionTableConv2D(TABLE, 3), (2, 6, 5, 3), convolved_by_table),
    "rbf": (zoo_layers.EuclideanRBF(RNG.choice([-1.0, 1.0], (4, 6)).tolist()), (3, 6), distances),
    "local_response": (zoo_layers.LocalResponseNormalization(), (2, 3, 4, 8), normalized),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    layer, shape, reference = CASES[request.param]
    # activations large enough that the normalization's alpha of 1e-4 matters
    x = RNG.normal(size=shape).astype("float32") * (100 if request.param == "local_response" else 1)
    layer(x)
    return layer, x, reference


def test_equals_numpy(case):
    layer, x, reference = case
    np.testing.assert_allclose(layer(x), reference(x.astype("float64"), layer), rtol=1e-5, atol=1e-5)


def test_output_shape_is_known_without_running(case):
    layer, x, _ = case
    assert layer.compute_output_shape((None, *x.shape[1:]))[1:] == tuple(layer(x).shape[1:])


def test_configuration_round_trip(case):
    layer, x, _ = case
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    twin(x)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(x), layer(x))


def test_gradients_are_finite_and_not_all_zero(case):
    layer, x, _ = case
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x) ** 2)
    for gradient in tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)]):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_local_response_equals_tensorflows():
    x = RNG.normal(size=(2, 3, 4, 9)).astype("float32") * 100
    expected = tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(zoo_layers.LocalResponseNormalization()(x), expected, rtol=2e-6)


def test_codes_are_not_trained():
    layer = zoo_layers.EuclideanRBF([[1.0, -1.0]])
    layer.build((None, 2))
    assert layer.trainable_weights == []
    assert len(layer.weights) == 1


def test_table_beyond_the_input_is_refused():
    with pytest.raises(ValueError, match="input map 2, the input has 2"):
        zoo_layers.ConnectionTableConv2D(TABLE, 3).build((None, 6, 6, 2))


def test_crop_like_with_sizes_known_only_in_the_graph():
    image, like = keras.Input((None, None, 1)), keras.Input((None, None, 2))
    model = keras.Model([image, like], zoo_layers.CropLike()([image, like]))
    x = RNG.normal(size=(1, 6, 5, 1)).astype("float32")
    run = tf.function(model, input_signature=[[tf.TensorSpec((None, None, None, c)) for c in (1, 2)]])
    np.testing.assert_array_equal(run([x, np.zeros((1, 5, 4, 2), "float32")]), x[:, :5, :4])


def test_crop_like_keeps_the_middle():
    x = RNG.normal(size=(1, 7, 6, 1)).astype("float32")
    cropped = zoo_layers.CropLike("middle")([x, np.zeros((1, 3, 2, 1), "float32")])
    np.testing.assert_array_equal(cropped, x[:, 2:5, 2:4])


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), margin=st.integers(0, 20), divisor=st.integers(1, 8),
    remainder=st.integers(0, 7),
)  # fmt: skip
def test_mirror_padding_is_numpys(height, width, margin, divisor, remainder):
    remainder %= divisor
    x = RNG.normal(size=(1, height, width, 2)).astype("float32")
    layer = zoo_layers.MirrorPadding2D(margin, divisor, remainder)
    padded = np.array(layer(x))
    ends = [next(e for e in range(divisor) if (side + 2 * margin + e) % divisor == remainder) for side in x.shape[1:3]]
    pads = [(0, 0), *((margin, margin + end) for end in ends), (0, 0)]
    np.testing.assert_array_equal(padded, np.pad(x, pads, mode="reflect"))
    assert layer.compute_output_shape(x.shape) == padded.shape
    assert layer.compute_output_shape((None, None, 4, 2))[:2] == (None, None)


def test_mirror_padding_with_sizes_known_only_in_the_graph():
    image = keras.Input((None, None, 1))
    model = keras.Model(image, zoo_layers.MirrorPadding2D(3, 4)(image))
    run = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 1))])
    assert run(np.zeros((2, 5, 6, 1), "float32")).shape == (2, 12, 12, 1)
    assert run(np.zeros((2, 1, 9, 1), "float32")).shape == (2, 8, 16, 1)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_batch_normalization_equals_keras(dtype):
    ours, theirs = zoo_layers.BatchNormalization(dtype=dtype), keras.layers.BatchNormalization(dtype=dtype)
    images = keras.ops.cast(RNG.normal(3, 2, (4, 9, 7, 5)), "float32")
    for layer in (ours, theirs):
        layer.build(images.shape)
        layer.gamma.assign(np.arange(1.0, 6.0))
        layer.beta.assign(np.arange(5.0))
    tolerance = {"atol": 1e-5} if dtype == "float32" else {"atol": 0.1}
    gradients = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.cast(layer(images, training=True), tf.float32)
            loss = tf.reduce_sum(outputs**3)
        gradients.append([outputs, *tape.gradient(loss, [images, layer.gamma.value])])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one / np.abs(other).max(), other / np.abs(other).max(), **tolerance)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-2)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-2)
    ours.trainable = theirs.trainable = False  # frozen, it uses its moving statistics and keeps them
    before = np.array(ours.moving_mean)
    np.testing.assert_allclose(ours(images, training=True), theirs(images, training=True), rtol=1e-2, atol=0.1)
    np.testing.assert_array_equal(ours.moving_mean, before)


def test_probabilities_of_sigmoid_logits_are_the_activations_divided_by_their_sum():
    logits = RNG.normal(0, 4, (5, 10)).astype("float32")
    activations = 1 / (1 + np.exp(-logits.astype("float64")))
    expected = activations / activations.sum(-1, keepdims=True)
    np.testing.assert_allclose(zoo_layers.probabilities(logits, "sigmoid"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([-1000.0, -1000.0 - np.log(3), -2000.0], [0.75, 0.25, 0.0]),  # exp(-1000) is 0 in float32
        ([1000.0, 1000.0, -1000.0], [0.5, 0.5, 0.0]),  # exp(1000) is infinite
        ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_probabilities_of_extreme_sigmoid_logits(logits, expected):
    probabilities = zoo_layers.probabilities(np.array([logits], "float32"), "sigmoid")
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-4)
    assert np.sum(probabilities) == pytest.approx(1, abs=1e-6)


def test_probabilities_of_logits_and_distances_are_a_softmax():
    scores = np.log(np.array([[1.0, 2.0, 5.0]], "float32"))
    np.testing.assert_allclose(zoo_layers.probabilities(scores, "logits"), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)
    np.testing.assert_allclose(zoo_layers.probabilities(-scores, "distances"), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)


def test_a_weight_normalized_layer_ignores_the_length_of_its_kernel():
    layer = zoo_layers.WeightNormalizedDense(2)
    x = np.float32([[1, 2, 2], [0, 3, 4]])
    layer.build(x.shape)
    layer.kernel.assign(np.float32([[5, 0], [0, 3], [0, 4]]))  # columns of length 5
    layer.scale.assign([2.0, 10.0])
    layer.bias.assign([0.0, 1.0])
    np.testing.assert_allclose(layer(x), [[2, 29], [0, 51]], rtol=1e-5)
    layer.kernel.assign(7 * layer.kernel)
    np.testing.assert_allclose(layer(x), [[2, 29], [0, 51]], rtol=1e-5)


def test_normal_latents_become_uniform():
    normal = np.random.default_rng(0).standard_normal((4_000, 3)).astype(np.float32)
    for low in (-1.0, 0.0):
        uniform = zoo_layers.ToUniform(low=low)(normal).numpy()
        shares = np.histogram(uniform, 10, (low, 1))[0] / uniform.size
        np.testing.assert_allclose(shares, 0.1, atol=0.01)
    partly = zoo_layers.ToUniform(1)(normal).numpy()
    np.testing.assert_array_equal(partly[:, 1:], normal[:, 1:])
    assert -1 <= partly[:, 0].min() < -0.99


@pytest.mark.slow
def test_a_discriminator_with_spectral_normalization_keeps_its_singular_values_near_one():
    """After a few steps, in which a plain one is free to grow."""
    spec, data = zoo.get_spec("dcgan_small"), testing.example_data("generation")
    task = tasks.get_task(spec.task).from_data(spec, data, latents=4, widths=[4, 4], spectral=True)
    trainer = task.compile(task.build(), task.with_options(spec.recipe()), lambda: keras.optimizers.SGD(0.05))
    for _ in range(8):
        trainer.train_on_batch(*task.network_batch(data.splits["train"].inputs))
    kernels = [layer.layer.kernel for layer in trainer.discriminator.layers if hasattr(layer, "layer")]
    assert len(kernels) == 4
    for kernel in kernels:
        norm = np.linalg.norm(kernel.numpy().reshape(-1, kernel.shape[-1]), 2)
        assert norm == pytest.approx(1, abs=0.25)
