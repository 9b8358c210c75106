"""From a folder of photographs to a classifier: what fine-tuning says, reports and accepts."""

import csv
import dataclasses
import gc
import json
import shutil
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import zoo
from zoo import preprocessing as pre
from zoo import registry, tasks, testing
from zoo.data import Dataset, Split
from zoo.data.streamed import Streamed, budget
from zoo.spec import ModelSpec, Preprocessing, Stage
from zoo.tasks.image_task import image_shape
from zoo.training.batches import load_for, training_batches
from zoo.weights import for_channels, named_weights

COLORS = {"red": (220, 40, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}


TINY = ModelSpec(
    name="tiny_photo",
    task="classification",
    summary="two convolutions",
    year=2026,
    references=("tests/test_photographs.py",),
    input_shape=(16, 16, 3),
    classes=3,
    params=3 * 3 * 3 * 8 + 8 + 3 * 3 * 8 * 8 + 8 + 8 * 3 + 3,
    preprocessing=Preprocessing(size=(16, 16), mean=(120.0, 110.0, 100.0), std=(60.0, 60.0, 60.0)),
    recipes={"paper": zoo.Recipe(epochs=4, batch_size=8, learning_rate=0.01, optimizer="adam")},
    head=("output",),
    features=("conv1", "pool"),
    stages=(Stage("head", ("output",), 0.01, 1), Stage("all", ("*",), 0.01, 2)),
)


def tiny_photo(input_shape, classes):
    inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(8, 3, activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="output")(x), name="tiny_photo")


@pytest.fixture(scope="module", autouse=True)
def _registered():
    zoo.register(TINY)(tiny_photo)
    yield
    del registry._specs["tiny_photo"]


def photograph(color, number, size=(80, 100)):
    noise = np.random.default_rng(number).integers(-30, 30, (*size, 3))
    return Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8))


def folder_of(path, count=12, colors=("red", "green", "blue"), **options):
    """A folder of JPEG files in a folder for each color."""
    for name in colors:
        (path / name).mkdir(parents=True)
        for number in range(count):
            photograph(COLORS[name], number, **options).save(path / name / f"{number:02}.jpg")
    return path


@pytest.fixture(scope="module")
def source(making):
    with making as folder:
        folder_of(folder / "photos")
        run = zoo.train("tiny_photo", "photos", out="run", epochs=2)
        zoo.export(run, "tiny_photo.photos")
        yield folder / "tiny_photo.photos"


# --- what fine-tuning says and reports ------------------------------------------------------------------------------


def test_fine_tuning_says_what_it_does_and_ends_with_its_errors(source, command, tmp_path, unverified):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=10)
    Image.new("RGB", (80, 100), COLORS["red"]).save(tmp_path / "mine/green/red.jpg")  # in the wrong folder
    line = f"fine-tune {source} --data mine --epochs 1 --out run --export tiny_photo.mine --set batch_size=4"
    code, out, err = command(line)
    assert code == 0, err
    assert "classes in train: green" in out
    assert "from tiny_photo.photos: 4 arrays loaded; reinitialized: output/kernel, output/bias" in out
    assert "stage 1 of 2, head: output, 18 of 826 parameters, 1 epochs at 0.01" in out
    assert "stage 2 of 2, all: *, 826 of 826 parameters" in out
    assert "reduced to 16 x 16 pixels" in err
    with (tmp_path / "run/report/confusion.csv").open() as file:
        rows = [*csv.DictReader(file)]
    examples = sum(int(row["examples"]) for row in rows)
    right = sum(int(row[f"predicted {row['class']}"]) for row in rows)
    scores = json.loads((tmp_path / "run/run.json").read_text())["metrics"]["test"]
    assert right / examples == pytest.approx(scores["accuracy"])
    with (tmp_path / "run/report/errors.csv").open() as file:
        errors = [*csv.DictReader(file)]
    assert len(errors) == examples - right
    assert all((tmp_path / "run/report" / error["file"]).is_file() for error in errors)
    code, again, err = command(line.replace("tiny_photo.mine", "tiny_photo.again"))
    assert code == 0, err  # a finished run reports the same
    assert (
        again.partition("calibration error")[2].splitlines()[:4]
        == out.partition("calibration error")[2].splitlines()[:4]
    )


