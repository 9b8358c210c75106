"""Training on several devices and in several processes: throughput, equality, time of all-reduce, and a model of more.

    python benchmarks/scaling.py            measures, writes results/scaling.json, docs/scaling.png and the tables
                                            in docs/scaling.md; on an idle machine, about 15 minutes
    python benchmarks/scaling.py --quick    a smoke run, writes nothing
    python benchmarks/scaling.py --draw     writes the plot and the tables from the results again

Each measurement has processes of its own. Of each training the second epoch counts, with its validation and
checkpoints. The processes share this machine's cores: they show what all-reduce costs, not what more machines gain.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from common import RESULTS, free_addresses, write_between, write_results

import zoo
from zoo.data import Dataset
from zoo.training import workers
from zoo.training.batches import training_batches

COUNTS = (1, 2, 4)
PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
STEADY = {"dropout": 0.0, "embedding_dropout": 0.0}  # masks differ from replica to replica, as does a weight drop
# by what it shows: model, data, builder arguments, batch size, and whether several devices equal one
TRAINED: dict[str, tuple[str, str, dict, int, bool]] = {
    "classification": ("network3_relu", "mnist", {}, 64, True),
    "classification, LSTM": ("lstm_mnist", "mnist", {"width": 32, "dropout": 0.0}, 64, True),
    "segmentation": ("unet_satellite", "scenes", {"width": 4, "depth": 2, "normalization": False}, 8, False),
    "segmentation, batch normalization": ("unet_satellite", "scenes", {"width": 4, "depth": 2}, 8, False),
    "segmentation, exclusive classes": ("unet_small", "isbi_membrane", {"width": 4, "depth": 2}, 8, False),
    "texts, LSTM": ("lstm_text", "rt_polarity.tsv", {"width": 16, "word_dropout": 0.0, **STEADY}, 64, False),
    "language model, LSTM": (
        "lstm_char",
        "tinyshakespeare.txt",
        {"width": 64, "layers": 1, "weight_drop": 0.0, **STEADY},
        16,
        True,
    ),
    "generation": ("gan_mlp", "mnist", {"width": 64}, 64, False),
    "few labels, batch normalization": ("ssgan", "mnist", {"hidden": (50,) * 5, "width": 50}, 64, False),
}
IN_PROCESSES = ("classification", "segmentation", "language model, LSTM")
# of the model: input shape of a worker's batch
MODELED = {"alexnet": (8, 227, 227, 3), "unet": (1, 188, 188, 1), "lstm_char": (64, 64)}
MEGABYTES = (0.001, 0.1, 1.0, 10.0, 100.0)
WORKERS = (8, 64, 512)
GIGABITS = (1, 10, 100)


# --- measured in processes of their own ----------------------------------------------------------------------------


def data_of(name: str, examples: int) -> Dataset:
    """The first examples of a data set; of a text the first characters."""
    whole = zoo.data.load(name)
    if name.endswith(".txt"):
        for split in whole.splits.values():
            split.inputs[0] = split.inputs[0][: examples * 64]
        return whole
    counts = {"train": examples, "validation": 64, "test": 64}
    return Dataset(whole.name, {key: whole.splits[key].head(count) for key, count in counts.items()}, whole.classes)


def train(key: str, examples: int, devices: str, addresses: tuple[str, ...], worker: int | None) -> dict[str, Any]:
    """Examples a second, milliseconds a step and the losses of two epochs."""
    name, data, arguments, batch_size, _ = TRAINED[key]
    dataset = data_of(data, examples)
    with tempfile.TemporaryDirectory() as folder:
        run = zoo.train(
            name, dataset, out=folder, devices=devices, workers=addresses, worker=worker, arguments=arguments, epochs=2,
            batch_size=batch_size,
        )  # fmt: skip
    seconds = run.history[1]["seconds"]
    steps = training_batches(run.task, dataset.splits["train"], run.recipe, seed=0)[1]
    return {
        "examples_per_second": steps * batch_size / seconds,
        "step_ms": 1000 * seconds / steps,
        "losses": [row["loss"] for row in run.history],
    }


def all_reduce(repeats: int, addresses: tuple[str, ...], worker: int) -> dict[str, float]:
    """Milliseconds of the sum of the workers' vectors, by megabytes."""
    strategy = workers.connect(workers.cluster(addresses, worker))
    found = {}
    for size in MEGABYTES:
        vector = tf.zeros([int(size * 250_000)])

        @tf.function(autograph=False)
        def summed(vector: tf.Tensor = vector) -> Any:
            def of_replica() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(vector))

            return strategy.run(of_replica)

        summed()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            strategy.experimental_local_results(summed())[0].numpy()
            seconds.append(time.perf_counter() - start)
        found[str(size)] = 1000 * statistics.median(seconds)
    return found


