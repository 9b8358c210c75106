"""Fine-tuning: a trained network on other data, its head replaced, its layers unfrozen stage by stage."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from zoo import artifacts, tasks
from zoo.artifacts.manifest import MANIFEST, sha256
from zoo.artifacts.rebuilding import rebuild_network
from zoo.errors import ZooError, say, unknown
from zoo.loading import Predictor
from zoo.options import ClassificationOptions
from zoo.recipe import Recipe, plain
from zoo.spec import ModelSpec, Stage, check_keras
from zoo.training.batches import load_for
from zoo.training.classified import write_report
from zoo.training.devices import strategy
from zoo.training.evaluation import classify
from zoo.training.normalization import flat_layers
from zoo.training.optimizers import split_given
from zoo.training.randomness import seeded
from zoo.training.runs import Run, describe_run, directory_of, open_run, tag_of
from zoo.training.trainer import finish_run, fit, plain_copy, rehearsed
from zoo.training.workers import check_alone
from zoo.weights import assign, for_channels, is_within, named_weights

with epy.lazy_imports():
    import keras

    from zoo.training import remarks

REPORT = "report"  # the folder of a run with the confusion matrix and the errors on the test split
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
    stages: Sequence[str] = (),
    freeze: Sequence[str] = (),
    strict: bool = False,
    fold: tuple[int, int] | None = None,
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
        input_shape: another input shape, where the architecture allows it; for another number of channels the first
            kernels are summed or spread, see `zoo.weights.for_channels`.
        epochs: epochs of each stage in place of the spec's.
        stages: names of the spec's stages to train, in this order; all of them by default.
        freeze: wildcards of layers that no stage trains, such as `conv*`.
        strict: raise for files in a folder or archive that are not read, see `zoo.data.load`.
        fold: number and count, to train on that fold of the data alone, see `zoo.cross_validate`.
        optimizer, loss, metrics, callbacks: as for `zoo.train`, in every stage, also the optimizer's learning rate.
        changes: recipe keys to change in every stage, such as `batch_size=8`. Otherwise the stages have the spec's
            first recipe, with the augmentation, the border weights and the choice of thresholds that the weights were
            trained with.

    Raises:
        ZooError: for an artifact that does not verify, data that the task cannot use, an input shape that the network
            or its weights do not fit; for unknown stages and layers, and a stage without a layer to train; for
            `only_class` without overlapping classes, or with a class that the source or the data do not have.
    """
    check_keras()
    check_alone("fine-tuning")
    seed, input_shape = plain(seed), plain(input_shape)
    artifact = artifacts.open_artifact(source)
    with seeded(seed, deterministic):  # building draws initial weights
        origin, _ = rebuild_network(artifact)
    spec, kind = origin.spec, type(origin)
    if spec.ensemble:
        raise ZooError(f"{artifact.name} is an ensemble: fine-tune its members and join them again")
    if only_class is not None and not origin.overlapping:
        raise ZooError(f"{artifact.name} has no overlapping classes, from which one could be taken")
    if only_class is not None and only_class not in origin.classes:
        raise unknown(f"class of {artifact.name}", only_class, origin.classes)
    devices_strategy = strategy(devices)
    chosen = _chosen_stages(spec, stages)
    if epochs is not None:
        chosen = tuple(dataclasses.replace(stage, epochs=epochs) for stage in chosen)
    trained = (artifact.manifest["training"] or {}).get("recipe", {})
    trained = {**trained, **trained.get("options", {})}
    given, keys = split_given(optimizer, loss, metrics, callbacks)
    # what the weights were trained to be robust against helps with few examples too
    changes = {key: trained[key] for key in CARRIED if key in trained} | changes | keys
    recipe = stage_recipe(origin.with_options(spec.recipe()), chosen[-1], **changes)
    shape = input_shape or origin.input_shape
    dataset = load_for(spec, shape, recipe, data, strict=strict, fold=fold)
    if only_class is not None:
        dataset = dataset.only_classes(only_class)
    keep = {"vocabulary": origin.vocabulary} if origin.vocabulary else {}
    task = kind.from_data(spec, dataset, shape, **keep, **origin.arguments)
    tag = artifact.path.parent.name.partition(".")[2] or "local"
    data_tag = tag_of(dataset.name, only_class)
    directory = directory_of(out, f"{spec.name}.{data_tag}.{tag}-{seed}", fold)
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=deterministic, devices=devices)
    record["stages"] = [dataclasses.asdict(stage) for stage in chosen]
    if freeze:
        record["freeze"] = [*freeze]
    if fold is not None:
        record["fold"] = fold
    record["origin"] = {
        "name": artifact.name,
        "manifest_sha256": sha256(artifact.path / MANIFEST),
        "data": (artifact.manifest["training"] or {}).get("data", {}).get("name"),
        "classes": list(origin.classes),
    }
    record["recipe_name"] = "fine_tune"
    if only_class is not None:
        record["only_class"] = only_class
    if variant := (artifact.manifest["training"] or {}).get("variant"):
        record["variant"] = variant
    say(remarks.class_counts(dataset))
    remarks.note_conversion(task, dataset)
    if described := given.describe():
        record["given_in_python"] = described

    with seeded(seed, deterministic), contextlib.ExitStack() as opened:
        model = rehearsed(task, dataset, recipe, devices_strategy, given)
        variables = named_weights(model)
        arrays, kept = artifact.arrays(), origin.classes
        if only_class is not None:
            arrays, kept = arrays_of_class(arrays, spec.head, kept.index(only_class)), (only_class,)
        # The same classes in the same order keep their head; any others get initial weights, whatever the shape.
        head = () if task.classes == kept else spec.head
        arrays = {key: value for key, value in arrays.items() if not is_within(key, head)}
        converted: tuple[str, ...] = ()
        if isinstance(task, tasks.ImageTask) and task.channels != origin.input_shape[-1]:
            assert origin.input_shape[-1] is not None, "a network of images knows its channels"
            arrays, converted = for_channels(arrays, variables, origin.input_shape[-1], task.channels)
        report = dataclasses.replace(assign(variables, arrays, reinitialize=head), converted=converted)
        say(f"from {artifact.name}: {report}")
        for stage in chosen:
            freeze_all_but(model, stage.layers, freeze)
        opened.enter_context(open_run(directory, record))
        rows: list[dict[str, Any]] = []
        best_rank, best_epoch, best_weights = float("-inf"), 0, {}
        for number, stage in enumerate(chosen, start=1):
            own = stage_recipe(recipe, stage, **changes)
            freeze_all_but(model, stage.layers, freeze)
            trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
            say(
                f"stage {number} of {len(chosen)}, {stage.name}: {', '.join(stage.layers)}, {trainable:,} of "
                f"{model.count_params():,} parameters, {own.epochs} epochs at {own.learning_rate}"
            )
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
        run = finish_run(directory, task, model, dataset, recipe, rows, best_epoch, loaded=str(report))
        test = dataset.splits["test"].labeled()
        run.classified = classify(Predictor(run), test)
        if run.classified is not None:
            write_report(directory / REPORT, test, run.classified)
        return run


