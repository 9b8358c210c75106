"""The training of two networks against each other, as one Keras model with its own train step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class AdversarialTrainer(keras.Model):
    """Goodfellow et al. 2014, algorithm 1 with one discriminator step, both networks updated from one batch.

    The noise is drawn statelessly from the step and the replica: each replica has its own noise, a resumed run the
    same.
    """

    def __init__(self, generator: keras.Model, discriminator: keras.Model) -> None:
        super().__init__(name="adversarial_trainer")
        self.generator, self.discriminator = generator, discriminator
        self.built = True  # otherwise Keras calls it to find out, under a strategy
        self.cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any, **options: Any) -> None:
        super().compile(jit_compile=False, **options)
        self.optimizers = [generator_optimizer, discriminator_optimizer]
        for optimizer, network in zip(self.optimizers, self.networks, strict=True):
            optimizer.build(network.trainable_variables)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "generator_loss", "discriminator_loss")]

    @property
    def networks(self) -> list[keras.Model]:
        return [self.generator, self.discriminator]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.trackers

    def latents(self, count: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Standard normal noise [count, Z] of this step and this replica."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.stack([tf.cast(step, tf.int32), tf.cast(replica, tf.int32)])
        return tf.random.stateless_normal([count, self.generator.input_shape[-1]], seed)

    def losses_of(self, images: tf.Tensor, noise: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The non-saturating loss of the generator and the loss of the discriminator (section 3)."""
        real = self.discriminator(images, training=training)
        fake = self.discriminator(self.generator(noise, training=training), training=training)
        ones, zeros = tf.ones_like(real), tf.zeros_like(fake)
        return self.cross_entropy(ones, fake), self.cross_entropy(ones, real) + self.cross_entropy(zeros, fake)

    def track(self, count: tf.Tensor, generator_loss: tf.Tensor, discriminator_loss: tf.Tensor) -> dict[str, tf.Tensor]:
        # Keras' losses are already divided by the replicas, so that gradients add up; the values shown are not.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        values = [generator_loss + discriminator_loss, generator_loss, discriminator_loss]
        for metric, value in zip(self.metrics, values, strict=True):
            metric.update_state(value * replicas, sample_weight=count)
        return {metric.name: metric.result() for metric in self.metrics}

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        images = data[0]
        noise = self.latents(tf.shape(images)[0], self.optimizers[0].iterations.value)
        with tf.GradientTape(persistent=True) as tape:
            losses = self.losses_of(images, noise, training=True)
        for network, optimizer, loss in zip(self.networks, self.optimizers, losses, strict=True):
            variables = [variable.value for variable in network.trainable_variables]
            optimizer.apply(tape.gradient(loss, variables), network.trainable_variables)
        return self.track(tf.shape(images)[0], *losses)

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        noise = self.latents(tf.shape(data[0])[0], tf.constant(-1))
        return self.track(tf.shape(data[0])[0], *self.losses_of(data[0], noise, training=False))
