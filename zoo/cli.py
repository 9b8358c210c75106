"""The command line: words in, calls of the public functions, tables out."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import zoo
from zoo import artifacts
from zoo.errors import ZooError, unknown
from zoo.results import four_digits

app = typer.Typer(
    name="zoo",
    help="Classic neural networks: list, train, fine-tune, export, verify and serve them by name.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
RECIPE_KEYS = tuple(field.name for field in dataclasses.fields(zoo.Recipe))

Name = Annotated[str, typer.Argument(help="A model's name, as `zoo list` shows it.")]
Trained = Annotated[str, typer.Argument(help="NAME.TAG, or the path of an exported directory.")]
Data = Annotated[
    str,
    typer.Option(
        help="digits, mnist, scenes, tfds:NAME, or a path: a folder or zip with one sub-folder a class, or with images "
        "and labels; .npz, .tsv, .txt. "
        "Bare names are also looked up in the folder that ZOO_DATA_DIR names."
    ),
]
Devices = Annotated[str, typer.Option(help="auto, cpu, cpu:2 (logical CPUs), gpu:0,1.")]
Out = Annotated[Path | None, typer.Option(help="The run's directory; a broken-off run in it goes on.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is random.")]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="The same seed gives the same bytes; slower.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE: change a recipe key, such as batch_size=32.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs in place of the recipe's.")]
ExportTo = Annotated[Path | None, typer.Option("--export", help="Where to export; saved_models/NAME.DATA by default.")]
Storage = Annotated[
    str, typer.Option(help="float32, float16 for half the size, or auto: float16 where that changes no prediction.")
]
InputShape = Annotated[str | None, typer.Option(help="Another input shape, such as 32,32,3.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


WITHOUT_TENSORFLOW = ("list", "info", "results")


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Taken before a command: `zoo --debug train ...`."""
    if context.invoked_subcommand not in WITHOUT_TENSORFLOW and "--help" not in sys.argv and not debug:
        _import_tensorflow_quietly()


@app.command("list")
def list_models(
    pattern: Annotated[str, typer.Argument(help="Wildcards on the name, such as 'network3*'.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only models of this task.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only models with a figure on this data set.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only trained weights, as NAME.TAG.")] = False,
    max_params: Annotated[int | None, typer.Option(help="At most so many parameters.")] = None,
    min_metric: Annotated[float | None, typer.Option(help="Weights with at least this test figure.")] = None,
    as_json: Json = False,
) -> None:
    """List the models, or their trained weights."""
    names = zoo.list_models(
        pattern, task=task, dataset=dataset, pretrained=pretrained, max_params=max_params, min_metric=min_metric
    )
    if as_json:
        print(json.dumps(names))
        return
    table = Table("name", "task", "parameters", "data", "published", "measured here", "weights", box=None)
    index = artifacts.published_index()
    for name in names:
        spec, tag = zoo.get_spec(name), name.partition(".")[2]
        entry = index.get(spec.name, {"tags": {}, "aliases": {}})
        figure = spec.published[0] if spec.published else None
        # the best weights for the first data set that the source reports on; of all, where it reports on none
        best = entry["aliases"].get(figure.dataset, figure.dataset) if figure else entry["aliases"].get("default")
        without = {"dataset": figure and figure.dataset, "published": figure and figure.value, "value": None}
        shown = entry["tags"].get(tag or best, without)
        cells = (shown["dataset"], four_digits(shown["published"]), four_digits(shown["value"]))
        table.add_row(name, spec.task, f"{spec.params:,}", *cells, tag or ", ".join(sorted(entry["tags"])))
    console.print(table)


