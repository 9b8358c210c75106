"""Photographs: images a second of training against plain Keras and plain PyTorch, and of the input pipeline against
`keras.utils.image_dataset_from_directory`; images a second and memory of the networks for ImageNet.

    pip install torch                        (left out where it is not installed)
    python benchmarks/photographs.py

All train the same network on the same images in memory, with the same optimizer, loss and batch size; the steps of the
second epoch count, without validation and checkpoints. The trainer of this package takes its images as stored, Keras
and PyTorch take floats. The pipelines read the same JPEG files from disk and flip, rotate and shift them: batches of
floats of the network's size.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import in_new_process, interleaved, peak_bytes, ratios, write_results
from fits import keras_fit, torch_training, zoo_fit
from streaming import make

import zoo
from zoo import tasks
from zoo.data import Dataset, Split
from zoo.recipe import Recipe
from zoo.tasks.losses import classification_loss
from zoo.training.batches import load_for, training_batches

HAS_TORCH = importlib.util.find_spec("torch") is not None
STEPS = {"alexnet_small": 20, "airbench93": 4, "catdog_cnn": 20, "alexnet": 3}  # of an epoch
BATCH = {"alexnet": 16, "airbench93": 256}  # fewer than the recipe's where an epoch would take too long
FULL_SIZE = 16  # images a batch of the networks for ImageNet, each in a process of its own, for its memory
AFFINE = {"affine": {"rotation": 15.0, "translation": 0.1}, "flip_crop": {"pad": 0}}


def timed(step: Callable[[], Any], steps: int, images: int) -> float:
    """Images a second of a number of steps, each of `images`, after one that traces."""
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * images / (time.perf_counter() - start)


def prepared(name: str, count: int, batch: int) -> tuple[tasks.Task, Dataset, Recipe]:
    """A network's task, images of noise in its size before the crop and of as many classes, and its recipe for two
    epochs without augmentation."""
    spec = zoo.get_spec(name)
    height, width = (spec.preprocessing.size or spec.input_shape[:2]) or (32, 32)
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, spec.input_shape[-1]), dtype=np.uint8)
    split = Split(images, np.arange(count) % spec.classes)
    splits = {"train": split, "validation": split.head(batch), "test": split.head(batch)}
    dataset = Dataset("noise", splits, tuple(map(str, range(spec.classes))))
    task = tasks.get_task(spec.task).from_data(spec, dataset)
    return (
        task,
        dataset,
        task.with_options(spec.recipe()).replace(batch_size=batch, augmentation={}, epochs=2, lookahead=None),
    )


def training(name: str, repeats: int, steps: int) -> dict[str, Any]:
    """Images a second of each contender for one network, and the ratios within each round."""
    batch = BATCH.get(name, zoo.get_spec(name).recipe().batch_size)
    count = steps * batch
    task, dataset, recipe = prepared(name, count, batch)
    split = dataset.splits["train"]
    inputs, targets = (part.numpy() for part in task.network_batch(*map(tf.constant, task.examples(split))))
    loss = classification_loss(recipe.loss, 0.0)
    contenders = {
        "zoo": lambda: count / zoo_fit(task, dataset, recipe).seconds_of_steps,
        "keras": lambda: count / keras_fit(task, (inputs, targets), None, recipe, loss, "accuracy").seconds_of_steps,
    }
    if HAS_TORCH:
        import torch

        network = TORCH[name](torch.nn)
        of_torch = torch.nn.functional.cross_entropy
        epoch = torch_training(network, (inputs, split.targets), None, recipe, of_torch, trial=2 * batch)
        contenders["pytorch"] = lambda: count / epoch()
    measured = interleaved(contenders, repeats, warm_up=False)  # the first epoch of each does not count
    others = [other for other in contenders if other != "zoo"]
    return {
        "images_per_second": measured,
        "batch": batch,
        "ratios": {f"zoo / {other}": ratios(measured, "zoo", other) for other in others},
    }


def _catdog(nn: Any) -> Any:
    layers: list[Any] = []
    for before, filters in ((3, 32), (32, 32), (32, 64)):
        layers += [nn.Conv2d(before, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16 * 64, 128), nn.ReLU(), nn.Linear(128, 2))


def _airbench93(nn: Any) -> Any:
    layers: list[Any] = [nn.Conv2d(3, 24, 2), nn.GELU()]
    before = 24
    for width in (64, 128, 128):
        layers += [
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(width),
            nn.GELU(),
        ]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
        before = width
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(before, 10, bias=False))


def _alexnet_small(nn: Any) -> Any:
    import torch

    class Local(nn.Module):
        """A layer of 3 x 3 connections with weights of its own at each of 6 x 6 places."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weights = nn.Parameter(0.04 * torch.randn(36, 9 * channels, 32))
            self.bias = nn.Parameter(torch.zeros(36, 32))

        def forward(self, x: Any) -> Any:
            patches = nn.functional.unfold(x, 3, padding=1)
            sums = torch.einsum("bip,pio->bpo", patches, self.weights) + self.bias
            return sums.transpose(1, 2).reshape(-1, 32, 6, 6)

    def normalized(before: int) -> list[Any]:
        convolution = nn.Conv2d(before, 64, 5, padding=2)
        return [convolution, nn.ReLU(), nn.LocalResponseNorm(5, 0.001, 0.75, 1.0), nn.MaxPool2d(3, 2, padding=1)]

    local = [Local(64), nn.ReLU(), Local(32), nn.ReLU()]
    return nn.Sequential(*normalized(3), *normalized(64), *local, nn.Flatten(), nn.Linear(6 * 6 * 32, 10))


