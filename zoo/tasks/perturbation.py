"""Adversarial training of classifiers of texts."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from zoo.errors import ZooError


class PerturbedEmbedding(keras.Model):
    """Trains a network on each batch as it is and, at the same time, with an embedding that makes its loss larger: the
    sum of both losses is minimized. While the embedding is frozen, training is as usual.

    Miyato, Dai and Goodfellow 2017, "Adversarial Training Methods for Semi-Supervised Text Classification", section 3.
    They move the vectors of each sentence by themselves; here the table of all words moves, as one step along the
    gradient of the batch's loss.

    Args:
        network: has one embedding layer.
        size: Euclidean norm of the step.

    Raises:
        ZooError: for a network with no embedding layer, or several.
    """

    def __init__(self, network: keras.Model, size: float) -> None:
        super().__init__()
        self.network, self.size = network, size
        tables = [layer.embeddings for layer in network.layers if isinstance(layer, keras.layers.Embedding)]
        if len(tables) != 1:
            raise ZooError(f"perturbation moves one embedding layer, {network.name} has {len(tables)}: leave it out")
        trained = network.trainable_variables
        self.place = next((place for place, one in enumerate(trained) if one is tables[0]), None)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.network(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        if self.place is None:
            return super().train_step(data)
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        variables, others = self.network.trainable_variables, self.network.non_trainable_variables

        def gradients(values: list[tf.Tensor]) -> tuple:
            with tf.GradientTape() as tape:
                tape.watch(values)
                outputs, states = self.network.stateless_call(values, [one.value for one in others], x, training=True)
                loss = self.compute_loss(x, y, outputs, weights, training=True)
                scaled = self.optimizer.scale_loss(loss)  # by 1 but for float16
            for variable, state in zip(others, states, strict=True):
                variable.assign(state)
            return outputs, loss, [tf.convert_to_tensor(one) for one in tape.gradient(scaled, values)]

        values = [tf.convert_to_tensor(variable.value) for variable in variables]
        outputs, loss, given = gradients(values)
        values[self.place] += self.size * tf.math.l2_normalize(given[self.place])
        _, _, perturbed = gradients(values)
        self.optimizer.apply([one + other for one, other in zip(given, perturbed, strict=True)], variables)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # by which Keras' losses are divided
        (tracker,) = (metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss * replicas, sample_weight=tf.shape(y)[0])
        return self.compute_metrics(x, y, outputs, weights)
