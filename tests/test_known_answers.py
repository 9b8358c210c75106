"""Training and predictions against answers that are known beforehand: steps replayed in NumPy, a source of known
entropy, data with one right prediction. Many other tests compare the code with itself."""

import dataclasses
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
from zoo.options import Border
from zoo.recipe import Affine, Augmentation, Recipe
from zoo.spec import ModelSpec, Preprocessing, Stage
from zoo.tasks import adversarial, mask_ops
from zoo.training import randomness
from zoo.training.batches import training_batches
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


def build_plain_gan(input_shape, classes, *, latents, width):
    """Networks with one hidden layer each, small enough to be replayed by hand."""
    noise = keras.Input((latents,), name="latents")
    x = layers.Dense(width, activation="relu", name="hidden")(noise)
    x = layers.Dense(math.prod(input_shape), activation="sigmoid", name="output")(x)
    generator = keras.Model(noise, layers.Reshape(input_shape, name="images")(x), name="generator")
    images = keras.Input(input_shape, name="images")
    x = layers.LeakyReLU(0.2, name="activation")(layers.Dense(width, name="hidden")(layers.Flatten()(images)))
    discriminator = keras.Model(images, layers.Dense(1, name="output")(x), name="discriminator")
    return keras.Model(noise, discriminator(generator(noise)), name="plain_gan")


PLAIN_GAN = ModelSpec(
    name="plain_gan",
    task="generation",
    summary="",
    year=2026,
    references=("these tests",),
    input_shape=(28, 28, 1),
    classes=0,
    params=0,
    preprocessing=Preprocessing(size=(28, 28)),
    arguments={"latents": 100, "width": 128},
    recipes={"own": Recipe(epochs=1, batch_size=8, learning_rate=0.1, loss="non_saturating")},
    builder=build_plain_gan,
)


@pytest.fixture(scope="module", autouse=True)
def _plain_gan():
    zoo.list_models()  # registers the zoo's own
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._specs, "plain_gan", PLAIN_GAN)
        yield


def gan_task(**scale):
    task = tasks.get_task("generation").from_data(PLAIN_GAN, dataset(IMAGES), (2, 2, 1), **GAN)
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

    def step(self, rate, discriminator_rate=None):
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
        rates = {"generator": rate, "discriminator": rate if discriminator_rate is None else discriminator_rate}
        self.weights = {key: value - rates[key.partition("/")[0]] * gradients[key] for key, value in w.items()}


class Rates(keras.callbacks.Callback):
    """The learning rates of all optimizers at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append([float(keras.ops.convert_to_numpy(one.learning_rate)) for one in self.model.optimizers])


def trained_gan(directory, **changes):
    """A run of two epochs with one step each, and the learning rates that a callback read."""
    rates = Rates()
    run = zoo.train(
        "plain_gan", dataset(IMAGES), out=directory, input_shape=(2, 2, 1), arguments=GAN, epochs=2, batch_size=8,
        learning_rate=0.8, schedule={"kind": "step", "decay": 0.5, "every": 1}, callbacks=[rates], **changes,
    )  # fmt: skip
    return run, rates.rates


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    return trained_gan(tmp_path_factory.mktemp("gan") / "run")


@pytest.fixture(scope="module")
def averaged_gan(tmp_path_factory):
    """The same with a moving average of the generator, and another rate for the discriminator."""
    return trained_gan(tmp_path_factory.mktemp("gan") / "averaged", ema=0.75, discriminator_rate=0.5)


def test_the_schedule_sets_the_learning_rate_of_both_optimizers(gan, averaged_gan):
    np.testing.assert_allclose(gan[1], [[0.8, 0.8], [0.4, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(averaged_gan[1], [[0.8, 0.4], [0.4, 0.2]], rtol=1e-6)


def noise_of(task):
    """The noise of a step, float64 [8, Z]; that of step -1 is the validation's."""
    latents = task.compile(task.build(), task.with_options(task.spec.recipe()), keras.optimizers.SGD).latents
    return lambda step: latents(8, tf.constant(step)).numpy().astype(np.float64)


