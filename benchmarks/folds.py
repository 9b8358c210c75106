"""Cross-validation on small data: the mean test score of five folds, of networks trained and fine-tuned.

    python benchmarks/folds.py airbench94.cifar10 --data cats_dogs --input-shape 64,64,3
    python benchmarks/folds.py catdog_cnn --data cats_dogs --recipe augmented

NAME.TAG is fine-tuned, a network without a tag is trained: as by `zoo fine-tune` and `zoo train` with `--folds 5`.
All runs are kept in `runs/folds`; an interrupted benchmark resumes. The table is in docs/photographs.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import RESULTS, write_between, write_results

import zoo
from zoo.training.folds import spread

PAGE = Path(__file__).parent.parent / "docs" / "photographs.md"
FOLDER = Path("runs/folds")
FOLDS = 5


def draw() -> None:
    """Writes the table of all results into the page on photographs."""
    lines = ["| command | test score, mean and standard deviation of five folds | each |", "|---|---|---|"]
    for file in sorted(RESULTS.glob("folds_*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        each = " ".join(f"{score:.3f}" for score in found["test"])
        mean = f"{found['metric']} {found['mean']:.3f} ± {found['standard_deviation']:.3f}"
        lines.append(f"| `{found['command'].removeprefix('python benchmarks/')}` | {mean} | {each} |")
    write_between(PAGE, "folds", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="trained weights NAME.TAG, or a network")
    parser.add_argument("--data", default="cats_dogs")
    parser.add_argument("--recipe", help="of a network; its first one by default")
    parser.add_argument("--input-shape", metavar="H,W,C")
    parser.add_argument("--precision", default="float32", help="of the training, such as mixed_bfloat16")
    options = parser.parse_args()
    tuned = "." in options.name
    given: dict[str, Any] = {} if tuned or options.recipe is None else {"recipe": options.recipe}
    if options.input_shape:
        given["input_shape"] = tuple(map(int, options.input_shape.split(",")))
    title = "_".join([options.name, *([options.recipe] if options.recipe else [])])
    runs = zoo.cross_validate(
        zoo.fine_tune if tuned else zoo.train, options.name, options.data, folds=FOLDS, out=FOLDER / title,
        precision=options.precision, **given,
    )  # fmt: skip
    print(f"written to {write_results(f'folds_{title}', {'data': options.data, **spread(runs)}).name}")
    draw()


if __name__ == "__main__":
    main()
