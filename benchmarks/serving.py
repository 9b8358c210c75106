"""Prediction: an exported SavedModel in TensorFlow against its bare network, Keras and ONNX Runtime.

    python benchmarks/serving.py        (needs onnx, tf2onnx and onnxruntime: the extra `onnx`)

The SavedModel and the ONNX file take images (uint8, 28 x 28): they resize, pad and scale in their graphs, and return
probabilities and class ids, the SavedModel class names too. The others take the network's input, prepared before, and
return the network's output: `network` is the same network as a TensorFlow graph without preprocessing, `predict` and
`Keras call` run the Keras model. Each call starts from a NumPy array and ends with one. The weights are the initial
ones: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnxruntime
import tensorflow as tf
from common import interleaved, ratios, write_results

import zoo
from zoo import preprocessing

MODELS = ("network3_relu", "lenet5")
BATCH_SIZES = (1, 256)
CONTENDERS = ("SavedModel", "network", "predict", "Keras call", "ONNX Runtime")


def contenders(name: str, batch_size: int, folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """A function for each contender that predicts one batch."""
    spec = zoo.get_spec(name)
    model = zoo.create_model(name)
    exported = {"spec": spec, "classes": [str(digit) for digit in range(spec.classes)]}
    artifact = zoo.export(model, folder / f"{name}.fresh", **exported)
    onnx = zoo.export(model, folder / f"{name}.onnx", format="onnx", **exported)
    served = tf.saved_model.load(str(artifact))
    signature = served.signatures["serving_default"]
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (batch_size, 28, 28, 1), np.uint8)
    inputs = preprocessing.apply(tf.constant(images), spec.preprocessing, 1).numpy()
    network = tf.function(lambda inputs: model(inputs, training=False), autograph=False)

    def from_images(served: object = served) -> np.ndarray:  # the loaded object must live as long as its signature
        return signature(images=tf.constant(images))["probabilities"].numpy()

    functions = (
        from_images,
        lambda: network(tf.constant(inputs)).numpy(),
        lambda: model.predict(inputs, batch_size=batch_size, verbose=0),
        lambda: model(inputs, training=False).numpy(),
        lambda: session.run(None, {"images": images})[0],
    )
    return dict(zip(CONTENDERS, functions, strict=True))


def milliseconds(predict: Callable[[], np.ndarray], seconds: float) -> Callable[[], float]:
    """A function that calls `predict` for `seconds` and returns the median milliseconds of a call."""

    def measure() -> float:
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            predict()
            times.append(1000 * (time.perf_counter() - start))
        return statistics.median(times)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls a round")
    parser.add_argument("--quick", action="store_true", help="a smoke run: short, nothing written")
    options = parser.parse_args()
    repeats, seconds = (1, 0.2) if options.quick else (options.repeats, options.seconds)
    results = {}
    for name in MODELS:
        for batch_size in BATCH_SIZES:
            with tempfile.TemporaryDirectory() as folder:
                functions = contenders(name, batch_size, Path(folder))
            measured = interleaved({key: milliseconds(call, seconds) for key, call in functions.items()}, repeats)
            compared = {key: ratios(measured, key, "SavedModel") for key in CONTENDERS[1:]}
            title = f"{name}, batch {batch_size}"
            results[title] = {"milliseconds_a_call": measured, "times_the_saved_model": compared}
            print(f"{title:28}{'ms a call':>11}{'images/s':>11}{'time / SavedModel':>19}")
            for key, times in measured.items():
                ratio = compared[key]["median"] if key in compared else 1.0
                print(f"  {key:26}{times['median']:11.2f}{1000 * batch_size / times['median']:11,.0f}{ratio:19.2f}")
    if not options.quick:
        record = {"onnxruntime": onnxruntime.__version__, "results": results}
        path = write_results("serving", record)
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
