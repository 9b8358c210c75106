"""Optimizers of a training: the recipe's, or those that the caller passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from etils import epy

from zoo.errors import ZooError
from zoo.recipe import Recipe

with epy.lazy_imports():
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Given:
    """Keras objects that the caller passes in place of what the recipe names.

    Args:
        optimizer: a Keras optimizer, which is copied.
        loss: a Keras loss.
        metrics: Keras metrics, measured beside the task's.
        callbacks: Keras callbacks, called after the trainer's own.
    """

    optimizer: Any = None
    loss: Any = None
    metrics: Sequence[Any] = ()
    callbacks: Sequence[Any] = ()

    def describe(self) -> dict[str, Any]:
        """The names of what was given, as plain data; empty where nothing was."""
        single = {"optimizer": self.optimizer, "loss": self.loss}
        several = {"metrics": self.metrics, "callbacks": self.callbacks}
        described: dict[str, Any] = {name: _name_of(one) for name, one in single.items() if one is not None}
        return described | {name: [_name_of(one) for one in ones] for name, ones in several.items() if ones}


NOTHING_GIVEN = Given()


def _name_of(given: Any) -> str:
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


def split_given(
    optimizer: Any, loss: Any, metrics: Sequence[Any], callbacks: Sequence[Any]
) -> tuple[Given, dict[str, Any]]:
    """The Keras objects among what a caller passes, and the recipe keys that follow from it: the names of an optimizer
    and a loss, and the learning rate of an optimizer.

    Raises:
        ZooError: for an optimizer that is neither of Keras nor a name, or that has a schedule of its own.
    """
    keys: dict[str, Any] = {
        key: one for key, one in {"optimizer": optimizer, "loss": loss}.items() if isinstance(one, str)
    }
    if optimizer is not None and "optimizer" not in keys:
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ZooError(f"the optimizer must be a Keras optimizer or the name of one, not {_name_of(optimizer)}")
        rate = getattr(optimizer, "inner_optimizer", optimizer).get_config()["learning_rate"]  # of loss scaling
        if not isinstance(rate, float):
            raise ZooError("the optimizer has a schedule of its own: give it a number, and the recipe a schedule")
        keys["learning_rate"] = rate
    objects = {key: one for key, one in {"optimizer": optimizer, "loss": loss}.items() if key not in keys}
    return Given(**objects, metrics=metrics, callbacks=callbacks), keys


def optimizer_maker(recipe: Recipe, given: Given) -> Callable[[], keras.optimizers.Optimizer]:
    """A function that makes a fresh optimizer: a copy of the given one, or the recipe's."""
    if given.optimizer is None:
        return lambda: make_optimizer(recipe)
    config = keras.optimizers.serialize(given.optimizer)
    return lambda: keras.optimizers.deserialize(config)


def make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """A fresh optimizer by the recipe; weight decay leaves out biases and normalization.

    Raises:
        ZooError: for an optimizer that Keras does not know, or arguments that it does not take.
    """
    config = {"learning_rate": recipe.learning_rate, "clipnorm": recipe.clip_norm}
    config |= {
        "global_clipnorm": recipe.global_clip_norm,
        "weight_decay": recipe.weight_decay,
        **recipe.optimizer_arguments,
    }
    try:
        kind = type(keras.optimizers.get(recipe.optimizer))
        if recipe.ema:
            config |= {"use_ema": True, "ema_momentum": recipe.ema}
            kind = with_rising_average(kind, recipe.ema_power)
        optimizer = kind(**config)
    except (ValueError, TypeError) as error:
        raise ZooError(f"optimizer {recipe.optimizer!r} with {config}: {str(error).splitlines()[0]}") from None
    optimizer.weight_decay = optimizer.weight_decay or None  # AdamW's constructor does not take None for no decay
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    if recipe.rate_factors:
        update = optimizer.update_step

        def scaled_update(gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
            name = variable.name.split("/")[-1].split(":")[0]  # of "layer/name:0"
            update(gradient, variable, rate * recipe.rate_factors.get(name, 1.0))

        optimizer.update_step = scaled_update
    return optimizer


def optimizers_of(trainer: keras.Model) -> list[Any]:
    """The optimizers of a compiled model: those that it lists as `optimizers`, or its only one."""
    return getattr(trainer, "optimizers", None) or [trainer.optimizer]


def with_rising_average(kind: type, power: float) -> type:
    """An optimizer class whose moving average of the weights has the momentum 1 - (1 + step) ** -power, or its
    `ema_momentum` where that is lower: with a constant one of 0.999 a short run would hardly leave its first weights.
    It is the warm-up of timm's `ModelEmaV3`, whose default power is 2 / 3."""

    class RisingAverage(kind):
        @property
        def ema_momentum(self) -> Any:
            if getattr(self, "_iterations", None) is None:
                return self.highest
            step = keras.ops.cast(self.iterations, "float32")
            return keras.ops.minimum(self.highest, 1 - (1 + step) ** -power)

        @ema_momentum.setter
        def ema_momentum(self, value: float) -> None:
            self.highest = value

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "ema_momentum": self.highest}

    RisingAverage.__name__ = kind.__name__
    return RisingAverage


def keeps_average(optimizer: Any) -> bool:
    """Whether an optimizer, or the one that a loss-scaling optimizer wraps, keeps a moving average of the weights."""
    return getattr(optimizer, "inner_optimizer", optimizer).use_ema
