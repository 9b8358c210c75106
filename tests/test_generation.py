"""The signatures that generate texts and images, on networks with initial weights, and pictures of samples."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import zoo
from zoo import tasks, testing
from zoo.data import Dataset, Split

PROMPTS = ["the quick", "fox", ""]


@pytest.fixture(scope="module")
def texts():
    spec, data = zoo.get_spec("lstm_char"), testing.example_data("language_model")
    task = tasks.get_task(spec.task).from_data(spec, data, embedding=8, width=16)
    keras.utils.set_random_seed(1)
    return task.signatures(task.build())


def generated(signatures, prompts, *, length=6, temperature=1.0, top_k=0, top_p=1.0, seed=0):
    numbers = {"length": length, "top_k": top_k, "seed": seed}
    inputs = {name: tf.constant(value, tf.int32) for name, value in numbers.items()}
    inputs |= {"temperature": tf.constant(temperature), "top_p": tf.constant(top_p)}
    outputs = signatures["generate"](texts=tf.constant(prompts), **inputs)
    return [text.decode() for text in outputs["texts"].numpy()]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_the_most_probable_character_is_next(texts, settings):
    vocabulary = sorted(set("the quick brown fox jumps over the lazy dog. "))
    expected = PROMPTS
    for _ in range(6):
        probabilities = texts["serving_default"](texts=tf.constant(expected))["probabilities"].numpy()
        expected = [text + vocabulary[row.argmax()] for text, row in zip(expected, probabilities, strict=True)]
    assert generated(texts, PROMPTS, **settings) == expected


def test_texts_depend_on_the_seed_alone(texts):
    first = generated(texts, PROMPTS, length=30)
    assert [text[:-30] for text in first] == PROMPTS
    assert generated(texts, PROMPTS, length=30) == first
    assert all(a != b for a, b in zip(generated(texts, PROMPTS, length=30, seed=1), first, strict=True))


def test_a_low_temperature_generates_the_most_probable_text(texts):
    most_probable = generated(texts, PROMPTS, length=30, temperature=0.0)
    assert generated(texts, PROMPTS, length=30, temperature=1e-6) == most_probable
    assert generated(texts, PROMPTS, length=30, temperature=1.0) != most_probable


def test_images_depend_on_the_seed_alone():
    spec = zoo.get_spec("gan_mlp")
    task = tasks.get_task(spec.task).from_data(spec, testing.example_data("generation"), width=16)
    sample = task.signatures(task.build())["sample"]
    first, again, other = (sample(count=tf.constant(3), seed=tf.constant(s))["images"].numpy() for s in (0, 0, 1))
    assert first.shape == (3, *spec.input_shape)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


SMALL = {"latents": 4, "widths": [2, 2]}


def generator(name, **arguments):
    spec = zoo.get_spec(name)
    task = tasks.get_task(spec.task).from_data(spec, testing.example_data("generation", classes=3), **arguments)
    keras.utils.set_random_seed(0)
    return task, task.build()


def drawn(signatures, count, seed=0, **labels):
    labels = {key: tf.constant(value, tf.int32) for key, value in labels.items()}
    return signatures["sample"](count=tf.constant(count), seed=tf.constant(seed), **labels)["images"].numpy()


def test_an_image_depends_on_the_seed_and_its_number_not_on_the_count():
    task, model = generator("dcgan_small", **SMALL)
    signatures = task.signatures(model)
    many = drawn(signatures, 50)
    for count in (1, 7):
        np.testing.assert_array_equal(drawn(signatures, count), many[:count])


def test_the_samples_of_a_seed_are_these_latents():
    """Any runtime that draws them has the same images."""
    task, model = generator("dcgan_small", **SMALL)
    signatures = task.signatures(model)
    latents = tf.random.stateless_normal([5, 4], [3, 0])
    np.testing.assert_array_equal(signatures["serving_default"](latents=latents)["images"], drawn(signatures, 5, 3))


@pytest.mark.parametrize("count", [0, -1, 1_025])
def test_the_number_of_samples_is_bounded_in_the_graph(count):
    task, model = generator("dcgan_small", **SMALL)
    with pytest.raises(tf.errors.InvalidArgumentError, match="count must be from 1 to 1024"):
        drawn(task.signatures(model), count)


def test_labels_choose_the_class_in_both_signatures():
    task, model = generator("dcgan_conditional", **SMALL)
    assert task.categories == 3
    signatures = task.signatures(model)
    first, same, other = (drawn(signatures, 2, labels=labels) for labels in ([0, 1], [0, 1], [0, 2]))
    np.testing.assert_array_equal(first, same)
    np.testing.assert_array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])
    latents = tf.random.stateless_normal([2, 4], [0, 0])
    served = signatures["serving_default"](latents=latents, labels=tf.constant([0, 2]))["images"]
    np.testing.assert_array_equal(served, other)
    for labels in ([0], [0, 3], [-1, 0]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="as many labels from 0 to 2"):
            drawn(signatures, 2, labels=labels)


def test_the_codes_of_infogan_are_labels_without_names():
    task, model = generator("infogan", **SMALL, dense=8)
    assert (task.categories, task.classes) == (10, ())
    signatures = task.signatures(model)
    assert len({drawn(signatures, 1, labels=[label]).tobytes() for label in range(10)}) == 10
    outputs = model.get_layer("discriminator")(tf.zeros([5, 28, 28, 1]))
    assert [tuple(one.shape) for one in outputs] == [(5, 1), (5, 10), (5, 2)]


@pytest.fixture(scope="module")
def artifacts(making):
    """Exported generators with initial weights, by the spec's name."""
    with making as folder:
        paths = {}
        for name in ("dcgan_small", "dcgan_conditional"):
            task, model = generator(name, **SMALL)
            spec, classes = zoo.get_spec(name), task.classes
            zoo.export(model, f"{name}.new", spec=spec, classes=classes, arguments=SMALL)
            paths[name] = folder / f"{name}.new"
        yield paths


