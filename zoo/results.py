"""The table of all networks: what the source says, what was measured here."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import registry
from zoo.artifacts import INDEX, published_index, roots, verify
from zoo.errors import ZooError
from zoo.files import read_json

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
CSV = "results.csv"
COLUMNS = (
    "name", "tag", "dataset", "metric", "parameters", "year", "published", "validation", "test", "runs", "mean",
    "deviation", "bytes", "milliseconds",
)  # fmt: skip
HEADER = (
    "| model | year | parameters | figure | source says | weights | validation | test | all runs | size | latency |"
)


def rows(folder: Path | None = None) -> list[dict[str, Any]]:
    """For each model's weights a row of `COLUMNS`, one with an empty `tag` for a model without; figures from the
    manifests. `runs` are the test figures of all runs, `deviation` is their standard deviation, or that of a share of
    the test examples (binomial) where there was one run.

    Args:
        folder: only weights of this `saved_models`; of all that are known by name where None.
    """
    index = read_json(folder / INDEX)["models"] if folder else published_index()
    times = latencies(folder)
    table = []
    for name in registry.list_models():
        spec = registry.get_spec(name)
        tags = index.get(name, {}).get("tags", {})
        for tag, entry in sorted(tags.items()):
            known = {"name": name, "tag": tag, "year": spec.year, "test": entry["value"], "parameters": spec.params}
            known["milliseconds"] = times.get(f"{name}.{tag}")
            table.append({column: known.get(column, entry.get(column)) for column in COLUMNS})
        if not table or table[-1]["name"] != name:
            first = spec.published[0] if spec.published else None
            figure = {"published": first.value, "metric": first.metric, "dataset": first.dataset} if first else {}
            known = {"name": name, "tag": "", "year": spec.year, "parameters": spec.params, **figure}
            table.append({column: known.get(column) for column in COLUMNS})
    return table


def table(folder: Path | None = None) -> str:
    """The rows in Markdown."""
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for row in rows(folder):
        weights = f"`{row['name']}.{row['tag']}`" if row["tag"] else ""
        figure = f"{row['metric']}, {row['dataset']}" if row["dataset"] else ""
        cells = (f"`{row['name']}`", str(row["year"]), f"{row['parameters']:,}", figure, four_digits(row["published"]))
        cells += (weights,)
        cells += (four_digits(row["validation"]), four_digits(row["test"]), _spread(row))
        cells += (f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else "",)
        cells += (f"{row['milliseconds']:.1f} ms" if row["milliseconds"] else "",)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(readme: Path) -> None:
    """Prove all weights of the `saved_models` beside a Markdown file, measure what one example takes, and write the
    rows to `results.csv` there and the table between the marks of the file.

    Raises:
        ZooError: for a file without the marks, or weights that do not verify.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise ZooError(f"cannot read {readme}: {error.strerror}") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ZooError(f"{readme} has no lines {BEGIN} and {END} to put the table between")
    folder = readme.parent / "saved_models"
    measured = [f"{row['name']}.{row['tag']}" for row in rows(folder) if row["tag"]]
    results = verify(*(folder / name for name in measured))
    times = {name: result["milliseconds"] for name, result in zip(measured, results, strict=True)}
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(folder):
        if row["tag"]:
            milliseconds = round(times[f"{row['name']}.{row['tag']}"], 2)
            writer.writerow({**row, "runs": " ".join(map(str, row["runs"])), "milliseconds": milliseconds})
    (folder / CSV).write_text(sheet.getvalue(), encoding="utf-8")
    readme.write_text(f"{before}{begin}\n{table(folder)}\n{end}{after}", encoding="utf-8")


def latencies(folder: Path | None = None) -> dict[str, float]:
    """By `name.tag` the milliseconds that `write` measured."""
    times = {}
    for root in [folder] if folder else reversed(roots()):
        if (root / CSV).is_file():
            with (root / CSV).open(encoding="utf-8", newline="") as file:
                times |= {f"{row['name']}.{row['tag']}": float(row["milliseconds"]) for row in csv.DictReader(file)}
    return times


def _spread(row: Mapping[str, Any]) -> str:
    """Mean and standard deviation of the test figure, and of how many runs."""
    if row["deviation"] is None:
        return ""
    return f"{row['mean']:.4f} ± {row['deviation']:.4f} ({len(row['runs'])})"


def four_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
