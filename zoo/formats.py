"""Other formats of the numeric network, each written by Keras' own exporter and compared before it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.artifacts import TOLERANCE
from zoo.errors import ZooError
from zoo.tasks import Task


def write(task: Task, model: keras.Model, path: Path, format: str) -> None:
    """Write the task's numeric network to `path` and compare it with the model.

    Raises:
        ZooError: for a network that takes raw text, a package that is missing, or outputs that differ by more than
            1e-5.
    """
    inputs = task.network_inputs(7)
    network = task.numeric_network(model)
    expected = network.predict(inputs, verbose=0)
    try:
        served = WRITERS[format](network, path, inputs)
    except ImportError as error:
        raise ZooError(f"{format} needs the package {error.name}: pip install 'zoo[onnx]'") from None
    difference = float(np.max(np.abs(served - expected)))
    if not difference <= TOLERANCE:
        raise ZooError(f"the {format} file differs from the model by {difference:.1e}: it was not kept")


def _onnx(network: keras.Model, path: Path, inputs: np.ndarray) -> np.ndarray:
    import onnxruntime
    import tf2onnx  # noqa: F401  Keras imports it late and tells of its absence less plainly

    network.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def _litert(network: keras.Model, path: Path, inputs: np.ndarray) -> np.ndarray:
    network.export(path, format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(str(path))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, inputs)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _keras(network: keras.Model, path: Path, inputs: np.ndarray) -> np.ndarray:
    network.save(path)
    return keras.saving.load_model(path, safe_mode=True).predict(inputs, verbose=0)


WRITERS: dict[str, Callable[..., Any]] = {"onnx": _onnx, "litert": _litert, "keras": _keras}
