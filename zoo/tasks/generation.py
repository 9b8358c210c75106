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
from zoo.recipe import Recipe, TaskOptions
from zoo.spec import ModelSpec
from zoo.tasks.base import ImageTask, Item, Network, Signatures, Task, graph_function, image_shape

with epy.lazy_imports():
    import tensorflow as tf

    from zoo.tasks import adversarial, losses

if TYPE_CHECKING:
    import keras

LOSSES = {"non_saturating": True}


@dataclasses.dataclass(frozen=True)
class Generation(ImageTask):
    """Latents [B, Z] to images, by a model with the sub-models `generator` and `discriminator`."""

    @classmethod
    def from_data(cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any) -> Self:
        cls.check_inputs(data)
        shape, preprocessing = image_shape(spec, input_shape, data.shape[-1], data.background)
        return cls(spec, shape, preprocessing=preprocessing, arguments=arguments)

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        return (split.inputs,)

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, Any]:
        images = pre.apply(batch[0], self.preprocessing, self.channels)
        return images, tf.zeros([tf.shape(images)[0]])  # Keras' progress bar needs a target; the trainer reads none

    def compile(
        self,
        model: keras.Model,
        recipe: Recipe,
        make_optimizer: Callable[[], Any],
        *,
        loss: Any = None,
        metrics: Iterable[Any] = (),
        **options: Any,
    ) -> Any:
        if loss is not None or list(metrics):
            raise ZooError(f"{self.spec.name} has a train step of its own: it takes no Keras loss or metrics")
        if recipe.precision == "mixed_float16":
            raise ZooError(f"{self.spec.name} has no loss scaling, which mixed_float16 needs: use mixed_bfloat16")
        losses.named(LOSSES, recipe.loss, self.spec.task)
        trainer = adversarial.AdversarialTrainer(model.get_layer("generator"), model.get_layer("discriminator"))
        trainer.compile(make_optimizer(), make_optimizer(), **options)
        return trainer

    def served(self, model: keras.Model) -> keras.Model:
        return model.get_layer("generator")

    def run_in_training_mode(self, model: keras.Model, inputs: Any) -> None:
        noise = tf.random.stateless_normal([tf.shape(inputs)[0], self.latents], (0, 0))
        model(noise, training=True)
        model.get_layer("discriminator")(inputs, training=True)

    @property
    def latents(self) -> int:
        """Width of the generator's input."""
        return {**self.spec.arguments, **self.arguments}["latents"]

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)
        scale = self.preprocessing.full_scale / (self.preprocessing.high - self.preprocessing.low)

        def from_latents(latents: tf.Tensor) -> dict[str, tf.Tensor]:
            images = tf.round((network(latents) - self.preprocessing.low) * scale)
            return {"images": tf.cast(tf.clip_by_value(images, 0.0, self.preprocessing.full_scale), tf.uint8)}

        def sample(count: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            return from_latents(tf.random.stateless_normal([count, self.latents], tf.stack([seed, 0])))

        latents = tf.TensorSpec([None, self.latents], tf.float32, "latents")
        count, seed = (tf.TensorSpec([], tf.int32, name) for name in ("count", "seed"))
        return Signatures(
            {"serving_default": graph_function(from_latents, latents), "sample": graph_function(sample, count, seed)}
        )

    def example(self, split: Split, directory: Path) -> str:
        return ""

    def items(self, given: Any) -> list[Item]:
        return Task.items(self, given)

    def golden_inputs(self, count: int) -> dict[str, dict[str, Any]]:
        latents = np.random.default_rng(0).standard_normal((count, self.latents)).astype(np.float32)
        return {
            "serving_default": {"latents": latents},
            "sample": {"count": np.int32(count), "seed": np.int32(0)},
        }
