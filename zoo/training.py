"""The trainer: a recipe in, a run out. It knows no model and no task by name."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epy

from zoo import data as zoo_data
from zoo import registry, tasks
from zoo.data.pipeline import evaluation_batches, training_batches
from zoo.devices import strategy
from zoo.errors import ZooError
from zoo.files import read_json, write_json
from zoo.recipe import Recipe
from zoo.runs import RUN_FILE, WEIGHTS_FILE, Run, describe_run, open_run
from zoo.tasks.base import picture_size
from zoo.weights import assign, named_weights, save_arrays

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo import callbacks, plots

MOST_STEPS_PER_EXECUTION = 50  # steps that run without returning to Python; small batches gain most
EXAMPLES_TO_MEASURE = 1_000  # of the training data, for batch normalisation


def train(
    name: str,
    data: str | os.PathLike | zoo_data.Dataset = "digits",
    *,
    recipe: str | Recipe | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
    seed: int = 0,
    deterministic: bool = False,
    input_shape: tuple | None = None,
    arguments: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Train a network of the registry from scratch, or go on with the run in `out` where it was broken off.

    Args:
        data: a data set's name or path, see `zoo.data.load`.
        recipe: a recipe of the spec by name (its first by default), or one of your own.
        out: the run's directory; `runs/NAME.DATA.RECIPE-SEED` by default.
        devices: see `zoo.devices.strategy`.
        deterministic: the same seed gives the same bytes of weights, more slowly.
        arguments: builder arguments other than the spec's, such as `width=16`.
        changes: recipe keys to change, such as `epochs=5`.

    Raises:
        ZooError: for unknown names, data that the task cannot use, a directory that holds another run, or a loss
            that is no longer a number.
    """
    spec = registry.get_spec(name)
    own = isinstance(recipe, Recipe)
    named = spec.recipe(None if own else recipe)  # also with a recipe of one's own: not every spec can be trained
    recipe_name = "own" if own else recipe or next(iter(spec.recipes))
    recipe = (recipe if own else named).replace(**changes)
    devices_strategy = strategy(devices)
    dataset = zoo_data.load(data, image_size=picture_size(spec, input_shape), ignored_class=recipe.ignored_class)
    tasks.get_task(spec.task).check_inputs(dataset)
    task = tasks.get_task(spec.task).from_data(spec, dataset, input_shape, **{**recipe.arguments, **(arguments or {})})
    directory = Path(out or Path("runs") / f"{spec.name}.{dataset.name}.{recipe_name}-{seed}")
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=deterministic, devices=devices)
    record["recipe_name"] = recipe_name
    start_randomness(seed, deterministic)
    model = rehearsed(task, dataset, recipe, devices_strategy)
    open_run(directory, record)
    history = fit(task, model, dataset, recipe, directory, devices_strategy, seed=seed)
    model = plain_copy(task, model)
    measure_normalisation(task, model, dataset.splits["train"])
    return finish_run(directory, task, model, dataset, recipe, history.rows, history.best_epoch)


def rehearsed(
    task: tasks.Task, dataset: zoo_data.Dataset, recipe: Recipe, devices_strategy: tf.distribute.Strategy
) -> keras.Model:
    """The network with fresh weights, once all that a training needs has been made: nothing is left of a false start.

    Raises:
        ZooError: for what the task, the data or the devices cannot do of the recipe.
    """
    task.check_recipe(recipe)
    with devices_strategy.scope(), dtype_policy(recipe.precision):
        model = task.build()
        task.compile(model, recipe, lambda: make_optimizer(recipe))
    replicas = devices_strategy.num_replicas_in_sync
    few = dataset.splits["train"].head(recipe.batch_size + replicas)
    training_batches(task, few, recipe, seed=0, replicas=replicas)
    evaluation_batches(task, dataset.splits["validation"], replicas=replicas)
    return model


def fit(
    task: tasks.Task,
    model: keras.Model,
    dataset: zoo_data.Dataset,
    recipe: Recipe,
    directory: Path,
    devices_strategy: tf.distribute.Strategy,
    *,
    seed: int,
) -> callbacks.History:
    """Train `model` until the recipe's end and leave it with the weights of the best epoch.

    What `directory` holds of an earlier, broken-off call wins over the weights that the model comes with.
    """
    replicas = devices_strategy.num_replicas_in_sync
    history = callbacks.History(directory, task, model, patience=recipe.patience)
    history.restore_rows()
    batches, steps = training_batches(
        task, dataset.splits["train"], recipe, seed=seed, first_epoch=len(history.rows), replicas=replicas
    )
    validation = evaluation_batches(task, dataset.splits["validation"], replicas=replicas)
    fused = max(n for n in range(1, MOST_STEPS_PER_EXECUTION + 1) if steps % n == 0) if replicas == 1 else 1
    with devices_strategy.scope(), dtype_policy(recipe.precision):
        trainer = task.compile(model, recipe, lambda: make_optimizer(recipe), steps_per_execution=fused)
        history.watch(trainer, [*trainer.variables, *(v for o in task.optimizers(trainer) for v in o.variables)])
        history.restore_state()
        if not history.is_over(recipe.epochs):
            trainer.fit(
                batches,
                epochs=recipe.epochs,
                initial_epoch=len(history.rows),
                steps_per_epoch=steps,
                shuffle=False,  # the batches are
                validation_data=validation,
                verbose=1 if sys.stdout.isatty() else 2,
                callbacks=[
                    callbacks.learning_rate_by_epoch(task.optimizers(trainer), recipe),
                    history,  # before the swap, so that it sees the averaged weights when validation ends
                    *([keras.callbacks.SwapEMAWeights()] if recipe.ema else []),
                    keras.callbacks.TensorBoard(directory / "tensorboard", write_graph=False),
                ],
            )
    history.load_best()
    return history


