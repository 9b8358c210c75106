"""Serve examples with TensorFlow alone: `python -P serve_golden.py REQUEST`, one JSON line out.

The request is a JSON object: `directories`, for each of them a file of `examples` that only the caller knows, and the
limits `seconds` of computing and `bytes` of memory beyond those of TensorFlow itself. This file is run by its path in a
process of its own, in which neither zoo nor Keras can be imported.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.modules["keras"] = sys.modules["zoo"] = None  # type: ignore[assignment]  # TensorFlow imports Keras of itself where it is installed

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

try:
    import resource
except ImportError:  # Windows: the caller's limit on time remains
    resource = None  # type: ignore[assignment]

ROUNDED = 1e-3  # share of integers, such as color values, that may be rounded to the other side
CALLS = 100  # of the first example, all compared
SECONDS = 1  # after which they end


def limit(seconds, memory):
    """Limits on the time, the memory and the files of this process: it can write nothing."""
    if resource is None:
        return
    used = 0
    if Path("/proc/self/status").is_file():
        lines = Path("/proc/self/status").read_text().splitlines()
        used = 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData:")))
    limits = {
        resource.RLIMIT_CPU: int(time.process_time() + seconds + 1),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 128,
    }
    if used:
        limits[resource.RLIMIT_DATA] = used + memory
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def difference(served, expected):
    """The largest difference, as a share of the largest expected value where that is above 1: such as the nats of a
    whole text, of which float32 keeps seven digits. Infinite for another type, shape or text."""
    if served.dtype.kind in "OS":
        served = np.array([text.decode() for text in served.ravel()]).reshape(served.shape)
    elif served.dtype != expected.dtype:
        return float("inf")
    if served.shape != expected.shape:
        return float("inf")
    if served.dtype.kind == "U":
        return 0.0 if np.array_equal(served, expected) else float("inf")
    gaps = np.abs(served.astype(np.float64) - expected.astype(np.float64))
    near = served.dtype.kind == "i" or (
        served.dtype.kind == "u" and np.max(gaps, initial=0.0) <= 1
    )  # ids have no order
    if near and gaps.size and np.mean(gaps > 0) <= ROUNDED:
        return 0.0
    gap = float(np.max(gaps, initial=0.0)) / max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    return gap if gap == gap else float("inf")  # NaN is as wrong as can be


def read(file, cases, kind):
    """The examples of a file, by what they are, their signature and their label."""
    with np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            signature, label, way, name = key.split("/")
            case = cases.setdefault((kind, signature, label), {"inputs": {}, "outputs": {}})
            case[way][name] = arrays[key]


def serve(directory, examples):
    loaded = tf.saved_model.load(directory)
    cases: dict = {}
    read(Path(directory) / "assets.extra" / "golden.npz", cases, "golden")
    read(examples, cases, "fresh")
    differences: dict = {}
    for kind in ("golden", "fresh"):
        known = {signature for case, signature, _ in cases if case == kind}
        for signature in known ^ set(loaded.signatures):
            differences[f"{signature}, which the graph and the {kind} examples do not both have,"] = float("inf")

    def call(case, key):
        outputs = loaded.signatures[key[1]](**case["tensors"])
        if set(outputs) != set(case["outputs"]):
            differences[f"{key[1]} outputs {sorted(outputs)}"] = float("inf")
            return
        for name, value in outputs.items():
            what = f"{key[1]} {name} of {key[0]} example {key[2]}"
            gap = difference(value.numpy(), case["outputs"][name])
            differences[what] = max(gap, differences.get(what, 0.0))

    cases = {key: case for key, case in cases.items() if key[1] in loaded.signatures}
    for case in cases.values():
        case["tensors"] = {name: tf.constant(value) for name, value in case["inputs"].items()}
    for _ in range(2):  # in turn: an answer may not depend on the request before it
        for key, case in cases.items():
            call(case, key)
    seconds: list = []
    single, end = ("golden", "serving_default", "1"), time.perf_counter() + SECONDS
    while single in cases and len(seconds) < CALLS and time.perf_counter() < end:
        start = time.perf_counter()
        call(cases[single], single)
        seconds.append(time.perf_counter() - start)
    worst = max(differences, key=lambda name: differences[name])
    return {
        "path": directory,
        "difference": differences[worst],
        "worst": worst,
        "signatures": sorted(loaded.signatures),
        "milliseconds": 1000 * statistics.median(seconds) if seconds else None,
    }


request = json.loads(sys.argv[1])
limit(request["seconds"] + SECONDS * len(request["directories"]) * (os.cpu_count() or 1), request["bytes"])
print(json.dumps([serve(*pair) for pair in zip(request["directories"], request["examples"], strict=True)]))
