"""What a kind of task defines for training, export and serving; nothing here knows a model by name.

A new kind of task is a subclass of `Task` (of `ImageTask` where its inputs are images) with the six abstract methods,
registered in `zoo.tasks.TASKS`. The other methods have defaults.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from etils import epy

from zoo.data import Dataset, Split
from zoo.errors import ZooError, listed, note, unknown
from zoo.metrics import Metric
from zoo.options import TaskOptions
from zoo.recipe import Augmentation, Recipe
from zoo.spec import ModelSpec, Preprocessing

with epy.lazy_imports():
    import tensorflow as tf


if TYPE_CHECKING:
    import keras

Network = Callable[..., Any]
Batches = Callable[[], Iterable[tuple[Any, Any]]]  # makes the batches of a split: network inputs and loss targets


class Item(NamedTuple):
    """One input for prediction.

    Attributes:
        name: the path of its file, the text itself, or a number.
        read: returns it as `serving_default` takes it, without the batch axis, and what its reader changed; raises
            `Unusable`, or any other exception for a damaged file.
        found: whether its file was found in a folder or by wildcards: left out with a note where it cannot be read.
    """

    name: str
    read: Callable[[], tuple[np.ndarray, tuple[str, ...]]]
    found: bool = False


class Signatures(dict[str, Any]):
    """Serving signatures: graph functions by name.

    Attributes:
        resources: what must live and be stored with the functions, such as lookup tables.
    """

    def __init__(self, functions: Mapping[str, Any], resources: tuple[Any, ...] = ()) -> None:
        super().__init__(functions)
        self.resources = resources


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A network of the registry joined to its data: all that rebuilds it and gives its numbers a meaning.

    Args:
        input_shape: the network's input without the batch axis.
        classes: names of the outputs in order; empty where there are none.
        vocabulary: words or characters of a text task, in order of their numbers.
        arguments: builder arguments that differ from the spec's.

    Attributes:
        Options: the class of the recipe's options for this kind of task.
        metrics: what is measured on a split beside the loss; the first one chooses the best epoch on validation and is
            compared with reported scores on test. Empty where no epoch is better than the last.
        overlapping: whether an example, or a pixel, may belong to several classes.
    """

    spec: ModelSpec
    input_shape: tuple[int | None, ...]
    classes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    Options: ClassVar[type[TaskOptions]] = TaskOptions
    metrics: ClassVar[tuple[Metric, ...]] = ()
    overlapping: ClassVar[bool] = False

    # --- what a kind of task must define -------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def from_data(cls, spec: ModelSpec, data: Dataset, input_shape: tuple | None = None, **arguments: Any) -> Self:
        """The task for a spec on a data set: its classes, its vocabulary and the network's input shape.

        Raises:
            ZooError: for data that the task cannot use.
        """

    @abc.abstractmethod
    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        """The split as numeric arrays of one length, one example a row: what is shuffled and batched.

        Args:
            options: the recipe's, where the examples are for training and may get what the options add, such as
                weights of pixels; None for evaluation.

        Raises:
            ZooError: for a split without the targets that the task needs.
        """

    @abc.abstractmethod
    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, ...]:
        """A batch of `examples` [B, ...] to the network's input, the loss's target and, if the options weigh examples,
        their weights, in the graph."""

    @abc.abstractmethod
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
        """A Keras model whose `fit` trains `model` by the recipe, with its optimizers built.

        A trainer with several optimizers lists them in an attribute `optimizers`.

        Args:
            make_optimizer: makes a fresh optimizer at each call.
            loss: a Keras loss in place of the recipe's.
            metrics: Keras metrics beside the task's.
            options: further arguments of Keras' `compile`.

        Raises:
            ZooError: for a loss that the task does not know, or options that do not fit the loss.
        """

    @abc.abstractmethod
    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        """The serving signatures; docs/artifacts.md lists their names, inputs and outputs.

        Args:
            network: what they call in place of `served(model)`, such as the same network on stored weights.
        """

    @abc.abstractmethod
    def golden_inputs(self, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        """For each signature its inputs for `count` examples, NumPy arrays and numbers: always the same for a seed.
        Images have the network's own size for seed 0, and a size that the seed chooses for any other."""

    # --- what a kind of task may define --------------------------------------------------------------------------

    @classmethod
    def check_inputs(cls, data: Dataset) -> None:
        """Raises ZooError for a data set whose inputs are not of the kind that the task takes."""
        return

    def select(self, data: Dataset) -> Dataset:
        """The part of a data set that the network can be evaluated on: all of it, unless a task says otherwise. Its
        classes may be some of the network's, in any order; their ids become those of the network.

        Raises:
            ZooError: for other inputs or classes than the network's.
        """
        self.check_inputs(data)
        if not self.classes or not data.classes or data.classes == self.classes:
            return data
        if self.overlapping or not set(data.classes) <= set(self.classes):
            raise ZooError(
                f"data set {data.name} has the classes {data.classes[:10]}, the network has {self.classes[:10]}"
            )
        if lacking := [name for name in self.classes if name not in data.classes]:
            note(f"{data.name} has no example of {listed(lacking)}, which the network knows")
        return data.with_classes(self.classes)

    def order(self, examples: int, batch_size: int, seed: tf.Tensor) -> tf.Tensor:
        """Which examples each batch of an epoch has, int32 [steps, batch_size]; shuffled, unless a task says otherwise.
        Examples that do not fill a batch are left out.

        Args:
            seed: int32 [2], another one for each epoch.
        """
        order = tf.random.experimental.stateless_shuffle(tf.range(examples), seed)
        return tf.reshape(order[: examples // batch_size * batch_size], [-1, batch_size])

    def augment(
        self, batch: tuple, seed: tf.Tensor, augmentation: Augmentation, copy: tf.Tensor, turn: tf.Tensor
    ) -> tuple:
        """A batch of `examples` with its random variations.

        Args:
            seed: int32 [2], another one for each batch of each epoch.
            copy: int32 [B], which copy of its example a row is where the augmentation expands the data.
            turn: int32 [B], the number of the epoch, plus 0 or 1 by example, for what alternates from epoch to epoch.
        """
        raise ZooError(f"{self.spec.task} takes no augmentation: leave the recipe key augmentation out")

    def begin(self, trainer: Any, batches: tf.data.Dataset) -> None:
        """What precedes the first step of a training.

        Args:
            trainer: what `compile` returned.
            batches: those of the training.
        """
        return

    def callbacks(self, model: keras.Model, directory: Path) -> list[Any]:
        """Keras callbacks of a training of `model`, which may write pictures to the run's directory. At `on_test_end`
        the model has the weights that were validated."""
        return []

    def served(self, model: keras.Model) -> keras.Model:
        """The part of the model that prediction runs."""
        return model

    def run_in_training_mode(self, model: keras.Model, inputs: Any, number: int) -> None:
        """Run every part of the model in training mode on a batch of network inputs, so that batch normalization sees
        it.

        Args:
            number: of the batch; noise is drawn by it.
        """
        model(inputs, training=True)

    def dataset_metrics(self, model: keras.Model, batches: Batches, options: Any) -> dict[str, float]:
        """Metrics of scope `dataset` on the batches of a split, which are made only if there are such metrics."""
        return {}

    def calibrated(self, model: keras.Model, batches: Batches, options: Any) -> Self:
        """The task with what the options choose on the batches of the validation split after training."""
        return self

    def with_views(self, names: Iterable[str]) -> Self:
        """The task with test-time augmentations, over which prediction and serving average the probabilities.

        Raises:
            ZooError: for unknown names, and for tasks that average nothing.
        """
        raise ZooError(f"{self.spec.task} has no test-time augmentation")

    def with_features(self, layers: Iterable[str]) -> Self:
        """The task whose exports return the outputs of these layers too, in a signature `features`.

        Raises:
            ZooError: for layers that the network does not have, and for tasks without features.
        """
        raise ZooError(f"{self.spec.task} exports no features: they are those of classifiers of images")

    def serving_inputs(self, split: Split) -> np.ndarray:
        """The split's inputs as `serving_default` takes them."""
        return split.inputs

    def items(self, given: Any) -> list[Item]:
        """The inputs for prediction in what a user gives.

        Raises:
            ZooError: for files that are missing, all at once, and for tasks without such inputs.
        """
        raise ZooError(f"{self.spec.task} takes no input on the command line: call the signatures of its export")

    def example(self, split: Split, directory: Path) -> str:
        """An input of the split as a user would type it for `items`, written to the directory if it is a file; empty
        if there is none."""
        return ""

    def portable(self, model: keras.Model) -> keras.Model:
        """The network with the model's weights that ONNX and LiteRT files hold."""
        return model

    def portable_function(self, model: keras.Model, network: Network | None = None) -> Any:
        """What files of other formats than SavedModel compute: `serving_default`, unless a task says otherwise.

        Args:
            network: what it calls in place of `served(model)`.
        """
        return self.signatures(model, network)["serving_default"]

    def portable_inputs(self, count: int) -> dict[str, Any]:
        """The inputs of `portable_function` for `count` examples, by which a file is compared with the model."""
        return self.golden_inputs(count)["serving_default"]

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The outputs of `serving_default` for one example as plain data for a user."""
        return {name: np.asarray(value).tolist() for name, value in outputs.items()}

    # --- what all kinds of task share ----------------------------------------------------------------------------

    @property
    def monitor(self) -> Metric | None:
        """The metric that chooses the best epoch; None where it is the last one."""
        return self.metrics[0] if self.metrics else None

    def build(self) -> keras.Model:
        """The network with initial weights."""
        return self.spec.build(self.input_shape, len(self.classes), **self.arguments)

    @property
    def serving_notes(self) -> dict[str, Any]:
        """What the manifest says of signatures by their names, as plain data."""
        return {}

    def network(self, model: keras.Model) -> Network:
        """The served part of the model in inference mode."""
        served = self.served(model)
        return lambda inputs: served(inputs, training=False)

    def with_options(self, recipe: Recipe) -> Recipe:
        """The recipe with this task's options: its defaults where the recipe has none."""
        return with_options(recipe, type(self), self.spec.task)

    def describe(self) -> dict[str, Any]:
        """Plain data from which `zoo.tasks.restore` makes the same task."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {**fields, "preprocessing": dataclasses.asdict(self.preprocessing)}
        return {**plain, "spec": self.spec.name, "task": self.spec.task}


def with_options(recipe: Recipe, kind: type[Task], name: str) -> Recipe:
    """The recipe with the options of a kind of task.

    Raises:
        ZooError: for a recipe with another task's options.
    """
    if type(recipe.options) is TaskOptions:
        return dataclasses.replace(recipe, options=kind.Options())
    if type(recipe.options) is not kind.Options:
        given = type(recipe.options).__name__
        raise ZooError(f"the recipe has {given}, {name} takes {kind.Options.__name__}")
    return recipe


def check_layers(model: keras.Model, names: Iterable[str]) -> None:
    """Raises ZooError for a name that no layer of the model has."""
    known = [layer.name for layer in model.layers]
    for name in names:
        if name not in known:
            raise unknown(f"layer of {model.name}", name, known)


def graph_function(call: Callable, *inputs: tf.TensorSpec) -> Any:
    """`call` as a graph function of these inputs."""
    return tf.function(call, input_signature=inputs, autograph=False)


def checked(value: Any, condition: Any, message: str) -> Any:
    """A tensor that is computed with only where the condition holds: the call fails otherwise, before any work."""
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(condition), [message])]):
        return tf.identity(value)


def named(call: Callable, *names: str) -> Callable:
    """`call`, which takes keywords, as a function of parameters with these names."""

    def with_parameters(*values: Any) -> Any:
        return call(**dict(zip(names, values, strict=True)))

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    with_parameters.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_parameters
