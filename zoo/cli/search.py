"""The command that searches for networks and recipes."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from etils import epy
from rich.console import Console
from rich.live import Live
from rich.table import Table

import zoo
from zoo.artifacts.manifest import check_name
from zoo.cli import options
from zoo.cli.options import (
    Changes,
    Data,
    Devices,
    Epochs,
    ExportTo,
    InputShape,
    LabelColumn,
    Name,
    Out,
    Seed,
    TextColumn,
    cell,
)
from zoo.cli.training import conclude
from zoo.errors import say

with epy.lazy_imports():
    from zoo.training import search

SHOWN_TRIALS = 5


def tune(
    name: Name,
    data: Data = "digits",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many, failed ones included; 20 by default, for hyperband one pass over its brackets."
        ),
    ] = None,
    strategy: Annotated[str, typer.Option(help="random, bayesian or hyperband.")] = "random",
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--set-range",
            help="KEY=RANGE: values of a builder argument or recipe key, such as width=8..64, learning_rate=1e-4..1e-2 "
            "or optimizer=adam,sgd; repeat it for several.",
        ),
    ] = None,
    max_parameters: Annotated[
        int | None, typer.Option("--max-parameters", help="Larger networks are not trained: their trials fail.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="For few examples: train each trial so many times, score it on what each leaves out."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe of the model; its first one by default.")] = None,
    epochs: Epochs = None,
    changes: Changes = None,
    devices: Devices = "auto",
    seed: Seed = 0,
    input_shape: InputShape = None,
    out: Out = None,
    export_to: ExportTo = None,
) -> None:
    """Search for the builder arguments and recipe keys with the best validation score; train, export and verify."""
    spec = zoo.get_spec(name)
    if export_to is not None:
        check_name(export_to, spec.name)
    changed = options.pairs("--set", changes, epochs=epochs)
    options.check_changes(spec, spec.recipe(recipe), changed)
    console = Console(file=sys.stdout, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(found: search.Search) -> None:
            if console.is_terminal:
                live.update(_trials_table(found), refresh=True)
            elif found.trials:
                say(_progress_line(found))

        found = zoo.tune(
            name, options.data_of(data, text_column, label_column), trials=trials, strategy=strategy,  # type: ignore[arg-type]
            ranges=options.ranges(ranges), max_parameters=max_parameters, folds=folds, recipe=recipe, devices=devices,
            seed=seed, input_shape=options.shape_of(input_shape), out=out, progress=show, **changed,
        )  # fmt: skip
    if found.run is None:
        say(f"this worker is done: the chief trains the best trial in {found.directory}")
        return
    options.console().print(_trials_table(found))
    say(f"search:  {found.directory / 'search.png'}")
    conclude(found.run, export_to)


def _trials_table(found: search.Search) -> Table:
    """The best trials so far."""
    table = Table("trial", found.metric.name, *found.space, box=None, title_justify="left", title=_count(found))
    for trial in found.done[:SHOWN_TRIALS]:
        table.add_row(str(trial.number), f"{trial.score:.4f}", *(cell(_short(v)) for v in trial.values.values()))
    return table


def _progress_line(found: search.Search) -> str:
    best = f", best {found.metric.name} {found.done[0].score:.4f} (trial {found.done[0].number})" if found.done else ""
    return _count(found) + best


def _count(found: search.Search) -> str:
    failed = len(found.trials) - len(found.done)
    return f"trials: {len(found.trials)}" + (f", failed: {failed}" if failed else "")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
