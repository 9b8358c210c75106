"""What a recipe sets for one kind of task, as plain data."""

from __future__ import annotations

import dataclasses
from typing import Literal

from zoo.errors import ZooError


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
class TaskOptions:
    """What a recipe sets for one kind of task; the base class stands for the task's defaults."""


@dataclasses.dataclass(frozen=True)
class ClassificationOptions(TaskOptions):
    """Options of classifiers of images and of texts.

    Args:
        label_smoothing: share of each target that is spread evenly over all classes, for cross-entropy losses.
        loss_weights: weight of the loss of each of the network's outputs; all learn the same classes, and the first
            one alone is measured and served.
        class_weight: `balanced` weighs each training example by the inverse of its class's share.
        perturbation: size of the adversarial step of a text classifier's embedding (`zoo.tasks.perturbation`); 0 for
            none.
        labels_per_class: the training data keep the labels of at most so many examples of each class; None for all.
        labels_seed: seed by which these examples are drawn.
    """

    label_smoothing: float = 0.0
    loss_weights: tuple[float, ...] = (1.0,)
    class_weight: Literal["balanced"] | None = None
    perturbation: float = 0.0
    labels_per_class: int | None = None
    labels_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ZooError(f"label_smoothing must be from 0 to below 1, not {self.label_smoothing}")
        if self.perturbation < 0:
            raise ZooError(f"perturbation must be at least 0, not {self.perturbation}")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ZooError(f"labels_per_class must be at least 1, not {self.labels_per_class}")


@dataclasses.dataclass(frozen=True)
class GenerationOptions(TaskOptions):
    """Options of generators that are trained against a discriminator. The recipe's `ema` averages the generator.

    Args:
        real_target: target of real images, below 1 for one-sided label smoothing (Salimans et al. 2016, section 3.4).
        r1: weight of the R1 gradient penalty (Mescheder et al. 2018); 0 for none.
        r1_every: steps from one penalty to the next (Karras et al. 2020, section 3.1).
        discriminator_steps: updates of the discriminator for each of the generator, on as many parts of the batch.
        discriminator_rate: the discriminator's learning rate as a multiple of the recipe's.
        information, information_continuous: weights of the mutual information of the images with categorical and with
            continuous codes, for networks that have codes (Chen et al. 2016, equation (6); 0.1 is chosen).
    """

    real_target: float = 1.0
    r1: float = 0.0
    r1_every: int = 16
    discriminator_steps: int = 1
    discriminator_rate: float = 1.0
    information: float = 1.0
    information_continuous: float = 0.1

    def __post_init__(self) -> None:
        for name in ("r1_every", "discriminator_steps"):
            if getattr(self, name) < 1:
                raise ZooError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("r1", "information", "information_continuous"):
            if getattr(self, name) < 0:
                raise ZooError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 < self.real_target <= 1:
            raise ZooError(f"real_target must be above 0 and at most 1, not {self.real_target}")
        if not self.discriminator_rate > 0:
            raise ZooError(f"discriminator_rate must be above 0, not {self.discriminator_rate}")


@dataclasses.dataclass(frozen=True)
class SegmentationOptions(TaskOptions):
    """Options of segmentation with one class a pixel.

    Args:
        border: extra weight of the pixels between objects; None for none.
        ignored_class: name of the class whose pixels do not count; None for none.
        threshold_by: with two classes, the validation metric that chooses the probability threshold of the second;
            None, and with more classes, for the most probable class.
    """

    border: Border | None = None
    ignored_class: str | None = None
    threshold_by: Literal["iou", "adapted_rand_error"] | None = None


@dataclasses.dataclass(frozen=True)
class MultilabelOptions(TaskOptions):
    """Options of segmentation with classes that may overlap.

    Args:
        threshold_by: the validation metric that chooses each class's probability threshold; None for 0.5.
    """

    threshold_by: Literal["iou", "adapted_rand_error"] | None = None
