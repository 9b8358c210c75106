"""From a data set in memory to batches for `fit`: shuffled, augmented and repeatable from any epoch on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from etils import epy

from zoo import registry
from zoo.data import Dataset, Split, streamed
from zoo.data import load as load_data
from zoo.data.sources import NAMED
from zoo.errors import ZooError
from zoo.options import ClassificationOptions, SegmentationOptions
from zoo.recipe import Augmentation, Recipe
from zoo.spec import ModelSpec
from zoo.tasks import ImageTask, Task, image_size

with epy.lazy_imports():
    import tensorflow as tf

    from zoo.data import augmentation as augmentation_ops

EXAMPLES_OF_COLORS = 1_000  # of the training data, by which color variations are measured
LARGEST_BATCH = 2**20  # pixels that a network is evaluated on at once


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of each batch that the devices of this machine take, where several machines train together: `own`
    replicas from number `first` on, of `replicas` on all machines. A replica takes equal parts, rounded up; the last
    one what is left."""

    first: int
    own: int
    replicas: int

    @classmethod
    def of(cls, context: tf.distribute.InputContext) -> Share:
        """The share of the machine that TensorFlow asks for its input."""
        own = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(context.input_pipeline_id * own, own, context.num_replicas_in_sync)

    def rows(self, count: Any) -> slice:
        """The rows of this machine among those of a batch of `count` examples."""
        part = -(-count // self.replicas)
        return slice(self.first * part, (self.first + self.own) * part)

    def each(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """For each batch of this machine's rows one batch for each of its replicas, in their order."""
        if self.own == 1:
            return batches

        def parts(*batch: Any) -> tf.data.Dataset:
            part = -(-tf.shape(tf.nest.flatten(batch)[0])[0] // self.own)
            numbers = tf.data.Dataset.range(self.own, output_type=tf.int32)
            return numbers.map(lambda number: _rows(batch, slice(number * part, (number + 1) * part)))

        return batches.flat_map(parts)


def _rows(batch: Any, rows: slice) -> Any:
    """Some rows of each tensor of a batch."""
    return tf.nest.map_structure(lambda tensor: tensor[rows], batch)


def load_for(
    spec: ModelSpec,
    input_shape: tuple | None,
    recipe: Recipe,
    data: Any,
    *,
    fold: tuple[int, int] | None = None,
    **options: Any,
) -> Dataset:
    """A data set as a network takes it: image files resized to its input, without the class that the recipe ignores and
    the labels that it leaves out.

    A user's own data set with the name of one that references report on gets another name: their scores do not compare.

    Args:
        fold: number and count, to get that fold of the data set, see `Dataset.fold`.
        options: further ones of `zoo.data.load`.
    """
    if fold is not None:
        options["hold_out"] = False
    ignored_class = recipe.options.ignored_class if isinstance(recipe.options, SegmentationOptions) else None
    dataset = load_data(
        data,
        image_size=image_size(spec, input_shape),
        crop=spec.preprocessing.fit == "crop",
        ignored_class=ignored_class,
        background=recipe.background,
        labels=spec.classes != 0,
        **options,
    )
    dataset = dataset if fold is None else dataset.fold(*fold)
    if isinstance(recipe.options, ClassificationOptions) and not dataset.whole:  # for evaluation alone all labels count
        few, seed = recipe.options.labels_per_class, recipe.options.labels_seed
        dataset = dataset if few is None else dataset.with_labels(few, seed)
    if dataset.own and dataset.name in {*NAMED, *registry.reported_datasets()}:
        return dataclasses.replace(dataset, name=f"{dataset.name}-own")
    return dataset


def training_batches(
    task: Task,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    first_epoch: int = 0,
    replicas: int = 1,
    share: Share | None = None,
    part: tuple[int, int] = (0, 1),
) -> tuple[tf.data.Dataset, int]:
    """Batches of all epochs from `first_epoch` on, one after the other, and the number of batches in an epoch.

    The order of an epoch depends on (seed, epoch) alone, the augmentation of a batch on (seed, epoch, index): epochs
    differ, runs repeat, and a resumed run continues exactly where it stopped, whatever the number of parallel calls.

    Args:
        share: yields one replica's rows after another's, of the same batches. Where nothing is drawn for a batch, the
            other machines' examples are not read; otherwise the whole batch is drawn, so that it is the same one.
        part: number and count, to yield only each count-th batch, beginning with that number, from 0.

    Raises:
        ZooError: where a batch cannot be shared evenly among the replicas.
    """
    arrays = [streamed.in_graph(array) for array in task.examples(split, recipe.options)]
    patches, copies = recipe.augmentation.patches, augmentation_ops.expansion(recipe.augmentation)
    if patches and not (isinstance(task, ImageTask) and task.has_masks):
        raise ZooError(f"patches are drawn from images with masks: {task.spec.task} takes whole examples")
    examples = len(arrays[0])
    batch_size = min(recipe.batch_size, examples * copies // replicas * replicas)
    if batch_size % replicas or not batch_size:
        raise ZooError(
            f"a batch of {batch_size or examples} cannot be shared evenly among {replicas} devices: "
            "choose another batch_size or fewer devices"
        )
    steps = examples * copies // batch_size  # a shorter last batch would weigh more, and starve a replica
    augmentation = recipe.augmentation
    if augmentation.on_inputs and not (isinstance(task, ImageTask) and task.one_class_each):
        raise ZooError(f"cutout and mixup are for images with one class each: {task.spec.task} has others")
    if augmentation.color_pca and isinstance(task, ImageTask):
        colors = augmentation_ops.fitted(
            augmentation.color_pca, np.asarray(split.sample(EXAMPLES_OF_COLORS).inputs)[:, ::4, ::4]
        )
        augmentation = dataclasses.replace(augmentation, color_pca=colors)
    varied = augmentation != Augmentation(
        fill=augmentation.fill, patches=patches, cutout=augmentation.cutout, mixup=augmentation.mixup
    )

    drawn = varied or patches or augmentation.on_inputs
    side = tf.random.stateless_uniform([examples], [seed, 1], 0, 2, tf.int32)  # on which an image is shown first

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        batches = task.order(examples * copies, batch_size, tf.stack([seed, epoch]))
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), tf.range(steps), batches))

    @tf.autograph.experimental.do_not_convert  # which would change the type of our errors
    def load_batch(epoch: tf.Tensor, step: tf.Tensor, index: tf.Tensor) -> tuple:
        key = tf.random.fold_in(tf.random.fold_in(tf.stack([seed, 0]), epoch), step)
        if share is not None and not drawn:
            index = index[share.rows(batch_size)]
        if patches:
            batch = augmentation_ops.random_patches(arrays, index % examples, key, patches, len(task.classes))
        else:
            batch = tuple(streamed.gather(array, index % examples) for array in arrays)
        if varied:
            batch = task.augment(batch, key, augmentation, index // examples, tf.gather(side, index % examples) + epoch)
        batch = augmentation_ops.vary_inputs(task.network_batch(*batch), key, augmentation)
        return _rows(batch, share.rows(batch_size)) if share is not None and drawn else batch

    epochs = tf.data.Dataset.range(first_epoch, recipe.epochs, output_type=tf.int32)
    number, count = part
    batches = epochs.flat_map(epoch_batches).shard(count, number).map(load_batch, tf.data.AUTOTUNE, deterministic=True)
    batches = batches if share is None else share.each(batches)
    return batches.prefetch(tf.data.AUTOTUNE), steps


def fitting_batch(shape: tuple[int, ...], batch_size: int) -> int:
    """`batch_size`, or fewer where the images of an array [N, H, W, ...] are large; at least 1."""
    return max(min(batch_size, LARGEST_BATCH // math.prod(shape[1:3])), 1)


def evaluation_batches(
    task: Task, split: Split, *, batch_size: int = 256, replicas: int = 1, share: Share | None = None
) -> tf.data.Dataset:
    """Batches of all examples of the split in its own order, of `batch_size` examples, or fewer where they are large.

    The first batch is shared evenly among the replicas, because Keras builds on it, and the last one leaves no replica
    without an example, because TensorFlow would abort.

    Args:
        share: yields one replica's rows after another's, of the same batches.

    Raises:
        ZooError: for too few examples to do so.
    """
    arrays = task.examples(split)
    examples = len(arrays[0])
    batch_size = max(fitting_batch(arrays[0].shape, batch_size), replicas)

    def feeds_all(rest: int) -> bool:
        """Whether each replica gets an example where the replicas take equal shares, rounded up."""
        return rest == 0 or (replicas - 1) * math.ceil(rest / replicas) < rest

    fitting = (
        size
        for size in range(min(batch_size, examples) // replicas * replicas, 0, -replicas)
        if feeds_all(examples % size)
    )
    size = next(fitting, None)
    if size is None:
        raise ZooError(f"{examples} examples cannot be shared among {replicas} devices: validate on more")
    parts = [streamed.in_graph(array) for array in arrays]
    dataset = tf.data.Dataset.range(examples).batch(size)
    if share is not None:
        dataset = dataset.map(lambda index: index[share.rows(tf.shape(index, tf.int64)[0])])
    dataset = dataset.map(lambda index: tuple(streamed.gather(part, index) for part in parts), tf.data.AUTOTUNE)
    plain = tf.autograph.experimental.do_not_convert(task.network_batch)  # converting takes longer than tracing
    dataset = dataset.map(plain, tf.data.AUTOTUNE)
    dataset = dataset if share is None else share.each(dataset)
    return dataset.prefetch(tf.data.AUTOTUNE)
