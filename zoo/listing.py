"""Listing: specs and published weights side by side, without TensorFlow."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

from zoo import registry
from zoo.artifacts.index import published_index
from zoo.errors import unknown
from zoo.metrics import get_metric
from zoo.spec import ModelSpec

SORTS = ("name", "params", "score")


def list_models(
    pattern: str = "*",
    *,
    task: str | None = None,
    dataset: str | None = None,
    pretrained: bool = False,
    max_params: int | None = None,
    min_metric: float | None = None,
    sort: str = "name",
    origin: str = "",
) -> list[str]:
    """Names of models, with `pretrained` as `name.tag`.

    Args:
        pattern: wildcards for the name (with `pretrained` for `name.tag`), or for one of the references.
        dataset: only models with a score, reported or measured here, on this data set.
        min_metric: only weights whose test score measured here is at least this good, in the metric's own unit;
            implies `pretrained`.
        sort: `name` in natural order (`mlp_30` before `mlp_100`), `params` from few to many parameters, or `score`
            from the best measured test score to the worst, metric by metric.
        origin: only models of this package, such as `keras.applications`; those of the zoo and of plugins by default.

    Raises:
        ZooError: for a task that no model has, and an unknown order.
    """
    specs, index = registry.all_specs().values(), published_index()
    known = {spec.task for spec in specs}
    if task is not None and task not in known:
        raise unknown("task", task, known)
    if sort not in SORTS:
        raise unknown("order", sort, SORTS)
    rows: list[tuple[str, ModelSpec, dict[str, Any] | None]] = []
    for spec in specs:
        entries = index.get(spec.name, {}).get("tags", {})
        if spec.origin != origin:
            continue
        if task not in (None, spec.task) or (max_params is not None and spec.params > max_params):
            continue
        on = {score.dataset for score in spec.reported} | {entry["dataset"] for entry in entries.values()}
        if dataset is not None and dataset not in on:
            continue
        if pretrained or min_metric is not None:
            found: list[tuple[str, ModelSpec, dict[str, Any] | None]]
            found = [] if min_metric is not None else [(f"{spec.name}.{tag}", spec, None) for tag in spec.pretrained]
            found += [
                (f"{spec.name}.{tag}", spec, entry)
                for tag, entry in entries.items()
                if dataset in (None, entry["dataset"]) and (min_metric is None or _reaches(entry, min_metric))
            ]
        else:
            found = [(spec.name, spec, best_entry(spec, index.get(spec.name)))]
        rows += [row for row in found if _matches(pattern, row[0], spec)]
    return [name for name, *_ in sorted(rows, key=_order(sort))]


def best_entry(spec: ModelSpec, entry: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of the weights of a model in the index the best ones for the first data set that its references report on; of
    all, where they report on none."""
    if entry is None:
        return None
    score = spec.reported[0] if spec.reported else None
    tag = entry["aliases"].get(score.dataset, score.dataset) if score else entry["aliases"].get("default")
    return entry["tags"].get(tag)


def _matches(pattern: str, name: str, spec: ModelSpec) -> bool:
    references = [reference.lower() for reference in spec.references]
    return fnmatch.fnmatch(name, pattern) or (pattern != "*" and bool(fnmatch.filter(references, pattern.lower())))


def _reaches(entry: dict[str, Any], target: float) -> bool:
    return entry["test"] is not None and get_metric(entry["metric"]).reaches(entry["test"], target)


def _order(sort: str) -> Callable[[tuple], Any]:
    def key(row: tuple[str, ModelSpec, dict[str, Any] | None]) -> Any:
        name, spec, entry = row
        natural = registry.natural_order(name)
        if sort == "params":
            return spec.params, natural
        if sort == "score":
            if entry is None or entry["test"] is None:
                return 1, "", 0.0, natural
            return 0, entry["metric"], -get_metric(entry["metric"]).rank(entry["test"]), natural
        return natural

    return key
