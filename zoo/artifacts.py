"""Exported directories: found by name, checked against their manifests, read as plain data.

`NAME.TAG/VERSION/` holds a SavedModel and, in `assets.extra/`, the manifest and the golden examples. Nothing here
imports TensorFlow before weights are read, and nothing executes what a directory holds.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zoo import registry
from zoo.errors import ZooError, unknown
from zoo.files import cache_folder, write_json

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "assets.extra/manifest.json"
GOLDEN = "assets.extra/golden.npz"
INDEX = "published.json"
FORMAT = 1
TOLERANCE = 1e-5  # how far a served output may be from the Keras model's
TIMEOUT = 600  # seconds for serving the golden examples: a graph that never ends is no pass


def package_folder() -> Path:
    """The package's own `saved_models`: inside of an installed one, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "saved_models"
    return inside if inside.is_dir() else package.parent / "saved_models"


def roots() -> list[Path]:
    """Folders in which names are looked up: `saved_models` of the working directory, the package's own, the cache."""
    folders = dict.fromkeys((Path("saved_models").resolve(), package_folder(), cache_folder()))
    # access first: is_dir raises where the home of somebody else would have to be searched
    return [path for path in folders if os.access(path, os.R_OK) and path.is_dir()]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One version of an exported model, its files as its manifest says."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name and tag."""
        return self.path.parent.name

    @property
    def size(self) -> int:
        """Bytes of all files that the manifest lists."""
        return sum(entry["size"] for entry in self.manifest["files"].values())

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by key, float32, read as data."""
        from zoo.weights import checkpoint_arrays

        return checkpoint_arrays(self.path / "variables" / "variables")


def find(name: str | os.PathLike) -> Path:
    """The directory of the newest version for a path or `name.tag`, where a data set's name is an alias of the tag
    that is best on its validation split; of the default tag for a bare name, see `published_index`. What an index lists
    and no folder holds is fetched from the hub.

    Raises:
        ZooError: where there is none, with the nearest names, or it cannot be fetched.
    """
    path = Path(name)
    if path.is_dir():
        path = path.absolute()  # a version's name and its folder's are read off the path
    elif len(path.parts) == 1:
        path = _find_named(str(name)) or path
    if not path.is_dir():
        known = {child.name for root in roots() for child in root.glob("[!.]*.*") if child.is_dir()}
        known |= {f"{model}.{tag}" for model, entry in published_index().items() for tag in entry["tags"]}
        raise unknown("artifact", str(name), known, "It is a directory written by export, or name.tag.")
    versions = sorted(
        (child for child in path.iterdir() if child.name.isdecimal() and child.is_dir()),
        key=lambda child: int(child.name),
    )
    return versions[-1] if versions else path


def _find_named(name: str) -> Path | None:
    """The folder of a name in the first root that has one; else, of what an index lists, the version from the hub."""
    plain, _, tag = name.partition(".")
    listed = None
    for root in roots():
        index = _index_of(root)
        entry = index.get("models", {}).get(plain, {})
        actual = entry.get("aliases", {}).get(tag or "default", tag)
        full = f"{plain}.{actual}"
        # the cache is shared with other releases of zoo: of what is listed only the listed version counts there
        if (root / full).is_dir() and not (listed and root == cache_folder()):
            return root / full
        version = entry.get("tags", {}).get(actual, {}).get("version")
        if manifest_sha256 := index.get("sha256", {}).get(f"{full}/{version}"):
            listed = full, version, manifest_sha256  # the package's, which comes later, before the user's own
    if not listed:
        return None
    from zoo import hub

    return hub.fetch(*listed)


def check_name(path: Path, model: str) -> None:
    """Raises ZooError unless the last part of the path is the model's name, a dot and a tag."""
    if not path.name.startswith(f"{model}.") or path.name.endswith("."):
        raise ZooError(f"cannot export to {path}: the directory must be named {model}.TAG, with a tag of your own")


