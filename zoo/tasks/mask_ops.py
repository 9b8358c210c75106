"""Losses and metrics of masks, border weights, and the adapted Rand error.

A target is float32 [B, H, W, K + 1]: the K masks of 0 and 1, and last the weight of each pixel in the loss. A pixel of
weight 0 counts neither in the loss nor in a metric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage
from skimage import metrics

from zoo.data.dataset import IGNORED
from zoo.options import Border
from zoo.tasks.losses import named, shared

# From masks [B, H, W, K] and logits to a loss a pixel [B, H, W]: for exclusive classes (False) and for overlapping ones
# (True). Focal: gamma of Lin et al. 2017, Focal Loss for Dense Object Detection, section 4.1; all classes weigh alike.
PIXEL_LOSSES: dict[str, dict[bool, Callable]] = {
    "cross_entropy": {
        False: lambda masks, logits: keras.losses.categorical_crossentropy(masks, logits, from_logits=True),
        True: lambda masks, logits: keras.losses.binary_crossentropy(masks, logits, from_logits=True),
    },
    "focal": {
        False: lambda masks, logits: keras.losses.categorical_focal_crossentropy(
            masks, logits, alpha=1.0, gamma=2.0, from_logits=True
        ),
        True: lambda masks, logits: keras.losses.binary_focal_crossentropy(masks, logits, gamma=2.0, from_logits=True),
    },
}
# From masks and probabilities to a loss a class [K]. Jaccard is 1 - intersection over union: Tversky's index with equal
# weights of false positives and false negatives.
REGION_LOSSES: dict[str, Callable] = {
    "dice": lambda masks, probabilities: keras.losses.dice(masks, probabilities, axis=(0, 1, 2)),
    "jaccard": lambda masks, probabilities: keras.losses.tversky(
        masks, probabilities, alpha=1.0, beta=1.0, axis=(0, 1, 2)
    ),
}

REACH = 8  # in units of sigma: objects further apart than this have no border


def probabilities(logits: tf.Tensor, overlapping: bool) -> tf.Tensor:
    """Logits [..., K] as probabilities: of one class a pixel, or of each mask by itself."""
    return tf.sigmoid(logits) if overlapping else tf.nn.softmax(logits)


def mask_loss(names: str, overlapping: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The sum of the losses whose names are joined by a plus sign, as in `cross_entropy+jaccard`.

    Each is the mean over pixels times their weights, zero for ignored ones, or the mean over classes, where every class
    counts the same however few pixels it has.

    Raises:
        ZooError: for a loss that is not known.
    """
    parts: list[tuple[str, Any]] = [
        (name, named({**PIXEL_LOSSES, **REGION_LOSSES}, name, "segmentation")) for name in names.split("+")
    ]

    def loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        masks, weights = targets[..., :-1], targets[..., -1]
        known = tf.cast(weights > 0, tf.float32)[..., None]
        total = 0.0
        for name, part in parts:
            if name in PIXEL_LOSSES:
                total += tf.reduce_mean(weights * part[overlapping](masks, logits))
            else:
                total += tf.reduce_mean(part(masks * known, probabilities(logits, overlapping) * known))
        return shared(total)  # as Keras does with losses of examples, not with scalars

    return loss


class MaskScore(keras.metrics.Metric):
    """A metric computed from the pixels of all batches together.

    Args:
        masks_of: maps logits [B, H, W, K] to the predicted masks of 0 and 1, float32.
        score: maps the number of pixels of each class in both masks, in the predicted and in the true ones, each
            float64 [K], and the number of all pixels to the metric.
    """

    def __init__(self, name: str, classes: int, masks_of: Callable, score: Callable) -> None:
        super().__init__(name=name)
        self.masks_of, self.score = masks_of, score
        # float64, because float32 would stop counting at 16 million pixels
        self.counts = self.add_weight(shape=(3, classes), initializer="zeros", dtype="float64", name="counts")
        self.pixels = self.add_weight(shape=(), initializer="zeros", dtype="float64", name="pixels")

    def update_state(self, targets: tf.Tensor, logits: tf.Tensor, sample_weight: None = None) -> None:
        known = tf.cast(targets[..., -1:] > 0, tf.float32)
        true, predicted = targets[..., :-1] * known, self.masks_of(logits) * known
        counts = [tf.reduce_sum(part, axis=(0, 1, 2)) for part in (true * predicted, predicted, true)]
        self.counts.assign_add(tf.cast(tf.stack(counts), tf.float64))
        self.pixels.assign_add(tf.cast(tf.reduce_sum(known), tf.float64))

    def result(self) -> tf.Tensor:
        return tf.cast(self.score(*tf.unstack(tf.convert_to_tensor(self.counts)), self.pixels), tf.float32)


