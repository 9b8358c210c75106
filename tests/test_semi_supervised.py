"""Training with labels for few of the images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import layers, tasks, testing
from zoo.data import Dataset, Split
from zoo.data.dataset import UNLABELED
from zoo.recipe import Affine
from zoo.tasks import feature_matching
from zoo.training import normalization
from zoo.training.batches import load_for, training_batches

SMALL = {"hidden": [16, 16, 16, 16, 16], "latents": 4, "width": 16}
RANDOM = np.random.default_rng(0)


def blobs(count=200):
    """Noisy images of two kinds, bright at the top or at the bottom."""
    labels = np.arange(count, dtype=np.int64) % 2
    images = RANDOM.integers(0, 80, (count, 4, 4, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 150
    return Split(images, labels)


def data():
    return Dataset("blobs", {name: blobs() for name in ("train", "validation", "test")}, ("top", "bottom"))


def test_labels_of_each_class_are_drawn_by_the_seed():
    whole = data()
    few, again, others = (whole.with_labels(3, seed) for seed in (0, 0, 1))
    targets = few.splits["train"].targets
    assert [(targets == label).sum() for label in (0, 1)] == [3, 3]
    kept = targets != UNLABELED
    np.testing.assert_array_equal(targets[kept], whole.splits["train"].targets[kept])
    np.testing.assert_array_equal(few.splits["train"].inputs, whole.splits["train"].inputs)
    assert few.splits["train"].labeled().targets.tolist() == targets[kept].tolist()
    assert few.splits["validation"] is whole.splits["validation"]
    assert few.fingerprint == again.fingerprint
    assert len({one.fingerprint for one in (whole, few, others)}) == 3
    assert not np.array_equal(targets, others.splits["train"].targets)


def test_a_classifier_trains_on_the_labeled_examples_alone():
    spec = zoo.get_spec("mlp_784_10")
    recipe = tasks.with_options(spec.recipe(), tasks.get_task("classification"), "classification")
    dataset = load_for(spec, None, recipe.replace(labels_per_class=4), data())
    task = tasks.get_task("classification").from_data(spec, dataset)
    assert np.bincount(task.examples(dataset.splits["train"], recipe.options)[1]).tolist() == [4, 4]


def test_images_without_a_label_are_trained_on_beside_those_with_one():
    dataset = data().with_labels(2)
    task = tasks.get_task("semi_supervised").from_data(zoo.get_spec("ssgan"), dataset)
    train = dataset.splits["train"]
    images, labeled, labels = task.examples(train, task.Options())
    np.testing.assert_array_equal(images, train.inputs)
    few = train.labeled()
    for image, label in zip(few.inputs, few.targets, strict=True):
        rows = (labeled == image).all((1, 2, 3))
        assert rows.sum() == len(train) / 4
        assert (labels[rows] == label).all()
    assert len(task.examples(train)[0]) == 4  # those that can be evaluated


def test_augmentation_varies_both_images_of_a_row():
    split = data().with_labels(3, 0).splits["train"]
    spec = zoo.get_spec("ssgan")
    task = tasks.get_task(spec.task).from_data(spec, data(), (4, 4, 1), **SMALL)
    rows = []
    for augmentation in (zoo.Augmentation(), zoo.Augmentation(affine=Affine(rotation=30.0))):
        recipe = task.with_options(spec.recipe()).replace(batch_size=8, augmentation=augmentation)
        batches, _ = training_batches(task, split, recipe, seed=0)
        rows.append(next(iter(batches)))
    (plain, labels), (varied, same) = rows
    np.testing.assert_array_equal(labels, same)
    for before, after in zip(plain, varied, strict=True):
        assert not np.array_equal(before, after)


@pytest.mark.slow
def test_a_training_begins_where_the_first_images_have_no_label(tmp_path):
    """More of them than a batch has."""
    dataset = data()
    targets = np.where(np.arange(200) < 150, UNLABELED, dataset.splits["train"].targets)
    splits = {**dataset.splits, "train": Split(dataset.splits["train"].inputs, targets)}
    late = Dataset("late", splits, dataset.classes)
    run = zoo.train(
        "ssgan", late, out=tmp_path, input_shape=(4, 4, 1), arguments=SMALL, labels_per_class=None, epochs=1,
        batch_size=20,
    )  # fmt: skip
    assert len(run.history) == 1


@pytest.mark.slow
def test_fine_tuning_begins_with_the_trained_weights(tmp_path, unverified):
    """Training from scratch sets weights by the first batch."""
    run = zoo.train("ssgan", data(), out=tmp_path / "run", input_shape=(4, 4, 1), arguments=SMALL, epochs=2,
                    batch_size=20, ema=None)  # fmt: skip
    path = zoo.export(run, tmp_path / "ssgan.trained").parent
    tuned = zoo.fine_tune(path, data(), out=tmp_path / "tuned", epochs=1, batch_size=20, learning_rate=1e-12)
    images = data().splits["test"].inputs
    before, after = (zoo.load(one)(images)["probabilities"] for one in (run, tuned))
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_normalization_is_measured_where_few_of_many_images_have_a_label(monkeypatch):
    monkeypatch.setattr(normalization, "EXAMPLES_TO_MEASURE", 1)  # of 200
    dataset = data().with_labels(1, 1)
    task = tasks.get_task("semi_supervised").from_data(zoo.get_spec("ssgan"), dataset, (4, 4, 1), **SMALL)
    model = task.build()
    layer = model.get_layer("generator").get_layer("norm1")
    normalization.measure_normalization(task, model, dataset.splits["train"])
    assert np.abs(layer.moving_mean.numpy()).max() > 0


@pytest.mark.slow
def test_four_labels_and_many_images_are_enough(tmp_path):
    run = zoo.train(
        "ssgan", data(), out=tmp_path, input_shape=(4, 4, 1), arguments=SMALL, labels_per_class=2, epochs=15,
        batch_size=20, ema=0.9,
    )  # fmt: skip
    assert run.metrics["test"]["accuracy"] > 0.97
    assert run.history[0]["loss"] > run.history[-1]["loss"]
    predictor = zoo.load(run)
    split = data().splits["test"]
    assert (predictor(split.inputs)["class_ids"] == split.targets).mean() > 0.97


def test_the_losses_of_feature_matching_by_hand():
    """Networks without noise, and logits that are read off before the step."""
    spec = zoo.get_spec("ssgan")
    dataset = data()
    task = tasks.get_task("semi_supervised").from_data(spec, dataset, (4, 4, 1), **SMALL)
    trainer = task.compile(task.build(), task.with_options(spec.recipe()), lambda: keras.optimizers.SGD(0.0))
    for layer in trainer.discriminator.layers:
        if hasattr(layer, "stddev"):
            layer.stddev = 0.0
    images = [tf.constant(part / 255, tf.float32) for part in np.split(dataset.splits["train"].inputs[:20], 2)]
    targets = np.eye(2, dtype=np.float32)[dataset.splits["train"].targets[10:20]]
    generated = [trainer.generator(trainer.latents(10, tf.constant(step)), training=True) for step in (0, 1)]
    logits = [trainer.discriminator(one).numpy().astype(np.float64) for one in (images[1], images[0], generated[0])]
    real, fake = (np.exp(one).sum(1) for one in logits[1:])
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum(1, keepdims=True)
    expected = -np.log((probabilities * targets).sum(1)).mean()
    expected -= 0.5 * np.log(real / (real + 1)).mean() + 0.5 * np.log(1 / (fake + 1)).mean()
    features = [trainer.both(one)[1].numpy().mean(0) for one in (generated[1], images[0])]
    scores = trainer.train_on_batch(tuple(images), targets, return_dict=True)
    assert scores["loss"] == pytest.approx(expected, rel=1e-4)
    assert scores["generator_loss"] == pytest.approx(((features[0] - features[1]) ** 2).mean(), rel=1e-3)


def test_weights_are_normalized_by_the_first_batch():
    """Each layer's outputs have mean 0 and variance 1 there."""
    spec = zoo.get_spec("ssgan")
    network = spec.build(**SMALL, input_shape=(4, 4, 1)).get_layer("discriminator")
    for layer in network.layers:
        if hasattr(layer, "stddev"):
            layer.stddev = 0.0
    images = tf.constant(blobs().inputs / 255, tf.float32)
    feature_matching.initialize(network, images)
    x, found = images, 0
    for layer in network.layers[1:]:
        x = layer(x)
        if isinstance(layer, layers.WeightNormalizedDense):
            found += 1
            varied = x.numpy().std(0) > 0.5  # all but units that a layer of ReLU leaves no input
            np.testing.assert_allclose(x.numpy()[:, varied].mean(0), 0, atol=1e-3)
            np.testing.assert_allclose(x.numpy()[:, varied].std(0), 1, atol=1e-2)
            assert varied.mean() > 0.9
    assert found == 6


