"""Which files of `saved_models/` a wheel contains: the index, and the small ones of the artifacts that it lists.

The larger ones are downloaded by name from the address in ZOO_HUB. All other files of the folder are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INDEX = "published.json"
MANIFEST = "assets.extra/manifest.json"
LIMIT = 2_000_000  # bytes of one artifact: a dozen networks of the size of LeNet-5 are still a small download


def carried(folder: Path, limit: int = LIMIT) -> list[str]:
    """The files that go into the wheel, relative to `saved_models/`: the newest version of each small artifact."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    files = [INDEX]
    for name, entry in sorted(index["models"].items()):
        for tag, row in sorted(entry["tags"].items()):
            if row["bytes"] <= limit:
                version = f"{name}.{tag}/{row['version']}"
                manifest = json.loads((folder / version / MANIFEST).read_text(encoding="utf-8"))
                files += [f"{version}/{relative}" for relative in (MANIFEST, *manifest["files"])]
    return files


class SmallWeights(BuildHookInterface):
    """Adds the files to the wheel. An editable installation reads the folder of the checkout and needs none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        folder = Path(self.root) / "saved_models"
        build_data["force_include"] |= {str(folder / file): f"zoo/saved_models/{file}" for file in carried(folder)}
