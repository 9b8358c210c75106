"""A classifier of digits that needs ten labels a class and learns the rest from images without a label.

Command, with the time that Keras' JAX backend took on one H100 GPU and the test accuracy of the published weights:

    zoo train ssgan --data mnist   # 233 seconds, 0.9906

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv 1606.03498, and its code
github.com/openai/improved-gan, mnist_svhn_cifar10/train_mnist_feature_matching.py.
"""

from __future__ import annotations

import dataclasses
import math

from etils import epy

from zoo.errors import ZooError
from zoo.models.recipes import MODERN_IMAGES
from zoo.options import ClassificationOptions
from zoo.recipe import Augmentation, Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

SALIMANS = "Salimans et al. 2016"
HIDDEN = (1000, 500, 250, 250, 250)  # the code's discriminator
# 784*1000 + 1000*500 + 500*250 + 2*250*250 + 250*10, a bias each, and the scale of the last layer
DISCRIMINATOR = 1_536_500 + 2_260 + 10

SPEC = ModelSpec(
    name="ssgan",
    task="semi_supervised",
    summary="semi-supervised classifier, trained against a generator by feature matching",
    year=2016,
    references=(f"{SALIMANS}, sections 3.1, 5 and 6.1", "its code: github.com/openai/improved-gan"),
    input_shape=(28, 28, 1),
    classes=10,
    # generator 100*500 + 2*500 + 500*500 + 2*500 + 500*784 + 784*2 = 695,568
    params=DISCRIMINATOR + 695_568,
    head=("output",),
    features=("relu1", "relu2", "relu3", "relu4", "relu5"),
    preprocessing=Preprocessing(size=(28, 28)),
    arguments={"hidden": HIDDEN, "latents": 100, "width": 500},
    recipes={
        "paper": Recipe(
            epochs=300,
            batch_size=100,
            learning_rate=3e-3,
            optimizer="adam",
            optimizer_arguments={"beta_1": 0.5, "epsilon": 1e-4},  # the code's 1e-8 is under the root
            loss="feature_matching",
            ema=0.9999,
            ema_power=1.0,
            options=ClassificationOptions(labels_per_class=10),
            deviations=(
                "a batch has 100 labeled images drawn from all, not each of them once",
                "both networks see the same images without a label in a step",
                "the epoch is chosen on 10,000 validation images, which are not trained on",
                "the generator's batch normalization has a factor too, and its last layer other initial weights",
                "the first batch of 100 images normalizes the classifier's first weights, not 500 images",
            ),
        )
    },
    reported=(ReportedScore("mnist", "accuracy", 0.9907, f"{SALIMANS}, table 1: 93 errors with 100 labels"),),
    stages=(Stage("all", ("*",), 1e-3, 20),),
)


@register(SPEC)
def ssgan(input_shape: tuple, classes: int, *, hidden: tuple[int, ...], latents: int, width: int) -> keras.Model:
    """Latents [B, Z], standard normal, to the discriminator's logits [B, classes] of the generator's images.

    The sub-model `discriminator` maps images [B, H, W, C] in 0..1 to logits; `generator` maps latents to images.

    Args:
        hidden: units of the discriminator's hidden layers.
        latents: Z.
        width: units of each of the generator's two hidden layers.
    """
    x = noise = keras.Input((latents,), name="latents")
    x = zoo_layers.ToUniform(low=0.0, name="uniform")(x)
    for number in (1, 2):
        x = layers.Dense(width, use_bias=False, name=f"dense{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.Activation("softplus", name=f"softplus{number}")(x)
    x = zoo_layers.WeightNormalizedDense(math.prod(input_shape), name="pixels")(x)
    x = layers.Activation("sigmoid", name="sigmoid")(x)
    generator = keras.Model(noise, layers.Reshape(input_shape, name="images")(x), name="generator")
    if len(hidden) != len(HIDDEN):
        raise ZooError(
            f"hidden needs the units of {len(HIDDEN)} layers, the last of which is matched, not {len(hidden)}"
        )
    discriminator = classifier(input_shape, classes, hidden, "discriminator")
    noise = keras.Input((latents,), name="latents")
    return keras.Model(noise, discriminator(generator(noise)), name="ssgan")


@register(
    dataclasses.replace(
        SPEC,
        name="ssgan_classifier",
        task="classification",
        summary="the classifier of ssgan without its generator, to see what that adds",
        params=DISCRIMINATOR,
        arguments={"hidden": HIDDEN},
        reported=(),
        recipes={
            "labels": Recipe(
                epochs=60,
                batch_size=20,
                learning_rate=1e-3,
                optimizer="adam",
                ema=0.99,
                options=ClassificationOptions(),
            ),
            "augmented": Recipe(
                epochs=300,
                batch_size=20,
                learning_rate=1e-3,
                optimizer="adam",
                ema=0.99,
                augmentation=Augmentation(
                    affine=MODERN_IMAGES.augmentation.affine, elastic=MODERN_IMAGES.augmentation.elastic
                ),
                options=ClassificationOptions(),
            ),
        },
    )
)
def ssgan_classifier(input_shape: tuple, classes: int, *, hidden: tuple[int, ...]) -> keras.Model:
    """Images [B, H, W, C] in 0..1 to logits [B, classes].

    Args:
        hidden: units of the hidden layers.
    """
    return classifier(input_shape, classes, hidden, "ssgan_classifier")


def classifier(input_shape: tuple, classes: int, hidden: tuple[int, ...], name: str) -> keras.Model:
    """The network of that name; noise has a standard deviation of 0.3 on images, of 0.5 on hidden layers (the code)."""
    inputs = keras.Input(input_shape, name="images")
    x = layers.GaussianNoise(0.3, name="noise0")(layers.Flatten(name="flatten")(inputs))
    for number, units in enumerate(hidden, start=1):
        x = zoo_layers.WeightNormalizedDense(units, train_scale=False, name=f"dense{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        x = layers.GaussianNoise(0.5, name=f"noise{number}")(x)
    outputs = zoo_layers.WeightNormalizedDense(classes, name="output")(x)
    return keras.Model(inputs, outputs, name=name)
