"""Fine-tuning: the trained network on other data, its head replaced, its layers thawed stage by stage."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import artifacts, tasks
from zoo import data as zoo_data
from zoo.devices import strategy
from zoo.errors import ZooError, unknown
from zoo.recipe import Recipe
from zoo.runs import Run, describe_run, open_run, tag_of
from zoo.spec import Stage
from zoo.training import finish_run, fit, picture_size, plain_copy, rehearsed, start_randomness
from zoo.weights import assign, is_within, named_weights

with epy.lazy_imports():
    import keras


CARRIED = ("augmentation", "border", "threshold_by")  # recipe keys that go on as the weights were trained by


def fine_tune(
    source: str | os.PathLike,
    data: str | os.PathLike | zoo_data.Dataset,
    *,
    only_class: str | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
    seed: int = 0,
    deterministic: bool = False,
    input_shape: tuple | None = None,
    epochs: int | None = None,
    **changes: Any,
) -> Run:
    """Fine-tune an exported network on other data.

    The classes come from the data, the pictures' channels are brought to the network's, a text task keeps its
    vocabulary. The head is replaced by a fresh one; everything else is loaded, strictly. The spec's stages follow
    one another, each from the best weights so far; a frozen BatchNormalization layer uses its stored
    statistics and does not update them.

    Args:
        source: `name.tag` or an exported directory.
        only_class: one class of masks that may overlap, which the source and the data have: the network is of this
            one alone and starts from all the source's weights, of the head from that class's own. `create_ensemble`
            joins such networks again.
        out: the run's directory; `runs/NAME.DATA.TAG-SEED` by default, DATA-CLASS with `only_class`. A broken-off run
            in it goes on.
        input_shape: another input shape, where the architecture allows it.
        epochs: epochs of each stage in place of the spec's.
        changes: recipe keys to change in every stage, such as `batch_size=8`; the stages' recipe is otherwise the
            spec's first, with the augmentation, the border weights and the choice of thresholds that the weights were
            trained with.

    Raises:
        ZooError: for an artifact that does not verify, data that the task cannot use, an input shape that the
            network or its weights do not fit; for `only_class` without overlapping masks, or a class that the source
            or the data lack.
    """
    artifact = artifacts.open_artifact(source)
    origin = tasks.restore(artifact.manifest["model"])
    if not origin.spec.recipes:
        raise ZooError(f"{artifact.name} is an ensemble: fine-tune its members and join them anew")
    if only_class is not None and origin.spec.scores != "masks":
        raise ZooError(f"{artifact.name} has no masks of classes that overlap, of which one could be taken")
    if only_class is not None and only_class not in origin.classes:
        raise unknown(f"class of {artifact.name}", only_class, origin.classes)
    devices_strategy = strategy(devices)
    shape = input_shape or origin.input_shape
    size = picture_size(origin.spec, shape)
    dataset = zoo_data.load(data, image_size=size, ignored_class=changes.get("ignored_class"))
    if only_class is not None:
        dataset = dataset.only_classes(only_class)
    keep = {"vocabulary": origin.vocabulary} if origin.vocabulary else {}
    origin.check_inputs(dataset)
    task = type(origin).from_data(origin.spec, dataset, shape, **keep, **origin.arguments)
    stages = task.spec.stages
    if epochs is not None:
        stages = tuple(dataclasses.replace(stage, epochs=epochs) for stage in stages)
    trained = (artifact.manifest["training"] or {}).get("recipe", {})
    # what the weights were trained to see through is of use on few examples too
    changes = {key: trained[key] for key in CARRIED if key in trained} | changes
    recipe = stage_recipe(task.spec.recipe(), stages[-1], **changes)
    tag = artifact.path.parent.name.partition(".")[2] or "local"
    data_tag = tag_of(dataset.name, only_class)
    directory = Path(out or Path("runs") / f"{task.spec.name}.{data_tag}.{tag}-{seed}")
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=deterministic, devices=devices)
    record["stages"] = [dataclasses.asdict(stage) for stage in stages]
    record["origin"] = {"name": artifact.name, "manifest_sha256": artifacts.sha256(artifact.path / artifacts.MANIFEST)}
    record["recipe_name"] = "fine_tune"
    if only_class is not None:
        record["only_class"] = only_class

    start_randomness(seed, deterministic)
    model = rehearsed(task, dataset, recipe, devices_strategy)
    variables = named_weights(model)
    arrays, kept = artifact.arrays(), origin.classes
    if only_class is not None:
        arrays, kept = arrays_of_class(arrays, task.spec.head, kept.index(only_class)), (only_class,)
    # The same classes in the same order keep their head; any others get a fresh one, whatever its shape.
    head = () if task.classes == kept else task.spec.head
    arrays = {key: value for key, value in arrays.items() if not is_within(key, head)}
    report = assign(variables, arrays, reinitialise=head)
    open_run(directory, record)
    rows: list[dict[str, Any]] = []
    best = (float("-inf"), 0, {})  # goodness, epoch, weights
    for number, stage in enumerate(stages, start=1):
        own = stage_recipe(recipe, stage, **changes)
        print(f"stage {number} of {len(stages)}, {stage.name}: {', '.join(stage.layers)} at {own.learning_rate}")
        freeze_all_but(model, stage.layers)
        part = directory / f"stage{number}-{stage.name}"
        part.mkdir(exist_ok=True)
        history = fit(task, model, dataset, own, part, devices_strategy, seed=seed + number)
        goodness = task.goodness(history.rows[history.best_epoch - 1])
        if goodness >= best[0] or task.metric is None:
            weights = {key: variable.numpy() for key, variable in variables.items()}
            best = (goodness, len(rows) + history.best_epoch, weights)
        assign(variables, best[2])
        rows += [{**row, "stage": stage.name, "epoch": len(rows) + row["epoch"]} for row in history.rows]
    freeze_all_but(model, ("*",))
    model = plain_copy(task, model)
    return finish_run(directory, task, model, dataset, recipe, rows, best[1], loaded=str(report))


def arrays_of_class(arrays: Mapping[str, np.ndarray], head: Iterable[str], number: int) -> dict[str, np.ndarray]:
    """Weights of a network of one class from those of one of several: of the head's, whose last axis is that of the
    classes, the slice of class `number`."""
    return {key: value[..., number : number + 1] if is_within(key, head) else value for key, value in arrays.items()}


def stage_recipe(recipe: Recipe, stage: Stage, **changes: Any) -> Recipe:
    """The spec's recipe at the stage's rate and epochs, without what is made for a long training: its schedule, and
    the moving average, which in a few steps would not leave the fresh head behind."""
    own = {"learning_rate": stage.learning_rate, "epochs": stage.epochs}
    own |= {"schedule": {}, "ema": None, "targets": {}}
    return recipe.replace(**{**own, **changes})


def freeze_all_but(model: keras.Model, patterns: tuple[str, ...]) -> None:
    """Train only layers whose names match one of the wildcards, within sub-models too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True
            freeze_all_but(layer, patterns)
        else:
            layer.trainable = any(fnmatch.fnmatch(layer.name, pattern) for pattern in patterns)
