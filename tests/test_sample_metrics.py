"""Scores of generated images, on features whose scores are known beforehand."""

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import tasks
from zoo.metrics import METRICS
from zoo.tasks import sample_metrics
from zoo.tasks.sample_metrics import SHA256, WIDTH

RANDOM = np.random.default_rng(0)


def normal(count, mean, deviations):
    """Features whose mean and covariance, that of independent columns, are exactly as given."""
    features = RANDOM.standard_normal((count, len(mean)))
    features -= features.mean(0)
    whitened = features @ np.linalg.inv(np.linalg.cholesky(np.cov(features.T)).T)
    return (whitened * deviations + mean).astype(np.float32)


def test_the_frechet_distance_of_normal_distributions():
    """Between columns of means m, n and deviations s, t it is the sum of (m - n)^2 and (s - t)^2."""
    one, other = normal(200, (0, 1, 2), (1, 2, 3)), normal(300, (1, 1, 0), (2, 2, 1))
    assert sample_metrics.frechet_distance(one, other) == pytest.approx(1 + 4 + 1 + 4, rel=1e-4)
    assert sample_metrics.frechet_distance(one, one) == pytest.approx(0, abs=1e-4)


def test_the_distance_of_batches_is_that_of_the_whole():
    one, other = normal(200, (0, 1), (1, 2)), normal(200, (1, 1), (2, 2))
    metric = sample_metrics.FrechetDistance(2)
    for start in range(0, 200, 50):
        metric.update_state(one[start : start + 50], other[start : start + 50])
    assert float(metric.result()) == pytest.approx(sample_metrics.frechet_distance(one, other), rel=1e-5)
    metric.reset_state()
    metric.update_state(one, one)
    assert float(metric.result()) == pytest.approx(0, abs=1e-4)


def test_the_floor_of_the_distance_is_small_and_grows_with_fewer_examples():
    many, few = (sample_metrics.frechet_floor(normal(count, (0, 0, 0), (1, 1, 1))) for count in (5_000, 100))
    assert 0 < many < few < 1


def clusters(*centers, count=200):
    return np.concatenate([RANDOM.normal(center, 0.1, (count, 2)) for center in centers])


def test_the_floor_of_the_distance_hardly_depends_on_the_order_of_the_examples():
    """Between two halves it is mostly by how much their shares of two classes happen to differ."""
    real = clusters((0, 0), (10, 10))
    floors = [sample_metrics.frechet_floor(RANDOM.permutation(real)) for _ in range(8)]
    assert max(floors) < 2.5 * min(floors)


@pytest.mark.parametrize(
    ("real", "generated", "precision", "recall", "coverage"),
    [
        ((0, 9), (0, 9), 1, 1, 1),
        ((0, 9), (0,), 1, 0.5, 0.5),  # a mode is missing
        ((0,), (0, 9), 0.5, 1, 1),  # half of the samples are not real
        ((0,), (9,), 0, 0, 0),
    ],
)
def test_precision_recall_and_coverage_of_clusters(real, generated, precision, recall, coverage):
    real, generated = clusters(*real), clusters(*generated)
    scores = sample_metrics.precision_and_recall(real, generated) | sample_metrics.density_and_coverage(real, generated)
    assert scores["precision"] == pytest.approx(precision, abs=0.06)
    assert scores["recall"] == pytest.approx(recall, abs=0.06)
    assert scores["coverage"] == pytest.approx(coverage, abs=0.06)
    assert scores["density"] == pytest.approx(precision, abs=0.12)


def test_density_and_coverage_by_hand():
    """With k = 1 the balls around 0, 1, 3 reach 1, 1 and 2; 0.5 lies in the first two, 2.5 in the last one."""
    real, generated = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [2.5], [9.0]])
    scores = sample_metrics.density_and_coverage(real, generated, k=1)
    assert scores == {"density": pytest.approx(3 / 3), "coverage": 1.0}
    assert sample_metrics.precision_and_recall(real, generated, k=1)["precision"] == pytest.approx(2 / 3)


def test_shares_of_classes():
    assert sample_metrics.class_shares(np.arange(50) % 10)["class_divergence"] == pytest.approx(0)
    scores = sample_metrics.class_shares(np.array([0, 0, 0, 1]), 2)
    assert scores["least_class_share"] == 0.25
    assert [scores[f"share_of_{number}"] for number in range(2)] == [0.75, 0.25]
    assert scores["largest_class_share"] == 0.75
    assert scores["class_divergence"] == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert sample_metrics.class_shares(np.zeros(5, int))["class_divergence"] == pytest.approx(np.log(10))


def test_codes_are_matched_with_the_classes_that_they_agree_with_most():
    classes = np.arange(100) % 10
    assert sample_metrics.matched_accuracy((classes + 3) % 10, classes, 10) == 1
    assert sample_metrics.matched_accuracy(classes // 2, classes, 10) == 0.5


def test_the_nearest_training_image_of_a_copy_is_its_original():
    training = RANDOM.integers(0, 256, (30, 5, 5, 1), dtype=np.uint8)
    originals = training[[7, 2, 29]]
    copies = np.clip(originals.astype(int) + 3, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(sample_metrics.nearest(copies, np.split(training, 3)), originals)


def test_the_feature_network_reads_digits():
    images = zoo.data.load("digits").splits["test"]
    features, scores = sample_metrics.feature_function()(tf.constant(images.inputs))
    assert features.shape == (len(images), WIDTH)
    assert (scores.numpy().argmax(-1) == images.targets).mean() > 0.6  # it has learned larger ones


def test_other_weights_measure_nothing(monkeypatch):
    monkeypatch.setattr(sample_metrics, "SHA256", SHA256[::-1])
    sample_metrics.feature_weights.cache_clear()
    with pytest.raises(zoo.ZooError, match=r"lenet5\.mnist_distorted/1.*reinstall zoo"):
        sample_metrics.feature_function()
    sample_metrics.feature_weights.cache_clear()


def test_a_perfect_generator_reaches_the_floor():
    """One that returns the training images, by the task's own evaluation."""
    data = zoo.data.load("digits")
    task = tasks.get_task("generation").from_data(zoo.get_spec("dcgan_small"), data, widths=(2, 2))
    images = data.splits["test"].take(slice(200))
    perfect, constant = (measured(task, images, choose) for choose in ("real", "same"))
    assert perfect["coverage"] > 0.8
    assert perfect["precision"] == perfect["recall"] == 1
    assert constant["coverage"] < 0.1
    assert constant["largest_class_share"] == 1
    shares = {"least_class_share", "largest_class_share", *(f"share_of_{digit}" for digit in range(10))}
    assert set(perfect) <= set(METRICS) | shares
    assert sum(perfect[f"share_of_{digit}"] for digit in range(10)) == pytest.approx(1)


def measured(task, split, choose):
    batches = [task.network_batch(tf.constant(split.inputs))]
    images = batches[0][0]
    chosen = images if choose == "real" else tf.repeat(images[:1], len(split), axis=0)
    object.__setattr__(task, "network", lambda model: lambda latents: chosen)
    return task.dataset_metrics(None, lambda: batches, None)


def test_the_distance_of_features_that_hardly_vary_is_not_rounded_away():
    """Sums of products are large numbers: in float32, deviations of 0.01 and 0.02 from a mean of 50 are lost."""
    one = np.random.default_rng(0).normal(50, 0.01, (2_000, 2))
    other = 50 + 2 * (one - 50)
    assert sample_metrics.frechet_distance(one, other) == pytest.approx(2 * 0.01**2, rel=0.05)
