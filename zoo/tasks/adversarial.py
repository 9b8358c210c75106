"""The training of two networks against each other, as Keras models with a train step of their own."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from zoo import layers as zoo_layers
from zoo.errors import ZooError
from zoo.options import GenerationOptions
from zoo.recipe import Recipe
from zoo.tasks import pictures
from zoo.tasks.losses import shared
from zoo.tasks.sample_metrics import FrechetDistance, feature_function


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """The losses of two networks as functions of the discriminator's logits [B, 1].

    Args:
        real: of the discriminator, of the logits of real images and their target, 1 or less.
        generated: of the discriminator, of the logits of generated images.
        generator: of the generator, of the same logits.
        smooths: whether the target of real images may be below 1.
    """

    real: Callable[[tf.Tensor, float], tf.Tensor]
    generated: Callable[[tf.Tensor], tf.Tensor]
    generator: Callable[[tf.Tensor], tf.Tensor]
    smooths: bool = True


LOSSES = {
    # Goodfellow et al. 2014, section 3: the generator maximizes log D(G(z)); a target below 1 is the one-sided label
    # smoothing of Salimans et al. 2016, section 3.4. The cross-entropy of a logit x and a target t: softplus(x) - t x.
    "non_saturating": AdversarialLoss(
        lambda x, target: tf.nn.softplus(x) - target * x, tf.nn.softplus, lambda x: tf.nn.softplus(-x)
    ),
    # Lim and Ye 2017; Miyato et al. 2018, equations (16) and (17)
    "hinge": AdversarialLoss(lambda x, _: tf.nn.relu(1 - x), lambda x: tf.nn.relu(1 + x), lambda x: -x, smooths=False),
    # Mao et al. 2017, equation (9): a = 0, b = c = 1
    "least_squares": AdversarialLoss(
        lambda x, target: (x - target) ** 2 / 2, lambda x: x**2 / 2, lambda x: (x - 1) ** 2 / 2
    ),
}


def check_own_step(name: str, recipe: Recipe, loss: Any, metrics: Iterable[Any]) -> None:
    """Raises ZooError for what a network with a train step of its own cannot follow."""
    if loss is not None or list(metrics):
        raise ZooError(f"{name} has a train step of its own: it takes no Keras loss or metrics")
    if recipe.precision == "mixed_float16":
        raise ZooError(f"{name} has no loss scaling, which mixed_float16 needs: use mixed_bfloat16")


class TwoNetworks(keras.Model):
    """A generator and a discriminator with an optimizer for each, trained by the subclass' `train_step`.

    Noise is drawn statelessly from the step and the replica: each replica has its own noise, a resumed run the same.
    """

    def __init__(self, generator: keras.Model, discriminator: keras.Model, names: Sequence[str]) -> None:
        super().__init__(name="adversarial_trainer")
        self.generator, self.discriminator = generator, discriminator
        self.built = True  # otherwise Keras calls it to find out, under a strategy
        self.trackers = [keras.metrics.Mean(name=name) for name in names]

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any, **options: Any) -> None:
        super().compile(jit_compile=False, **options)
        self.optimizers = [generator_optimizer, discriminator_optimizer]
        # what keras.callbacks.SwapEMAWeights and, under a strategy, Keras itself read
        self.optimizer = types.SimpleNamespace(optimizers=self.optimizers, built=True)
        for optimizer, network in zip(self.optimizers, self.networks, strict=True):
            optimizer.build(network.trainable_variables)

    @property
    def networks(self) -> list[keras.Model]:
        return [self.generator, self.discriminator]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.trackers

    @property
    def step(self) -> tf.Tensor:
        """The number of the generator's updates so far."""
        return self.optimizers[0].iterations.value

    def seed(self, step: tf.Tensor) -> tf.Tensor:
        """The seed, int32 [2], of what is drawn in this step on this replica."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.stack([tf.cast(step, tf.int32), tf.cast(replica, tf.int32)])

    def latents(self, count: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Standard normal noise [count, Z] of this step and this replica."""
        width = self.generator.inputs[0].shape[-1]
        return tf.random.stateless_normal([count, width], self.seed(step))

    def update(self, network: keras.Model, loss: tf.Tensor, tape: tf.GradientTape) -> None:
        """One step of the network's optimizer down the gradient of a loss, the mean over this replica's examples."""
        optimizer = self.optimizers[self.networks.index(network)]
        variables = [variable.value for variable in network.trainable_variables]
        optimizer.apply(tape.gradient(loss, variables), network.trainable_variables)

    def track(self, count: tf.Tensor, *values: tf.Tensor) -> dict[str, tf.Tensor]:
        """The means over the epoch so far, by the names of the trackers."""
        for tracker, value in zip(self.trackers, values, strict=True):
            tracker.update_state(value, sample_weight=count)
        return {tracker.name: tracker.result() for tracker in self.trackers}