def check_steps(run, noise):
    """Losses, gradients and updates; an update that mixed the two losses would move other variables."""
    replay = GanReplay(initial_weights(gan_task()), IMAGES / 255)
    kept = []
    for step, row in enumerate(run.history):
        replay.noise = noise(step)
        expected = replay.losses()
        replay.step(0.8 if step == 0 else 0.4)
        kept.append(replay.weights)
        replay.noise = noise(-1)
        for prefix, (generator_loss, discriminator_loss) in {"": expected, "val_": replay.losses()}.items():
            assert row[f"{prefix}generator_loss"] == pytest.approx(generator_loss, rel=1e-4)
            assert row[f"{prefix}discriminator_loss"] == pytest.approx(discriminator_loss, rel=1e-4)
            assert row[f"{prefix}loss"] == pytest.approx(generator_loss + discriminator_loss, rel=1e-4)
    assert_close(weights(run.model), kept[run.best_epoch - 1])


def test_the_steps_of_a_gan_are_the_papers(gan):
    check_steps(gan[0], noise_of(gan_task()))


@pytest.mark.slow
def test_two_devices_take_the_steps_of_one(tmp_path):
    """Each draws noise of its own for its half of the batch."""
    run, _ = trained_gan(tmp_path / "two", devices="cpu:2")
    halves = lambda step: [tf.random.stateless_normal([4, 3], [step, replica]) for replica in (0, 1)]  # noqa: E731
    check_steps(run, lambda step: np.concatenate(halves(step)).astype(np.float64))


def test_the_average_of_a_gan_is_that_of_its_generator(averaged_gan):
    """It begins at the weights after the first step with a rising momentum. The discriminator keeps its weights."""
    run, _ = averaged_gan
    task = gan_task()
    noise = noise_of(task)
    replay = GanReplay(initial_weights(task), IMAGES / 255)
    kept = []
    for step, rate in enumerate((0.8, 0.4)):
        replay.noise = noise(step)
        replay.step(rate, rate / 2)
        kept.append(replay.weights)
    momentum = 1 - 2 ** (-2 / 3)
    averages = {key: momentum * first + (1 - momentum) * kept[1][key] for key, first in kept[0].items()}
    expected = {key: averages[key] if key.startswith("generator/") else value for key, value in kept[1].items()}
    assert_close(weights(run.model), [kept[0], expected][run.best_epoch - 1])
    assert run.history[1]["val_generator_loss"] != run.history[0]["val_generator_loss"]
    replay.weights, replay.noise = expected, noise(-1)
    assert run.history[1]["val_generator_loss"] == pytest.approx(replay.losses()[0], rel=1e-4)


X = np.float32([[-2.0], [0.5], [3.0]])


@pytest.mark.parametrize(
    ("name", "target", "real", "generated", "generator"),
    [
        ("non_saturating", 1.0, softplus(-X), softplus(X), softplus(-X)),
        ("non_saturating", 0.9, 0.9 * softplus(-X) + 0.1 * softplus(X), softplus(X), softplus(-X)),
        ("hinge", 1.0, np.maximum(1 - X, 0), np.maximum(1 + X, 0), -X),
        ("least_squares", 0.8, (X - 0.8) ** 2 / 2, X**2 / 2, (X - 1) ** 2 / 2),
    ],
)
def test_adversarial_losses_by_hand(name, target, real, generated, generator):
    """Only the target of real images is smoothed."""
    loss = adversarial.LOSSES[name]
    for measured, expected in (
        (loss.real(X, target), real),
        (loss.generated(X), generated),
        (loss.generator(X), generator),
    ):
        np.testing.assert_allclose(measured, expected, rtol=1e-5)


def compiled_gan(**changes):
    task = gan_task()
    recipe = task.with_options(task.spec.recipe()).replace(**changes)
    return task, task.compile(task.build(), recipe, lambda: keras.optimizers.SGD(0.1))


def test_the_gradient_penalty_of_a_linear_discriminator():
    """gamma / 2 times the squared length of its gradient, in every third step and then threefold."""
    _, trainer = compiled_gan(r1=4.0, r1_every=3)
    hidden, output = (trainer.discriminator.get_layer(name) for name in ("hidden", "output"))
    hidden.bias.assign(100 * np.ones(4))  # where leaky ReLU is linear
    gradient = hidden.kernel.numpy() @ output.kernel.numpy()
    images = tf.constant(IMAGES / 255, tf.float32)
    penalties = [float(trainer.gradient_penalty(images, None, tf.constant(step))) for step in range(4)]
    assert penalties == pytest.approx([3 * 2.0 * (gradient**2).sum(), 0, 0, 3 * 2.0 * (gradient**2).sum()], rel=1e-4)


