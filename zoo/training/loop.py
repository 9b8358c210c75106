"""The training loop for several machines, with Keras' own steps and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Batches = Callable[[tf.distribute.InputContext], tf.data.Dataset]


def fit(
    trainer: keras.Model,
    strategy: tf.distribute.Strategy,
    batches: Batches,
    validation: Batches,
    *,
    steps: int,
    epochs: int,
    initial_epoch: int,
    verbose: Any,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """What `trainer.fit` does for one machine. Keras' own `fit` fails under `MultiWorkerMirroredStrategy`: it passes
    whole batches, and scalars with an axis, to `strategy.reduce`, which takes neither there.

    All workers call it with the same numbers. Logs are the same on all of them: what one worker decides by them, such
    as to stop, the others decide too.

    Args:
        batches: makes this machine's batches of all epochs, one for each of its replicas after another.
        validation: makes those of the validation split.
        steps: batches in an epoch.
    """

    @tf.function
    def train(iterator: Any) -> dict[str, tf.Tensor]:
        logs = strategy.run(trainer.train_step, args=(next(iterator),))
        stacked = strategy.run(lambda values: tf.stack([*values.values()]), (logs,))  # one exchange for all
        means = strategy.reduce("MEAN", stacked, None)
        return dict(zip(logs, tf.unstack(means), strict=True))

    @tf.function
    def test(batch: Any) -> dict[str, Any]:
        return strategy.run(trainer.test_step, args=(batch,))

    verbose = verbose if strategy.extended.should_checkpoint else 0  # the chief alone reports
    events = keras.callbacks.CallbackList(
        [*callbacks], add_progbar=verbose != 0, verbose=verbose, epochs=epochs, steps=steps, model=trainer
    )
    iterator = iter(strategy.distribute_datasets_from_function(batches))
    validated = strategy.distribute_datasets_from_function(validation)
    trainer.stop_training = False
    events.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        trainer.reset_metrics()
        events.on_epoch_begin(epoch)
        logs: dict[str, Any] = {}
        for step in range(steps):
            events.on_train_batch_begin(step)
            logs = train(iterator)
            events.on_train_batch_end(step, logs)
        scores = _over_all_replicas(trainer, logs)
        trainer.reset_metrics()
        events.on_test_begin()
        for step, batch in enumerate(validated):
            events.on_test_batch_begin(step)
            logs = test(batch)
            events.on_test_batch_end(step)
        val_scores = _over_all_replicas(trainer, logs)
        events.on_test_end(val_scores)
        events.on_epoch_end(epoch, scores | {f"val_{name}": value for name, value in val_scores.items()})
        if trainer.stop_training:
            break
    events.on_train_end()


def _over_all_replicas(trainer: keras.Model, logs: dict[str, Any]) -> dict[str, float]:
    """The metrics that a step returns, over the replicas of all workers."""
    return {name: float(value) for name, value in trainer.get_metrics_result().items() if name in logs}