class AdversarialTrainer(TwoNetworks):
    """Goodfellow et al. 2014, algorithm 1, on batches of images [B, H, W, C], or of images and one-hot labels [B, K].

    A step updates the discriminator on each of `discriminator_steps` parts of the batch, and the generator, with the
    last part, against the discriminator before that part's update.

    A generator with a second input is given labels there. A discriminator with a second input takes them too (Mirza and
    Osindero 2014): they are those of the real images. Otherwise they are codes that are drawn, and the discriminator
    has two further outputs: the logits of the code, and the values of the first latents as `zoo.layers.to_uniform`
    maps them (Chen et al. 2016, section 5).

    Args:
        loss: a key of `LOSSES`.
        pixels: converts the networks' images to images [B, H, W, C] of 0..255.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        loss: str,
        options: GenerationOptions,
        pixels: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        super().__init__(generator, discriminator, ("loss", "generator_loss", "discriminator_loss"))
        self.adversarial, self.options, self.pixels = LOSSES[loss], options, pixels
        self.categories = generator.inputs[1].shape[-1] if len(generator.inputs) > 1 else 0
        self.is_conditional = len(discriminator.inputs) > 1
        self.features = feature_function()
        self.distance = FrechetDistance()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self.trackers, self.distance]

    def generated(self, noise: tf.Tensor, labels: tf.Tensor | None, training: bool) -> tf.Tensor:
        return self.generator(noise if labels is None else [noise, labels], training=training)

    def judged(self, images: tf.Tensor, labels: tf.Tensor | None, training: bool) -> list[tf.Tensor]:
        """The discriminator's outputs in float32, the logits [B, 1] first."""
        outputs = self.discriminator([images, labels] if self.is_conditional else images, training=training)
        return [tf.cast(one, tf.float32) for one in (outputs if isinstance(outputs, list | tuple) else [outputs])]

    def labels_of(self, data: Any, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The batch's images, and the labels [B, K] of the images to generate: the batch's own, or random codes."""
        if isinstance(data, tuple | list):
            return data[0], data[1]
        if not self.categories:
            return data, None
        drawn = tf.random.stateless_uniform([tf.shape(data)[0]], self.seed(step), 0, self.categories, tf.int32)
        return data, tf.one_hot(drawn, self.categories)

    def losses_of(
        self, images: tf.Tensor, labels: tf.Tensor | None, noise: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The losses of the generator and of the discriminator, means over the batch."""
        real, *_ = self.judged(images, labels, training)
        fake, *recognized = self.judged(self.generated(noise, labels, training), labels, training)
        generator_loss = tf.reduce_mean(self.adversarial.generator(fake))
        real_loss = tf.reduce_mean(self.adversarial.real(real, self.options.real_target))
        discriminator_loss = real_loss + tf.reduce_mean(self.adversarial.generated(fake))
        if recognized:
            information = self.information_loss(labels, noise, *recognized)
            return generator_loss + information, discriminator_loss + information
        return generator_loss, discriminator_loss

    def information_loss(
        self, labels: tf.Tensor | None, noise: tf.Tensor, logits: tf.Tensor, values: tf.Tensor
    ) -> tf.Tensor:
        """The negative lower bound of the mutual information of codes and images, but for a constant (Chen et al. 2016,
        equation (5)): cross-entropy of the category, and for the values that of a normal distribution of variance 1."""
        category = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
        codes = zoo_layers.to_uniform(noise[:, : values.shape[-1]])
        squares = tf.reduce_mean(tf.reduce_sum((codes - values) ** 2, -1)) / 2
        return self.options.information * category + self.options.information_continuous * squares

    def gradient_penalty(self, images: tf.Tensor, labels: tf.Tensor | None, step: tf.Tensor) -> tf.Tensor:
        """R1 of Mescheder et al. 2018, equation (9), in every `r1_every`-th step and then as many times as large
        (Karras et al. 2020, section 3.1); of the discriminator in inference mode."""

        def penalty() -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(images)
                logits, *_ = self.judged(images, labels, training=False)
            gradients = tf.cast(tape.gradient(logits, images), tf.float32)
            squares = tf.reduce_sum(gradients**2, axis=range(1, len(images.shape)))
            return self.options.r1 / 2 * self.options.r1_every * tf.reduce_mean(squares)

        return tf.cond(step % self.options.r1_every == 0, penalty, lambda: 0.0)

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        parts = self.options.discriminator_steps
        first = tf.cast(self.step, tf.int32) * parts
        images, labels = self.labels_of(data[0], first)
        count = tf.shape(images)[0] // parts
        for number in range(parts):
            part = slice(number * count, (number + 1) * count)
            own, own_labels = images[part], None if labels is None else labels[part]
            with tf.GradientTape(persistent=True) as tape:
                noise = self.latents(count, first + number)
                losses = self.losses_of(own, own_labels, noise, training=True)
                generator_loss, discriminator_loss = map(shared, losses)
                if self.options.r1:
                    discriminator_loss += shared(self.gradient_penalty(own, own_labels, first + number))
            if number == parts - 1:
                self.update(self.generator, generator_loss, tape)
            self.update(self.discriminator, discriminator_loss, tape)
        return self.track(count, sum(losses), *losses)

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        step = -1 - tf.cast(self.distance.seen.value, tf.int32)  # other noise in each batch, and than in training
        images, labels = self.labels_of(data[0], step)
        count = tf.shape(images)[0]
        noise = self.latents(count, step)
        losses = self.losses_of(images, labels, noise, training=False)
        pictures = (self.pixels(one) for one in (images, self.generated(noise, labels, training=False)))
        self.distance.update_state(*(self.features(one)[0] for one in pictures))
        return {**self.track(count, sum(losses), *losses), self.distance.name: self.distance.result()}


class SampleGrids(keras.callbacks.Callback):
    """Writes a picture of samples after each epoch, and at the end of the training all of them as an animation.

    Args:
        write: writes the picture of an epoch, counted from 1, by the network's present weights.
        folder: where it does so; the animation is written beside it.
    """

    def __init__(self, write: Callable[[int], None], folder: Path) -> None:
        super().__init__()
        self.write, self.folder, self.epoch = write, folder, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch + 1

    def on_test_end(self, logs: dict | None = None) -> None:
        self.write(self.epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        frames = [np.asarray(Image.open(file, formats=("PNG",))) for file in sorted(self.folder.glob("epoch-*.png"))]
        frames = [frame[..., None] if frame.ndim == 2 else frame for frame in frames]
        pictures.write(self.folder.with_suffix(".gif"), frames, milliseconds=200)
