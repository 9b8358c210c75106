"""Other formats: ONNX and LiteRT files with the signature of the SavedModel, Keras files with the bare network.

An ONNX or LiteRT file holds `serving_default` with its preprocessing: the same inputs and numeric outputs with the same
names, for images of any size. Text outputs (`class_names`) are left out. The class names are metadata instead, a JSON
list: the property `class_names` of an ONNX model; the file `class_names.json` in the ZIP archive at the end of a LiteRT
file, where LiteRT keeps associated files. Of a character model such a file holds one step: a character number and the
states in, the logits of the next character and the new states out; the class names are the characters.
"""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.artifacts.verification import TOLERANCE
from zoo.errors import ZooError
from zoo.tasks import Task
from zoo.tasks.base import graph_function, named

Arrays = Mapping[str, np.ndarray]  # by the names of a signature's inputs or outputs
Serve = Callable[[Arrays], Arrays]

SIGNATURE = "serving_default"
BATCH_SIZES = (1, 7)  # at which a file is compared with the model
ROUNDED = 1e-3  # share of class ids, mask pixels or color values that may fall on the other side of a threshold
OPSET = 18  # the newest that tf2onnx writes


def write(task: Task, model: keras.Model, path: Path, format: str) -> None:
    """Write the served part of the model to `path` and compare the file with the model.

    The file must return the outputs of `serving_default` for images of several sizes in batches of 1 and 7: floats
    within 1e-5, and all integers but 1 of 1,000, which may be rounded to the other side of a threshold.

    Raises:
        ZooError: for a path with another suffix, a network that takes raw text, a missing package, or outputs that
            differ.
    """
    if path.suffix != SUFFIXES.get(format, path.suffix):
        raise ZooError(f"a {format} file must be named NAME{SUFFIXES[format]}")
    if format != "keras":
        model = task.portable(model)
    function = task.portable_function(model)
    if any(spec.dtype == tf.string for spec in function.input_signature):
        raise ZooError(f"{task.spec.name} takes raw text, which {format} files do not: export a SavedModel")
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # NumPy's, about the exporters
            serve = WRITERS[format](task, model, path)
    except ImportError as error:
        raise ZooError(f"{format} needs the package {error.name}: pip install 'zoo[{format}]'") from None
    for inputs in _test_inputs(task):
        served, expected = serve(inputs), _arrays(function(**_tensors(inputs)))
        for name in expected:
            difference = _difference(name, served, expected)
            if not difference <= TOLERANCE:  # not: NaN does not pass
                raise ZooError(
                    f"the {format} file was not kept: its {name} differ from the model's by {difference:.1e}"
                )


def _test_inputs(task: Task) -> Iterator[dict[str, Any]]:
    """Inputs of the signature, with images of the network's own size, of a smaller one and of a larger one."""
    for count in BATCH_SIZES:
        inputs = task.portable_inputs(count)
        yield inputs
        if "images" in inputs:
            yield {**inputs, "images": inputs["images"][:, ::2, ::3]}
            yield {**inputs, "images": np.tile(inputs["images"], (1, 3, 2, 1))[:, 1:]}


def _difference(name: str, served: Arrays, expected: Arrays) -> float:
    """The largest absolute difference of an output, of which integers may have a share of `ROUNDED`.

    Class ids are compared by their expected probabilities: classes with the same one are equally right. Infinite for
    another shape or type.
    """
    one, other = served[name], expected[name]
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return float("inf")
    exact = other.dtype.kind in "iu"
    if name == "class_ids":
        one, other = (np.take_along_axis(expected["probabilities"], ids[..., None], -1) for ids in (one, other))
    differences = np.abs(one.astype(np.float64) - other.astype(np.float64))
    if exact and np.mean(differences > TOLERANCE) <= ROUNDED:
        return 0.0
    return float(np.max(differences))


def _tensors(inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in inputs.items()}


def _arrays(outputs: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """Outputs without the texts among them."""
    return {name: value.numpy() for name, value in outputs.items() if value.dtype != tf.string}


def _numeric(task: Task, model: keras.Model) -> Any:
    """What the file computes as a graph function without text outputs."""
    function = task.portable_function(model)

    def without_texts(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: value for name, value in function(**inputs).items() if value.dtype != tf.string}

    specs = function.input_signature
    return graph_function(named(without_texts, *(spec.name for spec in specs)), *specs)


def _onnx(task: Task, model: keras.Model, path: Path) -> Serve:
    import onnx
    import onnxruntime
    import tf2onnx

    function = _numeric(task, model)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    onnx.helper.set_model_props(proto, {"class_names": json.dumps(task.classes)})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _litert(task: Task, model: keras.Model, path: Path) -> Serve:
    from ai_edge_litert.interpreter import Interpreter

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: _numeric(task, model)})
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE]).convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("class_names.json", json.dumps(task.classes))
    runner = Interpreter(str(path)).get_signature_runner(SIGNATURE)
    return lambda inputs: runner(**inputs)


def _keras(task: Task, model: keras.Model, path: Path) -> Serve:
    network = task.served(model)
    plain = type(network).from_config(network.get_config())  # without the loss that it was compiled with
    plain.set_weights(network.get_weights())
    plain.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    function = task.portable_function(model, lambda inputs: loaded(inputs, training=False))
    return lambda inputs: _arrays(function(**_tensors(inputs)))


SUFFIXES = {"litert": ".tflite", "keras": ".keras"}  # which their writers require
WRITERS: dict[str, Callable[[Task, keras.Model, Path], Serve]] = {"onnx": _onnx, "litert": _litert, "keras": _keras}
