"""Weights that another package publishes, as artifacts in the cache: weights and manifest, without a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import filelock
import numpy as np
import tensorflow as tf

from zoo import registry, tasks
from zoo.artifacts.manifest import FORMAT, MANIFEST, file_entries
from zoo.errors import note
from zoo.files import cache_folder, naming, write_json, written
from zoo.spec import ModelSpec


def converted(name: str, tag: str) -> Path:
    """The folder `NAME.TAG` of weights that a spec names as `pretrained`, fetched and written at the first call.

    Raises:
        ZooError: where they cannot be fetched or written.
    """
    spec = registry.get_spec(name)
    folder = cache_folder() / f"{spec.name}.{tag}"
    if (folder / "1").is_dir():
        return folder
    arrays, classes = spec.pretrained[tag]()
    with naming(folder):
        cache_folder().mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache_folder() / f".{folder.name}.lock"):
        if not (folder / "1").is_dir():  # another process may have written it meanwhile
            _write(spec, folder, arrays, classes)
    return folder


def _write(spec: ModelSpec, folder: Path, arrays: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> None:
    task = tasks.get_task(spec.task)(spec, spec.input_shape, classes, preprocessing=spec.preprocessing)
    with written(folder / "1", tf.errors.OpError) as temporary:
        (temporary / MANIFEST).parent.mkdir(parents=True)
        weights = {key: tf.Variable(value, trainable=False) for key, value in arrays.items()}
        tf.train.Checkpoint(weights=weights).write(str(temporary / "variables" / "variables"))
        score = spec.reported[0] if spec.reported else None
        unmeasured = dict.fromkeys(("validation", "test", "mean", "standard_deviation"))
        manifest = {
            "format": FORMAT,
            "name": folder.name,
            "model": task.describe(),
            "weights": {"storage": "float32", "parameters": int(sum(array.size for array in arrays.values()))},
            "scores": {
                **unmeasured,
                "dataset": score.dataset if score else None,
                "metric": score.metric if score else None,
                "runs": 0,
                "reported": score.value if score else None,
                "reference": score.reference if score else None,
            },
            "training": None,
            "runs": [],
            "provenance": {"origin": spec.origin},
            "files": file_entries(temporary),
        }
        write_json(temporary / MANIFEST, manifest)
    note(f"weights of {spec.origin} are kept in {folder}")