def trainer_of(name, arguments, **options):
    """A network of the registry, and for it images of noise and their labels [20, 10]."""
    images = Split(np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype=np.uint8), np.arange(20) % 10)
    spec = zoo.get_spec(name)
    data = Dataset("noise", dict.fromkeys(SPLITS, images), tuple("0123456789"))
    task = tasks.get_task(spec.task).from_data(spec, data, **arguments)
    recipe = task.with_options(spec.recipe()).replace(r1=0.0, **options)
    trainer = task.compile(task.build(), recipe, lambda: keras.optimizers.SGD(0.1))
    inputs = images.inputs / np.float32(127.5) - 1
    return trainer, tf.constant(inputs), tf.one_hot(images.targets, 10)


def test_the_information_loss_by_hand():
    """Cross-entropy of the category, and half of the squared distances of the values from the latents' quantiles in
    -1..1, each times its weight: added to the losses of both networks."""
    weights_of_codes = {"information": 2.0, "information_continuous": 0.5}
    trainer, images, codes = trainer_of("infogan", {"widths": (8, 4), "dense": 8}, **weights_of_codes)
    noise = trainer.latents(20, tf.constant(0))
    generated = trainer.generator([noise, codes], training=False)
    fake, logits, values = (part.numpy() for part in trainer.discriminator(generated, training=False))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    category = -np.log(probabilities[np.arange(20), codes.numpy().argmax(-1)]).mean()
    quantiles = [[math.erf(x / math.sqrt(2)) for x in row] for row in noise.numpy()[:, :2]]
    squares = ((quantiles - values) ** 2).sum(-1).mean() / 2
    assert category > 1
    assert squares > 0.1
    information = 2.0 * category + 0.5 * squares
    real = trainer.discriminator(images, training=False)[0].numpy()
    expected = softplus(-fake).mean() + information, (softplus(-real).mean() + softplus(fake).mean()) + information
    found = [float(loss) for loss in trainer.losses_of(images, codes, noise, training=False)]
    assert found == pytest.approx(expected, rel=1e-4)


def test_both_networks_of_a_conditional_gan_are_given_the_labels():
    trainer, images, labels = trainer_of("dcgan_conditional", {"widths": (8, 4)})
    noise = trainer.latents(20, tf.constant(0))
    found, others = (
        [float(loss) for loss in trainer.losses_of(images, given, noise, training=False)]
        for given in (labels, tf.roll(labels, 1, 0))
    )
    generated = trainer.generator([noise, labels], training=False)
    fake, real = (trainer.discriminator([each, labels], training=False).numpy() for each in (generated, images))
    assert found == pytest.approx([softplus(-fake).mean(), softplus(-real).mean() + softplus(fake).mean()], rel=1e-4)
    assert found != pytest.approx(others, rel=1e-6)


def test_the_discriminator_takes_a_step_on_each_part_of_the_batch():
    task, trainer = compiled_gan(discriminator_steps=2)
    replay = GanReplay(weights(trainer), IMAGES[:4] / 255)
    batch = task.network_batch(tf.constant(IMAGES))
    noise = [trainer.latents(4, tf.constant(step)).numpy() for step in (0, 1)]
    trainer.train_on_batch(*batch)
    replay.noise = noise[0]
    replay.step(0.0, 0.1)
    replay.images, replay.noise = IMAGES[4:].reshape(4, -1) / 255, noise[1]
    replay.step(0.1)
    assert_close(weights(trainer), replay.weights)
    assert [int(optimizer.iterations) for optimizer in trainer.optimizers] == [1, 2]


@pytest.mark.slow
def test_a_generator_learns_a_distribution_of_two_points(tmp_path):
    """Images are dark or bright, three to one; nothing lies between, and no point is lost."""
    values = np.uint8([40, 40, 40, 220] * 800)
    images = Split(values[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8))
    few = {name: images.head(200) for name in SPLITS}
    run = zoo.train(
        "plain_gan", Dataset("points", {**few, "train": images}),
        out=tmp_path, input_shape=(2, 2, 1), arguments={"latents": 4, "width": 32},
        epochs=16, batch_size=64, optimizer="adam", optimizer_arguments={"beta_1": 0.5}, learning_rate=0.01, r1=0.05,
        r1_every=1, ema=0.98,
    )  # fmt: skip
    samples = zoo.sample(run, 1_000).mean((1, 2, 3))
    dark, bright = (np.abs(samples - value) < 40 for value in (40, 220))
    assert 0.6 < dark.mean() < 0.9
    assert 0.1 < bright.mean() < 0.4
    assert (dark | bright).mean() > 0.9


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
