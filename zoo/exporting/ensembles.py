"""Trained networks joined into one that is evaluated, exported and served like any other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo import artifacts, registry
from zoo.artifacts import schema
from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.loading import Predictor
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks import ImageTask, Task, get_task
from zoo.training.batches import load_for
from zoo.training.evaluation import evaluate_splits, predicted_class_ids
from zoo.training.runs import RUN_FILE, Run, load_run
from zoo.weights import assign, named_weights

Member = str | os.PathLike | Run
Named = Sequence[tuple[str, Task]]  # the members with their labels


def create_ensemble(
    members: Sequence[Member],
    *,
    data: str | os.PathLike | Dataset | None = None,
    method: Literal["mean", "vote"] | None = None,
    name: str | None = None,
) -> Run:
    """Join trained networks into one: classifiers of the same classes, or segmentations with classes of their own.

    Args:
        members: `name.tag`, exported directories or runs. Classifiers need images of the same size and the same classes
            in order. Networks with overlapping masks need images of the same bands and preprocessing, and each class
            once: the ensemble has the classes of all members in their order, with the members' thresholds.
        data: the data set to evaluate the ensemble and its members on; nothing is evaluated if None.
        method: for classifiers `mean` of the members' probabilities, or `vote`: the share of members that predict a
            class; that of the named spec if None, which is `mean` for `ensemble`.
        name: the registered name of the ensemble; that of `registered_name` if None. Needed for a spec that names its
            members.

    Returns:
        What `export`, `load` and `predict` take. Its `record` lists the `members`, each with its own scores (networks
        with masks are evaluated on their own classes), and for classifiers the `disagreement` on each split: `any`, the
        share of images on which the members do not all agree, and `pairs`, the share on which two members disagree, as
        the mean over all pairs.

    Raises:
        ZooError: for fewer than two members, or members that do not fit each other or the data.
    """
    if len(members) < 2:
        raise ZooError(f"an ensemble needs two members or more, not {len(members)}")
    name = name or registered_name(members[0])
    spec = registry.get_spec(name)
    if not spec.ensemble:
        raise ZooError(f"{name} is a network, not an ensemble: leave name= out")
    labels, predictors = zip(*(_load(member) for member in members), strict=True)
    tasks = [predictor.task for predictor in predictors]
    joined = JOIN[spec.task](spec, list(zip(labels, tasks, strict=True)), method)
    given = [task.spec.name for task in tasks]
    named = [member["spec"] for member in spec.arguments["members"]]
    if spec.reported and given != named:  # the score was reported for certain members
        raise ZooError(f"{name} joins {', '.join(named)}, not {', '.join(given)}: leave name= out")
    model = joined.build()
    weights = {
        f"member{number}/{key}": variable.numpy()
        for number, predictor in enumerate(predictors, start=1)
        for key, variable in named_weights(predictor.model).items()
    }
    assign(named_weights(model), weights)
    recipe = joined.with_options(Recipe(epochs=1, batch_size=1, learning_rate=1.0))  # its loss is cross-entropy
    record: dict[str, Any] = {
        "model": joined.describe(),
        "data": {"name": None},
        "metrics": {"validation": {}, "test": {}},
        "recipe_name": joined.arguments.get("method"),
        "members": [{"name": label} for label in labels],
        "recipe": dataclasses.asdict(recipe),
        "history": [],
    }
    if data is not None:
        whole = load_for(spec, joined.input_shape, recipe, data)
        dataset = joined.select(whole)
        examples = {split: len(dataset.splits[split]) for split in dataset.splits}
        record["data"] = {"name": dataset.name, "fingerprint": dataset.fingerprint, "examples": examples}
        measured = {name: dataset.splits[name] for name in record["metrics"]}
        for row, predictor in zip(record["members"], predictors, strict=True):
            task, own = predictor.task, predictor.task.select(dataset).splits
            scores = evaluate_splits(task, predictor.model, {name: own[name] for name in measured}, predictor.recipe)
            row |= {name: values[task.monitor.name] for name, values in scores.items()}
        if all(task.classes == joined.classes for task in tasks):  # otherwise there is nothing to disagree on
            record["disagreement"] = {name: _disagreement(predictors, split) for name, split in measured.items()}
        record["metrics"] = evaluate_splits(joined, model, measured, recipe)
    return Run(Path(), joined, model, recipe, record)


def join_classifiers(spec: ModelSpec, members: Named, method: str | None) -> Task:
    """The task of classifiers joined as the ensemble `spec`.

    Raises:
        ZooError: for networks of other tasks, or of other images or classes than the first one.
    """
    first, task = members[0]
    for label, other in members:
        if other.spec.task != spec.task or not isinstance(other, ImageTask) or not other.preprocessing.size:
            raise ZooError(f"{label} is not a classifier of images of one size: an ensemble joins such networks")
        if (other.classes, _read(other)) != (task.classes, _read(task)):
            height, width = task.preprocessing.size or (None, None)
            raise ZooError(
                f"{label} and {first} do not fit: both must have the same {len(task.classes)} classes and take images "
                f"of {height} x {width} x {task.input_shape[-1]}, resized and cropped alike"
            )
    size, fit, crop_to, channels = _read(task)
    return get_task(spec.task)(
        spec,
        (*(crop_to or size), channels),
        task.classes,
        preprocessing=dataclasses.replace(spec.preprocessing, size=size, fit=fit, crop_to=crop_to),
        arguments={
            "members": [other.describe() for _, other in members],
            "method": method or spec.arguments["method"],
        },
    )


def _read(task: Task) -> tuple:
    """How a task's images are read: their size, how they are fitted into it, the part that is kept, the channels."""
    preprocessing = task.preprocessing
    return preprocessing.size, preprocessing.fit, preprocessing.crop_to, task.input_shape[-1]


