"""Files and folders that are written completely or not at all, JSON files, offline mode, and folders of artifacts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from etils import epy

from zoo.errors import ZooError

with epy.lazy_imports():
    import pooch


MOST_JSON_BYTES = 2**22
MOST_JSON_DEPTH = 32
SPARSE_FROM = 2**30  # bytes; a larger file with less than half of them on disk is refused, smaller ones may be packed


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most `MOST_JSON_BYTES`.

    Raises:
        ZooError: for a file that is missing, damaged, too large, nested too deeply or no object.
    """
    try:
        found = json.loads(read_regular(path, MOST_JSON_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise ZooError(f"no {path.name} in {path.parent}") from None
    except RecursionError:
        raise ZooError(f"{path} is damaged: it is nested too deeply") from None
    except (ValueError, OSError) as error:
        raise ZooError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ZooError(f"{path} is damaged: it holds no JSON object")
    level: list[Any] = [found]
    for _ in range(MOST_JSON_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    if level:
        raise ZooError(f"{path} is damaged: it is nested more than {MOST_JSON_DEPTH} levels deep")
    return found


def open_regular(path: Path) -> BufferedReader:
    """A file opened for reading.

    Raises:
        OSError: for one that is missing or cannot be read.
            Also for a link, a FIFO, a device, and a large file that is mostly holes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a FIFO would wait for a writer
    if path.is_symlink():
        raise OSError(f"{path.name} is a link, no file")
    if not path.is_file():  # before it is opened: opening a device may act
        raise FileNotFoundError(path) if not path.exists() else OSError(f"{path.name} is no regular file")
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    file = open(descriptor, "rb")  # noqa: PTH123, SIM115  # the caller closes it
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):  # changed since
        file.close()
        raise OSError(f"{path.name} is no regular file")
    if found.st_size > SPARSE_FROM and getattr(found, "st_blocks", found.st_size) * 512 < found.st_size // 2:
        file.close()
        raise OSError(f"{path.name} is a sparse file")
    return file


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file; raises OSError as `open_regular`, and for more than `most` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(f"{path.name} has {size} bytes, more than {most}")
        return file.read(size)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # two processes may write at once
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def written(path: Path, *errors: type[Exception]) -> Iterator[Path]:
    """A temporary sibling of `path` to write a file or a folder to. It becomes `path` at the end of the context. After
    any error nothing of it remains, nor of the folders that were created for it.

    Args:
        path: the file or folder to write.
        errors: exceptions that, besides OSError, mean that it cannot be written.

    Raises:
        ZooError: for a place that cannot be written, and a full disk.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}{path.suffix}"
    created = [parent for parent in path.parents if not parent.exists()]
    try:
        with naming(path, *errors):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            yield temporary
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # it does not exist, or its parent is not a folder
            temporary.unlink()
        for parent in created:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside a path: of a version, those of all versions."""
    name = r"\d+" if path.name.isdecimal() else re.escape(path.name)
    for sibling in path.parent.glob(".*"):
        left = re.fullmatch(rf"\.{name}\.(\d+){re.escape(path.suffix)}", sibling.name)
        if left and (int(left[1]) == os.getpid() or not _is_alive(int(left[1]))):
            shutil.rmtree(sibling, ignore_errors=True)
            with contextlib.suppress(OSError):
                sibling.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def naming(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turns an OSError, or another of these errors, into a ZooError that names the path that cannot be written."""
    caught: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except caught as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ZooError(f"cannot write {path}: {reason}") from None


def is_offline() -> bool:
    """Whether the environment variable ZOO_OFFLINE forbids downloads."""
    return os.environ.get("ZOO_OFFLINE", "0") not in ("", "0")


def cache_folder() -> Path:
    """Where downloads are kept: the folder that ZOO_CACHE names, or a folder in the system's cache."""
    folder = os.environ.get("ZOO_CACHE") or pooch.os_cache("zoo")
    return Path(folder).expanduser().absolute()


def package_folder() -> Path:
    """The package's own `saved_models`: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "saved_models"
    return inside if inside.is_dir() else package.parent / "saved_models"
