"""Training throughput: the trainer of this package against plain Keras and plain PyTorch.

    python benchmarks/training.py            (needs `pip install torch`, and MNIST in ZOO_DATA_DIR)

All train the same network on the same images with the same loss and optimizer, and validate on the same 256 images
after each epoch. Every contender is a training of its own that stops between its epochs; they take turns, an epoch
each. The time of an epoch runs from the end of one to the end of the next, with all that lies between: batches,
validation and, for this package, its checkpoints, its history and TensorBoard. The first epoch, which traces, is left
out. The networks start afresh in each run: the time of a step does not depend on the weights.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
import torch
from common import interleaved, ratios, write_results
from torch.nn import functional as F

import zoo
from zoo import preprocessing, tasks, training
from zoo.data import Dataset
from zoo.models.lenet5 import TABLE, bitmap_codes
from zoo.recipe import Affine, Augmentation, Recipe
from zoo.tasks.classification import LOSSES, PROBABILITIES

MODELS = ("network3_relu", "lenet5")
BATCH_SIZES = (10, 128)
VALIDATION = 256  # images, one batch
AFFINE = Augmentation(affine=Affine(rotation=10.0, translation=0.07, scale=0.1, skew=5.0))
GOALS = {"zoo / keras": 1.0, "zoo affine / keras": 0.9}


class Turns(keras.callbacks.Callback):
    """A `fit` in a thread of its own that goes on by one epoch whenever it is asked to.

    Args:
        fit: runs the whole training, with the callback that it is given as the last one.
    """

    def __init__(self, fit: Callable[[keras.callbacks.Callback], object]) -> None:
        super().__init__()
        self.fit, self.error = fit, None
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.go.acquire()
        try:
            self.fit(self)
        except Exception as error:
            self.error = error
        self.done.release()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.done.release()
        self.go.acquire()

    def next_epoch(self) -> None:
        """Also what follows the last epoch, when called once more."""
        self.go.release()
        self.done.acquire()
        if self.error:
            raise self.error


def zoo_fit(task: tasks.Task, dataset: Dataset, recipe: Recipe, folder: Path) -> Turns:
    """`zoo.training.fit` as `zoo.train` calls it."""

    def fit(turns: keras.callbacks.Callback) -> None:
        model = task.build()
        keras_fit = model.fit
        model.fit = lambda *args, callbacks, **options: keras_fit(*args, callbacks=[*callbacks, turns], **options)
        training.fit(task, model, dataset, recipe, folder, tf.distribute.get_strategy(), seed=0)

    folder.mkdir()
    return Turns(fit)


def keras_fit(task: tasks.Task, dataset: Dataset, recipe: Recipe) -> Turns:
    """What a user of Keras writes: arrays of floats and one-hot targets in memory, `compile` and `fit`."""
    images, targets = float_arrays(task, dataset, "train")
    held_out = float_arrays(task, dataset, "validation")
    probabilities = PROBABILITIES[task.spec.scores]

    def accuracy(y_true: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return keras.metrics.categorical_accuracy(y_true, probabilities(scores))

    def fit(turns: keras.callbacks.Callback) -> None:
        model = task.build()
        model.compile(training.make_optimizer(recipe), LOSSES[recipe.loss](0.0), metrics=[accuracy])
        model.fit(
            images, targets, batch_size=recipe.batch_size, epochs=recipe.epochs, validation_data=held_out,
            validation_batch_size=VALIDATION, callbacks=[turns], verbose=2,
        )  # fmt: skip

    return Turns(fit)


def torch_epochs(task: tasks.Task, dataset: Dataset, recipe: Recipe) -> Iterator[None]:
    """The same training in PyTorch, an epoch at a time: shuffled indices into tensors in memory, no DataLoader."""
    images, targets = (torch.from_numpy(array) for array in float_arrays(task, dataset, "train"))
    held_out, held_out_targets = (torch.from_numpy(array) for array in float_arrays(task, dataset, "validation"))
    images, held_out = (array.permute(0, 3, 1, 2).contiguous() for array in (images, held_out))
    labels, held_out_labels = targets.argmax(1), held_out_targets.argmax(1)
    lenet = task.spec.name == "lenet5"
    network, loss = (TorchLeNet5(), map_criterion) if lenet else (torch_network3(), F.cross_entropy)
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[recipe.optimizer](
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    while True:
        network.train()
        total = torch.zeros(())
        order = torch.randperm(len(images))
        for index in order[: len(order) // recipe.batch_size * recipe.batch_size].split(recipe.batch_size):
            optimizer.zero_grad()
            value = loss(network(images[index]), labels[index])
            value.backward()
            optimizer.step()
            total += value.detach()
        network.eval()
        with torch.no_grad():
            scores = network(held_out)
            _ = (scores.argmin(1) if lenet else scores.argmax(1)).eq(held_out_labels).float().mean().item(), total.item()
        yield


def torch_network3() -> torch.nn.Module:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 40, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(640, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


class TorchLeNet5(torch.nn.Module):
    """LeNet-5 as the Keras network has it; the connection table is a mask on the kernel of C3."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.c1, self.c3, self.c5, self.f6 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5), nn.Linear(120, 84)
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
        return (x[:, None] - self.codes).square().sum(-1)


