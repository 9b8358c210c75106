"""Ten-fold accuracy of `lstm_text` on the review sentences, of TF-IDF bigrams with logistic regression, and of the mean
of both.

    python benchmarks/reviews.py            (rt_polarity.tsv in ZOO_DATA_DIR; an hour on an idle core)
    python benchmarks/reviews.py --draw     writes the table in docs/text.md from the results again

Of each fold's training sentences a tenth is for validation: it chooses the epoch, and nothing else does.
An interrupted benchmark resumes when the command is repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import RESULTS, write_between, write_results
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

import zoo
from zoo.data import Dataset, Split, load

PAGE = Path(__file__).parent.parent / "docs" / "text.md"
NAMES = {
    "lstm_text": "`lstm_text`",
    "tfidf_bigrams": "TF-IDF bigrams with logistic regression",
    "mean_of_both": "the mean of both probabilities",
}


def baseline(train: Split, texts: np.ndarray) -> np.ndarray:
    """Probabilities [N, 2] by TF-IDF of words and bigrams."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    return (
        make_pipeline(words, LogisticRegression(C=10, max_iter=300))
        .fit(train.inputs, train.targets)
        .predict_proba(texts)
    )


def draw() -> None:
    """Writes the means and standard deviations of the results into the page on texts."""
    accuracies = json.loads((RESULTS / "reviews.json").read_text(encoding="utf-8"))["accuracy"]
    rows = ["| classifier | accuracy, mean and standard deviation of ten folds |", "|---|---|"]
    rows += [
        f"| {NAMES[key]} | {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} |" for key, values in accuracies.items()
    ]
    write_between(PAGE, "reviews", "\n".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=10, help="how many of the ten folds are measured")
    parser.add_argument("--out", type=Path, default=Path("runs/reviews"), help="the folder of the runs")
    parser.add_argument("--draw", action="store_true", help="only write the table from the results")
    arguments = parser.parse_args()
    if arguments.draw:
        return draw()
    data = load("rt_polarity")
    parts = data.splits.values()
    whole = Split(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("inputs", "targets")))
    accuracies: dict[str, list[float]] = {"lstm_text": [], "tfidf_bigrams": [], "mean_of_both": []}
    folds = StratifiedKFold(10, shuffle=True, random_state=0).split(whole.inputs, whole.targets)
    for number, (index, tested) in zip(range(arguments.folds), folds, strict=False):
        train, test = whole.take(index), whole.take(tested)
        held_out = np.random.default_rng(number).permutation(len(train)) < len(train) // 10
        splits = {"train": train.take(~held_out), "validation": train.take(held_out), "test": test}
        fold = Dataset(f"rt_polarity-{number}", splits, data.classes)
        run = zoo.train("lstm_text", fold, out=arguments.out / f"fold-{number}", seed=number)
        ours = zoo.load(run)(test.inputs)["probabilities"]
        theirs = baseline(train, test.inputs)
        for name, shares in zip(accuracies, (ours, theirs, ours + theirs), strict=True):
            accuracies[name].append(float(np.mean(shares.argmax(1) == test.targets)))
        print(number, {name: round(values[-1], 4) for name, values in accuracies.items()}, flush=True)
    for name, values in accuracies.items():
        print(f"{name:14} {np.mean(values):.4f} +- {np.std(values):.4f}")
    if arguments.folds == 10:
        print(f"wrote {write_results('reviews', {'accuracy': accuracies})}")
        draw()


if __name__ == "__main__":
    main()
