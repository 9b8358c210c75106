"""Names and what they stand for. Nothing here imports TensorFlow or reads weights."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import importlib.metadata
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError, unknown
from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras


_specs: dict[str, ModelSpec] = {}
_loaded = False


def register(*specs: ModelSpec) -> Callable[[Callable[..., keras.Model]], Callable[..., keras.Model]]:
    """Register the decorated builder, `builder(input_shape, classes, **arguments) -> keras.Model`, under each spec.

    Raises:
        ZooError: for a name that is taken or holds a dot, which separates names from tags.
    """

    def decorate(builder: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
        for spec in specs:
            if spec.name in _specs:
                raise ZooError(f"model {spec.name!r} is registered already, by {_specs[spec.name].builder.__module__}")
            if "." in spec.name:
                raise ZooError(f"model name {spec.name!r} holds a dot, which separates a name from its tag")
            _specs[spec.name] = dataclasses.replace(spec, builder=builder)
        return builder

    return decorate


def _all_specs() -> dict[str, ModelSpec]:
    global _loaded
    if not _loaded:
        _loaded = True
        importlib.import_module("zoo.models")
        for entry_point in importlib.metadata.entry_points(group="zoo.models"):
            try:
                entry_point.load()
            except Exception as error:  # somebody else's package: report it and go on without it
                warnings.warn(f"zoo.models plugin {entry_point.name!r} was left out: {error}", stacklevel=3)
    return _specs


def get_spec(name: str) -> ModelSpec:
    """The spec of a model's name; a tag after a dot is ignored.

    Raises:
        ZooError: for an unknown name, with the nearest known ones.
    """
    specs, plain = _all_specs(), name.split(".")[0]
    if plain not in specs:
        raise unknown("model", plain, specs, "`zoo list` shows all.")
    return specs[plain]


def reported_datasets() -> set[str]:
    """The data sets that sources report figures on."""
    return {figure.dataset for spec in _all_specs().values() for figure in spec.published}


def list_models(
    pattern: str = "*",
    *,
    task: str | None = None,
    dataset: str | None = None,
    pretrained: bool = False,
    max_params: int | None = None,
    min_metric: float | None = None,
) -> list[str]:
    """Names of models in natural order (`mlp_30` before `mlp_100`); with `pretrained` as `name.tag`.

    Args:
        pattern: wildcards on the name (on `name.tag` with `pretrained`).
        dataset: only models with a figure, published or measured here, on this data set.
        min_metric: only weights whose test figure measured here is at least this, in the metric's own unit;
            implies `pretrained`.

    Raises:
        ZooError: for a task that no model has.
    """
    from zoo.artifacts import published_index

    names, specs, index = [], _all_specs().values(), published_index()
    known = {spec.task for spec in specs}
    if task is not None and task not in known:
        raise unknown("task", task, known)
    for spec in specs:
        entries = index.get(spec.name, {}).get("tags", {})
        if task not in (None, spec.task) or (max_params is not None and spec.params > max_params):
            continue
        on = {figure.dataset for figure in spec.published} | {entry["dataset"] for entry in entries.values()}
        if dataset is not None and dataset not in on:
            continue
        if not pretrained and min_metric is None:
            names.append(spec.name)
            continue
        names += [
            f"{spec.name}.{tag}"
            for tag, entry in entries.items()
            if (dataset in (None, entry["dataset"])) and (min_metric is None or _reaches(entry, min_metric))
        ]
    return sorted(fnmatch.filter(names, pattern), key=natural_order)


def _reaches(entry: dict[str, Any], least: float) -> bool:
    """Whether a measured figure is as good as `least`; a loss is better when it is lower."""
    value = entry["value"]
    return value is not None and (value <= least if entry["metric"] == "loss" else value >= least)


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sorting key under which numbers within names sort by value."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def build(
    spec: ModelSpec, input_shape: tuple | None = None, classes: int | None = None, **arguments: Any
) -> keras.Model:
    """The network of a spec with fresh weights."""
    arguments = {**spec.arguments, **arguments}
    try:
        return spec.builder(
            tuple(input_shape or spec.input_shape), spec.classes if classes is None else classes, **arguments
        )
    except ZooError:
        raise
    except TypeError as error:
        raise ZooError(f"model {spec.name}: {error}") from error
    except ValueError as error:
        shape = tuple(input_shape or spec.input_shape)
        raise ZooError(
            f"model {spec.name} cannot be built with input shape {shape}: {str(error).splitlines()[0]}"
        ) from error
