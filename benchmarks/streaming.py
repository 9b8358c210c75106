"""Streaming: peak memory and images a second of training on JPEG files that are decoded in each epoch, against the same
files in memory.

    python benchmarks/streaming.py                       # 1,000 and 50,000 images: 40 minutes and 5 GB of disk
    python benchmarks/streaming.py --counts 200 1000     # small
    python benchmarks/streaming.py --model alexnet --counts 1000 --steps 3    # a network that takes longer

Each measurement is a process of its own that loads the folder and trains a network; its peak is the largest resident
memory that the kernel has counted, above that of a process that trains on two batches of images.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import RESULTS, in_new_process, peak_bytes, write_between, write_results
from PIL import Image

import zoo

SIDE = (375, 500)  # height and width of the files
PAGE = Path(__file__).parent.parent / "docs" / "photographs.md"


def make(folder: Path, count: int) -> None:
    """Write JPEG files of noise with structure, half of them for each of two classes."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (64, *(side // 25 for side in SIDE), 3), dtype=np.uint8)
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.roll(small[number % 64], number // 64, axis=1))
        image.resize(SIDE[::-1], Image.Resampling.BICUBIC).save(path, quality=90)


def measure(model_name: str, folder: str, steps: int) -> None:
    """Load the folder, train for some steps, and print what it took."""
    import keras

    from zoo import tasks
    from zoo.training.batches import load_for, training_batches

    spec = zoo.get_spec(model_name)
    recipe = tasks.with_options(spec.recipe(), tasks.get_task(spec.task), spec.task)
    start = time.perf_counter()
    data = load_for(spec, None, recipe, folder)
    loaded = time.perf_counter() - start
    task = tasks.get_task(spec.task).from_data(spec, data)
    model = task.compile(task.build(), recipe, lambda: keras.optimizers.Adam(recipe.learning_rate))
    batches, _ = training_batches(task, data.splits["train"], recipe, seed=0)
    iterator = iter(batches)
    for _ in range(2):
        model.train_on_batch(*next(iterator))
    start = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(*next(iterator))
    rate = steps * recipe.batch_size / (time.perf_counter() - start)
    print(json.dumps({"images_per_second": rate, "seconds_to_load": loaded, "peak_bytes": peak_bytes()}))


def in_process(model: str, folder: Path, steps: int, gigabytes: str) -> dict[str, float]:
    """`measure` in a process of its own with a budget for decoded images."""
    words = ("--model", model, "--measure", str(folder), "--steps", str(steps))
    return in_new_process(*words, ZOO_CACHE_GB=gigabytes)


def draw() -> None:
    """Writes the table of all results into the page on photographs."""
    lines = [
        "| network | images | memory, streamed | memory, decoded once | images/s, streamed / decoded once |",
        "|---|---|---|---|---|",
    ]
    for file in sorted(RESULTS.glob("streaming_*.json")):
        results = json.loads(file.read_text(encoding="utf-8"))
        for row in results["rows"]:
            streamed, kept = (
                f"{(row[way]['peak_bytes'] - results['least_peak_bytes']) / 1e6:,.0f} MB"
                for way in ("streamed", "in_memory")
            )
            lines.append(
                f"| `{results['model']}` | {row['images']:,} | {streamed} | {kept} | {row['rate_ratio']:.2f} |"
            )
    write_between(PAGE, "streaming", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="catdog_cnn")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 50_000], help="numbers of images")
    parser.add_argument("--steps", type=int, default=30, help="steps of training that are timed")
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.model, arguments.measure, arguments.steps)
        return
    model = arguments.model
    few = 2 * zoo.get_spec(model).recipe().batch_size  # images of the process that the others are compared with
    counts, steps = ([few, 2 * few], 1) if arguments.quick else (arguments.counts, arguments.steps)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "least"), few)
        least = in_process(model, Path(folder, "least"), steps, "1000")["peak_bytes"]
        for count in counts:
            make(Path(folder, str(count)), count)
            one, other = (in_process(model, Path(folder, str(count)), steps, gigabytes) for gigabytes in ("0", "1000"))
            ratio = one["images_per_second"] / other["images_per_second"]
            rows.append({"images": count, "streamed": one, "in_memory": other, "rate_ratio": ratio})
            for name, found in (("streamed", one), ("in memory", other)):
                above = (found["peak_bytes"] - least) / 1e6
                print(
                    f"{count:>7,} images {name:<10} {found['images_per_second']:7.1f} images/s, {above:8.1f} MB above "
                    f"two batches, {found['seconds_to_load']:.1f} s to load"
                )
            print(f"{count:>7,} images: streaming trains at {ratio:.2f} of the rate in memory")
    if not arguments.quick:
        print(
            write_results(
                f"streaming_{model}", {"model": model, "steps": steps, "least_peak_bytes": least, "rows": rows}
            )
        )
        draw()


if __name__ == "__main__":
    main()
