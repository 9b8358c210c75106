"""What trained weights are worth with few examples: fine-tuned against trained from scratch on the same images.

    python benchmarks/fine_tuning.py [--source NAME.TAG or an exported directory]
    python benchmarks/fine_tuning.py --pretrain airbench93 --data cifar10 --held-out cat,dog --examples 10,50,500

Each seed draws images of each class to train on and as many others to choose the epoch by; the test split is the set's
own. By default they are scikit-learn's digits (8 x 8 pixels, brought to the network's size). With `--pretrain` the
network is first trained on all classes but those held out, and then on these. Fine-tuning runs the stages of the
model's spec, training from scratch its first recipe with the same augmentation, for as many epochs of as many steps:
with the stages' batch size, where they have one, and a learning rate in proportion to it.

The schedule of that recipe counts epochs and is made for tens of thousands of images: with a hundred, the rate may
fall before anything is learned. Two more trainings from scratch therefore keep the rate constant, one for the same
epochs, one for five times as many. Fine-tuning is worth what it gains over the best of the three.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import RESULTS, write_between, write_results

import zoo
from zoo.artifacts import open_artifact
from zoo.data import Dataset, Split

FOLDER = Path("runs/fine_tuning")
PAGE = Path(__file__).parent.parent / "docs" / "photographs.md"
LONGER = 5  # times the epochs of fine-tuning, for a training from scratch that is given its time


def of_classes(dataset: Dataset, names: list[str]) -> Dataset:
    """The data set's images of some of its classes."""
    splits = {}
    for name, split in dataset.splits.items():
        taken = split.take(np.flatnonzero(np.isin(split.targets, [dataset.classes.index(one) for one in names])))
        targets = np.array([names.index(dataset.classes[label]) for label in taken.targets])
        splits[name] = Split(taken.inputs, targets)
    return Dataset(f"{dataset.name}_{'_'.join(names)}", splits, tuple(names))


def pretrained(name: str, dataset: Dataset, held_out: list[str], precision: str) -> Path:
    """The network trained on all classes but those held out, exported; an interrupted training resumes."""
    rest = of_classes(dataset, [one for one in dataset.classes if one not in held_out])
    path = FOLDER / f"{name}.without_{'_'.join(held_out)}"
    if not path.exists():
        zoo.export(zoo.train(name, rest, out=FOLDER / f"{path.name}-0", precision=precision), path)
    return path


def few_examples(dataset: Dataset, examples: int, seed: int) -> Dataset:
    """The data set with as many training and as many validation images of each class, drawn by the seed."""
    split, draw = dataset.splits["train"], np.random.default_rng(seed)
    of_class = [draw.permutation(np.flatnonzero(split.targets == label)) for label in range(len(dataset.classes))]
    train, validation = (
        np.concatenate([index[start : start + examples] for index in of_class]) for start in (0, examples)
    )
    splits = {"train": split.take(train), "validation": split.take(validation), "test": dataset.splits["test"]}
    return Dataset(f"{dataset.name}_few", splits, dataset.classes)


def compare(source: str | Path, few: Dataset, seed: int, epochs: int | None, precision: str) -> dict[str, float]:
    """Test accuracies of the network fine-tuned and trained from scratch."""
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
    network: dict[str, Any] = {"arguments": origin["arguments"], "input_shape": tuple(origin["input_shape"])}
    network["augmentation"] = manifest["training"]["recipe"]["augmentation"]  # as fine-tuning has it
    if batch_size := spec.stages[-1].batch_size:
        recipe = spec.recipe()
        network |= {"batch_size": batch_size, "learning_rate": recipe.learning_rate * batch_size / recipe.batch_size}
    same = {"seed": seed, "precision": precision}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        runs = {"fine-tuned": zoo.fine_tune(source, few, out=Path(folder, "tuned"), epochs=epochs, **same)}
        for name, changes in scratch.items():
            runs[name] = zoo.train(spec.name, few, out=Path(folder, name), **network, **changes, **same)
    return {name: run.metrics["test"]["accuracy"] for name, run in runs.items()}


def summary_of(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Means and deviations of the seeds' accuracies, and by how much fine-tuning is better, which it prints too."""
    tuned, summary = np.array([run["fine-tuned"] for run in runs]), {}
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
        print(line, flush=True)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="lenet5.mnist", help="trained weights, NAME.TAG or an exported directory")
    parser.add_argument("--pretrain", metavar="NAME", help="a network to train first, in place of --source")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--held-out", default="", help="classes, with commas, that the network is not pretrained on")
    parser.add_argument("--examples", default="10", help="a class, to train and to validate; several with commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--precision", default="float32", help="of all trainings, such as mixed_bfloat16")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one seed, an epoch a stage, nothing written")
    options = parser.parse_args()
    seeds, epochs = (1, 1) if options.quick else (options.seeds, None)
    source, dataset = options.source, zoo.data.load(options.data)
    held_out = [name for name in options.held_out.split(",") if name]
    if options.pretrain:
        source = pretrained(options.pretrain, dataset, held_out, options.precision)
    if held_out:
        dataset = of_classes(dataset, held_out)
    results: dict[str, Any] = {}
    for examples in map(int, options.examples.split(",")):
        runs = []
        for seed in range(seeds):
            runs.append(compare(source, few_examples(dataset, examples, seed), seed, epochs, options.precision))
            row = ", ".join(f"{key} {value:.4f}" for key, value in runs[-1].items())
            print(f"{examples} a class, seed {seed}: {row}", flush=True)
        results[str(examples)] = summary_of(runs)
    about = {"source": open_artifact(source).name, "data": dataset.name, "seeds": seeds}
    with contextlib.suppress(zoo.ZooError):  # as it comes, where its classes are those of the data
        about["not_fine_tuned"] = zoo.evaluate(source, dataset)["accuracy"]
        print(f"{'not fine-tuned':20}{about['not_fine_tuned']:8.4f}")
    if not options.quick:
        name = "fine_tuning" if dataset.name == "digits" else f"fine_tuning_{dataset.name}"
        path = write_results(name, {**about, "test_accuracy_by_examples_a_class": results})
        print(f"written to {path.parent.name}/{path.name}")
        draw()


def draw() -> None:
    """Writes the table of classes that pretraining has not seen into the page on photographs."""
    lines = []
    for file in sorted(RESULTS.glob("fine_tuning_*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))["test_accuracy_by_examples_a_class"]
        columns = list(next(iter(found.values())))
        lines += [f"| images a class | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for examples, row in found.items():
            cells = [f"{row[column]['mean']:.3f} ± {row[column]['std']:.3f}" for column in columns]
            lines.append(f"| {examples} | {' | '.join(cells)} |")
    write_between(PAGE, "few photographs", "\n".join(lines))


if __name__ == "__main__":
    main()
