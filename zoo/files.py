"""Files and folders that are written completely or not at all, JSON files, offline mode, and folders of artifacts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epy

from zoo.errors import ZooError

with epy.lazy_imports():
    import pooch


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ZooError for a missing or damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ZooError(f"no {path.name} in {path.parent}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} is damaged: {error}") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # two processes may write at once
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


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
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process of the same number
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