@app.command()
def info(name: Name) -> None:
    """Show what a model is: sources, published and measured figures, recipes, notes."""
    spec = zoo.get_spec(name)
    console.print(f"[bold]{spec.name}[/bold]  {spec.summary} ({spec.year})")
    table = Table(show_header=False, box=None)
    table.add_row("task", spec.task)
    table.add_row("input", " x ".join("any" if side is None else str(side) for side in spec.input_shape))
    table.add_row("classes", str(spec.classes) if spec.classes else "none")
    table.add_row("parameters", f"{spec.params:,}")
    table.add_row("sources", "\n".join(spec.sources))
    for figure in spec.published:
        table.add_row("published", f"{figure.metric} {four_digits(figure.value)} on {figure.dataset} ({figure.source})")
    weights = artifacts.published_index().get(name, {}).get("tags", {})
    for tag, entry in sorted(weights.items()):
        if runs := " ".join(map(four_digits, entry["runs"])):
            figure = f"{entry['metric']} {four_digits(entry['value'])} on {entry['dataset']}"
            table.add_row("measured", f"{figure} ({name}.{tag}; all runs: {runs})")
    for stage in spec.stages:
        table.add_row(
            "fine-tuning", f"{stage.name}: {', '.join(stage.layers)}, {stage.epochs} epochs at {stage.learning_rate:g}"
        )
    for recipe_name, recipe in spec.recipes.items():
        how = (f"{recipe.optimizer} {recipe.learning_rate}", f"batch {recipe.batch_size}", f"{recipe.epochs} epochs")
        table.add_row(f"recipe {recipe_name}", ", ".join([*how, recipe.loss]))
        for deviation in recipe.deviations:
            table.add_row("", f"differs from the source: {deviation}")
    for note in spec.notes:
        table.add_row("note", note)
    console.print(table)


@app.command()
def train(
    name: Name,
    data: Data = "digits",
    recipe: Annotated[str | None, typer.Option(help="A recipe of the model; its first by default.")] = None,
    epochs: Epochs = None,
    changes: Changes = None,
    devices: Devices = "auto",
    seed: Seed = 0,
    deterministic: Deterministic = False,
    input_shape: InputShape = None,
    out: Out = None,
    export_to: ExportTo = None,
) -> None:
    """Train a model from scratch, export it and prove the export."""
    if export_to is not None:  # refused before the training, not after it
        artifacts.check_name(export_to, zoo.get_spec(name).name)
    run = zoo.train(
        name, data, recipe=recipe, out=out, devices=devices, seed=seed, deterministic=deterministic,
        input_shape=_shape(input_shape), **_changes(changes, epochs),
    )  # fmt: skip
    _conclude(run, export_to)


@app.command()
def fine_tune(
    source: Trained,
    data: Data,
    only_class: Annotated[
        str | None, typer.Option(help="One class of several that may overlap: go on from its weights with it alone.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each stage in place of the model's.")] = None,
    changes: Changes = None,
    devices: Devices = "auto",
    seed: Seed = 0,
    deterministic: Deterministic = False,
    input_shape: InputShape = None,
    out: Out = None,
    export_to: ExportTo = None,
) -> None:
    """Fine-tune trained weights on other data, stage by stage, export the result and prove the export."""
    if export_to is not None:
        artifacts.check_name(export_to, artifacts.read_manifest(artifacts.find(source))["model"]["spec"])
    run = zoo.fine_tune(
        source, data, only_class=only_class, out=out, devices=devices, seed=seed, deterministic=deterministic,
        input_shape=_shape(input_shape), **_changes(changes, epochs),
    )  # fmt: skip
    _conclude(run, export_to)