def _chosen_stages(spec: ModelSpec, names: Sequence[str]) -> tuple[Stage, ...]:
    """The spec's stages of these names in their order; all of them without names."""
    if not spec.stages:
        raise ZooError(f"{spec.name} declares no stages of fine-tuning: its spec needs `stages`")
    known = {stage.name: stage for stage in spec.stages}
    for name in names:
        if name not in known:
            raise unknown(f"stage of {spec.name}", name, known)
    return tuple(known[name] for name in names) or spec.stages


def arrays_of_class(arrays: Mapping[str, np.ndarray], head: Iterable[str], number: int) -> dict[str, np.ndarray]:
    """Weights of a network of one class from those of a network of several: of the head's arrays, whose last axis is
    that of the classes, the slice of class `number`."""
    return {key: value[..., number : number + 1] if is_within(key, head) else value for key, value in arrays.items()}


def stage_recipe(recipe: Recipe, stage: Stage, **changes: Any) -> Recipe:
    """The spec's recipe at the stage's learning rate and epochs, without what is made for a long training: its
    schedule, and averages of the weights, which would still hold the head's initial weights after a few steps. How the
    recipe differs from the paper's does not matter here."""
    own = {
        "learning_rate": stage.learning_rate,
        "epochs": stage.epochs,
        "schedule": {},
        "targets": {},
        "deviations": (),
    }
    own |= {"ema": None, "lookahead": None, "batch_size": stage.batch_size or recipe.batch_size}
    if isinstance(recipe.options, ClassificationOptions):
        own["labels_per_class"] = None  # the user's data have the labels that they have
    return recipe.replace(**{**own, **changes})


def freeze_all_but(model: keras.Model, patterns: Iterable[str], frozen: Iterable[str] = ()) -> None:
    """Freeze all layers but those whose names match one of the wildcards `patterns` and none of the wildcards
    `frozen`, within sub-models too.

    Raises:
        ZooError: for a wildcard in `frozen` that no layer matches, and where nothing remains to train.
    """
    names = [layer.name for layer in flat_layers(model)]
    for pattern in frozen:
        if not fnmatch.filter(names, pattern):
            raise unknown(f"layer of {model.name}", pattern, names)
    for layer in flat_layers(model):
        matches = functools.partial(fnmatch.fnmatch, layer.name)
        layer.trainable = any(map(matches, patterns)) and not any(map(matches, frozen))
    if not model.trainable_variables:
        raise ZooError(f"all of {', '.join(patterns)} is frozen by {', '.join(frozen)}: nothing remains to train")
