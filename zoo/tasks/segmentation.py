"""Segmentation of images: one class a pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import ImageTask, Network, Signatures, image_shape, loss_named
from zoo.tasks.classification import require_labels

with epy.lazy_imports():
    import keras
    import tensorflow as tf

# Of masks, one-hot [B, H, W, K], and logits: a loss a pixel, or one a class of all pixels.
LOSSES: dict[str, Callable] = {
    "cross_entropy": lambda masks, logits: keras.losses.categorical_crossentropy(masks, logits, from_logits=True),
    # gamma of Lin et al. 2017, Focal Loss for Dense Object Detection, section 4.1; no class weighs more than another
    "focal": lambda masks, logits: keras.losses.categorical_focal_crossentropy(
        masks, logits, alpha=1.0, gamma=2.0, from_logits=True
    ),
    "dice": lambda masks, logits: keras.losses.dice(masks, tf.nn.softmax(logits), axis=(0, 1, 2)),
    # 1 - intersection over union: Tversky's index counts what is missed and what is too much alike then
    "jaccard": lambda masks, logits: keras.losses.tversky(
        masks, tf.nn.softmax(logits), alpha=1.0, beta=1.0, axis=(0, 1, 2)
    ),
}


def mask_loss(names: str, task: str) -> Callable:
    """The sum of the losses whose names a plus sign joins: each the mean over pixels, or over classes, which count
    alike then, however few pixels they have."""
    parts = [loss_named(name, LOSSES, task) for name in names.split("+")]
    return lambda masks, logits: sum(tf.reduce_mean(part(masks, logits)) for part in parts)


@dataclasses.dataclass(frozen=True)
class Segmentation(ImageTask):
    """Images [B, H, W, C] of any height and width to one of K classes a pixel."""

    monitor = "val_mean_iou"
    metric = "mean_iou"
    masked = True

    @classmethod
    def from_data(
        cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any
    ) -> Segmentation:
        require_labels(data.splits["train"], 3, "a mask for each image")
        shape, preprocessing = image_shape(spec, input_shape, data.shape[-1])
        return cls(spec, shape, data.classes, preprocessing=preprocessing, arguments=arguments)

    def examples(self, split: Split) -> tuple[np.ndarray, ...]:
        return split.inputs, require_labels(split, 3, "a mask for each image")

    def network_batch(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[Any, Any]:
        return pre.apply(images, self.preprocessing, self.channels), tf.one_hot(masks, len(self.classes))

    def compile(self, model: keras.Model, recipe: Recipe, make_optimizer: Callable, **options: Any) -> Any:
        loss = mask_loss(recipe.loss, self.spec.task)
        metrics = [
            keras.metrics.CategoricalAccuracy(name="pixel_accuracy"),
            keras.metrics.OneHotMeanIoU(len(self.classes), name="mean_iou"),
        ]
        model.compile(make_optimizer(), loss=loss, metrics=metrics, jit_compile=False, **options)
        model.optimizer.build(model.trainable_variables)
        return model

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)

        def segment(images: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = tf.nn.softmax(network(pre.apply(images, self.preprocessing, self.channels)))
            return {"probabilities": probabilities, "class_ids": tf.argmax(probabilities, -1)}

        images = tf.TensorSpec([None, None, None, self.channels], tf.uint8, "images")
        return {"serving_default": self._function(segment, images=images)}

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        class_ids = outputs["class_ids"][0]
        return {"shares": {name: float(np.mean(class_ids == number)) for number, name in enumerate(self.classes)}}

    def golden_inputs(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        return {"serving_default": {"images": self.golden_images(count)}}
