"""The index of what a folder of artifacts publishes: scores, aliases, and the sha256 of each manifest."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import registry
from zoo.artifacts import schema
from zoo.artifacts.manifest import MANIFEST, Artifact, newest_version, parse_manifest, sha256
from zoo.errors import ZooError
from zoo.files import cache_folder, package_folder, write_json
from zoo.metrics import get_metric

INDEX = "published.json"


def roots() -> list[Path]:
    """Folders in which names are looked up: the package's own, whose names are those published, `saved_models` of the
    working directory, the cache."""
    folders = dict.fromkeys((package_folder(), Path("saved_models").resolve(), cache_folder()))
    # access first: is_dir raises where the home of somebody else would have to be searched
    return [path for path in folders if os.access(path, os.R_OK) and path.is_dir()]


@functools.cache
def index_of(root: Path) -> dict[str, Any]:
    """The index of one folder, `models` and the `sha256` of their manifests; empty where it has none, and for the
    cache.

    Raises:
        ZooError: for a damaged one.
    """
    file = root / INDEX
    if not file.exists() or _is_cache(root):
        return {}
    try:
        return schema.read(file, schema.Index)
    except ZooError as error:
        raise ZooError(f"{error}; remove it, the next export writes it anew") from None


def _is_cache(root: Path) -> bool:
    """Whether a folder only keeps what the indexes of others list."""
    return root == cache_folder() and root not in (package_folder(), Path("saved_models").resolve())


def published_index() -> dict[str, dict[str, Any]]:
    """The index of all folders together.

    Returns:
        By model name its `tags`, each with data set, metric, validation and test score, size and the test scores of all
        `runs`; and its `aliases`: for each data set the tag with the best validation score, and as `default` the best
        of those on data sets that references report on, of all where there is none.
    """
    merged: dict[str, dict[str, Any]] = {}
    for root in reversed(roots()):
        for name, entry in index_of(root).get("models", {}).items():
            known = merged.setdefault(name, {"tags": {}, "aliases": {}})
            merged[name] = {key: {**known[key], **entry[key]} for key in known}
    return merged


def update_index(root: Path) -> None:
    """Enter a new export in the index of its folder, but for the package's own, which `zoo report --write` writes: an
    export does not change what is published."""
    if root.resolve() != package_folder():
        write_index(root)


def write_index(root: Path) -> None:
    """Write `published.json` anew from the newest manifest of each artifact in the folder. Of a damaged one the index
    keeps what it listed."""
    models: dict[str, dict[str, Any]] = {}
    hashes: dict[str, str] = {}
    before: dict[str, Any] = {"models": {}, "sha256": {}}
    with contextlib.suppress(ZooError):
        before = schema.read(root / INDEX, schema.Index)
    for directory in sorted(child for child in root.iterdir() if child.is_dir() and "." in child.name):
        name, tag = directory.name.split(".", 1)
        try:
            path = newest_version(directory)
            if not os.path.lexists(path / MANIFEST):
                continue
            manifest = parse_manifest(path)
            scores, runs, metric = manifest["scores"], manifest["runs"], manifest["scores"]["metric"]
            if metric is not None:
                get_metric(metric)
        except (ZooError, OSError):  # a damaged neighbor: whoever opens it gets the error
            if known := before["models"].get(name, {}).get("tags", {}).get(tag):
                models.setdefault(name, {"tags": {}})["tags"][tag] = known
                full = f"{directory.name}/{known['version']}"
                hashes |= {key: value for key, value in before["sha256"].items() if key == full}
            continue
        models.setdefault(name, {"tags": {}})["tags"][tag] = {
            **{key: scores[key] for key in ("dataset", "metric", "test", "validation", "reported")},
            "runs": [run["metrics"]["test"][metric] for run in runs if metric in run["metrics"]["test"]],
            "mean": scores["test"] if scores["mean"] is None else scores["mean"],
            "standard_deviation": scores["standard_deviation"] or _of_one_run(manifest),
            "parameters": manifest["weights"]["parameters"],
            "bytes": Artifact(path, manifest).size,
            "version": path.name,
        }
        for key in ("only_class", "variant"):  # which make the network another one than the spec's
            if (manifest["training"] or {}).get(key):
                models[name]["tags"][tag][key] = manifest["training"][key]
        hashes[f"{directory.name}/{path.name}"] = sha256(path / MANIFEST)
    for entry in models.values():
        ranked = sorted(entry["tags"], key=lambda tag: (_rank(entry["tags"][tag]), tag))
        by_data = {entry["tags"][tag]["dataset"]: tag for tag in ranked if "variant" not in entry["tags"][tag]}
        aliases = {data: tag for data, tag in by_data.items() if data and data not in entry["tags"]}
        entry["aliases"] = {**aliases, "default": ranked[-1]}
    write_json(root / INDEX, {"models": models, "sha256": hashes})
    index_of.cache_clear()


def _of_one_run(manifest: Mapping[str, Any]) -> float | None:
    """The standard deviation of the test score that one run allows: that of a share of known examples."""
    scores, data = manifest["scores"], (manifest["training"] or {}).get("data", {})
    if scores["metric"] is None or scores["test"] is None or "examples" not in data:
        return None
    return get_metric(scores["metric"]).standard_deviation(scores["test"], data["examples"]["test"])


def _rank(entry: Mapping[str, Any]) -> tuple[bool, bool, bool, float]:
    """How good the weights are on validation, higher for better. Scores of different kinds do not compare: those of one
    class of several, or of another network, rank below all others, and those on a user's own data below those on data
    sets that references report on."""
    score = entry["validation"]
    rank = float("-inf") if score is None else get_metric(entry["metric"]).rank(score)
    return "variant" not in entry, "only_class" not in entry, entry["dataset"] in registry.reported_datasets(), rank
