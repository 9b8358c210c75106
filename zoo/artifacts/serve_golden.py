"""Serve golden examples with TensorFlow alone: `python -P serve_golden.py DIRECTORY...`, one JSON line out.

This file is run by its path in a process of its own, in which neither zoo nor Keras can be imported.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.modules["keras"] = sys.modules["zoo"] = None  # type: ignore[assignment]  # TensorFlow imports Keras of itself where it is installed

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def difference(served, golden):
    """The largest absolute difference; infinite for another type, shape or text."""
    if served.dtype.kind in "OS":
        served = np.array([text.decode() for text in served.ravel()]).reshape(served.shape)
    elif served.dtype != golden.dtype:
        return float("inf")
    if served.shape != golden.shape:
        return float("inf")
    if served.dtype.kind == "U":
        return 0.0 if np.array_equal(served, golden) else float("inf")
    gap = float(np.max(np.abs(served.astype(np.float64) - golden.astype(np.float64)), initial=0.0))
    return gap if gap == gap else float("inf")  # NaN is as wrong as can be


def latency(signature, inputs, calls=30):
    """The median time of a call with one example, in milliseconds."""
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        for value in signature(**inputs).values():
            value.numpy()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def serve(directory):
    loaded = tf.saved_model.load(directory)
    cases: dict = {}
    with np.load(Path(directory) / "assets.extra" / "golden.npz", allow_pickle=False) as golden:
        for key in golden.files:
            signature, count, way, name = key.split("/")
            cases.setdefault((signature, count), {"inputs": {}, "outputs": {}})[way][name] = golden[key]
    missing = set(loaded.signatures) - {signature for signature, _ in cases}
    differences = {f"{signature}, without a golden example,": float("inf") for signature in missing}
    for (signature, count), case in cases.items():
        inputs = {name: tf.constant(value) for name, value in case["inputs"].items()}
        outputs = loaded.signatures[signature](**inputs)
        if set(outputs) != set(case["outputs"]):
            differences[f"{signature} outputs {sorted(outputs)}"] = float("inf")
            continue
        for name, value in outputs.items():
            differences[f"{signature} {name} at {count} examples"] = difference(value.numpy(), case["outputs"][name])
    single = [value["inputs"] for (name, count), value in cases.items() if (name, count) == ("serving_default", "1")]
    worst = max(differences, key=lambda name: differences[name])
    return {
        "path": directory,
        "difference": differences[worst],
        "worst": worst,
        "signatures": sorted(loaded.signatures),
        "milliseconds": latency(loaded.signatures["serving_default"], single[0]) if single else None,
    }


print(json.dumps([serve(directory) for directory in sys.argv[1:]]))
