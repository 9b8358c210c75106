"""JSON files that are there wholly or not at all, whether files may be fetched, and where they are kept."""

from __future__ import annotations

import json
import os
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
