"""What a training leaves behind: its directory, what identifies it, what came of it."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epy

from zoo import tasks
from zoo.data import Dataset
from zoo.data import load as load_data
from zoo.errors import ZooError
from zoo.files import read_json, write_json
from zoo.recipe import Recipe, from_dict
from zoo.tasks.base import picture_size
from zoo.weights import assign, load_arrays, named_weights

with epy.lazy_imports():
    import keras

RUN_FILE = "run.json"
WEIGHTS_FILE = "weights.npz"


@dataclasses.dataclass
class Run:
    """A trained network with all that is known of its training.

    Attributes:
        model: the network with the weights of the best epoch.
        record: what `run.json` holds: what identifies the run, and what came of it.
    """

    directory: Path
    task: tasks.Task
    model: keras.Model
    recipe: Recipe
    record: dict[str, Any]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch: `epoch` from 1, `seconds`, `learning_rate`, training and `val_` figures."""
        return self.record["history"]

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights the model has."""
        return self.record["best_epoch"]

    @property
    def tag(self) -> str:
        """What an export of it is called after the model's name, where nothing else is said."""
        return tag_of(self.record["data"]["name"], self.record.get("only_class"))

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Figures of the `validation` and `test` splits at the best epoch."""
        return self.record["metrics"]


def tag_of(data_name: str, only_class: str | None) -> str:
    """The data set's name, and after a dash the class where a network is of one alone: classes are no versions of one
    another."""
    return data_name if only_class is None else data_name + "-" + re.sub(r"[^\w-]+", "_", only_class)


def describe_run(task: tasks.Task, dataset: Dataset, recipe: Recipe, **settings: Any) -> dict[str, Any]:
    """What identifies a run, as plain data."""
    return {
        "model": task.describe(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "examples": {name: len(split) for name, split in dataset.splits.items()},
        },
        "recipe": dataclasses.asdict(recipe),
        "backend": keras.backend.backend(),
        **settings,
    }


def open_run(directory: Path, record: Mapping[str, Any]) -> None:
    """Make the directory of a run, or find the same run in it.

    Raises:
        ZooError: for a directory that cannot be written or holds another run.
    """
    path = directory / RUN_FILE
    record = json.loads(json.dumps(record))
    if path.exists():
        found = read_json(path)
        changed = [key for key in record if found.get(key) != record[key]]
        if changed:
            raise ZooError(
                f"{directory} holds another run (other {', '.join(changed)}): choose another --out or remove it"
            )
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, {**record, "provenance": provenance()})
    except OSError as error:
        raise ZooError(f"cannot write the run to {directory}: {error.strerror}") from None


def load_run(directory: str | os.PathLike) -> Run:
    """A finished run from its directory.

    Raises:
        ZooError: for a directory that holds none, or one that is not finished.
    """
    directory = Path(directory)
    record = read_json(directory / RUN_FILE)
    if "metrics" not in record:
        raise ZooError(f"the run in {directory} is not finished: train it with the same arguments to go on")
    task = tasks.restore(record.get("trained", record["model"]))
    model = task.build()
    assign(named_weights(model), load_arrays(directory / WEIGHTS_FILE))
    return Run(directory, task, model, from_dict(Recipe, record["recipe"]), record)


def data_of(record: Mapping[str, Any], task: tasks.Task, data: str | os.PathLike | Dataset | None = None) -> Dataset:
    """The data set that a run was trained on, found by the name in its record where `data` does not say where it is.

    Raises:
        ZooError: where it is not found, or is another than the record's fingerprint says.
    """
    name, fingerprint = record["data"]["name"], record["data"].get("fingerprint")
    size, ignored = picture_size(task.spec, task.input_shape), record.get("recipe", {}).get("ignored_class")
    dataset = task.narrowed(load_data(data or name, image_size=size, ignored_class=ignored))
    if dataset.fingerprint != fingerprint:
        raise ZooError(f"{dataset.name} is not the data set {name} of the run: its fingerprint differs")
    return dataset


def provenance() -> dict[str, Any]:
    """Commit of this package's checkout, versions and the time: written with a run as it starts, and with an export."""
    packages = ("zoo", "tensorflow", "keras", "numpy")
    return {
        "commit": _commit(),
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of the checkout that this package lies in; None where it is installed otherwise."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or None
