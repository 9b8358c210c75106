"""The statistics of batch normalization, measured after training."""

from __future__ import annotations

from etils import epy

from zoo import tasks
from zoo.data import Split
from zoo.training.batches import evaluation_batches

with epy.lazy_imports():
    import keras
    import tensorflow as tf

EXAMPLES_TO_MEASURE = 10_000  # of the training data; with 1,000 samples generators mix the classes worse


def measure_normalization(task: tasks.Task, model: keras.Model, split: Split) -> None:
    """Measure the means and variances of batch normalization on images without augmentation: those that training keeps
    are of augmented images, whose noise interpolation has smoothed, and mostly of the last few batches."""
    layers = [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return
    momenta, seen = [layer.momentum for layer in layers], 0
    for number, (inputs, _) in enumerate(
        evaluation_batches(task, split.labeled().sample(EXAMPLES_TO_MEASURE)), start=1
    ):
        rows = len(tf.nest.flatten(inputs)[0])
        seen += rows
        for layer in layers:
            layer.momentum = 1 - rows / seen  # the mean over all images
        task.run_in_training_mode(model, inputs, number)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def flat_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of its sub-models, each once."""
    found: dict[int, keras.layers.Layer] = {}
    for layer in model.layers:
        for one in flat_layers(layer) if isinstance(layer, keras.Model) else [layer]:
            found[id(one)] = one
    return [*found.values()]
