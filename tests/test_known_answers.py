"""Training and predictions against answers that are known beforehand: steps replayed in NumPy, a source of known
entropy, data with one right prediction. Many other tests compare the code with itself."""

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import zoo
from zoo import registry, tasks, testing
from zoo.data import Dataset, Split
from zoo.data.dataset import IGNORED
from zoo.recipe import Affine, Augmentation, Border, Recipe
from zoo.spec import ModelSpec, Stage
from zoo.tasks import mask_ops
from zoo.training import randomness
from zoo.training.batches import evaluation_batches, training_batches
from zoo.weights import named_weights

RANDOM = np.random.default_rng(5)
SPLITS = ("train", "validation", "test")


def dataset(inputs, targets=None, classes=()) -> Dataset:
    """The same examples in each split."""
    return Dataset("known", dict.fromkeys(SPLITS, Split(inputs, targets)), classes)


def initial_weights(task) -> dict[str, np.ndarray]:
    """Those with which `zoo.train` begins for seed 0."""
    with randomness.seeded(0, deterministic=False):
        return {key: value.numpy().astype(np.float64) for key, value in named_weights(task.build()).items()}


def weights(model) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in named_weights(model).items()}


def assert_close(measured, expected):
    assert measured.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(measured[key], value, rtol=1e-3, atol=2e-5, err_msg=key)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


# --- a GAN -------------------------------------------------------------------------------------------------------

GAN = {"latents": 3, "width": 4}
IMAGES = RANDOM.integers(0, 256, (8, 2, 2, 1), dtype=np.uint8)


def gan_task(**scale):
    task = tasks.get_task("generation").from_data(zoo.get_spec("gan_mlp"), dataset(IMAGES), (2, 2, 1), **GAN)
    return dataclasses.replace(task, preprocessing=dataclasses.replace(task.preprocessing, **scale))


class GanReplay:
    """One step of Goodfellow et al. 2014, algorithm 1, by gradients written out by hand; both networks are updated from
    the same weights."""

    def __init__(self, weights, images):
        self.weights, self.images, self.noise = weights, images.reshape(len(images), -1), None

    def generated(self):
        w = self.weights
        self.units = np.maximum(self.noise @ w["generator/hidden/kernel"] + w["generator/hidden/bias"], 0)
        return sigmoid(self.units @ w["generator/output/kernel"] + w["generator/output/bias"])

    def judged(self, images):
        """Logits [B, 1], and the hidden layer before its activation."""
        w = self.weights
        before = images @ w["discriminator/hidden/kernel"] + w["discriminator/hidden/bias"]
        after = np.where(before > 0, before, 0.2 * before)
        return after @ w["discriminator/output/kernel"] + w["discriminator/output/bias"], before

    def losses(self):
        """-log D(G(z)) of the generator; -log D(x) - log(1 - D(G(z))) of the discriminator."""
        (real, _), (fake, _) = self.judged(self.images), self.judged(self.generated())
        return softplus(-fake).mean(), softplus(-real).mean() + softplus(fake).mean()

    def discriminator_gradients(self, images, of_logits):
        """Of the weights and of the images, from those of the logits [B, 1]."""
        w = self.weights
        _, before = self.judged(images)
        after = np.where(before > 0, before, 0.2 * before)
        hidden = of_logits @ w["discriminator/output/kernel"].T * np.where(before > 0, 1, 0.2)
        gradients = {
            "discriminator/hidden/kernel": images.T @ hidden,
            "discriminator/hidden/bias": hidden.sum(0),
            "discriminator/output/kernel": after.T @ of_logits,
            "discriminator/output/bias": of_logits.sum(0),
        }
        return gradients, hidden @ w["discriminator/hidden/kernel"].T

    def step(self, rate):
        w, fakes, count = self.weights, self.generated(), len(self.noise)
        (real, _), (fake, _) = self.judged(self.images), self.judged(fakes)
        of_real, _ = self.discriminator_gradients(self.images, -sigmoid(-real) / count)
        of_fake, _ = self.discriminator_gradients(fakes, sigmoid(fake) / count)
        _, of_images = self.discriminator_gradients(fakes, -sigmoid(-fake) / count)
        output = of_images * fakes * (1 - fakes)
        hidden = output @ w["generator/output/kernel"].T * (self.units > 0)
        gradients = {key: of_real[key] + of_fake[key] for key in of_real} | {
            "generator/hidden/kernel": self.noise.T @ hidden,
            "generator/hidden/bias": hidden.sum(0),
            "generator/output/kernel": self.units.T @ output,
            "generator/output/bias": output.sum(0),
        }
        self.weights = {key: value - rate * gradients[key] for key, value in w.items()}


