"""Classification of images: one class an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.metrics import ACCURACY
from zoo.options import ClassificationOptions, TaskOptions
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks import views
from zoo.tasks.base import Network, Signatures, Task, check_layers, graph_function
from zoo.tasks.image_task import ImageTask, image_shape

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo import layers as zoo_layers
    from zoo.tasks import losses, perturbation


ENCODED = "encoded_images"  # the signature that takes the bytes of image files
FEATURES = "features"  # the signature that returns the outputs of layers


def require_labels(split: Split, what: str) -> np.ndarray:
    """The split's class ids, int64 [N]; raises ZooError where it has other targets or none."""
    if split.targets is None or split.targets.ndim != 1:
        raise ZooError(f"this task needs {what} as targets; the data set has others or none")
    return split.targets


def require_classes(data: Dataset) -> None:
    """Raises ZooError unless there are two classes or more."""
    if len(data.classes) < 2:
        raise ZooError(f"data set {data.name} has one class alone, {data.classes[0]!r}: a classifier needs another one")


def class_outputs(task: Task, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
    """`probabilities` [B, K] with their `class_ids` [B] and `class_names` [B]."""
    class_ids = tf.argmax(probabilities, -1, output_type=tf.int64)
    return {
        "probabilities": probabilities,
        "class_ids": class_ids,
        "class_names": tf.gather(tf.constant(task.classes), class_ids),
    }


def compile_classifier(
    task: Task,
    model: keras.Model,
    recipe: Recipe,
    make_optimizer: Callable,
    loss: Any,
    metrics: Iterable[Any],
    options: Mapping[str, Any],
) -> keras.Model:
    """`model` compiled with the recipe's loss and the accuracy of its probabilities; a network with several outputs
    within a model that stacks them, and one whose embedding is perturbed within the model that does so.

    Raises:
        ZooError: for another number of `loss_weights` than of outputs, and for `perturbation` without an embedding.
    """
    assert isinstance(recipe.options, ClassificationOptions)
    weights, outputs = recipe.options.loss_weights, len(model.outputs)
    if len(weights) != outputs:
        raise ZooError(
            f"{task.spec.name} has {outputs} outputs, the recipe key loss_weights has {len(weights)} weights"
        )
    accuracy = losses.accuracy(task.spec.outputs, several=outputs > 1)
    loss = loss or losses.classification_loss(recipe.loss, recipe.options.label_smoothing)
    if outputs > 1:
        loss = losses.SeveralOutputs(loss, weights)
        model = keras.Model(model.input, keras.ops.stack(model.outputs, axis=1), name=model.name)
    if recipe.options.perturbation:
        model = perturbation.PerturbedEmbedding(model, recipe.options.perturbation)
    model.compile(make_optimizer(), loss=loss, metrics=[accuracy, *metrics], jit_compile=False, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def class_weights(labels: np.ndarray, classes: int, options: TaskOptions | None) -> tuple[np.ndarray, ...]:
    """With `class_weight: balanced` among the options the weight of each example, float32 [N], of mean 1: every class
    that occurs weighs the same in all. Otherwise nothing."""
    if not isinstance(options, ClassificationOptions) or options.class_weight is None:
        return ()
    counts = np.bincount(labels, minlength=classes)
    return ((len(labels) / np.count_nonzero(counts) / counts[labels]).astype(np.float32),)


def class_summary(task: Task, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The first example's class, its probability, and the probabilities of all classes with their names in order."""
    probabilities = outputs["probabilities"][0]
    return {
        "class": outputs["class_names"][0].decode(),
        "probability": float(probabilities.max()),
        "probabilities": [float(value) for value in probabilities],
        "classes": list(task.classes),
    }


@dataclasses.dataclass(frozen=True)
class Classification(ImageTask):
    """Images [B, H, W, C] to one of K classes.

    Args:
        views: names of test-time augmentations, over which serving averages the probabilities; see `zoo.tasks.views`.
        features: names of layers whose outputs exports return too.
    """

    views: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    Options = ClassificationOptions
    one_class_each = True
    metrics = (ACCURACY,)

    @classmethod
    def from_data(cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any) -> Self:
        cls.check_inputs(data)
        require_labels(data.first, "a label for each image")
        require_classes(data)
        shape, preprocessing = image_shape(spec, input_shape, data.shape[-1], data.background)
        return cls(spec, shape, data.classes, preprocessing=preprocessing, arguments=arguments)

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        split = split.labeled()
        labels = require_labels(split, "a label for each image")
        return split.inputs, labels, *class_weights(labels, len(self.classes), options)

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, ...]:
        """The third array of a batch, if there is one, weighs its examples."""
        images, labels, *weights = batch
        targets = tf.one_hot(labels, len(self.classes))
        return pre.apply(images, self.preprocessing, self.channels), targets, *weights

    def served(self, model: keras.Model) -> keras.Model:
        if len(model.outputs) == 1 and not self.features:
            return model
        outputs = [model.outputs[0], *(model.get_layer(name).output for name in self.features)]
        return keras.Model(model.input, outputs if self.features else outputs[0], name=model.name)

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
        return compile_classifier(self, model, recipe, make_optimizer, loss, metrics, options)

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)

        def scores(inputs: tf.Tensor) -> tf.Tensor:
            return network(inputs)[0] if self.features else network(inputs)

        def outputs(read: Callable, source: tf.Tensor) -> dict[str, tf.Tensor]:
            def probabilities(inputs: tf.Tensor) -> tf.Tensor:
                return zoo_layers.probabilities(scores(inputs), self.spec.outputs)

            if not self.views:
                return class_outputs(self, probabilities(read(source, self.preprocessing, self.channels)))
            whole = dataclasses.replace(self.preprocessing, crop_to=None)
            images = read(source, whole, self.channels)
            crop_to = self.preprocessing.crop_to
            return class_outputs(self, views.averaged(probabilities, images, self.views, crop_to))

        def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return outputs(pre.apply, self.bounded(images, model))

        def from_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            return outputs(pre.decode, self.bounded(encoded, model))

        images = tf.TensorSpec([None, None, None, self.channels], tf.uint8, "images")
        functions = {"serving_default": graph_function(from_images, images)}
        if self.takes_files:
            functions[ENCODED] = graph_function(from_encoded, tf.TensorSpec([None], tf.string, "encoded"))
        if self.features:

            def layers(images: tf.Tensor) -> dict[str, tf.Tensor]:
                found = network(pre.apply(self.bounded(images, model), self.preprocessing, self.channels))[1:]
                return dict(zip(self.features, found, strict=True))

            functions[FEATURES] = graph_function(layers, images)
        return Signatures(functions)

    @property
    def takes_files(self) -> bool:
        """Whether image files, which are gray or RGB, are among its inputs."""
        return self.channels in (1, 3)

    @property
    def serving_notes(self) -> dict[str, Any]:
        if not self.takes_files:
            return {}
        shown = {0: "black", 255: "white"}.get(self.preprocessing.background, f"gray {self.preprocessing.background}")
        return {ENCODED: {**pre.ENCODED, "transparency": f"composited on {shown}"}}

    def with_views(self, names: Iterable[str]) -> Self:
        return dataclasses.replace(self, views=views.check(names, self.preprocessing.crop_to))

    def with_features(self, layers: Iterable[str]) -> Self:
        check_layers(self.served(self.build()), layers := tuple(layers))
        return dataclasses.replace(self, features=layers)

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return class_summary(self, outputs)

    def golden_inputs(self, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        images = self.golden_images(count, seed)
        inputs: dict[str, dict[str, Any]] = {"serving_default": {"images": images}}
        if self.takes_files:
            inputs[ENCODED] = {"encoded": np.array([tf.io.encode_png(image).numpy() for image in images])}
        if self.features:
            inputs[FEATURES] = {"images": images}
        return inputs
