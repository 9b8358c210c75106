"""Segmentation of images: one class a pixel, or masks of classes that overlap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo import rasters
from zoo.data import Dataset, Split
from zoo.data.dataset import IGNORED
from zoo.data.pipeline import evaluation_batches
from zoo.errors import ZooError
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import ImageTask, Move, Network, Signatures, Task, image_shape

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.tasks import masks as mask_ops

THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))  # from which the validation split chooses


@dataclasses.dataclass(frozen=True)
class Segmentation(ImageTask):
    """Images [B, H, W, C] of any height and width to one of K classes a pixel, or, where the spec's scores are
    `masks`, to K masks that may overlap.

    Args:
        thresholds: the probability from which on a pixel is of a class: of the second of two classes, or of each
            class that may overlap. Where empty, the likeliest class, and 0.5.
    """

    thresholds: tuple[float, ...] = ()

    metric = "mean_iou"
    unused = ("label_smoothing",)
    masked = True
    dtypes = ("uint8", "uint16", "float32")

    @classmethod
    def from_data(
        cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any
    ) -> Segmentation:
        train = data.splits["train"]
        known = _class_ids(spec, train) != IGNORED
        shape, preprocessing = image_shape(spec, input_shape or (*spec.input_shape[:2], data.shape[-1]), data.shape[-1])
        images = np.asarray(pre.to_channels(train.inputs, shape[-1]))
        preprocessing = pre.for_bands(preprocessing, images, known if known.ndim == 3 else known[..., 0])
        return cls(spec, shape, data.classes, preprocessing=preprocessing, arguments=arguments)

    @classmethod
    def joined(cls, spec: ModelSpec, members: Sequence[tuple[str, Task]], method: str | None) -> Segmentation:
        if method is not None:
            raise ZooError(f"{spec.name} knows no method {method!r}: its members have classes of their own")
        first, task = members[0]
        owners: dict[str, str] = {}
        for label, other in members:
            if other.spec.scores != "masks":
                raise ZooError(f"{label} has no masks of classes that may overlap: {spec.name} joins networks of such")
            if other.input_shape != task.input_shape:
                shapes = [" x ".join(str(side or "any") for side in one.input_shape) for one in (other, task)]
                raise ZooError(
                    f"{label} and {first} do not fit: they read pictures of {' and '.join(shapes)}, both must read the "
                    "same"
                )
            if other.preprocessing != task.preprocessing:
                raise ZooError(
                    f"{label} and {first} do not fit: they scale the bands of a picture by other figures: train both "
                    "on the same pictures"
                )
            for name in other.classes:
                if name in owners:
                    raise ZooError(f"{label} and {owners[name]} both have the class {name}: {spec.name} has each once")
                owners[name] = label
        return cls(
            spec,
            task.input_shape,
            tuple(owners),
            preprocessing=task.preprocessing,
            arguments={"members": [other.describe() for _, other in members]},
            thresholds=tuple(
                threshold for _, other in members for threshold in other.thresholds or (0.5,) * len(other.classes)
            ),
        )

    def check_data(self, data: Dataset) -> None:
        super().check_data(data)
        pre.check_channels(data.shape[-1], self.channels)
        dtype = data.splits["train"].inputs.dtype
        if self.preprocessing.dtype == "uint8" != dtype.name:
            raise ZooError(f"data set {data.name} has {dtype.name} pictures, the network was trained on uint8")

    def narrowed(self, data: Dataset) -> Dataset:
        """Of classes that overlap, the network's own ones in their order."""
        if not self.overlapping or data.classes == self.classes or not set(self.classes) <= set(data.classes):
            return data
        _class_ids(self.spec, data.splits["train"])
        return data.only_classes(*self.classes)

    @property
    def overlapping(self) -> bool:
        return self.spec.scores == "masks"

    def examples(self, split: Split) -> tuple[np.ndarray, ...]:
        return split.inputs, _class_ids(self.spec, split)

    def training_examples(self, split: Split, recipe: Recipe) -> tuple[np.ndarray, ...]:
        images, masks = self.examples(split)
        if not recipe.border:
            return images, masks
        if self.overlapping:
            raise ZooError(f"border weights are for classes that exclude each other, those of {self.spec.name} overlap")
        return images, masks, mask_ops.border_weights(masks, recipe.border)

    def _moved(self, batch: tuple, move: Move) -> tuple:
        images, masks, *weights = batch
        # weights of pixels move with the image as if they were a band of it
        bands = tf.concat([tf.cast(images, tf.float32), *(weight[..., None] for weight in weights)], axis=-1)
        bands, masks = move(bands, masks)
        channels = images.shape[-1]
        return bands[..., :channels], masks, *(bands[..., channels + i] for i in range(len(weights)))

    def network_batch(self, images: tf.Tensor, masks: tf.Tensor, weights: tf.Tensor | None = None) -> tuple[Any, Any]:
        """The target is what `zoo.tasks.masks` says: the masks, and the pixels' weights as their last layer."""
        if self.overlapping:
            known, layers = masks[..., 0] != IGNORED, tf.cast(masks, tf.float32)
        else:
            known, layers = masks != IGNORED, tf.one_hot(masks, len(self.classes))
        known = tf.cast(known, tf.float32)
        weights = known if weights is None else known * weights
        target = tf.concat([layers * known[..., None], weights[..., None]], axis=-1)
        return pre.apply(images, self.preprocessing, self.channels), target

    def compile(self, model: keras.Model, recipe: Recipe, make_optimizer: Callable, **options: Any) -> Any:
        loss = mask_ops.mask_loss(recipe.loss, self.overlapping)
        metrics = mask_ops.mask_scores(
            self.classes, self.overlapping, lambda logits: self._masks(self._probabilities(logits))
        )
        model.compile(make_optimizer(), loss=loss, metrics=metrics, jit_compile=False, **options)
        model.optimizer.build(model.trainable_variables)
        return model

    def decide(self, probabilities: Any) -> tf.Tensor:
        """Probabilities [..., K] to class ids, int64 [...], or to masks of 0 and 1, uint8 [..., K]."""
        if self.overlapping:
            return tf.cast(probabilities >= tf.constant(self.thresholds or 0.5, tf.float32), tf.uint8)
        if self.thresholds:
            return tf.cast(probabilities[..., 1] >= self.thresholds[0], tf.int64)
        return tf.argmax(probabilities, -1)

    def calibrated(self, model: keras.Model, split: Split, recipe: Recipe) -> Segmentation:
        """With those of nine thresholds that are best on the split by `recipe.threshold_by`, each class by itself."""
        if not self._has_thresholds(recipe):
            return self
        predictions, count = self._predictions(model, split), len(self.classes) if self.overlapping else 1
        tasks = [dataclasses.replace(self, thresholds=(threshold,) * count) for threshold in THRESHOLDS]
        goodness = np.array([task._goodness(recipe.threshold_by, *predictions) for task in tasks])
        return dataclasses.replace(self, thresholds=tuple(THRESHOLDS[best] for best in goodness.argmax(axis=0)))

    def further_figures(self, model: keras.Model, split: Split, recipe: Recipe) -> dict[str, float]:
        if recipe.threshold_by != "adapted_rand_error" or not self._has_thresholds(recipe):
            return {}
        goodness = self._goodness(recipe.threshold_by, *self._predictions(model, split))
        return {"adapted_rand_error": -float(np.mean(goodness))}

    def _has_thresholds(self, recipe: Recipe) -> bool:
        return recipe.threshold_by is not None and (self.overlapping or len(self.classes) == 2)

    def _predictions(self, model: keras.Model, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Targets [N, H, W, K + 1] and probabilities [N, H, W, K] of a split."""
        network, pairs = self.network(model), []
        for images, targets in evaluation_batches(self, split):
            pairs.append((targets.numpy(), self._probabilities(network(images)).numpy()))
        targets, probabilities = zip(*pairs, strict=True)
        return np.concatenate(targets), np.concatenate(probabilities)

    def _goodness(self, by: str, targets: np.ndarray, probabilities: np.ndarray) -> list[float]:
        """How good the decisions are, higher for better: of each class that may overlap, or of all as one number."""
        masks, known = targets[..., :-1] > 0, targets[..., -1:] > 0
        said = known & (self._masks(tf.constant(probabilities)).numpy() > 0)
        if by == "adapted_rand_error":
            classes = range(len(self.classes)) if self.overlapping else [1]
            pairs = [zip(masks[..., number], said[..., number], strict=True) for number in classes]
            return [-float(np.mean([mask_ops.adapted_rand_error(*pair) for pair in each])) for each in pairs]
        both, either = (np.sum(part, axis=(0, 1, 2)) for part in (masks & said, masks | said))
        ious = both / np.maximum(either, 1)
        return list(ious) if self.overlapping else [float(ious.mean())]

    def _probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        return mask_ops.probabilities(tf.cast(logits, tf.float32), self.overlapping)

    def _masks(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Probabilities [..., K] to the masks that are decided for, float32 [..., K] of 0 and 1."""
        said = self.decide(probabilities)
        return tf.cast(said, tf.float32) if self.overlapping else tf.one_hot(said, len(self.classes))

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)
        decided = "masks" if self.overlapping else "class_ids"

        def segment(images: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = self._probabilities(network(pre.apply(images, self.preprocessing, self.channels)))
            return {"probabilities": probabilities, decided: self.decide(probabilities)}

        images = tf.TensorSpec([None, None, None, self.channels], self.preprocessing.dtype, "images")
        return {"serving_default": self._function(segment, images)}

    def read(self, words: str) -> np.ndarray:
        scene = rasters.open_scene(words)
        pixels = scene.read(*(slice(0, side) for side in scene.shape[:2]))[None]
        if self.preprocessing.dtype == "uint8" != pixels.dtype.name:
            raise ZooError(f"{words} holds {pixels.dtype.name} values, the network takes uint8")
        return self.serving_inputs(Split(pixels))

    def example(self, split: Split, directory: Path) -> str:
        if written := super().example(split, directory):
            return written
        np.save(directory / "example.npy", split.inputs[0])
        return str(directory / "example.npy")

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        masks = self._masks(tf.constant(outputs["probabilities"][0])).numpy()
        return {"shares": {name: float(np.mean(masks[..., number])) for number, name in enumerate(self.classes)}}

    def golden_inputs(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        return {"serving_default": {"images": self.golden_images(count)}}


def _class_ids(spec: ModelSpec, split: Split) -> np.ndarray:
    """The split's masks, [N, H, W] of class ids, or [N, H, W, K] of 0 and 1 for a spec whose classes overlap.

    Raises:
        ZooError: for a split without masks, or with masks of the other kind.
    """
    axes = 4 if spec.scores == "masks" else 3
    found = None if split.targets is None else split.targets.ndim
    if found == axes:
        return split.targets
    if found in (3, 4):
        kinds = ("masks of classes that overlap", "one class a pixel")
        wanted, given = kinds if axes == 4 else kinds[::-1]
        raise ZooError(f"{spec.name} takes {wanted}, the data set has {given}: choose another network")
    raise ZooError(f"{spec.name} needs a mask for each image as targets; the data set has others or none")
