"""Segmentation of images: one class a pixel, or masks of classes that may overlap."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.data.dataset import IGNORED
from zoo.data.decoding import Decoded, decode_raw
from zoo.errors import ZooError
from zoo.metrics import ADAPTED_RAND_ERROR, MEAN_DICE, MEAN_IOU, PIXEL_ACCURACY
from zoo.options import MultilabelOptions, SegmentationOptions, TaskOptions
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import Batches, Network, Signatures, graph_function
from zoo.tasks.image_task import ImageTask, Move, image_shape

with epy.lazy_imports():
    import tensorflow as tf

    from zoo.tasks import mask_ops

if TYPE_CHECKING:
    import keras

# from which the validation split chooses; of equally good ones the first
THRESHOLDS = tuple(tenth / 10 for tenth in (5, 4, 6, 3, 7, 2, 8, 1, 9))


@dataclasses.dataclass(frozen=True)
class MaskTask(ImageTask):
    """Images [B, H, W, C] of any height and width to K masks [B, H, W, K].

    Args:
        thresholds: the probabilities from which on a pixel belongs to a class; empty for the defaults.
    """

    thresholds: tuple[float, ...] = ()

    metrics = (MEAN_IOU, MEAN_DICE, PIXEL_ACCURACY, ADAPTED_RAND_ERROR)
    has_masks = True
    dtypes = ("uint8", "uint16", "float32")

    decided: ClassVar[str]  # name of the output that holds the decisions
    target_axes: ClassVar[int]  # axes of a split's masks
    target_kind: ClassVar[str]

    @classmethod
    def from_data(cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any) -> Self:
        cls.check_inputs(data)
        train = data.splits["train"]
        masks = cls.masks_of(spec, train)
        known = masks != IGNORED
        if (masks[known] == masks[known][:1]).all():
            found = "no class" if cls.overlapping else f"the value {data.classes[0]}"
            raise ZooError(
                f"the masks of data set {data.name} contain {found} alone, in all of their pixels: draw others"
            )
        own = input_shape or (*spec.input_shape[:2], data.shape[-1])
        shape, preprocessing = image_shape(spec, own, data.shape[-1], data.background)
        images = np.asarray(pre.to_channels(train.inputs, shape[-1] or data.shape[-1]))
        preprocessing = pre.for_bands(preprocessing, images, known if known.ndim == 3 else known[..., 0])
        return cls(spec, shape, data.classes, preprocessing=preprocessing, arguments=arguments)

    @classmethod
    def masks_of(cls, spec: ModelSpec, split: Split) -> np.ndarray:
        """The split's masks; raises ZooError for a split without masks, or with masks of the other kind."""
        axes = None if split.targets is None else split.targets.ndim
        if split.targets is not None and axes == cls.target_axes:
            return split.targets
        if axes in (3, 4):
            other = Segmentation if cls.overlapping else MultilabelSegmentation
            raise ZooError(
                f"{spec.name} takes {cls.target_kind}, the data set has {other.target_kind}: choose another network"
            )
        raise ZooError(f"{spec.name} needs a mask for each image as targets; the data set has others or none")

    def select(self, data: Dataset) -> Dataset:
        data = super().select(data)
        pre.check_channels(data.shape[-1], self.channels)
        dtype = data.first.inputs.dtype
        if self.preprocessing.dtype == "uint8" != dtype.name:
            raise ZooError(f"data set {data.name} has {dtype.name} images, the network was trained on uint8")
        return data

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        return split.inputs, self.masks_of(self.spec, split)

    def _moved(self, batch: tuple, move: Move) -> tuple:
        images, masks, *weights = batch
        # weights of pixels move with the image as if they were a band of it
        bands = tf.concat([tf.cast(images, tf.float32), *(weight[..., None] for weight in weights)], axis=-1)
        bands, masks = move(bands, masks)
        channels = images.shape[-1]
        return bands[..., :channels], masks, *(bands[..., channels + i] for i in range(len(weights)))

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, Any]:
        """The target is described in `zoo.tasks.mask_ops`: the masks, and the pixels' weights as their last layer."""
        images, masks, *weights = batch
        known = tf.cast((masks if masks.shape.rank == 3 else masks[..., 0]) != IGNORED, tf.float32)
        weight = known * weights[0] if weights else known
        target = tf.concat([self.layers(masks) * known[..., None], weight[..., None]], axis=-1)
        return pre.apply(images, self.preprocessing, self.channels), target

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
        loss = loss or mask_ops.mask_loss(recipe.loss, self.overlapping)
        scores = mask_ops.mask_scores(
            self.classes, self.overlapping, lambda logits: self.layers(self.decide(self.probabilities(logits)))
        )
        model.compile(make_optimizer(), loss=loss, metrics=[*scores, *metrics], jit_compile=False, **options)
        model.optimizer.build(model.trainable_variables)
        return model

    @abc.abstractmethod
    def layers(self, masks: Any) -> tf.Tensor:
        """Masks or decisions as a split holds them to float32 [..., K] of 0 and 1."""

    @abc.abstractmethod
    def decide(self, probabilities: Any) -> tf.Tensor:
        """Probabilities [..., K] to decisions, in the form of a split's masks."""

    @property
    @abc.abstractmethod
    def decided_classes(self) -> Iterable[int]:
        """The classes with a threshold of their own."""

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits [..., K] to probabilities, float32 [..., K]."""
        return mask_ops.probabilities(tf.cast(logits, tf.float32), self.overlapping)

    def calibrated(self, model: keras.Model, batches: Batches, options: Any) -> Self:
        """With those of nine thresholds that score best by `options.threshold_by`, each class by itself."""
        if not self._has_thresholds(options):
            return self
        predictions, count = self._predictions(model, batches), len(list(self.decided_classes))
        tasks = [dataclasses.replace(self, thresholds=(threshold,) * count) for threshold in THRESHOLDS]
        scores = np.array([task._scores(options.threshold_by, *predictions) for task in tasks])
        return dataclasses.replace(self, thresholds=tuple(THRESHOLDS[best] for best in scores.argmax(axis=0)))

    def dataset_metrics(self, model: keras.Model, batches: Batches, options: Any) -> dict[str, float]:
        if options.threshold_by != ADAPTED_RAND_ERROR.name or not self._has_thresholds(options):
            return {}
        scores = self._scores(options.threshold_by, *self._predictions(model, batches))
        return {ADAPTED_RAND_ERROR.name: -float(np.mean(scores))}

    def _has_thresholds(self, options: Any) -> bool:
        return options.threshold_by is not None and bool(list(self.decided_classes))

    def _predictions(self, model: keras.Model, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
        """Targets [N, H, W, K + 1] and probabilities [N, H, W, K] of a split."""
        network, pairs = self.network(model), []
        for images, targets in batches():
            pairs.append((targets.numpy(), self.probabilities(network(images)).numpy()))
        targets, probabilities = zip(*pairs, strict=True)
        return np.concatenate(targets), np.concatenate(probabilities)

    def _scores(self, by: str, targets: np.ndarray, probabilities: np.ndarray) -> list[float]:
        """A score of each threshold's decisions, higher for better."""
        masks, known = targets[..., :-1] > 0, targets[..., -1:] > 0
        predicted = known & (self.layers(self.decide(tf.constant(probabilities))).numpy() > 0)
        if by == ADAPTED_RAND_ERROR.name:
            pairs = [zip(masks[..., k], predicted[..., k], strict=True) for k in self.decided_classes]
            return [-float(np.mean([mask_ops.adapted_rand_error(*pair) for pair in each])) for each in pairs]
        both, either = (np.sum(part, axis=(0, 1, 2)) for part in (masks & predicted, masks | predicted))
        ious = both / np.maximum(either, 1)
        return list(ious) if self.overlapping else [float(ious.mean())]

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)

        def segment(images: tf.Tensor) -> dict[str, tf.Tensor]:
            images = self.bounded(images, model)
            probabilities = self.probabilities(network(pre.apply(images, self.preprocessing, self.channels)))
            return {"probabilities": probabilities, self.decided: self.decide(probabilities)}

        images = tf.TensorSpec([None, None, None, self.channels], self.preprocessing.dtype, "images")
        return Signatures({"serving_default": graph_function(segment, images)})

    def decode(self, data: bytes) -> Decoded:
        return decode_raw(data, self.preprocessing.background)

    def example(self, split: Split, directory: Path) -> str:
        if written := super().example(split, directory):
            return written
        np.save(directory / "example.npy", split.inputs[0])
        return str(directory / "example.npy")

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        masks = self.layers(self.decide(tf.constant(outputs["probabilities"][0]))).numpy()
        return {"shares": {name: float(np.mean(masks[..., number])) for number, name in enumerate(self.classes)}}

    def golden_inputs(self, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        return {"serving_default": {"images": self.golden_images(count, seed)}}


@dataclasses.dataclass(frozen=True)
class Segmentation(MaskTask):
    """One of K classes a pixel. With two classes, `thresholds` holds the probability of the second class from which on
    a pixel belongs to it; otherwise a pixel belongs to its most probable class."""

    Options = SegmentationOptions
    decided = "class_ids"
    overlapping = False
    target_axes = 3
    target_kind = "one class a pixel"

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        images, masks = super().examples(split)
        if isinstance(options, SegmentationOptions) and options.border:
            return images, masks, mask_ops.border_weights(masks, options.border)
        return images, masks

    def layers(self, masks: Any) -> tf.Tensor:
        return tf.one_hot(masks, len(self.classes))

    def decide(self, probabilities: Any) -> tf.Tensor:
        """Probabilities [..., K] to class ids, int64 [...]."""
        if self.thresholds:
            return tf.cast(probabilities[..., 1] >= self.thresholds[0], tf.int64)
        return tf.argmax(probabilities, -1)

    @property
    def decided_classes(self) -> Iterable[int]:
        return (1,) if len(self.classes) == 2 else ()


@dataclasses.dataclass(frozen=True)
class MultilabelSegmentation(MaskTask):
    """K classes that may overlap, a mask each. `thresholds` holds one probability a class, 0.5 where it is empty."""

    Options = MultilabelOptions
    decided = "masks"
    overlapping = True
    target_axes = 4
    target_kind = "masks of classes that overlap"

    def select(self, data: Dataset) -> Dataset:
        if set(self.classes) <= set(data.classes) and data.classes != self.classes:
            self.masks_of(self.spec, data.first)
            data = data.only_classes(*self.classes)
        return super().select(data)

    def layers(self, masks: Any) -> tf.Tensor:
        return tf.cast(masks, tf.float32)

    def decide(self, probabilities: Any) -> tf.Tensor:
        """Probabilities [..., K] to masks of 0 and 1, uint8 [..., K]."""
        return tf.cast(probabilities >= tf.constant(self.thresholds or 0.5, tf.float32), tf.uint8)

    @property
    def decided_classes(self) -> Iterable[int]:
        return range(len(self.classes))
