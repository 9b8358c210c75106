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
from zoo.data import Dataset, Split
from zoo.data import load as load_data
from zoo.errors import ZooError
from zoo.files import read_json
from zoo.loading import Predictor
from zoo.runs import RUN_FILE, Run, load_run
from zoo.tasks import get_task
from zoo.tasks.base import picture_size
from zoo.training import evaluate
from zoo.weights import assign, named_weights

Member = str | os.PathLike | Run


def create_ensemble(
    members: Sequence[Member],
    *,
    data: str | os.PathLike | Dataset | None = None,
    method: Literal["mean", "vote"] | None = None,
    name: str | None = None,
) -> Run:
    """Join trained networks into one: classifiers that agree on a class, or segmentations that have classes of their
    own.

    Args:
        members: `name.tag`, exported directories or runs. Of classifiers pictures of the same size, the same classes
            in order. Of masks that may overlap pictures of the same bands and preprocessing; each class once: the
            whole has those of all members in their order, with the members' thresholds.
        data: the data set to measure the whole and its members on; not measured where None.
        method: of classifiers `mean` of the members' probabilities, or `vote`: the share of members that say a class;
            the named spec's where None, which is `mean` for `ensemble`.
        name: the registered name; that of `registered_name` where None. Another where a spec says what its members
            are.

    Returns:
        What `export`, `load` and `predict` take. Its `record` lists the `members`, each with its own figures (that of
        masks on its own classes), and for classifiers the `disagreement` on each split: `any`, the share of pictures
        on which not all say the same, and `pairs`, the share on which two members differ, on average over all pairs.

    Raises:
        ZooError: for fewer than two members, or members that do not fit each other or the data.
    """
    if len(members) < 2:
        raise ZooError(f"an ensemble needs two members or more, not {len(members)}")
    name = name or registered_name(members[0])
    spec = registry.get_spec(name)
    if spec.recipes:
        raise ZooError(f"{name} is a network, no ensemble: leave name= out")
    labels, predictors = zip(*(_load(member) for member in members), strict=True)
    tasks = [predictor.task for predictor in predictors]
    joined = get_task(spec.task).joined(spec, list(zip(labels, tasks, strict=True)), method)
    given = [task.spec.name for task in tasks]
    named = [member["spec"] for member in spec.arguments["members"]]
    if spec.published and given != named:  # which are those of certain members
        raise ZooError(f"{name} joins {', '.join(named)}, not {', '.join(given)}: leave name= out")
    model = joined.build()
    weights = {
        f"member{number}/{key}": variable.numpy()
        for number, predictor in enumerate(predictors, start=1)
        for key, variable in named_weights(predictor.model).items()
    }
    assign(named_weights(model), weights)
    record = {"model": joined.describe(), "data": {"name": None}, "metrics": {"validation": {}, "test": {}}}
    record |= {"recipe_name": joined.arguments.get("method"), "members": [{"name": label} for label in labels]}
    recipe = predictors[0].recipe.replace(loss="cross_entropy")  # the loss that the whole is measured by
    record |= {"recipe": dataclasses.asdict(recipe), "history": []}
    if data is not None:
        dataset = joined.narrowed(load_data(data, image_size=picture_size(spec, joined.input_shape)))
        joined.check_data(dataset)
        examples = {split: len(dataset.splits[split]) for split in dataset.splits}
        record["data"] = {"name": dataset.name, "fingerprint": dataset.fingerprint, "examples": examples}
        measured = {name: dataset.splits[name] for name in record["metrics"]}
        for row, predictor in zip(record["members"], predictors, strict=True):
            task, own = predictor.task, predictor.task.narrowed(dataset).splits
            figures = evaluate(task, predictor.model, {name: own[name] for name in measured}, predictor.recipe)
            row |= {name: values[task.metric] for name, values in figures.items()}
        if all(task.classes == joined.classes for task in tasks):  # otherwise there is nothing to disagree on
            record["disagreement"] = {name: _disagreement(predictors, split) for name, split in measured.items()}
        record["metrics"] = evaluate(joined, model, measured, recipe)
    return Run(Path(), joined, model, recipe, record)


def registered_name(member: Member) -> str:
    """The name under which networks like this one are joined.

    Raises:
        ZooError: for a network of a kind that cannot be.
    """
    if isinstance(member, Run):
        spec = member.task.spec
    elif Path(member, RUN_FILE).is_file():
        spec = registry.get_spec(read_json(Path(member, RUN_FILE))["model"]["spec"])
    else:
        spec = registry.get_spec(artifacts.read_manifest(artifacts.find(member))["model"]["spec"])
    # the specs that are not trained, and that stand for no source's own ensemble
    for joint in map(registry.get_spec, registry.list_models(task=spec.task)):
        if not joint.recipes and not joint.published and (joint.scores == "masks") == (spec.scores == "masks"):
            return joint.name
    raise ZooError(f"networks such as {spec.name} cannot be joined: give classifiers, or masks that may overlap")


def _load(member: Member) -> tuple[str, Predictor]:
    """What a member is called, and the member."""
    if isinstance(member, Run):
        return member.directory.name or member.task.spec.name, Predictor(member)
    if Path(member, RUN_FILE).is_file():
        return Path(member).resolve().name, Predictor(load_run(member))
    return artifacts.find(member).parent.name, Predictor(member)


def _disagreement(predictors: Sequence[Predictor], split: Split) -> dict[str, float]:
    """The shares of examples on which not all say the same (`any`), and on which two differ (`pairs`, on average)."""
    said = np.stack([predictor.class_ids(split) for predictor in predictors])
    return {
        "any": float(np.mean((said != said[0]).any(axis=0))),
        "pairs": float(np.mean([np.mean(a != b) for a, b in itertools.combinations(said, 2)])),
    }
