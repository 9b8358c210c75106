"""Weights that another package publishes, as artifacts in the cache: weights and manifest, without a graph."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from zoo import registry, tasks
from zoo.artifacts.manifest import FORMAT, MANIFEST, sha256
from zoo.errors import note
from zoo.files import cache_folder, write_json, written


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
    task = tasks.get_task(spec.task)(spec, spec.input_shape, classes, preprocessing=spec.preprocessing)
    with written(folder / "1", tf.errors.OpError) as temporary:
        (temporary / MANIFEST).parent.mkdir(parents=True)
        weights = {key: tf.Variable(value, trainable=False) for key, value in arrays.items()}
        tf.train.Checkpoint(weights=weights).write(str(temporary / "variables" / "variables"))
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
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
            "files": {
                file.relative_to(temporary).as_posix(): {"size": file.stat().st_size, "sha256": sha256(file)}
                for file in files
            },
        }
        write_json(temporary / MANIFEST, manifest)
    note(f"weights of {spec.origin} are kept in {folder}")
    return folder
