"""Generation of images by a generator that was trained against a discriminator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import ImageTask, Network, Signatures, image_shape, loss_named

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.tasks import adversarial

LOSSES = {"non_saturating": True}


@dataclasses.dataclass(frozen=True)
class Generation(ImageTask):
    """Latents [B, Z] to images, by a model with the sub-models `generator` and `discriminator`."""

    # two networks trained against each other: neither averaged nor computed in less, no epoch better than the last
    unused = (*ImageTask.unused, "label_smoothing", "ema", "precision", "patience")

    @classmethod
    def from_data(
        cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any
    ) -> Generation:
        shape, preprocessing = image_shape(spec, input_shape, data.shape[-1])
        return cls(spec, shape, preprocessing=preprocessing, arguments=arguments)

    def examples(self, split: Split) -> tuple[np.ndarray, ...]:
        return (split.inputs,)

    def network_batch(self, images: tf.Tensor) -> tuple[Any, Any]:
        images = pre.apply(images, self.preprocessing, self.channels)
        return images, tf.zeros([tf.shape(images)[0]])  # Keras' progress needs a target; the trainer reads none

    def compile(self, model: keras.Model, recipe: Recipe, make_optimizer: Callable, **options: Any) -> Any:
        loss_named(recipe.loss, LOSSES, self.spec.task)
        trainer = adversarial.AdversarialTrainer(model.get_layer("generator"), model.get_layer("discriminator"))
        trainer.compile(make_optimizer(), make_optimizer(), **options)
        return trainer

    def optimizers(self, trainer: adversarial.AdversarialTrainer) -> list[Any]:
        return [trainer.generator_optimizer, trainer.discriminator_optimizer]

    def numeric_network(self, model: keras.Model) -> keras.Model:
        return model.get_layer("generator")

    def _latents(self, count: int) -> np.ndarray:
        width = {**self.spec.arguments, **self.arguments}["latents"]
        return np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)

    def network_inputs(self, count: int) -> np.ndarray:
        return self._latents(count)

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)
        width = self._latents(1).shape[1]
        scale = self.preprocessing.full_scale / (self.preprocessing.high - self.preprocessing.low)

        def from_latents(latents: tf.Tensor) -> dict[str, tf.Tensor]:
            images = tf.round((network(latents) - self.preprocessing.low) * scale)
            return {"images": tf.cast(tf.clip_by_value(images, 0.0, self.preprocessing.full_scale), tf.uint8)}

        def sample(count: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            return from_latents(tf.random.stateless_normal([count, width], tf.stack([seed, 0])))

        return {
            "serving_default": self._function(from_latents, tf.TensorSpec([None, width], tf.float32, "latents")),
            "sample": self._function(sample, tf.TensorSpec([], tf.int32, "count"), tf.TensorSpec([], tf.int32, "seed")),
        }

    def example(self, split: Split, directory: Path) -> str:
        return ""

    def read(self, words: str) -> np.ndarray:
        raise ZooError("a generator predicts nothing from a file: export it and call its signatures")

    def golden_inputs(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        return {
            "serving_default": {"latents": self._latents(count)},
            "sample": {"count": np.int32(count), "seed": np.int32(0)},
        }
