"""Color images: layers, recipes and tasks of AlexNet, GoogLeNet and airbench, with known answers."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import zoo
from zoo import layers as zoo_layers
from zoo import preprocessing as pre
from zoo import tasks, testing
from zoo.data import Dataset, Split
from zoo.models.airbench import whiten
from zoo.options import ClassificationOptions
from zoo.recipe import Augmentation, FlipCrop, Lookahead, Recipe, ResizedCrop, Schedule
from zoo.spec import Preprocessing
from zoo.tasks.classification import class_weights
from zoo.training import callbacks
from zoo.training.batches import training_batches
from zoo.training.fine_tuning import stage_recipe
from zoo.training.optimizers import make_optimizer

RANDOM = np.random.default_rng(0)
SMALL = Recipe(epochs=3, batch_size=4, learning_rate=0.1, options=ClassificationOptions())


def color_data(count=24, side=32, classes=2):
    """Images of which the red and the green ones are the classes."""
    labels = np.arange(count) % classes
    images = RANDOM.integers(0, 100, (count, side, side, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 150
    parts = {"train": slice(0, count // 2), "validation": slice(count // 2, -4), "test": slice(-4, None)}
    names = ("red", "green", "blue")[:classes]
    return Dataset("colors", {name: Split(images[part], labels[part]) for name, part in parts.items()}, names)


def task_for(name, data):
    spec = zoo.get_spec(name)
    return tasks.get_task(spec.task).from_data(spec, data)


# --- layers ---------------------------------------------------------------------------------------------------------


def test_the_first_layer_of_airbench_whitens_patches():
    images = RANDOM.normal(0, 1, (300, 32, 32, 3)).astype(np.float32) @ RANDOM.normal(0, 1, (3, 3)).astype(np.float32)
    model = zoo.get_spec("airbench93").build()
    whiten(model, images)
    outputs = model.get_layer("whiten")(images).numpy().reshape(-1, 24)
    np.testing.assert_allclose(outputs[:, :12].T @ outputs[:, :12] / len(outputs), np.eye(12), atol=0.02)
    np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-4)


@pytest.mark.slow
def test_training_from_scratch_prepares_the_network_and_never_trains_the_prepared_kernel(tmp_path):
    data, task = color_data(), task_for("airbench93", color_data())
    run = zoo.train("airbench93", data, out=tmp_path / "run", epochs=2, batch_size=4)
    inputs = task.network_batch(tf.constant(data.splits["train"].inputs), tf.constant(data.splits["train"].targets))[0]
    expected = zoo.get_spec("airbench93").build(classes=2)
    whiten(expected, inputs.numpy()[np.random.default_rng(0).permutation(12)])
    np.testing.assert_allclose(
        run.model.get_layer("whiten").kernel.numpy(), expected.get_layer("whiten").kernel.numpy(), atol=1e-4
    )


def test_dirac_kernels_pass_the_first_channels_on():
    layer = layers.Conv2D(6, 3, padding="same", use_bias=False, kernel_initializer=zoo_layers.Dirac(seed=1))
    images = RANDOM.normal(0, 1, (2, 5, 5, 4)).astype(np.float32)
    outputs = layer(images).numpy()
    np.testing.assert_allclose(outputs[..., :4], images, atol=1e-6)
    others = layer.kernel.numpy()[..., 4:]
    assert 0.9 / 6 < np.abs(others).max() <= 1 / 6  # 1 / sqrt(3 * 3 * 4)


def test_a_locally_connected_layer_has_a_kernel_for_each_place():
    layer = zoo_layers.LocallyConnected2D(2, 3)
    images = RANDOM.normal(0, 1, (2, 4, 5, 3)).astype(np.float32)
    outputs = layer(images).numpy()
    layer.bias.assign(RANDOM.normal(0, 1, (4, 5, 2)))
    kernel, padded = layer.kernel.numpy(), np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros_like(outputs)
    for down in range(4):
        for right in range(5):
            window = padded[:, down : down + 3, right : right + 3].reshape(2, -1)
            expected[:, down, right] = window @ kernel[5 * down + right]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(layer(images).numpy(), expected + layer.bias.numpy(), atol=1e-5)


def test_gelu_is_that_of_keras():
    inputs = np.linspace(-6, 6, 101, dtype=np.float32)
    np.testing.assert_allclose(zoo_layers.Gelu()(inputs), keras.ops.gelu(inputs, approximate=False), atol=2e-6)


def test_a_fixed_kernel_stays_fixed_when_its_layer_is_unfrozen():
    layer = zoo_layers.FixedKernelConv2D(4, 2)
    layer.build((None, 5, 5, 3))
    layer.trainable = False
    layer.trainable = True
    assert [variable.name for variable in layer.trainable_variables] == ["bias"]


def test_batch_normalization_without_a_scale_is_that_of_keras():
    images = RANDOM.normal(3, 2, (8, 6, 6, 3)).astype(np.float32)
    ours, theirs = (
        kind(scale=False, momentum=0.6, epsilon=1e-12)
        for kind in (zoo_layers.BatchNormalization, layers.BatchNormalization)
    )
    np.testing.assert_allclose(ours(images, training=True), theirs(images, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=1e-5)


# --- recipes --------------------------------------------------------------------------------------------------------


def test_a_triangular_schedule_rises_and_falls_within_epochs():
    schedule = Schedule("triangle", first=0.2, peak=0.25, last=0.1)
    assert [schedule.factor(epoch, 4) for epoch in (0, 0.5, 1, 2.5, 4)] == pytest.approx([0.2, 0.6, 1, 0.55, 0.1])
    with pytest.raises(zoo.ZooError, match="peak must be a share between 0 and 1"):
        Schedule("triangle", peak=1.0)


def test_the_learning_rate_follows_the_triangle_step_by_step(tmp_path):
    rates = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate.numpy()))

    recipe = dataclasses.replace(SMALL, epochs=2, schedule=Schedule("triangle", peak=0.5))
    zoo.train("mlp_784_10", testing.example_data("classification"), recipe=recipe, out=tmp_path, callbacks=[Watch()])
    assert rates == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.075, 0.05, 0.025])


def test_rates_by_weight_multiply_the_learning_rate():
    recipe = dataclasses.replace(SMALL, rate_factors={"bias": 2.0}, optimizer_arguments={"momentum": 0.5})
    layer = layers.Dense(2)
    layer.build((None, 3))
    before = layer.kernel.numpy()
    optimizer = make_optimizer(recipe)
    optimizer.build(layer.trainable_variables)
    for _ in range(2):
        optimizer.apply([tf.ones_like(variable.value) for variable in layer.trainable_variables])
    np.testing.assert_allclose(before - layer.kernel.numpy(), 0.1 + 0.15, atol=1e-6)
    np.testing.assert_allclose(-layer.bias.numpy(), 2 * (0.1 + 0.15), atol=1e-6)


def test_slow_weights_follow_their_recursion():
    recipe = dataclasses.replace(SMALL, epochs=1, lookahead=Lookahead(every=2, decay=0.5))
    weight = keras.Variable(0.0)
    slow = callbacks.SlowWeights([weight], recipe)
    slow.set_params({"steps": 5})
    seen = []
    for step in range(5):
        weight.assign_add(1.0)
        slow.on_train_batch_end(step)
        seen.append(float(weight.numpy()))
    second = (1 - 0.5 * (2 / 5) ** 3) * 2
    fourth = 0.5 * (4 / 5) ** 3 * second + (1 - 0.5 * (4 / 5) ** 3) * (second + 2)
    assert seen == pytest.approx([1, second, second + 1, fourth, fourth])  # the last step ends on the slow weights


@pytest.mark.slow
def test_a_run_with_slow_weights_resumes_where_it_stopped(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    data = testing.example_data("classification")
    recipe = dataclasses.replace(SMALL, lookahead=Lookahead(every=3), schedule=Schedule("triangle"))
    whole = zoo.train("mlp_784_10", data, recipe=recipe, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        zoo.train("mlp_784_10", data, recipe=recipe, out=tmp_path / "parts", callbacks=[Stop()])
    record = (tmp_path / "parts/run.json").read_text()
    (tmp_path / "parts/run.json").write_text(record.replace('"given_in_python"', '"was_given"'))
    parts = zoo.train("mlp_784_10", data, recipe=recipe, out=tmp_path / "parts")
    for one, other in zip(whole.model.weights, parts.model.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_alternating_flips_show_both_sides_in_two_epochs():
    side = np.zeros((6, 4, 4, 3), np.uint8)
    side[:, :, 0] = 200
    data = Dataset(
        "sides", {name: Split(side, np.arange(6)) for name in ("train", "validation", "test")}, tuple("abcdef")
    )
    spec = dataclasses.replace(zoo.get_spec("airbench93"), input_shape=(4, 4, 3), preprocessing=Preprocessing((4, 4)))
    task = tasks.get_task(spec.task).from_data(spec, data)
    recipe = dataclasses.replace(
        SMALL, epochs=4, batch_size=6, augmentation=Augmentation(flip_crop=FlipCrop(pad=0, alternating=True))
    )
    batches, _ = training_batches(task, data.splits["train"], recipe, seed=0)
    flipped = []
    for images, targets in batches:
        order = np.argsort(targets.numpy().argmax(-1))
        flipped.append(images.numpy()[order, 0, -1, 0] > 0.5)
    assert (flipped[0] != flipped[1]).all()
    assert (flipped[0] == flipped[2]).all()
    assert (flipped[1] == flipped[3]).all()
    assert 0 < flipped[0].sum() < 6


def test_balanced_classes_weigh_the_same():
    options = ClassificationOptions(class_weight="balanced")
    (weights,) = class_weights(np.array([0, 0, 0, 1]), 3, options)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])
    data = color_data()
    recipe = dataclasses.replace(SMALL, options=options)
    batches, _ = training_batches(task_for("catdog_cnn", data), data.splits["train"], recipe, seed=0)
    assert next(iter(batches))[2].numpy().tolist() == [1, 1, 1, 1]


# --- preprocessing and views ----------------------------------------------------------------------------------------


def test_preprocessing_cuts_the_center_and_another_input_keeps_the_margin():
    preprocessing = Preprocessing(size=(8, 8), crop_to=(4, 4), full_scale=1.0)
    images = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(pre.apply(images, preprocessing, 1), images[:, 2:6, 2:6])
    other = pre.for_input(preprocessing, (4, 4, 1), (6, 6, 1))
    assert (other.size, other.crop_to, other.pad_to) == ((10, 10), (6, 6), None)


def test_a_resized_crop_fills_the_window_of_images_that_are_not_resized_yet():
    """The network cuts 24 of 32 pixels: 12 of 16."""
    task = task_for("alexnet_small", color_data(side=16))
    images = tf.constant(np.broadcast_to(10 * np.arange(16, dtype=np.float32)[:, None], (4, 16, 16, 3)))
    whole = Augmentation(resized_crop=ResizedCrop(least_area=1.0, ratio=1.0), fill="reflect")
    moved = task.augment((images, tf.zeros([4])), tf.constant([1, 2]), whole, tf.zeros([4]), tf.zeros([4]))[0]
    shown = moved.numpy()[0, 8, 2:14, 0]  # 0 to 150 on 12 pixels
    np.testing.assert_allclose(shown, 10 * ((np.arange(12) + 0.5) * 16 / 12 - 0.5), atol=0.01)


def test_random_windows_lie_within_the_image():
    """Shifts by the margin of the center's window read no pixel from outside."""
    data = color_data(side=32)
    for split in data.splits.values():
        np.maximum(split.inputs, 1, out=split.inputs)
    task = task_for("alexnet_small", data)
    recipe = tasks.with_options(zoo.get_spec("alexnet_small").recipe(), type(task), "classification")
    batches, _ = training_batches(task, data.splits["train"], recipe.replace(epochs=5), seed=0)
    for images, _ in batches:
        assert images.shape[1:] == (24, 24, 3)
        assert (images.numpy() + np.array([125.307, 122.961, 113.8575]) > 0.9).all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("mirror",), (11 + 13) / 2),
        (("shift",), 0.5 * 11 + 0.25 * 6 + 0.25 * 16),
        (("crops",), (0 + 3 + 15 + 18 + 6) / 5),
    ],
)
def test_views_are_averaged_with_their_weights(names, expected):
    from zoo.tasks import views

    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    pixel = (0, 0) if names == ("crops",) else (2, 1)
    crop_to = (2, 2) if names == ("crops",) else None
    mean = views.averaged(lambda x: x[:, pixel[0], pixel[1]], tf.constant(image), names, crop_to)
    assert mean.numpy().item() == pytest.approx(expected)


