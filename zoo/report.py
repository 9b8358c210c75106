"""The table of all models: reported scores, scores measured here, size and latency."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epy

from zoo import registry
from zoo.artifacts import published_index
from zoo.artifacts.index import INDEX, index_of, roots, write_index
from zoo.errors import ZooError, shown
from zoo.listing import list_models

with epy.lazy_imports():
    from zoo.artifacts import verification

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
SHORT_BEGIN, SHORT_END = "<!-- eight models -->", "<!-- end of eight models -->"
EIGHT = (  # the weights that people ask for first
    "lenet5.mnist_distorted", "mlp_784_100_10.mnist_modern", "network3_relu.mnist_modern",
    "network3_dropout_ensemble.mnist_modern", "airbench94.cifar10", "unet_small.isbi", "dcgan_small.mnist",
    "lstm_char.shakespeare",
)  # fmt: skip
SHORT_HEADER = "| weights | year | parameters | metric, data | reported | measured |"
CSV = "results.csv"
COLUMNS = (
    "name", "tag", "dataset", "metric", "parameters", "year", "reported", "validation", "test", "runs", "mean",
    "standard_deviation", "bytes", "milliseconds",
)  # fmt: skip
HEADER = (
    "| model | year | parameters | metric, data | reported | weights | validation | test | all runs | size | latency |"
)


def rows(folder: Path | None = None) -> list[dict[str, Any]]:
    """For each model's weights a row with the keys `COLUMNS`; one with an empty `tag` for a model without weights.

    The scores are those of the manifests. `runs` are the test scores of all runs and `standard_deviation` is their
    standard deviation; with one run, that of a share of the test examples (binomial).

    Args:
        folder: only weights of this `saved_models`; all that are found by name if None.
    """
    index = index_of(folder)["models"] if folder else published_index()
    times = latencies(folder)
    table = []
    for name in list_models():
        spec = registry.get_spec(name)
        tags = index.get(name, {}).get("tags", {})
        for tag, entry in sorted(tags.items()):
            known = {"name": name, "tag": tag, "year": spec.year, "parameters": spec.params}
            known["milliseconds"] = times.get(f"{name}.{tag}")
            table.append({column: known.get(column, entry.get(column)) for column in COLUMNS})
        if not table or table[-1]["name"] != name:
            first = spec.reported[0] if spec.reported else None
            score = {"reported": first.value, "metric": first.metric, "dataset": first.dataset} if first else {}
            known = {"name": name, "tag": "", "year": spec.year, "parameters": spec.params, **score}
            table.append({column: known.get(column) for column in COLUMNS})
    return table


def table(folder: Path | None = None) -> str:
    """The rows in Markdown."""
    lines = [HEADER, _rule(HEADER)]
    for row in rows(folder):
        weights = f"`{row['name']}.{_cell(row['tag'])}`" if row["tag"] else ""
        metric = _metric(row)
        cells = [f"`{row['name']}`", str(row["year"]), f"{row['parameters']:,}", metric, four_digits(row["reported"])]
        cells += [weights, four_digits(row["validation"]), four_digits(row["test"]), _spread(row)]
        cells += [f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""]
        cells += [f"{row['milliseconds']:.1f} ms" if row["milliseconds"] else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def short_table(folder: Path | None = None) -> str:
    """The rows of the weights `EIGHT` in Markdown, in that order, with their test scores."""
    known = {f"{row['name']}.{row['tag']}": row for row in rows(folder)}
    lines = [SHORT_HEADER, _rule(SHORT_HEADER)]
    for name, row in [(name, known[name]) for name in EIGHT if name in known]:
        cells = [f"`{name}`", str(row["year"]), f"{row['parameters']:,}", _metric(row)]
        lines.append(f"| {' | '.join([*cells, four_digits(row['reported']), four_digits(row['test'])])} |")
    return "\n".join(lines)


def write(page: Path) -> None:
    """Write the table of all models, or that of the eight first ones, between the marks of a Markdown file.

    The weights are those in the `saved_models` beside the file, or beside its folder. With the table of all models they
    are entered in the index there and verified, the latency of one example is measured, and the rows are written to
    `results.csv`: this is how weights are published.

    Raises:
        ZooError: for a file without the marks or without weights nearby, and for weights that do not verify.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ZooError(f"cannot read {page}: {error.strerror}") from None
    short = SHORT_BEGIN in text
    before, begin, rest = text.partition(SHORT_BEGIN if short else BEGIN)
    _, end, after = rest.partition(SHORT_END if short else END)
    if not (begin and end):
        raise ZooError(f"{page} has no lines {BEGIN} and {END} to put the table between")
    folders = [parent / "saved_models" for parent in page.resolve().parents[:2]]
    folder = next((folder for folder in folders if (folder / INDEX).is_file()), None)
    if folder is None:
        raise ZooError(f"no saved_models/{INDEX} beside {page} or beside its folder: export weights there")
    if not short:
        _measure(folder)
    made = short_table(folder) if short else table(folder)
    page.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def _measure(folder: Path) -> None:
    """Write the index of a folder anew, verify all weights in it, measure the latency of one example, and write the
    rows to its `results.csv`."""
    write_index(folder)
    measured = [f"{row['name']}.{row['tag']}" for row in rows(folder) if row["tag"]]
    results = verification.verify(*(folder / name for name in measured))
    times = {name: result["milliseconds"] for name, result in zip(measured, results, strict=True)}
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(folder):
        if row["tag"]:
            milliseconds = round(times[f"{row['name']}.{row['tag']}"], 2)
            writer.writerow({**row, "runs": " ".join(map(str, row["runs"])), "milliseconds": milliseconds})
    (folder / CSV).write_text(sheet.getvalue(), encoding="utf-8")


def latencies(folder: Path | None = None) -> dict[str, float]:
    """By `name.tag` the milliseconds that `write` measured."""
    times: dict[str, float] = {}
    for root in [folder] if folder else reversed(roots()):
        if (root / CSV).is_file():
            with (root / CSV).open(encoding="utf-8", newline="") as file:
                try:
                    times |= {f"{row['name']}.{row['tag']}": float(row["milliseconds"]) for row in csv.DictReader(file)}
                except (ValueError, KeyError, TypeError, csv.Error) as error:
                    raise ZooError(f"{root / CSV} is damaged ({error}): remove it") from None
    return times


def _rule(header: str) -> str:
    return "|" + "---|" * (header.count("|") - 1)


def _metric(row: Mapping[str, Any]) -> str:
    return _cell(f"{row['metric']}, {row['dataset']}") if row["dataset"] else ""


def _cell(text: str) -> str:
    """A text in a table of Markdown, without HTML, control characters, or the end of a cell or of code."""
    return html.escape(shown(text), quote=False).replace("|", "&#124;").replace("`", "'")


def _spread(row: Mapping[str, Any]) -> str:
    """Mean and standard deviation of the test score, and the number of runs."""
    if row["standard_deviation"] is None or row["mean"] is None:
        return ""
    return f"{row['mean']:.4f} ± {row['standard_deviation']:.4f} ({len(row['runs'])})"


def four_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
