"""Training as a user meets it: devices, repeatability, interrupted runs, recipes, errors, fine-tuning."""

import csv
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import zoo
from zoo import artifacts, registry, testing
from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.exporting import saved_model
from zoo.metrics import LOSS
from zoo.recipe import Recipe
from zoo.spec import ModelSpec, Preprocessing, Stage
from zoo.tasks import get_task
from zoo.training import (
    batches,
    callbacks,
    devices,
    evaluation,
    fine_tuning,
    normalization,
    optimizers,
    plots,
    randomness,
    runs,
    trainer,
)
from zoo.weights import assign, load_arrays, named_weights

SPLITS = ("train", "validation", "test")
TINY = {"hidden": (16, 16)}  # network3_dropout without its thousands of units


# --- what the tests train, and on what ---------------------------------------------------------------------------


def bars(train: int = 24, validation: int = 20, test: int = 12, classes: int = 2, channels: int = 1) -> Dataset:
    """Bars of 12 x 12 pixels, as many as asked for in each split."""
    ends = np.cumsum([0, train, validation, test])
    whole = testing.example_data("classification", classes, max(24, ends[-1]))
    inputs, targets = (
        np.concatenate([getattr(whole.splits[name], kind) for name in SPLITS]) for kind in ("inputs", "targets")
    )
    inputs = np.repeat(inputs, channels, axis=-1)
    parts = {name: slice(*ends[number : number + 2]) for number, name in enumerate(SPLITS)}
    return Dataset("bars", {name: Split(inputs[part], targets[part]) for name, part in parts.items()}, whole.classes)


def digits(train: int, validation: int, test: int = 32) -> Dataset:
    whole = zoo.data.load("digits")
    counts = dict(zip(SPLITS, (train, validation, test), strict=True))
    return Dataset("digits", {name: whole.splits[name].head(count) for name, count in counts.items()}, whole.classes)


def throwaway(input_shape: tuple, classes: int) -> keras.Model:
    """A network of these tests alone: convolution, batch normalization, dropout and a dense head."""
    x = inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, name="output")(x), name="throwaway")


THROWAWAY = ModelSpec(
    name="throwaway",
    task="classification",
    summary="",
    year=2024,
    references=("these tests",),
    input_shape=(12, 12, 1),
    classes=2,
    params=40 + 8 + 202,
    head=("output",),
    preprocessing=Preprocessing(size=(12, 12)),
    recipes={"own": Recipe(epochs=2, batch_size=8, learning_rate=0.05)},
    stages=(Stage("head", ("output",), 0.1, 2), Stage("all", ("*",), 0.05, 3)),
)


@pytest.fixture(scope="module", autouse=True)
def registered():
    zoo.list_models()  # the zoo's own first
    registry.register(THROWAWAY)(throwaway)
    yield
    del registry._specs["throwaway"]


def figures(run) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.history]


def column(run, key: str) -> list[float]:
    return [row[key] for row in run.history]


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {key: variable.numpy() for key, variable in named_weights(model).items()}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


def state_of(directory: Path) -> dict[str, np.ndarray]:
    return load_arrays(directory / "state.npz")


def saved_rows(directory: Path) -> list[dict]:
    return json.loads(str(state_of(directory)["history"])) if (directory / "state.npz").exists() else []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run that several tests look at."""
    return zoo.train("throwaway", bars(), out=tmp_path_factory.mktemp("runs") / "run", epochs=3)


# --- one device and two ------------------------------------------------------------------------------------------

LINEAR = ("mlp_784_10", {})
DENSE = ("mlp_784_30_10", {})
CONVOLUTIONAL = ("network3_relu", {"filters": (4,), "hidden": (8,)})
RECURRENT = ("lstm_mnist", {"width": 8, "dropout": 0.0})


def on_one_and_on_two(network, data, tmp_path, **changes):
    name, arguments = network
    return [
        zoo.train(name, data, out=tmp_path / str(count), devices=word, batch_size=16, arguments=arguments, **changes)
        for count, word in enumerate(("cpu", "cpu:2"), start=1)
    ]


def assert_close(one, two):
    for first, second in zip(figures(one), figures(two), strict=True):
        assert second == pytest.approx(first, rel=2e-4, abs=1e-5)
    assert two.best_epoch == one.best_epoch
    for split, values in one.metrics.items():
        assert two.metrics[split] == pytest.approx(values, rel=2e-4, abs=1e-5)
    expected = weights(one.model)
    for key, value in weights(two.model).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("network", [DENSE, CONVOLUTIONAL, RECURRENT], ids=["dense", "convolutional", "recurrent"])
def test_two_devices_train_as_one(network, tmp_path):
    changes = {"optimizer": "sgd", "optimizer_arguments": {"momentum": 0.5}, "weight_decay": 0.01}
    changes |= {"ema": 0.5, "epochs": 2}
    one, two = on_one_and_on_two(network, digits(64, 38, 33), tmp_path, **changes)
    assert_close(one, two)
    assert one.history[0]["loss"] != one.history[1]["loss"]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("validation", [37, 257])
def test_two_devices_validate_on_all_of_an_odd_split(validation, tmp_path):
    assert_close(*on_one_and_on_two(LINEAR, digits(32, validation), tmp_path, epochs=1))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_no_replica_is_left_without_an_example(replicas):
    """TensorFlow gives each as many of a batch as the first, while there are any, and aborts at one without."""
    task = get_task("classification").from_data(THROWAWAY, bars())
    for count in range(100, 150):
        split = Split(np.zeros((count, 12, 12, 1), np.uint8), np.zeros(count, np.int64))
        given = batches.evaluation_batches(task, split, batch_size=40, replicas=replicas)
        sizes = [len(labels) for _, labels in given]
        assert sum(sizes) == count
        assert sizes[0] % replicas == 0
        assert all(size > (replicas - 1) * math.ceil(size / replicas) for size in sizes), (count, sizes)


def test_a_batch_larger_than_the_data_is_all_of_it_that_splits_evenly(tmp_path):
    run = zoo.train("throwaway", bars(train=7), out=tmp_path / "run", epochs=1, batch_size=64)
    assert iterations(run) == 1


class Masks(keras.callbacks.Callback):
    """The dropout masks of an epoch's first step, by replica."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def on_epoch_begin(self, epoch, logs=None):
        strategy = devices.strategy("cpu:2")
        masks = strategy.run(lambda: self.model.get_layer("dropout")(tf.ones([1, 1_000]), training=True))
        self.drawn.append([mask.numpy()[0] > 0 for mask in strategy.experimental_local_results(masks)])


