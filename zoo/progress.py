"""Progress bars of long work."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from etils import epy

with epy.lazy_imports():
    import tqdm

SECONDS = 10.0  # between the lines of a bar that cannot be redrawn, in a log


def is_interactive(stream: TextIO) -> bool:
    """Whether a progress bar can be redrawn: in a terminal, and in a notebook."""
    return stream.isatty() or "ipykernel" in sys.modules


def bar(total: int, unit: str, *, over: Iterable[Any] | None = None, title: str = "", least: int = 1) -> tqdm.tqdm:
    """A progress bar on standard error, as a context manager; over an iterable it counts the items.

    Args:
        total: how many there are; no bar is shown for `least` or fewer.
        unit: what they are, in the plural.
    """
    pause = 0.1 if is_interactive(sys.stderr) else SECONDS
    return tqdm.tqdm(over, title, total, unit=f" {unit}", disable=total <= least, mininterval=pause)
