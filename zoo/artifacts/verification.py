"""Verification: files, operations, weights, and the golden examples in a process with TensorFlow alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.artifacts.lookup import open_artifact
from zoo.artifacts.operations import check_operations
from zoo.artifacts.rebuilding import rebuild
from zoo.errors import ZooError

TOLERANCE = 1e-5  # how far a served output may be from the Keras model's
TIMEOUT = 600  # seconds for serving the golden examples: a graph that never ends does not pass


def verify(*names: str | os.PathLike) -> list[dict[str, Any]]:
    """Verify artifacts: files by their sha256, operations by an allow-list, weights by the network that the manifest
    describes, then the golden examples in a fresh process that has TensorFlow alone.

    Returns:
        For each artifact its `path`, `difference` (the largest of any output from the golden one), `signatures`, and
        the `milliseconds` that one example takes, all measured in that one process.

    Raises:
        ZooError: for the first artifact that fails, and why.
    """
    artifacts = [open_artifact(name) for name in names]
    for artifact in artifacts:
        check_operations(artifact.path)
        rebuild(artifact)
    return serve_golden_examples(artifact.path for artifact in artifacts)


def serve_golden_examples(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Run the golden examples of each path in one fresh process without zoo or Keras."""
    script = Path(__file__).parent / "serve_golden.py"
    command = [sys.executable, "-P", str(script), *(str(path.resolve()) for path in paths)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ZooError(f"the golden examples were not served within {TIMEOUT} seconds") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ZooError(f"plain TensorFlow cannot serve the artifact: {reason}")
    results = json.loads(done.stdout.splitlines()[-1])
    for result in results:
        if not result["difference"] <= TOLERANCE:  # not: NaN is no pass
            worst = result["worst"]
            raise ZooError(f"{result['path']}: {worst} differs by {result['difference']:.1e} from its golden example")
    return results
