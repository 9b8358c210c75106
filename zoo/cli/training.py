"""Commands that train networks."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from etils import epy
from rich.table import Table

import zoo
from zoo import artifacts
from zoo.artifacts.manifest import check_name
from zoo.cli import options
from zoo.cli.evaluation import print_classified, scores_line
from zoo.cli.options import (
    BatchSize,
    Changes,
    Data,
    Deterministic,
    Devices,
    Epochs,
    ExportTo,
    Folds,
    InputShape,
    LabelColumn,
    LearningRate,
    Loss,
    Name,
    Optimizer,
    Out,
    Readers,
    Seed,
    Several,
    Storage,
    Strict,
    TextColumn,
    Trained,
    Worker,
    Workers,
    cell,
)
from zoo.errors import ZooError, say

with epy.lazy_imports():
    from zoo import tasks
    from zoo.exporting import ensembles
    from zoo.training import folds as cross_validation
    from zoo.training import readers as reading


def train(
    name: Name,
    data: Data = "digits",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe of the model; its first one by default.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with a recipe, as `zoo info NAME --recipe NAME --json` prints it; or the run.json of a "
            "run, with its recipe and, for the same model, its builder arguments."
        ),
    ] = None,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    loss: Loss = None,
    changes: Changes = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--arg", help="KEY=VALUE: an argument of the model's builder, such as hidden=[50]; repeat it."),
    ] = None,
    devices: Devices = "auto",
    workers: Workers = None,
    worker: Worker = None,
    readers: Readers = None,
    seed: Seed = 0,
    deterministic: Deterministic = False,
    input_shape: InputShape = None,
    out: Out = None,
    export_to: ExportTo = None,
    folds: Folds = None,
    strict: Strict = False,
) -> None:
    """Train a model from scratch, export it and verify the export."""
    spec = zoo.get_spec(name)
    if export_to is not None:  # refused before the training, not after it
        check_name(export_to, spec.name)
    changed = options.pairs(
        "--set", changes, epochs=epochs, learning_rate=lr, batch_size=batch_size, optimizer=optimizer, loss=loss
    )
    given = options.builder_arguments(spec, arguments)
    configured = None
    if config is not None:
        if recipe is not None:
            raise ZooError("--config and --recipe both give a recipe: give one")
        configured, recorded = options.read_config(config, spec)
        given = {**recorded, **given}
    options.check_changes(spec, configured or spec.recipe(recipe), changed)
    given = {**changed.pop("arguments", {}), **given}
    _trained(
        zoo.train, name, options.data_of(data, text_column, label_column), folds, export_to,
        recipe=configured or recipe, out=out, devices=devices, workers=options.words(workers or ""), worker=worker,
        readers=options.words(readers or ""), seed=seed, deterministic=deterministic,
        input_shape=options.shape_of(input_shape), arguments=given, strict=strict, **changed,
    )  # fmt: skip


def read(
    address: Annotated[
        str, typer.Argument(help="HOST:PORT at which trainings reach this machine; the next two ports are used too.")
    ],
) -> None:
    """Prepare training batches for `zoo train --readers`, until it is stopped."""
    reading.read(address)


def fine_tune(
    source: Trained,
    data: Data,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    only_class: Annotated[
        str | None, typer.Option(help="One of several overlapping classes: continue from its weights with it alone.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each stage in place of the model's.")] = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    loss: Loss = None,
    changes: Changes = None,
    devices: Devices = "auto",
    seed: Seed = 0,
    deterministic: Deterministic = False,
    input_shape: InputShape = None,
    stages: Annotated[
        str | None, typer.Option(help="Names of the stages to train, with commas, such as head,all; all by default.")
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Wildcards of layers that no stage trains, with commas, such as 'conv*'.")
    ] = None,
    out: Out = None,
    export_to: ExportTo = None,
    folds: Folds = None,
    strict: Strict = False,
) -> None:
    """Fine-tune trained weights on other data, stage by stage, export the result and verify the export."""
    spec = zoo.get_spec(artifacts.read_manifest(artifacts.find(source))["model"]["spec"])
    if export_to is not None:
        check_name(export_to, spec.name)
    changed = options.pairs(
        "--set", changes, epochs=epochs, learning_rate=lr, batch_size=batch_size, optimizer=optimizer, loss=loss
    )
    if not spec.ensemble:  # which zoo.fine_tune refuses
        options.check_changes(spec, spec.recipe(), changed)
    _trained(
        zoo.fine_tune, source, options.data_of(data, text_column, label_column), folds, export_to,
        only_class=only_class, out=out, devices=devices, seed=seed, deterministic=deterministic,
        input_shape=options.shape_of(input_shape), stages=options.words(stages or ""),
        freeze=options.words(freeze or ""), strict=strict, **changed,
    )  # fmt: skip


def _trained(
    train: Callable[..., zoo.Run], name: str, data: Any, folds: int | None, export_to: Path | None, **arguments: Any
) -> None:
    """Train on all data and export, or on each fold."""
    if folds is None:
        conclude(train(name, data, **arguments), export_to)
        return
    if export_to is not None:
        raise ZooError("--folds measures and exports nothing: leave out --export, or train without --folds")
    runs = zoo.cross_validate(train, name, data, folds=folds, **arguments)
    found = cross_validation.spread(runs)
    say(f"test {found['metric']} of {folds} folds: {' '.join(f'{score:.4f}' for score in found['test'])}")
    say(f"mean {found['mean']:.4f}, standard deviation {found['standard_deviation']:.4f}")
    say(f"runs: {runs[0].directory.parent}")


def reproduce(
    source: Trained,
    data: Annotated[str | None, typer.Option(help="The data set, if it is not found by its recorded name.")] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Evaluate the weights and train on a small part of the data: less than a minute."),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recorded one.")] = None,
    devices: Devices = "auto",
    out: Out = None,
) -> None:
    """Retrain weights from their manifest and check the test score against the recorded range."""
    done = zoo.reproduce(source, data=data, smoke=smoke, seed=seed, out=out, devices=devices)
    say(
        f"{done.name} {'passes' if smoke else 'is reproduced'}: test {done.metric} {done.measured:.4f} "
        f"is within {done.low:.4f} to {done.high:.4f}"
    )


def ensemble(
    members: Several,
    data: Annotated[
        str | None, typer.Option(help="The data set to measure the members and the ensemble on; nothing by default.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="For classifiers: mean of the probabilities (the default), or vote.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The registered ensemble of such members.")] = None,
    storage: Storage = None,
    export_to: ExportTo = None,
) -> None:
    """Join trained classifiers, or networks with overlapping masks, into one; export it and verify the export."""
    if export_to is not None:  # refused before the members are measured
        check_name(export_to, zoo.get_spec(name or ensembles.registered_name(members[0])).name)
    whole = zoo.create_ensemble(members, data=data, method=method, name=name)  # type: ignore[arg-type]
    monitor = whole.task.monitor
    if data is not None and monitor is not None:
        errors = monitor.name == "accuracy"  # whose complement shows more near 1
        table = Table("", *(f"{split} {'error' if errors else monitor.name}" for split in whole.metrics), box=None)
        rows = [(row["name"], [row[split] for split in whole.metrics]) for row in whole.record["members"]]
        rows.append(("ensemble", [scores[monitor.name] for scores in whole.metrics.values()]))
        for label, scores in rows:
            table.add_row(cell(label), *(f"{1 - score if errors else score:.4f}" for score in scores))
        if disagreement := whole.record.get("disagreement", {}).values():
            table.add_row("not all agree", *(f"{split['any']:.4f}" for split in disagreement))
            table.add_row("two differ, mean", *(f"{split['pairs']:.4f}" for split in disagreement))
        options.console().print(table)
    tag = whole.record["data"]["name"] or "local"
    path = zoo.export(
        whole,
        export_to or Path("saved_models") / f"{whole.task.spec.name}.{tag}",
        storage=storage,  # type: ignore[arg-type]
    )
    say(f"exported to {path} and verified in a process with TensorFlow alone")


def conclude(run: zoo.Run, export_to: Path | None) -> None:
    """Export a finished run; print its scores and the commands that come next."""
    if run.worker:
        say(f"worker {run.worker} has finished: worker 0 writes and exports the run")
        return
    for split, scores in run.metrics.items():
        say(f"{split} at epoch {run.best_epoch}: {scores_line(scores)}")
    row, monitor = run.history[run.best_epoch - 1], run.task.monitor
    if monitor is not None and monitor.name in row:
        gap = row[monitor.name] - row[f"val_{monitor.name}"]
        say(f"training minus validation {monitor.name} there: {gap:+.4f}")
    target = run.recipe.targets.get(run.record["data"]["name"])
    if monitor is not None and target is not None:
        reached = monitor.reaches(run.metrics["validation"][monitor.name], target)
        say(f"validation target of the recipe, {target}: {'reached' if reached else 'missed'}")
    if run.classified is not None:
        print_classified(run.classified)
        say(f"errors:  {run.directory / 'report'}")
    path = zoo.export(run, export_to or Path("saved_models") / f"{run.task.spec.name}.{run.tag}")
    say(f"exported to {path} and verified in a process with TensorFlow alone")
    say(f"curves:  {run.directory / 'curves.png'}")
    exported, example = shlex.quote(str(path.parent)), shlex.quote(run.record["example"])
    if run.record["example"] and isinstance(run.task, tasks.ImageTask) and run.task.has_masks:
        mask = "mask.npy" if run.task.overlapping else "mask.png"
        say(f"segment: zoo segment {example} -o {mask} --model {exported}")
    elif run.record["example"]:
        say(f"predict: zoo predict {exported} {example}")
    say(f"serve:   zoo serve {exported}")
