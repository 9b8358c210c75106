"""The training of a classifier on few labels, against a generator that matches its features."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo import layers as zoo_layers
from zoo.tasks.adversarial import TwoNetworks
from zoo.tasks.losses import shared


class FeatureMatchingTrainer(TwoNetworks):
    """Salimans et al. 2016, section 5, on pairs of images without and images with a label, and these labels.

    Generated images are class K + 1, whose logit is fixed to 0: an image is real with probability Z / (Z + 1) where Z
    is the sum of the exponentials of the K logits. The generator minimizes the squared distance of the mean features of
    generated and of real images (section 3.1).

    Args:
        features: name of the discriminator's layer whose outputs [B, F] are matched.
    """

    def __init__(self, generator: keras.Model, discriminator: keras.Model, features: str) -> None:
        super().__init__(generator, discriminator, ("loss", "generator_loss", "accuracy"))
        layer = discriminator.get_layer(features)
        self.both = keras.Model(discriminator.inputs, [discriminator.output, layer.output])

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        (unlabeled, labeled), targets = data[0], data[1]
        count = tf.shape(unlabeled)[0]
        step = 2 * tf.cast(self.step, tf.int32)
        generated = self.generator(self.latents(count, step), training=True)
        with tf.GradientTape() as tape:
            logits, of_unlabeled, of_generated = (
                tf.cast(self.discriminator(images, training=True), tf.float32)
                for images in (labeled, unlabeled, generated)
            )
            supervised = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
            real, fake = (tf.reduce_logsumexp(one, -1) for one in (of_unlabeled, of_generated))
            # -log(Z / (Z + 1)) of unlabeled and -log(1 / (Z + 1)) of generated images
            loss = supervised + 0.5 * tf.reduce_mean(tf.nn.softplus(-real)) + 0.5 * tf.reduce_mean(tf.nn.softplus(fake))
            share = shared(loss)
        self.update(self.discriminator, share, tape)
        with tf.GradientTape() as tape:
            _, matched = self.both(self.generator(self.latents(count, step + 1), training=True), training=True)
            _, wanted = self.both(unlabeled, training=True)
            difference = tf.reduce_mean(tf.cast(matched, tf.float32), 0) - tf.reduce_mean(
                tf.cast(wanted, tf.float32), 0
            )
            generator_loss = tf.reduce_mean(difference**2)
            share = shared(generator_loss)
        self.update(self.generator, share, tape)
        return self.track(count, loss, generator_loss, accuracy(targets, logits))

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        images, targets = data[0], data[1]
        logits = tf.cast(self.discriminator(images, training=False), tf.float32)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        scores = self.track(tf.shape(images)[0], loss, 0.0, accuracy(targets, logits))
        return {name: scores[name] for name in ("loss", "accuracy")}


def accuracy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The share of examples whose most probable class is the target's."""
    return tf.reduce_mean(keras.metrics.categorical_accuracy(targets, logits))


def initialize(network: keras.Model, images: tf.Tensor) -> None:
    """Set the scales and biases of weight-normalized layers by a batch, layer after layer (Salimans and Kingma 2016,
    section 3), with the noise that training has."""
    for layer in network.layers:
        if isinstance(layer, zoo_layers.WeightNormalizedDense):
            layer.initialize(keras.Model(network.inputs, layer.input)(images, training=True))
