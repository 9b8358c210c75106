"""What trained weights are worth with few examples: fine-tuned against trained from scratch on the same images.

    python benchmarks/fine_tuning.py [--source NAME.TAG or an exported directory]

Each seed draws 10 images a class to train on and 10 others to choose the epoch by, out of scikit-learn's digits
(8 x 8 pixels, brought to the network's size); the test split is the set's own. Fine-tuning runs the stages of the
model's spec, training from scratch its first recipe with the same augmentation, for as many epochs of as many steps.

The schedule of that recipe counts epochs and is made for tens of thousands of images: with a hundred, the rate may
fall before anything is learned. Two more trainings from scratch therefore keep the rate constant, one for the same
epochs, one for five times as many. Fine-tuning is worth what it gains over the best of the three.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import write_results

import zoo
from zoo.artifacts import open_artifact
from zoo.data import Dataset

EXAMPLES = 10  # a class, to train and to validate
LONGER = 5  # times the epochs of fine-tuning, for a training from scratch that is given its time


def few_examples(dataset: Dataset, seed: int) -> Dataset:
    """The data set with `EXAMPLES` training and as many validation images of each class, drawn by the seed."""
    split, draw = dataset.splits["train"], np.random.default_rng(seed)
    of_class = [draw.permutation(np.flatnonzero(split.targets == label)) for label in range(len(dataset.classes))]
    train, validation = (
        np.concatenate([index[start : start + EXAMPLES] for index in of_class]) for start in (0, EXAMPLES)
    )
    splits = {"train": split.take(train), "validation": split.take(validation), "test": dataset.splits["test"]}
    return Dataset(f"{dataset.name}_few", splits, dataset.classes)


def compare(source: str, dataset: Dataset, seed: int, epochs: int | None) -> dict[str, float]:
    """Test accuracies of the network fine-tuned and trained from scratch."""
    few = few_examples(dataset, seed)
    manifest = open_artifact(source).manifest
    origin = manifest["model"]
    spec = zoo.get_spec(origin["spec"])
    total = sum(epochs or stage.epochs for stage in spec.stages)
    constant = {"schedule": {"kind": "constant"}}
    scratch = {
        "scratch": {"epochs": total},
        "scratch, constant": {"epochs": total, **constant},
        f"scratch, x{LONGER}": {"epochs": LONGER * total, **constant},
    }
    network = {"arguments": origin["arguments"], "input_shape": tuple(origin["input_shape"])}
    network["augmentation"] = manifest["training"]["recipe"]["augmentation"]  # as fine-tuning has it
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        runs = {"fine-tuned": zoo.fine_tune(source, few, out=Path(folder, "tuned"), seed=seed, epochs=epochs)}
        for name, changes in scratch.items():
            runs[name] = zoo.train(spec.name, few, out=Path(folder, name), seed=seed, **network, **changes)
    return {name: run.metrics["test"]["accuracy"] for name, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="lenet5.mnist", help="trained weights, NAME.TAG or an exported directory")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke run: one seed, an epoch a stage, nothing written")
    options = parser.parse_args()
    seeds, epochs = (1, 1) if options.quick else (options.seeds, None)
    artifact, dataset = open_artifact(options.source), zoo.data.load("digits")
    runs = []
    for seed in range(seeds):
        runs.append(compare(options.source, dataset, seed, epochs))
        print(f"seed {seed}: " + ", ".join(f"{key} {value:.4f}" for key, value in runs[-1].items()), flush=True)
    tuned = np.array([run["fine-tuned"] for run in runs])
    summary = {}
    print(f"{'test accuracy':20}{'mean':>8}{'std':>8}{'fine-tuned is better by':>26}")
    for key in runs[0]:
        values = np.array([run[key] for run in runs])
        gains = tuned - values
        std, gain_std = (float(np.std(each, ddof=1)) if len(runs) > 1 else 0.0 for each in (values, gains))
        summary[key] = {"mean": float(values.mean()), "std": std, "values": values.tolist()}
        line = f"{key:20}{values.mean():8.4f}{std:8.4f}"
        if key != "fine-tuned":
            summary[key]["fine_tuned_gains"] = {"mean": float(gains.mean()), "std": gain_std, "values": gains.tolist()}
            line += f"{gains.mean():14.4f} +- {gain_std:.4f}"
        print(line)
    with contextlib.suppress(zoo.ZooError):  # as it comes, where its classes are those of the data
        as_it_comes = zoo.evaluate(options.source, dataset)["accuracy"]
        summary["not fine-tuned"] = {"mean": as_it_comes}
        print(f"{'not fine-tuned':20}{as_it_comes:8.4f}")
    if not options.quick:
        about = {"source": artifact.name, "data": dataset.name, "examples_a_class": EXAMPLES, "seeds": seeds}
        path = write_results("fine_tuning", {**about, "test_accuracy": summary})
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
