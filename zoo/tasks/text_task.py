"""What tasks on texts share."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.tasks.base import Item, Task


class TextTask(Task):
    """What tasks on texts share."""

    @classmethod
    def check_inputs(cls, data: Dataset) -> None:
        if data.first.inputs.dtype.kind not in "OU":
            raise ZooError(f"data set {data.name} contains images, the network takes texts")

    def items(self, given: Any) -> list[Item]:
        """A text, or several; bytes are UTF-8.

        Raises:
            ZooError: for a path, which is no text.
        """
        texts = [given] if isinstance(given, str | bytes | os.PathLike) else [*given]
        if paths := [text for text in texts if isinstance(text, os.PathLike)]:
            raise ZooError(f"{self.spec.name} takes texts, not files such as {paths[0]}: give what it contains")
        plain = [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts]
        return [Item(text, functools.partial(_as_array, text)) for text in plain]

    def example(self, split: Split, directory: Path) -> str:
        return str(split.inputs[0]).strip().partition("\n")[0][:40]


def _as_array(text: str) -> tuple[np.ndarray, tuple[str, ...]]:
    return np.array(text), ()