def join_masks(spec: ModelSpec, members: Named, method: str | None) -> Task:
    """The task of networks with masks of their own joined as the ensemble `spec`.

    Raises:
        ZooError: for a method, networks without overlapping masks or of other images, and a class that two have.
    """
    if method is not None:
        raise ZooError(f"{spec.name} has no method {method!r}: its members have classes of their own")
    first, task = members[0]
    owners: dict[str, str] = {}
    for label, other in members:
        if not other.overlapping:
            raise ZooError(f"{label} has no masks of overlapping classes: {spec.name} joins networks with such masks")
        if other.input_shape != task.input_shape:
            shapes = [" x ".join(str(side or "any") for side in one.input_shape) for one in (other, task)]
            raise ZooError(f"{label} and {first} do not fit: they take images of {' and '.join(shapes)}")
        if other.preprocessing != task.preprocessing:
            raise ZooError(
                f"{label} and {first} do not fit: they scale the bands of an image differently: train both on the same "
                "images"
            )
        for name in other.classes:
            if name in owners:
                raise ZooError(f"{label} and {owners[name]} both have the class {name}: {spec.name} has each once")
            owners[name] = label
    thresholds = [getattr(other, "thresholds", ()) or (0.5,) * len(other.classes) for _, other in members]
    kind: Any = get_task(spec.task)
    return kind(
        spec,
        task.input_shape,
        tuple(owners),
        preprocessing=task.preprocessing,
        arguments={"members": [other.describe() for _, other in members]},
        thresholds=tuple(itertools.chain(*thresholds)),
    )


JOIN: dict[str, Callable[[ModelSpec, Named, str | None], Task]] = {
    "classification": join_classifiers,
    "multilabel_segmentation": join_masks,
}


def registered_name(member: Member) -> str:
    """The name of the ensemble that joins networks like this one.

    Raises:
        ZooError: for a network of a kind that cannot be joined.
    """
    if isinstance(member, Run):
        spec = member.task.spec
    elif Path(member, RUN_FILE).is_file():
        spec = registry.get_spec(schema.read(Path(member, RUN_FILE), schema.RunFile)["model"]["spec"])
    else:
        spec = registry.get_spec(artifacts.read_manifest(artifacts.find(member))["model"]["spec"])
    for joint in registry.all_specs().values():
        if joint.ensemble and joint.task == spec.task and not joint.reported:
            return joint.name
    raise ZooError(f"networks such as {spec.name} cannot be joined: give classifiers, or networks of overlapping masks")


def _load(member: Member) -> tuple[str, Predictor]:
    """A member's label, and the member."""
    if isinstance(member, Run):
        return member.directory.name or member.task.spec.name, Predictor(member)
    if Path(member, RUN_FILE).is_file():
        return Path(member).resolve().name, Predictor(load_run(member))
    return artifacts.find(member).parent.name, Predictor(member)


def _disagreement(predictors: Sequence[Predictor], split: Split) -> dict[str, float]:
    """The share of examples on which the members do not all agree (`any`), and that on which two disagree (`pairs`, as
    the mean over all pairs)."""
    predicted = np.stack([predicted_class_ids(predictor, split) for predictor in predictors])
    return {
        "any": float(np.mean((predicted != predicted[0]).any(axis=0))),
        "pairs": float(np.mean([np.mean(a != b) for a, b in itertools.combinations(predicted, 2)])),
    }
