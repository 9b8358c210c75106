"""What a network is, as frozen data: the spec that a builder is registered under."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import ZooError, unknown
from zoo.recipe import Recipe

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure that the source reports: `value` of `metric` on `dataset`, with the recipe of that name."""

    dataset: str
    metric: str
    value: float
    source: str
    recipe: str = "paper"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of fine-tuning: only layers whose names match one of the wildcards `layers` are trained."""

    name: str
    layers: tuple[str, ...]
    learning_rate: float
    epochs: int


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From pictures to a network's input, inside the graph: resize to `size` (height, width in pixels; None keeps
    any size), pad with zeros around to `pad_to` (None: none), then map 0..`full_scale` linearly to `low`..`high`; or,
    where `mean` and `deviation` are given, subtract the one and divide by the other, a number a band. `dtype` is the
    type that pictures are served as."""

    size: tuple[int, int] | None = None
    pad_to: tuple[int, int] | None = None
    low: float = 0.0
    high: float = 1.0
    full_scale: float = 255.0
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    dtype: Literal["uint8", "float32"] = "uint8"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A network under a name: everything that others need to know of it.

    Args:
        task: the kind of task, a key of `zoo.tasks`.
        input_shape: the network's input without the batch axis (height, width, channels in pixels, or length).
        classes: how many outputs the source's network has; 0 where it has none to choose.
        params: trainable parameters at `input_shape` and `classes`, counted by hand.
        head: wildcards of the layers that depend on `classes` and are replaced by fine-tuning.
        features: names of the layers whose outputs are of use to others, from input to output.
        scores: what the network puts out: `logits` (softmax follows), `sigmoid` (divided by their sum),
            `distances` (softmax of their negative) or `masks` (logits of classes that may overlap: a sigmoid each).
        arguments: the builder's further arguments for this variant.
        recipes: ways to train it, the first the default; none for an ensemble.
        notes: what a reader should know of this variant, such as a mistake of the source and which form is built.
    """

    name: str
    task: str
    summary: str
    year: int
    sources: tuple[str, ...]
    input_shape: tuple[int | None, ...]
    classes: int
    params: int
    recipes: Mapping[str, Recipe]
    head: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    scores: Literal["logits", "sigmoid", "distances", "masks"] = "logits"
    published: tuple[Published, ...] = ()
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    builder: Callable[..., keras.Model] | None = None

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe of that name; the first of the spec where none is named.

        Raises:
            ZooError: for an unknown name, and for a network that is joined from trained ones.
        """
        if not self.recipes:
            raise ZooError(f"{self.name} is not trained itself: train its members and join them with `zoo ensemble`")
        name = name or next(iter(self.recipes))
        if name not in self.recipes:
            raise unknown(f"recipe of {self.name}", name, self.recipes)
        return self.recipes[name]
