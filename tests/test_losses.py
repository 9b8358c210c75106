"""The losses that Keras lacks, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo import ZooError
from zoo.tasks.losses import MapCriterion, QuadraticCost, accuracy, classification_loss

RANDOM = np.random.default_rng(7)
TARGETS = np.eye(4, dtype=np.float32)[[0, 3, 1, 1, 2]]


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_quadratic_cost_is_half_the_squared_distance_of_the_activations():
    logits = RANDOM.normal(size=TARGETS.shape).astype(np.float32)
    expected = 0.5 * np.sum((sigmoid(logits) - TARGETS) ** 2, axis=1)
    np.testing.assert_allclose(QuadraticCost(reduction=None)(TARGETS, logits), expected, rtol=1e-5)
    assert float(QuadraticCost()(TARGETS, logits)) == pytest.approx(expected.mean(), rel=1e-5)


def test_quadratic_cost_is_zero_on_the_target_alone():
    logits = 100 * (2 * TARGETS - 1)  # whose activations are 0 and 1
    assert float(QuadraticCost()(TARGETS, logits)) == pytest.approx(0)
    assert float(QuadraticCost()(TARGETS, -logits)) == pytest.approx(2)  # four outputs, each wrong by one


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropies_of_logits_and_smoothed_targets(smoothing):
    logits = RANDOM.normal(size=TARGETS.shape)
    binary = TARGETS * (1 - smoothing) + smoothing / 2
    expected = -np.mean(binary * np.log(sigmoid(logits)) + (1 - binary) * np.log(sigmoid(-logits)))
    loss = classification_loss("binary_cross_entropy", smoothing)
    assert float(loss(TARGETS, logits)) == pytest.approx(expected, rel=1e-5)
    smoothed = TARGETS * (1 - smoothing) + smoothing / 4
    expected = -np.mean(np.sum(smoothed * (logits - np.log(np.exp(logits).sum(1, keepdims=True))), axis=1))
    loss = classification_loss("cross_entropy", smoothing)
    assert float(loss(TARGETS, logits)) == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_is_refused_where_the_loss_has_none():
    assert isinstance(classification_loss("quadratic", 0.0), QuadraticCost)
    with pytest.raises(ZooError, match="label_smoothing"):
        classification_loss("quadratic", 0.1)


@pytest.mark.parametrize(("outputs", "expected"), [("logits", 0.8), ("sigmoid", 0.8), ("distances", 0.2)])
def test_accuracy_counts_the_largest_logit_or_the_smallest_distance(outputs, expected):
    scores = TARGETS.copy()
    scores[0] = [2, 1, 0, -1]  # right by logits, wrong by distances
    scores[1] = [2, 1, 0, -1]  # wrong by logits, right by distances: its target is the last class
    assert float(accuracy(outputs)(TARGETS, scores)) == pytest.approx(expected)


@pytest.mark.parametrize("j", [0.1, 3.0])
def test_map_criterion_is_equation_9(j):
    distances = RANDOM.uniform(0, 6, TARGETS.shape).astype(np.float32)
    right = np.sum(TARGETS * distances, axis=1)
    expected = right + np.log(np.exp(-j) + np.exp(-distances).sum(axis=1))
    np.testing.assert_allclose(MapCriterion(j, reduction=None)(TARGETS, distances), expected, rtol=1e-5)
    assert float(MapCriterion(j)(TARGETS, distances)) == pytest.approx(expected.mean(), rel=1e-5)


def test_map_criterion_is_finite_for_the_distances_of_an_untrained_network():
    distances = np.array([[900.0, 700.0, 800.0, 1000.0]], np.float32)  # exp(-700) is zero in float32
    assert float(MapCriterion(0.1)(TARGETS[:1], distances)) == pytest.approx(900.0 - 0.1, rel=1e-5)


def test_gradient_of_the_map_criterion_pulls_the_right_code_and_pushes_the_others():
    distances = keras.Variable(RANDOM.uniform(0, 3, TARGETS.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(MapCriterion(reduction=None)(TARGETS, distances.value))
    gradient = tape.gradient(loss, distances.value).numpy()
    right = TARGETS.astype(bool)
    assert (gradient[right] > 0).all()  # a step downhill shortens the distance to the right code
    assert (gradient[~right] < 0).all()
    weights = np.exp(-distances.numpy())
    share = weights / (np.exp(-0.1) + weights.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(gradient, TARGETS - share, atol=1e-6)


def test_map_criterion_does_not_push_distant_codes():
    """The constant j bounds the penalty: a wrong code at 50 is hardly pushed further, one at 0.5 is."""
    target = np.eye(3, dtype=np.float32)[:1]
    distances = tf.constant([[0.2, 0.5, 50.0]])
    with tf.GradientTape() as tape:
        tape.watch(distances)
        loss = MapCriterion(0.1)(target, distances)
    near, far = tape.gradient(loss, distances).numpy()[0, 1:]
    assert near < -0.1
    assert abs(far) < 1e-6


def test_losses_of_two_replicas_add_up_to_that_of_the_whole_batch():
    """As Keras' own losses do."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    outputs = np.float32([[0.0, 1.0], [2.0, 0.5]])
    for loss in (QuadraticCost(), MapCriterion()):
        whole = float(loss(np.eye(2, dtype=np.float32), outputs))
        rows = iter(zip(np.eye(2, dtype=np.float32), outputs, strict=True))
        halves = strategy.experimental_distribute_values_from_function(lambda _, rows=rows: tf.constant(next(rows)))
        parts = strategy.run(lambda pair, loss=loss: loss(pair[:1], pair[1:]), args=(halves,))
        assert sum(map(float, strategy.experimental_local_results(parts))) == pytest.approx(whole, rel=1e-6)
