"""Generation: the small DCGAN against the DCGAN example of Keras, in quality and in speed.

    zoo train dcgan_small --data mnist --epochs 2 --out runs/quality
    python benchmarks/generation.py quality --run runs/quality
    pip install torch
    python benchmarks/generation.py speed            (MNIST in ZOO_DATA_DIR, or it is downloaded)

`quality` trains the network and the recipe of https://keras.io/examples/generative/dcgan_overriding_train_step/ on the
training images of a finished run of `dcgan_small`, and measures both on 10,000 samples and the test images: after as
many steps, and after as many images, for which the example with its batches of 32 takes four times the steps. The
example draws images of 64 x 64 with three doublings from 8 x 8; here two lead from 7 x 7 to 28 x 28, and
its last one with 512 maps is left out.

`speed` trains the networks of `dcgan_small` in three ways, with the same optimizers and without a penalty: the trainer
of this package, the example's train step in Keras, and the same step in eager PyTorch. Of each training the second
epoch counts, validation left out; the contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import RESULTS, interleaved, ratios, write_between, write_results
from keras import layers

import zoo
from zoo import tasks
from zoo.tasks import sample_metrics

PAGE = Path(__file__).parent.parent / "docs" / "generation.md"
BATCH = 128
EXAMPLE_BATCH = 32


class KerasExample(keras.Model):
    """The example's train step: the discriminator on generated and real images with noisy labels, then the generator on
    new noise. Networks that end in a sigmoid give probabilities, others logits."""

    def __init__(self, generator: keras.Model, discriminator: keras.Model, latents: int, *, logits: bool) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latents = generator, discriminator, latents
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=logits)
        self.means = [keras.metrics.Mean(name=name) for name in ("d_loss", "g_loss")]

    def compile(self, rates: tuple[float, float], beta_1: float = 0.9) -> None:
        super().compile(jit_compile=False)
        self.d_optimizer, self.g_optimizer = (keras.optimizers.Adam(rate, beta_1) for rate in rates)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.means

    def train_step(self, real: tf.Tensor) -> dict[str, Any]:
        count = tf.shape(real)[0]
        generated = self.generator(tf.random.normal([count, self.latents]), training=True)
        images = tf.concat([generated, real], 0)
        labels = tf.concat([tf.ones([count, 1]), tf.zeros([count, 1])], 0)
        labels += 0.05 * tf.random.uniform(tf.shape(labels))
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(images, training=True))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        noise = tf.random.normal([count, self.latents])
        with tf.GradientTape() as tape:
            predictions = self.discriminator(self.generator(noise, training=True), training=True)
            g_loss = self.loss_fn(tf.zeros([count, 1]), predictions)
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        for mean, value in zip(self.means, (d_loss, g_loss), strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self.means}


def example_networks() -> tuple[keras.Model, keras.Model]:
    """Generator and discriminator of the example, for images of 28 x 28 in 0..1."""
    discriminator = keras.Sequential([keras.Input((28, 28, 1))])
    for maps in (64, 128, 128):
        discriminator.add(layers.Conv2D(maps, 4, strides=2, padding="same"))
        discriminator.add(layers.LeakyReLU(0.2))
    for layer in (layers.Flatten(), layers.Dropout(0.2), layers.Dense(1, activation="sigmoid")):
        discriminator.add(layer)
    generator = keras.Sequential([keras.Input((128,)), layers.Dense(7 * 7 * 128), layers.Reshape((7, 7, 128))])
    for maps in (128, 256):
        generator.add(layers.Conv2DTranspose(maps, 4, strides=2, padding="same"))
        generator.add(layers.LeakyReLU(0.2))
    generator.add(layers.Conv2D(1, 5, padding="same", activation="sigmoid"))
    return generator, discriminator


def scores_of(real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    """The Fréchet distance and the coverage of generated images, uint8 [N, 28, 28, 1]."""
    features = sample_metrics.feature_function()
    of_real, of_generated = (
        np.concatenate([features(tf.constant(images[start : start + 500]))[0] for start in range(0, len(images), 500)])
        for images in (real, generated)
    )
    return {
        "frechet_distance": sample_metrics.frechet_distance(of_real, of_generated),
        "frechet_floor": sample_metrics.frechet_floor(of_real),
        **sample_metrics.precision_and_recall(of_real, of_generated),
        **sample_metrics.density_and_coverage(of_real, of_generated),
    }


def quality(directory: str) -> None:
    """Prints and writes the scores of a run, and of the example after as many steps and after as many images."""
    run = zoo.load_run(directory)
    data = zoo.data.load(run.record["data"]["name"])
    train, test = data.splits["train"].inputs, data.splits["test"].inputs
    steps = len(run.history) * (len(train) // run.recipe.batch_size)
    keras.utils.set_random_seed(0)
    example = KerasExample(*example_networks(), 128, logits=False)
    example.compile((1e-4, 1e-4))  # the example's rates and batch size
    images = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train)).repeat().batch(EXAMPLE_BATCH)
    images = images.map(lambda batch: tf.cast(batch, tf.float32) / 255).prefetch(2)
    noise = tf.random.stateless_normal([len(test), 128], [0, 0])
    ours = np.concatenate([zoo.sample(run, 1_000, seed=seed) for seed in range(len(test) // 1_000)])
    results = {"zoo": scores_of(test, ours)}
    times = run.recipe.batch_size // EXAMPLE_BATCH  # as many images take so many times the steps
    for name, more in (("as many steps", steps), ("as many images", (times - 1) * steps)):
        example.fit(images, epochs=1, steps_per_epoch=more, verbose=2)
        drawn = np.rint(255 * example.generator.predict(noise, batch_size=500, verbose=0)).astype(np.uint8)
        results[f"Keras' example, {name}"] = scores_of(test, drawn)
    for name, scores in results.items():
        print(f"{name:32}", "  ".join(f"{key} {value:.4f}" for key, value in scores.items()))
        if scores is not results["zoo"]:
            ratio = results["zoo"]["frechet_distance"] / scores["frechet_distance"]
            print(
                f"distance of zoo / example: {ratio:.3f}, the goal is 1/3: {'reached' if ratio <= 1 / 3 else 'missed'}"
            )
    path = write_results("generation_quality", {"run": run.record["recipe"], "steps": steps, "results": results})
    print(f"written to {path.parent.name}/{path.name}")
    draw()


def draw() -> None:
    """Writes the table of the last results of `quality` into the page on generation."""
    found = json.loads((RESULTS / "generation_quality.json").read_text(encoding="utf-8"))
    scores = ("frechet_distance", "precision", "recall", "coverage")
    lines = [f"| after {found['steps']:,} steps | {' | '.join(map('`{}`'.format, scores))} |", "|---" * 5 + "|"]
    for name, row in found["results"].items():
        title = "`dcgan_small`" if name == "zoo" else name
        lines.append(f"| {title} | {' | '.join(f'{row[score]:.3f}' for score in scores)} |")
    write_between(PAGE, "quality", "\n".join(lines))


def timed(fit: Callable[[], Any], count: int) -> Callable[[], float]:
    """Images a second of an epoch."""

    def measure() -> float:
        start = time.perf_counter()
        fit()
        return count / (time.perf_counter() - start)

    return measure


def speed(count: int, repeats: int) -> None:
    """Prints and writes the images a second of three ways to train the same networks."""
    import torch

    mnist = zoo.data.load("mnist")
    spec = zoo.get_spec("dcgan_small")
    task = tasks.get_task(spec.task).from_data(spec, mnist)
    recipe = task.with_options(spec.recipe()).replace(r1=0.0, ema=None)
    inputs = task.network_batch(tf.constant(mnist.splits["train"].inputs[:count]))[0]
    batches = tf.data.Dataset.from_tensor_slices(inputs).shuffle(count).batch(BATCH, drop_remainder=True)

    steps = count // BATCH
    ours = task.compile(
        task.build(), recipe, lambda: keras.optimizers.Adam(2e-4, 0.5), steps_per_execution=min(steps, 50)
    )
    pairs = batches.map(lambda images: (images, tf.zeros([BATCH])))
    model = task.build()
    theirs = KerasExample(model.get_layer("generator"), model.get_layer("discriminator"), task.latents, logits=True)
    theirs.compile((4e-4, 2e-4), 0.5)
    torch_epoch = torch_training(torch, np.moveaxis(inputs.numpy(), -1, 1))
    contenders = {
        "zoo": timed(lambda: ours.fit(pairs, verbose=0), count),
        "keras": timed(lambda: theirs.fit(batches, verbose=0), count),
        "pytorch": timed(torch_epoch, count),
    }
    measured = interleaved(contenders, repeats)
    compared = {f"zoo / {name}": ratios(measured, "zoo", name) for name in ("keras", "pytorch")}
    for name, row in measured.items():
        print(f"{name:9}{row['median']:9,.0f} images/s")
    print(f"zoo / keras: {compared['zoo / keras']['median']:.2f}, the goal is 1.0")
    path = write_results("generation_speed", {"images": count, "images_per_second": measured, "ratios": compared})
    print(f"written to {path.parent.name}/{path.name}")


def torch_training(torch: Any, images: np.ndarray) -> Callable[[], None]:
    """The same networks and steps in eager PyTorch, as a function that trains an epoch."""
    nn = torch.nn
    generator = nn.Sequential(
        nn.Linear(100, 176, bias=False), nn.BatchNorm1d(176), nn.ReLU(), nn.Linear(176, 4704, bias=False),
        nn.Unflatten(1, (96, 7, 7)), nn.BatchNorm2d(96), nn.ReLU(),
        nn.ConvTranspose2d(96, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
        nn.ConvTranspose2d(48, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 48, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(48, 96, 4, 2, 1, bias=False), nn.BatchNorm2d(96), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(4704, 176, bias=False), nn.BatchNorm1d(176), nn.LeakyReLU(0.2), nn.Linear(176, 1),
    )  # fmt: skip
    g_optimizer, d_optimizer = (
        torch.optim.Adam(network.parameters(), rate, (0.5, 0.999), fused=True)
        for network, rate in ((generator, 2e-4), (discriminator, 4e-4))
    )
    real_images, softplus = torch.from_numpy(images), nn.functional.softplus

    def epoch() -> None:
        order = torch.randperm(len(real_images))
        for index in order.split(BATCH):
            real = real_images[index]
            d_optimizer.zero_grad()
            generated = generator(torch.randn(len(real), 100))
            d_loss = softplus(-discriminator(real)).mean() + softplus(discriminator(generated.detach())).mean()
            d_loss.backward()
            d_optimizer.step()
            g_optimizer.zero_grad()
            softplus(-discriminator(generated)).mean().backward()
            g_optimizer.step()

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", choices=("quality", "speed"))
    parser.add_argument("--run", default="runs/quality", help="a finished run of dcgan_small")
    parser.add_argument("--images", type=int, default=6_400, help="an epoch of the measurement of speed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.question == "quality":
        quality(options.run)
    else:
        speed(options.images, options.repeats)


if __name__ == "__main__":
    main()