@app.command()
def reproduce(
    source: Trained,
    data: Annotated[str | None, typer.Option(help="The data set, where it is not found by its name.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="A short slice of it, in less than a minute.")] = False,
    seed: Annotated[int | None, typer.Option(help="Another seed than the manifest's.")] = None,
    devices: Devices = "auto",
    out: Out = None,
) -> None:
    """Train weights again by their manifest and hold the test figure against the stored range."""
    done = zoo.reproduce(source, data=data, smoke=smoke, seed=seed, out=out, devices=devices)
    print(
        f"{done.name} {'passes' if smoke else 'is reproduced'}: test {done.metric} {done.measured:.4f} "
        f"is within {done.low:.4f} to {done.high:.4f}"
    )


@app.command()
def ensemble(
    members: Annotated[list[str], typer.Argument(help="NAME.TAG, exported directories, or runs.")],
    data: Annotated[str | None, typer.Option(help="The data set to measure the members and the whole on.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Of classifiers: mean of the probabilities (the default), or vote.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The registered ensemble of such members.")] = None,
    storage: Storage = "float32",
    export_to: ExportTo = None,
) -> None:
    """Join trained classifiers, or networks with masks of their own, into one, export it and prove the export."""
    from zoo.ensemble import registered_name

    if export_to is not None:  # refused before the members are measured
        artifacts.check_name(export_to, zoo.get_spec(name or registered_name(members[0])).name)
    whole = zoo.create_ensemble(members, data=data, method=method, name=name)
    if data is not None:
        metric = whole.task.metric
        errors = metric == "accuracy"  # whose complement says more, near 1
        table = Table("", *(f"{split} {'error' if errors else metric}" for split in whole.metrics), box=None)
        rows = [(row["name"], [row[split] for split in whole.metrics]) for row in whole.record["members"]]
        rows.append(("together", [figures[metric] for figures in whole.metrics.values()]))
        for label, figures in rows:
            table.add_row(label, *(f"{1 - figure if errors else figure:.4f}" for figure in figures))
        if apart := whole.record.get("disagreement", {}).values():
            table.add_row("not all agree", *(f"{split['any']:.4f}" for split in apart))
            table.add_row("two differ, on average", *(f"{split['pairs']:.4f}" for split in apart))
        console.print(table)
    tag = whole.record["data"]["name"] or "local"
    path = zoo.export(whole, export_to or Path("saved_models") / f"{whole.task.spec.name}.{tag}", storage=storage)
    print(f"exported to {path}, verified in a process with TensorFlow alone")


@app.command()
def evaluate(
    source: Trained,
    data: Data,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    as_json: Json = False,
) -> None:
    """Measure trained weights on a data set."""
    figures = zoo.evaluate(source, data, split=split)
    print(json.dumps(figures) if as_json else "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))


@app.command()
def predict(
    source: Trained,
    inputs: Annotated[list[str], typer.Argument(help="Picture files (PNG, JPEG), or texts for a text model.")],
    as_json: Json = False,
) -> None:
    """Say what trained weights see in pictures, or read in texts."""
    rows = zoo.predict(source, inputs)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        words = [
            f"{value:.4f}" if isinstance(value, float) else value
            for value in row.values()
            if not isinstance(value, list)
        ]
        print("  ".join(str(word) for word in words))


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, GeoTIFF or .npy file of any size.")],
    mask: Annotated[Path, typer.Option("--output", "-o", help="The mask to write: .png, .tif or .npy.")],
    model: Annotated[str, typer.Option(help="NAME.TAG, or the path of an exported directory.")] = "unet_small",
    tile: Annotated[int, typer.Option(help="Greatest side of a tile, in pixels.")] = 1024,
    overlap: Annotated[int | None, typer.Option(help="Least overlap of tiles, in pixels; auto by default.")] = None,
    tta: Annotated[str | None, typer.Option(help="dihedral: the mean over eight symmetries of each tile.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="The picture of both; MASK_overlay.png by default.")] = None,
) -> None:
    """Write the class of each pixel of a large image, tile by tile, and a picture with the classes in colour."""
    done = zoo.segment(model, image, mask, tile=tile, overlap=overlap, tta=tta, overlay=overlay)
    for name, share in done.shares.items():
        print(f"{name}  {share:.4f}")
    print(f"mask: {done.mask}; overlay: {done.overlay}")


@app.command()
def export(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A run's directory, or those of runs with several seeds, of which the best on validation is exported "
            "with the figures of all; or NAME.TAG or an exported directory, for other formats."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="FOLDER/NAME.TAG, or a file for the other formats.")],
    format: Annotated[str, typer.Option(help="tensorflow, onnx, litert or keras.")] = "tensorflow",
    storage: Storage = "float32",
) -> None:
    """Export a run, or trained weights anew, and prove that the export gives the same numbers."""
    are_runs = [Path(source, "run.json").exists() for source in sources]
    if len(sources) > 1 and not all(are_runs):
        raise ZooError(f"{sources[are_runs.index(False)]} is no run: several sources must be runs of one training")
    source = [zoo.load_run(source) for source in sources] if all(are_runs) else zoo.load(sources[0])
    print(zoo.export(source, path, format=format, storage=storage))


@app.command()
def verify(sources: Annotated[list[str], typer.Argument(help="NAME.TAG or directories.")]) -> None:
    """Prove artifacts: files, operations, and the golden examples in a process with TensorFlow alone."""
    for result in zoo.verify(*sources):
        signatures = ", ".join(result["signatures"])
        print(f"{result['path']}: verified, largest difference {result['difference']:.1e}; signatures: {signatures}")


@app.command()
def serve(
    sources: Annotated[list[str], typer.Argument(help="NAME.TAG or directories.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
) -> None:
    """Serve artifacts in TensorFlow Serving's REST form, after proving each."""
    from zoo import serving

    zoo.verify(*sources)
    served = {path.parent.name: path for path in map(artifacts.find, sources)}
    if len(served) < len(sources):
        raise ZooError("two of the artifacts have the same name: a server needs them apart")
    serving.serve(served, host=host, port=port)


@app.command()
def results(
    write: Annotated[
        Path | None, typer.Option(help="Put the table into this Markdown file, between its marks.")
    ] = None,
) -> None:
    """Print the table of all models: what the source says, what was measured here."""
    from zoo import results as zoo_results

    if write is None:
        print(zoo_results.table())
    else:
        _import_tensorflow_quietly()
        zoo_results.write(write)


def _conclude(run: zoo.Run, export_to: Path | None) -> None:
    """Export a finished run, and say how to go on."""
    if "loaded" in run.record:
        print(f"from {run.record['origin']['name']}: {run.record['loaded']}")
    for split, figures in run.metrics.items():
        print(
            f"{split} at epoch {run.best_epoch}: " + "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        )
    row = run.history[run.best_epoch - 1]
    if run.task.metric in row:
        gap = row[run.task.metric] - row[f"val_{run.task.metric}"]
        print(f"gap between training and validation {run.task.metric} there: {gap:+.4f}")
    target = run.recipe.targets.get(run.record["data"]["name"])
    if target is not None and run.task.metric:
        measured = {f"val_{key}": value for key, value in run.metrics["validation"].items()}
        reached = run.task.goodness(measured) >= run.task.goodness({f"val_{run.task.metric}": target})
        print(f"validation target {target} of the recipe: {'reached' if reached else 'missed'}")
    spec = run.task.spec
    path = zoo.export(run, export_to or Path("saved_models") / f"{spec.name}.{run.tag}")
    print(f"exported to {path}, verified in a process with TensorFlow alone; curves: {run.directory / 'curves.png'}")
    exported, example = shlex.quote(str(path.parent)), shlex.quote(run.record["example"])
    if run.record["example"]:
        mask = f"mask{'.png' if spec.scores != 'masks' else '.npy'}"
        segment = f"segment: zoo segment {example} -o {mask} --model {exported}"
        print(segment if run.task.masked else f"predict: zoo predict {exported} {example}")
    print(f"serve:   zoo serve {exported}")


def _import_tensorflow_quietly() -> None:
    """TensorFlow writes of its build on standard error as it starts, past every setting: nothing for a user."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  devnull is no path to speak of
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow

        tensorflow.get_logger().setLevel("ERROR")  # its advice on retracing is for programmers
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _shape(words: str | None) -> tuple[int, ...] | None:
    if words is None:
        return None
    try:
        return tuple(int(side) for side in words.split(","))
    except ValueError:
        raise ZooError(f"--input-shape must be numbers with commas, such as 32,32,3, not {words!r}") from None


def _changes(words: list[str] | None, epochs: int | None) -> dict[str, Any]:
    """Recipe keys from KEY=VALUE words; a value is read as JSON, or else taken as text."""
    changes: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    for word in words or []:
        key, equals, value = word.partition("=")
        if not equals:
            raise ZooError(f"--set needs KEY=VALUE, not {word!r}")
        if key not in RECIPE_KEYS:
            raise unknown("recipe key", key, RECIPE_KEYS)
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    return changes


def main() -> None:
    """Run the command line: errors of the user's making are told in one line, and exit with 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except ZooError as error:
        if "--debug" in sys.argv:
            raise
        line = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {line}", style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
