"""Start-up: how long a command or an import takes in a fresh process, and `create_model` in a warm one.

    python benchmarks/startup.py

Listing models must cost next to nothing: neither TensorFlow nor Keras may be imported for it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import interleaved, write_results

import zoo

PYTHON = [sys.executable, "-c"]
PROCESSES = {
    "python -c pass": [*PYTHON, "pass"],
    "import zoo": [*PYTHON, "import zoo"],
    "zoo.list_models()": [*PYTHON, "import zoo; zoo.list_models()"],
    "zoo list": [str(Path(sys.executable).with_name("zoo")), "list"],
    "import keras": [*PYTHON, "import keras"],
    "import zoo, keras": [*PYTHON, "import zoo, keras"],
}
MODEL = "network3_relu"


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_process(command: list[str]) -> Callable[[], float]:
    return lambda: seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def imports_tensorflow() -> bool:
    """Whether listing the models imports TensorFlow or Keras."""
    script = "import sys, zoo; zoo.list_models(); print({'tensorflow', 'keras'} & sys.modules.keys() and 'yes')"
    done = subprocess.run([*PYTHON, script], check=True, capture_output=True, text=True)
    return done.stdout.strip() == "yes"


def warm_loading(folder: Path, repeats: int) -> dict[str, dict]:
    """Seconds to build a network afresh and from an artifact, in this process, where TensorFlow runs already."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = zoo.train(MODEL, "digits", out=folder / "run", epochs=1, batch_size=128)
    artifact = zoo.export(run, folder / f"{MODEL}.digits")
    return interleaved(
        {
            "create_model, fresh": lambda: seconds(lambda: zoo.create_model(MODEL)),
            "create_model, artifact": lambda: seconds(lambda: zoo.create_model(MODEL, artifact)),
            "zoo.load, artifact": lambda: seconds(lambda: zoo.load(artifact)),
        },
        repeats,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a smoke run: once each, nothing written")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    processes = interleaved({name: in_process(command) for name, command in PROCESSES.items()}, repeats)
    with tempfile.TemporaryDirectory() as folder:
        warm = warm_loading(Path(folder), 2 * repeats)
    bare = processes["python -c pass"]["median"]
    heavy = imports_tensorflow()
    print(f"{'fresh process':24}{'seconds':>9}{'above python':>15}")
    for name, results in processes.items():
        print(f"{name:24}{results['median']:9.3f}{results['median'] - bare:15.3f}")
    print(f"{'warm process':24}{'seconds':>9}")
    for name, results in warm.items():
        print(f"{name:24}{results['median']:9.3f}")
    print(f"listing imports TensorFlow or Keras: {'yes' if heavy else 'no'}")
    if not options.quick:
        results = {"unit": "seconds", "fresh_process": processes, "warm_process": warm, "model": MODEL}
        path = write_results("startup", {**results, "listing_imports_tensorflow": heavy})
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
