"""Augmented images a second in a batched `tf.data` pipeline: this package against the random layers of Keras.

    python benchmarks/augmentation.py

Images are random bytes in the size of MNIST (28 x 28 x 1, batches of 128): the time does not depend on them. The
batch size is fixed because `RandomElasticTransform` of Keras 3.15 distorts only the first image of a batch whose size
the graph does not know.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from common import interleaved, write_results

from zoo.data.augmentation import augment
from zoo.recipe import Affine, Augmentation, Elastic

BATCH = 128
AFFINE = Affine(rotation=15, translation=0.1, scale=0.1)


def keras_layers(elastic: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The same ranges as `AFFINE` by random layers, one interpolation each; elastic distortion after them."""
    layers = [
        keras.layers.RandomRotation(15 / 360, fill_mode="constant"),
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
        keras.layers.RandomZoom(0.1, fill_mode="constant"),
    ]
    if elastic:
        layers.append(keras.layers.RandomElasticTransform(factor=(1.0, 1.0), fill_mode="constant"))

    def apply(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            images = layer(images, training=True)
        return images

    return apply


def zoo(augmentation: Augmentation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return lambda images, seed: augment(images, None, seed, augmentation)[0]


def pipeline(apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], batches: int) -> Callable[[], float]:
    """A function that measures the images a second of a pipeline with `apply` over so many batches."""
    images = np.random.default_rng(0).integers(0, 256, (50 * BATCH, 28, 28, 1), np.uint8)
    warm_up = 5
    dataset = tf.data.Dataset.from_tensor_slices(images).repeat().batch(BATCH, drop_remainder=True)
    dataset = tf.data.Dataset.zip(dataset, tf.data.Dataset.counter(dtype=tf.int32))
    dataset = dataset.map(lambda x, i: apply(tf.cast(x, tf.float32), tf.stack([1, i])), tf.data.AUTOTUNE)
    dataset = dataset.take(warm_up + batches).prefetch(tf.data.AUTOTUNE)

    def measure() -> float:
        iterator = iter(dataset)
        for _ in range(warm_up):
            next(iterator)
        start = time.perf_counter()
        seen = sum(1 for _ in iterator)
        return seen * BATCH / (time.perf_counter() - start)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    measured = interleaved(
        {
            "batch and cast alone": pipeline(lambda images, seed: images, 1000),
            "keras affine": pipeline(keras_layers(elastic=False), 300),
            "zoo affine": pipeline(zoo(Augmentation(affine=AFFINE)), 300),
            "keras affine + elastic": pipeline(keras_layers(elastic=True), 100),
            "zoo affine + elastic": pipeline(zoo(Augmentation(affine=AFFINE, elastic=Elastic())), 300),
        },
        repeats,
    )
    ratios = {}
    for parts in ("affine", "affine + elastic"):
        # The ratio within each round, where both met the same load of the machine.
        rounds = zip(measured[f"zoo {parts}"]["values"], measured[f"keras {parts}"]["values"], strict=True)
        each = sorted(ours / theirs for ours, theirs in rounds)
        ratios[parts] = {"median": float(np.median(each)), "smallest": each[0], "largest": each[-1]}
    path = write_results("augmentation", {"unit": "images/s", "images_per_second": measured, "ratios": ratios})
    for name, results in measured.items():
        print(f"{name:24} {results['median']:10,.0f} images/s")
    for parts, ratio in ratios.items():
        print(f"{parts:24} {ratio['median']:10.1f} times Keras ({ratio['smallest']:.1f} to {ratio['largest']:.1f})")
    print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