def test_each_replica_draws_a_dropout_mask_of_its_own(tmp_path):
    whole, resumed = Masks(), Masks()
    options = {"devices": "cpu:2", "callbacks": [whole]}
    zoo.train("throwaway", bars(), out=tmp_path / "whole", epochs=2, **options)
    for first, second in whole.drawn:
        assert first.mean() == pytest.approx(0.8, abs=0.05)
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    zoo.train("throwaway", bars(), out=tmp_path / "run", epochs=1, **options)
    zoo.train("throwaway", bars(), out=tmp_path / "run", epochs=2, devices="cpu:2", callbacks=[resumed])
    np.testing.assert_array_equal(resumed.drawn, whole.drawn[1:2])


@pytest.mark.slow
def test_a_gan_trains_on_two_devices(tmp_path):
    run = zoo.train(
        "gan_mlp", digits(32, 16), out=tmp_path / "run", epochs=2, batch_size=8, devices="cpu:2", arguments={"width": 8}
    )
    assert all(math.isfinite(value) for row in run.history for value in row.values())
    # what is shown is not divided by the replicas: the scores are those of one device, but for the noise
    best = run.history[run.best_epoch - 1]
    for name, value in run.metrics["validation"].items():
        if name.endswith("loss"):  # the others are of few samples
            assert best[f"val_{name}"] == pytest.approx(value, rel=0.15)
    assert [int(value) for key, value in state_of(run.directory).items() if key.endswith("iteration")] == [8, 8]


def test_each_replica_of_a_gan_draws_noise_of_its_own(tmp_path):
    strategy = devices.strategy("cpu:2")
    task = get_task("generation").from_data(zoo.get_spec("gan_mlp"), digits(8, 8), width=8)
    with strategy.scope():
        adversary = task.compile(task.build(), task.with_options(task.spec.recipe()), keras.optimizers.SGD)

    def draw(step: int) -> list[np.ndarray]:
        values = strategy.run(lambda: adversary.latents(500, tf.constant(step)))
        return [value.numpy() for value in strategy.experimental_local_results(values)]

    first, second = draw(3)
    assert first.shape == (500, 100)
    assert first.std() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(draw(3), [first, second])
    assert all(abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.05 for other in draw(4))


# --- repeatable, killed, started again ---------------------------------------------------------------------------
# In processes of their own: determinism is switched on for a whole process, and a kill ends one. The fork server
# has TensorFlow imported but not started, so that a process begins at once.

HARD = {  # everything that draws random numbers or has state
    "epochs": 4,
    "batch_size": 16,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "ema": 0.8,
    "schedule": {"kind": "cosine", "warmup_epochs": 1},
    "augmentation": {"affine": {"rotation": 10, "translation": 0.1}, "elastic": {"alpha": 20, "sigma": 4}},
}


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["keras", "zoo.training.trainer", "zoo.training.callbacks", "zoo.training.plots", "zoo.tasks.losses"]
    )
    return context


def _train(out: Path, data: Dataset, changes: dict) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    zoo.train("network3_dropout", data, out=out, deterministic=True, devices="cpu", arguments=TINY, **changes)


def _fine_tune(out: Path, data: Dataset, source: Path) -> None:
    registry.register(THROWAWAY)(throwaway)
    zoo.fine_tune(source, data, out=out, deterministic=True, devices="cpu", seed=5, epochs=STAGE)


STAGE = 8  # epochs of each stage, so that a kill in its second one is not too late


def start(processes, target, *arguments):
    process = processes.Process(target=target, args=arguments)
    process.start()
    return process


def finish(*started) -> None:
    for process in started:
        process.join(120)
        assert process.exitcode == 0


def kill_when(process, is_time, delay: float) -> None:
    """SIGKILL, `delay` seconds after `is_time()` is true for the first time."""
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.exitcode is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.join()


def figures_in(directory: Path) -> tuple[list[dict], dict]:
    record = json.loads((directory / "run.json").read_text())
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in record["history"]]
    return rows, record["metrics"]


