"""What several commands share: arguments and options with their help, and how their words are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from etils import epy
from rich.console import Console
from rich.markup import escape

import zoo
from zoo.errors import ZooError, shown, unknown
from zoo.files import read_json
from zoo.search_space import Range, read_range

with epy.lazy_imports():
    from zoo import tasks


def words(text: str) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def complete_model(incomplete: str) -> list[str]:
    """The names of models that begin so, for the shell."""
    return [name for name in zoo.list_models() if name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """The names of trained weights that begin so, for the shell."""
    return [name for name in zoo.list_models(pretrained=True) if name.startswith(incomplete)]


def complete_any(incomplete: str) -> list[str]:
    """The names of both that begin so, for the shell."""
    return complete_model(incomplete) + complete_weights(incomplete)


Name = Annotated[str, typer.Argument(help="A model's name, as `zoo list` shows it.", autocompletion=complete_model)]
Trained = Annotated[str, typer.Argument(help="NAME.TAG, or an exported directory.", autocompletion=complete_weights)]
Several = Annotated[
    list[str], typer.Argument(help="NAME.TAG, or exported directories.", autocompletion=complete_weights)
]
Data = Annotated[
    str,
    typer.Option(
        help="digits, mnist, scenes, tfds:NAME, or a path: a folder, zip or tar with one sub-folder per class, or with "
        "images and labels; .npz, .tsv, .csv, .txt. Bare names are also looked up in the folder in ZOO_DATA_DIR; "
        "./NAME is always a path, zoo:NAME never."
    ),
]
Averaged = Annotated[
    str,
    typer.Option(
        "--tta",
        metavar="VIEWS",
        help="Test-time augmentation of images: average over mirror, shift (by a pixel) or crops (corners and center); "
        "several with commas between, such as mirror,shift.",
    ),
]
TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="The column of texts in a .tsv or .csv file, if not text.")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="The column of labels in a .tsv or .csv file, if not label.")
]
Devices = Annotated[str, typer.Option(help="auto, cpu, cpu:2 (logical CPUs), gpu:0,1.")]
Workers = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of all machines that train together, with commas, the chief first; in place of TF_CONFIG."
    ),
]
Worker = Annotated[int | None, typer.Option(help="The number of this machine among --workers, from 0.")]
Readers = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of machines that run `zoo read`, with commas: they prepare the training batches."),
]
Out = Annotated[Path | None, typer.Option(help="The run's directory; an interrupted run in it is resumed.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is random.")]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same seed gives the same bytes of weights; slower.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE: change a recipe key, such as weight_decay=0.01; repeat it for several."),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs in place of the recipe's; more of them extend a run.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Short for --set learning_rate=VALUE.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Short for --set batch_size=VALUE.")]
Optimizer = Annotated[str | None, typer.Option("--optimizer", help="Short for --set optimizer=NAME, such as adamw.")]
Loss = Annotated[str | None, typer.Option("--loss", help="Short for --set loss=NAME.")]
Folds = Annotated[
    int | None,
    typer.Option(
        help="Train so many times, each time tested on another part of train and validation; print the mean and the "
        "standard deviation, and export nothing."
    ),
]
ExportTo = Annotated[Path | None, typer.Option("--export", help="Where to export; saved_models/NAME.DATA by default.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="float32 (the default for runs), float16 for half the size, or auto: float16 where that changes no "
        "predicted class. Weights that are exported again keep their type by default."
    ),
]
InputShape = Annotated[
    str | None, typer.Option(help="Another input shape: height, width, channels, such as 32,32,3.", metavar="SHAPE")
]
Csv = Annotated[bool, typer.Option("--csv", help="Print a table with commas.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a folder or archive with files that are not read, such as notes.")
]
Readable = Annotated[bool, typer.Option("--strict", help="Refuse a folder with files that cannot be read.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console(*, at_least: int = 0) -> Console:
    """Standard output, as wide as the terminal; where there is none, COLUMNS or 80 columns; but `at_least` so wide."""
    return Console(highlight=False, width=max(shutil.get_terminal_size().columns, at_least))


def cell(text: str) -> str:
    """A text for rich's tables and lines: without control characters, and with its brackets as they are."""
    return escape(shown(text))


def data_of(name: str, text_column: str | None, label_column: str | None) -> str | zoo.data.Dataset:
    """The data set with the columns that were named, or its name where none was."""
    if text_column is None and label_column is None:
        return name
    return zoo.data.load(name, text_column=text_column, label_column=label_column)


def shape_of(words: str | None) -> tuple[int, ...] | None:
    """The shape in a text such as `32,32,3`; raises ZooError for any other text."""
    if words is None:
        return None
    try:
        return tuple(int(side) for side in words.split(","))
    except ValueError:
        raise ZooError(f"--input-shape needs numbers with commas, such as 32,32,3, not {words!r}") from None


def pairs(option: str, words: list[str] | None, **flags: Any) -> dict[str, Any]:
    """The values of a repeated KEY=VALUE option by key, together with those of flags that stand for a key and are not
    None. A value is JSON, or else text.

    Raises:
        ZooError: for a word without `=`, and a key with two values.
    """
    values = {key: value for key, value in flags.items() if value is not None}
    for word in words or []:
        key, equals, text = word.partition("=")
        if not equals:
            raise ZooError(f"{option} needs KEY=VALUE, not {word!r}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if key in values and values[key] != value:
            raise ZooError(f"{key} has two values, {values[key]} and {value}: give one")
        values[key] = value
    return values


def ranges(words: list[str] | None) -> dict[str, Range]:
    """The ranges in `--set-range` words by key; raises ZooError for a word without `=`, and a range that is empty."""
    found = {}
    for word in words or []:
        key, equals, text = word.partition("=")
        if not equals:
            raise ZooError(f"--set-range needs KEY=RANGE, not {word!r}")
        try:
            found[key] = read_range(text)
        except ZooError as error:
            raise ZooError(f"--set-range {key}: {error}") from None
    return found


def check_changes(spec: zoo.ModelSpec, recipe: zoo.Recipe, changes: Mapping[str, Any]) -> None:
    """Raises ZooError for changes that the recipe cannot have: before `zoo.train`, for which such a key might name
    another parameter."""
    tasks.with_options(recipe, tasks.get_task(spec.task), spec.task).replace(**changes)


def builder_arguments(spec: zoo.ModelSpec, words: list[str] | None) -> dict[str, Any]:
    """The arguments in `--arg` words; raises ZooError for one that the model's builder does not take."""
    arguments = pairs("--arg", words)
    for key in arguments:
        if key not in spec.builder_arguments:
            raise unknown(f"argument of {spec.name}", key, spec.builder_arguments)
    return arguments


def read_config(file: Path, spec: zoo.ModelSpec) -> tuple[zoo.Recipe, dict[str, Any]]:
    """The recipe in a JSON file, and the builder arguments where it is the `run.json` of the same model.

    Raises:
        ZooError: for a file that is missing or damaged, and a recipe that the model's task cannot have.
    """
    content = read_json(file)
    model = content.get("model")
    arguments = model.get("arguments", {}) if isinstance(model, dict) and model.get("spec") == spec.name else {}
    try:
        return tasks.read_recipe(content.get("recipe", content), spec.task), arguments
    except ZooError as error:
        raise ZooError(f"{file}: {error}") from None