def step(name: str, repeats: int) -> dict[str, float]:
    """Milliseconds of one step, forward, backward and update, of a network of full size; and its gradients' size."""
    model = zoo.create_model(name, weights=None)
    shape, random = MODELED[name], np.random.default_rng(0)
    given: Any = tf.constant(random.normal(size=shape), tf.float32)
    if isinstance(model.input, dict):  # of a language model: characters, and the states
        states = {key: tf.zeros((shape[0], one.shape[1])) for key, one in model.input.items() if key != "tokens"}
        given = {"tokens": tf.constant(random.integers(0, 60, shape), tf.int32), **states}
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def once() -> None:
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(given, training=True))
            loss = tf.add_n([tf.reduce_mean(tf.square(one)) for one in outputs])
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    once()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        tf.test.experimental.sync_devices()
        seconds.append(time.perf_counter() - start)
    sizes = [4 * int(np.prod(one.shape)) for one in model.trainable_variables]
    return {"step_ms": 1000 * statistics.median(seconds), "megabytes": sum(sizes) / 1e6, "batch": shape[0]}


def _child(queue: Any, function: Callable, arguments: tuple) -> None:
    result: Any = None
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = function(*arguments)
    finally:  # without a result the parent ends too
        if queue is not None:
            queue.put(result)