@pytest.fixture(scope="module")
def never_killed(processes, tmp_path_factory):
    """A deterministic run with its data; once more with the same seed and once with another."""
    root, data = tmp_path_factory.mktemp("deterministic"), digits(64, 40)
    seeds = {"first": 0, "again": 0, "other": 1}
    finish(*[start(processes, _train, root / name, data, {**HARD, "seed": seed}) for name, seed in seeds.items()])
    return root, data


def test_the_same_seed_gives_the_same_bytes(never_killed):
    root, _ = never_killed
    assert_same(load_arrays(root / "first" / "weights.npz"), load_arrays(root / "again" / "weights.npz"))
    assert figures_in(root / "first") == figures_in(root / "again")
    other = load_arrays(root / "other" / "weights.npz")
    for key, value in load_arrays(root / "first" / "weights.npz").items():
        assert (value != other[key]).any(), key


KILLS = [(0, 0.0), (1, 0.0), (3, 0.05)]  # rows that are saved, seconds after that


@pytest.mark.slow
def test_a_killed_run_resumes_as_if_it_had_not_been(processes, never_killed, tmp_path):
    root, data = never_killed
    kept = {}
    for rows, delay in KILLS:
        out = tmp_path / f"killed{rows}"
        process = start(processes, _train, out, data, HARD)
        begun = out / "run.json"
        kill_when(process, lambda n=rows, o=out, b=begun: len(saved_rows(o)) >= n and b.exists(), delay)
        assert process.exitcode == -signal.SIGKILL
        assert "metrics" not in json.loads(begun.read_text())
        kept[out] = saved_rows(out)
        assert len(kept[out]) >= rows
        for name in ("state.partial", "best-0001.partial", "weights.partial", "run.partial"):  # cut short in writing
            (out / name).write_bytes(b"PK\x03\x04 half a file")
    finish(*[start(processes, _train, out, data, HARD) for out in kept])
    for out, rows in kept.items():
        record = json.loads((out / "run.json").read_text())
        assert record["history"][: len(rows)] == rows  # with their seconds: what was saved was not trained again
        assert figures_in(out) == figures_in(root / "first")
        assert_same(load_arrays(out / "weights.npz"), load_arrays(root / "first" / "weights.npz"))
        assert len((out / "history.csv").read_text().splitlines()) == 1 + HARD["epochs"]


@pytest.mark.slow
def test_a_run_killed_after_its_last_state_still_writes_its_whole_table(tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    def write_or_die(history):
        if len(history.rows) == 2:
            raise KilledError
        write(history)

    write = callbacks.History._write_table
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.History, "_write_table", write_or_die)
        with pytest.raises(KilledError):
            zoo.train("throwaway", bars(), out=tmp_path / "run", epochs=2)
    zoo.train("throwaway", bars(), out=tmp_path / "run", epochs=2)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


def test_a_finished_run_is_not_trained_again(run, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it trains or evaluates again")

    monkeypatch.setattr(keras.Model, "fit", refuse)
    monkeypatch.setattr(keras.Model, "evaluate", refuse)
    before = (run.directory / "run.json").read_bytes()
    again = zoo.train("throwaway", bars(), out=run.directory, epochs=3)
    assert again.record == run.record
    assert_same(weights(again.model), weights(run.model))
    assert (run.directory / "run.json").read_bytes() == before


def one_pixel_changed(data: Dataset) -> Dataset:
    data.splits["test"].inputs[3, 4, 5] ^= 1
    return Dataset(data.name, data.splits, data.classes)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"epochs": 2}, "recipe"),
        ({"learning_rate": 0.5}, "recipe"),
        ({"data": one_pixel_changed(bars())}, "data"),
        ({"name": "mlp_784_10"}, "model, recipe, recipe_name"),
        ({"deterministic": True}, "deterministic"),
    ],
)
def test_another_run_in_the_same_directory_is_refused(run, other, named):
    arguments = {"name": "throwaway", "data": bars(), "epochs": 3, "out": run.directory, **other}
    with pytest.raises(ZooError, match=rf"contains another run \(different {named}\)"):
        zoo.train(**arguments)


def test_an_unfinished_run_is_not_loaded(run, tmp_path):
    record = json.loads((run.directory / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "metrics"}))
    with pytest.raises(ZooError, match="not finished"):
        runs.load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"model": ')
    with pytest.raises(ZooError, match="damaged"):
        runs.load_run(tmp_path)


# --- what a run leaves behind ------------------------------------------------------------------------------------