def mask_scores(classes: tuple[str, ...], overlapping: bool, masks_of: Callable) -> list[MaskScore]:
    """Pixel accuracy; intersection over union (Jaccard's index) and Dice's coefficient of each class and their means
    over the classes that occur."""

    def pixel_accuracy(both: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
        wrong = tf.reduce_sum(predicted + true - 2 * both)  # counts a wrong pixel twice if classes are exclusive
        return 1 - tf.math.divide_no_nan(wrong, pixels * (len(classes) if overlapping else 2))

    def iou(both: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
        return tf.math.divide_no_nan(both, predicted + true - both)

    def dice(both: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
        return tf.math.divide_no_nan(2 * both, predicted + true)

    def mean(of: Callable) -> Callable:
        def over_classes(both: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
            occurring = tf.cast(predicted + true > 0, tf.float64)
            return tf.math.divide_no_nan(tf.reduce_sum(of(both, predicted, true, pixels)), tf.reduce_sum(occurring))

        return over_classes

    def one(of: Callable, number: int) -> Callable:
        return lambda *counts: of(*counts)[number]

    scores = {"pixel_accuracy": pixel_accuracy, "mean_iou": mean(iou), "mean_dice": mean(dice)}
    for number, name in enumerate(classes):
        scores |= {f"iou_{name}": one(iou, number), f"dice_{name}": one(dice, number)}
    return [MaskScore(name, len(classes), masks_of, score) for name, score in scores.items()]


def border_weights(class_ids: np.ndarray, border: Border) -> np.ndarray:
    """The weight map of Ronneberger et al. 2015, equation (2): 1 + w0 * exp(-(d1 + d2)^2 / (2 sigma^2)), with d1 and
    d2 the distances in pixels to the nearest and the second nearest object. Objects are the 4-connected regions of
    all classes but the first.

    Args:
        class_ids: uint8 [N, H, W]; pixels that are `IGNORED` belong to no object and weigh 0.

    Returns:
        float32 [N, H, W], from 1 up to 1 + `border.weight`.
    """
    weights = np.ones(class_ids.shape, np.float32)
    for ids, weight in zip(class_ids, weights, strict=True):
        objects, count = ndimage.label((ids > 0) & (ids != IGNORED))
        if count < 2:
            continue
        distance, nearest = ndimage.distance_transform_edt(objects == 0, return_indices=True)
        owner = objects[tuple(nearest)]
        # The second nearest object of a pixel is the nearest one without its owner: looked for around the owner only.
        reach = int(REACH * border.sigma)
        for number, box in enumerate(ndimage.find_objects(objects), start=1):
            around = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
            others = (objects[around] != 0) & (objects[around] != number)
            if not others.any():
                continue
            second = ndimage.distance_transform_edt(~others)
            near = (owner[around] == number) & (objects[around] == 0)
            apart = (distance[around] + second)[near]
            weight[around][near] += border.weight * np.exp(-(apart**2) / (2 * border.sigma**2))
    weights[class_ids == IGNORED] = 0
    return weights


def adapted_rand_error(true: np.ndarray, predicted: np.ndarray) -> float:
    """1 - F score of the pairs of pixels that lie in one object: 0 where the objects are the same (scikit-image's
    `adapted_rand_error`); pixels outside the true objects do not count.

    Args:
        true, predicted: bool [H, W], whose 4-connected regions are the objects.
    """
    objects, found = (ndimage.label(mask)[0] for mask in (true, predicted))
    if not objects.any():
        return float(found.any())
    with np.errstate(invalid="ignore"):  # 0 / 0 where every object is a single pixel
        return float(np.nan_to_num(metrics.adapted_rand_error(objects, found)[0], nan=1.0))
