"""Recipes as plain data: how a network is trained, nothing of how that is carried out.

Every class here is frozen, is written to JSON by `dataclasses.asdict`, and is read back by `from_dict`,
which refuses keys that it does not know.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from zoo.errors import ZooError, unknown

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the epoch: a factor on the recipe's `learning_rate`.

    `constant` stays at 1; `cosine` falls from 1 to 0 over the epochs; `step` multiplies by `decay` every `every`
    epochs; `table` takes the factor of the last (first epoch, factor) pair that has begun. The first
    `warmup_epochs` rise linearly to the factor.
    """

    kind: Literal["constant", "cosine", "step", "table"] = "constant"
    warmup_epochs: int = 0
    decay: float = 0.1
    every: int = 1
    table: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("warmup_epochs", 0)):
            if getattr(self, name) < least:
                raise ZooError(f"schedule key {name} must be at least {least}, not {getattr(self, name)}")
        if self.kind == "table" and 0 not in [first for first, _ in self.table]:
            raise ZooError("schedule key table must begin with a pair for epoch 0")

    def factor(self, epoch: int, epochs: int) -> float:
        """The factor for `epoch` (from 0) of `epochs`."""
        warmup = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        if self.kind == "cosine":
            return warmup * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        if self.kind == "step":
            return warmup * self.decay ** (epoch // self.every)
        if self.kind == "table":
            return warmup * [factor for first, factor in self.table if first <= epoch][-1]
        return warmup


@dataclasses.dataclass(frozen=True)
class Affine:
    """Random rotation (degrees), translation (fraction of the side), scaling (relative) and skew (degrees), each
    drawn uniformly between minus and plus the value."""

    rotation: float = 0.0
    translation: float = 0.0
    scale: float = 0.0
    skew: float = 0.0


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Simard, Steinkraus and Platt 2003, section 2: a uniform random field in [-1, 1] for each axis, smoothed by a
    Gaussian of standard deviation `sigma` pixels, times `alpha` pixels. Their best for MNIST is the default."""

    alpha: float = 34.0
    sigma: float = 4.0

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ZooError(f"elastic needs a sigma above 0 pixels, not {self.sigma}")


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Random contrast and brightness: an image's differences from its mean are multiplied by a factor between
    1 - `contrast` and 1 + `contrast`, and its mean moves by up to `brightness` of its standard deviations."""

    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.contrast < 1:
            raise ZooError(f"color_jitter needs a contrast from 0 to below 1, not {self.contrast}")


@dataclasses.dataclass(frozen=True)
class FlipCrop:
    """Random horizontal flip and a random crop after padding by `pad` pixels (He et al. 2016, section 4.2)."""

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ZooError(f"flip_crop needs a pad of at least 0 pixels, not {self.pad}")


@dataclasses.dataclass(frozen=True)
class Patches:
    """Windows of `size` x `size` pixels (the whole side of a smaller image) drawn at random from images with masks,
    `per_image` from each in an epoch: anywhere, or, `balanced`, around a pixel of a class that is drawn first, each as
    often as the others."""

    size: int = 256
    per_image: int = 4
    balanced: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "per_image"):
            if getattr(self, name) < 1:
                raise ZooError(f"patches need a {name} of at least 1, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Border:
    """Pixels between touching objects weigh up to `weight` more, the more the nearer both are, by a Gaussian of
    `sigma` pixels (Ronneberger et al. 2015, section 3, whose constants are the default)."""

    weight: float = 10.0
    sigma: float = 5.0

    def __post_init__(self) -> None:
        if self.sigma <= 0 or self.weight < 0:
            raise ZooError(f"border needs a sigma above 0 and a weight from 0 on, not {self.sigma} and {self.weight}")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for each example in each epoch; all that is set is applied, all geometry as one warp.

    `expand_shift` is Nielsen's expansion (chapter 6): each image also shifted by one pixel up, down, left and
    right, so that an epoch has five times the images. `warped` is the share of the examples that `affine` and `elastic`
    move: interpolation smooths the noise of their images, the others keep it. `fill` says what lies beyond an image's
    edge: zero, or its reflection.
    """

    expand_shift: bool = False
    patches: Patches | None = None
    affine: Affine | None = None
    elastic: Elastic | None = None
    flip_crop: FlipCrop | None = None
    dihedral: bool = False
    color_jitter: ColorJitter | None = None
    warped: float = 1.0
    fill: Literal["constant", "reflect"] = "constant"

    def __post_init__(self) -> None:
        if self.expand_shift and self.patches:
            raise ZooError("augmentation takes expand_shift or patches, not both")
        if not 0 <= self.warped <= 1:
            raise ZooError(f"augmentation needs a warped share from 0 to 1, not {self.warped}")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        epochs: passes over the training data (over its expansion, where the augmentation expands it).
        arguments: the builder's arguments that only the start of the training depends on, such as `initialisation`.
        batch_size: examples a step, over all devices together.
        learning_rate: the optimizer's rate before the schedule's factor.
        optimizer: a name that `keras.optimizers.get` knows.
        optimizer_arguments: further arguments of that optimizer, such as `momentum`.
        loss: a name that the task knows.
        weight_decay: fraction of each kernel (not bias) taken off at each step, times the learning rate; for plain
            SGD that is L2 regularisation with this factor.
        clip_norm: largest norm of each variable's gradient; with several devices, of each device's share of it.
        ema: momentum of the exponential moving average of the weights that is validated and kept; None for none. The
            average begins at the start's weights: a run needs some 5 / (1 - ema) steps to leave them behind.
        border: for masks, the extra weight of pixels between objects; None for none.
        ignored_class: for masks, the class whose pixels count for nothing; None for none.
        threshold_by: for masks of two classes, and of classes that overlap, the validation figure that chooses from
            which probability on a pixel is of the (last) class; None, and for more classes, the likeliest.
        patience: epochs without a better validation figure before training stops; None for never.
        targets: by data set, the validation figure that a run of this recipe is expected to reach.
        deviations: where this differs from the source's own training.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "sgd"
    optimizer_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schedule: Schedule = Schedule()
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    ema: float | None = None
    clip_norm: float | None = None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    augmentation: Augmentation = Augmentation()
    border: Border | None = None
    ignored_class: str | None = None
    threshold_by: Literal["iou", "adapted_rand_error"] | None = None
    patience: int | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    targets: Mapping[str, float] = dataclasses.field(default_factory=dict)
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), bool):  # which Python counts among the numbers
                raise ZooError(f"recipe key {field.name} cannot be {getattr(self, field.name)}")
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ZooError(f"recipe key {name} must be at least 1, not {value}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ZooError(f"recipe key learning_rate must be above 0 and finite, not {self.learning_rate}")

    def replace(self, **changes: Any) -> Recipe:
        """This recipe with some keys changed; nested keys are given as mappings.

        Raises:
            ZooError: for a key that a recipe does not have, or a value of another type.
        """
        return from_dict(Recipe, {**dataclasses.asdict(self), **changes})


# What the `modern` recipes for small grey pictures vary: each says in its family's file what it changes.
MODERN_PICTURES = Recipe(
    epochs=40,
    batch_size=128,
    learning_rate=2e-3,
    optimizer="adamw",
    schedule=Schedule("cosine", warmup_epochs=1),
    weight_decay=0.02,
    ema=0.999,
    augmentation=Augmentation(
        affine=Affine(rotation=10.0, translation=0.07, scale=0.1, skew=5.0),
        elastic=Elastic(alpha=20.0, sigma=4.0),
        warped=0.6,  # interpolation blurs: on validation, networks that have seen sharp pictures too are better
    ),
)
# For networks with few units, which cannot follow wide distortions.
MILD_DISTORTIONS = Augmentation(
    affine=Affine(rotation=6.0, translation=0.04, scale=0.06, skew=5.0),
    elastic=Elastic(alpha=12.0, sigma=4.0),
)


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """The frozen dataclass `cls` from plain (JSON) data.

    Raises:
        ZooError: for unknown keys (with the nearest known one), missing keys and values of another type.
    """
    import dacite

    _refuse_unknown_keys(cls, data)
    try:
        return dacite.from_dict(cls, data, config=dacite.Config(cast=[tuple], type_hooks={float: _as_float}))
    except dacite.DaciteError as error:
        raise ZooError(f"{cls.__name__.lower()}: {error}") from None


def _refuse_unknown_keys(cls: Any, data: Mapping[str, Any]) -> None:
    """Raises ZooError for a key that the dataclass does not have, or that one within it does not."""
    hints = get_type_hints(cls)
    for key, value in data.items():
        if key not in hints:
            raise unknown(f"{cls.__name__.lower()} key", key, hints)
        nested = [one for one in (hints[key], *get_args(hints[key])) if dataclasses.is_dataclass(one)]
        if nested and isinstance(value, Mapping):
            _refuse_unknown_keys(nested[0], value)


def _as_float(value: Any) -> Any:
    """Whole numbers are also rates: JSON and the command line do not tell 1 from 1.0."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
