"""The form of manifests and indexes: keys and types that other code relies on, checked before it sees them.

Other keys are allowed, and left to the code that reads them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import read_json

NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")  # of a model, a tag, a version: one part of a path


@dataclasses.dataclass
class File:
    """One file of an artifact."""

    size: int
    sha256: str


@dataclasses.dataclass
class ShownPreprocessing:
    """The key of the preprocessing that a model card shows; the network's task checks all of them."""

    size: list[int] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and len(self.size) != 2:
            raise ZooError("preprocessing.size is not a height and a width")


@dataclasses.dataclass
class Model:
    """What `Task.describe` writes."""

    spec: str
    input_shape: list[int | None]
    classes: list[str]
    preprocessing: ShownPreprocessing
    arguments: dict[str, Any]
    vocabulary: list[str] = dataclasses.field(default_factory=list)
    thresholds: list[float] = dataclasses.field(default_factory=list)
    views: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.input_shape:
            raise ZooError("model.input_shape is empty")


@dataclasses.dataclass
class Weights:
    """How the weights are stored."""

    storage: str
    parameters: int


@dataclasses.dataclass
class Scores:
    """The scores that the index shows."""

    dataset: str | None
    metric: str | None
    validation: float | None
    test: float | None
    runs: int
    mean: float | None
    standard_deviation: float | None
    reported: float | None
    reference: str | None


@dataclasses.dataclass
class Named:
    """A member of an ensemble."""

    name: str


@dataclasses.dataclass
class Origin:
    """The weights that were fine-tuned, and what these were trained on."""

    name: str
    data: str | None = None
    classes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Data:
    """The data set of a training."""

    name: str | None = None
    fingerprint: str | None = None
    examples: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ShownRecipe:
    """The keys of a recipe that a model card shows; `zoo.recipe` checks all of them where it is followed."""

    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    loss: str
    deviations: list[str] = dataclasses.field(default_factory=list)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Training:
    """The record of a training."""

    recipe: ShownRecipe
    data: Data = dataclasses.field(default_factory=Data)
    recipe_name: str | None = None
    seed: int | None = None
    origin: Origin = dataclasses.field(default_factory=lambda: Origin(""))
    members: list[Named] = dataclasses.field(default_factory=list)
    given_in_python: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained_by: dict[str, str] = dataclasses.field(default_factory=dict)
    devices: str | None = None
    variant: dict[str, Any] = dataclasses.field(default_factory=dict)
    only_class: str | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stages: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    brightness: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Metrics:
    """Scores by split and metric."""

    validation: dict[str, float | None]
    test: dict[str, float | None]


@dataclasses.dataclass
class Result:
    """The result of one run."""

    metrics: Metrics


@dataclasses.dataclass
class Manifest:
    """`assets.extra/manifest.json`."""

    format: int
    model: Model
    weights: Weights
    scores: Scores
    training: Training | None
    runs: list[Result]
    files: dict[str, File]


@dataclasses.dataclass
class RunFile:
    """`run.json`."""

    model: Model
    recipe: dict[str, Any]
    data: Data
    trained: Model | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tag:
    """The weights of a tag, as the index lists them."""

    dataset: str | None
    metric: str | None
    test: float | None
    validation: float | None
    reported: float | None
    runs: list[float]
    mean: float | None
    standard_deviation: float | None
    parameters: int
    bytes: int
    version: str
    only_class: str | None = None
    variant: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Entry:
    """One model of the index."""

    tags: dict[str, Tag]
    aliases: dict[str, str]


@dataclasses.dataclass
class Index:
    """`published.json`."""

    models: dict[str, Entry]
    sha256: dict[str, str]

    def __post_init__(self) -> None:
        for model, entry in self.models.items():
            versions = [tag.version for tag in entry.tags.values()]
            for name in (model, *entry.tags, *entry.aliases, *entry.aliases.values(), *versions):
                if not NAME.fullmatch(name) or name in (".", ".."):
                    raise ZooError(f"{name[:50]!r} is no name")
            if not {*entry.aliases.values()} <= entry.tags.keys():
                raise ZooError(f"an alias of {model} stands for weights that are not listed")


def read(path: Path, form: type) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ZooError: for a file that is missing, no regular one, damaged, too large, or of another form.
    """
    found = read_json(path)
    check(path, found, form)
    return found


def check(path: Path, found: Mapping[str, Any], form: type) -> None:
    """Raises ZooError where the content of a file is not of a form."""
    import dacite

    try:
        _require_keys(dacite.from_dict(form, found, dacite.Config(type_hooks={float: _as_float})), found)
    except dacite.MissingValueError as error:
        raise ZooError(f"{path} is damaged: the key {error.field_path} is missing") from None
    except dacite.DaciteFieldError as error:
        raise ZooError(f"{path} is damaged: {error.field_path} is of a wrong type") from None
    except ZooError as error:
        raise ZooError(f"{path} is damaged: {error}") from None
    except (TypeError, AttributeError, OverflowError):  # of dacite itself, for a value where it expects a mapping
        raise ZooError(f"{path} is damaged: a value is not of the type that its key has") from None


def _require_keys(parsed: Any, found: Any) -> None:
    """Raises ZooError for a missing key without a default: dacite takes None for those that may be null."""
    if isinstance(parsed, list):
        for one, other in zip(parsed, found, strict=True):
            _require_keys(one, other)
    elif isinstance(parsed, dict):
        for key, one in parsed.items():
            _require_keys(one, found[key])
    elif dataclasses.is_dataclass(parsed):
        for field in dataclasses.fields(parsed):
            if field.name in found:
                _require_keys(getattr(parsed, field.name), found[field.name])
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ZooError(f"the key {field.name} is missing")


def _as_float(value: Any) -> Any:
    """Whole numbers are scores too."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
