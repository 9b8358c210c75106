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
import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
import torch
from common import interleaved, ratios, write_results
from fits import float_arrays, keras_fit, torch_training, zoo_fit
from torch.nn import functional as F

import zoo
from zoo import layers as zoo_layers
from zoo import tasks
from zoo.data import Dataset
from zoo.models.lenet5 import TABLE, bitmap_codes
from zoo.recipe import Affine, Augmentation
from zoo.tasks.losses import classification_loss

MODELS = ("network3_relu", "lenet5")
BATCH_SIZES = (10, 128)
VALIDATION = 256  # images, one batch
TRIAL = 640  # images by which PyTorch chooses its number of threads
AFFINE = Augmentation(affine=Affine(rotation=10.0, translation=0.07, scale=0.1, skew=5.0))
RATIOS = ("zoo / keras", "zoo / pytorch", "zoo affine / keras")
GOALS = {"zoo / keras": 1.0, "zoo affine / keras": 0.9}


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
            "zoo": lambda: images / zoo_fit(task, dataset, recipe).seconds,
            "keras": lambda: (
                images / keras_fit(task, *one_hot, recipe, classification_loss(recipe.loss, 0.0), accuracy).seconds
            ),
            "pytorch": lambda: images / torch_epoch(),
            "zoo affine": lambda: images / zoo_fit(task, dataset, affine).seconds,
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
