"""Kinds of task by the names that specs use."""

from __future__ import annotations

from zoo.errors import unknown
from zoo.tasks.base import Task, restore
from zoo.tasks.classification import Classification
from zoo.tasks.generation import Generation
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.segmentation import Segmentation
from zoo.tasks.text_classification import TextClassification

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
    "generation": Generation,
    "text_classification": TextClassification,
    "language_model": LanguageModel,
}


def get_task(name: str) -> type[Task]:
    """The task of that name; raises ZooError for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


__all__ = ["TASKS", "Task", "get_task", "restore"]