def test_a_run_leaves_its_history_curves_and_record(run):
    record = json.loads((run.directory / "run.json").read_text())
    assert record == run.record
    assert record["seed"] == 0
    assert record["data"]["fingerprint"] == bars().fingerprint
    assert record["data"]["examples"] == {"train": 24, "validation": 20, "test": 12}
    assert column(run, "epoch") == [1, 2, 3]
    wanted = {"epoch", "seconds", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(set(row) == wanted for row in run.history)
    with (run.directory / "history.csv").open() as file:
        table = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert table == run.history
    assert (run.directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    events = {file.parent.name for file in (run.directory / "tensorboard").rglob("events.out.*")}
    assert events == {"train", "validation"}
    assert len(list(run.directory.glob("best-*.npz"))) == 1
    assert_same(load_arrays(run.directory / "weights.npz"), weights(run.model))


def test_curves_leave_the_figures_of_single_classes_out(run, tmp_path):
    task = dataclasses.replace(run.task, classes=("iou", "cell"))  # a class may be called as a figure is
    names = ("loss", "mean_iou", "iou_iou", "iou_cell")
    row = {"epoch": 1, **{f"{split}{name}": 0.5 for split in ("", "val_") for name in names}}
    plots.training_curves([row], task, 1, tmp_path / "curves.png")
    width, height = Image.open(tmp_path / "curves.png").size
    assert (width, height) == (1000, 360), "two panels: the loss, the mean"


def test_curves_show_what_is_measured_in_validation_alone(run, tmp_path):
    rows = [{"epoch": number, "loss": 0.5, "val_loss": 0.5, "val_frechet_distance": 2.0} for number in (1, 2)]
    plots.training_curves(rows, run.task, 1, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1000, 360)


def test_a_run_is_loaded_as_it_was(run):
    loaded = runs.load_run(run.directory)
    assert loaded.recipe == run.recipe
    assert loaded.history == run.history
    assert_same(weights(loaded.model), weights(run.model))


def iterations(run) -> int:
    (count,) = (int(value) for key, value in state_of(run.directory).items() if key.endswith("iteration"))
    return count


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("examples", "batch_size"), [(53, 1), (29, 4), (60, 1)])  # steps: 53, 7, 60 = 2 * 30
def test_every_step_of_every_epoch_is_taken_once(examples, batch_size, tmp_path):
    data = bars(train=examples)
    run = zoo.train("mlp_784_10", data, out=tmp_path / "run", epochs=2, batch_size=batch_size)
    assert iterations(run) == 2 * (examples // batch_size)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_batch_normalization_is_measured_on_images_as_they_are(devices, tmp_path):
    data = bars()
    run = zoo.train(
        "throwaway", data, out=tmp_path / "run", devices=devices, epochs=1, augmentation={"affine": {"scale": 0.9}}
    )
    images = data.splits["train"].inputs / np.float32(255)  # one batch
    features = keras.Model(run.model.inputs, run.model.get_layer("conv").output)([images]).numpy()
    norm = run.model.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, features.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, features.var((0, 1, 2)), rtol=1e-2, atol=1e-5)
    assert norm.momentum == layers.BatchNormalization().momentum


def test_batch_normalization_inside_a_sub_model_is_measured_too():
    images = keras.Input((12, 12, 1))
    part = keras.Model(images, layers.BatchNormalization(name="norm")(images), name="part")
    outputs = layers.Dense(2, name="output")(layers.Flatten(name="flatten")(part(images)))
    model, data = keras.Model(images, outputs), bars()
    task = get_task("classification").from_data(THROWAWAY, data)
    normalization.measure_normalization(task, model, data.splits["train"])
    inputs = data.splits["train"].inputs / np.float32(255)
    np.testing.assert_allclose(part.get_layer("norm").moving_mean, inputs.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(part.get_layer("norm").moving_variance, inputs.var((0, 1, 2)), rtol=1e-2)


def test_each_image_counts_alike_where_batch_normalization_is_measured():
    """Also the one that a batch of 256 leaves over."""
    images = np.zeros((257, 12, 12, 1), np.uint8)
    images[-1] = 255
    split = Split(images, np.arange(257) % 2)
    inputs = keras.Input((12, 12, 1))
    x = layers.Flatten(name="flatten")(layers.BatchNormalization(name="norm")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="output")(x))
    data = Dataset("dark", dict.fromkeys(("train", "validation", "test"), split), ("a", "b"))
    task = get_task("classification").from_data(THROWAWAY, data)
    normalization.measure_normalization(task, model, split)
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, 1 / 257, rtol=1e-4)


def test_batch_normalization_of_a_generator_is_measured_on_other_noise_in_each_batch():
    """The variance of a linear function of standard normal latents is the square of its norm. Of 2,048 latents the
    measured ones are off by 3 %, of the 256 of one batch by 9 %."""
    images = Split(np.zeros((2_048, 4, 4, 1), np.uint8))
    data = Dataset("black", dict.fromkeys(("train", "validation", "test"), images))
    task = get_task("generation").from_data(zoo.get_spec("dcgan_small"), data, (4, 4, 1), widths=(2, 2))
    model = task.build()
    normalization.measure_normalization(task, model, images)
    generator = model.get_layer("generator")
    expected = (generator.get_layer("dense").kernel.numpy() ** 2).sum(0)
    errors = generator.get_layer("dense_norm").moving_variance.numpy() / expected - 1
    assert np.sqrt((errors**2).mean()) < 0.05


# --- the best epoch ----------------------------------------------------------------------------------------------

