"""Trainings on an accelerator that only JAX can use: the data they need, and runs made of their results.

    python benchmarks/jax_training.py pack airbench94 --data cifar10 --out cifar10.npz
    python benchmarks/jax_training.py features --out features.npz
    python benchmarks/jax_training.py finish trained/airbench94.npz --data cifar10 --out runs/airbench94
    zoo export runs/airbench94

`pack` writes the training and validation examples as the product reads them, without the test examples; `features` the
weights of the network that measures generated images. `finish` writes the directory of a run, with the history of the
training and where it ran; batch normalization is measured and all scores are computed by TensorFlow, as at the end of
`zoo train`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo import registry, tasks
from zoo.data import Dataset
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks import sample_metrics
from zoo.training.batches import load_for
from zoo.training.normalization import measure_normalization
from zoo.training.randomness import seeded
from zoo.training.runs import Run, describe_run, open_run
from zoo.training.trainer import finish_run
from zoo.weights import assign, load_arrays, named_weights, save_arrays


def recipe_of(spec: ModelSpec, name: str | None, changes: dict[str, Any]) -> Recipe:
    return tasks.with_options(spec.recipe(name), tasks.get_task(spec.task), spec.task).replace(**changes)


def pack(spec: ModelSpec, recipe: Recipe, data: str, out: Path, **options: Any) -> None:
    """Write `train_inputs`, `train_labels` and the same of validation; labels are -1 for examples without one."""
    dataset: Dataset = load_for(spec, options.pop("shape"), recipe, data, **options)
    arrays = {}
    for part in ("train", "validation"):
        split = dataset.splits[part]
        arrays[f"{part}_inputs"] = np.asarray(split.inputs)
        if split.targets is not None:
            arrays[f"{part}_labels"] = np.asarray(split.targets, np.int32)
    np.savez_compressed(out, **arrays)


def finish(file: Path, data: str, out: Path) -> Run:
    """The run of a result of a training by JAX; the record says on which device and by which versions it was trained.

    Raises:
        ZooError: for weights of another network, and a directory that contains another run.
    """
    arrays = load_arrays(file)
    found = json.loads(str(arrays.pop("record")))
    job, fold = found["job"], found["job"].get("fold")
    changes = {**job.get("set", {})}
    arguments = changes.pop("arguments", {})
    spec = registry.get_spec(job["name"])
    recipe = recipe_of(spec, job.get("recipe"), changes)
    shape = tuple(job["input_shape"]) if "input_shape" in job else None
    seed, name = job.get("seed", 0), job.get("recipe") or next(iter(spec.recipes))
    dataset = load_for(spec, shape, recipe, data, fold=fold)
    kind = tasks.get_task(spec.task)
    task = kind.from_data(spec, dataset, shape, **{**recipe.arguments, **arguments})
    record = describe_run(task, dataset, recipe, seed=seed, deterministic=False, devices=found["device"])
    record |= {"recipe_name": name, "backend": "jax", "trained_by": found["versions"]}
    if arguments:
        record["variant"] = arguments
    if fold is not None:
        record["fold"] = fold
    with seeded(seed, False), contextlib.ExitStack() as opened:
        model = task.build()
        assign(named_weights(model), {key: array.astype(np.float32) for key, array in arrays.items()})
        opened.enter_context(open_run(out, record))
        measure_normalization(task, model, dataset.splits["train"])
        return finish_run(out, task, model, dataset, recipe, found["rows"], found["best_epoch"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("name")
    packing.add_argument("--fold", help="number and count, as in 1/5")
    packing.add_argument("--input-shape", help="as in 64,64,3")
    finishing = commands.add_parser("finish")
    finishing.add_argument("file", type=Path)
    features = commands.add_parser("features")
    for command in (packing, finishing):
        command.add_argument("--data", required=True)
    for command in (packing, finishing, features):
        command.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "features":
        save_arrays(given.out, sample_metrics.feature_weights())
    elif given.command == "pack":
        spec = registry.get_spec(given.name)
        shape = tuple(map(int, given.input_shape.split(","))) if given.input_shape else None
        fold = tuple(map(int, given.fold.split("/"))) if given.fold else None
        pack(spec, recipe_of(spec, None, {}), given.data, given.out, shape=shape, fold=fold)
    else:
        run = finish(given.file, given.data, given.out)
        print({part: {key: round(value, 4) for key, value in scores.items()} for part, scores in run.metrics.items()})


if __name__ == "__main__":
    main()
