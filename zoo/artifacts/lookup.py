"""Artifacts found by path or `name.tag`; what an index lists and no folder holds is fetched from the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from etils import epy

from zoo import registry
from zoo.artifacts import index
from zoo.artifacts.manifest import MANIFEST, Artifact, check_files, newest_version, parse_manifest, sha256
from zoo.errors import ZooError, note, unknown
from zoo.files import cache_folder

with epy.lazy_imports():
    from zoo.artifacts import (
        conversion,  # and with it TensorFlow
        hub,  # and with it requests
    )


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
        known = {child.name for root in index.roots() for child in root.glob("[!.]*.*") if child.is_dir()}
        known |= {f"{spec.name}.{tag}" for spec in registry.all_specs().values() for tag in spec.pretrained}
        known |= {f"{model}.{tag}" for model, entry in index.published_index().items() for tag in entry["tags"]}
        raise unknown("artifact", str(name), known, "It is a directory written by export, or name.tag.")
    return newest_version(path)


def _find_named(name: str) -> Path | None:
    """The folder of a name in the first root that has one; else, of what an index lists, the version from the hub.

    A published name is that of the published weights, also where an export in the working directory has it: a note says
    so."""
    plain, _, tag = name.partition(".")
    listed = found = None
    for root in index.roots():
        content = index.index_of(root)
        entry = content.get("models", {}).get(plain, {})
        actual = entry.get("aliases", {}).get(tag or "default", tag)
        if listed:  # an alias stands for what the first index says
            actual = listed[0].partition(".")[2]
        elif found:
            actual = found.name.partition(".")[2]
        full = f"{plain}.{actual}"
        if found is None and (root / full).is_dir() and (listed is None or _is_listed(root, *listed)):
            found = root / full
            if actual != tag and (root / name).is_dir():
                _note_hidden(name, root, name)
        elif (found or listed) and root != cache_folder():  # which other releases of zoo share
            for one in dict.fromkeys((full, name)):
                if (root / one).is_dir():
                    _note_hidden(name, root, one)
        if found:
            continue
        version = entry.get("tags", {}).get(actual, {}).get("version")
        if manifest_sha256 := content.get("sha256", {}).get(f"{full}/{version}"):
            listed = listed or (full, version, manifest_sha256)
    spec = registry.all_specs().get(plain)
    if found is None and listed is None and spec and spec.pretrained:
        tag = tag or next(iter(spec.pretrained))
        return conversion.converted(plain, tag) if tag in spec.pretrained else None
    return found or (hub.fetch(*listed) if listed else None)


def _note_hidden(name: str, root: Path, one: str) -> None:
    note(f"{name} is published; the one in {root.name} is used where its path is given: {root.name}/{one}")


def _is_listed(root: Path, name_tag: str, version: str, manifest_sha256: str) -> bool:
    """Whether a folder holds the listed version itself, and no later one."""
    manifest = newest_version(root / name_tag) / MANIFEST
    return manifest.parent.parent.name == version and manifest.is_file() and sha256(manifest) == manifest_sha256


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
        ZooError: for one that is missing, damaged, incomplete, of another format, or different from the index.
    """
    manifest = parse_manifest(path)
    root = path.parent.parent
    version = f"{path.parent.name}/{path.name}"
    folders = index.roots() if root == cache_folder() else [root]
    listed = [known for folder in folders if (known := index.index_of(folder).get("sha256", {}).get(version))]
    if listed and listed[0] != sha256(path / MANIFEST):
        raise ZooError(f"{path / MANIFEST} is not the published one: its sha256 differs from that in {index.INDEX}")
    return manifest