# two good epochs, then steps so large that all units are saturated
SPOILT = {
    "epochs": 5,
    "batch_size": 10,
    "learning_rate": 3.0,
    "schedule": {"kind": "table", "table": [[0, 1], [2, 1e5]]},
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A run that gets worse after its second epoch, with a note of each evaluation: the split, the weights."""
    data, calls = digits(400, 100, 60), []
    evaluate = evaluation.evaluate_splits

    def spy(task, model, splits, recipe):
        calls.extend((split, weights(model)) for split in splits.values())
        return evaluate(task, model, splits, recipe)

    make_batches = batches.evaluation_batches
    read = []

    def spy_batches(task, split, **options):
        read.append(split)
        return make_batches(task, split, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "evaluate_splits", spy)
        patch.setattr(trainer, "evaluation_batches", spy_batches)
        patch.setattr(evaluation, "evaluation_batches", spy_batches)
        run = zoo.train("mlp_784_30_10", data, out=tmp_path_factory.mktemp("runs") / "spoilt", **SPOILT)
    return run, data, calls, read


def test_the_weights_are_those_of_the_best_validation(spoilt):
    run, data, _, _ = spoilt
    accuracies = column(run, "val_accuracy")
    assert run.best_epoch == 1 + accuracies.index(max(accuracies)) <= 2
    assert accuracies[-1] < accuracies[run.best_epoch - 1]
    best = run.history[run.best_epoch - 1]
    again = evaluation.evaluate_splits(run.task, run.model, data.splits, run.recipe)["validation"]
    assert again["accuracy"] == best["val_accuracy"] == run.metrics["validation"]["accuracy"]
    assert again["loss"] == pytest.approx(best["val_loss"], rel=1e-6)


def test_the_test_split_is_read_once_and_with_the_best_weights(spoilt):
    run, data, calls, read = spoilt
    test = data.splits["test"]
    assert sum(split is test for split in read) == 1
    assert [held for split, held in calls if split is test] != []
    for split, held in calls:
        assert split is not data.splits["train"]
        assert_same(held, weights(run.model))


def test_patience_ends_the_run(spoilt, tmp_path):
    full, data, _, _ = spoilt
    run = zoo.train("mlp_784_30_10", data, out=tmp_path / "run", patience=2, **SPOILT)
    assert len(run.history) == full.best_epoch + 2 < SPOILT["epochs"]
    assert figures(run) == figures(full)[: len(run.history)]
    assert run.best_epoch == full.best_epoch
    again = zoo.train("mlp_784_30_10", data, out=tmp_path / "run", patience=2, **SPOILT)
    assert again.history == run.history


# --- what a recipe says is what is done --------------------------------------------------------------------------


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"kind": "step", "decay": 0.5, "every": 2}, [1.0, 1.0, 0.5, 0.5]),
        ({"kind": "cosine", "warmup_epochs": 1}, [0.5, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]),
        ({"kind": "table", "table": [[0, 1], [1, 0.2], [3, 0.1]], "warmup_epochs": 1}, [0.5, 0.2, 0.2, 0.1]),
    ],
    ids=["constant", "step", "cosine and warmup", "table and warmup"],
)
def test_the_learning_rate_follows_the_schedule(schedule, rates, tmp_path):
    data = bars(train=4, validation=4, test=4)
    run = zoo.train("mlp_784_10", data, out=tmp_path / "run", epochs=4, batch_size=4, schedule=schedule)
    assert column(run, "learning_rate") == pytest.approx([3.0 * rate for rate in rates])
    assert column(run, "loss")[0] > 0


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Replay:
    """Plain gradient descent on a layer of sigmoid units with quadratic cost, one step an epoch, in NumPy."""

    def __init__(self, data: Dataset, seed: int = 0) -> None:
        self.task = get_task("classification").from_data(zoo.get_spec("mlp_784_10"), data)
        with randomness.seeded(seed, deterministic=False):
            start = weights(self.task.build())
        self.kernel, self.bias = (start[f"output/{name}"].astype(np.float64) for name in ("kernel", "bias"))
        self.x, self.y = self.arrays(data.splits["train"])

    def arrays(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        x, y = self.task.network_batch(split.inputs, split.targets)
        return x.numpy().reshape(len(x), -1).astype(np.float64), y.numpy()

    def step(self, rate: float, decay: float) -> None:
        output = sigmoid(self.x @ self.kernel + self.bias)
        error = (output - self.y) * output * (1 - output) / len(self.x)
        self.kernel -= rate * (self.x.T @ error + decay * self.kernel)
        self.bias -= rate * error.sum(axis=0)


def test_weight_decay_is_an_l2_gradient_that_leaves_biases_alone(tmp_path):
    data = bars(classes=3)
    replay = Replay(data)
    run = zoo.train(
        "mlp_784_10", data, out=tmp_path / "run", epochs=1, batch_size=24, learning_rate=0.4, weight_decay=0.3
    )
    replay.step(rate=0.4, decay=0.3)
    np.testing.assert_allclose(weights(run.model)["output/kernel"], replay.kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights(run.model)["output/bias"], replay.bias, rtol=1e-4, atol=1e-5)


def test_the_averaged_weights_are_validated_and_kept(tmp_path):
    data = bars(classes=3)
    replay, momentum, averages = Replay(data), 0.7, []
    run = zoo.train("mlp_784_10", data, out=tmp_path / "run", epochs=4, batch_size=24, learning_rate=5.0, ema=momentum)
    for step in range(4):
        replay.step(rate=5.0, decay=0.0)
        now = np.vstack([replay.kernel, replay.bias])
        rising = min(momentum, 1 - (1 + step) ** (-2 / 3))  # timm's warm-up: 0, 0.37, 0.52, 0.60
        averages.append(now if not averages else rising * averages[-1] + (1 - rising) * now)
    assert np.abs(averages[-1] - now).max() > 0.01  # they do differ from the weights of the last step
    x, y = replay.arrays(data.splits["validation"])
    losses = [0.5 * np.sum((sigmoid(x @ both[:-1] + both[-1]) - y) ** 2, axis=1).mean() for both in averages]
    assert column(run, "val_loss") == pytest.approx(losses, rel=1e-4)
    best = averages[run.best_epoch - 1]
    kept = weights(run.model)
    np.testing.assert_allclose(np.vstack([kept["output/kernel"], kept["output/bias"]]), best, rtol=1e-4, atol=1e-5)


def test_label_smoothing_moves_the_targets(tmp_path):
    data = bars(classes=3)
    run = zoo.train("throwaway", data, out=tmp_path / "run", epochs=1, label_smoothing=0.3)
    held = data.splits["validation"]
    logits = run.model(run.task.network_batch(held.inputs, held.targets)[0], training=False).numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    one_hot = np.eye(3)[held.targets]
    loss = run.metrics["validation"]["loss"]
    assert loss == pytest.approx(-((0.7 * one_hot + 0.1) * logs).sum(axis=1).mean(), rel=1e-4)
    assert loss != pytest.approx(-(one_hot * logs).sum(axis=1).mean(), rel=1e-3)


def test_a_clipped_gradient_makes_a_step_of_the_clip(tmp_path):
    data = bars()
    before = Replay(data)
    run = zoo.train("mlp_784_10", data, out=tmp_path / "run", epochs=1, batch_size=24, learning_rate=1, clip_norm=1e-3)
    moved = weights(run.model)["output/kernel"] - before.kernel
    assert np.linalg.norm(moved) == pytest.approx(1e-3, rel=0.02)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_for_training_alone(precision, tmp_path, monkeypatch):
    trained = []

    def spy(task, model, *arguments, **options):
        trained.append(model)
        return fit(task, model, *arguments, **options)

    fit = trainer.fit
    monkeypatch.setattr(trainer, "fit", spy)
    data = bars()
    run = zoo.train("throwaway", data, out=tmp_path / "run", epochs=1, precision=precision)
    (model,) = trained
    assert model.get_layer("conv").compute_dtype == precision.removeprefix("mixed_")
    assert {str(variable.dtype) for variable in model.weights if "seed" not in variable.path} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert run.model.get_layer("conv").compute_dtype == run.model.compute_dtype == "float32"
    assert {array.dtype for array in load_arrays(run.directory / "weights.npz").values()} == {np.dtype("float32")}
    assign(named_weights(model), weights(run.model))
    mixed = evaluation.evaluate_splits(run.task, model, data.splits, run.recipe)["validation"]
    assert run.metrics["validation"]["loss"] == pytest.approx(mixed["loss"], rel=0.02)


def test_an_error_leaves_the_global_precision_alone(tmp_path):
    with pytest.raises(ZooError):
        zoo.train("throwaway", bars(), out=tmp_path / "run", precision="mixed_bfloat16", arguments={"nonsense": 1})
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_is_that_of_the_recipe(optimizer):
    """Keras' AdamW has one of its own."""
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.1, optimizer=optimizer)
    kernel, bias = (keras.Variable([2.0], name=name) for name in ("kernel", "bias"))
    for decay, expected in ((0.0, 2.0), (0.5, 2.0 * (1 - 0.1 * 0.5))):
        made = optimizers.make_optimizer(recipe.replace(weight_decay=decay))
        made.apply([keras.ops.zeros(1), keras.ops.zeros(1)], [kernel, bias])
        assert float(kernel[0]) == pytest.approx(expected)
        assert float(bias[0]) == 2.0


