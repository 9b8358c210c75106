"""Classification of images of which few have labels: a classifier that is trained against a generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Split
from zoo.errors import ZooError
from zoo.options import ClassificationOptions, TaskOptions
from zoo.recipe import Augmentation, Recipe
from zoo.tasks.classification import Classification, require_labels

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.tasks import adversarial, feature_matching, losses

if TYPE_CHECKING:
    from zoo.tasks.feature_matching import FeatureMatchingTrainer

LOSSES = {"feature_matching": lambda: feature_matching.FeatureMatchingTrainer}


@dataclasses.dataclass(frozen=True)
class SemiSupervisedClassification(Classification):
    """Images [B, H, W, C] to one of K classes, by the sub-model `discriminator` of a model that also has a `generator`.

    Training uses all images, those without a label too; evaluation those with one.
    """

    one_class_each = False

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        """For training a row has an image, whether it has a label or not, and beside it an image that has one, with its
        label: each labeled image is there equally often."""
        labeled = split.labeled()
        if options is None:
            return labeled.inputs, require_labels(labeled, "a label for each image")
        if not len(labeled):
            raise ZooError(f"{self.spec.name} needs a label for at least one image")
        repeated = np.arange(len(split)) % len(labeled)
        return split.inputs, labeled.inputs[repeated], require_labels(labeled, "a label for some images")[repeated]

    def augment(
        self, batch: tuple, seed: tf.Tensor, augmentation: Augmentation, copy: tf.Tensor, turn: tf.Tensor
    ) -> tuple:
        images, labeled, labels = batch
        (images,) = super().augment((images,), seed, augmentation, copy, turn)
        (labeled,) = super().augment((labeled,), tf.random.fold_in(seed, 4), augmentation, copy, turn)
        return images, labeled, labels

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, Any]:
        *images, labels = batch
        inputs = tuple(pre.apply(one, self.preprocessing, self.channels) for one in images)
        return inputs if len(inputs) > 1 else inputs[0], tf.one_hot(labels, len(self.classes))

    def compile(
        self,
        model: keras.Model,
        recipe: Recipe,
        make_optimizer: Callable[[], Any],
        *,
        loss: Any = None,
        metrics: Iterable[Any] = (),
        **options: Any,
    ) -> FeatureMatchingTrainer:
        adversarial.check_own_step(self.spec.name, recipe, loss, metrics)
        kind = losses.named(LOSSES, recipe.loss, self.spec.task)()
        assert isinstance(recipe.options, ClassificationOptions)
        for key in ("label_smoothing", "class_weight", "perturbation"):
            if getattr(recipe.options, key):
                raise ZooError(f"the loss {recipe.loss} has no {key}: leave it out")
        if recipe.options.loss_weights != (1.0,):
            raise ZooError(f"{self.spec.name} has one output: leave loss_weights out")
        trainer = kind(model.get_layer("generator"), model.get_layer("discriminator"), self.spec.features[-1])
        of_generator, of_discriminator = make_optimizer(), make_optimizer()
        of_generator.use_ema = False  # the average is for the network that is kept
        trainer.compile(of_generator, of_discriminator, **options)
        return trainer

    def begin(self, trainer: FeatureMatchingTrainer, batches: tf.data.Dataset) -> None:
        (images, _), _ = next(iter(batches))
        feature_matching.initialize(trainer.discriminator, images)

    def served(self, model: keras.Model) -> keras.Model:
        return model.get_layer("discriminator")

    def run_in_training_mode(self, model: keras.Model, inputs: Any, number: int) -> None:
        width = model.get_layer("generator").inputs[0].shape[-1]
        model(tf.random.stateless_normal([tf.shape(inputs)[0], width], (number, 0)), training=True)
