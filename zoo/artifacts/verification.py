"""Verification: files, operations, weights, and the stored graph compared with the network that they describe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.artifacts.examples import examples
from zoo.artifacts.lookup import open_artifact
from zoo.artifacts.operations import check_operations
from zoo.artifacts.rebuilding import Rebuilt, rebuild
from zoo.errors import ZooError

TOLERANCE = 1e-5  # how far a served output may be from the Keras model's
FRESH = 4  # cases of random inputs, each with a number of examples and a size of its own
MOST_EXAMPLES = 5  # in one of them
TIMEOUT = 600  # seconds of waiting for the graphs, on however busy a machine
SECONDS = 10  # of computing that a graph may take beyond `SLOWER` times what the rebuilt network takes
SLOWER = 20
MEMORY = 2**30  # bytes that the graphs may take beyond `COPIES` times the size of their files
COPIES = 8


def verify(*names: str | os.PathLike) -> list[dict[str, Any]]:
    """Verify artifacts: files by their sha256, operations by an allow-list, weights by the network that the manifest
    describes. Then a fresh process, which has TensorFlow alone and limits on time, memory and files, runs the stored
    graph, whose outputs must be those of that network: for random inputs of several sizes, which are new at each call
    of this function, and for the golden examples.

    Returns:
        For each artifact its `path`, `difference` (the largest of any output from the expected one), `signatures`, and
        the `milliseconds` that one example takes, all measured in that one process.

    Raises:
        ZooError: for the first artifact that fails, and why.
    """
    networks = {}
    for artifact in map(open_artifact, names):
        check_operations(artifact.path)
        networks[artifact.path] = rebuild(artifact)
    return serve_golden_examples(networks)


def serve_golden_examples(networks: Mapping[Path, Rebuilt]) -> list[dict[str, Any]]:
    """Compare the graph of each directory with its network, in one fresh process without zoo or Keras."""
    random = np.random.default_rng()
    sizes = [file.stat().st_size for path in networks for file in path.rglob("*") if file.is_file()]
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, f"{number}.npz")) for number, _ in enumerate(networks)]
        computing = 0.0
        for file, network in zip(files, networks.values(), strict=True):
            examples(network.task, network.signatures, {"traced": (1, 0)})  # which takes longer than computing
            started = time.process_time()
            counts, seeds = random.integers(1, MOST_EXAMPLES + 1, FRESH), random.integers(1, 2**31, FRESH)
            cases = {str(number): (int(counts[number]), int(seeds[number])) for number in range(FRESH)}
            np.savez(file, allow_pickle=False, **examples(network.task, network.signatures, cases))
            computing += time.process_time() - started
        request = {
            "directories": [str(path.resolve()) for path in networks],
            "examples": files,
            "seconds": SECONDS * len(files) + SLOWER * computing,
            "bytes": MEMORY + COPIES * sum(sizes),
        }
        results = _served(request)
    for result in results:
        if not result["difference"] <= TOLERANCE:  # not: NaN is no pass
            worst = result["worst"]
            raise ZooError(f"{result['path']}: {worst} differs by {result['difference']:.1e} from the network's")
    return results


def _served(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the process answers."""
    command = [sys.executable, "-P", "-B", str(Path(__file__).parent / "serve_golden.py"), json.dumps(request)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ZooError(f"the artifact was not served within {TIMEOUT} seconds") from None
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        reason = f"its graph computes more than {request['seconds']:.0f} seconds"
    elif done.returncode < 0:
        reason = f"its graph ends the process, which may take {request['bytes'] / 1e9:.1f} GB ({reason})"
    raise ZooError(f"plain TensorFlow cannot serve the artifact: {reason}")
