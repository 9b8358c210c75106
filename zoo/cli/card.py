"""The model card of exported weights, as plain data from their manifest."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epy

import zoo
from zoo.artifacts import Artifact, read_manifest
from zoo.artifacts.manifest import GOLDEN
from zoo.errors import ZooError
from zoo.files import open_regular

with epy.lazy_imports():
    import numpy as np

    from zoo.data import licenses

LICENSE = "Apache-2.0"  # of the weights, as of the package


def card(path: Path, source: str) -> dict[str, Any]:
    """What is known of the weights in a version directory.

    Args:
        source: the name or path that the user gave, for the commands that load them.

    Raises:
        ZooError: for a directory whose manifest or golden examples are missing or damaged.
    """
    manifest = read_manifest(path)
    artifact, described, training = Artifact(path, manifest), manifest["model"], manifest["training"] or {}
    spec = zoo.get_spec(described["spec"])
    data, scores, recipe = training.get("data", {}), manifest["scores"], training.get("recipe", {})
    metric = scores["metric"]
    others: dict[str, float] = next((run["metrics"]["test"] for run in manifest["runs"]), {})
    runs = [run["metrics"]["test"][metric] for run in manifest["runs"] if metric in run["metrics"]["test"]]
    trained = {} if spec.ensemble else recipe
    signatures = _signatures(path)
    makes_images = "images" in signatures.get("serving_default", {}).get("outputs", {})
    return {
        "name": artifact.name,
        "version": path.name,
        "model": spec.name,
        "summary": f"{spec.summary} ({spec.year})",
        "task": spec.task,
        "references": list(spec.references),
        "classes": described["classes"],
        "data": {
            "name": data.get("name"),
            "examples": data.get("examples", {}),
            "fingerprint": data.get("fingerprint"),
            "license": licenses.license_of(data.get("name")),
        },
        "score": {
            **scores,
            "test_of_all_runs": runs,
            "others": {key: value for key, value in others.items() if key != metric},
        },
        "training": {
            "recipe_name": training.get("recipe_name"),
            "recipe": trained,
            "deviations": trained.get("deviations", []),
            "seed": training.get("seed"),
            "origin": training.get("origin", {}).get("name"),
            "members": [member["name"] for member in training.get("members", [])],
            "given_in_python": training.get("given_in_python", {}),
            "trained_by": training.get("trained_by", {}),
            "devices": training.get("devices"),
        },
        "license": LICENSE,
        "intended_use": _intended_use(spec, data.get("name"), reported=scores["reported"] is not None),
        "limits": _limits(
            described,
            data.get("name"),
            scores,
            training.get("origin", {}),
            makes_images=makes_images,
            writes="generate" in signatures,
        ),
        "parameters": manifest["weights"]["parameters"],
        "storage": manifest["weights"]["storage"],
        "bytes": artifact.size,
        "signatures": signatures,
        "usage": _usage(source, path, spec),
    }


def _intended_use(spec: zoo.ModelSpec, data_name: str | None, *, reported: bool) -> str:
    what = spec.task.replace("_", " ")
    like = f" of inputs like those of {data_name}" if data_name else ""
    compared = "; comparison with the reported score" if reported else ""
    return f"{what}{like}{compared}; teaching" + (
        "" if spec.ensemble else "; initial weights for fine-tuning on similar data"
    )


def _limits(
    described: Mapping[str, Any],
    data_name: str | None,
    scores: Mapping[str, Any],
    origin: Mapping[str, Any],
    *,
    makes_images: bool,
    writes: bool,
) -> list[str]:
    """What follows from the data that the weights were trained on."""
    limits = []
    *sides, channels = described["input_shape"]
    if len(sides) == 2:
        size = described["preprocessing"].get("size")
        kind = {1: "gray", 3: "RGB"}.get(channels, f"{channels}-band")
        resized = f", resized to {size[0]} x {size[1]} pixels" if size else " of any size"
        made = f"makes {kind} images of {sides[0]} x {sides[1]} pixels"
        limits.append(made if makes_images else f"takes {kind} images{resized}")
    if origin.get("classes"):
        seen = ", ".join(origin["classes"])
        limits.append(f"fine-tuned from {origin['name']}, which had been trained on {origin['data']}: {seen}")
    if data_name and makes_images:
        limits.append(f"trained on {data_name} alone: it makes images of no other kind")
    elif data_name:
        limits.append(f"trained on {data_name} alone: on inputs of another kind its outputs mean little")
    classes = described["classes"]
    if writes:
        limits.append(f"knows {len(classes)} characters: any other one counts as {classes[0]!r}")
    elif classes and not makes_images:
        limits.append(f"knows {len(classes)} classes and has no output for an input that belongs to none of them")
    if scores["runs"] == 1:
        limits.append("measured in one run: how much the score varies from run to run is unknown")
    if scores["test"] is None:
        limits.append("its quality was not measured")
    return limits


def _signatures(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """The inputs and outputs of each serving signature with their types, from the golden examples."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    if not (path / GOLDEN).exists():  # weights of another package, which hold no graph
        return found
    try:
        with open_regular(path / GOLDEN) as file, zipfile.ZipFile(file) as golden:
            for key in golden.namelist():
                signature, _, way, name = key.removesuffix(".npy").split("/")
                with golden.open(key) as array:  # of which the header alone is read
                    np.lib.format.read_magic(array)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(array)
                ways = found.setdefault(signature, {"inputs": {}, "outputs": {}})
                ways[way][name] = _type(shape, dtype)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ZooError(f"{path / GOLDEN} is damaged: {error}") from None
    return found


def _type(shape: tuple[int, ...], dtype: Any) -> str:
    name = "string" if dtype.kind in "SU" else dtype.name
    return f"{name}, {len(shape)} {'axis' if len(shape) == 1 else 'axes'}" if shape else name


def _usage(source: str, path: Path, spec: zoo.ModelSpec) -> list[str]:
    """Ways to load the weights, in Python and on the command line."""
    named = repr(source) if source.startswith(f"{spec.name}.") else f"{spec.name!r}, weights={source!r}"
    return [
        f"zoo.create_model({named})",
        f"zoo.load({source!r})",
        f"tf.saved_model.load({str(path)!r})",
        f"zoo serve {shlex.quote(source)}",
    ]
