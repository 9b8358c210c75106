"""Keras' own objects as arguments of `zoo.train` and `zoo.fine_tune`, and what both leave as it was."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.framework import config as tf_config

import zoo
from zoo import testing
from zoo.weights import named_weights

DATA = testing.example_data("classification")
WHOLE = len(DATA.splits["train"])  # as a batch: one step an epoch, whatever the order


def train(out, data=DATA, **settings):
    settings = {"input_shape": (12, 12, 1), "epochs": 1, "batch_size": WHOLE, "learning_rate": 0.1} | settings
    return zoo.train("mlp_784_10", data, out=out, **settings)


def weights(run):
    return {key: value.numpy() for key, value in named_weights(run.model).items()}


def assert_close(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_allclose(value, second[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.fixture(scope="module")
def artifact(making):
    with making as folder:
        return zoo.export(train(folder / "source"), folder / "mlp_784_10.example")


# --- optimizer, loss, metrics, callbacks -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_given_optimizer_and_a_given_loss_train_as_those_of_the_recipe(tmp_path):
    """The recipe's are replayed in NumPy in test_known_answers.py."""
    optimizer = keras.optimizers.SGD(0.3, momentum=0.9)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    schedule = {"kind": "step", "decay": 0.5, "every": 1}
    settings = {"epochs": 3, "schedule": schedule}
    given = train(tmp_path / "given", optimizer=optimizer, loss=loss, weight_decay=0.5, **settings)
    recipe = {"optimizer_arguments": {"momentum": 0.9}, "learning_rate": 0.3, "label_smoothing": 0.2}
    named = train(tmp_path / "named", optimizer="sgd", loss="cross_entropy", **recipe, **settings)
    assert_close(weights(given), weights(named))
    assert [row["learning_rate"] for row in given.history] == pytest.approx([0.3, 0.15, 0.075])
    for row, other in zip(given.history, named.history, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert given.record["given_in_python"] == {"optimizer": "SGD", "loss": "CategoricalCrossentropy"}
    assert given.recipe.learning_rate == pytest.approx(0.3)
    assert not optimizer.built, "the caller's optimizer is copied"
    assert float(optimizer.learning_rate) == pytest.approx(0.3)


def test_an_optimizer_that_scales_the_loss_has_the_learning_rate_of_its_own(tmp_path):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.25))
    run = zoo.train("mlp_784_10", DATA, out=tmp_path / "run", epochs=1, batch_size=8, optimizer=optimizer)
    assert run.recipe.learning_rate == 0.25


def test_a_loaded_run_keeps_no_record(tmp_path):
    run = zoo.train("mlp_784_10", DATA, out=tmp_path / "run", epochs=1, batch_size=8)
    with pytest.raises(zoo.ZooError, match="a loaded run has no training record: export the run itself"):
        zoo.export(zoo.load(run), tmp_path / "mlp_784_10.again")
    assert not (tmp_path / "mlp_784_10.again").exists()


def test_names_of_optimizers_and_losses_are_recipe_keys(tmp_path):
    run = train(tmp_path, optimizer="adam", loss="cross_entropy")
    assert (run.recipe.optimizer, run.recipe.loss) == ("adam", "cross_entropy")
    assert "given_in_python" not in run.record


def test_a_function_is_a_loss_too(tmp_path):
    def seven(targets, outputs):
        return 7.0 + 0.0 * keras.ops.sum(outputs, axis=-1)

    run = train(tmp_path, loss=seven)
    assert run.history[0]["loss"] == run.history[0]["val_loss"] == 7.0
    assert run.record["given_in_python"] == {"loss": "seven"}


@pytest.mark.slow
def test_the_moving_average_of_a_given_optimizer_is_its_own(tmp_path):
    """The recipe's does not act on it."""
    optimizer = keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.9)
    given = train(tmp_path / "given", optimizer=optimizer, ema=0.5, epochs=2)
    alone = train(tmp_path / "alone", optimizer=optimizer, epochs=2)
    plain = train(tmp_path / "plain", optimizer=keras.optimizers.SGD(0.3), ema=0.5, epochs=2)
    losses = [[row["val_loss"] for row in run.history] for run in (given, alone, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0][-1] != pytest.approx(losses[2][-1], rel=1e-3)


def test_metrics_are_measured_and_callbacks_called_in_every_epoch(tmp_path):
    metric, seen = keras.metrics.MeanSquaredError(name="mse"), []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))))
    run = train(tmp_path, metrics=[metric], callbacks=[callback], epochs=2)
    assert [epoch for epoch, _ in seen] == [0, 1]
    for row, (_, logs) in zip(run.history, seen, strict=True):
        assert {"mse", "val_mse"} <= row.keys()
        assert logs.items() <= row.items()
    split = DATA.splits["validation"]
    inputs, targets = run.task.network_batch(*run.task.examples(split))
    expected = np.mean((run.model(inputs).numpy() - targets.numpy()) ** 2)
    assert run.history[run.best_epoch - 1]["val_mse"] == pytest.approx(expected, rel=1e-4)
    assert run.record["given_in_python"] == {"metrics": ["MeanSquaredError"], "callbacks": ["LambdaCallback"]}


