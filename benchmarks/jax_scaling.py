"""Keras on JAX with `keras.distribution.DataParallel` beside `zoo train --workers`, in 1, 2 and 4 processes.

    python benchmarks/jax_scaling.py    needs JAX too; writes results/jax_scaling.json and a table in docs/scaling.md

Both train one network on the same number of batches, in processes that share this machine's cores, in turn. The second
epoch counts. Ours includes validation and checkpoints, JAX's has neither.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import RESULTS, free_addresses, write_between, write_results

import zoo

COUNTS = (1, 2, 4)
ROUNDS = 3
KEY, MODEL = "classification", "network3_relu"  # of `scaling.TRAINED`
EXAMPLES, BATCH, RATE = 1_024, 64, 0.03
PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"


class Seconds(keras.callbacks.Callback):
    """The seconds of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.last = time.perf_counter() - self.start


def train_on_jax(address: str, count: int, number: int) -> dict[str, Any]:
    """Milliseconds a step and the losses of two epochs, as one of the processes."""
    if count > 1:
        keras.distribution.initialize(address, count, number)
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    keras.utils.set_random_seed(0)
    split, steps, seconds = zoo.data.load("mnist").splits["train"].head(EXAMPLES), EXAMPLES // BATCH, Seconds()
    images = np.asarray(split.inputs, np.float32) / 255
    batches = tf.data.Dataset.from_tensor_slices((images, split.targets)).batch(BATCH).repeat()
    model = zoo.get_spec(MODEL).build()
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fitted = model.fit(batches, epochs=2, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[seconds])
    return {"step_ms": 1000 * seconds.last / steps, "losses": fitted.history["loss"]}


def on_jax(count: int) -> dict[str, Any]:
    """What the first of several processes measures."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, *free_addresses(1), str(count)]
    processes = [
        subprocess.Popen([*command, str(number)], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a process failed, see above")
    return json.loads(outputs[0].splitlines()[-1])


def ours(count: int) -> dict[str, Any]:
    import scaling  # not in the processes of JAX

    if count == 1:
        return scaling.in_processes(scaling.train, KEY, EXAMPLES, "auto", (), None)
    return scaling.in_processes(scaling.train, KEY, EXAMPLES, "auto", count=count, joined=True)


def draw() -> None:
    """Writes the table into docs/scaling.md."""
    found = json.loads((RESULTS / "jax_scaling.json").read_text(encoding="utf-8"))
    lines = [
        "| milliseconds a step | 1 process | 2 processes | 4 processes | loss, largest difference from 1 process |"
    ]
    lines.append("|---|---|---|---|---|")
    for name, by_count in found["engines"].items():
        times = " | ".join(f"{statistics.median(one['step_ms'] for one in by_count[str(n)]):.1f}" for n in COUNTS)
        alone, *others = (np.array(by_count[str(count)][0]["losses"]) for count in COUNTS)
        difference = max(float(np.max(np.abs(other / alone - 1))) for other in others)
        lines.append(f"| {name} | {times} | {difference:.1e} |")
    write_between(PAGE, "jax", "\n".join(lines))


def main() -> None:
    engines = {"`zoo train --workers`": ours, "Keras on JAX, `DataParallel`": on_jax}
    found: dict[str, dict[str, list]] = {name: {str(count): [] for count in COUNTS} for name in engines}
    for _ in range(ROUNDS):
        for count in COUNTS:
            for name, measure in engines.items():
                found[name][str(count)].append(measure(count))
                print(count, name, found[name][str(count)][-1], flush=True)
    write_results("jax_scaling", {"engines": found})
    draw()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(train_on_jax(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
