"""Kinds of task by the names that specs use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zoo import registry
from zoo.errors import ZooError, unknown
from zoo.recipe import Recipe, from_dict, recipe_from_dict
from zoo.spec import Preprocessing
from zoo.tasks.base import Item, Signatures, Task, check_layers, with_options
from zoo.tasks.classification import Classification
from zoo.tasks.generation import Generation
from zoo.tasks.image_task import ImageTask, image_size
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.segmentation import MultilabelSegmentation, Segmentation
from zoo.tasks.semi_supervised import SemiSupervisedClassification
from zoo.tasks.text_classification import TextClassification
from zoo.tasks.text_task import TextTask

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
    "multilabel_segmentation": MultilabelSegmentation,
    "generation": Generation,
    "semi_supervised": SemiSupervisedClassification,
    "text_classification": TextClassification,
    "language_model": LanguageModel,
}


def get_task(name: str) -> type[Task]:
    """The kind of task of that name; raises ZooError for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


LATER = ("views", "features")  # fields that descriptions of earlier releases lack


def restore(description: Mapping[str, Any]) -> Task:
    """The task that `Task.describe` wrote down.

    Raises:
        ZooError: for a description that is incomplete, or names a model that is not registered.
    """
    try:
        spec = registry.get_spec(description["spec"])
        kind = get_task(spec.task)
        # a mapping, or a sequence of which JSON has made a list
        names = [field.name for field in dataclasses.fields(kind) if field.name != "spec"]
        kept = {name: description[name] for name in names if name in description or name not in LATER}
        kept = {name: dict(value) if isinstance(value, Mapping) else tuple(value) for name, value in kept.items()}
        return kind(spec, **{**kept, "preprocessing": from_dict(Preprocessing, description["preprocessing"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"the model's description is incomplete: {error}") from None


def read_recipe(data: Mapping[str, Any], task: str) -> Recipe:
    """A recipe from plain (JSON) data for a kind of task; raises ZooError for unknown keys and wrong values."""
    return recipe_from_dict(data, get_task(task).Options)


__all__ = [
    "TASKS",
    "ImageTask",
    "Item",
    "LanguageModel",
    "Signatures",
    "Task",
    "TextTask",
    "check_layers",
    "get_task",
    "image_size",
    "read_recipe",
    "restore",
    "with_options",
]