@pytest.mark.parametrize("changes", [{"optimizer": "sgdd"}, {"optimizer_arguments": {"momentun": 0.9}}])
def test_an_optimizer_that_keras_does_not_know_is_a_clear_error(changes, tmp_path):
    with pytest.raises(ZooError, match="sgd"):
        zoo.train("throwaway", bars(), out=tmp_path / "run", **changes)


@pytest.mark.parametrize("augmentation", [{"affine": {"rotation": 3}}, {"expand_shift": True}])
def test_texts_take_no_augmentation(augmentation, tmp_path):
    data = testing.example_data("text_classification")
    small = {"vocabulary_size": 100, "width": 8}
    with pytest.raises(ZooError, match="text_classification takes no"):
        zoo.train("lstm_text", data, out=tmp_path / "run", arguments=small, augmentation=augmentation)


def test_expansion_by_shifts_makes_five_times_the_steps(tmp_path):
    run = zoo.train(
        "mlp_784_10", bars(), out=tmp_path / "run", epochs=1, batch_size=8, augmentation={"expand_shift": True}
    )
    assert iterations(run) == 5 * 24 / 8


# --- a loss that is no number ------------------------------------------------------------------------------------

EXPLODING = {"epochs": 3, "learning_rate": 0.01, "schedule": {"kind": "table", "table": [[0, 1], [1, 1e36]]}}