@pytest.mark.slow
def test_a_network_learns_from_few_labels_by_the_command_line(command):
    arguments = "--arg hidden=[8,8,8,8,8] --arg latents=4 --arg width=8 --epochs 1 --out run --export out/ssgan.few"
    code, _, err = command(f"train ssgan --data digits {arguments} --set labels_per_class=5 --set labels_seed=3")
    assert code == 0, err
    recipe = zoo.load_run("run").recipe
    assert (recipe.options.labels_per_class, recipe.options.labels_seed) == (5, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels_per_class": 0}, "labels_per_class must be at least 1, not 0"),
        ({"label_smoothing": 0.1}, "the loss feature_matching has no label_smoothing: leave it out"),
        ({"class_weight": "balanced"}, "the loss feature_matching has no class_weight: leave it out"),
        ({"perturbation": 0.1}, "the loss feature_matching has no perturbation: leave it out"),
        ({"loss_weights": (1.0, 0.3)}, "ssgan has one output: leave loss_weights out"),
        ({"loss": "cross_entropy"}, "unknown loss of semi_supervised"),
        ({"arguments": {**SMALL, "hidden": [16, 16]}}, "hidden needs the units of 5 layers"),
        ({"precision": "mixed_float16"}, "use mixed_bfloat16"),
    ],
)
def test_what_cannot_be_trained_so(changes, message, tmp_path):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.train(
            "ssgan", testing.example_data("semi_supervised"), out=tmp_path / "run", **{"arguments": SMALL, **changes}
        )
    assert not (tmp_path / "run").exists()
