"""Adversarial images: changes too small to see that make a classifier wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo import tasks
from zoo.data import Split
from zoo.errors import ZooError, unknown
from zoo.loading import Predictor, Source
from zoo.training.batches import fitting_batch, load_for
from zoo.training.evaluation import predicted_class_ids

with epy.lazy_imports():
    import tensorflow as tf

    from zoo import layers as zoo_layers


def adversarial(
    source: Source, images: np.ndarray, labels: np.ndarray | None = None, *, epsilon: float, steps: int = 1
) -> np.ndarray:
    """Images that differ from the given ones by at most `epsilon` in each pixel and raise the classifier's loss.

    One step is the fast gradient sign method (Goodfellow, Shlens and Szegedy 2015, section 4); several are projected
    gradient descent from the image itself (Madry et al. 2018, section 2.1), each of 2.5 * `epsilon` / `steps`.

    Args:
        source: a classifier of images: `name.tag`, an exported directory, or a run.
        images: uint8 [N, H, W, C].
        labels: the right class ids [N]; what the classifier predicts by default.
        epsilon: largest change, as a share of the full scale of 255.

    Returns:
        Images uint8 [N, H, W, C].

    Raises:
        ZooError: for other tasks than classification of images, and values out of range.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    return _changed(_gradient_of(predictor), predictor, images, labels, epsilon, steps)


def _gradient_of(predictor: Predictor) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The gradient of the loss by the pixels, for images float32 [B, H, W, C] and the right class ids [B]."""
    task = predictor.task
    if not isinstance(task, tasks.ImageTask) or not predictor.predicts_classes or task.has_masks:
        raise ZooError(f"{task.spec.name} does not classify images: adversarial images need a classifier")
    network = task.network(predictor.model)

    @tf.function(autograph=False, reduce_retracing=True)
    def gradient(pixels: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = network(pre.apply(pixels, task.preprocessing, task.channels))
            scores = tf.nest.flatten(outputs)[0]  # features may follow
            likely = tf.gather(zoo_layers.probabilities(scores, task.spec.outputs), right, batch_dims=1)
            loss = -tf.reduce_sum(tf.math.log(likely + 1e-12))
        return tape.gradient(loss, pixels)

    return gradient


def _changed(
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    predictor: Predictor,
    images: np.ndarray,
    labels: np.ndarray | None,
    epsilon: float,
    steps: int,
) -> np.ndarray:
    """What `adversarial` returns."""
    if not 0 <= epsilon <= 1 or steps < 1:
        raise ZooError(f"epsilon must be from 0 to 1 and steps at least 1, not {epsilon} and {steps}")
    labels = predictor(images)["class_ids"] if labels is None else labels
    done, size, scale = [], fitting_batch(images.shape, 256), 255.0
    for first in range(0, len(images), size):
        start = tf.constant(images[first : first + size], tf.float32)
        right = tf.constant(labels[first : first + size], tf.int64)
        bound = np.floor(epsilon * scale)  # whole pixel values, so that the rounded images keep within epsilon
        pixels = start
        for _ in range(steps):
            rate = bound if steps == 1 else 2.5 * bound / steps
            pixels = pixels + rate * tf.sign(gradient(pixels, right))
            pixels = tf.clip_by_value(tf.clip_by_value(pixels, start - bound, start + bound), 0.0, scale)
        done.append(tf.cast(tf.round(pixels), tf.uint8).numpy())
    return np.concatenate(done)


def adversarial_accuracy(
    source: Source, data: Any, epsilons: Iterable[float], *, split: str = "test", count: int = 1000, steps: int = 1
) -> list[dict[str, float]]:
    """The accuracy of a classifier on adversarial images against their `epsilon`.

    Args:
        data: a data set's name or path, see `zoo.data.load`.
        split: `train`, `validation` or `test`.
        count: number of images, drawn from the split; the same ones each time.
        steps: as for `zoo.adversarial`.

    Returns:
        For each epsilon `epsilon` and `accuracy`.

    Raises:
        ZooError: as `zoo.adversarial` and `zoo.evaluate`.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    task = predictor.task
    dataset = task.select(load_for(task.spec, task.input_shape, predictor.recipe, data))
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    examples = dataset.splits[split].labeled().sample(count)
    images = np.asarray(examples.inputs)
    rows, gradient = [], _gradient_of(predictor)
    for epsilon in epsilons:
        changed = _changed(gradient, predictor, images, examples.targets, epsilon, steps)
        right = predicted_class_ids(predictor, Split(changed, examples.targets)) == examples.targets
        rows.append({"epsilon": float(epsilon), "accuracy": float(np.mean(right))})
    return rows
