"""What is written is there wholly or not at all; JSON files; whether files may be fetched, and where they are kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import ZooError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ZooError for a missing or damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ZooError(f"no {path.name} in {path.parent}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} is damaged: {error}") from None


def write_json(path: Path, content: Any) -> None:
    """Write a file that is there wholly or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # two processes may write at once
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


@contextlib.contextmanager
def written(path: Path, *errors: type[Exception]) -> Iterator[Path]:
    """A temporary sibling of `path` to write a file or a folder to. It becomes `path` at the end; whatever goes wrong,
    nothing of it stays, nor of the folders that were made for it.

    Args:
        errors: what says, beside an OSError, that something cannot be written.

    Raises:
        ZooError: for a place that cannot be written, and a full disk.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}{path.suffix}"
    created = [parent for parent in path.parents if not parent.exists()]
    try:
        with naming(path, *errors):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same number
            yield temporary
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # not there, or below something that is no folder
            temporary.unlink()
        for parent in created:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


@contextlib.contextmanager
def naming(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Makes an OSError, or another of these errors, a ZooError that names what cannot be written."""
    try:
        yield
    except (OSError, *errors) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ZooError(f"cannot write {path}: {reason}") from None


def is_offline() -> bool:
    """Whether ZOO_OFFLINE forbids to fetch anything."""
    return os.environ.get("ZOO_OFFLINE", "0") not in ("", "0")


def cache_folder() -> Path:
    """Where what was fetched is kept: ZOO_CACHE, or the folder that the system has for caches."""
    folder = os.environ.get("ZOO_CACHE")
    if not folder:
        import pooch

        folder = pooch.os_cache("zoo")
    return Path(folder).expanduser().absolute()
