"""Fine-tuning: a trained network on other data, its head replaced, its layers unfrozen stage by stage."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import artifacts
from zoo.artifacts.manifest import MANIFEST, sha256
from zoo.artifacts.rebuilding import rebuild
from zoo.errors import ZooError, unknown
from zoo.options import ClassificationOptions
from zoo.recipe import Recipe, plain
from zoo.spec import Stage, check_keras
from zoo.training.batches import load_for
from zoo.training.devices import strategy
from zoo.training.normalization import flat_layers
from zoo.training.optimizers import split_given
from zoo.training.randomness import seeded
from zoo.training.runs import Run, describe_run, open_run, tag_of
from zoo.training.trainer import finish_run, fit, plain_copy, rehearsed
from zoo.weights import assign, is_within, named_weights

with epy.lazy_imports():
    import keras

    from zoo.training import remarks

CARRIED = (
    "augmentation",
    "background",
    "border",
    "threshold_by",
)  # recipe keys and options that the weights were trained by


def fine_tune(
    source: str | os.PathLike,
    data: Any,
    *,
    only_class: str | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
    seed: int = 0,
    deterministic: bool = False,
    input_shape: tuple | None = None,
    epochs: int | None = None,
    strict: bool = False,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    **changes: Any,
) -> Run:
    """Fine-tune an exported network on other data.

    The classes come from the data, the images' channels are converted to the network's, a text task keeps its
    vocabulary. The head is replaced by one with initial weights; everything else is loaded, strictly. The spec's stages
    follow one another, each from the best weights so far; a frozen BatchNormalization layer uses its stored statistics
    and does not update them. The caller's random state, determinism and dtype policy are as before when it returns.

    Args:
        source: `name.tag` or an exported directory.
        data: as for `zoo.train`.
        only_class: one of the overlapping classes that the source and the data have: the network has this class alone
            and starts from all of the source's weights, with the head's weights of that class. `create_ensemble` joins
            such networks again.
        out: the run's directory; `runs/NAME.DATA.TAG-SEED` by default, with `only_class` DATA-CLASS for DATA. An
            interrupted run in it is resumed.
        input_shape: another input shape, where the architecture allows it.
        epochs: epochs of each stage in place of the spec's.
        strict: raise for files in a folder or archive that are not read, see `zoo.data.load`.
        optimizer, loss, metrics, callbacks: as for `zoo.train`, in every stage, also the optimizer's learning rate.
        changes: recipe keys to change in every stage, such as `batch_size=8`. Otherwise the stages have the spec's
            first recipe, with the augmentation, the border weights and the choice of thresholds that the weights were
            trained with.

    Raises:
        ZooError: for an artifact that does not verify, data that the task cannot use, an input shape that the network
            or its weights do not fit; for `only_class` without overlapping classes, or with a class that the source or
            the data do not have.
    """
    check_keras()
    seed, input_shape = plain(seed), plain(input_shape)
    artifact = artifacts.open_artifact(source)
    origin = rebuild(artifact).task
    spec, kind = origin.spec, type(origin)
    if spec.ensemble:
        raise ZooError(f"{artifact.name} is an ensemble: fine-tune its members and join them again")
    if only_class is not None and not origin.overlapping:
        raise ZooError(f"{artifact.name} has no overlapping classes, from which one could be taken")
    if only_class is not None and only_class not in origin.classes:
        raise unknown(f"class of {artifact.name}", only_class, origin.classes)
    devices_strategy = strategy(devices)
    stages = spec.stages
    if epochs is not None:
        stages = tuple(dataclasses.replace(stage, epochs=epochs) for stage in stages)
    trained = (artifact.manifest["training"] or {}).get("recipe", {})
    trained = {**trained, **trained.get("options", {})}
    given, keys = split_given(optimizer, loss, metrics, callbacks)
    # what the weights were trained to be robust against helps with few examples too
    changes = {key: trained[key] for key in CARRIED if key in trained} | changes | keys
    recipe = stage_recipe(origin.with_options(spec.recipe()), stages[-1], **changes)
    shape = input_shape or origin.input_shape
    dataset = load_for(spec, shape, recipe, data, strict=strict)
    if only_class is not None:
        dataset = dataset.only_classes(only_class)
    keep = {"vocabulary": origin.vocabulary} if origin.vocabulary else {}
    task = kind.from_data(spec, dataset, shape, **keep, **origin.arguments)
    tag = artifact.path.parent.name.partition(".")[2] or "local"
    data_tag = tag_of(dataset.name, only_class)
    directory = Path(out or Path("runs") / f"{spec.name}.{data_tag}.{tag}-{seed}")
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=deterministic, devices=devices)
    record["stages"] = [dataclasses.asdict(stage) for stage in stages]
    record["origin"] = {"name": artifact.name, "manifest_sha256": sha256(artifact.path / MANIFEST)}
    record["recipe_name"] = "fine_tune"
    if only_class is not None:
        record["only_class"] = only_class
    if variant := (artifact.manifest["training"] or {}).get("variant"):
        record["variant"] = variant
    print(remarks.class_counts(dataset))
    if described := given.describe():
        record["given_in_python"] = described

    with seeded(seed, deterministic):
        model = rehearsed(task, dataset, recipe, devices_strategy, given)
        variables = named_weights(model)
        arrays, kept = artifact.arrays(), origin.classes
        if only_class is not None:
            arrays, kept = arrays_of_class(arrays, spec.head, kept.index(only_class)), (only_class,)
        # The same classes in the same order keep their head; any others get initial weights, whatever the shape.
        head = () if task.classes == kept else spec.head
        arrays = {key: value for key, value in arrays.items() if not is_within(key, head)}
        report = assign(variables, arrays, reinitialize=head)
        open_run(directory, record)
        rows: list[dict[str, Any]] = []
        best_rank, best_epoch, best_weights = float("-inf"), 0, {}
        for number, stage in enumerate(stages, start=1):
            own = stage_recipe(recipe, stage, **changes)
            print(f"stage {number} of {len(stages)}, {stage.name}: {', '.join(stage.layers)} at {own.learning_rate}")
            freeze_all_but(model, stage.layers)
            part = directory / f"stage{number}-{stage.name}"
            part.mkdir(exist_ok=True)
            history = fit(task, model, dataset, own, part, devices_strategy, seed=seed + number, given=given)
            row = history.rows[history.best_epoch - 1]
            rank = task.monitor.rank(row[f"val_{task.monitor.name}"]) if task.monitor else best_rank
            if rank >= best_rank:
                best_rank, best_epoch = rank, len(rows) + history.best_epoch
                best_weights = {key: variable.numpy() for key, variable in variables.items()}
            assign(variables, best_weights)
            rows += [{**row, "stage": stage.name, "epoch": len(rows) + row["epoch"]} for row in history.rows]
        freeze_all_but(model, ("*",))
        model = plain_copy(task, model)
        return finish_run(directory, task, model, dataset, recipe, rows, best_epoch, loaded=str(report))


def arrays_of_class(arrays: Mapping[str, np.ndarray], head: Iterable[str], number: int) -> dict[str, np.ndarray]:
    """Weights of a network of one class from those of a network of several: of the head's arrays, whose last axis is
    that of the classes, the slice of class `number`."""
    return {key: value[..., number : number + 1] if is_within(key, head) else value for key, value in arrays.items()}


def stage_recipe(recipe: Recipe, stage: Stage, **changes: Any) -> Recipe:
    """The spec's recipe at the stage's learning rate and epochs, without what is made for a long training: its
    schedule, and the moving average, which would still hold the head's initial weights after a few steps."""
    own = {"learning_rate": stage.learning_rate, "epochs": stage.epochs, "schedule": {}, "ema": None, "targets": {}}
    if isinstance(recipe.options, ClassificationOptions):
        own["labels_per_class"] = None  # the user's data have the labels that they have
    return recipe.replace(**{**own, **changes})


def freeze_all_but(model: keras.Model, patterns: tuple[str, ...]) -> None:
    """Freeze all layers but those whose names match one of the wildcards, within sub-models too."""
    for layer in flat_layers(model):
        layer.trainable = any(fnmatch.fnmatch(layer.name, pattern) for pattern in patterns)