def make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """A fresh optimizer by the recipe; weight decay leaves biases and normalisation alone.

    Raises:
        ZooError: for an optimizer that Keras does not know, or arguments that it does not take.
    """
    config = {"learning_rate": recipe.learning_rate, "clipnorm": recipe.clip_norm}
    config |= {"weight_decay": recipe.weight_decay, **recipe.optimizer_arguments}
    if recipe.ema:
        config |= {"use_ema": True, "ema_momentum": recipe.ema}
    try:
        optimizer = keras.optimizers.get({"class_name": recipe.optimizer, "config": config})
    except (ValueError, TypeError) as error:
        raise ZooError(f"optimizer {recipe.optimizer!r} with {config}: {str(error).splitlines()[0]}") from None
    optimizer.weight_decay = optimizer.weight_decay or None  # 0 is none: AdamW's constructor takes no None
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def evaluate(
    task: tasks.Task, model: keras.Model, splits: Mapping[str, zoo_data.Split], recipe: Recipe
) -> dict[str, dict[str, float]]:
    """By split the recipe's loss and the task's metrics of a model, on one device."""
    trainer = task.compile(model, recipe, keras.optimizers.SGD)  # once: tracing it takes longer than a small split
    figures = {}
    for name, split in splits.items():
        measured = trainer.evaluate(evaluation_batches(task, split), verbose=0, return_dict=True)
        figures[name] = {key: float(value) for key, value in measured.items()}
        figures[name] |= task.further_figures(model, split, recipe)
    return figures


def plain_copy(task: tasks.Task, model: keras.Model) -> keras.Model:
    """The model in float32 and on one device, whatever the training computed in and on."""
    copy = task.build()
    assign(named_weights(copy), {key: variable.numpy() for key, variable in named_weights(model).items()})
    return copy


def measure_normalisation(task: tasks.Task, model: keras.Model, split: zoo_data.Split) -> None:
    """Measure the means and variances of batch normalisation on images as they are: those that training keeps are of
    augmented images, whose noise interpolation has smoothed, and for the most part of the last few batches."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for number, (images, _) in enumerate(evaluation_batches(task, split.sample(EXAMPLES_TO_MEASURE)), start=1):
        for layer in layers:
            layer.momentum = 1 - 1 / number  # the mean over all batches
        model(images, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def start_randomness(seed: int, deterministic: bool) -> None:
    if not 0 <= seed < 2**30:  # TensorFlow's seeds are int32, and each stage of fine-tuning adds one
        raise ZooError(f"the seed must be from 0 to 2**30 - 1, not {seed}")
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers made within compute by this Keras policy; their weights are float32 under the mixed ones too."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def finish_run(
    directory: Path,
    task: tasks.Task,
    model: keras.Model,
    dataset: zoo_data.Dataset,
    recipe: Recipe,
    rows: list[dict[str, Any]],
    best_epoch: int,
    **further: Any,
) -> Run:
    """Read the test set, once, at the best epoch, and write down what came of the run."""
    record = read_json(directory / RUN_FILE)
    if "metrics" in record:
        task = tasks.restore(record.get("trained", record["model"]))
    else:
        task = task.calibrated(model, dataset.splits["validation"], recipe)
        record["trained"] = task.describe()
        measured = {name: dataset.splits[name] for name in ("validation", "test")}
        metrics = evaluate(task, model, measured, recipe)
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record |= {"example": task.example(dataset.splits["test"], directory), **further}
        record |= {"history": rows, "best_epoch": best_epoch, "metrics": metrics, "finished": finished}
        save_arrays(directory / WEIGHTS_FILE, {key: v.numpy() for key, v in named_weights(model).items()})
        plots.training_curves(rows, task, best_epoch, directory / "curves.png")
        write_json(directory / RUN_FILE, record)
    return Run(directory, task, model, recipe, read_json(directory / RUN_FILE))