@pytest.mark.slow
def test_color_photographs_for_a_gray_network_are_announced(source, command, tmp_path, unverified):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=10)
    shape = "--input-shape 16,16,1 --epochs 1 --set batch_size=4"
    code, out, err = command(f"fine-tune {source} --data mine {shape} --out gray --export tiny_photo.gray")
    assert code == 0, err
    assert "mine: color images become gray, as the network takes them; --input-shape 16,16,3" in err
    assert "converted to other channels: conv1/kernel" in out


# --- stages, frozen layers, channels --------------------------------------------------------------------------------


@pytest.mark.slow
def test_frozen_layers_are_trained_in_no_stage(source, tmp_path):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=10)
    run = zoo.fine_tune(source, "mine", out="run", epochs=1, freeze=("conv1",), batch_size=4)
    before, after = zoo.load(source).model, run.model
    np.testing.assert_array_equal(after.get_layer("conv1").kernel, before.get_layer("conv1").kernel)
    assert (after.get_layer("conv2").kernel.numpy() != before.get_layer("conv2").kernel.numpy()).any()
    assert all(layer.trainable for layer in after.layers)


def test_stages_are_chosen_by_name(source, tmp_path):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=10)
    run = zoo.fine_tune(source, "mine", out="run", stages=("all",), batch_size=4)
    assert [row["stage"] for row in run.history] == ["all", "all"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--stages top", "unknown stage of tiny_photo 'top': known: all, head"),
        ("--freeze 'block*'", "unknown layer of tiny_photo 'block*'"),
        ("--freeze 'conv*,output'", "all of output is frozen by conv*, output: nothing remains to train"),
        ("--folds 1", "at least 2 folds, not 1"),
        ("--folds 3 --export tiny_photo.x", "leave out --export"),
    ],
)
def test_what_cannot_be_fine_tuned(source, refused, tmp_path, options, message):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=10, size=(16, 20))
    refused(f"fine-tune {source} --data mine {options}", message)


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (3, 1), (3, 6)])
def test_images_of_equal_channels_give_the_same_features_after_a_change_of_channels(given, wanted):
    old, new = (zoo.create_model("tiny_photo", input_shape=(16, 16, channels)) for channels in (given, wanted))
    arrays = {key: variable.numpy() for key, variable in named_weights(old).items()}
    arrays, converted = for_channels(arrays, named_weights(new), given, wanted)
    zoo.load_weights(new, arrays)
    gray = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(new(np.repeat(gray, wanted, 3)), old(np.repeat(gray, given, 3)), atol=1e-5)
    assert converted == ("conv1/kernel",)


def test_the_mean_color_of_a_gray_network_is_gray():
    _, preprocessing = image_shape(zoo.get_spec("tiny_photo"), (16, 16, 1))
    assert preprocessing.mean == (110.0,)
    assert pre.apply(np.full((1, 16, 16, 1), 110, np.uint8), preprocessing, 1).shape == (1, 16, 16, 1)


# --- folds ----------------------------------------------------------------------------------------------------------


def test_each_example_is_tested_in_one_fold():
    labels = np.array([0, 1, 1] * 10)
    images = np.arange(30, dtype=np.uint8).reshape(-1, 1, 1, 1)
    own_test = Split(np.full((3, 1, 1, 1), 99, np.uint8), np.arange(3) % 2)
    data = Dataset("set", {"train": Split(images, labels), "test": own_test}, ("a", "b"), whole=True)
    tested = []
    for number in range(1, 6):
        fold = data.fold(number, 5)
        parts = {name: split.inputs.ravel().tolist() for name, split in fold.splits.items()}
        assert sorted(number for part in parts.values() for number in part) == list(range(30))
        assert np.bincount(fold.splits["test"].targets).tolist() == [2, 4]
        assert len(parts["validation"]) == round(0.15 * 24)
        tested += parts["test"]
    assert sorted(tested) == list(range(30))


