"""Runs: the directory of a training, what identifies it, and its results."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
from etils import epy

from zoo import tasks
from zoo.artifacts import schema
from zoo.data import Dataset
from zoo.errors import ZooError
from zoo.files import naming, read_json, write_json
from zoo.recipe import Augmentation, Recipe, Schedule, from_dict
from zoo.spec import Preprocessing, Stage
from zoo.training.batches import load_for
from zoo.training.classified import Classified
from zoo.weights import assign, load_arrays, named_weights

with epy.lazy_imports():
    import keras

RUN_FILE = "run.json"
SEARCH_FILE = "search.json"  # in the directory of a search, whose trials are runs below it
WEIGHTS_FILE = "weights.npz"
LOCK_FILE = ".lock"  # held while a process trains


@dataclasses.dataclass
class Run:
    """A trained network with the record of its training.

    Attributes:
        model: the network with the weights of the best epoch.
        record: the content of `run.json`: what identifies the run, and its results.
        classified: predictions on the test split, where a classifier was fine-tuned in this process.
        worker: the number of this process among those that trained together; only the first, 0, writes `directory`.
    """

    directory: Path
    task: tasks.Task
    model: keras.Model
    recipe: Recipe
    record: dict[str, Any]
    classified: Classified | None = None
    worker: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch: `epoch` from 1, `seconds`, `learning_rate`, training and `val_` scores."""
        return self.record["history"]

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights the model has."""
        return self.record["best_epoch"]

    @property
    def tag(self) -> str:
        """The default tag of its export."""
        return tag_of(self.record["data"]["name"], self.record.get("only_class"), self.record.get("variant", {}))

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Scores on the `validation` and `test` splits at the best epoch."""
        return self.record["metrics"]


def tag_of(data_name: str, only_class: str | None, variant: Mapping[str, Any] = {}) -> str:
    """The data set's name, followed by dashes and what makes the network another one: the class of a network of one
    class, and builder arguments that are not the spec's, as in `digits-hidden50`."""
    parts = [] if only_class is None else [only_class]
    words = {key: "_".join(re.findall(r"\w+", json.dumps(value))) for key, value in sorted(variant.items())}
    parts += [key + value for key, value in words.items()]
    return "-".join([data_name, *(re.sub(r"[^\w-]+", "_", part) for part in parts)])


def describe_run(task: tasks.Task, dataset: Dataset, recipe: Recipe, **settings: Any) -> dict[str, Any]:
    """What identifies a run, as plain data."""
    return {
        "model": task.describe(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "examples": {name: len(split) for name, split in dataset.splits.items()},
            **({"given": True} if dataset.given else {}),  # in Python: no name finds it again
        },
        "recipe": dataclasses.asdict(recipe),
        "backend": keras.backend.backend(),
        **settings,
    }


def directory_of(out: str | os.PathLike | None, name: str, fold: tuple[int, int] | None) -> Path:
    """The directory of a run: `out`, or else `runs/NAME`; of a fold a folder within it."""
    directory = Path(out or Path("runs") / name)
    return directory if fold is None else directory / f"fold{fold[0]}"


@contextlib.contextmanager
def open_run(directory: Path, record: Mapping[str, Any]) -> Iterator[None]:
    """Make the directory of a run, or find the same run in it, which no other process writes within the context. A
    record that differs in the number of epochs alone extends a run to more epochs.

    Raises:
        ZooError: for a directory that cannot be written, contains another run, or is in use; within the context for a
            full disk.
    """
    path = directory / RUN_FILE
    record = json.loads(json.dumps(record))
    _content(directory, record)  # before anything is written
    lock = filelock.FileLock(directory / LOCK_FILE)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ZooError(f"another process trains in {directory}: wait for it, or choose another --out") from None
    except OSError as error:
        raise ZooError(f"cannot write the run to {directory}: {error.strerror or error}") from None
    with lock, naming(directory):
        if content := _content(directory, record):
            write_json(path, content)
        yield


