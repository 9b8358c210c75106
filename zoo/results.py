"""The table of all networks: what the source says, what was measured here."""

from __future__ import annotations

from pathlib import Path

from zoo import registry
from zoo.artifacts import published_index
from zoo.errors import ZooError

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
HEADER = "| model | year | parameters | source says | weights | validation | test | size |"


def table() -> str:
    """A Markdown table: a row for each model's weights, one for a model without; figures from the manifests, on the
    data sets that sources report on."""
    index = published_index()
    reported = {figure.dataset for name in registry.list_models() for figure in registry.get_spec(name).published}
    rows = [HEADER, "|---|---|---|---|---|---|---|---|"]
    for name in registry.list_models():
        spec = registry.get_spec(name)
        tags = index.get(name, {}).get("tags", {})
        entries = {tag: entry for tag, entry in tags.items() if entry["dataset"] in reported} or {"": {}}
        for tag, entry in sorted(entries.items()):
            published = entry["published"] if entry else spec.published[0].value if spec.published else None
            size = f"{entry['bytes'] / 1e6:.1f} MB" if entry else ""
            cells = (
                *(
                    f"`{name}`",
                    str(spec.year),
                    f"{spec.params:,}",
                    _figure(published),
                    f"`{name}.{tag}`" if tag else "",
                ),
                *(_figure(entry.get("validation")), _figure(entry.get("value")), size),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def write(readme: Path) -> None:
    """Put the table between the marks in a Markdown file; raises ZooError where it has none."""
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise ZooError(f"cannot read {readme}: {error.strerror}") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ZooError(f"{readme} has no lines {BEGIN} and {END} to put the table between")
    readme.write_text(f"{before}{begin}\n{table()}\n{end}{after}", encoding="utf-8")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