@pytest.mark.slow
def test_folds_are_trained_and_summed_up(command, tmp_path):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=9)
    code, out, err = command("train tiny_photo --data mine --epochs 1 --folds 3 --out runs/cv --set batch_size=4")
    assert code == 0, err
    summary = json.loads((tmp_path / "runs/cv/folds.json").read_text())
    runs = [zoo.load_run(tmp_path / f"runs/cv/fold{number}") for number in (1, 2, 3)]
    assert summary["test"] == [run.metrics["test"]["accuracy"] for run in runs]
    assert summary["standard_deviation"] == pytest.approx(np.std(summary["test"], ddof=1))
    assert f"mean {np.mean(summary['test']):.4f}, standard deviation" in out
    assert not (tmp_path / "saved_models").exists()
    whole = load_for(zoo.get_spec("tiny_photo"), None, runs[0].recipe, "mine", fold=(1, 3))
    assert whole.fingerprint == runs[0].record["data"]["fingerprint"]


@pytest.mark.slow
def test_folds_of_fine_tuning(source, tmp_path):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=8)
    runs = zoo.cross_validate(zoo.fine_tune, source, "mine", folds=2, epochs=1, batch_size=4, out="cv")
    assert [run.record["fold"] for run in runs] == [[1, 2], [2, 2]]
    assert len({run.record["data"]["fingerprint"] for run in runs}) == 2


# --- augmentation of photographs ------------------------------------------------------------------------------------


def batches_of(task, split, augmentation, **options):
    recipe = zoo.get_spec("tiny_photo").recipe().replace(augmentation=augmentation, epochs=2)
    dataset, steps = training_batches(task, split, task.with_options(recipe), seed=1, **options)
    return [tuple(part.numpy() for part in batch) for batch in dataset], steps


