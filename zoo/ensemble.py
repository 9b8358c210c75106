"""Trained networks joined into one that is measured, exported and served as any other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from zoo import artifacts, registry
from zoo.data import Dataset
from zoo.data import load as load_data
from zoo.errors import ZooError
from zoo.loading import Predictor
from zoo.runs import RUN_FILE, Run, load_run
from zoo.tasks import get_task
from zoo.training import evaluate
from zoo.weights import assign, named_weights


def create_ensemble(
    members: Sequence[str | os.PathLike | Run],
    *,
    data: str | os.PathLike | Dataset | None = None,
    method: Literal["mean", "vote"] | None = None,
    name: str = "ensemble",
) -> Run:
    """Join trained classifiers into one.

    Args:
        members: `name.tag`, exported directories or runs; pictures of the same size, the same classes in order.
        data: the data set to measure the whole and its members on; not measured where None.
        method: `mean` of the members' probabilities, or `vote`: the share of members that say a class; the named
            spec's where None, which is `mean` for `ensemble`.
        name: the registered name; another than `ensemble` where a spec says what its members are.

    Returns:
        What `export`, `load` and `predict` take. Its `record` lists the `members`, each with its own figures, and
        the `disagreement` on each split: `any`, the share of pictures on which not all say the same, and `pairs`,
        the share on which two members differ, on average over all pairs.

    Raises:
        ZooError: for fewer than two members, or members that do not fit each other or the data.
    """
    if len(members) < 2:
        raise ZooError(f"an ensemble needs two members or more, not {len(members)}")
    loaded = [_load(member) for member in members]
    (first, _), predictors = loaded[0], [predictor for _, predictor in loaded]
    task = predictors[0].task
    for label, predictor in loaded:
        other = predictor.task
        if other.spec.task != "classification" or not other.preprocessing.size:
            raise ZooError(f"{label} is no classifier of pictures of one size: an ensemble joins such")
        read = (other.preprocessing.size, other.channels)
        if (other.classes, read) != (task.classes, (task.preprocessing.size, task.channels)):
            raise ZooError(
                f"{label} and {first} do not fit: both must tell the same {len(task.classes)} classes apart and read "
                f"pictures of {task.preprocessing.size[0]} x {task.preprocessing.size[1]} x {task.channels}"
            )
    spec = registry.get_spec(name)
    if spec.recipes:
        raise ZooError(f"{name} is a network, no ensemble: leave name= out")
    method = method or spec.arguments["method"]
    given = [predictor.task.spec.name for predictor in predictors]
    named = [member["spec"] for member in spec.arguments["members"]]
    if spec.published and given != named:  # which are those of certain members
        raise ZooError(f"{name} joins {', '.join(named)}, not {', '.join(given)}: leave name= out")
    joined = get_task(spec.task)(
        spec,
        (*task.preprocessing.size, task.channels),
        task.classes,
        preprocessing=dataclasses.replace(spec.preprocessing, size=task.preprocessing.size),
        arguments={"members": [predictor.task.describe() for predictor in predictors], "method": method},
    )
    model = joined.build()
    weights = {
        f"member{number}/{key}": variable.numpy()
        for number, predictor in enumerate(predictors, start=1)
        for key, variable in named_weights(predictor.model).items()
    }
    assign(named_weights(model), weights)
    record = {"model": joined.describe(), "data": {"name": None}, "metrics": {"validation": {}, "test": {}}}
    record |= {"recipe_name": method, "members": [{"name": label} for label, _ in loaded], "history": []}
    recipe = predictors[0].recipe.replace(loss="cross_entropy")  # the loss that the whole is measured by
    record["recipe"] = dataclasses.asdict(recipe)
    if data is not None:
        dataset = load_data(data, image_size=task.preprocessing.size)
        joined.check_data(dataset)
        examples = {split: len(dataset.splits[split]) for split in dataset.splits}
        record["data"] = {"name": dataset.name, "fingerprint": dataset.fingerprint, "examples": examples}
        record["disagreement"] = {}
        for split_name in record["metrics"]:
            split = dataset.splits[split_name]
            labels = joined.examples(split)[1]
            said = np.stack([predictor.class_ids(split) for predictor in predictors])
            for row, ids in zip(record["members"], said, strict=True):
                row[split_name] = float(np.mean(ids == labels))
            record["disagreement"][split_name] = {
                "any": float(np.mean((said != said[0]).any(axis=0))),
                "pairs": float(np.mean([np.mean(a != b) for a, b in itertools.combinations(said, 2)])),
            }
            record["metrics"][split_name] = evaluate(joined, model, split, recipe)
    return Run(Path(), joined, model, recipe, record)


def _load(member: str | os.PathLike | Run) -> tuple[str, Predictor]:
    """What a member is called, and the member."""
    if isinstance(member, Run):
        return member.directory.name or member.task.spec.name, Predictor(member)
    if Path(member, RUN_FILE).is_file():
        return Path(member).resolve().name, Predictor(load_run(member))
    return artifacts.open_artifact(member).name, Predictor(member)