def in_processes(function: Callable, *arguments: Any, count: int = 1, joined: bool = False) -> Any:
    """What a function returns in the first of several processes, which may join in a cluster."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras", "zoo.training.trainer", "zoo.training.callbacks", "zoo.training.loop"])
    addresses = free_addresses(count)
    queue = context.Queue()
    started = []
    for number in range(count):
        own = (*arguments, addresses, number) if joined else arguments
        started.append(context.Process(target=_child, args=(None if number else queue, function, own)))
        started[-1].start()
    result = queue.get()
    for process in started:
        process.join()
    if result is None:
        sys.exit("a process failed, see above")
    return result


# --- the model ---------------------------------------------------------------------------------------------------


def modeled_ms(megabytes: float, count: int, gigabits: float, hop_ms: float) -> float:
    """Milliseconds of a ring all-reduce: each worker sends and receives 2 (n - 1) parts of 1 / n of the gradients
    (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations")."""
    hops = 2 * (count - 1)
    return hops * (megabytes / count / (gigabits / 8) + hop_ms)


def hop_ms(results: dict[str, Any]) -> float:
    """Milliseconds that one part takes however small it is, as measured for the smallest vector."""
    smallest = str(MEGABYTES[0])
    return statistics.median(
        found[smallest] / (2 * (int(count) - 1)) for count, found in results["all_reduce_ms"].items()
    )


def tables(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        f"Measured {results['date']} with {results['machine']['cpu_count']} cores, a load of "
        f"{results['load']:.1f} at the start: `{results['command']}`.",
    ]
    if results["load"] > results["machine"]["cpu_count"]:
        lines.append(
            "The machine was busy with other work: all times are too long, those of small messages most of all."
        )
    heads = "| examples/s | 1 device | 2 devices | 4 devices | loss, largest difference from 1 device |"
    lines += ["", heads, "|---|---|---|---|---|"] if results.get("devices") else []
    for key, found in results.get("devices", {}).items():
        speeds = " | ".join(f"{found[str(count)]['examples_per_second']:,.0f}" for count in COUNTS)
        different = f"{difference(found):.1e}" if TRAINED[key][-1] else f"{difference(found):.1e} (expected)"
        lines.append(f"| {key} (`{TRAINED[key][0]}`) | {speeds} | {different} |")
    heads = "| milliseconds a step | 1 process | 2 processes | 4 processes | loss, largest difference from 1 process |"
    lines += ["", heads, "|---|---|---|---|---|"] if results.get("processes") else []
    for key, found in results.get("processes", {}).items():
        times = " | ".join(f"{found[str(count)]['step_ms']:,.1f}" for count in COUNTS)
        lines.append(f"| {key} (`{TRAINED[key][0]}`) | {times} | {difference(found):.1e} |")
    several = [str(count) for count in COUNTS[1:]]
    lines += ["", "| milliseconds of all-reduce | " + " | ".join(f"{count} processes" for count in several) + " |"]
    lines.append("|---|" + "---|" * len(several))
    for size in MEGABYTES:
        times = " | ".join(f"{results['all_reduce_ms'][count][str(size)]:,.1f}" for count in several)
        lines.append(f"| {size:g} MB | {times} |")
    hop = hop_ms(results)
    lines += ["", f"Modeled with {hop:.2f} ms a hop, as measured for the smallest vector:", ""]
    lines.append("| network | gradients | step here | Gbit/s | " + " | ".join(f"{n} workers" for n in WORKERS) + " |")
    lines.append("|---|---|---|---|" + "---|" * len(WORKERS))
    for name, found in results["networks"].items():
        for gigabits in GIGABITS:
            cells = []
            for count in WORKERS:
                reduce_ms = modeled_ms(found["megabytes"], count, gigabits, hop)
                share = found["step_ms"] / (found["step_ms"] + reduce_ms)
                cells.append(f"{reduce_ms:,.0f} ms, {share:.0%}")
            lines.append(
                f"| `{name}`, {found['batch']} examples a worker | {found['megabytes']:,.1f} MB | "
                f"{found['step_ms']:,.0f} ms | {gigabits} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def difference(found: dict[str, Any]) -> float:
    """The largest relative difference of a loss from that of one device or process."""
    one, *others = (np.array(found[str(count)]["losses"]) for count in COUNTS)
    return max(float(np.max(np.abs(other / one - 1))) for other in others)


def draw(results: dict[str, Any]) -> None:
    """Write docs/scaling.png: how much of the workers' time is computing, against their number."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    counts, hop = np.unique(np.geomspace(1, 512, 60).astype(int)), hop_ms(results)
    figure, axes = plt.subplots(1, len(MODELED), figsize=(11, 3.4), sharey=True, layout="constrained")
    for axis, (name, found) in zip(axes, results["networks"].items(), strict=True):
        for gigabits, color in zip(GIGABITS, ("tab:red", "tab:orange", "tab:green"), strict=True):
            for step_ms, style in ((found["step_ms"], "-"), (found["step_ms"] / 100, "--")):
                waits = np.array([modeled_ms(found["megabytes"], count, gigabits, hop) for count in counts])
                label = f"{gigabits} Gbit/s" if style == "-" else None
                axis.semilogx(counts, step_ms / (step_ms + waits), style, color=color, label=label)
        axis.axhline(0.5, color="gray", linewidth=0.5)
        axis.set(
            title=f"{name}, {found['megabytes']:,.0f} MB, {found['step_ms']:,.0f} ms", xlabel="workers", ylim=(0, 1.02)
        )
    axes[0].set_ylabel("share of time spent computing")
    axes[0].legend(title="solid: step as measured\ndashed: 100 times as fast", fontsize=8, title_fontsize=8)
    figure.savefig(PAGE.with_suffix(".png"), dpi=120)


def write_page(results: dict[str, Any]) -> None:
    """Put the tables between the marks of docs/scaling.md, and draw the plot."""
    write_between(PAGE, "measured", tables(results))
    draw(results)


def measure(examples: int, quick: bool, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure everything; `keep` is called with the results so far after each part."""
    repeats = 3 if quick else 15
    results: dict[str, Any] = {"load": os.getloadavg()[0], "examples": examples, "processes": {}, "devices": {}}
    results["all_reduce_ms"] = {
        str(count): in_processes(all_reduce, repeats, count=count, joined=True) for count in COUNTS[1:]
    }
    keep(results)
    results["networks"] = {name: in_processes(step, name, 1 if quick else 5) for name in MODELED}
    keep(results)
    measure_trainings(results, "", keep)


def measure_trainings(results: dict[str, Any], word: str, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure those trainings again whose names contain the word."""
    several, examples = [str(count) for count in COUNTS[1:]], results["examples"]
    for key in (key for key in IN_PROCESSES if word in key):
        found = {"1": in_processes(train, key, examples, "auto", (), None)}
        for count in several:
            found[count] = in_processes(train, key, examples, "auto", count=int(count), joined=True)
        results["processes"][key] = found
        keep(results)
    for key in (key for key in TRAINED if word in key):
        found = {"1": in_processes(train, key, examples, "cpu", (), None)}
        for count in several:
            found[count] = in_processes(train, key, examples, f"cpu:{count}", (), None)
        results["devices"][key] = found
        keep(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few examples, nothing written")
    parser.add_argument("--draw", action="store_true", help="write the plot and the tables from the results again")
    parser.add_argument("--short", action="store_true", help="repeat less, on a machine that is busy anyway")
    parser.add_argument("--again", metavar="WORD", help="measure only the trainings whose names contain it again")
    parser.add_argument("--examples", type=int, default=1_024, help="an epoch")
    options = parser.parse_args()
    if options.quick:
        measure(128, True, lambda results: print(json.dumps(results), flush=True))
        return
    if options.again:
        known = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))
        measure_trainings(known, options.again, lambda results: write_results("scaling", results))
    elif not options.draw:
        measure(options.examples, options.short, lambda results: write_results("scaling", results))
    write_page(json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
