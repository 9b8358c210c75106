"""Callbacks of every training: learning rate, history, checkpoints, patience, and the end of a run."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from zoo.errors import ZooError
from zoo.recipe import Recipe
from zoo.training.optimizers import optimizers_of
from zoo.weights import assign, load_arrays, named_weights, save_arrays

if TYPE_CHECKING:
    from zoo.metrics import Metric

STATE_FILE = "state.npz"


class LearningRate(keras.callbacks.Callback):
    """Sets each optimizer's learning rate, by the recipe's schedule, for the epoch or the step that begins. Each
    optimizer has the rate that it was made with, before a resumed run restores a later one."""

    def __init__(self, optimizers: list, recipe: Recipe) -> None:
        super().__init__()
        self.optimizers, self.recipe, self.epoch = optimizers, recipe, 0
        self.rates = [float(keras.ops.convert_to_numpy(optimizer.learning_rate)) for optimizer in optimizers]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch
        self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self.recipe.schedule.by_step:
            self._set(self.epoch + batch / self.params["steps"])

    def _set(self, epoch: float) -> None:
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.learning_rate = rate * self.recipe.schedule.factor(epoch, self.recipe.epochs)


class SlowWeights(keras.callbacks.Callback):
    """The recipe's `lookahead`: slow averages of the trained weights, to which these move every few steps, and after
    the last step."""

    def __init__(self, variables: list[Any], recipe: Recipe) -> None:
        super().__init__()
        assert recipe.lookahead is not None, "the recipe has a lookahead"
        self.lookahead, self.epochs, self.epoch = recipe.lookahead, recipe.epochs, 0
        self.fast = variables
        self.slow = [keras.Variable(variable, trainable=False, dtype=variable.dtype) for variable in variables]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step, steps = self.epoch * self.params["steps"] + batch + 1, self.epochs * self.params["steps"]
        if step % self.lookahead.every == 0:
            decay = self.lookahead.decay * (step / steps) ** 3
            for fast, slow in zip(self.fast, self.slow, strict=True):
                slow.assign(decay * slow + (1 - decay) * fast)
        if step % self.lookahead.every == 0 or step == steps:
            for fast, slow in zip(self.fast, self.slow, strict=True):
                fast.assign(slow)


def best_epoch(rows: list[dict[str, Any]], monitor: Metric | None) -> int:
    """The epoch, from 1, with the best validation score; the last one where nothing is monitored; 0 without rows."""
    if monitor is None or not rows:
        return len(rows)
    ranks = [monitor.rank(row[f"val_{monitor.name}"]) for row in rows]
    return ranks.index(max(ranks)) + 1


class History(keras.callbacks.Callback):
    """The rows of a run, one an epoch, and the two checkpoints that go with them.

    `best-N.npz` holds the weights of the best epoch N; `state.npz` holds all variables, those of the optimizer and of
    random generators too, with the rows so far. The state is replaced last: whenever the process is killed, the state
    and the best weights that belong to its rows are both there.

    Args:
        monitor: the metric whose validation score chooses the best epoch; None where it is the last one.
        patience: epochs without a better validation score before training stops; None for never.
    """

    def __init__(
        self, directory: Path, network: keras.Model, monitor: Metric | None, patience: int | None = None
    ) -> None:
        super().__init__()
        self.directory, self.network, self.monitor, self.patience = directory, network, monitor, patience
        self.rows: list[dict[str, float]] = []
        self.state: list[Any] = []
        self.started = 0.0

    def watch(self, trainer: keras.Model, variables: list[Any]) -> None:
        """The variables that a resumed run needs."""
        metrics = {id(variable) for metric in trainer.metrics for variable in metric.variables}
        self.state = [variable for variable in variables if id(variable) not in metrics]

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the best validation score; the last one where nothing is monitored; 0 before any."""
        return best_epoch(self.rows, self.monitor)

    def is_over(self, epochs: int) -> bool:
        """Whether all epochs are done or patience has run out."""
        waited = len(self.rows) - self.best_epoch
        return len(self.rows) >= epochs or (self.patience is not None and waited >= self.patience)

    def restore_rows(self) -> None:
        path = self.directory / STATE_FILE
        if path.exists():
            self.rows = json.loads(str(load_arrays(path)["history"]))

    def restore_state(self) -> None:
        path = self.directory / STATE_FILE
        if path.exists():
            # By number alone: Keras numbers the names of optimizers and generators within one process.
            arrays = {key[:4]: value for key, value in load_arrays(path).items() if key != "history"}
            assign({key[:4]: variable for key, variable in enumerate_keys(self.state)}, arrays)

    def load_best(self) -> None:
        """Put the weights of the best epoch into the network."""
        assign(named_weights(self.network), load_arrays(self._best_path(self.best_epoch)))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if logs:
            self._check_finite(float(logs["loss"]), f"loss at step {batch + 1}")

    def on_test_end(self, logs: dict | None = None) -> None:
        # With a moving average of the weights, the network holds the averages only until validation has ended.
        self.validated = {key: variable.numpy() for key, variable in named_weights(self.network).items()}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        rate = float(keras.ops.convert_to_numpy(optimizers_of(self.model)[0].learning_rate))
        scores = {name: float(value) for name, value in (logs or {}).items()}
        self._check_finite(scores["val_loss"], "validation loss")  # the last step's loss was that before it
        seconds = round(time.monotonic() - self.started, 2)
        self.rows.append({"epoch": epoch + 1, "seconds": seconds, "learning_rate": rate, **scores})
        best = self._best_path(self.best_epoch)
        if self.best_epoch == len(self.rows):
            save_arrays(best, self.validated)
        self._write_table()
        state = {key: variable.numpy() for key, variable in enumerate_keys(self.state)}
        save_arrays(self.directory / STATE_FILE, {**state, "history": np.array(json.dumps(self.rows))})
        for path in self.directory.glob("best-*.npz"):
            if path != best:
                path.unlink()
        if self.is_over(self.params["epochs"]):
            self.model.stop_training = True

    def _check_finite(self, loss: float, what: str) -> None:
        """Raises ZooError for a loss that is not a finite number."""
        if not math.isfinite(loss):
            kept = self._best_path(self.best_epoch) if self.rows else "none, this is the first epoch"
            raise ZooError(
                f"the {what} of epoch {len(self.rows) + 1} is {loss}: try a lower learning rate; "
                f"last good weights: {kept}"
            )

    def _best_path(self, epoch: int) -> Path:
        return self.directory / f"best-{epoch:04d}.npz"

    def _write_table(self) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        (self.directory / "history.csv").write_text(table.getvalue())


def enumerate_keys(variables: list[Any]) -> list[tuple[str, Any]]:
    """Variables under keys that differ even where their paths are the same."""
    return [(f"{index:04d}/{variable.path}", variable) for index, variable in enumerate(variables)]