def test_a_loss_that_is_no_number_ends_the_run_with_the_last_good_weights(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ZooError) as error:
        zoo.train("throwaway", bars(), out=out, **EXPLODING)
    message = str(error.value)
    assert "the loss at step 3 of epoch 2 is nan" in message
    assert "learning rate" in message
    kept = Path(message.split("last good weights: ")[1])
    assert kept == out / "best-0001.npz"
    assert all(np.isfinite(array).all() for array in load_arrays(kept).values())
    assert "metrics" not in json.loads((out / "run.json").read_text())
    with pytest.raises(ZooError, match="not finished"):
        runs.load_run(out)


def test_a_loss_that_is_no_number_at_once_says_that_there_are_no_good_weights(tmp_path):
    with pytest.raises(ZooError, match=r"of epoch 1 is .*last good weights: none"):
        zoo.train("throwaway", bars(), out=tmp_path / "run", epochs=1, learning_rate=1e30)
    assert not list((tmp_path / "run").glob("best-*.npz"))


def test_weights_spoilt_by_the_last_step_of_an_epoch_are_not_kept_as_good(tmp_path):
    """One step an epoch: its loss is that of the weights before it, only validation sees what it did."""
    with pytest.raises(ZooError, match="last good weights: none"):
        zoo.train("throwaway", bars(), out=tmp_path / "run", epochs=1, batch_size=24, learning_rate=3e38)


# --- fine-tuning -------------------------------------------------------------------------------------------------


