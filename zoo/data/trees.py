"""Folders and zip archives as trees of files."""

from __future__ import annotations

import contextlib
import functools
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.errors import ZooError

Read = Callable[[], bytes]
Tree = dict[str, "Tree | Read"]  # by name; a leaf returns the file's bytes


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """The contents of a folder or zip archive, to be read within the context; hidden files are left out.

    Raises:
        ZooError: for a file that is not a zip archive, or an archive in which a name is both a file and a folder.
    """
    if path.is_dir():
        yield _folder_tree(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ZooError(f"{path} is not a zip archive or is truncated ({error}): download it again") from error
    with archive:
        yield _zip_tree(archive, path)


def _folder_tree(folder: Path) -> Tree:
    entries = sorted(entry for entry in folder.iterdir() if not _ignored(entry.name))
    return {entry.name: _folder_tree(entry) if entry.is_dir() else entry.read_bytes for entry in entries}


def _zip_tree(archive: zipfile.ZipFile, path: Path) -> Tree:
    lock = threading.Lock()  # the archive is a single open file

    def read(entry: zipfile.ZipInfo) -> bytes:
        with lock:
            return archive.read(entry)

    root: Tree = {}
    for entry in archive.infolist():
        *parents, name = entry.filename.removesuffix("/").split("/")
        if any(map(_ignored, (*parents, name))):
            continue
        node = root
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ZooError(f"{path} contains {parent!r} both as a file and as a folder: rename one of them")
            node = child
        node.setdefault(name, {} if entry.is_dir() else functools.partial(read, entry))
    return root


def _ignored(name: str) -> bool:
    # GDAL writes its notes on a TIFF file into .aux.xml beside it
    return name in ("", "__MACOSX") or name.startswith(".") or name.endswith(".aux.xml")


def folders(tree: Tree) -> dict[str, Tree]:
    """The folders of a tree by name, in order, without the files beside them."""
    return {name: entry for name, entry in sorted(tree.items()) if isinstance(entry, dict)}
