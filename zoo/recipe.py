"""Recipes as plain data: how a network is trained.

Every class here is frozen, is written to JSON by `dataclasses.asdict`, and is read back by `from_dict` or, for a whole
recipe, `recipe_from_dict`, which refuse unknown keys.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from zoo.errors import ZooError, unknown
from zoo.options import TaskOptions

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the epoch: a factor on the recipe's `learning_rate`.

    `constant` stays at 1; `cosine` falls from 1 to 0 over the epochs; `step` multiplies by `decay` every `every`
    epochs; `table` takes the factor of the last (first epoch, factor) pair that has begun. The first
    `warmup_epochs` rise linearly to the factor. `triangle` is set anew for each step: it rises linearly from `first` to
    1 during the share `peak` of the training, and falls linearly to `last`.
    """

    kind: Literal["constant", "cosine", "step", "table", "triangle"] = "constant"
    warmup_epochs: int = 0
    decay: float = 0.1
    every: int = 1
    table: tuple[tuple[int, float], ...] = ()
    first: float = 0.0
    peak: float = 0.5
    last: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise ZooError(f"schedule key peak must be a share between 0 and 1, not {self.peak}")
        for name, least in (("every", 1), ("warmup_epochs", 0)):
            if getattr(self, name) < least:
                raise ZooError(f"schedule key {name} must be at least {least}, not {getattr(self, name)}")
        epochs = [epoch for epoch, _ in self.table]
        if self.kind == "table" and (epochs[:1] != [0] or epochs != sorted(set(epochs))):
            raise ZooError("schedule key table must have pairs of ascending epochs, the first for epoch 0")

    @property
    def by_step(self) -> bool:
        """Whether the factor changes within an epoch."""
        return self.kind == "triangle"

    def factor(self, epoch: float, epochs: int) -> float:
        """The factor for `epoch` (from 0) of `epochs`; between two whole numbers for a step within an epoch."""
        if self.kind == "triangle":
            done = epoch / epochs
            if done < self.peak:
                return self.first + (1 - self.first) * done / self.peak
            return 1 + (self.last - 1) * (done - self.peak) / (1 - self.peak)
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
class ColorPca:
    """Random multiples of the principal components of the colors, added to all pixels of an image: each component times
    its eigenvalue times a number from a normal distribution of mean 0 and this `standard_deviation` (Krizhevsky,
    Sutskever and Hinton 2012, section 4.1, whose constant is the default).

    Pixels count from 0 to 1. `values` and `vectors` (one a row) are those of the covariance of the training images'
    pixels, on which they are measured where they are empty.
    """

    standard_deviation: float = 0.1
    values: tuple[float, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """A part of the image, resized to the network's input: its share of the area is drawn uniformly from `least_area`
    to 1, its width divided by its height from 1 / `ratio` to `ratio` (Szegedy et al. 2015, section 6, whose constants
    are the default), uniformly on a logarithmic scale; no side is longer than the image's."""

    least_area: float = 0.08
    ratio: float = 4 / 3

    def __post_init__(self) -> None:
        if not 0 < self.least_area <= 1 or self.ratio < 1:
            raise ZooError(
                f"resized_crop needs a least_area above 0 and up to 1 and a ratio from 1 on, not {self.least_area}, "
                f"{self.ratio}"
            )


@dataclasses.dataclass(frozen=True)
class FlipCrop:
    """Random horizontal flip and a random crop after padding by `pad` pixels (He et al. 2016, section 4.2).

    With `alternating`, an image is flipped at random in the first epoch and in every second epoch from then on as in
    the first, in the others the other way round: two epochs show both sides of it (Jordan 2024, section 3.6).
    """

    pad: int = 4
    flip: bool = True
    alternating: bool = False

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
class Augmentation:
    """What is drawn anew for each example in each epoch; all that is set is applied, all geometry as one warp.

    `expand_shift` is Nielsen's expansion (chapter 6): each image also shifted by one pixel up, down, left and
    right, so that an epoch has five times the images. `warped` is the share of the examples that `affine` and `elastic`
    move: interpolation smooths the noise of their images, the others keep it. `fill` says what lies beyond an image's
    edge: zero, or its reflection.

    `cutout` sets a square of so many pixels, whose center is anywhere in the network's input, to 0 (DeVries and Taylor
    2017, section 3.2). `mixup` mixes each input and its target with the next one of the batch, by a share from
    the beta distribution with both parameters of this value (Zhang et al. 2018, section 2).
    """

    expand_shift: bool = False
    patches: Patches | None = None
    affine: Affine | None = None
    elastic: Elastic | None = None
    flip_crop: FlipCrop | None = None
    dihedral: bool = False
    resized_crop: ResizedCrop | None = None
    color_jitter: ColorJitter | None = None
    color_pca: ColorPca | None = None
    cutout: int | None = None
    mixup: float | None = None
    warped: float = 1.0
    fill: Literal["constant", "reflect"] = "constant"

    def __post_init__(self) -> None:
        if self.expand_shift and self.patches:
            raise ZooError("augmentation takes expand_shift or patches, not both")
        if self.cutout is not None and self.cutout < 1:
            raise ZooError(f"augmentation needs a cutout of at least 1 pixel, not {self.cutout}")
        if self.mixup is not None and not self.mixup > 0:
            raise ZooError(f"augmentation needs a mixup above 0, not {self.mixup}")
        if not 0 <= self.warped <= 1:
            raise ZooError(f"augmentation needs a warped share from 0 to 1, not {self.warped}")

    @property
    def on_inputs(self) -> bool:
        """Whether anything of it varies the network's inputs rather than the images."""
        return self.cutout is not None or self.mixup is not None


@dataclasses.dataclass(frozen=True)
class Lookahead:
    """Every `every` steps the weights move to a slow average, which first moves towards them: with the decay d, slow
    becomes d * slow + (1 - d) * weights. The decay grows from 0 to `decay` with the third power of the share of the
    training that is done (Jordan 2024, section 3.4)."""

    every: int = 5
    decay: float = 0.95**5

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.decay < 1:
            raise ZooError(
                f"lookahead needs every from 1 on and a decay from 0 to below 1, not {self.every}, {self.decay}"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        epochs: passes over the training data (over its expansion, where the augmentation expands it).
        batch_size: examples in a step, over all devices together.
        learning_rate: the optimizer's learning rate, before the schedule's factor.
        optimizer: a name that `keras.optimizers.get` knows.
        optimizer_arguments: further arguments of that optimizer, such as `momentum`.
        loss: a name that the task knows.
        weight_decay: share of each kernel (not bias) subtracted at each step, times the learning rate; for plain SGD
            that is L2 regularization with this factor.
        ema: largest momentum of the exponential moving average of the weights that is validated and kept; None for
            none. The momentum rises with the number of steps, so that the average is useful from the first ones on.
        ema_power: how fast it rises, as 1 - (1 + step) ** -ema_power; with 1 the average is the mean of all steps until
            the momentum is `ema`.
        lookahead: slow weights that the weights are moved to every few steps; None for none.
        rate_factors: factors on the learning rate by the name of a weight, such as `{"beta": 64.0}` for the biases of
            batch normalization.
        clip_norm: largest norm of each variable's gradient; with several devices, of each device's share of it.
        global_clip_norm: largest norm of all gradients together; with several devices, of each device's share of them.
        patience: epochs without a better validation score before training stops; None for never.
        background: gray value that transparent pixels of image files show, from 0 (black) to 255 (white).
        arguments: builder arguments that matter only for training, such as `initialization`.
        options: the task's own options, one of the `TaskOptions` classes.
        targets: by data set, the validation score that a run of this recipe is expected to reach.
        deviations: where this training differs from the paper's.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "sgd"
    optimizer_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schedule: Schedule = Schedule()
    loss: str = "cross_entropy"
    weight_decay: float = 0.0
    ema: float | None = None
    ema_power: float = 2 / 3
    lookahead: Lookahead | None = None
    rate_factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    clip_norm: float | None = None
    global_clip_norm: float | None = None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    augmentation: Augmentation = Augmentation()
    patience: int | None = None
    background: int = 255
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: TaskOptions = dataclasses.field(default_factory=TaskOptions)
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
        if not 0 < self.ema_power <= 1:
            raise ZooError(f"recipe key ema_power must be above 0 and at most 1, not {self.ema_power}")
        if not self.weight_decay >= 0:
            raise ZooError(f"recipe key weight_decay must be at least 0, not {self.weight_decay}")
        if not 0 <= self.background <= 255:
            raise ZooError(f"recipe key background must be a gray value from 0 to 255, not {self.background}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ZooError(f"recipe key learning_rate must be above 0 and finite, not {self.learning_rate}")

    def replace(self, **changes: Any) -> Recipe:
        """This recipe with some keys changed; nested keys are given as mappings, and a key of the task's options may
        be given like one of the recipe's own.

        Raises:
            ZooError: for a key that neither the recipe nor its options have, or a value of another type.
        """
        own = {field.name for field in dataclasses.fields(self)}
        nested = {field.name for field in dataclasses.fields(self.options)}
        for key in changes:
            if key not in own | nested:
                raise unknown("recipe key", key, own | nested)
        given = changes.pop("options", {})
        if not isinstance(given, TaskOptions | Mapping):
            raise ZooError(f"recipe key options must be a mapping of keys, not {given!r}")
        options = {**_plain(self.options), **_plain(given)}
        options |= {key: changes.pop(key) for key in [*changes] if key not in own}
        return recipe_from_dict({**dataclasses.asdict(self), **changes, "options": options}, type(self.options))


def recipe_from_dict(data: Mapping[str, Any], options: type[TaskOptions]) -> Recipe:
    """A recipe from plain (JSON) data, with the options of a kind of task.

    Raises:
        ZooError: for unknown keys (with the nearest known one), missing keys and values of another type.
    """
    if not isinstance(data, Mapping):
        raise ZooError(f"recipe: a mapping of keys is needed, not {data!r}")
    plain = {key: value for key, value in data.items() if key != "options"}
    recipe = from_dict(Recipe, plain)
    return dataclasses.replace(recipe, options=from_dict(options, data.get("options", {})))


def _plain(options: Any) -> dict[str, Any]:
    return dataclasses.asdict(options) if isinstance(options, TaskOptions) else dict(options)


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """The frozen dataclass `cls` from plain (JSON) data.

    Raises:
        ZooError: for unknown keys (with the nearest known one), missing keys and values of another type.
    """
    import dacite

    data = plain(data)
    if not isinstance(data, Mapping):
        raise ZooError(f"{cls.__name__.lower()}: a mapping of keys is needed, not {data!r}")
    _refuse_unknown_keys(cls, data)
    try:
        return dacite.from_dict(
            cls, data, config=dacite.Config(cast=[tuple], type_hooks={float: _as_float, int: _as_int})
        )
    except ZooError:
        raise
    except (dacite.DaciteError, TypeError, ValueError, OverflowError) as error:  # for a number in place of a list
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


def plain(value: Any) -> Any:
    """Python's own numbers and lists in place of NumPy's, also within lists and mappings."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def _as_int(value: Any) -> Any:
    """JSON may write a whole number as 5.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_float(value: Any) -> Any:
    """Whole numbers are also rates: JSON and the command line do not tell 1 from 1.0."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