def map_criterion(distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    rivals = F.pad(-distances, (0, 1), value=-0.1)
    return (distances.gather(1, labels[:, None])[:, 0] + rivals.logsumexp(1)).mean()


def float_arrays(task: tasks.Task, dataset: Dataset, split: str) -> tuple:
    images, labels = task.examples(dataset.splits[split])
    inputs = preprocessing.apply(tf.constant(images), task.preprocessing, task.channels).numpy()
    return inputs, keras.utils.to_categorical(labels, len(task.classes))


def measure(name: str, batch_size: int, dataset: Dataset, repeats: int, folder: Path) -> dict:
    """Images a second of each contender, and the ratios, for one network and batch size."""
    spec = zoo.get_spec(name)
    task = tasks.get_task(spec.task).from_data(spec, dataset)
    recipe = spec.recipe("paper").replace(batch_size=batch_size, epochs=repeats + 1)
    affine = recipe.replace(augmentation=AFFINE)
    fits = {
        "zoo": zoo_fit(task, dataset, recipe, folder / f"{name}-{batch_size}"),
        "keras": keras_fit(task, dataset, recipe),
        "zoo affine": zoo_fit(task, dataset, affine, folder / f"{name}-{batch_size}-affine"),
    }
    epochs = torch_epochs(task, dataset, recipe)
    turns: dict[str, Callable[[], object]] = {key: fit.next_epoch for key, fit in fits.items()}
    turns["pytorch"] = lambda: next(epochs)

    def timed(turn: Callable[[], object]) -> Callable[[], float]:
        def images_per_second() -> float:
            start = time.perf_counter()
            turn()
            return len(dataset.splits["train"]) / (time.perf_counter() - start)

        return images_per_second

    with contextlib.redirect_stdout(io.StringIO()):  # Keras' lines, an epoch each
        measured = interleaved({key: timed(turn) for key, turn in turns.items()}, repeats)
        for fit in fits.values():
            fit.next_epoch()
    pairs = (("zoo", "keras"), ("zoo", "pytorch"), ("zoo affine", "keras"))
    compared = {f"{ours} / {theirs}": ratios(measured, ours, theirs) for ours, theirs in pairs}
    return {"images_per_second": measured, "ratios": compared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="images an epoch")
    parser.add_argument("--repeats", type=int, default=5, help="epochs that count")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few images, nothing written")
    options = parser.parse_args()
    images, repeats = (1_280, 2) if options.quick else (options.images, options.repeats)
    mnist = zoo.data.load("mnist")
    splits = {key: mnist.splits[key].head(VALIDATION) for key in ("validation", "test")}
    dataset = Dataset("mnist", {"train": mnist.splits["train"].head(images), **splits}, mnist.classes)
    results = {}
    print(f"{'images/s':24}{'zoo':>10}{'keras':>10}{'pytorch':>10}{'zoo affine':>12}   zoo / keras, / pytorch, affine / keras")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            for batch_size in BATCH_SIZES:
                row = results[f"{name}, batch {batch_size}"] = measure(name, batch_size, dataset, repeats, Path(folder))
                speeds = [row["images_per_second"][key]["median"] for key in ("zoo", "keras", "pytorch", "zoo affine")]
                print(f"{name + ', batch ' + str(batch_size):24}", end="")
                print("{:10,.0f}{:10,.0f}{:10,.0f}{:12,.0f}   ".format(*speeds), end="")
                print(", ".join(f"{ratio['median']:.2f}" for ratio in row["ratios"].values()), flush=True)
    for key, goal in GOALS.items():
        lowest = min(row["ratios"][key]["median"] for row in results.values())
        print(f"{key}: at least {lowest:.2f}, the goal is {goal}: {'reached' if lowest >= goal else 'missed'}")
    if not options.quick:
        record = {"images_an_epoch": images, "torch": torch.__version__, "goals": GOALS, "results": results}
        path = write_results("training", record)
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
