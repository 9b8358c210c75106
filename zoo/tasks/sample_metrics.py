"""How well generated images match real ones, measured in the feature space of one published network.

The features are the 84 units of layer F6 of the LeNet-5 `FEATURE_NETWORK`, whose file of weights is checked against its
sha256: scores are comparable with each other, offline and in any version of this package. They are not comparable with
scores in the features of Inception, which other publications use. Images are converted to gray and resized to 28 x 28.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import optimize
from sklearn import metrics, neighbors

from zoo import preprocessing as pre
from zoo import registry
from zoo.checkpoint import checkpoint_arrays
from zoo.errors import ZooError
from zoo.files import package_folder
from zoo.weights import assign, named_weights

HALVINGS = 20  # one alone is several times above or below their mean, as the shares of classes happen to be
FEATURE_NETWORK = "lenet5.mnist_distorted/1"
SHA256 = "6e0dde2afe59d30e559f2de57584e8ba8e9ba80e2866acc164262b104efb3702"  # of the file with its weights
WIDTH, CLASSES = 84, 10  # units of F6, and classes that the network reads

Features = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@functools.cache
def feature_weights() -> dict[str, np.ndarray]:
    """The weights of the feature network; raises ZooError where they are missing or are not those published."""
    prefix = package_folder() / FEATURE_NETWORK / "variables" / "variables"
    try:
        digest = hashlib.sha256(prefix.with_name("variables.data-00000-of-00001").read_bytes()).hexdigest()
    except OSError:
        digest = "missing"
    if digest != SHA256:
        raise ZooError(f"the weights of {FEATURE_NETWORK}, which measure generated images, are {digest}: reinstall zoo")
    return checkpoint_arrays(prefix)


def feature_function() -> Features:
    """A function from images [B, H, W, C] of 0..255 to the features [B, 84] and the scores of the ten digits [B, 10],
    higher for more probable ones."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # whatever the networks compute in
    try:
        spec = registry.get_spec(FEATURE_NETWORK.partition(".")[0])
        network = spec.build()
    finally:
        keras.config.set_dtype_policy(before)
    assign(named_weights(network), feature_weights())
    both = keras.Model(network.input, [network.get_layer(spec.features[-1]).output, network.output])

    def features(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found, distances = both(pre.apply(images, spec.preprocessing, 1), training=False)
        return found, -distances

    return features


def frechet(mean: Any, covariance: Any, other_mean: Any, other_covariance: Any) -> tf.Tensor:
    """The squared Fréchet distance of two normal distributions (Dowson and Landau 1982, equation (4); of features,
    Heusel et al. 2017, equation (6)).

    The trace of sqrt(A B) is the sum of the square roots of the eigenvalues of sqrt(A) B sqrt(A), which is symmetric.
    """
    values, vectors = tf.linalg.eigh(covariance)
    root = tf.matmul(vectors * tf.sqrt(tf.maximum(values, 0.0)), vectors, transpose_b=True)
    shared = tf.linalg.eigvalsh(tf.matmul(root, tf.matmul(other_covariance, root)))
    traces = tf.linalg.trace(covariance) + tf.linalg.trace(other_covariance)
    distance = tf.reduce_sum((mean - other_mean) ** 2) + traces - 2 * tf.reduce_sum(tf.sqrt(tf.maximum(shared, 0.0)))
    return tf.maximum(distance, 0.0)


class FrechetDistance(keras.metrics.Metric):
    """The Fréchet distance between the features [N, F] of real and of generated images, over all batches."""

    def __init__(self, width: int = WIDTH, name: str = "frechet_distance") -> None:
        super().__init__(name=name, dtype="float64")
        shapes = ((), (width,), (width, width))
        self.moments = [  # Keras' default type is float32, in which the differences of products cancel out
            [self.add_variable(shape, "zeros", dtype="float64", name=f"{kind}_{len(shape)}") for shape in shapes]
            for kind in ("real", "generated")
        ]

    @property
    def seen(self) -> Any:
        """The number of real images so far."""
        return self.moments[0][0]

    def update_state(self, real: Any, generated: Any) -> None:
        for (count, total, products), features in zip(self.moments, (real, generated), strict=True):
            features = tf.cast(features, tf.float64)
            count.assign(count + tf.cast(tf.shape(features)[0], tf.float64))
            total.assign(total + tf.reduce_sum(features, 0))
            products.assign(products + tf.matmul(features, features, transpose_a=True))

    def result(self) -> tf.Tensor:
        return tf.cast(
            frechet(*(part for moments in self.moments for part in _mean_and_covariance(*moments))), "float32"
        )


def _mean_and_covariance(count: Any, total: Any, products: Any) -> tuple[tf.Tensor, tf.Tensor]:
    count, total, products = (tf.convert_to_tensor(value) for value in (count, total, products))
    mean = total / tf.maximum(count, 1.0)
    centered = products - count * mean[:, None] * mean[None]
    return mean, centered / tf.maximum(count - 1.0, 1.0)


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """The Fréchet distance between features [N, F] and [M, F]."""
    metric = FrechetDistance(real.shape[-1])
    metric.update_state(real, generated)
    return float(metric.result())


def frechet_floor(real: np.ndarray) -> float:
    """The mean Fréchet distance between two random halves of real features [N, F]: what a perfect generator would reach
    with half as many examples."""
    if len(real) < 2:
        return 0.0
    orders = (np.random.default_rng(seed).permutation(len(real)) for seed in range(HALVINGS))
    return float(np.mean([frechet_distance(*np.array_split(real[order], 2)) for order in orders]))


def _radii(features: np.ndarray, count: int) -> np.ndarray:
    """The distance [N] of each row to its `count`-th nearest other row, to the farthest of fewer rows."""
    others = min(count, len(features) - 1)
    if not others:
        return np.zeros(len(features))
    return neighbors.NearestNeighbors(n_neighbors=others).fit(features).kneighbors()[0][:, -1]


def _within(rows: np.ndarray, centers: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row [N] how many of the balls around the centers [M] hold it; for each center whether its ball holds a
    row [M]."""
    counts, held = [], np.zeros(len(centers), bool)
    for distances in metrics.pairwise_distances_chunked(rows, centers):
        counts.append((distances <= radii).sum(axis=1))
        held |= (distances <= radii).any(axis=0)
    return np.concatenate(counts), held


def precision_and_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> dict[str, float]:
    """Kynkäänniemi et al. 2019, equation (1), with their k = 3 (section 2.1): the share of generated features [M, F]
    within the balls around the real ones [N, F] that reach to their k-th neighbors, and the reverse."""
    inside_real, _ = _within(generated, real, _radii(real, k))
    inside_generated, _ = _within(real, generated, _radii(generated, k))
    return {"precision": float((inside_real > 0).mean()), "recall": float((inside_generated > 0).mean())}


def density_and_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> dict[str, float]:
    """Naeem et al. 2020, equations (3) and (4), with their k = 5: in how many balls of real features a generated one
    lies, divided by k; and the share of these balls that hold a generated feature."""
    inside, held = _within(generated, real, _radii(real, k))
    return {"density": float(inside.mean() / k), "coverage": float(held.mean())}


def class_shares(classes: np.ndarray, count: int = CLASSES) -> dict[str, float]:
    """The share of each class among class ids [N], the least and the largest one, and their divergence from uniform,
    in nats: 0 where all classes are equally frequent, log(count) where there is one."""
    shares = np.bincount(classes, minlength=count) / len(classes)
    present = shares[shares > 0]
    return {
        **{f"share_of_{number}": float(share) for number, share in enumerate(shares)},
        "least_class_share": float(shares.min()),
        "largest_class_share": float(shares.max()),
        "class_divergence": float((present * np.log(present * count)).sum()),
    }


def matched_accuracy(codes: np.ndarray, classes: np.ndarray, count: int) -> float:
    """The share of examples whose code [N] is the one of their class [N] under the best one-to-one matching of codes
    and classes (Kuhn 1955)."""
    table = np.zeros((count, CLASSES), int)
    np.add.at(table, (codes, classes), 1)
    return float(table[optimize.linear_sum_assignment(-table)].sum() / len(codes))


def nearest(images: np.ndarray, training: Iterable[np.ndarray]) -> np.ndarray:
    """For each image [N, H, W, C] the training image, of batches [B, H, W, C], that is nearest by its pixels,
    [N, H, W, C]: beside it a copy shows."""
    found, least = images.copy(), np.full(len(images), np.inf)
    rows = images.reshape(len(images), -1).astype(np.float32)
    for batch in training:
        others = batch.reshape(len(batch), -1).astype(np.float32)
        places, distances = metrics.pairwise_distances_argmin_min(rows, others)
        closer = distances < least
        found[closer], least[closer] = batch[places[closer]], distances[closer]
    return found
