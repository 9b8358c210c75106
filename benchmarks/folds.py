"""Cross-validation on small data: the mean test score of five folds, of networks trained and fine-tuned.

    python benchmarks/folds.py airbench94.cifar10 --data cats_dogs --input-shape 64,64,3
    python benchmarks/folds.py catdog_cnn --data cats_dogs --recipe augmented

NAME.TAG is fine-tuned, a network without a tag is trained: as by `zoo fine-tune` and `zoo train` with `--folds 5`.
All runs are kept in `runs/folds`; an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import write_results

import zoo
from zoo.training.folds import spread

FOLDER = Path("runs/folds")
FOLDS = 5


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
    found = spread(runs)
    print(f"test {found['metric']} {found['mean']:.4f} ± {found['standard_deviation']:.4f}")
    print(f"written to {write_results(f'folds_{title}', {'data': options.data, **found}).name}")


if __name__ == "__main__":
    main()