@pytest.mark.slow
def test_an_unknown_view_and_crops_of_a_whole_image_are_refused(tmp_path):
    run = zoo.train("catdog_cnn", color_data(), out=tmp_path / "run", epochs=1, batch_size=8, input_shape=(16, 16, 3))
    with pytest.raises(zoo.ZooError, match="unknown test-time augmentation 'mirrored'"):
        zoo.load(run, tta=["mirrored"])
    with pytest.raises(zoo.ZooError, match="preprocessing crops"):
        zoo.evaluate(run, color_data(), tta=["crops"])
    scores = zoo.evaluate(run, color_data(), tta=["mirror", "shift"])
    assert 0 <= scores["averaged_accuracy"] <= 1
    path = zoo.export(run, tmp_path / "catdog_cnn.colors", tta=["mirror"])
    images = color_data().splits["test"].inputs
    both = zoo.load(path)(images)["probabilities"]
    np.testing.assert_allclose(both, zoo.load(path)(images[:, :, ::-1])["probabilities"], atol=1e-6)


# --- several outputs ------------------------------------------------------------------------------------------------


def test_the_loss_weighs_all_outputs_and_the_first_is_measured_and_served():
    spec = zoo.get_spec("googlenet")
    task = tasks.get_task(spec.task).from_data(spec, color_data(side=8), (96, 96, 3))
    model = task.build()
    recipe = tasks.with_options(spec.recipe(), type(task), spec.task)
    trainer = task.compile(model, recipe.replace(ema=None), keras.optimizers.SGD)
    images = RANDOM.normal(0, 50, (4, 96, 96, 3)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    outputs = model(images)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    expected = sum(w * float(loss(targets, logits)) for w, logits in zip((1.0, 0.3, 0.3), outputs, strict=True))
    measured = trainer.evaluate(images, targets, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(expected, rel=1e-4)
    assert measured["accuracy"] == np.mean(outputs[0].numpy().argmax(-1) == targets.argmax(-1))
    served = task.served(model)
    np.testing.assert_allclose(served(images), outputs[0], atol=1e-5)
    assert not any("auxiliary" in layer.name for layer in served.layers)
    with pytest.raises(zoo.ZooError, match="googlenet has 3 outputs, the recipe key loss_weights has 1 weights"):
        task.compile(model, SMALL, keras.optimizers.SGD)


@pytest.mark.slow
def test_color_networks_go_through_the_whole_workflow(making, subtests):
    """What they export is verified in one process for all."""
    with making as folder:
        for name in ("airbench93", "alexnet_small"):
            with subtests.test(name):
                testing.check_workflow(name, folder / name)
    zoo.verify(*sorted(folder.glob("*/*.example")))


# --- features and adversarial images --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of red and green images that is always right."""
    recipe = dataclasses.replace(SMALL, epochs=30, learning_rate=0.005, optimizer="adam")
    out = tmp_path_factory.mktemp("run")
    return zoo.train("catdog_cnn", color_data(side=16), recipe=recipe, out=out, input_shape=(16, 16, 3))


def test_features_are_the_outputs_of_inner_layers(classifier):
    images = color_data(side=16).splits["test"].inputs
    found = zoo.features(classifier, images)
    assert {name: array.shape[1:] for name, array in found.items()} == {
        "relu1": (8, 8, 32),
        "relu2": (4, 4, 32),
        "relu3": (2, 2, 64),
        "hidden": (128,),
    }
    logits = classifier.model.get_layer("output")(found["hidden"])
    np.testing.assert_allclose(logits, classifier.model(images.astype(np.float32) / 255), atol=1e-4)
    with pytest.raises(zoo.ZooError, match="unknown layer of catdog_cnn 'relu4'"):
        zoo.features(classifier, images, ["relu4"])


@pytest.mark.parametrize("steps", [1, 5])
def test_adversarial_images_keep_within_epsilon_and_fool_the_classifier(classifier, steps):
    data = color_data(side=16)
    images, labels = data.splits["test"].inputs, data.splits["test"].targets
    near = zoo.adversarial(classifier, images, labels, epsilon=0.02, steps=steps)
    assert 0 < np.abs(near.astype(int) - images).max() <= 5
    rows = zoo.adversarial_accuracy(classifier, data, [0.0, 0.5], steps=steps)
    assert [row["epsilon"] for row in rows] == [0.0, 0.5]
    assert rows[0]["accuracy"] == 1.0
    assert rows[1]["accuracy"] <= 0.5
    few = data.with_labels(4, 0)
    assert zoo.adversarial_accuracy(classifier, few, [0.0], split="train", steps=steps)[0]["accuracy"] == 1.0
    with pytest.raises(zoo.ZooError, match="epsilon must be from 0 to 1"):
        zoo.adversarial(classifier, images, epsilon=2)


def test_fine_tuning_takes_smaller_batches_and_no_averages_of_a_long_training():
    spec = zoo.get_spec("airbench94")
    paper = tasks.with_options(spec.recipe(), tasks.get_task(spec.task), spec.task)
    own = stage_recipe(paper, spec.stages[0])
    assert (paper.batch_size, own.batch_size) == (1024, 64)
    assert paper.lookahead is not None
    assert own.lookahead is None
    assert stage_recipe(paper, spec.stages[0], batch_size=8).batch_size == 8
