"""The trainer: a recipe in, a run out. It knows no model and no kind of task by name."""

from __future__ import annotations

import contextlib
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
from zoo.data import Dataset, brightness, streamed
from zoo.errors import ZooError, note, say
from zoo.files import read_json, write_json
from zoo.progress import is_interactive
from zoo.recipe import Recipe, plain
from zoo.spec import check_keras
from zoo.training import readers as helpers
from zoo.training import workers as several
from zoo.training.batches import Share, evaluation_batches, load_for, training_batches
from zoo.training.devices import strategy
from zoo.training.evaluation import evaluate_splits
from zoo.training.normalization import measure_normalization
from zoo.training.optimizers import NOTHING_GIVEN, Given, keeps_average, optimizer_maker, optimizers_of, split_given
from zoo.training.randomness import dtype_policy, seeded, separate_replicas
from zoo.training.runs import RUN_FILE, WEIGHTS_FILE, Run, code_version, describe_run, directory_of, open_run
from zoo.weights import assign, named_weights, save_arrays

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.training import callbacks, loop, plots, remarks

MOST_STEPS_PER_EXECUTION = 50  # steps that run without returning to Python; small batches gain most
EXAMPLES_TO_PREPARE = 5_000  # of the training data, for initial weights that depend on it


def train(
    name: str,
    data: Any = "digits",
    *,
    recipe: str | Recipe | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
    workers: Sequence[str] = (),
    worker: int | None = None,
    readers: Sequence[str] = (),
    seed: int = 0,
    deterministic: bool = False,
    input_shape: tuple | None = None,
    arguments: Mapping[str, Any] | None = None,
    strict: bool = False,
    fold: tuple[int, int] | None = None,
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
        workers: addresses `host:port` of all processes that train together, the chief first: it alone writes the run.
            Each has the same call but for `worker`. The environment variable `TF_CONFIG` does the same.
        worker: the number of this process among them, from 0.
        readers: addresses `host:port` of processes that read, decode and augment the training batches, see
            `zoo.training.readers.read`; the batches are the same as without them. `data` is then a name, or a path
            that they have too.
        deterministic: the same seed gives the same bytes of weights; slower.
        arguments: builder arguments in place of the spec's, such as `{"width": 16}`.
        strict: raise for files in a folder or archive that are not read, see `zoo.data.load`.
        fold: number and count, to train on that fold of the data alone, see `zoo.cross_validate`.
        optimizer: a Keras optimizer (it is copied) in place of the recipe's and all of its settings; the recipe's
            schedule multiplies its learning rate. Or a name, which is a change of the recipe's key.
        loss: a Keras loss in place of the recipe's. Or a name, which is a change of the recipe's key.
        metrics: Keras metrics beside the task's.
        callbacks: Keras callbacks beside the trainer's own.
        changes: recipe keys to change, such as `epochs=5`.

    Raises:
        ZooError: for unknown names, data that the task cannot use, a directory that contains another run, or a loss
            that is not a finite number; for workers and readers that cannot be reached, have other data, or stop.
    """
    check_keras()
    cluster = several.cluster(workers, worker)
    if readers and cluster is not None:
        raise ZooError("several workers prepare their own batches: leave the readers out")
    place = helpers.place(data, readers) if readers else ""
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
    devices_strategy = strategy(devices) if cluster is None else several.connect(cluster, devices)
    dataset = load_for(spec, input_shape, recipe, data, strict=strict, fold=fold)
    task = kind.from_data(spec, dataset, input_shape, **{**recipe.arguments, **arguments})
    directory = directory_of(out, f"{spec.name}.{dataset.name}.{recipe_name}-{seed}", fold)
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=deterministic, devices=devices)
    record["recipe_name"] = recipe_name
    if cluster is not None:
        record["workers"] = len(cluster.addresses)
    if fold is not None:
        record["fold"] = fold
    usual = {**spec.arguments, **recipe.arguments}
    if variant := {key: value for key, value in arguments.items() if plain(usual.get(key)) != value}:
        record["variant"] = variant
    say(remarks.class_counts(dataset))
    remarks.note_conversion(task, dataset)
    if described := given.describe():
        record["given_in_python"] = described
    with seeded(seed, deterministic), contextlib.ExitStack() as opened:
        folder = directory
        if cluster is not None:
            folder = opened.enter_context(several.joined(cluster, directory))
            several.check_same(
                cluster,
                devices_strategy,
                {
                    "data set": record["data"],
                    "recipe, seed or arguments": {**record, "data": None},
                    "code": code_version(),
                },
            )
        remote = opened.enter_context(helpers.asked(readers, place, record, strict)) if readers else None
        model = rehearsed(task, dataset, recipe, devices_strategy, given)
        if spec.prepare is not None:
            few = evaluation_batches(task, dataset.splits["train"].labeled().sample(EXAMPLES_TO_PREPARE))
            spec.prepare(model, np.concatenate([inputs.numpy() for inputs, _ in few]))
        opened.enter_context(open_run(folder, record))
        if cluster is not None:
            several.copy_run(cluster, devices_strategy, folder)
        history = fit(
            task, model, dataset, recipe, folder, devices_strategy, seed=seed, given=given, from_scratch=True,
            remote=remote,
        )  # fmt: skip
        model = plain_copy(task, model)
        measure_normalization(task, model, dataset.splits["train"])
        run = finish_run(folder, task, model, dataset, recipe, history.rows, history.best_epoch)
        return run if cluster is None else dataclasses.replace(run, directory=directory, worker=cluster.worker)


def rehearsed(
    task: tasks.Task,
    dataset: Dataset,
    recipe: Recipe,
    devices_strategy: tf.distribute.Strategy,
    given: Given = NOTHING_GIVEN,
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


@streamed.naming_files()
def fit(
    task: tasks.Task,
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe,
    directory: Path,
    devices_strategy: tf.distribute.Strategy,
    *,
    seed: int,
    given: Given = NOTHING_GIVEN,
    from_scratch: bool = False,
    remote: Callable[..., tf.data.Dataset] | None = None,
) -> callbacks.History:
    """Train `model` until the recipe's end and leave it with the weights of the best epoch.

    An interrupted run in `directory` is resumed: its state takes precedence over the model's present weights. Initial
    weights that depend on the data are set only if the training is `from_scratch`. `remote` gives the same batches from
    elsewhere, see `zoo.training.readers.asked`.
    """
    replicas = devices_strategy.num_replicas_in_sync
    history = callbacks.History(directory, model, task.monitor, patience=recipe.patience)
    history.restore_rows()
    shared = {"seed": seed, "first_epoch": len(history.rows), "replicas": replicas}
    training = functools.partial(training_batches, task, dataset.splits["train"], recipe, **shared)
    validating = functools.partial(evaluation_batches, task, dataset.splits["validation"], replicas=replicas)
    batches, steps = training()
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
        optimizers = optimizers_of(trainer)
        schedule = callbacks.LearningRate(optimizers, recipe)
        slow = [callbacks.SlowWeights(trainer.trainable_variables, recipe)] if recipe.lookahead else []
        optimized = [variable for one in optimizers for variable in one.variables]
        history.watch(trainer, [*trainer.variables, *optimized, *(variable for one in slow for variable in one.slow)])
        history.restore_state()
        separate_replicas(devices_strategy, trainer)
        if not history.is_over(recipe.epochs):
            if from_scratch and not history.rows:
                task.begin(trainer, batches)
            steered = [
                schedule,
                *slow,
                history,  # before the swap, so that it sees the averaged weights when validation ends
                *task.callbacks(model, directory),
                *([keras.callbacks.SwapEMAWeights()] if any(map(keeps_average, optimizers)) else []),
                keras.callbacks.TensorBoard(directory / "tensorboard", write_graph=False),
                *given.callbacks,
            ]
            options: dict[str, Any] = {
                "epochs": recipe.epochs,
                "initial_epoch": len(history.rows),
                "verbose": "auto" if is_interactive(sys.stdout) else 2,
                "callbacks": steered,
            }
            if isinstance(devices_strategy, tf.distribute.MultiWorkerMirroredStrategy):
                loop.fit(
                    trainer,
                    devices_strategy,
                    lambda context: training(share=Share.of(context))[0],
                    lambda context: validating(share=Share.of(context)),
                    steps=steps,
                    **options,
                )
            else:  # the batches are shuffled
                batches = remote(batches, **shared) if remote else batches
                trainer.fit(batches, steps_per_epoch=steps, shuffle=False, validation_data=validating(), **options)
    history.load_best()
    return history


def plain_copy(task: tasks.Task, model: keras.Model) -> keras.Model:
    """The model in float32 and on one device, whatever the training computed in and on."""
    with dtype_policy("float32"):
        plain = task.build()
    assign(named_weights(plain), {key: variable.numpy() for key, variable in named_weights(model).items()})
    return plain


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
