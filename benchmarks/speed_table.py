"""Writes a table of training speeds, relative to plain Keras and plain PyTorch, into the README beside this file.

python benchmarks/speed_table.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, write_between

PAGE = Path(__file__).parent / "README.md"
# By results file what was trained, where the file does not name it for each row.
TRAINED = {
    "training": "",
    "photographs": "",
    "segmentation_training": "unet_small",
    "generation_speed": "dcgan_small",
    "texts": "lstm_char",
}
OTHERS = {"zoo / keras": "Keras", "zoo / pytorch": "PyTorch"}


def rows(found: Any, title: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The titles and ratios of all trainings in a results file."""
    if isinstance(found, dict):
        if OTHERS.keys() & found.get("ratios", {}).keys():
            batch = f", batch {found['batch']}" if isinstance(found.get("batch"), int) else ""
            yield title + batch, found["ratios"]
        for key, value in found.items():
            yield from rows(value, title or key if key != "results" else title)


def draw() -> None:
    lines = [
        f"| trained | {' | '.join(f'zoo / {other}' for other in OTHERS.values())} | measured |",
        "|---|---|---|---|",
    ]
    for name, title in TRAINED.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            script = found["command"].removeprefix("python benchmarks/")
            for trained, ratios in rows(found, title):
                cells = [
                    "{median:.2f} ({smallest:.2f} to {largest:.2f})".format(**ratios[key]) if key in ratios else ""
                    for key in OTHERS
                ]
                lines.append(f"| {trained} | {' | '.join(cells)} | {found['date']}, `{script}` |")
    write_between(PAGE, "speeds", "\n".join(lines))


if __name__ == "__main__":
    draw()
