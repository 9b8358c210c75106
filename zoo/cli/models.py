"""Commands that show models and weights. They import no TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

import zoo
from zoo import artifacts, registry
from zoo.cli import card as cards
from zoo.cli.options import Json, cell, complete_any, console
from zoo.errors import ZooError, note, say
from zoo.listing import best_entry
from zoo.report import four_digits

COLUMNS = ("name", "task", "parameters", "data", "reported", "test", "weights")
BY_IMPORTANCE = ("name", "test", "parameters", "reported", "data", "task", "weights")  # what a narrow terminal keeps
GAP = 2  # spaces between two columns


def list_models(
    pattern: Annotated[
        str, typer.Argument(help="A part of the name or of a reference, or wildcards for all of it, such as `lenet*`.")
    ] = "*",
    task: Annotated[str | None, typer.Option(help="Only models of this task.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only models with a score on this data set.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Trained weights, as NAME.TAG.")] = False,
    max_params: Annotated[int | None, typer.Option(help="At most this many parameters.")] = None,
    min_metric: Annotated[float | None, typer.Option(help="Weights with at least this test score.")] = None,
    sort: Annotated[
        str, typer.Option(help="name, params (from few to many) or score (from best to worst, metric by metric).")
    ] = "name",
    origin: Annotated[
        str, typer.Option(help="Only models of this package, such as keras.applications, with its weights.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the models, or their trained weights. A narrow terminal gets fewer columns."""
    names = zoo.list_models(
        pattern if set("*?[") & set(pattern) else f"*{pattern}*", task=task, dataset=dataset, pretrained=pretrained,
        max_params=max_params, min_metric=min_metric, sort=sort, origin=origin,
    )  # fmt: skip
    if as_json:
        say(json.dumps(names))
        return
    if not names:
        note("no model matches: `zoo list` shows all")
        return
    index = artifacts.published_index()
    rows: list[tuple[str, ...]] = []
    for name in names:
        spec, tag = zoo.get_spec(name), name.partition(".")[2]
        tags = index.get(spec.name, {}).get("tags", {})
        entry = tags.get(tag) if tag else best_entry(spec, index.get(spec.name))
        reported = spec.reported[0] if spec.reported else None
        shown = entry or {
            "dataset": reported and reported.dataset, "reported": reported and reported.value, "test": None,
        }  # fmt: skip
        cells = (shown["dataset"] or "", four_digits(shown["reported"]), four_digits(shown["test"]))
        rows.append((name, spec.task, f"{spec.params:,}", *cells, tag or ", ".join(sorted([*tags, *spec.pretrained]))))
    _print_columns(rows)
    if pattern == "*" and not origin:
        for other in sorted({spec.origin for spec in registry.all_specs().values()} - {""}):
            hint = f"models of {other}, with its weights and the scores that it reports: zoo list --origin {other}"
            print(hint, file=sys.stderr)  # no row of the table


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    """Print as many of the columns as fit, the most important first; no cell is wrapped or cut."""
    widths = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
    output = console(at_least=widths[0])
    shown, used = {BY_IMPORTANCE[0]}, widths[COLUMNS.index(BY_IMPORTANCE[0])]
    for column in BY_IMPORTANCE[1:]:
        used += GAP + widths[COLUMNS.index(column)]
        if used > output.width:
            break
        shown.add(column)
    places = [place for place, column in enumerate(COLUMNS) if column in shown]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for place in places:
        table.add_column(COLUMNS[place], no_wrap=True, justify="right" if COLUMNS[place] == "parameters" else "left")
    for row in rows:
        table.add_row(*(cell(row[place]) for place in places))
    output.print(table)


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A model's name; NAME.TAG or an exported directory for a model card.", autocompletion=complete_any
        ),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Show this recipe of the model; with --json in the form that --config takes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a model: references, scores, recipes, notes. For NAME.TAG show the model card of these weights."""
    if "." in name or os.sep in name:
        if recipe is not None:
            raise ZooError("--recipe shows a recipe of a model: give its name without a tag")
        card = cards.card(artifacts.find(name), name)
        if as_json:
            say(json.dumps(card, indent=1))
        else:
            _print_card(card)
        return
    spec = zoo.get_spec(name)
    if recipe is not None:
        keys = dataclasses.asdict(spec.recipe(recipe))
        if as_json:
            say(json.dumps(keys, indent=1))
        else:
            _print_page(spec.name, f"recipe {recipe}", [(key, json.dumps(value)) for key, value in keys.items()])
        return
    tags = artifacts.published_index().get(name, {}).get("tags", {})
    if as_json:
        fields = {
            key: value
            for key, value in dataclasses.asdict(spec).items()
            if key not in ("builder", "prepare", "pretrained")
        }
        say(json.dumps({**fields, "weights": tags}, indent=1))
    else:
        _print_model(spec, tags)


def _print_model(spec: zoo.ModelSpec, tags: dict[str, dict[str, Any]]) -> None:
    rows = [
        ("task", spec.task),
        ("input", " x ".join("any" if side is None else str(side) for side in spec.input_shape)),
        ("classes", str(spec.classes or "none")),
        ("parameters", f"{spec.params:,}"),
        ("references", "\n".join(spec.references)),
    ]
    for score in spec.reported:
        value = f"{score.metric} {four_digits(score.value)} on {score.dataset}"
        rows.append(("reported", f"{value} ({score.reference})"))
    for tag, entry in sorted(tags.items()):
        if runs := " ".join(map(four_digits, entry["runs"])):
            value = f"{entry['metric']} {four_digits(entry['test'])} on {entry['dataset']}"
            other = "".join(f"{key} {word}, " for key, word in entry.get("variant", {}).items())
            rows.append(("measured", f"{value} ({spec.name}.{tag}; {other}all runs: {runs})"))
    for stage in spec.stages:
        what = f"{', '.join(stage.layers)}, {stage.epochs} epochs at {stage.learning_rate:g}"
        rows.append(("fine-tuning", f"{stage.name}: {what}"))
    for name, recipe in spec.recipes.items():
        rows.append((f"recipe {name}", _short(dataclasses.asdict(recipe))))
        rows += [("", f"deviation from the paper: {deviation}") for deviation in recipe.deviations]
    rows += [("note", note) for note in spec.notes]
    _print_page(spec.name, f"{spec.summary} ({spec.year})", rows)


def _print_card(card: dict[str, Any]) -> None:
    data, score, training = card["data"], card["score"], card["training"]
    counts = ", ".join(f"{count:,} {split}" for split, count in data["examples"].items())
    rows = [
        ("model", card["model"]),
        ("task", card["task"].replace("_", " ")),
        ("references", "\n".join(card["references"])),
        ("classes", ", ".join(name if name.strip() else ascii(name) for name in card["classes"]) or "none"),
        ("data", f"{data['name'] or 'not recorded'}{f' ({counts})' if counts else ''}"),
        ("fingerprint", data["fingerprint"] or "not recorded"),
    ]
    if score["metric"] and score["test"] is not None:
        splits = ", ".join(f"{split} {four_digits(score[split])}" for split in ("test", "validation"))
        rows.append(("score", f"{score['metric']}: {splits}"))
        runs = score["test_of_all_runs"]
        spread = f" ± {four_digits(score['standard_deviation'])}" if score["standard_deviation"] is not None else ""
        values = " ".join(map(four_digits, runs))
        rows.append(("all runs", f"test {values}; mean {four_digits(score['mean'])}{spread} ({len(runs)})"))
        others = ", ".join(f"{name} {four_digits(value)}" for name, value in score["others"].items())
        rows += [("other scores", f"test {others}")] if others else []
    if score["reported"] is not None:
        rows.append(("reported", f"{score['metric']} {four_digits(score['reported'])} ({score['reference']})"))
    if training["recipe"]:
        rows.append((f"recipe {training['recipe_name']}", f"{_short(training['recipe'])}, seed {training['seed']}"))
        rows += [("", f"deviation from the paper: {deviation}") for deviation in training["deviations"]]
    if by := training["trained_by"]:
        versions = ", ".join(f"{name} {version}" for name, version in by.items())
        rows.append(("trained by", f"Keras' JAX backend on {training['devices']} ({versions})"))
    if training["given_in_python"]:
        rows.append(("given in Python", json.dumps(training["given_in_python"])))
    if training["origin"]:
        rows.append(("fine-tuned from", training["origin"]))
    if training["members"]:
        rows.append(("members", ", ".join(training["members"])))
    rows += [
        ("license", f"weights: {card['license']}\ndata: {data['license']}"),
        ("intended use", card["intended_use"]),
        ("limits", "\n".join(card["limits"])),
        ("size", f"{card['bytes']:,} bytes, {card['parameters']:,} parameters stored as {card['storage']}"),
    ]
    for name, signature in sorted(card["signatures"].items()):
        inputs, outputs = (
            ", ".join(f"{key} ({kind})" for key, kind in signature[way].items()) for way in ("inputs", "outputs")
        )
        rows.append((f"signature {name}", f"{inputs} -> {outputs}"))
    _print_page(card["name"], card["summary"], rows)
    say("load with")
    for line in card["usage"]:
        say(f"    {line}")


def _short(recipe: dict[str, Any]) -> str:
    """A recipe, as plain data, in one line: the usual keys, and those that it sets beside them."""
    first = ("optimizer", "learning_rate", "batch_size", "epochs", "loss")
    usual = dataclasses.asdict(zoo.Recipe(epochs=1, batch_size=1, learning_rate=1.0))
    rest = {key: value for key, value in recipe.items() if key not in (*first, "options", "deviations", "targets")}
    words = [f"{recipe['optimizer']} {recipe['learning_rate']:g}", f"batch {recipe['batch_size']}"]
    words += [f"{recipe['epochs']} epochs", recipe["loss"]]
    words += [_own_keys(keys, known) for keys, known in ((rest, usual), (recipe.get("options", {}), {}))]
    return ", ".join(filter(None, words))


def _own_keys(keys: dict[str, Any], usual: dict[str, Any]) -> str:
    """Keys that are neither empty nor as by default, in one line."""
    words = []
    for key, value in keys.items():
        known = usual.get(key)
        if not value or value == known:
            continue
        if isinstance(value, dict):
            own = _own_keys(value, known if isinstance(known, dict) else {})
            words += [f"{key} ({own})"] if own else []
        else:
            words.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(words)


def _print_page(name: str, summary: str, rows: list[tuple[str, str]]) -> None:
    output = console()
    output.print(f"[bold]{cell(name)}[/bold]  {cell(summary)}")
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, cell(value))
    output.print(table)