def _alexnet(nn: Any) -> Any:
    def normalized() -> list[Any]:  # n, alpha (which PyTorch divides by n), beta, k of section 3.3
        return [nn.ReLU(), nn.LocalResponseNorm(5, 5 * 1e-4, 0.75, 2.0), nn.MaxPool2d(3, 2)]

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), *normalized(),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), *normalized(),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Linear(6 * 6 * 256, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 1000),
    )  # fmt: skip


TORCH: dict[str, Callable[[Any], Any]] = {
    "alexnet_small": _alexnet_small,
    "airbench93": _airbench93,
    "catdog_cnn": _catdog,
    "alexnet": _alexnet,
}


def pipeline(count: int, repeats: int, name: str = "catdog_cnn") -> dict[str, Any]:
    """Images a second from JPEG files to augmented batches."""
    spec = zoo.get_spec(name)
    recipe = tasks.with_options(spec.recipe(), tasks.get_task(spec.task), spec.task)
    recipe = recipe.replace(augmentation=AFFINE, epochs=10_000)
    height, width, _ = spec.input_shape
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "photos"), count)
        os.environ["ZOO_CACHE_GB"] = "0"  # decoded in each epoch, as Keras does
        data = load_for(spec, None, recipe, str(Path(folder, "photos")))
        task = tasks.get_task(spec.task).from_data(spec, data)
        ours = training_batches(task, data.splits["train"], recipe, seed=0)[0]
        random = keras.Sequential(
            [
                keras.layers.RandomFlip("horizontal"),
                keras.layers.RandomRotation(15 / 360),
                keras.layers.RandomTranslation(0.1, 0.1),
                keras.layers.Rescaling(1 / 255),
            ]
        )
        files = keras.utils.image_dataset_from_directory(
            Path(folder, "photos"), image_size=(height, width), batch_size=recipe.batch_size, label_mode="categorical",
            verbose=False,
        )  # fmt: skip
        keras_batches = files.repeat().map(lambda x, y: (random(x, training=True), y), tf.data.AUTOTUNE)
        theirs = keras_batches.prefetch(tf.data.AUTOTUNE)
        steps = max(count // recipe.batch_size, 1)
        measured = interleaved(
            {
                "zoo": lambda: timed(functools.partial(next, iter(ours)), steps, recipe.batch_size),
                "keras": lambda: timed(functools.partial(next, iter(theirs)), steps, recipe.batch_size),
            },
            repeats,
        )
    return {"images_per_second": measured, "ratios": {"zoo / keras": ratios(measured, "zoo", "keras")}}


def full_size(name: str, steps: int) -> dict[str, float]:
    """Images a second of training, and the largest resident memory of this process, in bytes."""
    count = steps * FULL_SIZE
    seconds = zoo_fit(*prepared(name, count, FULL_SIZE)).seconds_of_steps
    return {"images_per_second": count / seconds, "peak_bytes": peak_bytes()}


def print_medians(title: str, row: dict[str, Any]) -> None:
    speeds = ", ".join(f"{key} {each['median']:,.1f}" for key, each in row["images_per_second"].items())
    compared = ", ".join(f"{key} {ratio['median']:.2f}" for key, ratio in row["ratios"].items())
    print(f"{title}: {speeds} images/s; {compared}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[*STEPS], choices=STEPS, help="networks that are trained")
    parser.add_argument("--images", type=int, default=640, help="JPEG files of the pipeline")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--quick", action="store_true", help="a smoke run of one network that writes nothing")
    parser.add_argument("--full-size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.full_size:
        print(json.dumps(full_size(options.full_size, 3)))
        return
    if options.quick:
        options.models, options.images, options.repeats = ["catdog_cnn"], 64, 1
    results: dict[str, Any] = {}
    for name in options.models:
        row = results[name] = training(name, options.repeats, 1 if options.quick else STEPS[name])
        print_medians(f"{name}, batch {row['batch']}", row)
    results["pipeline"] = pipeline(options.images, options.repeats)
    print_medians("pipeline", results["pipeline"])
    for name in () if options.quick else ("alexnet", "googlenet"):
        row = results[f"{name}, full size"] = in_new_process("--full-size", name)
        print(f"{name}, batch {FULL_SIZE}: {row['images_per_second']:.2f} images/s, {row['peak_bytes'] / 1e9:.1f} GB")
    if not options.quick:
        print(write_results("photographs", {"torch": HAS_TORCH, "results": results}))


if __name__ == "__main__":
    sys.exit(main())