def open_artifact(name: str | os.PathLike) -> Artifact:
    """The artifact under a path or `name.tag`, each of its files checked against the manifest's sha256.

    Raises:
        ZooError: for one that is missing, incomplete, changed, or written by a later format.
    """
    path = find(name)
    artifact = Artifact(path, read_manifest(path))
    check_files(artifact)
    return artifact


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a version directory.

    Raises:
        ZooError: for one that is missing, damaged, incomplete, of another format, or other than the index says.
    """
    manifest = _parse_manifest(path)
    root = path.parent.parent
    index = _index_of(root) or (_index_of(package_folder()) if root == cache_folder() else {})
    listed = index.get("sha256", {}).get(f"{path.parent.name}/{path.name}")
    if listed not in (None, sha256(path / MANIFEST)):
        raise ZooError(f"{path / MANIFEST} is not the published one: its sha256 differs from {INDEX}")
    return manifest


def _parse_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ZooError(f"{path} is no artifact of zoo: it has no {MANIFEST}") from None
    except (ValueError, OSError) as error:
        raise ZooError(f"{file} is damaged: {error}") from None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if (
        not isinstance(files, dict)
        or not {"format", "model"} <= manifest.keys()
        or not all(isinstance(entry, dict) and {"size", "sha256"} <= entry.keys() for entry in files.values())
    ):
        raise ZooError(f"{file} is damaged: keys are missing")
    if manifest["format"] != FORMAT:
        raise ZooError(f"{path} has format {manifest['format']}, this zoo reads {FORMAT}: use the zoo that wrote it")
    return manifest


def check_files(artifact: Artifact) -> None:
    """Raises ZooError unless the directory holds exactly the manifest's files with their sizes and sha256."""
    path, listed = artifact.path, artifact.manifest["files"]
    present = {
        file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_symlink() or not file.is_dir()
    } - {MANIFEST}
    for relative in sorted(listed.keys() | present):
        if relative not in listed:
            raise ZooError(f"{path} is damaged: {relative} is not in its manifest")
        if relative not in present or ".." in PurePosixPath(relative).parts:
            raise ZooError(f"{path} is damaged: {relative} is missing")
        size = (path / relative).stat().st_size
        if size != listed[relative]["size"]:
            raise ZooError(f"{path} is damaged: {relative} has {size} bytes, not {listed[relative]['size']}")
        if sha256(path / relative) != listed[relative]["sha256"]:
            raise ZooError(f"{path} is damaged: {relative} has another sha256 than its manifest says")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(*names: str | os.PathLike) -> list[dict[str, Any]]:
    """Prove artifacts: files by their sha256, operations by an allow-list, weights by the network that the manifest
    describes, then the golden examples in a fresh process that has TensorFlow alone.

    Returns:
        For each artifact its `path`, `difference` (the largest of any output from the golden one), `signatures`, and
        the `milliseconds` that one example takes, all measured in that one process.

    Raises:
        ZooError: for the first artifact that fails, and why.
    """
    from zoo import tasks
    from zoo.graph import check_operations
    from zoo.weights import assign, named_weights

    artifacts = [open_artifact(name) for name in names]
    for artifact in artifacts:
        check_operations(artifact.path)
        assign(named_weights(tasks.restore(artifact.manifest["model"]).build()), artifact.arrays())
    return prove_served(artifact.path for artifact in artifacts)


