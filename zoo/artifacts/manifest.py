"""One exported directory: its manifest, its files and their sha256, its weights as plain data."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from etils import epy

from zoo.artifacts import schema
from zoo.errors import ZooError
from zoo.files import open_regular, read_json
from zoo.recipe import from_dict
from zoo.spec import Preprocessing

with epy.lazy_imports():
    from zoo import checkpoint

if TYPE_CHECKING:
    import numpy as np

    from zoo.checkpoint import Entry

MANIFEST = "assets.extra/manifest.json"
CHECKPOINT = "variables/variables"
GOLDEN = "assets.extra/golden.npz"
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One version of an exported model.

    Attributes:
        path: the version directory.
        manifest: what its manifest holds.
    """

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

    def entries(self) -> dict[str, Entry]:
        """Type, shape and place of each of the weights by key, their sizes compared with those of the files."""
        return checkpoint.checkpoint_entries(self.path / CHECKPOINT)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by key, float32, read as data."""
        return checkpoint.checkpoint_arrays(self.path / CHECKPOINT)


def parse_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a version directory, its form checked.

    Raises:
        ZooError: for one that is missing, damaged, incomplete or of another format.
    """
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise ZooError(f"{path} is not an artifact of zoo: it has no {MANIFEST}")
    manifest = read_json(file)
    if manifest.get("format", FORMAT) != FORMAT:
        raise ZooError(
            f"{path} has format {str(manifest['format'])[:20]}, not {FORMAT}: read it with the release that wrote it"
        )
    schema.check(file, manifest, schema.Manifest)
    from_dict(Preprocessing, manifest["model"]["preprocessing"])  # raises for wrong ones
    return manifest


def check_files(artifact: Artifact) -> None:
    """Raises ZooError unless the directory holds exactly the manifest's files, regular ones, with their sizes and
    sha256."""
    path, listed = artifact.path, artifact.manifest["files"]
    present = {
        file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_symlink() or not file.is_dir()
    } - {MANIFEST}
    for relative in sorted(listed.keys() | present):
        if relative not in listed:
            raise ZooError(f"{path} is damaged: {relative} is not in its manifest")
        if relative not in present or ".." in PurePosixPath(relative).parts:
            raise ZooError(f"{path} is damaged: {relative} is missing")
        size = (path / relative).lstat().st_size
        if size != listed[relative]["size"]:
            raise ZooError(f"{path} is damaged: {relative} has {size} bytes, not {listed[relative]['size']}")
        if sha256(path / relative) != listed[relative]["sha256"]:
            raise ZooError(f"{path} is damaged: {relative} does not have the sha256 in its manifest")


def file_entries(path: Path) -> dict[str, dict[str, Any]]:
    """The size and sha256 of each file in a version directory, but the manifest, by path: what the manifest lists."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST)
    return {f.relative_to(path).as_posix(): {"size": f.stat().st_size, "sha256": sha256(f)} for f in files}


def sha256(path: Path) -> str:
    """The sha256 of a regular file, as hexadecimal digits; raises ZooError for one that cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error}") from None


def newest_version(path: Path) -> Path:
    """The version directory with the highest number below `NAME.TAG/`; the path itself where it has none."""
    versions = [child for child in path.iterdir() if child.name.isdecimal() and child.is_dir()]
    return max(versions, key=lambda child: int(child.name), default=path)


def check_name(path: Path, model: str) -> None:
    """Raises ZooError unless the last part of the path is the model's name, a dot and a tag."""
    if not path.name.startswith(f"{model}.") or path.name.endswith("."):
        raise ZooError(f"cannot export to {path}: the directory must be named {model}.TAG, with a tag of your own")