def test_a_callback_can_stop_the_training(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    assert len(train(tmp_path, callbacks=[Stop()], epochs=5).history) == 1


class StoppedError(Exception):
    """Raised by `Interrupt`."""


class Interrupt(keras.callbacks.Callback):
    """Ends a training with an error at the beginning of an epoch."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise StoppedError


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path):
    """Adam has a state, and each epoch its own order, augmentation and learning rate."""
    settings = {
        "epochs": 4, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.01, "loss": "cross_entropy",
        "schedule": {"kind": "cosine"}, "augmentation": {"affine": {"rotation": 20}},
    }  # fmt: skip
    whole = train(tmp_path / "whole", callbacks=[Interrupt(None)], **settings)
    for at in (1, 3):
        with pytest.raises(StoppedError):
            train(tmp_path / "run", callbacks=[Interrupt(at)], **settings)
    resumed = train(tmp_path / "run", callbacks=[Interrupt(None)], **settings)
    for row, expected in zip(resumed.history, whole.history, strict=True):
        assert {**row, "seconds": 0} == pytest.approx({**expected, "seconds": 0}, rel=1e-4)
    assert_close(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mlp_784_10", {"optimizer": 3}, "must be a Keras optimizer or the name of one, not int"),
        ("mlp_784_10", {"optimizer": "sdg"}, "sdg"),
        ("mlp_784_10", {"loss": "quadric"}, "did you mean quadratic"),
        (
            "mlp_784_10",
            {"optimizer": keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))},
            "a schedule of its own",
        ),
        (  # of lenet5_modern, which smooths labels
            "lenet5_modern",
            {"loss": "crossentropy"},
            "unknown loss of classification 'crossentropy': did you mean cross_entropy",
        ),
        ("gan_mlp", {"loss": keras.losses.MeanSquaredError()}, "takes no Keras loss or metrics"),
    ],
)
def test_objects_that_cannot_be_used_are_refused_before_anything_is_written(name, given, message, tmp_path):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.train(name, DATA, out=tmp_path / "run", epochs=1, batch_size=8, **given)
    assert not (tmp_path / "run").exists()


def test_fine_tuning_takes_them_in_every_stage(artifact, tmp_path):
    metric = keras.metrics.MeanSquaredError(name="mse")
    run = zoo.fine_tune(
        artifact, testing.example_data("classification", classes=3), out=tmp_path / "tuned", epochs=2, batch_size=8,
        optimizer=keras.optimizers.SGD(0.03), metrics=[metric],
    )  # fmt: skip
    assert [row["learning_rate"] for row in run.history] == pytest.approx([0.03] * 2)
    assert all({"mse", "val_mse"} <= row.keys() for row in run.history)
    assert run.record["given_in_python"] == {"optimizer": "SGD", "metrics": ["MeanSquaredError"]}


# --- data --------------------------------------------------------------------------------------------------------


def test_a_tensorflow_data_set_trains_as_its_arrays_do(tmp_path):
    splits = {name: split.as_tf() for name, split in DATA.splits.items()}
    given = train(tmp_path / "given", splits, epochs=2)
    same = train(tmp_path / "arrays", epochs=2)
    assert_close(weights(given), weights(same))
    for name, scores in same.metrics.items():
        assert given.metrics[name] == pytest.approx(scores)
    assert given.task.classes == ("0", "1")
    assert given.record["data"]["given"] is True
    assert "given" not in same.record["data"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"optimizer": keras.optimizers.SGD(0.1), "callbacks": [keras.callbacks.Callback()]}, "optimizer, callbacks"),
        ({"data": DATA.train}, "data"),
    ],
    ids=["objects", "data"],
)
def test_what_was_given_in_python_is_not_reproduced(settings, named, tmp_path, unverified):
    path = zoo.export(train(tmp_path / "run", **settings), tmp_path / "mlp_784_10.given")
    with pytest.raises(zoo.ZooError, match=rf"was trained with objects given in Python \({named}\)"):
        zoo.reproduce(path, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


# --- the caller's own state --------------------------------------------------------------------------------------


def draw():
    """Numbers from every generator that a caller may use without a seed of its own."""
    return [
        random.random(),
        np.random.random(),
        float(tf.random.normal([])),
        float(keras.random.normal([])),
        float(keras.Variable(initializer="glorot_uniform", shape=(1, 1))[0, 0]),
    ]


def fail(tmp_path, artifact):
    with pytest.raises(zoo.ZooError, match="loss"):
        train(tmp_path / "run", learning_rate=1e38, loss="cross_entropy", epochs=2)


ACTIONS = {
    "train": lambda tmp_path, artifact: train(tmp_path / "run"),
    "deterministic": lambda tmp_path, artifact: train(tmp_path / "run", deterministic=True),
    "fine_tune": lambda tmp_path, artifact: zoo.fine_tune(artifact, DATA, out=tmp_path / "run", epochs=1, batch_size=8),
    "error": fail,
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("action", ACTIONS)
def test_the_callers_random_numbers_continue_as_if_nothing_had_been_trained(action, artifact, tmp_path):
    keras.utils.set_random_seed(3)
    expected = [draw(), draw()]
    keras.utils.set_random_seed(3)
    assert draw() == expected[0]
    ACTIONS[action](tmp_path, artifact)
    assert draw() == expected[1]
    assert keras.config.dtype_policy().name == "float32"
    assert not tf_config.is_op_determinism_enabled()


def test_a_caller_without_a_seed_has_none_afterwards(tmp_path):
    tf.random.set_seed(None)
    for name in ("global_random_seed", "global_seed_generator"):
        global_state.set_global_attribute(name, None)
    train(tmp_path)
    assert global_state.get_global_attribute("global_random_seed") is None
    assert float(tf.random.normal([])) != float(tf.random.normal([]))


def test_the_callers_dtype_policy_stays_and_the_network_is_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        run = train(tmp_path)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert run.model.compute_dtype == run.model.get_layer("output").compute_dtype == "float32"


def test_the_callers_determinism_stays(tmp_path):
    tf_config.enable_op_determinism()
    try:
        train(tmp_path)
        assert tf_config.is_op_determinism_enabled()
    finally:
        tf_config.disable_op_determinism()