def prove_served(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Run the golden examples of each path in one fresh process without zoo or Keras."""
    script = Path(__file__).parent / "serve_golden.py"
    command = [sys.executable, "-P", str(script), *(str(path.resolve()) for path in paths)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ZooError(f"the golden examples were not served within {TIMEOUT} seconds") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ZooError(f"plain TensorFlow cannot serve the artifact: {reason}")
    results = json.loads(done.stdout.splitlines()[-1])
    for result in results:
        if not result["difference"] <= TOLERANCE:  # not: NaN is no pass
            worst = result["worst"]
            raise ZooError(f"{result['path']}: {worst} differs by {result['difference']:.1e} from its golden example")
    return results


# --- the index of what a folder publishes -----------------------------------------------------------------------


@functools.cache
def _index_of(root: Path) -> dict[str, Any]:
    file = root / INDEX
    if not file.is_file():
        return {}
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        return {"models": dict(index["models"]), "sha256": dict(index["sha256"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{file} is damaged ({error}): remove it, the next export writes it anew") from None


def published_index() -> dict[str, dict[str, Any]]:
    """By model name its `tags`, each with data set, metric, value, validation, size and test figures of all `runs`, and
    its `aliases`: for each data set the tag that is best on validation, and as `default` the best of those on data that
    sources report on, of all where there is none."""
    merged: dict[str, dict[str, Any]] = {}
    for root in reversed(roots()):
        for name, entry in _index_of(root).get("models", {}).items():
            known = merged.setdefault(name, {"tags": {}, "aliases": {}})
            merged[name] = {key: {**known[key], **entry[key]} for key in known}
    return merged


def write_index(root: Path) -> None:
    """Write `published.json` anew from the newest manifest of each artifact in the folder."""
    models: dict[str, dict[str, Any]] = {}
    hashes = {}
    for directory in sorted(child for child in root.iterdir() if child.is_dir() and "." in child.name):
        path = find(directory)
        if not (path / MANIFEST).is_file():
            continue
        try:
            manifest = _parse_manifest(path)
            figures, runs = manifest["figures"], manifest["runs"]
        except (ZooError, KeyError):  # a damaged neighbour: whoever opens it is told
            continue
        metric = figures["metric"]
        name, tag = directory.name.split(".", 1)
        models.setdefault(name, {"tags": {}})["tags"][tag] = {
            "dataset": figures["dataset"],
            "metric": metric,
            "value": figures["test"],
            "validation": figures["validation"],
            "published": figures["published"],
            "runs": [run["metrics"]["test"][metric] for run in runs if metric in run["metrics"]["test"]],
            "mean": figures.get("mean") or figures["test"],
            "deviation": figures.get("deviation") or _binomial_of(manifest),
            "parameters": manifest["weights"]["parameters"],
            "bytes": Artifact(path, manifest).size,
            "version": path.name,
        }
        if (manifest["training"] or {}).get("only_class"):
            models[name]["tags"][tag]["only_class"] = manifest["training"]["only_class"]
        hashes[f"{directory.name}/{path.name}"] = sha256(path / MANIFEST)
    for entry in models.values():
        ranked = sorted(entry["tags"], key=lambda tag: (_rank(entry["tags"][tag]), tag))
        by_data = {entry["tags"][tag]["dataset"]: tag for tag in ranked}
        aliases = {data: tag for data, tag in by_data.items() if data and data not in entry["tags"]}
        entry["aliases"] = {**aliases, "default": ranked[-1]}
    write_json(root / INDEX, {"models": models, "sha256": hashes})
    _index_of.cache_clear()


def binomial(share: float, examples: int) -> float:
    """The standard deviation of a share of so many examples."""
    return math.sqrt(max(share * (1 - share), 0.0) / examples)


def _binomial_of(manifest: Mapping[str, Any]) -> float | None:
    """That of the test figure, where it is a share of known examples."""
    figures, data = manifest["figures"], (manifest["training"] or {}).get("data", {})
    if figures["metric"] != "accuracy" or figures["test"] is None or "examples" not in data:
        return None
    return binomial(figures["test"], data["examples"]["test"])


def _rank(entry: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """How good the weights are on validation, higher for better; a loss is better when it is lower. Figures of other
    kinds do not compare: those of one class of several stand below all others, and those on somebody's own data below
    those on data sets that sources report on."""
    value = entry["validation"]
    good = float("-inf") if value is None else -value if entry["metric"] == "loss" else value
    return "only_class" not in entry, entry["dataset"] in registry.reported_datasets(), good
