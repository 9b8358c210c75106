"""The trainer: a recipe in, a run out. It knows no model and no kind of task by name."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import registry, tasks
from zoo.data import Dataset, Split, brightness
from zoo.errors import ZooError, note
from zoo.files import read_json, write_json
from zoo.recipe import Recipe, plain
from zoo.spec import check_keras
from zoo.training.batches import evaluation_batches, load_for, training_batches
from zoo.training.devices import strategy
from zoo.training.evaluation import evaluate_splits
from zoo.training.randomness import dtype_policy, seeded
from zoo.training.runs import RUN_FILE, WEIGHTS_FILE, Run, describe_run, open_run
from zoo.weights import assign, named_weights, save_arrays

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.training import callbacks, plots, remarks

MOST_STEPS_PER_EXECUTION = 50  # steps that run without returning to Python; small batches gain most
EXAMPLES_TO_MEASURE = 1_000  # of the training data, for batch normalization
EXAMPLES_TO_PREPARE = 5_000  # of the training data, for initial weights that depend on it


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
        rate = optimizer.get_config()["learning_rate"]
        if not isinstance(rate, float):
            raise ZooError("the optimizer has a schedule of its own: give it a number, and the recipe a schedule")
        keys["learning_rate"] = rate
    objects = {key: one for key, one in {"optimizer": optimizer, "loss": loss}.items() if key not in keys}
    return Given(**objects, metrics=metrics, callbacks=callbacks), keys


def train(
    name: str,
    data: Any = "digits",
    *,
    recipe: str | Recipe | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
    seed: int = 0,
    deterministic: bool = False,
    input_shape: tuple | None = None,
    arguments: Mapping[str, Any] | None = None,
    strict: bool = False,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    **changes: Any,
) -> Run:
    """Train a network of the registry from scratch, or resume the interrupted run in `out`.

    The caller's random state, determinism and dtype policy are as before when it returns.

    Args:
        data: a data set's name or path, a loaded one, or a finite `tf.data.Dataset` of pairs; see `zoo.data.load`.
        recipe: a recipe of the spec by name (its first one by default), or a recipe of your own.
        out: the run's directory; `runs/NAME.DATA.RECIPE-SEED` by default. A finished run in it is extended where only
            `epochs` is larger.
        devices: see `zoo.training.devices.strategy`.
        deterministic: the same seed gives the same bytes of weights; slower.
        arguments: builder arguments in place of the spec's, such as `{"width": 16}`.
        strict: raise for files in a folder or archive that are not read, see `zoo.data.load`.
        optimizer: a Keras optimizer (it is copied) in place of the recipe's and all of its settings; the recipe's
            schedule multiplies its learning rate. Or a name, which is a change of the recipe's key.
        loss: a Keras loss in place of the recipe's. Or a name, which is a change of the recipe's key.
        metrics: Keras metrics beside the task's.
        callbacks: Keras callbacks beside the trainer's own.
        changes: recipe keys to change, such as `epochs=5`.

    Raises:
        ZooError: for unknown names, data that the task cannot use, a directory that contains another run, or a loss
            that is not a finite number.
    """
    check_keras()
    spec = registry.get_spec(name)
    kind = tasks.get_task(spec.task)
    seed, input_shape, arguments = plain(seed), plain(input_shape), plain(arguments or {})
    if isinstance(recipe, Recipe):
        spec.recipe()  # raises for an ensemble, which is not trained
        recipe_name = "own"
    else:
        recipe_name, recipe = recipe or next(iter(spec.recipes), ""), spec.recipe(recipe)
    given, keys = split_given(optimizer, loss, metrics, callbacks)
    recipe = tasks.with_options(recipe, kind, spec.task).replace(**{**changes, **keys})
    devices_strategy = strategy(devices)
    dataset = load_for(spec, input_shape, recipe, data, strict=strict)
    task = kind.from_data(spec, dataset, input_shape, **{**recipe.arguments, **arguments})
    directory = Path(out or Path("runs") / f"{spec.name}.{dataset.name}.{recipe_name}-{seed}")
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=deterministic, devices=devices)
    record["recipe_name"] = recipe_name
    usual = {**spec.arguments, **recipe.arguments}
    if variant := {key: value for key, value in arguments.items() if plain(usual.get(key)) != value}:
        record["variant"] = variant
    print(remarks.class_counts(dataset))
    if described := given.describe():
        record["given_in_python"] = described
    with seeded(seed, deterministic):
        model = rehearsed(task, dataset, recipe, devices_strategy, given)
        if spec.prepare is not None:
            few = evaluation_batches(task, dataset.splits["train"].sample(EXAMPLES_TO_PREPARE))
            spec.prepare(model, np.concatenate([inputs.numpy() for inputs, _ in few]))
        open_run(directory, record)
        history = fit(task, model, dataset, recipe, directory, devices_strategy, seed=seed, given=given)
        model = plain_copy(task, model)
        measure_normalization(task, model, dataset.splits["train"])
        return finish_run(directory, task, model, dataset, recipe, history.rows, history.best_epoch)


def rehearsed(
    task: tasks.Task,
    dataset: Dataset,
    recipe: Recipe,
    devices_strategy: tf.distribute.Strategy,
    given: Given = Given(),
) -> keras.Model:
    """The network with initial weights, after everything that the training needs has been built once: a training that
    cannot begin leaves nothing behind.

    Raises:
        ZooError: for a recipe that the task, the data or the devices cannot follow.
    """
    if recipe.patience is not None and task.monitor is None:
        raise ZooError(f"patience needs a validation score, which {task.spec.task} has not: leave patience out")
    with devices_strategy.scope(), dtype_policy(recipe.precision):
        model = task.build()
        task.compile(
            model, recipe, optimizer_maker(recipe, given), loss=given.loss, metrics=copy.deepcopy(given.metrics)
        )
    replicas = devices_strategy.num_replicas_in_sync
    few = dataset.splits["train"].labeled().head(recipe.batch_size + replicas)
    training_batches(task, few, recipe, seed=0, replicas=replicas)
    evaluation_batches(task, dataset.splits["validation"], replicas=replicas)
    return model


def fit(
    task: tasks.Task,
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe,
    directory: Path,
    devices_strategy: tf.distribute.Strategy,
    *,
    seed: int,
    given: Given = Given(),
) -> callbacks.History:
    """Train `model` until the recipe's end and leave it with the weights of the best epoch.

    An interrupted run in `directory` is resumed: its state takes precedence over the model's present weights.
    """
    replicas = devices_strategy.num_replicas_in_sync
    history = callbacks.History(directory, model, task.monitor, patience=recipe.patience)
    history.restore_rows()
    batches, steps = training_batches(
        task, dataset.splits["train"], recipe, seed=seed, first_epoch=len(history.rows), replicas=replicas
    )
    validation = evaluation_batches(task, dataset.splits["validation"], replicas=replicas)
    by_step = recipe.schedule.by_step or recipe.lookahead is not None  # callbacks that must see each step
    fused = max(n for n in range(1, MOST_STEPS_PER_EXECUTION + 1) if steps % n == 0)
    with devices_strategy.scope(), dtype_policy(recipe.precision):
        trainer = task.compile(
            model,
            recipe,
            optimizer_maker(recipe, given),
            loss=given.loss,
            metrics=copy.deepcopy(given.metrics),
            steps_per_execution=1 if by_step or replicas > 1 else fused,
        )
        optimizers = callbacks.optimizers_of(trainer)
        schedule = callbacks.LearningRate(optimizers, recipe)
        slow = [callbacks.SlowWeights(trainer.trainable_variables, recipe)] if recipe.lookahead else []
        optimized = [variable for one in optimizers for variable in one.variables]
        history.watch(trainer, [*trainer.variables, *optimized, *(variable for one in slow for variable in one.slow)])
        history.restore_state()
        if not history.is_over(recipe.epochs):
            trainer.fit(
                batches,
                epochs=recipe.epochs,
                initial_epoch=len(history.rows),
                steps_per_epoch=steps,
                shuffle=False,  # the batches are
                validation_data=validation,
                verbose="auto" if _is_interactive() else 2,
                callbacks=[
                    schedule,
                    *slow,
                    history,  # before the swap, so that it sees the averaged weights when validation ends
                    *task.callbacks(model, directory),
                    *([keras.callbacks.SwapEMAWeights()] if any(map(callbacks.keeps_average, optimizers)) else []),
                    keras.callbacks.TensorBoard(directory / "tensorboard", write_graph=False),
                    *given.callbacks,
                ],
            )
    history.load_best()
    return history


def _is_interactive() -> bool:
    """Whether a progress bar can be redrawn: in a terminal, and in a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


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
            kind = callbacks.with_rising_average(kind)
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


