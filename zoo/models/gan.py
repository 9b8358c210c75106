"""The first generative adversarial network, of multilayer perceptrons.

    zoo info gan_mlp

Goodfellow et al. 2014, "Generative Adversarial Nets", arXiv 1406.2661.
"""

from __future__ import annotations

import math
from typing import Any

from etils import epy

from zoo.recipe import Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Stage

with epy.lazy_imports():
    import keras
    from keras import layers


GOODFELLOW = "Goodfellow et al. 2014"


@register(
    ModelSpec(
        name="gan_mlp",
        task="generation",
        summary="the first GAN, of two multilayer perceptrons",
        year=2014,
        references=(f"{GOODFELLOW}, section 5", "its code for MNIST: github.com/goodfeli/adversarial, mnist.yaml"),
        input_shape=(28, 28, 1),
        classes=0,
        # generator 100*1200+1200 + 1200*1200+1200 + 1200*784+784 = 2,503,984
        # discriminator 784*1200+1200 + 240*1200+1200 + 240+1 = 1,231,441
        params=3_735_425,
        features=("generator", "discriminator"),
        preprocessing=Preprocessing(size=(28, 28)),
        arguments={"latents": 100, "width": 1_200, "maxout": 240, "pieces": 5},
        recipes={
            "paper": Recipe(
                epochs=100,
                batch_size=100,
                learning_rate=2e-4,
                optimizer="adam",
                optimizer_arguments={"beta_1": 0.5},
                loss="non_saturating",
                ema=0.999,
                deviations=(
                    "Adam with the learning rate and momentum of Radford et al. 2016, section 4, not SGD with momentum",
                    "no limit on the norm of a unit's weights",
                    "the samples are of a moving average of the generator",
                ),
            )
        },
        stages=(Stage("all", ("*",), 1e-4, 10),),
        notes=("the generator's loss is the non-saturating one of section 3: it maximizes log D(G(z))",),
    )
)
def gan_mlp(input_shape: tuple, classes: int, *, latents: int, width: int, maxout: int, pieces: int) -> keras.Model:
    """Latents [B, Z], standard normal, to the discriminator's logits [B, 1] of the generator's images.

    The sub-model `generator` maps latents [B, Z] to images [B, H, W, C] in 0..1; `discriminator` maps images to
    logits [B, 1], positive for real ones.

    Args:
        latents: Z.
        width: units of each of the generator's two hidden layers.
        maxout: units of each of the discriminator's two hidden layers.
        pieces: linear functions of which a maxout unit is the maximum.
    """
    noise = keras.Input((latents,), name="latents")
    x = layers.Dense(width, activation="relu", name="hidden1")(noise)
    x = layers.Dense(width, activation="relu", name="hidden2")(x)
    x = layers.Dense(math.prod(input_shape), activation="sigmoid", name="pixels")(x)
    generator = keras.Model(noise, layers.Reshape(input_shape, name="images")(x), name="generator")

    images = keras.Input(input_shape, name="images")
    x = layers.Flatten(name="flatten")(images)
    x = layers.Dropout(0.2, name="drop1")(x)  # the code keeps 0.8 of the input and 0.5 of the units
    x = _maxout(x, maxout, pieces, 1)
    x = layers.Dropout(0.5, name="drop2")(x)
    x = _maxout(x, maxout, pieces, 2)
    x = layers.Dropout(0.5, name="drop3")(x)
    discriminator = keras.Model(images, layers.Dense(1, name="output")(x), name="discriminator")
    return joined(generator, discriminator, "gan_mlp")


def _maxout(x: Any, units: int, pieces: int, number: int) -> Any:
    """Each unit is the maximum of so many linear functions (Goodfellow et al. 2013, section 2)."""
    x = layers.Dense(units * pieces, name=f"hidden{number}")(x)
    x = layers.Reshape((units, pieces), name=f"pieces{number}")(x)
    return layers.GlobalMaxPooling1D(data_format="channels_first", name=f"maxout{number}")(x)


def joined(generator: keras.Model, discriminator: keras.Model, name: str) -> keras.Model:
    """The discriminator on the generator's images: one model with both as sub-models."""
    inputs = [keras.Input(one.shape[1:], name=one.name) for one in generator.inputs]
    images = generator(inputs if len(inputs) > 1 else inputs[0])
    labels = inputs[1:] if len(discriminator.inputs) > 1 else []
    return keras.Model(inputs, discriminator([images, *labels] if labels else images), name=name)
