"""Trainings of the same network on the same images that the benchmarks time: by the trainer of this package, by plain
Keras and by plain PyTorch."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from zoo import preprocessing, tasks
from zoo.data import Dataset, Split
from zoo.recipe import Recipe
from zoo.training import optimizers, trainer
from zoo.training.randomness import dtype_policy

if TYPE_CHECKING:
    import torch

Arrays = tuple[np.ndarray, np.ndarray]  # the network's inputs, float32 [N, H, W, C], and targets


class Clock(keras.callbacks.Callback):
    """The moments of a training; given as the last callback, so that it sees the end of all the others."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []  # of the epochs
        self.first_step = self.last_step = 0.0  # of the last epoch: where the one begins and the other ends

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.first_step = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.last_step = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of the last epoch, with all that lies between its end and that of the one before."""
        return self.ends[-1] - self.ends[-2]

    @property
    def seconds_of_steps(self) -> float:
        """Of the last epoch's steps, without validation and checkpoints."""
        return self.last_step - self.first_step


def zoo_fit(task: tasks.Task, dataset: Dataset, recipe: Recipe) -> Clock:
    """The trainer's `fit`, called as `zoo.train` calls it."""
    clock = Clock()
    with dtype_policy(recipe.precision):
        model = task.build()
    given = optimizers.Given(callbacks=[clock])  # called last
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(task, model, dataset, recipe, Path(folder), tf.distribute.get_strategy(), seed=0, given=given)
    return clock


def keras_fit(
    task: tasks.Task, train: Arrays, validation: Arrays | None, recipe: Recipe, loss: Callable, metric: Any
) -> Clock:
    """What a user of Keras writes: float images and targets in memory, `compile`, `fit`."""
    clock, model = Clock(), task.build()
    model.compile(optimizers.make_optimizer(recipe), loss, metrics=[metric])
    model.fit(
        *train, batch_size=recipe.batch_size, epochs=recipe.epochs, callbacks=[clock], verbose=0,
        validation_data=validation, validation_batch_size=validation and len(validation[0]),
    )  # fmt: skip
    return clock


def torch_training(
    network: torch.nn.Module,
    train: Arrays,
    validation: Arrays | None,
    recipe: Recipe,
    loss: Callable,
    *,
    trial: int,
) -> Callable[[], float]:
    """The same training in PyTorch, as a function that trains an epoch and returns its seconds: shuffled indices
    into tensors in memory, no DataLoader; eager, so that every epoch but the first costs the same. The first `trial`
    examples decide which number of threads is faster."""
    import torch

    def tensors(inputs: np.ndarray, class_ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        # channels last, as they lie in memory
        return torch.from_numpy(inputs).permute(0, 3, 1, 2), torch.from_numpy(class_ids.astype(np.int64))

    images, labels = tensors(*train)
    held_out = validation and tensors(*validation)
    network = network.to(memory_format=torch.channels_last)  # twice as fast here
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    optimizer = {
        "sgd": lambda: torch.optim.SGD(network.parameters(), **common, **recipe.optimizer_arguments),
        "adam": lambda: torch.optim.Adam(network.parameters(), **common),
    }[recipe.optimizer]()

    def epoch(count: int = len(images)) -> float:
        start, total = time.perf_counter(), torch.zeros(())
        network.train()
        for index in torch.randperm(count).split(recipe.batch_size):
            optimizer.zero_grad()
            value = loss(network(images[index]), labels[index])
            value.backward()
            optimizer.step()
            total += value.detach()
        total.item()  # which the others log
        if held_out:
            network.eval()
            with torch.no_grad():
                (network(held_out[0]).argmax(1) == held_out[1]).float().mean().item()
        return time.perf_counter() - start

    def seconds_with(threads: int) -> float:
        torch.set_num_threads(threads)
        return epoch(trial)

    epoch(trial)
    torch.set_num_threads(min({1, os.cpu_count() or 1}, key=seconds_with))
    return epoch


def float_arrays(task: tasks.Task, split: Split) -> Arrays:
    """The network's inputs, and class ids."""
    images, class_ids = task.examples(split)
    return preprocessing.apply(tf.constant(images), task.preprocessing, task.channels).numpy(), class_ids
