"""Names of models and their specs. Nothing here imports TensorFlow or reads files."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import re
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from zoo.errors import ZooError, unknown
from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras

    Builder = Callable[..., keras.Model]

_specs: dict[str, ModelSpec] = {}
_loaded = False
_loading = threading.RLock()  # another thread waits until all models are known


def register(*specs: ModelSpec) -> Callable[[Builder], Builder]:
    """Register the decorated builder, `builder(input_shape, classes, **arguments) -> keras.Model`, under each spec.

    Raises:
        ZooError: for a name that is taken or contains a dot, which separates names from tags.
    """

    def decorate(builder: Builder) -> Builder:
        for spec in specs:
            if taken := _specs.get(spec.name):
                by = getattr(taken.builder, "__module__", "another package")
                raise ZooError(f"model {spec.name!r} is already registered by {by}")
            if "." in spec.name:
                raise ZooError(f"model name {spec.name!r} contains a dot, which separates a name from its tag")
            _specs[spec.name] = dataclasses.replace(spec, builder=builder)
        return builder

    return decorate


def all_specs() -> dict[str, ModelSpec]:
    """All registered specs by name, those of other packages too (entry-point group `zoo.models`)."""
    global _loaded
    with _loading:
        if _loaded:
            return _specs
        _loaded = True  # at once: the models that are imported ask for others
        importlib.import_module("zoo.models")
        for entry_point in importlib.metadata.entry_points(group="zoo.models"):
            try:
                entry_point.load()
            except Exception as error:  # another package's fault: report it and work without it
                warnings.warn(f"zoo.models plugin {entry_point.name!r} was left out: {error}", stacklevel=3)
    return _specs


def get_spec(name: str) -> ModelSpec:
    """The spec of a model's name; a tag after a dot is ignored.

    Raises:
        ZooError: for an unknown name, with the nearest known ones.
    """
    specs, plain = all_specs(), name.split(".")[0]
    if plain not in specs:
        raise unknown("model", plain, specs, "`zoo list` shows all.")
    return specs[plain]


def reported_datasets() -> set[str]:
    """The data sets that references report scores on."""
    return {score.dataset for spec in all_specs().values() for score in spec.reported}


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sorting key under which numbers within names sort by value."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
