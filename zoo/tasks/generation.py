"""Generation of images by a generator that is trained against a discriminator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.metrics import (
    CLASS_DIVERGENCE,
    CODE_ACCURACY,
    COVERAGE,
    DENSITY,
    FRECHET_DISTANCE,
    FRECHET_FLOOR,
    LABEL_ACCURACY,
    PRECISION,
    RECALL,
)
from zoo.options import GenerationOptions, TaskOptions
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import Batches, Item, Network, Signatures, Task, checked, graph_function
from zoo.tasks.classification import require_labels
from zoo.tasks.image_task import ImageTask, image_shape

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.tasks import adversarial, losses, pictures, sample_metrics

if TYPE_CHECKING:
    from zoo.tasks.adversarial import AdversarialTrainer

MOST_SAMPLES = 1_024  # in one call of the signature `sample`
PICTURED = 64  # samples in the grid of each epoch


@dataclasses.dataclass(frozen=True)
class Generation(ImageTask):
    """Latents [B, Z] to images, by a model with the sub-models `generator` and `discriminator`.

    A generator may have a second input of one-hot labels: the classes of the data where the spec has classes, otherwise
    a categorical code without a given meaning. See `zoo.tasks.adversarial.AdversarialTrainer`.
    """

    Options = GenerationOptions
    metrics = (
        *(FRECHET_DISTANCE, FRECHET_FLOOR, PRECISION, RECALL, DENSITY, COVERAGE),
        *(CLASS_DIVERGENCE, LABEL_ACCURACY, CODE_ACCURACY),
    )

    @classmethod
    def from_data(cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any) -> Self:
        cls.check_inputs(data)
        if spec.classes:
            require_labels(data.first, "a label for each image")
        shape, preprocessing = image_shape(spec, input_shape, data.shape[-1], data.background)
        return cls(spec, shape, data.classes if spec.classes else (), preprocessing=preprocessing, arguments=arguments)

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        if not self.classes:
            return (split.inputs,)
        return split.inputs, require_labels(split, "a label for each image")

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, Any]:
        images = pre.apply(batch[0], self.preprocessing, self.channels)
        target = tf.zeros([tf.shape(images)[0]])  # Keras' progress bar needs a target; the trainer reads none
        return (images, tf.one_hot(batch[1], len(self.classes))) if self.classes else images, target

    def compile(
        self,
        model: keras.Model,
        recipe: Recipe,
        make_optimizer: Callable[[], Any],
        *,
        loss: Any = None,
        metrics: Iterable[Any] = (),
        **options: Any,
    ) -> AdversarialTrainer:
        adversarial.check_own_step(self.spec.name, recipe, loss, metrics)
        own = recipe.options
        assert isinstance(own, GenerationOptions)
        losses.named(adversarial.LOSSES, recipe.loss, self.spec.task)
        if own.real_target != 1 and not adversarial.LOSSES[recipe.loss].smooths:
            raise ZooError(f"the loss {recipe.loss} has no target of real images: leave real_target out")
        if recipe.batch_size % own.discriminator_steps:
            raise ZooError(f"a batch of {recipe.batch_size} has no {own.discriminator_steps} equal parts")
        trainer = adversarial.AdversarialTrainer(
            model.get_layer("generator"), model.get_layer("discriminator"), recipe.loss, own, self.pixels
        )
        of_generator, of_discriminator = make_optimizer(), make_optimizer()
        of_discriminator.use_ema = False  # the average is for the network that is kept
        of_discriminator.learning_rate = of_discriminator.learning_rate * own.discriminator_rate
        trainer.compile(of_generator, of_discriminator, **options)
        return trainer

    def callbacks(self, model: keras.Model, directory: Path) -> list[Any]:
        """Writes a grid of the same latents after each epoch, and at the end all grids as an animation."""
        folder = directory / "samples"
        signatures = self.signatures(model)

        def write_grid(epoch: int) -> None:
            labels = {"labels": np.arange(PICTURED, dtype=np.int32) % self.categories} if self.categories else {}
            images = signatures["sample"](count=tf.constant(PICTURED), seed=tf.constant(0), **labels)["images"]
            folder.mkdir(exist_ok=True)
            pictures.write(folder / f"epoch-{epoch:04d}.png", [pictures.grid(images.numpy())])

        return [adversarial.SampleGrids(write_grid, folder)]

    def served(self, model: keras.Model) -> keras.Model:
        return model.get_layer("generator")

    def run_in_training_mode(self, model: keras.Model, inputs: Any, number: int) -> None:
        images, labels = inputs if self.classes else (inputs, None)
        count = tf.shape(images)[0]
        if self.categories and labels is None:
            labels = tf.one_hot(tf.range(count) % self.categories, self.categories)
        noise = tf.random.stateless_normal([count, self.latents], (number, 0))
        model(noise if labels is None else [noise, labels], training=True)
        model.get_layer("discriminator")([images, labels] if self.classes else images, training=True)

    @property
    def latents(self) -> int:
        """Width of the generator's input."""
        return {**self.spec.arguments, **self.arguments}["latents"]

    @property
    def categories(self) -> int:
        """Width of the generator's second input; 0 where it has none."""
        return len(self.classes) or {**self.spec.arguments, **self.arguments}.get("categories", 0)

    def pixels(self, images: tf.Tensor) -> tf.Tensor:
        """Images in the network's range to whole numbers 0..`full_scale`, float32."""
        scale = self.preprocessing.full_scale / (self.preprocessing.high - self.preprocessing.low)
        images = tf.round((tf.cast(images, tf.float32) - self.preprocessing.low) * scale)
        return tf.clip_by_value(images, 0.0, self.preprocessing.full_scale)

    def dataset_metrics(self, model: keras.Model, batches: Batches, options: Any) -> dict[str, float]:
        """Scores of as many samples as the split has images, see `zoo.tasks.sample_metrics`."""
        features, network = sample_metrics.feature_function(), self.network(model)

        @tf.function
        def measured(images: tf.Tensor, labels: Any, noise: tf.Tensor) -> tuple[Any, Any]:
            generated = network(noise if labels is None else [noise, labels])
            return features(self.pixels(images)), features(self.pixels(generated))

        rows: list[tuple[np.ndarray, ...]] = []
        for number, (inputs, _) in enumerate(batches()):
            images, labels = inputs if self.classes else (inputs, None)
            seed, count = (number, 1), len(images)
            if self.categories and labels is None:
                drawn = tf.random.stateless_uniform([count], seed, 0, self.categories, tf.int32)
                labels = tf.one_hot(drawn, self.categories)
            noise = tf.random.stateless_normal([count, self.latents], seed)
            (real, _), (generated, digits) = measured(images, labels, noise)
            given = np.zeros(count) if labels is None else labels.numpy().argmax(-1)
            rows.append((real.numpy(), generated.numpy(), digits.numpy().argmax(-1), given))
        real, generated, digits, given = map(np.concatenate, zip(*rows, strict=True))
        scores = {
            "frechet_floor": sample_metrics.frechet_floor(real),
            **sample_metrics.precision_and_recall(real, generated),
            **sample_metrics.density_and_coverage(real, generated),
            **sample_metrics.class_shares(digits),
        }
        if self.classes == tuple("0123456789"):  # those that the feature network reads
            scores["label_accuracy"] = float((digits == given).mean())
        elif self.categories and not self.classes:
            scores["code_accuracy"] = sample_metrics.matched_accuracy(given, digits, self.categories)
        return scores

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)

        def images_of(latents: tf.Tensor, labels: tf.Tensor | None) -> dict[str, tf.Tensor]:
            latents = self.bounded(latents, model)
            inputs = latents if labels is None else [latents, tf.one_hot(labels, self.categories)]
            return {"images": tf.cast(self.pixels(network(inputs)), tf.uint8)}

        def sampled(count: tf.Tensor, seed: tf.Tensor, labels: tf.Tensor | None) -> dict[str, tf.Tensor]:
            fits, message = (count >= 1) & (count <= MOST_SAMPLES), f"count must be from 1 to {MOST_SAMPLES}"
            if labels is not None:
                known = tf.reduce_all((labels >= 0) & (labels < self.categories))
                fits &= (tf.shape(labels)[0] == count) & known
                message += f", with as many labels from 0 to {self.categories - 1}"
            noise = tf.random.stateless_normal([checked(count, fits, message), self.latents], tf.stack([seed, 0]))
            return images_of(noise, labels)

        latents = tf.TensorSpec([None, self.latents], tf.float32, "latents")
        labels = tf.TensorSpec([None], tf.int32, "labels")
        count, seed = (tf.TensorSpec([], tf.int32, name) for name in ("count", "seed"))
        if not self.categories:
            return Signatures(
                {
                    "serving_default": graph_function(lambda latents: images_of(latents, None), latents),
                    "sample": graph_function(lambda count, seed: sampled(count, seed, None), count, seed),
                }
            )
        return Signatures(
            {
                "serving_default": graph_function(images_of, latents, labels),
                "sample": graph_function(sampled, count, seed, labels),
            }
        )

    def example(self, split: Split, directory: Path) -> str:
        return ""

    def items(self, given: Any) -> list[Item]:
        return Task.items(self, given)

    def golden_inputs(self, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        latents = np.random.default_rng(seed).standard_normal((count, self.latents)).astype(np.float32)
        labels = {"labels": np.arange(count, dtype=np.int32) % self.categories} if self.categories else {}
        return {
            "serving_default": {"latents": latents, **labels},
            "sample": {"count": np.int32(count), "seed": np.int32(seed), **labels},
        }
