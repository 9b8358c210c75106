"""A network as frozen data: the spec that its builder is registered under."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from etils import epy

from zoo.errors import ZooError, unknown
from zoo.recipe import Recipe
from zoo.search_space import Range

with epy.lazy_imports():
    import keras as keras_package

if TYPE_CHECKING:
    import keras
    import numpy as np

LARGEST_SIDE = 4096  # of a network's input, in pixels


def check_keras() -> None:
    """Raises ZooError where Keras is set to another backend than TensorFlow, or to channels before height and width."""
    backend = (
        os.environ.get("KERAS_BACKEND") or "tensorflow"
    )  # first: Keras cannot even be imported without its backend
    if backend == "tensorflow":
        backend = keras_package.backend.backend()
    if backend != "tensorflow":
        raise ZooError(f"zoo runs on Keras' TensorFlow backend, not on {backend}: unset KERAS_BACKEND")
    if keras_package.config.image_data_format() != "channels_last":
        raise ZooError(
            "Keras is set to channels_first, the networks take channels_last: keras.config.set_image_data_format"
        )


@dataclasses.dataclass(frozen=True)
class ReportedScore:
    """A score that a paper reports: `value` of `metric` on the test split of `dataset`.

    Args:
        reference: paper and table that report it.
        recipe: name of the recipe that repeats the paper's training, or of the model's first one where none does.
    """

    dataset: str
    metric: str
    value: float
    reference: str
    recipe: str = "paper"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of fine-tuning: only layers whose names match one of the wildcards `layers` are trained.

    `batch_size` replaces the recipe's, where that is made for more examples than users have.
    """

    name: str
    layers: tuple[str, ...]
    learning_rate: float
    epochs: int
    batch_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From images to a network's input, inside the graph.

    Images are resized to `size` (height, width in pixels; None keeps any size): `fit` stretches them, or first crops
    them in the middle to its proportions, so that their shorter side becomes that of `size`. Their center is cut to
    `crop_to` (None for no cropping), and they are padded with zeros to `pad_to` (None for no padding). Then
    0..`full_scale` is mapped linearly to `low`..`high`; or, where `mean` and `std` are given (one number a band), the
    mean is subtracted and the result divided by the standard deviation. `dtype` is the type in which images are
    served. `background` is the gray value that transparent pixels show, from 0 (black) to 255 (white).
    """

    size: tuple[int, int] | None = None
    fit: Literal["stretch", "crop"] = "stretch"
    crop_to: tuple[int, int] | None = None
    pad_to: tuple[int, int] | None = None
    low: float = 0.0
    high: float = 1.0
    full_scale: float = 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: Literal["uint8", "float32"] = "uint8"
    background: int = 255

    def __post_init__(self) -> None:
        sides = [side for size in (self.size, self.crop_to, self.pad_to) for side in size or ()]
        if not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise ZooError(f"preprocessing needs sides from 1 to {LARGEST_SIDE} pixels, not {sides}")
        if not all(map(math.isfinite, (self.low, self.high, self.full_scale, *self.mean, *self.std))):
            raise ZooError("preprocessing needs finite numbers")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A network under a name: everything that other code needs to know about it.

    Args:
        task: the kind of task, a key of `zoo.tasks.TASKS`.
        references: the papers, books and programs that describe the network.
        input_shape: the network's input without the batch axis (height, width, channels in pixels, or length).
        classes: number of outputs of the network in its reference; 0 where there are no classes.
        params: trainable parameters at `input_shape` and `classes`, counted by hand.
        recipes: ways to train it by name, the first one the default; none for an ensemble.
        head: wildcards of the layers that depend on `classes` and are replaced by fine-tuning.
        features: names of the layers whose outputs are useful as features, from input to output.
        stages: the stages of fine-tuning in order.
        outputs: what the network returns and how it becomes probabilities: `logits` (softmax), `sigmoid` (logits of
            independent sigmoid units, whose activations are divided by their sum) or `distances` (softmax of their
            negative). Tasks of other kinds have `logits`.
        reported: the scores that the references report.
        arguments: the builder's further arguments for this variant.
        notes: what a reader should know about this variant, such as an error in the paper and how it is resolved.
        search: values that a search may give to builder arguments and recipe keys.
        ensemble: whether the network joins trained networks and is not trained itself.
        prepare: called once before training from scratch, with the network and 5,000 inputs of it from the training
            data, float32 [N, H, W, C]: it sets initial weights that depend on the data.
        origin: the package whose network and weights these are; empty for the zoo's own and for plugins.
        pretrained: by tag, weights that the origin publishes: what fetches them, returns them by key, as
            `zoo.weights.named_weights` names them, and the names of their classes.
    """

    name: str
    task: str
    summary: str
    year: int
    references: tuple[str, ...]
    input_shape: tuple[int | None, ...]
    classes: int
    params: int
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    head: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    outputs: Literal["logits", "sigmoid", "distances"] = "logits"
    reported: tuple[ReportedScore, ...] = ()
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    search: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    ensemble: bool = False
    prepare: Callable[[keras.Model, np.ndarray], None] | None = None
    origin: str = ""
    pretrained: Mapping[str, Callable[[], tuple[Mapping[str, np.ndarray], tuple[str, ...]]]] = dataclasses.field(
        default_factory=dict
    )
    builder: Callable[..., keras.Model] | None = None

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe of that name; the spec's first one by default.

        Raises:
            ZooError: for an unknown name, and for an ensemble.
        """
        if self.ensemble:
            raise ZooError(f"{self.name} is an ensemble: train its members and join them with `zoo ensemble`")
        name = name or next(iter(self.recipes))
        if name not in self.recipes:
            raise unknown(f"recipe of {self.name}", name, self.recipes)
        return self.recipes[name]

    @property
    def builder_arguments(self) -> tuple[str, ...]:
        """Names of the builder's arguments, after the input shape and the classes."""
        assert self.builder is not None, "a registered spec has a builder"
        return (*inspect.signature(self.builder).parameters,)[2:]

    def build(
        self, input_shape: tuple[int | None, ...] | None = None, classes: int | None = None, **arguments: Any
    ) -> keras.Model:
        """The network with initial weights.

        Args:
            input_shape, classes, arguments: in place of the spec's.

        Raises:
            ZooError: for arguments that the builder does not take, and shapes that the network cannot have.
        """
        shape = tuple(input_shape or self.input_shape)
        if self.builder is None:
            raise ZooError(f"model {self.name} has no builder: register it with @zoo.register")
        for key, value in arguments.items():
            usual = self.arguments.get(key)
            if isinstance(usual, tuple) and not isinstance(value, list | tuple):
                raise ZooError(f"argument {key} of {self.name} must be a list such as {list(usual)}, not {value!r}")
        try:
            return self.builder(shape, self.classes if classes is None else classes, **{**self.arguments, **arguments})
        except ZooError:
            raise
        except TypeError as error:
            raise ZooError(f"model {self.name}: {error}") from error
        except (ValueError, ArithmeticError, LookupError) as error:
            reason = str(error).splitlines()[0]
            chosen = f" and {arguments}" if arguments else ""
            raise ZooError(f"model {self.name} cannot be built with input shape {shape}{chosen}: {reason}") from error
