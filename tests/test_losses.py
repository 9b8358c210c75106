"""The losses that Keras lacks, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.tasks.losses import MapCriterion, QuadraticCost

RANDOM = np.random.default_rng(7)
TARGETS = np.eye(4, dtype=np.float32)[[0, 3, 1, 1, 2]]


def test_quadratic_cost_is_half_the_squared_distance():
    outputs = RANDOM.normal(size=TARGETS.shape).astype(np.float32)
    expected = 0.5 * np.sum((outputs - TARGETS) ** 2, axis=1)
    np.testing.assert_allclose(QuadraticCost(reduction=None)(TARGETS, outputs), expected, rtol=1e-6)
    assert float(QuadraticCost()(TARGETS, outputs)) == pytest.approx(expected.mean(), rel=1e-6)


def test_quadratic_cost_is_zero_on_the_target_alone():
    assert float(QuadraticCost()(TARGETS, TARGETS)) == 0
    assert float(QuadraticCost()(TARGETS, 1 - TARGETS)) == 2  # four outputs, each wrong by one


@pytest.mark.parametrize("j", [0.1, 3.0])
def test_map_criterion_is_equation_9(j):
    distances = RANDOM.uniform(0, 6, TARGETS.shape).astype(np.float32)
    right = np.sum(TARGETS * distances, axis=1)
    expected = right + np.log(np.exp(-j) + np.exp(-distances).sum(axis=1))
    np.testing.assert_allclose(MapCriterion(j, reduction=None)(TARGETS, distances), expected, rtol=1e-5)
    assert float(MapCriterion(j)(TARGETS, distances)) == pytest.approx(expected.mean(), rel=1e-5)


def test_map_criterion_stays_finite_for_the_distances_of_a_fresh_network():
    distances = np.array([[900.0, 700.0, 800.0, 1000.0]], np.float32)  # exp(-700) is zero in float32
    assert float(MapCriterion(0.1)(TARGETS[:1], distances)) == pytest.approx(900.0 - 0.1, rel=1e-5)


def test_map_criterion_pulls_the_right_class_near_and_pushes_the_others_away():
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


def test_map_criterion_leaves_far_rivals_alone():
    """With j the penalty saturates: a rival at 50 is hardly pushed further, one at 0.5 is."""
    target = np.eye(3, dtype=np.float32)[:1]
    distances = tf.constant([[0.2, 0.5, 50.0]])
    with tf.GradientTape() as tape:
        tape.watch(distances)
        loss = MapCriterion(0.1)(target, distances)
    near, far = tape.gradient(loss, distances).numpy()[0, 1:]
    assert near < -0.1
    assert abs(far) < 1e-6


def test_a_loss_is_shared_among_replicas_as_keras_own_are():
    """Two replicas with half the batch each add up to the loss of the whole batch."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    outputs = np.float32([[0.0, 1.0], [2.0, 0.5]])
    for loss in (QuadraticCost(), MapCriterion()):
        whole = float(loss(np.eye(2, dtype=np.float32), outputs))
        rows = iter(zip(np.eye(2, dtype=np.float32), outputs, strict=True))
        halves = strategy.experimental_distribute_values_from_function(lambda _, rows=rows: tf.constant(next(rows)))
        parts = strategy.run(lambda pair, loss=loss: loss(pair[:1], pair[1:]), args=(halves,))
        assert sum(map(float, strategy.experimental_local_results(parts))) == pytest.approx(whole, rel=1e-6)