def exported(run, path: Path) -> Path:
    """An artifact without the proof in a process of its own, which other tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "verify", lambda *_: [])
        return zoo.export(run, path)


@pytest.fixture(scope="module")
def artifact(run, tmp_path_factory):
    return exported(run, tmp_path_factory.mktemp("artifacts") / "throwaway.bars")


@pytest.fixture
def begun(monkeypatch):
    """The weights with which each stage began, and the layers that it trained."""
    stages = []

    def spy(task, model, *arguments, **options):
        stages.append((weights(model), {layer.name for layer in model.layers if layer.trainable_variables}))
        return fit(task, model, *arguments, **options)

    fit = trainer.fit
    monkeypatch.setattr(fine_tuning, "fit", spy)
    return stages


@pytest.fixture(scope="module")
def loaded(artifact):
    return artifacts.open_artifact(artifact).arrays()


def test_other_classes_get_a_fresh_head_and_frozen_layers_do_not_change(artifact, loaded, begun, tmp_path):
    tuned = zoo.fine_tune(artifact, bars(classes=3), out=tmp_path / "tuned")
    assert tuned.record["loaded"] == "6 arrays loaded; reinitialized: output/kernel, output/bias"
    (first, trained), (second, unfrozen) = begun
    assert trained == {"output"}
    assert unfrozen == {"conv", "norm", "output"}
    assert first["output/kernel"].shape == (100, 3)
    body = {key for key in loaded if not key.startswith("output/")}
    assert_same({key: first[key] for key in body}, {key: loaded[key] for key in body})
    assert_same({key: second[key] for key in body}, {key: loaded[key] for key in body})  # moving averages too
    assert (second["output/kernel"] != first["output/kernel"]).any()
    after = load_arrays(next((tmp_path / "tuned" / "stage2-all").glob("best-*.npz")))
    assert all((after[key] != loaded[key]).any() for key in body)
    assert tuned.model.output_shape == (None, 3)
    assert [row["stage"] for row in tuned.history] == ["head"] * 2 + ["all"] * 3
    assert column(tuned, "epoch") == [1, 2, 3, 4, 5]
    assert tuned.task.classes == ("class0", "class1", "class2")


@pytest.mark.slow
def test_other_classes_get_a_fresh_head_whatever_their_number(artifact, loaded, begun, tmp_path):
    data = dataclasses.replace(bars(), classes=("other", "classes"), fingerprint="")
    tuned = zoo.fine_tune(artifact, data, out=tmp_path / "tuned", epochs=1)
    assert tuned.record["loaded"] == "6 arrays loaded; reinitialized: output/kernel, output/bias"
    assert (begun[0][0]["output/kernel"] != loaded["output/kernel"]).any()


@pytest.mark.slow
def test_the_same_classes_keep_their_head(artifact, loaded, begun, tmp_path):
    tuned = zoo.fine_tune(artifact, bars(train=16), out=tmp_path / "tuned", epochs=1)
    assert tuned.record["loaded"] == "8 arrays loaded"
    assert_same(begun[0][0], loaded)


@pytest.mark.slow
def test_a_stage_begins_with_and_a_run_ends_with_the_best_weights(artifact, begun, tmp_path, monkeypatch):
    ranks = iter([0.1, 0.9, 0.3, 0.2, 0.5])  # stage 1, then three epochs that are all worse
    by_score = {}
    rank_of = lambda self, score: by_score.setdefault(score, next(ranks, 0.0))  # noqa: E731
    monkeypatch.setattr(type(get_task("classification").metrics[0]), "rank", rank_of)
    monkeypatch.setattr(get_task("classification"), "metrics", (LOSS,))  # another value in each epoch
    tuned = zoo.fine_tune(artifact, bars(classes=3), out=tmp_path / "tuned")
    (first,) = (tmp_path / "tuned" / "stage1-head").glob("best-*.npz")
    assert first.name == "best-0002.npz"
    assert_same(begun[1][0], load_arrays(first))
    assert_same(weights(tuned.model), load_arrays(first))
    assert tuned.best_epoch == 2
    assert tuned.metrics["validation"]["loss"] == pytest.approx(tuned.history[1]["val_loss"], rel=1e-6)


def test_fine_tuning_killed_after_its_first_stage_ends_the_same(artifact, processes, tmp_path):
    data = bars(train=48, classes=3)
    whole = start(processes, _fine_tune, tmp_path / "whole", data, artifact)
    killed = start(processes, _fine_tune, tmp_path / "killed", data, artifact)
    kill_when(killed, lambda: (tmp_path / "killed" / "stage2-all").exists(), 0.0)
    finish(whole)
    rows = saved_rows(tmp_path / "killed" / "stage1-head")
    assert len(rows) == STAGE
    half = start(processes, _fine_tune, tmp_path / "killed", data, artifact)
    kill_when(half, lambda: saved_rows(tmp_path / "killed" / "stage2-all"), 0.0)
    assert 1 <= len(saved_rows(tmp_path / "killed" / "stage2-all")) < STAGE
    finish(start(processes, _fine_tune, tmp_path / "killed", data, artifact))
    assert figures_in(tmp_path / "killed") == figures_in(tmp_path / "whole")
    assert saved_rows(tmp_path / "killed" / "stage1-head") == rows
    first, second = (load_arrays(tmp_path / name / "weights.npz") for name in ("killed", "whole"))
    assert_same(first, second)


@pytest.mark.slow
def test_color_images_become_gray_for_a_gray_network(artifact, tmp_path):
    """Pictures of three equal channels are the gray ones: the same run, within the rounding of the conversion."""
    tuned = [
        zoo.fine_tune(artifact, bars(classes=3, channels=channels), out=tmp_path / str(channels), epochs=1)
        for channels in (1, 3)
    ]
    assert tuned[1].model.input_shape == (None, 12, 12, 1)
    for gray, color in zip(figures(tuned[0]), figures(tuned[1]), strict=True):
        assert color.pop("stage") == gray.pop("stage")
        assert color == pytest.approx(gray, rel=0.05)


@pytest.mark.slow
def test_gray_images_become_color_for_a_color_network(tmp_path):
    run = zoo.train("throwaway", bars(channels=3), out=tmp_path / "run", epochs=1, input_shape=(12, 12, 3))
    source = exported(run, tmp_path / "throwaway.color")
    tuned = zoo.fine_tune(source, bars(classes=3), out=tmp_path / "tuned", epochs=1)
    assert tuned.model.input_shape == (None, 12, 12, 3)
    assert tuned.task.input_shape == (12, 12, 3)


def test_another_size_of_image_does_not_fit_a_dense_head_that_is_kept(artifact, tmp_path):
    with pytest.raises(ZooError, match=r"weights do not fit: output/kernel is of shape \(324, 2\).*\(100, 2\)"):
        zoo.fine_tune(artifact, bars(), out=tmp_path / "tuned", input_shape=(20, 20, 1))


@pytest.mark.slow
def test_another_size_of_image_fits_where_the_head_is_replaced(artifact, tmp_path):
    tuned = zoo.fine_tune(
        artifact, bars(classes=3), out=tmp_path / "tuned", epochs=1, batch_size=12, input_shape=(20, 20, 1)
    )
    assert tuned.model.input_shape == (None, 20, 20, 1)
    assert tuned.recipe.batch_size == 12


@pytest.mark.slow
def test_fine_tuning_takes_a_schedule(artifact, tmp_path):
    schedule = {"kind": "step", "decay": 0.5}
    tuned = zoo.fine_tune(artifact, bars(classes=3), out=tmp_path / "tuned", epochs=2, schedule=schedule)
    assert column(tuned, "learning_rate") == pytest.approx([0.1, 0.05, 0.05, 0.025])


# --- what cannot begin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("gan_mlp", {"precision": "mixed_float16"}, "needs: use mixed_bfloat16"),
        ("gan_mlp", {"loss": "hinge", "real_target": 0.9}, "the loss hinge has no target of real images"),
        ("gan_mlp", {"batch_size": 10, "discriminator_steps": 3}, "a batch of 10 has no 3 equal parts"),
        ("gan_mlp", {"loss": "hing"}, "did you mean hinge"),
        ("mlp_784_10", {"border": {}}, "unknown recipe key 'border'"),
        ("mlp_784_10", {"label_smoothin": 0.1}, "unknown recipe key 'label_smoothin': did you mean label_smoothing"),
        ("mlp_784_10", {"label_smoothing": 0.1}, "label_smoothing is for the losses .* not for quadratic"),
        ("throwaway", {"batch_size": 15, "devices": "cpu:2"}, "a batch of 15 cannot be shared evenly among 2 devices"),
        ("throwaway", {"augmentation": {"patches": {}}}, "classification takes whole examples"),
        ("mlp_784_10", {"seed": 2**32}, "the seed must be from 0"),
        ("mlp_784_10", {"optimizer": "sgdd"}, "sgdd"),
    ],
)
def test_nothing_is_left_of_a_training_that_cannot_begin(name, settings, words, tmp_path):
    with pytest.raises(ZooError, match=words):
        zoo.train(name, bars(), out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