class Rates(keras.callbacks.Callback):
    """The learning rates of all optimizers at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append([float(one.learning_rate) for one in self.model.optimizers])


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    """A run of two epochs with one step each, and the learning rates that a callback read."""
    rates = Rates()
    run = zoo.train(
        "gan_mlp", dataset(IMAGES), out=tmp_path_factory.mktemp("gan") / "run", input_shape=(2, 2, 1), arguments=GAN,
        epochs=2, batch_size=8, optimizer="sgd", optimizer_arguments={}, learning_rate=0.8,
        schedule={"kind": "step", "decay": 0.5, "every": 1}, callbacks=[rates],
    )  # fmt: skip
    return run, rates.rates


def test_the_schedule_sets_the_learning_rate_of_both_optimizers(gan):
    np.testing.assert_allclose(gan[1], [[0.8, 0.8], [0.4, 0.4]], rtol=1e-6)


def test_the_steps_of_a_gan_are_the_papers(gan):
    """Losses, gradients and updates; an update that mixed the two losses would move other variables."""
    run, _ = gan
    task = gan_task()
    latents = task.compile(task.build(), task.spec.recipe(), keras.optimizers.SGD).latents

    def noise(step):
        return latents(8, tf.constant(step)).numpy().astype(np.float64)

    replay = GanReplay(initial_weights(task), IMAGES / 255)
    for step, row in enumerate(run.history):
        replay.noise = noise(step)
        expected = replay.losses()
        replay.step(0.8 if step == 0 else 0.4)
        replay.noise = noise(-1)
        for prefix, (generator_loss, discriminator_loss) in {"": expected, "val_": replay.losses()}.items():
            assert row[f"{prefix}generator_loss"] == pytest.approx(generator_loss, rel=1e-4)
            assert row[f"{prefix}discriminator_loss"] == pytest.approx(discriminator_loss, rel=1e-4)
            assert row[f"{prefix}loss"] == pytest.approx(generator_loss + discriminator_loss, rel=1e-4)
    assert_close(weights(run.model), replay.weights)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_generated_images_have_the_scale_of_the_training_images(low, high):
    """Black, middle gray and white, and what lies outside of the range."""
    task = gan_task(low=low, high=high)
    outputs = low + (high - low) * np.float32([0, 0.5, 1, -0.2, 1.2, 0.25])
    signatures = task.signatures(task.build(), lambda latents: tf.reshape(outputs, [1, 2, 3, 1]))
    images = signatures["serving_default"](latents=tf.zeros([1, 3]))["images"].numpy()
    assert images.dtype == np.uint8
    assert images.ravel().tolist() == [0, 128, 255, 0, 255, 64]


@pytest.mark.parametrize("high", [1.0, 3.0])
def test_the_discriminator_sees_images_of_the_generators_scale(high):
    task = gan_task(low=-1.0, high=high)
    inputs, _ = task.network_batch(tf.reshape(tf.constant([0, 255, 0, 255], tf.uint8), [1, 2, 2, 1]))
    assert inputs.numpy().ravel().tolist() == [-1.0, high] * 2


# --- texts -------------------------------------------------------------------------------------------------------

FOLLOWS = [0, 0.9, 0.05, 0.05]  # probabilities that 0 to 3 letters later in the alphabet a, b, c, d, a... comes next


def chain(length: int, seed: int) -> tuple[str, float]:
    """A text of a source that draws each letter by the last one, and its nats a letter under these probabilities: no
    model can do better but by chance. No letter follows itself, so that a model whose targets were its inputs would be
    right each time."""
    steps = np.random.default_rng(seed).choice(4, size=length, p=FOLLOWS)
    return "".join("abcd"[number] for number in np.cumsum(steps) % 4), -np.log(np.take(FOLLOWS, steps)).mean()


def test_a_language_model_reaches_the_entropy_of_its_source(tmp_path):
    lengths = {"train": 16_000, "validation": 8_000, "test": 8_000}
    chains = {name: chain(length, seed) for seed, (name, length) in enumerate(lengths.items())}
    splits = {name: Split(np.array([text], object)) for name, (text, _) in chains.items()}
    run = zoo.train(
        "lstm_char", Dataset("chain", splits), out=tmp_path, input_shape=(20,), epochs=3, batch_size=40,
        learning_rate=0.05, arguments={"embedding": 4, "width": 8},
    )  # fmt: skip
    losses = [row["val_loss"] for row in run.history]
    assert losses[run.best_epoch - 1] == min(losses) < max(losses)
    for name, scores in run.metrics.items():
        text, entropy = chains[name]
        assert scores["loss"] == pytest.approx(entropy, abs=0.02), name
        follows = np.mean([pair in ("ab", "bc", "cd", "da") for pair in map("".join, itertools.pairwise(text))])
        assert scores["accuracy"] == pytest.approx(follows, abs=0.005), name
    outputs = zoo.load(run)(["a", "dabcabc", "abcd"])["probabilities"]
    expected = [[0, 0.9, 0.05, 0.05], [0.05, 0.05, 0, 0.9], [0.9, 0.05, 0.05, 0]]
    np.testing.assert_allclose(outputs, expected, atol=0.03)


def test_the_targets_of_a_language_model_are_the_next_characters():
    data = dataset(np.array(["abcdabca"], object))
    task = tasks.get_task("language_model").from_data(zoo.get_spec("lstm_char"), data, (3,))
    assert task.vocabulary == tuple("abcd")
    ((tokens, targets),) = evaluation_batches(task, data.splits["test"])
    assert tokens.numpy().tolist() == [[0, 1, 2], [3, 0, 1]]
    assert targets.numpy().tolist() == [[1, 2, 3], [0, 1, 2]]


@pytest.mark.slow
def test_a_text_classifier_learns_which_word_a_text_contains(tmp_path):
    """`yes`, `no` or `maybe` among words without a meaning."""
    random, classes = np.random.default_rng(0), ("yes", "no", "maybe")
    labels = np.arange(300, dtype=np.int64) % 3
    texts = []
    for label in labels:
        words = list(random.choice(["of", "the", "and"], 3))
        words.insert(random.integers(4), classes[label])
        texts.append(" ".join(words))
    whole = Split(np.array(texts, object), labels)
    parts = {"train": slice(0, 120), "validation": slice(120, 210), "test": slice(210, 300)}
    data = Dataset("words", {name: whole.take(part) for name, part in parts.items()}, classes)
    run = zoo.train(
        "lstm_text", data, out=tmp_path, input_shape=(5,), epochs=8, batch_size=20,
        learning_rate=0.1, patience=None, arguments={"vocabulary_size": 20, "width": 8},
    )  # fmt: skip
    assert run.metrics["validation"]["accuracy"] == run.metrics["test"]["accuracy"] == 1.0
    for number, name in enumerate(classes):
        outputs = zoo.load(run)([f"of {name} the", f"the of and {name}", f"{name.upper()}!"])
        assert outputs["class_names"].tolist() == [name.encode()] * 3
        assert outputs["class_ids"].tolist() == [number] * 3
        assert (outputs["probabilities"][:, number] > 0.5).all()
    assert [row["class"] for row in zoo.predict(run, ["the yes", "maybe of the"])] == ["yes", "maybe"]


# --- batches -----------------------------------------------------------------------------------------------------

COUNT, BATCH = 12, 4


def read_epochs(inputs, epochs=3, seed=0, first_epoch=0, **recipe):
    """For each epoch the images [N, H, W] in the order of training, times 255, and the class ids of their targets."""
    labels = np.arange(len(inputs), dtype=np.int64)
    data = dataset(inputs, labels, tuple(map(str, labels)))
    task = tasks.get_task("classification").from_data(zoo.get_spec("mlp_784_10"), data, inputs.shape[1:])
    recipe = Recipe(epochs=epochs, batch_size=BATCH, learning_rate=1.0, **recipe)
    batches, steps = training_batches(task, data.splits["train"], recipe, seed=seed, first_epoch=first_epoch)
    pairs = [(255 * images.numpy()[..., 0], targets.numpy().argmax(1)) for images, targets in batches]
    assert len(pairs) == steps * (epochs - first_epoch)
    starts = range(0, len(pairs), steps)
    return [[np.concatenate(arrays) for arrays in zip(*pairs[start : start + steps], strict=True)] for start in starts]


NUMBERED = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)


def test_each_epoch_has_every_example_once_in_an_order_of_its_own():
    orders = []
    for images, labels in read_epochs(NUMBERED):
        np.testing.assert_allclose(images[:, 0, 0], labels, atol=1e-4)  # each image with its label
        assert sorted(labels) == list(range(COUNT))
        orders.append(labels.tolist())
    assert len(set(map(tuple, orders))) == 3
    assert list(range(COUNT)) not in orders
    assert [labels.tolist() for _, labels in read_epochs(NUMBERED)] == orders
    assert [labels.tolist() for _, labels in read_epochs(NUMBERED, first_epoch=1)] == orders[1:]
    assert all(labels.tolist() not in orders for _, labels in read_epochs(NUMBERED, seed=1))


def test_each_image_is_augmented_anew_in_each_batch_and_epoch():
    """All images are the same, so that they differ by their augmentation alone."""
    image = RANDOM.integers(0, 256, (9, 9, 1), dtype=np.uint8)
    same = np.repeat(image[None], COUNT, axis=0)
    augmentation = Augmentation(affine=Affine(rotation=180.0))
    epochs = [images for images, _ in read_epochs(same, augmentation=augmentation)]
    seen = {moved.tobytes() for images in epochs for moved in images}
    assert len(seen) == 3 * COUNT
    for images, again in zip(epochs, read_epochs(same, augmentation=augmentation), strict=True):
        np.testing.assert_array_equal(images, again[0])
    resumed = read_epochs(same, augmentation=augmentation, first_epoch=2)
    np.testing.assert_array_equal(epochs[2], resumed[0][0])
    other = read_epochs(same, augmentation=augmentation, seed=1)
    assert seen.isdisjoint(moved.tobytes() for images, _ in other for moved in images)


def test_an_epoch_of_an_expansion_has_each_shift_of_each_image_once():
    images = np.zeros((BATCH, 3, 3, 1), np.uint8)
    images[:, 1, 1, 0] = [50, 100, 150, 200]
    ((moved, labels),) = read_epochs(images, epochs=1, augmentation=Augmentation(expand_shift=True))
    found = {(int(label), int(image.argmax())) for image, label in zip(moved, labels, strict=True)}
    assert len(moved) == 5 * BATCH
    assert found == {(label, place) for label in range(BATCH) for place in (4, 1, 7, 3, 5)}
    np.testing.assert_allclose(moved.max((1, 2)), images[labels, 1, 1, 0], atol=1e-4)


# --- one step of softmax regression ------------------------------------------------------------------------------


def test_steps_of_softmax_regression_are_gradient_descent_with_momentum(tmp_path):
    inputs, smoothing = RANDOM.integers(0, 256, (6, 2, 2, 1), dtype=np.uint8), 0.3
    labels = np.array([0, 1, 2, 2, 1, 0], np.int64)
    data = dataset(inputs, labels, ("a", "b", "c"))
    run = zoo.train(
        "mlp_784_10", data, out=tmp_path, input_shape=(2, 2, 1), epochs=3, batch_size=6, learning_rate=0.5,
        loss="cross_entropy", label_smoothing=smoothing, optimizer_arguments={"momentum": 0.9},
    )  # fmt: skip
    expected = initial_weights(run.task)
    x, targets = inputs.reshape(6, -1) / 255, (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    velocity = {key: np.zeros_like(value) for key, value in expected.items()}
    kept = {}
    for row in run.history:
        scores = np.exp(x @ expected["output/kernel"] + expected["output/bias"])
        probabilities = scores / scores.sum(1, keepdims=True)
        assert row["loss"] == pytest.approx(-(targets * np.log(probabilities)).sum(1).mean(), rel=1e-4)
        error = (probabilities - targets) / len(x)
        for key, gradient in {"output/kernel": x.T @ error, "output/bias": error.sum(0)}.items():
            velocity[key] = 0.9 * velocity[key] - 0.5 * gradient
            expected[key] = expected[key] + velocity[key]
        kept[row["epoch"]] = dict(expected)
    assert_close(weights(run.model), kept[run.best_epoch])


# --- masks -------------------------------------------------------------------------------------------------------


def test_a_weighted_loss_of_masks_by_hand():
    """Two objects with a gap of a pixel, and an ignored pixel."""
    ids = np.uint8([[[1, 0, 1, IGNORED]]])
    data = dataset(np.zeros((1, 1, 4, 1), np.uint8), ids, ("gap", "object"))
    task = tasks.get_task("segmentation").from_data(zoo.get_spec("unet_tiny"), data)
    options = zoo.SegmentationOptions(border=Border(weight=10.0, sigma=1.0))
    gap = 1 + 10 * math.exp(-((1 + 1) ** 2) / 2)
    for given, weights_of_pixels in {options: [1, gap, 1, 0], None: [1, 1, 1, 0]}.items():
        arrays = task.examples(data.splits["train"], given)
        _, target = task.network_batch(*map(tf.constant, arrays))
        expected = [[0, 1, 0, 0], [1, 0, 1, 0], weights_of_pixels]  # gap, object, weight
        np.testing.assert_allclose(np.moveaxis(target[0, 0], -1, 0), expected, rtol=1e-6)
        loss = mask_ops.mask_loss("cross_entropy", overlapping=False)(target, tf.zeros([1, 1, 4, 2]))
        assert float(loss) == pytest.approx(math.log(2) * sum(weights_of_pixels) / 4, rel=1e-6)


# --- the gradient check of zoo.testing ---------------------------------------------------------------------------

DEAD = ModelSpec(
    name="dead_layer",
    task="classification",
    summary="",
    year=2026,
    references=("these tests",),
    input_shape=(12, 12, 1),
    classes=2,
    params=0,
    head=("output",),
    recipes={"own": Recipe(epochs=1, batch_size=4, learning_rate=0.1)},
    stages=(Stage("all", ("*",), 0.1, 1),),
)


class Stopped(layers.Layer):
    """Passes its input on, and no gradient back."""

    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("fault", ["stopped", "unused", "infinite", "none"])
def test_a_variable_without_a_gradient_is_found(fault, monkeypatch):
    def build(input_shape, classes):
        x = inputs = keras.Input(input_shape, name="images")
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(3, name="hidden")(x)
        if fault == "stopped":
            x = Stopped()(x)
        if fault == "unused":
            x = layers.Rescaling(0.0)(x)
        if fault == "infinite":
            x = layers.Rescaling(1e30)(layers.Rescaling(1e30)(x))
        return keras.Model(inputs, layers.Dense(classes, name="output")(x), name="dead_layer")

    zoo.list_models()  # registers the zoo's own
    monkeypatch.setitem(registry._specs, "dead_layer", dataclasses.replace(DEAD, builder=build))
    if fault == "none":
        testing.check_gradients("dead_layer")
        return
    message = "the gradient of .* is not finite" if fault == "infinite" else "hidden/kernel gets no gradient"
    with pytest.raises(AssertionError, match=message):
        testing.check_gradients("dead_layer")
