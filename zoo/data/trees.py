"""Folders, zip and tar archives as trees of files."""

from __future__ import annotations

import collections
import functools
import re
import tarfile
import tempfile
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from zoo.errors import ZooError, listed, note

Read = Callable[[], bytes]
Tree = dict[str, "Tree | Read"]  # by name; a leaf returns the file's bytes

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ENCRYPTED = 1  # the first of a zip entry's flags (APPNOTE.TXT 4.4.4)
# Folders that systems keep beside files; every other folder that is left out begins with a dot.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}
# What lies beside images and is none: notes, annotations, listings, videos of live photographs, unfinished downloads.
OTHER_SUFFIXES = set(
    ".txt .json .jsonl .xml .csv .tsv .yaml .yml .toml .md .rst .html .htm .pdf .doc .docx .xls .xlsx .ods .ini .cfg "
    ".db .log .lnk .url .xmp .thm .aae .mp4 .mov .avi .py .ipynb .sh .mat .pkl .h5 .tfw .jgw .pgw .prj .md5 .sha256 "
    ".part .crdownload .tmp .bak".split()
)
OTHER_NAMES = {"readme", "license", "licence", "copying", "authors", "changelog", "checksums", "icon\r"}


class LeftOut:
    """The files of a folder or archive that are not read, counted."""

    def __init__(self) -> None:
        self.kinds: collections.Counter[str] = collections.Counter()  # by suffix, or by name
        self.folders: collections.Counter[str] = collections.Counter()

    def add(self, *parts: str) -> None:
        """Add a file by its path; one below a hidden folder counts for that folder."""
        *parents, name = parts
        hidden = next((parent for parent in parents if _is_hidden(parent)), None)
        if hidden:
            self.folders[hidden] += 1
        else:
            self.kinds[name if name.startswith(".") else Path(name).suffix.lower() or name] += 1

    def add_folder(self, name: str, tree: Tree) -> None:
        """Add all files of a folder."""
        self.folders[name] += sum(1 for _ in all_files(tree))

    def report(self, path: Path, *, strict: bool) -> None:
        """One line with the numbers of files by kind, and the folders by name; none where nothing is left out.

        Raises:
            ZooError: with the same words, if `strict` is set.
        """
        parts = []
        if self.kinds:
            kinds = listed(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
            parts.append(f"{self.kinds.total()} files ({kinds})")
        parts += [f"the folder {name!r} with {count} files" for name, count in sorted(self.folders.items())]
        if parts and strict:
            raise ZooError(f"{path} contains what is not read: {', '.join(parts)}: remove it, or leave out strict")
        if parts:
            note(f"{path.name}: left out {', '.join(parts)}")


def open_tree(path: Path, left_out: LeftOut) -> Tree:
    """The contents of a folder or of a zip or tar archive. An archive stays open, or unpacked in a temporary folder, as
    long as anything can read from it.

    Hidden files, folders of systems, and files that no image has the name of are added to `left_out`.

    Raises:
        ZooError: for a file that is not such an archive or is encrypted, and an archive in which a name occurs twice.
    """
    if path.is_dir():
        return _folder_tree(path, left_out)
    if path.name.lower().endswith(TARS):
        folder = tempfile.TemporaryDirectory()  # a compressed archive can only be read from its beginning on
        _unpack(path, folder.name)
        return _folder_tree(Path(folder.name), left_out, keep=folder)
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ZooError(f"{path} is not a zip archive or is truncated ({error}): download it again") from error
    return _zip_tree(archive, path, left_out)


def _read_file(path: Path, keep: object) -> bytes:
    """The bytes of a file; `keep` is what removes its folder when nothing refers to it any more."""
    return path.read_bytes()


def write_file(folder: tempfile.TemporaryDirectory, name: str, data: bytes) -> Read:
    """Writes a file into a temporary folder, which exists as long as anything can read from it."""
    path = Path(folder.name, name)
    path.write_bytes(data)
    return functools.partial(_read_file, path, folder)


def _folder_tree(folder: Path, left_out: LeftOut, *parents: str, keep: object = None) -> Tree:
    tree: Tree = {}
    for entry in sorted(folder.iterdir()):
        name = _normalized(entry.name)
        if entry.is_dir():
            inside = _folder_tree(entry, left_out, *parents, name, keep=keep)
            if not _is_hidden(name):
                tree[name] = inside
        elif any(map(_is_hidden, parents)) or is_other(name):
            left_out.add(*parents, name)
        else:
            tree[name] = functools.partial(_read_file, entry, keep)
    return tree


def _unpack(path: Path, folder: str) -> None:
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")  # nothing outside of the folder, no devices
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ZooError(f"{path} is not a tar archive or is truncated ({reason}): download it again") from error


def _zip_tree(archive: zipfile.ZipFile, path: Path, left_out: LeftOut) -> Tree:
    lock = threading.Lock()  # the archive is a single open file

    def read(entry: zipfile.ZipInfo) -> bytes:
        with lock:
            return archive.read(entry)

    entries = archive.infolist()
    if any(entry.flag_bits & ENCRYPTED for entry in entries):
        raise ZooError(f"{path} is encrypted: unpack it with its password, and give the folder")
    readable = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
    if methods := {entry.compress_type for entry in entries} - readable:
        raise ZooError(f"{path} is compressed by method {min(methods)}, which Python cannot read: pack it again")
    root: Tree = {}
    for entry in entries:
        # Windows programs write backslashes, others a leading slash, "./" or a drive
        plain = re.sub(r"^[A-Za-z]:", "", entry.filename).replace("\\", "/")
        parts = [_normalized(part) for part in plain.split("/") if part not in ("", ".")]
        if not parts:
            continue
        *parents, name = parts
        is_folder = plain.endswith("/")
        if any(map(_is_hidden, parents)) or (_is_hidden(name) if is_folder else is_other(name)):
            if not is_folder:
                left_out.add(*parts)
            continue
        node = root
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ZooError(f"{path} contains {parent!r} both as a file and as a folder: rename one of them")
            node = child
        if is_folder:
            node.setdefault(name, {})
        elif name in node:
            raise ZooError(f"{path} contains {PurePosixPath(*parts)} twice: rename one of them")
        else:
            node[name] = functools.partial(read, entry)
    return root


def _normalized(name: str) -> str:
    """A name with composed accents: macOS writes them apart, and the classes of two splits would differ."""
    return unicodedata.normalize("NFC", name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_other(name: str) -> bool:
    """Whether a file is none of those that a data set consists of, by its name."""
    path = Path(name.lower())
    return (
        name.startswith(".")
        or name.endswith("~")
        or path.suffix in OTHER_SUFFIXES
        or (not path.suffix and name.lower() in OTHER_NAMES)
    )


def folders(tree: Tree) -> dict[str, Tree]:
    """The folders of a tree by name, in order, without the files beside them."""
    return {name: entry for name, entry in sorted(tree.items()) if isinstance(entry, dict)}


def files(tree: Tree) -> dict[str, Read]:
    """The files of a tree by name, in order, without the folders beside them."""
    return {name: entry for name, entry in sorted(tree.items()) if not isinstance(entry, dict)}


def all_files(tree: Tree, prefix: str = "") -> Iterable[tuple[str, Read]]:
    """All files of a tree with their paths, in order."""
    for name, entry in sorted(tree.items()):
        if isinstance(entry, dict):
            yield from all_files(entry, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", entry
