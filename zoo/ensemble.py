"""Trained networks joined into one that is measured, exported and served as any other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo import artifacts, registry
from zoo.data import Dataset
from zoo.data import load as load_data
from zoo.errors import ZooError
from zoo.files import read_json
from zoo.loading import Predictor
from zoo.recipe import Recipe
from zoo.runs import RUN_FILE, Run, load_run
from zoo.spec import ModelSpec
from zoo.tasks import Task, get_task
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
    if spec.recipes or spec.task not in KINDS:
        raise ZooError(f"{name} is a network, no ensemble: leave name= out")
    labels, predictors = zip(*(_load(member) for member in members), strict=True)
    join, measure = KINDS[spec.task]
    joined = join(spec, [(label, predictor.task) for label, predictor in zip(labels, predictors, strict=True)], method)
    given = [predictor.task.spec.name for predictor in predictors]
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
        for split in record["metrics"]:
            figures, disagreement = measure(predictors, dataset, split, recipe)
            for row, figure in zip(record["members"], figures, strict=True):
                row[split] = figure
            if disagreement:
                record.setdefault("disagreement", {})[split] = disagreement
            record["metrics"][split] = evaluate(joined, model, dataset.splits[split], recipe)
    return Run(Path(), joined, model, recipe, record)


def registered_name(member: Member) -> str:
    """The name under which networks like this one are joined: `mask_ensemble` for masks that may overlap, otherwise
    `ensemble`."""
    if isinstance(member, Run):
        spec = member.task.spec
    elif Path(member, RUN_FILE).is_file():
        spec = registry.get_spec(read_json(Path(member, RUN_FILE))["model"]["spec"])
    else:
        spec = registry.get_spec(artifacts.read_manifest(artifacts.find(member))["model"]["spec"])
    return "mask_ensemble" if spec.scores == "masks" else "ensemble"


def _load(member: Member) -> tuple[str, Predictor]:
    """What a member is called, and the member."""
    if isinstance(member, Run):
        return member.directory.name or member.task.spec.name, Predictor(member)
    if Path(member, RUN_FILE).is_file():
        return Path(member).resolve().name, Predictor(load_run(member))
    return artifacts.open_artifact(member).name, Predictor(member)


# --- by the kind of task: what fits, and how members are measured -----------------------------------------------


def _join_classifiers(spec: ModelSpec, members: Sequence[tuple[str, Task]], method: str | None) -> Task:
    """The task of classifiers as one, each of them given with what it is called."""
    first, task = members[0]
    for label, other in members:
        if other.spec.task != "classification" or not other.preprocessing.size:
            raise ZooError(f"{label} is no classifier of pictures of one size: an ensemble joins such")
        read = (other.preprocessing.size, other.channels)
        if (other.classes, read) != (task.classes, (task.preprocessing.size, task.channels)):
            raise ZooError(
                f"{label} and {first} do not fit: both must tell the same {len(task.classes)} classes apart and read "
                f"pictures of {task.preprocessing.size[0]} x {task.preprocessing.size[1]} x {task.channels}"
            )
    return get_task(spec.task)(
        spec,
        (*task.preprocessing.size, task.channels),
        task.classes,
        preprocessing=dataclasses.replace(spec.preprocessing, size=task.preprocessing.size),
        arguments={
            "members": [other.describe() for _, other in members],
            "method": method or spec.arguments["method"],
        },
    )


def _join_masks(spec: ModelSpec, members: Sequence[tuple[str, Task]], method: str | None) -> Task:
    """The task of networks with masks of their own as one, each of them given with what it is called."""
    if method is not None:
        raise ZooError(f"{spec.name} knows no method {method!r}: its members have classes of their own to decide on")
    first, task = members[0]
    owners: dict[str, str] = {}
    for label, other in members:
        if other.spec.scores != "masks":
            raise ZooError(f"{label} has no masks of classes that may overlap: {spec.name} joins networks of such")
        if other.input_shape != task.input_shape:
            shapes = " and ".join(" x ".join(str(side or "any") for side in one.input_shape) for one in (other, task))
            raise ZooError(f"{label} and {first} do not fit: they read pictures of {shapes}, both must read the same")
        if other.preprocessing != task.preprocessing:
            raise ZooError(
                f"{label} and {first} do not fit: they scale the bands of a picture by other figures: train both on "
                "the same pictures"
            )
        for name in other.classes:
            if name in owners:
                raise ZooError(f"{label} and {owners[name]} both have the class {name}: {spec.name} has each once")
            owners[name] = label
    return get_task(spec.task)(
        spec,
        task.input_shape,
        tuple(owners),
        preprocessing=task.preprocessing,
        arguments={"members": [other.describe() for _, other in members]},
        thresholds=tuple(
            threshold for _, other in members for threshold in other.thresholds or (0.5,) * len(other.classes)
        ),
    )


def _measure_classifiers(
    predictors: Sequence[Predictor], dataset: Dataset, split_name: str, recipe: Recipe
) -> tuple[list[float], dict[str, float]]:
    """The accuracy of each member on a split, and how often they disagree."""
    split = dataset.splits[split_name]
    labels = predictors[0].task.examples(split)[1]
    said = np.stack([predictor.class_ids(split) for predictor in predictors])
    figures = [float(np.mean(ids == labels)) for ids in said]
    return figures, {
        "any": float(np.mean((said != said[0]).any(axis=0))),
        "pairs": float(np.mean([np.mean(a != b) for a, b in itertools.combinations(said, 2)])),
    }


def _measure_masks(
    predictors: Sequence[Predictor], dataset: Dataset, split_name: str, recipe: Recipe
) -> tuple[list[float], dict[str, float]]:
    """The mean IoU of each member on its own classes of a split; they have none in common to disagree on."""
    own = [(predictor.task, predictor.model, predictor.task.narrowed(dataset)) for predictor in predictors]
    return [evaluate(task, model, data.splits[split_name], recipe)[task.metric] for task, model, data in own], {}


KINDS: dict[str, tuple[Callable[..., Task], Callable[..., tuple[list[float], dict[str, Any]]]]] = {
    "classification": (_join_classifiers, _measure_classifiers),
    "segmentation": (_join_masks, _measure_masks),
}