def _content(directory: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to write to a run's file; None where the same run is there already."""
    path = directory / RUN_FILE
    if (directory / SEARCH_FILE).exists():
        raise ZooError(f"{directory} contains a search: choose another --out")
    if not path.exists():
        return {**record, "provenance": provenance()}
    found = _completed(read_json(path))
    new = {key: value for key, value in record["model"].items() if not value}  # that a later release added
    found["model"] = {**new, **found.get("model", {})}
    if "origin" in found:
        found["origin"] = {**record.get("origin", {}), **found["origin"]}
    if extended := _extended(found, record):
        return extended
    if changed := [key for key in record if found.get(key) != record[key]]:
        raise ZooError(
            f"{directory} contains another run (different {', '.join(changed)}): choose another --out or remove it"
        )
    return None


def _completed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the defaults of keys that a later release added to recipes, augmentation and preprocessing."""
    recipe = record.get("recipe", {})
    parts = [(recipe, Recipe), (recipe.get("augmentation", {}), Augmentation)]
    parts += [(stage, Stage) for stage in record.get("stages", ())]
    for part, kind in [*parts, (record.get("model", {}).get("preprocessing", {}), Preprocessing)]:
        added = [field for field in dataclasses.fields(kind) if field.name not in part]
        known = [field for field in added if isinstance(field.default, str | int | float | tuple | None)]
        part |= {field.name: json.loads(json.dumps(field.default)) for field in known}
    return record


def _extended(found: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a run with more epochs, without its results; None where more than that differs: also where the
    schedule depends on the number of epochs, and for fine-tuning, whose stages have epochs of their own."""
    before, now = found.get("recipe", {}), record["recipe"]
    epochs = before.get("epochs", now["epochs"])
    if "stages" in record or epochs >= now["epochs"] or {**before, "epochs": now["epochs"]} != now:
        return None
    schedule = from_dict(Schedule, now["schedule"])
    if any(schedule.factor(epoch, epochs) != schedule.factor(epoch, now["epochs"]) for epoch in range(epochs)):
        return None
    if now["lookahead"] or any(found.get(key) != value for key, value in record.items() if key != "recipe"):
        return None  # the decay of the slow weights depends on the number of epochs too
    return {**record, "provenance": found["provenance"]}


def load_run(directory: str | os.PathLike) -> Run:
    """A finished run from its directory.

    Raises:
        ZooError: for a directory without a run, or with one that is not finished.
    """
    directory = Path(directory)
    record = schema.read(directory / RUN_FILE, schema.RunFile)
    if "metrics" not in record:
        raise ZooError(f"the run in {directory} is not finished: train it with the same arguments to resume it")
    task = tasks.restore(record.get("trained", record["model"]))
    model = task.build()
    assign(named_weights(model), load_arrays(directory / WEIGHTS_FILE))
    return Run(directory, task, model, tasks.read_recipe(record["recipe"], task.spec.task), record)


def data_of(
    record: Mapping[str, Any], task: tasks.Task, recipe: Recipe, data: str | os.PathLike | Dataset | None = None
) -> Dataset:
    """The data set that a run was trained on, found by the name in its record unless `data` gives its place.

    Raises:
        ZooError: where it is not found, or differs from the record's fingerprint.
    """
    name = record["data"]["name"]
    fold = record.get("fold")
    dataset = task.select(load_for(task.spec, task.input_shape, recipe, data or name, fold=fold))
    if dataset.fingerprint != record["data"].get("fingerprint"):
        raise ZooError(f"{dataset.name} is not the data set {name} of the run: its fingerprint differs")
    return dataset


def provenance() -> dict[str, Any]:
    """Version of the code, and time: recorded when a run starts, and with an export."""
    return {**code_version(), "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def code_version() -> dict[str, Any]:
    """Commit of this package's checkout, and versions."""
    packages = ("zoo", "tensorflow", "keras", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"commit": _commit(), "versions": versions | {"python": platform.python_version()}}


def _commit() -> str | None:
    """The commit of the checkout that this package is in; None for any other installation."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or None