def test_a_picture_of_samples(artifacts, command):
    code, out, err = command(f"sample {artifacts['dcgan_small']} --count 6 --seed 2 -o grid.png")
    assert code == 0, err
    assert "6 images of 28 x 28: grid.png" in out
    images = zoo.sample(artifacts["dcgan_small"], np.int64(6), seed=np.int64(2))
    assert images.shape == (6, 28, 28, 1)
    picture = np.asarray(Image.open("grid.png"))
    assert picture.shape == (2 * 30 + 2, 3 * 30 + 2)  # two rows of three, two pixels between
    np.testing.assert_array_equal(picture[32:60, 62:90], images[5, ..., 0])


def test_labels_by_name_are_repeated(artifacts):
    path = artifacts["dcgan_conditional"]
    images = zoo.sample(path, 4, labels=["class2", "class0"])
    signatures = zoo.load(path).task.signatures(zoo.load(path).model)
    np.testing.assert_array_equal(images, drawn(signatures, 4, labels=[2, 0, 2, 0]))
    np.testing.assert_array_equal(zoo.sample(path, 4), drawn(signatures, 4, labels=[0, 1, 2, 0]))


def test_an_interpolation_leads_from_each_sample_to_the_next(artifacts):
    path = artifacts["dcgan_small"]
    samples, ways = zoo.sample(path, 3, seed=1), zoo.sample(path, 3, seed=1, interpolate=True)
    assert len(ways) == 36
    np.testing.assert_array_equal(ways[::12], samples)
    steps = np.abs(np.diff(ways.astype(float), axis=0)).mean((1, 2, 3))
    assert steps.max() < np.abs(samples[0].astype(float) - samples[1]).mean()  # no leap


@pytest.mark.parametrize("name", ["dcgan_small", "dcgan_conditional"])
def test_the_nearest_training_images_are_below_the_samples(name, artifacts, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 1), np.uint8)
    split = Split(images, np.arange(300) % 3)
    data = Dataset("noise", dict.fromkeys(("train", "validation", "test"), split), ("class0", "class1", "class2"))
    samples, nearest = zoo.sample(artifacts[name], 6, seed=2, nearest=data, path=tmp_path / "pairs.png")
    np.testing.assert_array_equal(samples, zoo.sample(artifacts[name], 6, seed=2))
    distances = ((samples[:, None].astype(float) - images[None]) ** 2).sum((2, 3, 4))
    np.testing.assert_array_equal(nearest, images[distances.argmin(1)])
    picture = np.asarray(Image.open(tmp_path / "pairs.png"))
    assert picture.shape == (2 * 59 + 2, 3 * 30 + 2)
    np.testing.assert_array_equal(picture[61:89, 62:90], samples[5, ..., 0])
    np.testing.assert_array_equal(picture[90:118, 62:90], nearest[5, ..., 0])


