"""Classification of images: one class a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import ImageTask, Network, Signatures, Task, image_shape, loss_named

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo import layers as zoo_layers
    from zoo.tasks import losses

LOSSES: dict[str, Callable] = {
    "cross_entropy": lambda smoothing: keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    ),
    "binary_cross_entropy": lambda smoothing: keras.losses.BinaryCrossentropy(label_smoothing=smoothing),
    "quadratic": lambda smoothing: losses.QuadraticCost(),
    "rbf_map": lambda smoothing: losses.MapCriterion(),
}
SMOOTHED = ("cross_entropy", "binary_cross_entropy")  # the losses that labels can be smoothed for


def require_labels(split: Split, dims: int, what: str) -> np.ndarray:
    """The split's targets; raises ZooError unless they are an array of `dims` axes."""
    if split.targets is None or split.targets.ndim != dims:
        raise ZooError(f"this task needs {what} as targets; the data set has others or none")
    return split.targets


def class_outputs(task: Any, scores: tf.Tensor) -> dict[str, tf.Tensor]:
    """Scores [B, K] to `probabilities`, `class_ids` and `class_names`."""
    probabilities = zoo_layers.probabilities(scores, task.spec.scores)
    class_ids = tf.argmax(probabilities, -1, output_type=tf.int64)
    return {
        "probabilities": probabilities,
        "class_ids": class_ids,
        "class_names": tf.gather(tf.constant(task.classes), class_ids),
    }


def compile_classifier(task: Any, model: keras.Model, recipe: Recipe, make_optimizer: Callable, **options: Any) -> Any:
    """`model` compiled with the recipe's loss and the accuracy of its probabilities."""

    def accuracy(y_true: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return keras.metrics.categorical_accuracy(y_true, zoo_layers.probabilities(scores, task.spec.scores))

    loss = loss_named(recipe.loss, LOSSES, task.spec.task)(recipe.label_smoothing)
    if recipe.label_smoothing and recipe.loss not in SMOOTHED:
        raise ZooError(f"labels are smoothed for the losses {' and '.join(SMOOTHED)}, not for {recipe.loss}")
    metrics = [keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")]
    model.compile(make_optimizer(), loss=loss, metrics=metrics, jit_compile=False, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def class_summary(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The first example's class, its probability and the probabilities of all classes in order."""
    probabilities = outputs["probabilities"][0]
    return {
        "class": outputs["class_names"][0].decode(),
        "probability": float(probabilities.max()),
        "probabilities": [float(value) for value in probabilities],
    }


@dataclasses.dataclass(frozen=True)
class Classification(ImageTask):
    """Images [B, H, W, C] to one of K classes."""

    metric = "accuracy"

    @classmethod
    def from_data(
        cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any
    ) -> Classification:
        require_labels(data.splits["train"], 1, "a label for each image")
        shape, preprocessing = image_shape(spec, input_shape, data.shape[-1])
        return cls(spec, shape, data.classes, preprocessing=preprocessing, arguments=arguments)

    @classmethod
    def joined(cls, spec: ModelSpec, members: Sequence[tuple[str, Task]], method: str | None) -> Classification:
        first, task = members[0]
        for label, other in members:
            if other.spec.task != spec.task or not other.preprocessing.size:
                raise ZooError(f"{label} is no classifier of pictures of one size: an ensemble joins such")
            read = (other.preprocessing.size, other.channels)
            if (other.classes, read) != (task.classes, (task.preprocessing.size, task.channels)):
                raise ZooError(
                    f"{label} and {first} do not fit: both must tell the same {len(task.classes)} classes apart and "
                    f"read pictures of {task.preprocessing.size[0]} x {task.preprocessing.size[1]} x {task.channels}"
                )
        return cls(
            spec,
            (*task.preprocessing.size, task.channels),
            task.classes,
            preprocessing=dataclasses.replace(spec.preprocessing, size=task.preprocessing.size),
            arguments={
                "members": [other.describe() for _, other in members],
                "method": method or spec.arguments["method"],
            },
        )

    def examples(self, split: Split) -> tuple[np.ndarray, ...]:
        return split.inputs, require_labels(split, 1, "a label for each image")

    def network_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[Any, Any]:
        return pre.apply(images, self.preprocessing, self.channels), tf.one_hot(labels, len(self.classes))

    def compile(self, model: keras.Model, recipe: Recipe, make_optimizer: Callable, **options: Any) -> Any:
        return compile_classifier(self, model, recipe, make_optimizer, **options)

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)

        def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return class_outputs(self, network(pre.apply(images, self.preprocessing, self.channels)))

        def from_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            return class_outputs(self, network(pre.decode(encoded, self.preprocessing, self.channels)))

        images = tf.TensorSpec([None, None, None, self.channels], tf.uint8, "images")
        return {
            "serving_default": self._function(from_images, images),
            "encoded_images": self._function(from_encoded, tf.TensorSpec([None], tf.string, "encoded")),
        }

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return class_summary(outputs)

    def golden_inputs(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        images = self.golden_images(count)
        encoded = np.array([tf.io.encode_png(image).numpy() for image in images])
        return {"serving_default": {"images": images}, "encoded_images": {"encoded": encoded}}
