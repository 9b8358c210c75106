"""Test-time averaging: the test accuracy of published networks, plain and averaged over views of each image.

    python benchmarks/averaging.py                                        (CIFAR-10 in ZOO_DATA_DIR)
    python benchmarks/averaging.py --models airbench94.cifar10 --tta mirror

The table is in docs/photographs.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import RESULTS, write_between, write_results

import zoo

PAGE = Path(__file__).parent.parent / "docs" / "photographs.md"
MODELS = ("airbench93.cifar10", "airbench94.cifar10", "alexnet_small.cifar10_paper")


def draw() -> None:
    """Writes the table of the last results into the page on photographs."""
    found = json.loads((RESULTS / "averaging.json").read_text(encoding="utf-8"))
    lines = [f"| weights | test accuracy | averaged over {', '.join(found['tta'])} |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {row['accuracy']:.4f} | {row['averaged_accuracy']:.4f} |" for name, row in found["test"].items()
    ]
    write_between(PAGE, "averaging", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--tta", nargs="+", default=("mirror", "shift"))
    options = parser.parse_args()
    rows = {}
    for name in options.models:
        rows[name] = zoo.evaluate(name, options.data, split="test", tta=options.tta)
        print(name, rows[name], flush=True)
    write_results("averaging", {"data": options.data, "tta": [*options.tta], "test": rows})
    draw()


if __name__ == "__main__":
    main()