@pytest.mark.parametrize(
    ("words", "frames", "size"),
    [
        ("--count 3 -o film.gif", 3, (32, 32)),
        ("--count 2 --interpolate -o film.gif", 24, (32, 32)),
        ("--count 2 --interpolate -o film.webp", 24, (32, 32)),
        ("--count 2 --interpolate -o rows.png", 1, (362, 62)),
    ],
)
def test_animations_and_rows(words, frames, size, artifacts, command):
    code, _, err = command(f"sample {artifacts['dcgan_small']} {words}")
    assert code == 0, err
    with Image.open(words.split()[-1]) as picture:
        shown = getattr(picture, "n_frames", 1)
        assert shown == frames or (picture.format == "WEBP" and 1 < shown < frames)  # which joins equal ones
        assert picture.size == size


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("dcgan_small", "--count 1025 -o a.png", "count must be from 1 to 1024, not 1025"),
        ("dcgan_small", "--seed -1 -o a.png", "the seed must be from 0"),
        ("dcgan_small", "--labels 1 -o a.png", "dcgan_small takes no labels"),
        ("dcgan_small", "-o a.bmp", "a.bmp has an unknown format: give a .png"),
        ("dcgan_small", "--nearest digits --interpolate -o a.png", "leave the interpolation out"),
        ("dcgan_small", "--nearest digit -o a.png", "did you mean digits"),
        ("dcgan_conditional", "--labels class7 -o a.png", "has the labels class0, class1, class2, not 'class7'"),
    ],
)
def test_samples_that_cannot_be_drawn(name, words, message, artifacts, refused):
    refused(f"sample {artifacts[name]} {words}", message)


@pytest.mark.slow
def test_a_generator_is_fine_tuned_on_images_without_classes(artifacts, unverified, command):
    Path("faces").mkdir()
    for number in range(40):
        Image.new("L", (30, 40), 5 * number).save(f"faces/{number}.png")
    code, out, err = command(
        f"fine-tune {artifacts['dcgan_small']} --data faces --epochs 1 --batch-size 8 --export out/dcgan_small.faces"
    )
    assert code == 0, err
    assert "faces: 28 train, 6 validation, 6 test" in out
    assert zoo.sample("out/dcgan_small.faces", 2).shape == (2, 28, 28, 1)


@pytest.mark.slow
def test_a_conditional_generator_is_fine_tuned_on_other_classes(artifacts, unverified, tmp_path):
    whole = testing.example_data("generation", classes=2)
    run = zoo.fine_tune(artifacts["dcgan_conditional"], whole, out=tmp_path / "run", epochs=1, batch_size=8)
    assert run.task.classes == whole.classes
    images = zoo.sample(run, 2, labels=[whole.classes[1]])
    assert images.shape == (2, 28, 28, 1)


@pytest.mark.slow
def test_each_epoch_is_pictured(tmp_path):
    data = testing.example_data("generation")
    run = zoo.train("dcgan_small", data, out=tmp_path / "run", epochs=2, batch_size=8, arguments=SMALL, ema=0.5)
    files = sorted((tmp_path / "run" / "samples").iterdir())
    assert [file.name for file in files] == ["epoch-0001.png", "epoch-0002.png"]
    with Image.open(tmp_path / "run" / "samples.gif") as film:
        assert film.n_frames == 2
    assert all(row["val_frechet_distance"] > 0 for row in run.history)
    best = min(run.history, key=lambda row: row["val_frechet_distance"])
    assert run.best_epoch == best["epoch"]
    assert {"frechet_distance", "frechet_floor", "coverage", "class_divergence"} <= run.metrics["test"].keys()


def test_a_maxout_unit_is_the_maximum_of_its_pieces():
    network = zoo.create_model("gan_mlp", latents=3, width=4, maxout=2, pieces=3).get_layer("discriminator")
    outputs = [network.get_layer(name).output for name in ("hidden1", "maxout1")]
    images = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)
    functions, units = keras.Model(network.input, outputs)(images)
    np.testing.assert_array_equal(units, functions.numpy().reshape(5, 2, 3).max(-1))