def test_varied_batches_repeat_and_continue_where_they_stopped():
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    split = Split(images, np.arange(24) % 3)
    data = Dataset("set", dict.fromkeys(("train", "validation", "test"), split), ("a", "b", "c"))
    task = tasks.get_task("classification").from_data(zoo.get_spec("tiny_photo"), data)
    varied = {"color_pca": {}, "resized_crop": {}, "cutout": 4, "mixup": 0.4}
    whole, steps = batches_of(task, split, varied)
    rest, _ = batches_of(task, split, varied, first_epoch=1)
    assert len(whole) == 2 * steps
    for one, other in zip(whole[steps:], rest, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    inputs, targets = (np.concatenate(part) for part in zip(*whole, strict=True))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    assert ((targets > 0.01) & (targets < 0.99)).any()
    assert np.isfinite(inputs).all()


@pytest.mark.parametrize("name", ["unet_small", "gan_mlp", "ssgan"])
def test_mixup_is_for_images_with_one_class(name, tmp_path):
    data = testing.example_data(zoo.get_spec(name).task)
    with pytest.raises(zoo.ZooError, match="cutout and mixup are for images with one class each"):
        zoo.train(name, data, out=tmp_path, augmentation={"mixup": 0.2})


def test_texts_have_no_colors(tmp_path):
    data = testing.example_data("language_model")
    with pytest.raises(zoo.ZooError, match="takes no augmentation"):
        zoo.train("gru_char", data, out=tmp_path, augmentation={"color_pca": {}})


# --- images that do not fit into memory -----------------------------------------------------------------------------


def test_streaming_holds_few_images_at_once(tmp_path, monkeypatch):
    for number in range(24):
        path = Path("mine", "ab"[number % 2], f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((1000, 1000, 3), number, np.uint8)).save(path)
    monkeypatch.setenv("ZOO_CACHE_GB", "0")
    tracemalloc.start()
    try:
        zoo.data.load("mine", image_size=(16, 16))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 1000 * 1000 * 3  # all of them decoded


def both(monkeypatch, path="mine", **options):
    """The same data set in memory and decoded again whenever it is read."""
    found = []
    for gigabytes in ("1", "0"):
        monkeypatch.setenv("ZOO_CACHE_GB", gigabytes)
        found.append(zoo.data.load(path, image_size=(16, 16), **options))
    return found


def pack(folder, path):
    shutil.make_archive(
        str(path).removesuffix(".zip").removesuffix(".tar.gz"), "zip" if path.suffix == ".zip" else "gztar", folder
    )


@pytest.mark.slow_but_one
@pytest.mark.parametrize("form", ["mine", "mine.zip", "mine.tar.gz"])
def test_streamed_images_are_those_in_memory(monkeypatch, tmp_path, form, capsys):
    folder_of(tmp_path / "mine")
    Image.new("L", (30, 20), 77).save(tmp_path / "mine/red/gray.png")
    Image.new("RGBA", (30, 20), (9, 9, 9, 100)).save(tmp_path / "mine/red/transparent.png")
    if form != "mine":
        pack(tmp_path / "mine", tmp_path / form)
    kept, streamed = both(monkeypatch, f"./{form}", crop=form == "mine")
    assert "are decoded again in each epoch" in capsys.readouterr().err
    assert isinstance(streamed.splits["train"].inputs, Streamed)
    assert streamed.fingerprint == kept.fingerprint
    gc.collect()  # an archive stays readable
    for name, split in kept.splits.items():
        other = streamed.splits[name]
        assert other.inputs.shape == split.inputs.shape
        np.testing.assert_array_equal(np.asarray(other.inputs), split.inputs)
        np.testing.assert_array_equal(other.take(slice(1, 3)).inputs[0], split.inputs[1])
        for one, two in zip(other.as_tf().as_numpy_iterator(), split.as_tf().as_numpy_iterator(), strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            assert one[1] == two[1]
    rare = dataclasses.replace(streamed, fingerprint="").fold(2, 3), kept.fold(2, 3)
    assert rare[0].fingerprint == rare[1].fingerprint


@pytest.mark.slow
def test_a_streamed_run_repeats_the_one_in_memory(monkeypatch, tmp_path):
    folder_of(tmp_path / "mine", colors=("red", "green"))
    runs = []
    for gigabytes in ("1", "0"):
        monkeypatch.setenv("ZOO_CACHE_GB", gigabytes)
        options = {"epochs": 2, "batch_size": 4, "augmentation": {"flip_crop": {}, "color_pca": {}}}
        runs.append(zoo.train("tiny_photo", "mine", out=f"run{gigabytes}", seed=3, deterministic=True, **options))
    for one, other in zip(*(run.history for run in runs), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert runs[0].metrics == runs[1].metrics
    scores = zoo.evaluate(runs[1], "mine", split="test")
    assert scores["accuracy"] == runs[0].metrics["test"]["accuracy"]


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
def test_a_file_that_breaks_after_loading_is_named(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("ZOO_CACHE_GB", "0")
    folder_of(tmp_path / "mine", colors=("red", "green"))
    data = zoo.data.load("mine", image_size=(16, 16))
    name = data.splits["train"].names[3]
    if damage == "deleted":
        (tmp_path / "mine" / name).unlink()
    else:
        (tmp_path / "mine" / name).write_bytes(bytes(9))
    with pytest.raises(zoo.ZooError, match=rf"^{name} could be read before and cannot now \(.*\): restore it$"):
        zoo.train("tiny_photo", data, out="run", epochs=1)


@pytest.mark.parametrize("gigabytes", ["1", "0"])
def test_files_that_are_no_images_are_counted_and_left_out(monkeypatch, tmp_path, gigabytes, command):
    monkeypatch.setenv("ZOO_CACHE_GB", gigabytes)
    folder_of(tmp_path / "mine", colors=("red", "green"))
    whole = (tmp_path / "mine/red/03.jpg").read_bytes()
    (tmp_path / "mine/red/03.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "mine/green/x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    found = zoo.data.load("mine", image_size=(16, 16))
    assert sum(len(split) for split in found.splits.values()) == 23
    names = [name for split in found.splits.values() for name in split.names]
    assert "red/03.jpg" not in names
    code, _, err = command("train tiny_photo --data mine --strict --out run")
    assert code == 2
    assert "2 of 25 files are not images" in err
    assert "green/x.heic (HEIC image, save it as JPEG or PNG), red/03.jpg (unreadable or truncated)" in err


def test_a_container_limits_the_budget(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_CACHE_GB", raising=False)
    monkeypatch.setattr("zoo.data.streamed.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert budget() > 1_000_000
    (tmp_path / "memory.max").write_text("5000\n")
    assert budget() == 2_000


def test_a_budget_that_is_no_number(monkeypatch, tmp_path):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=3)
    monkeypatch.setenv("ZOO_CACHE_GB", "lots")
    with pytest.raises(zoo.ZooError, match="ZOO_CACHE_GB must be a number of gigabytes from 0 on, not 'lots'"):
        zoo.data.load("mine", image_size=(16, 16))


# --- features, views, adversarial images ----------------------------------------------------------------------------


def test_embedding_a_folder_gives_the_features_of_its_images(source, tmp_path, command):
    folder_of(tmp_path / "mine", colors=("red", "green"), count=3, size=(16, 16))
    photograph(COLORS["blue"], 1, size=(20, 30)).save(tmp_path / "mine/red/wide.png")
    code, out, err = command(f"embed {source} mine -o vectors.npz")
    assert code == 0, err
    assert "7 vectors of 8 numbers" in out
    with np.load("vectors.npz", allow_pickle=False) as found:
        names, vectors = found["names"].tolist(), found["vectors"]
    assert names == sorted(map(str, Path("mine").rglob("*.*")))
    for name, vector in zip(names, vectors, strict=True):
        image = np.asarray(Image.open(name))[None]
        np.testing.assert_allclose(zoo.features(source, image)["pool"][0], vector, atol=1e-5)
        np.testing.assert_allclose(zoo.features(source, layers=["pool"])(image)["pool"][0], vector, atol=1e-5)
    _, maps = zoo.embed(source, "mine", layer="conv1")
    assert maps.shape == (7, 14 * 14 * 8)
    code, _, err = command(f"embed {source} mine -o other.npz --layer pol")
    assert code == 2
    assert "unknown layer of tiny_photo 'pol': did you mean pool?" in err
    assert not Path("other.npz").exists()


def test_a_folder_with_a_broken_file_is_predicted(source, command):
    """Its other files, and a note names it."""
    folder_of(Path("mine"), colors=("red",), count=2, size=(16, 16))
    Path("mine/red/00.jpg").write_bytes(b"broken")
    code, out, err = command(f"predict {source} mine")
    assert (code, len(out.splitlines())) == (0, 1), err
    assert "1 of 2 inputs cannot be read: mine/red/00.jpg (unreadable or truncated); they are left out" in err
    names, vectors = zoo.embed(source, "mine")
    assert (names, len(vectors)) == (["mine/red/01.jpg"], 1)
    with pytest.raises(zoo.ZooError, match="1 of 2 inputs cannot be read"):
        zoo.embed(source, "mine", strict=True)


@pytest.mark.slow
def test_an_export_returns_features_beside_its_predictions(source, tmp_path, command):
    code, _, err = command(f"export {source} tiny_photo.features --features conv2,pool")
    assert code == 0, err  # and TensorFlow alone computed the same
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)
    served = tf.saved_model.load("tiny_photo.features/1").signatures["features"](images=tf.constant(images))
    expected = zoo.features(source, images, ["conv2", "pool"])
    for name, values in expected.items():
        np.testing.assert_allclose(served[name], values, atol=1e-5)
    plain, other = zoo.load(source)(images), zoo.load("tiny_photo.features")(images)
    np.testing.assert_allclose(other["probabilities"], plain["probabilities"], atol=1e-6)
    assert zoo.adversarial("tiny_photo.features", images, epsilon=0.1).shape == images.shape
    with pytest.raises(zoo.ZooError, match="exports no features"):
        zoo.export(zoo.load("unet_small.isbi"), tmp_path / "unet_small.mine", features=["x"])


def test_predictions_are_averaged_over_views(source, tmp_path, command):
    folder_of(tmp_path / "mine", colors=("red",), count=2)
    code, out, err = command(f"predict {source} mine --tta mirror --json")
    assert code == 0, err
    files = sorted(map(str, Path("mine").rglob("*.jpg")))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    plain = [zoo.load(source)(one)["probabilities"] for one in (images, images[:, :, ::-1])]
    found = [row["probabilities"] for row in json.loads(out)]
    np.testing.assert_allclose(found, np.mean(plain, axis=0), atol=1e-5)


def test_accuracy_on_adversarial_images_as_a_table_and_a_plot(source, tmp_path, command):
    folder_of(tmp_path / "mine")
    code, out, err = command(f"attack {source} --data mine --epsilon 0,0.5 --picture plot.png --json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["epsilon"] for row in rows] == [0, 0.5]
    accuracy = zoo.evaluate(source, "mine", split="test")["accuracy"]
    assert rows[0]["accuracy"] == pytest.approx(accuracy)
    assert rows[1]["accuracy"] < rows[0]["accuracy"]
    assert Image.open("plot.png").size == (500, 360)
    code, _, err = command(f"attack {source} --data mine --epsilon few")
    assert (code, err.count("\n")) == (2, 1)
