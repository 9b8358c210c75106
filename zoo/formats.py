"""Other formats of the numeric network, each written by Keras' own exporter and compared before it counts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.artifacts import TOLERANCE
from zoo.errors import ZooError
from zoo.tasks import Task


def write(task: Task, model: keras.Model, path: Path, format: str) -> None:
    """Write the task's numeric network to `path` and compare it with the model.

    Raises:
        ZooError: for a network that takes raw text, a package that is missing, or outputs that differ by more than
            1e-5, relative to the largest where that is above 1.
    """
    if path.suffix != SUFFIXES.get(format, path.suffix):
        raise ZooError(f"a {format} file must be named NAME{SUFFIXES[format]}")
    inputs = task.network_inputs(7)
    network = task.numeric_network(model)
    expected = network.predict(inputs, verbose=0)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the exporters' own, of NumPy
            served = WRITERS[format](network, path, inputs)
    except ImportError as error:
        raise ZooError(f"{format} needs the package {error.name}: pip install 'zoo[{format}]'") from None
    # Scores may be of any size: squared distances reach hundreds, where float32 itself is 1e-5 apart.
    difference = float(np.max(np.abs(served - expected)) / max(1.0, np.max(np.abs(expected))))
    if not difference <= TOLERANCE:
        raise ZooError(f"the {format} file differs from the model by {difference:.1e}: it was not kept")


def _onnx(network: keras.Model, path: Path, inputs: np.ndarray) -> np.ndarray:
    import onnxruntime
    import tf2onnx  # noqa: F401  Keras imports it late and tells of its absence less plainly

    network.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def _litert(network: keras.Model, path: Path, inputs: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    network.export(path, format="litert", verbose=False)
    interpreter = Interpreter(str(path))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, inputs)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _keras(network: keras.Model, path: Path, inputs: np.ndarray) -> np.ndarray:
    plain = type(network).from_config(network.get_config())  # without the loss that it was compiled with
    plain.set_weights(network.get_weights())
    plain.save(path)
    return keras.saving.load_model(path, safe_mode=True).predict(inputs, verbose=0)


SUFFIXES = {"litert": ".tflite", "keras": ".keras"}  # which their writers insist on
WRITERS: dict[str, Callable[..., Any]] = {"onnx": _onnx, "litert": _litert, "keras": _keras}
