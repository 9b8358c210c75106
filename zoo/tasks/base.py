"""What training, export and serving ask of a kind of task; nothing here knows a single model's name."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from etils import epy
from PIL import Image

from zoo import preprocessing as pre
from zoo import registry
from zoo.data import Dataset, Split
from zoo.errors import ZooError, unknown
from zoo.recipe import Augmentation, Recipe, from_dict
from zoo.spec import ModelSpec, Preprocessing

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.data import augmentation as augmentation_ops

Network = Callable[..., Any]
Move = Callable[[Any, Any], tuple[Any, Any]]  # images and their masks or None, each example by a map of its own
Signatures = dict[str, "tf.types.experimental.PolymorphicFunction"]


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A network of the registry joined to its data: all that rebuilds it and gives its numbers a meaning.

    Args:
        input_shape: the network's input without the batch axis.
        classes: names of the outputs in order; empty where there are none.
        vocabulary: words or characters of a text task in order of their numbers.
        arguments: builder arguments that differ from the spec's.
    """

    spec: ModelSpec
    input_shape: tuple[int | None, ...]
    classes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    metric: ClassVar[str | None] = None  # chooses the epoch on validation, stands beside a published figure on test
    unused: ClassVar[tuple[str, ...]] = ("border", "ignored_class", "threshold_by")  # recipe keys: these are of masks
    takes_text: ClassVar[bool] = False
    masked: ClassVar[bool] = False  # whether the second array of an example is a mask that moves with its image
    dtypes: ClassVar[tuple[str, ...]] = ("uint8",)  # of the pictures that it takes

    @classmethod
    @abc.abstractmethod
    def from_data(cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any) -> Task:
        """The task for a spec on a data set: its classes and vocabulary, the network's input shape."""

    @classmethod
    def joined(cls, spec: ModelSpec, members: Sequence[tuple[str, Task]], method: str | None) -> Task:
        """The task of trained networks as the one ensemble `spec`, each given with what it is called.

        Raises:
            ZooError: for networks that do not fit each other, and a method that the spec does not know.
        """
        raise ZooError(f"networks of {spec.task} cannot be joined")

    @classmethod
    def check_inputs(cls, data: Dataset) -> None:
        """Raises ZooError for texts where the task takes pictures, the reverse, and pictures of another type."""
        dtype = data.splits["train"].inputs.dtype
        if (dtype.kind in "OU") != cls.takes_text:
            words = ("pictures", "texts") if cls.takes_text else ("texts", "pictures")
            raise ZooError("data set {} holds {}, the network takes {}".format(data.name, *words))
        if not cls.takes_text and dtype.name not in cls.dtypes:
            raise ZooError(f"data set {data.name} has {dtype.name} pictures: give {' or '.join(cls.dtypes)}")

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises ZooError for a recipe key that would be written down and change nothing."""
        for key in self.unused:
            if getattr(recipe, key) != getattr(Recipe, key):
                raise ZooError(f"{self.spec.task} has no use for the recipe key {key}: leave it out")

    def check_data(self, data: Dataset) -> None:
        """Raises ZooError for a data set that the task's network cannot be measured on."""
        self.check_inputs(data)
        if self.classes and data.classes and data.classes != self.classes:
            raise ZooError(f"{data.name} has the classes {data.classes[:10]}, the network {self.classes[:10]}")

    def narrowed(self, data: Dataset) -> Dataset:
        """The data set as the network can be measured on it, where it holds more than that."""
        return data

    @abc.abstractmethod
    def examples(self, split: Split) -> tuple[np.ndarray, ...]:
        """The split as numeric arrays of one length, an example a row: what is shuffled and batched."""

    def training_examples(self, split: Split, recipe: Recipe) -> tuple[np.ndarray, ...]:
        """`examples` with what the recipe adds to them for training."""
        return self.examples(split)

    @abc.abstractmethod
    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, Any]:
        """A batch of examples to the network's input and the loss's target, in the graph."""

    @abc.abstractmethod
    def compile(self, model: keras.Model, recipe: Recipe, make_optimizer: Callable[[], Any], **options: Any) -> Any:
        """A Keras model whose `fit` trains `model` by the recipe, with its optimizers built."""

    @abc.abstractmethod
    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        """The serving signatures by name. They call `network`: `numeric_network` of the model where none is given."""

    @abc.abstractmethod
    def golden_inputs(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        """Inputs of `count` examples for each signature: fixed, drawn from a seed."""

    def serving_inputs(self, split: Split) -> np.ndarray:
        """The split's inputs as `serving_default` takes them."""
        return split.inputs

    def read(self, words: str) -> np.ndarray:
        """One input of `serving_default`, with a batch axis, from what a user types: a picture's path, or a text."""
        return np.array([words])

    def example(self, split: Split, directory: Path) -> str:
        """An input of the split as a user would type it for `read`, written to the directory where it is a file;
        empty where there is none."""
        return str(split.inputs[0])[:40]

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Plain data that tell a user what the outputs of `serving_default` for one example say."""
        raise ZooError(f"{self.spec.task} predicts nothing from a file: export it and call its signatures")

    def calibrated(self, model: keras.Model, split: Split, recipe: Recipe) -> Task:
        """The task with what the recipe lets the validation split choose once the network is trained."""
        return self

    def further_figures(self, model: keras.Model, split: Split, recipe: Recipe) -> dict[str, float]:
        """Figures of a split beside those of `compile`'s metrics: what cannot be computed in the graph."""
        return {}

    def optimizers(self, trainer: keras.Model) -> list[Any]:
        """The optimizers of what `compile` returned."""
        return [trainer.optimizer]

    def augment(self, batch: tuple, seed: tf.Tensor, augmentation: Augmentation) -> tuple:
        """A batch of examples with its random variations."""
        raise ZooError(f"{self.spec.task} takes no augmentation")

    def shift(self, batch: tuple, shift: tf.Tensor) -> tuple:
        """A batch of examples, each shifted by one pixel or not: 0 not, 1 to 4 up, down, left, right."""
        raise ZooError(f"{self.spec.task} takes no expansion")

    def network_inputs(self, count: int) -> Any:
        """Numeric inputs of the network itself for `count` examples."""
        raise ZooError(f"{self.spec.name} takes raw text: ONNX and LiteRT hold numeric networks only")

    def goodness(self, row: Mapping[str, float]) -> float:
        """How good an epoch is by its validation figure, higher for better; later ones are better where there is
        none."""
        if self.metric is None:
            return float(row["epoch"])
        figure = row[f"val_{self.metric}"]
        return -figure if self.metric == "loss" else figure

    def build(self) -> keras.Model:
        """The network with fresh weights."""
        return registry.build(self.spec, self.input_shape, len(self.classes), **self.arguments)

    def numeric_network(self, model: keras.Model) -> keras.Model:
        """The part of the model that prediction runs."""
        return model

    def network(self, model: keras.Model) -> Network:
        """The numeric network in inference mode."""
        numeric = self.numeric_network(model)
        return lambda inputs: numeric(inputs, training=False)

    def describe(self) -> dict[str, Any]:
        """Plain data from which `restore` makes the same task."""
        fields = dataclasses.asdict(dataclasses.replace(self, spec=None))
        return {**fields, "spec": self.spec.name, "task": self.spec.task}

    def _function(self, call: Callable, *inputs: tf.TensorSpec) -> Any:
        """`call` as a graph function of these inputs."""
        return tf.function(call, input_signature=inputs, autograph=False)


class ImageTask(Task):
    """What the tasks on images share: their shapes, their augmentation, their golden pictures."""

    @property
    def channels(self) -> int:
        return self.input_shape[-1]

    def serving_inputs(self, split: Split) -> np.ndarray:
        return np.asarray(pre.to_channels(split.inputs, self.channels)).astype(self.preprocessing.dtype, copy=False)

    def augment(self, batch: tuple, seed: tf.Tensor, augmentation: Augmentation) -> tuple:
        images, *rest = batch
        images = tf.cast(images, tf.float32)
        if augmentation.color_jitter:
            images = augmentation_ops.color_jitter(images, seed, augmentation.color_jitter)
        return self._moved(
            (images, *rest), lambda images, masks: augmentation_ops.augment(images, masks, seed, augmentation)
        )

    def shift(self, batch: tuple, shift: tf.Tensor) -> tuple:
        return self._moved(batch, lambda images, masks: augmentation_ops.shift_expansion(images, masks, shift))

    def _moved(self, batch: tuple, move: Move) -> tuple:
        """A batch with its images, and what belongs to their pixels, moved."""
        images, *rest = batch
        return (move(images, None)[0], *rest)

    def read(self, words: str) -> np.ndarray:
        path = Path(words)
        try:
            with Image.open(path) as picture:
                picture.load()
            return tf.io.decode_image(path.read_bytes(), channels=self.channels, expand_animations=False).numpy()[None]
        except FileNotFoundError:
            raise ZooError(f"no file {words}") from None
        except (OSError, ValueError, tf.errors.InvalidArgumentError):
            raise ZooError(f"{words} is no readable picture: give a PNG or JPEG file") from None

    def example(self, split: Split, directory: Path) -> str:
        image = split.inputs[0]
        if image.dtype != np.uint8 or image.shape[-1] not in (1, 3):
            return ""
        path = directory / "example.png"
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
        return str(path)

    def golden_images(self, count: int) -> np.ndarray:
        """Random pictures [count, H, W, C] of the type and the size that the preprocessing aims at."""
        size = self.preprocessing.size or (20, 28)  # no multiple of 8: odd feature maps are compared too
        shape, generator = (count, *size, self.channels), np.random.default_rng(0)
        if self.preprocessing.mean:
            return generator.normal(self.preprocessing.mean, self.preprocessing.deviation, shape).astype(np.float32)
        return generator.integers(0, 256, shape, dtype=np.uint8)

    def network_inputs(self, count: int) -> np.ndarray:
        return pre.apply(self.golden_images(count), self.preprocessing, self.channels).numpy()


def image_shape(spec: ModelSpec, input_shape: tuple | None, channels: int | None = None) -> tuple[tuple, Preprocessing]:
    """The network's input shape and the preprocessing that leads to it from pictures of so many channels.

    Raises:
        ZooError: for channels that cannot be brought to the network's.
    """
    shape = tuple(input_shape or spec.input_shape)
    pre.check_channels(channels or shape[-1], shape[-1])
    return shape, pre.for_input(spec.preprocessing, spec.input_shape, shape)


def picture_size(spec: ModelSpec, input_shape: tuple | None) -> tuple[int, int] | None:
    """Height and width, in pixels, to which picture files of other sizes are brought as they are read: what the
    serving graph brings them to. None for texts, and for networks that take any size."""
    if len(spec.input_shape) != 3:
        return None
    shape, preprocessing = image_shape(spec, input_shape)
    size = preprocessing.size or shape[:2]
    return None if None in size else tuple(size)


def restore(description: Mapping[str, Any]) -> Task:
    """The task that `describe` wrote down.

    Raises:
        ZooError: for a description that is not complete, or names a model that is not registered.
    """
    from zoo.tasks import get_task

    try:
        spec = registry.get_spec(description["spec"])
        kind = get_task(spec.task)
        # a mapping, or a sequence of which JSON has made a list
        kept = {field.name: description[field.name] for field in dataclasses.fields(kind) if field.name != "spec"}
        kept = {name: dict(value) if isinstance(value, Mapping) else tuple(value) for name, value in kept.items()}
        return kind(spec, **{**kept, "preprocessing": from_dict(Preprocessing, kept["preprocessing"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"the model's description is not complete: {error}") from None


def loss_named(name: str, losses: Mapping[str, Any], task: str) -> Any:
    """The loss of that name.

    Raises:
        ZooError: for one that the task does not know.
    """
    if name not in losses:
        raise unknown(f"loss of {task}", name, losses)
    return losses[name]
