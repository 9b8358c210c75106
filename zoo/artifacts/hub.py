"""Published weights that an installation leaves out: fetched once from the address in ZOO_HUB, checked, kept.

The address serves the tree of `saved_models/` as static files. The index knows the sha256 of each manifest, the
manifest that of each file: a wrong or a hostile server can withhold weights, but not change them.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path, PureWindowsPath
from urllib.parse import quote

import filelock
import pooch
import requests

from zoo.artifacts.index import INDEX, published_index
from zoo.artifacts.manifest import MANIFEST, parse_manifest
from zoo.artifacts.manifest import sha256 as sha256_of
from zoo.errors import ZooError
from zoo.files import cache_folder, is_offline

TIMEOUT = 20  # seconds to connect, and between two pieces of an answer
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
        with filelock.FileLock(cache / f".{name_tag}.{version}.lock"):
            if _is_there(target, manifest_sha256):  # another process has fetched it meanwhile
                return target
            _remove(part)  # of a process that was killed: a living one would hold the lock
            try:
                _download_all(f"{address}/{quote(name_tag)}/{quote(version)}", part / "new", manifest_sha256, by_hand)
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
    except OSError:
        return False


def _size(name_tag: str) -> str:
    name, _, tag = name_tag.partition(".")
    size = published_index().get(name, {}).get("tags", {}).get(tag, {}).get("bytes")
    return f" ({size / 1e6:.1f} MB)" if size else ""


def _stays_inside(relative: str) -> bool:
    path = PureWindowsPath(relative)  # knows both kinds of slash, and drives
    return bool(path.parts) and not path.anchor and ".." not in path.parts


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _download_all(address: str, folder: Path, manifest_sha256: str, by_hand: str) -> None:
    """Fill a folder with the manifest at an address and with all files that it lists."""
    _download(address, MANIFEST, folder, manifest_sha256, 0, by_hand)
    files = parse_manifest(folder)["files"]
    for relative in files:
        if not _stays_inside(relative):
            raise ZooError(f"the manifest at {address} is refused: it lists {relative!r}, outside of its own folder")
    for relative, entry in files.items():
        _download(address, relative, folder, entry["sha256"], entry["size"], by_hand)


def _download(address: str, relative: str, folder: Path, sha256: str, size: int, by_hand: str) -> None:
    file, url = folder / relative, f"{address}/{quote(relative)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        pooch.HTTPDownloader(progressbar=size >= BAR, timeout=TIMEOUT, chunk_size=2**16)(url, str(file), None)
    except (requests.RequestException, ValueError) as error:  # of a request; a full disk is another OSError
        reason = textwrap.shorten(str(error), 300)
        raise ZooError(f"cannot fetch {url}: {reason}; check ZOO_HUB and the network, or {by_hand}") from error
    if sha256_of(file) != sha256:
        raise ZooError(
            f"{url} is damaged or not the published one: its sha256 differs; try again, set ZOO_HUB to another "
            f"address, or {by_hand}"
        )
