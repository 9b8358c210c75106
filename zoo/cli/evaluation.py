"""Commands that measure trained networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from etils import epy
from rich.table import Table

import zoo
from zoo.cli import options
from zoo.cli.options import Averaged, Csv, Data, Json, LabelColumn, Strict, TextColumn, Trained, cell
from zoo.errors import ZooError, say
from zoo.files import written

with epy.lazy_imports():
    from zoo.training import classified, evaluation, plots

MOST_COLUMNS = 12  # classes whose confusion matrix is printed
WIDE = 120  # columns that it gets at least


def evaluate(
    source: Trained,
    data: Data,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, validation or test; by default test, or all examples of a source without splits."),
    ] = None,
    tta: Averaged = "",
    errors: Annotated[
        Path | None, typer.Option(help="A new folder for the examples that a classifier gets wrong, and errors.csv.")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
    strict: Strict = False,
) -> None:
    """Measure trained weights on a data set: loss, metrics, and for classifiers the errors by class."""
    given = options.data_of(data, text_column, label_column)
    found = evaluation.examine(source, given, split=split, tta=options.words(tta), strict=strict)
    if found.classified is None and (errors or as_csv):
        raise ZooError("--errors and --csv are for networks that predict one class an example")
    if errors is not None and found.classified is not None:
        classified.write_errors(errors, found.split, found.classified)
    whole = {**found.scores, "split": found.part, "examples": len(found.split)}
    if as_json:
        say(json.dumps({**whole, **(found.classified.as_plain() if found.classified else {})}))
    elif as_csv and found.classified:
        say(found.classified.as_csv(), end="")
    else:
        say(f"{found.part}, {len(found.split):,} examples: {scores_line(found.scores)}")
        if found.classified:
            print_classified(found.classified)
        if errors is not None:
            say(f"errors: {errors / 'errors.csv'}")


def print_classified(found: classified.Classified) -> None:
    """The calibration error, and a line for each class with its row of the confusion matrix; where there are many
    classes, the most frequent confusions instead of the matrix."""
    say(f"calibration error {found.calibration_error():.4f}")
    shown = len(found.classes) <= MOST_COLUMNS
    table = Table(
        "true class", "examples", "precision", "recall", *(map(cell, found.classes) if shown else ()), box=None
    )
    for row, counts in zip(found.per_class(), found.confusion.tolist(), strict=True):
        shares = ("" if row[key] is None else f"{row[key]:.4f}" for key in ("precision", "recall"))
        table.add_row(cell(row["class"]), str(row["examples"]), *shares, *(map(str, counts) if shown else ()))
    options.console(at_least=WIDE).print(table)
    if not shown:
        pairs = [
            (count, true, predicted)
            for true, counts in zip(found.classes, found.confusion.tolist(), strict=True)
            for predicted, count in zip(found.classes, counts, strict=True)
            if count and predicted != true
        ]
        for count, true, predicted in sorted(pairs, reverse=True)[:MOST_COLUMNS]:
            say(f"{count} of {true} predicted as {predicted}")


def attack(
    source: Trained,
    data: Data,
    epsilons: Annotated[
        str, typer.Option("--epsilon", help="Largest changes of a pixel, as shares of the full scale, with commas.")
    ] = "0,0.01,0.02,0.05,0.1,0.2",
    steps: Annotated[
        int, typer.Option(help="1 for the fast gradient sign method, more for projected gradient descent.", min=1)
    ] = 1,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    count: Annotated[int, typer.Option(help="The number of images, drawn from the split.", min=1)] = 1000,
    picture: Annotated[Path | None, typer.Option(help="A plot of the table to write: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a classifier of images on adversarial images, which are changed to mislead it."""
    try:
        values = [float(word) for word in options.words(epsilons)]
    except ValueError:
        raise ZooError(f"--epsilon needs numbers with commas, such as 0,0.01,0.1, not {epsilons!r}") from None
    rows = zoo.adversarial_accuracy(source, data, values, split=split, count=count, steps=steps)
    if picture is not None:
        with written(picture, ValueError) as temporary:  # which Matplotlib raises for another format
            plots.accuracy_by_epsilon(rows, f"{source}, {'one step' if steps == 1 else f'{steps} steps'}", temporary)
    if as_json:
        say(json.dumps(rows))
        return
    table = Table("epsilon", "accuracy", box=None)
    for row in rows:
        table.add_row(f"{row['epsilon']:g}", f"{row['accuracy']:.4f}")
    options.console().print(table)


def scores_line(scores: dict[str, float]) -> str:
    """Scores by name in one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
