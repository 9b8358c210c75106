"""Training throughput: the trainer of this package against plain Keras and plain PyTorch.

    pip install torch
    python benchmarks/training.py       (MNIST in ZOO_DATA_DIR, or it is downloaded)

All train the same network on the same images with the same loss and optimizer, and validate on the same 256 images.
Of each training the second epoch counts, from the end of the first, which traces, to its own end, with all that lies
between: batches, validation and, for this package, its checkpoints, its history and TensorBoard. The contenders take
turns, a training each. PyTorch runs eagerly, in the memory layout and with the number of threads that suit it best.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import torch
from common import interleaved, ratios, write_results
from torch.nn import functional as F

import zoo
from zoo import layers as zoo_layers
from zoo import preprocessing, tasks
from zoo.data import Dataset, Split
from zoo.models.lenet5 import TABLE, bitmap_codes
from zoo.recipe import Affine, Augmentation, Recipe
from zoo.tasks.losses import classification_loss
from zoo.training import optimizers, trainer
from zoo.training.randomness import dtype_policy

MODELS = ("network3_relu", "lenet5")
BATCH_SIZES = (10, 128)
VALIDATION = 256  # images, one batch
TRIAL = 640  # images by which PyTorch chooses its number of threads
Arrays = tuple[np.ndarray, np.ndarray]  # the network's inputs, float32 [N, H, W, C], and targets
AFFINE = Augmentation(affine=Affine(rotation=10.0, translation=0.07, scale=0.1, skew=5.0))
RATIOS = ("zoo / keras", "zoo / pytorch", "zoo affine / keras")
GOALS = {"zoo / keras": 1.0, "zoo affine / keras": 0.9}


class Clock(keras.callbacks.Callback):
    """The moments at which epochs end; given as the last callback, so that it sees the end of all the others."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of the last epoch, with all that lies between its end and that of the one before."""
        return self.ends[-1] - self.ends[-2]


def zoo_epoch(task: tasks.Task, dataset: Dataset, recipe: Recipe) -> float:
    """Seconds of an epoch of the trainer's `fit`, called as `zoo.train` calls it."""
    clock = Clock()
    with dtype_policy(recipe.precision):
        model = task.build()
    fit = model.fit
    model.fit = lambda *args, callbacks, **options: fit(*args, callbacks=[*callbacks, clock], **options)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(task, model, dataset, recipe, Path(folder), tf.distribute.get_strategy(), seed=0)
    return clock.seconds


def keras_epoch(
    task: tasks.Task, train: Arrays, validation: Arrays, recipe: Recipe, loss: Callable, metric: Any
) -> float:
    """Seconds of an epoch of what a user of Keras writes: float images and targets in memory, `compile`, `fit`."""
    clock, model = Clock(), task.build()
    model.compile(optimizers.make_optimizer(recipe), loss, metrics=[metric])
    model.fit(
        *train, batch_size=recipe.batch_size, epochs=recipe.epochs, callbacks=[clock], verbose=0,
        validation_data=validation, validation_batch_size=len(validation[0]),
    )  # fmt: skip
    return clock.seconds


def torch_training(
    network: torch.nn.Module, train: Arrays, validation: Arrays, recipe: Recipe, loss: Callable, *, trial: int
) -> Callable[[], float]:
    """The same training in PyTorch, as a function that trains an epoch and returns its seconds: shuffled indices
    into tensors in memory, no DataLoader; eager, so that every epoch but the first costs the same. The first `trial`
    examples decide which number of threads is faster."""
    (images, labels), (held_out, held_out_labels) = (
        # channels last, as they lie in memory
        (torch.from_numpy(inputs).permute(0, 3, 1, 2), torch.from_numpy(class_ids.astype(np.int64)))
        for inputs, class_ids in (train, validation)
    )
    network = network.to(memory_format=torch.channels_last)  # twice as fast here
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[recipe.optimizer](
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )

    def epoch(count: int = len(images)) -> float:
        start, total = time.perf_counter(), torch.zeros(())
        network.train()
        for index in torch.randperm(count).split(recipe.batch_size):
            optimizer.zero_grad()
            value = loss(network(images[index]), labels[index])
            value.backward()
            optimizer.step()
            total += value.detach()
        network.eval()
        with torch.no_grad():
            right = network(held_out).argmax(1) == held_out_labels
        right.float().mean().item(), total.item()  # the metrics that the others log
        return time.perf_counter() - start

    def seconds_with(threads: int) -> float:
        torch.set_num_threads(threads)
        return epoch(trial)

    epoch(trial)
    torch.set_num_threads(min({1, os.cpu_count() or 1}, key=seconds_with))
    return epoch