def plain_copy(task: tasks.Task, model: keras.Model) -> keras.Model:
    """The model in float32 and on one device, whatever the training computed in and on."""
    with dtype_policy("float32"):
        plain = task.build()
    assign(named_weights(plain), {key: variable.numpy() for key, variable in named_weights(model).items()})
    return plain


def measure_normalization(task: tasks.Task, model: keras.Model, split: Split) -> None:
    """Measure the means and variances of batch normalization on images without augmentation: those that training keeps
    are of augmented images, whose noise interpolation has smoothed, and mostly of the last few batches."""
    layers = [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for number, (inputs, _) in enumerate(evaluation_batches(task, split.sample(EXAMPLES_TO_MEASURE)), start=1):
        for layer in layers:
            layer.momentum = 1 - 1 / number  # the mean over all batches
        task.run_in_training_mode(model, inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def flat_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of its sub-models, each once."""
    found: dict[int, keras.layers.Layer] = {}
    for layer in model.layers:
        for one in flat_layers(layer) if isinstance(layer, keras.Model) else [layer]:
            found[id(one)] = one
    return [*found.values()]


def finish_run(
    directory: Path,
    task: tasks.Task,
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe,
    rows: list[dict[str, Any]],
    best_epoch: int,
    **further: Any,
) -> Run:
    """Evaluate on the test split, once, at the best epoch, and write the results of the run."""
    record = read_json(directory / RUN_FILE)
    if "metrics" in record:
        task = tasks.restore(record.get("trained", record["model"]))
    else:
        validation = functools.partial(evaluation_batches, task, dataset.splits["validation"])
        task = task.calibrated(model, validation, recipe.options)
        record["trained"] = task.describe()
        measured = {name: dataset.splits[name] for name in ("validation", "test")}
        metrics = evaluate_splits(task, model, measured, recipe)
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record |= {"example": task.example(dataset.splits["test"], directory), **further}
        record |= {"history": rows, "best_epoch": best_epoch, "metrics": metrics, "finished": finished}
        record["remarks"] = remarks.of_run(task, dataset, rows, best_epoch)
        if levels := brightness.of_images(dataset.splits["train"]):
            record["brightness"] = levels
        save_arrays(directory / WEIGHTS_FILE, {key: v.numpy() for key, v in named_weights(model).items()})
        plots.training_curves(rows, task, best_epoch, directory / "curves.png")
        write_json(directory / RUN_FILE, record)
        for remark in record["remarks"]:
            note(remark)
    return Run(directory, task, model, recipe, read_json(directory / RUN_FILE))
