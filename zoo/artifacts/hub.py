"""Published weights that an installation leaves out: fetched once from the address in ZOO_HUB, checked, kept.

The address serves the tree of `saved_models/` as static files. The index knows the sha256 of each manifest, the
manifest that of each file: a wrong or a hostile server can withhold weights, but not change them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import BinaryIO
from urllib.parse import quote

import filelock
import pooch
import requests

from zoo.artifacts.index import INDEX, published_index
from zoo.artifacts.manifest import MANIFEST, parse_manifest
from zoo.artifacts.manifest import sha256 as sha256_of
from zoo.errors import ZooError, note
from zoo.files import MOST_JSON_BYTES, cache_folder, is_offline

TIMEOUT = 20  # seconds to connect, and between two pieces of an answer
SLOWEST = 2**16  # bytes a second, on average: a slower server is given up
PATIENCE = 1  # seconds until a note says that another process is waited for
MOST_BYTES = 2**30  # taken for the time limit where the index lists no size
BAR = 2**20  # bytes from which on a file gets a progress bar: the small ones are there at once


def fetch(name_tag: str, version: str, manifest_sha256: str) -> Path:
    """The directory of a published version in the cache, downloaded where it is not there yet.

    Args:
        name_tag: `NAME.TAG`, as the index lists it.
        manifest_sha256: the sha256 of its manifest in the index.

    Raises:
        ZooError: where it cannot be had; the cache is then as it was.
    """
    if not _stays_inside(f"{name_tag}/{version}"):
        raise ZooError(f"{INDEX} lists {name_tag!r} with version {version!r}, which is no name of a folder")
    cache = cache_folder()
    target = cache / name_tag / version
    if _is_there(target, manifest_sha256):
        return target
    address = os.environ.get("ZOO_HUB", "").rstrip("/")
    missing = f"{name_tag}{_size(name_tag)} is not part of this installation"
    by_hand = f"put its folder at {target}"
    if not address:
        raise ZooError(f"{missing}: set ZOO_HUB to an address that serves {name_tag}/{version}/, or {by_hand}")
    if is_offline():
        raise ZooError(f"{missing}, and ZOO_OFFLINE forbids to fetch it: unset ZOO_OFFLINE, or {by_hand}")
    part = cache / f".{name_tag}.{version}.part"  # hidden: no root's names begin with a dot
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f".{name_tag}.{version}.lock", f"another process fetches {name_tag}"):
            if _is_there(target, manifest_sha256):  # another process has fetched it meanwhile
                return target
            _remove(part)  # of a process that was killed: a living one would hold the lock
            try:
                most = _bytes(name_tag)
                deadline = time.monotonic() + TIMEOUT + (most or MOST_BYTES) / SLOWEST
                url = f"{address}/{quote(name_tag)}/{quote(version)}"
                _download_all(url, part / "new", manifest_sha256, most, deadline, by_hand)
                target.parent.mkdir(exist_ok=True)
                if target.exists():  # of another release of zoo
                    target.rename(part / "old")
                (part / "new").rename(target)
            finally:
                _remove(part)
    except (OSError, NotImplementedError) as error:  # a file system without locks is the second
        reason = textwrap.shorten(str(error), 300)
        raise ZooError(
            f"cannot write {name_tag} to {cache}: {reason}; make room there, or set ZOO_CACHE to another folder"
        ) from error
    return target


def _is_there(path: Path, manifest_sha256: str) -> bool:
    """Whether a version lies there: its rename was atomic, so the manifest stands for all of its files."""
    try:
        return sha256_of(path / MANIFEST) == manifest_sha256
    except ZooError:
        return False


@contextlib.contextmanager
def _locked(file: Path, what: str) -> Iterator[None]:
    """Holds a lock; a note says what is waited for."""
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=PATIENCE)
    except filelock.Timeout:
        note(f"{what}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _bytes(name_tag: str) -> int | None:
    """The size that the index lists."""
    name, _, tag = name_tag.partition(".")
    return published_index().get(name, {}).get("tags", {}).get(tag, {}).get("bytes")


def _size(name_tag: str) -> str:
    size = _bytes(name_tag)
    return f" ({size / 1e6:.1f} MB)" if size else ""


def _stays_inside(relative: str) -> bool:
    path = PureWindowsPath(relative)  # knows both kinds of slash, and drives
    return bool(path.parts) and not path.anchor and ".." not in path.parts


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _download_all(
    address: str, folder: Path, manifest_sha256: str, most: int | None, deadline: float, by_hand: str
) -> None:
    """Fill a folder with the manifest at an address and with all files that it lists, of at most so many bytes."""
    _download(address, MANIFEST, folder, manifest_sha256, MOST_JSON_BYTES, deadline, by_hand)
    files = parse_manifest(folder)["files"]
    shown = _without_password(address)
    for relative in files:
        if not _stays_inside(relative):
            raise ZooError(f"the manifest at {shown} is refused: it lists {relative!r}, outside of its own folder")
    size = sum(entry["size"] for entry in files.values())
    if most is not None and size > most:
        raise ZooError(f"the manifest at {shown} is refused: its files have {size:,} bytes, the index lists {most:,}")
    for relative, entry in files.items():
        _download(address, relative, folder, entry["sha256"], entry["size"], deadline, by_hand)


class _Bounded:
    """A file that takes no more than so many bytes, and none after a deadline."""

    def __init__(self, file: BinaryIO, most: int, deadline: float) -> None:
        self.file, self.left, self.deadline = file, most, deadline

    def write(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("the server sends more bytes than are listed")
        if time.monotonic() > self.deadline:
            raise ValueError("it takes too long")
        self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _download(address: str, relative: str, folder: Path, sha256: str, size: int, deadline: float, by_hand: str) -> None:
    file, url = folder / relative, f"{address}/{quote(relative)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    failed: list[BaseException] = []

    def fetch_one() -> None:
        bar = size >= BAR and relative != MANIFEST
        try:
            with file.open("wb") as opened:
                download = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT, chunk_size=2**16)
                download(url, _Bounded(opened, size, deadline), None)
        except BaseException as error:
            failed.append(error)

    # A thread, which is given up at the deadline: a server may send a byte now and then for hours.
    thread = threading.Thread(target=fetch_one, daemon=True)
    thread.start()
    thread.join(max(deadline - time.monotonic(), 0))
    if thread.is_alive():
        failed.append(ValueError("it takes too long"))
    shown = _without_password(url)
    if failed:
        if not isinstance(failed[0], requests.RequestException | ValueError):  # such as a full disk
            raise failed[0]
        reason = textwrap.shorten(_without_password(str(failed[0])), 300)
        raise ZooError(f"cannot fetch {shown}: {reason}; check ZOO_HUB and the network, or {by_hand}") from None
    if sha256_of(file) != sha256:
        raise ZooError(
            f"{shown} is damaged or not the published one: its sha256 differs; try again, set ZOO_HUB to another "
            f"address, or {by_hand}"
        )


def _without_password(text: str) -> str:
    """A text without the user and the password in its addresses."""
    return re.sub(r"//[^/\s]*@", "//", text)