def torch_network3() -> torch.nn.Module:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 40, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(640, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


class TorchLeNet5(torch.nn.Module):
    """LeNet-5 as the Keras network has it, with the negated distances as scores; the connection table is a mask on
    the kernel of C3."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.c1, self.c3, self.c5 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.s2, self.s4 = (nn.ParameterList([torch.ones(n, 1, 1), torch.zeros(n, 1, 1)]) for n in (6, 16))
        mask = torch.zeros(16, 6, 1, 1)
        for output, sources in enumerate(TABLE):
            mask[output, list(sources)] = 1
        self.register_buffer("mask", mask)
        self.register_buffer("codes", torch.tensor(bitmap_codes()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def squash(x: torch.Tensor) -> torch.Tensor:
            return 1.7159 * torch.tanh(2 / 3 * x)

        def subsample(x: torch.Tensor, weights: torch.nn.ParameterList) -> torch.Tensor:
            return F.avg_pool2d(x, 2) * (4 * weights[0]) + weights[1]

        x = squash(subsample(squash(self.c1(x)), self.s2))
        x = squash(subsample(squash(F.conv2d(x, self.c3.weight * self.mask, self.c3.bias)), self.s4))
        x = squash(self.f6(squash(self.c5(x)).flatten(1)))
        return -(x[:, None] - self.codes).square().sum(-1)


def map_criterion(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    rivals = F.pad(scores, (0, 1), value=-0.1)
    return (rivals.logsumexp(1) - scores.gather(1, labels[:, None])[:, 0]).mean()


def float_arrays(task: tasks.Task, split: Split) -> Arrays:
    """The network's inputs, and class ids."""
    images, class_ids = task.examples(split)
    return preprocessing.apply(tf.constant(images), task.preprocessing, task.channels).numpy(), class_ids


def measure(name: str, batch_size: int, dataset: Dataset, repeats: int) -> dict[str, dict]:
    """Images a second of each contender, and the ratios, for one network and batch size."""
    spec = zoo.get_spec(name)
    task = tasks.get_task(spec.task).from_data(spec, dataset)
    recipe = task.with_options(spec.recipe("paper")).replace(batch_size=batch_size, epochs=2)
    affine = recipe.replace(augmentation=dataclasses.asdict(AFFINE))
    images = len(dataset.splits["train"])
    arrays = [float_arrays(task, dataset.splits[split]) for split in ("train", "validation")]
    one_hot = [(inputs, keras.utils.to_categorical(labels, len(task.classes))) for inputs, labels in arrays]

    def accuracy(y_true: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return keras.metrics.categorical_accuracy(y_true, zoo_layers.probabilities(scores, spec.outputs))

    network, loss = (TorchLeNet5(), map_criterion) if name == "lenet5" else (torch_network3(), F.cross_entropy)
    torch_epoch = torch_training(network, *arrays, recipe, loss, trial=TRIAL)
    measured = interleaved(
        {
            "zoo": lambda: images / zoo_epoch(task, dataset, recipe),
            "keras": lambda: (
                images / keras_epoch(task, *one_hot, recipe, classification_loss(recipe.loss, 0.0), accuracy)
            ),
            "pytorch": lambda: images / torch_epoch(),
            "zoo affine": lambda: images / zoo_epoch(task, dataset, affine),
        },
        repeats,
        warm_up=False,  # each training leaves out its first epoch, and PyTorch has had its trial
    )
    compared = {pair: ratios(measured, *pair.split(" / ")) for pair in RATIOS}
    return {"images_per_second": measured, "ratios": compared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_240, help="an epoch; both batch sizes divide the default")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each contender")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few images, nothing written")
    options = parser.parse_args()
    images, repeats = (1_280, 1) if options.quick else (options.images, options.repeats)
    mnist = zoo.data.load("mnist")
    held_out = {key: mnist.splits[key].head(VALIDATION) for key in ("validation", "test")}
    dataset = Dataset("mnist", {"train": mnist.splits["train"].head(images), **held_out}, mnist.classes)
    results = {}
    print(f"{'images/s':24}{'zoo':>9}{'keras':>9}{'pytorch':>9}{'zoo affine':>12}   " + ", ".join(RATIOS))
    for name in MODELS:
        for batch_size in BATCH_SIZES:
            title = f"{name}, batch {batch_size}"
            row = results[title] = measure(name, batch_size, dataset, repeats)
            speeds = [measured["median"] for measured in row["images_per_second"].values()]
            figures = ", ".join(f"{ratio['median']:.2f}" for ratio in row["ratios"].values())
            print("{:24}{:9,.0f}{:9,.0f}{:9,.0f}{:12,.0f}   ".format(title, *speeds) + figures, flush=True)
    for key, goal in GOALS.items():
        lowest = min(row["ratios"][key]["median"] for row in results.values())
        print(f"{key}: at least {lowest:.2f}, the goal is {goal}: {'reached' if lowest >= goal else 'missed'}")
    if not options.quick:
        record = {"images_an_epoch": images, "torch": torch.__version__, "goals": GOALS, "results": results}
        path = write_results("training", record)
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
