"""From examples in memory to batches for `fit`: shuffled, augmented and repeatable from any epoch on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from etils import epy

from zoo.data import Split
from zoo.errors import ZooError
from zoo.recipe import Recipe

with epy.lazy_imports():
    import tensorflow as tf

    from zoo.data import augmentation as augmentation_ops

if TYPE_CHECKING:
    from zoo.tasks import Task

LARGEST_BATCH = 2**20  # pixels that a network is measured on at once


def training_batches(
    task: Task, split: Split, recipe: Recipe, *, seed: int, first_epoch: int = 0, replicas: int = 1
) -> tuple[tf.data.Dataset, int]:
    """Batches of all epochs from `first_epoch` on, one after the other, and how many make an epoch.

    The order of an epoch follows from (seed, epoch), the augmentation of a batch from (seed, epoch, index): epochs
    differ, runs repeat, a resumed run goes on as if it had not stopped, whatever the number of parallel calls.

    Raises:
        ZooError: where a batch cannot be shared evenly among the replicas.
    """
    arrays = [tf.constant(array) for array in task.training_examples(split, recipe)]
    patches, copies = recipe.augmentation.patches, augmentation_ops.expansion(recipe.augmentation)
    if patches and not task.masked:
        raise ZooError(f"patches are drawn from images with masks: {task.spec.task} takes whole examples")
    examples = len(arrays[0])
    batch_size = min(recipe.batch_size, examples * copies // replicas * replicas)
    if batch_size % replicas or not batch_size:
        raise ZooError(
            f"a batch of {batch_size or examples} cannot be shared evenly among {replicas} devices: "
            "choose another batch_size or fewer devices"
        )
    steps = examples * copies // batch_size  # a shorter last batch would weigh more, and starve a replica
    varied = recipe.augmentation != type(recipe.augmentation)(fill=recipe.augmentation.fill, patches=patches)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(examples * copies), tf.stack([seed, epoch]))
        batches = tf.reshape(order[: steps * batch_size], [steps, batch_size])
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), tf.range(steps), batches))

    @tf.autograph.experimental.do_not_convert  # an error of ours stays itself
    def load_batch(epoch: tf.Tensor, step: tf.Tensor, index: tf.Tensor) -> tuple:
        key = tf.random.fold_in(tf.random.fold_in(tf.stack([seed, 0]), epoch), step)
        if patches:
            batch = augmentation_ops.random_patches(arrays, index % examples, key, patches, len(task.classes))
        else:
            batch = tuple(tf.gather(array, index % examples) for array in arrays)
        if recipe.augmentation.expand_shift:
            batch = task.shift(batch, index // examples)
        if varied:
            batch = task.augment(batch, key, recipe.augmentation)
        return task.network_batch(*batch)

    epochs = tf.data.Dataset.range(first_epoch, recipe.epochs, output_type=tf.int32)
    batches = epochs.flat_map(epoch_batches).map(load_batch, tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE), steps


def fitting_batch(shape: tuple[int, ...], batch_size: int) -> int:
    """`batch_size`, or fewer where the images of an array [N, H, W, ...] are large; at least 1."""
    return max(min(batch_size, LARGEST_BATCH // math.prod(shape[1:3])), 1)


def evaluation_batches(task: Task, split: Split, *, batch_size: int = 256, replicas: int = 1) -> tf.data.Dataset:
    """Batches of the split in its own order, all examples of it: `batch_size`, or fewer where they are large.

    The first batch is shared evenly among the replicas, since Keras averages it over them before it begins, and the
    last leaves none of them without an example, since TensorFlow would abort.

    Raises:
        ZooError: for too few examples to do so.
    """
    arrays = task.examples(split)
    examples = len(arrays[0])
    batch_size = max(fitting_batch(arrays[0].shape, batch_size), replicas)

    def feeds_all(rest: int) -> bool:
        """Each replica gets as many, rounded up, while there are any."""
        return rest == 0 or (replicas - 1) * math.ceil(rest / replicas) < rest

    fitting = (
        size
        for size in range(min(batch_size, examples) // replicas * replicas, 0, -replicas)
        if feeds_all(examples % size)
    )
    size = next(fitting, None)
    if size is None:
        raise ZooError(f"{examples} examples cannot be shared among {replicas} devices: validate on more")
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(size)
    return dataset.map(task.network_batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
