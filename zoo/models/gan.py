"""Generative adversarial networks.

Command, with the time on two CPU cores; no weights are published:

    zoo train gan_mlp --data mnist   # 3 minutes

Goodfellow et al. 2014, "Generative Adversarial Nets", arXiv 1406.2661: section 3 (the losses), section 5 (networks).
"""

from __future__ import annotations

import math

from etils import epy

from zoo.recipe import Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Stage

with epy.lazy_imports():
    import keras
    from keras import layers


@register(
    ModelSpec(
        name="gan_mlp",
        task="generation",
        summary="small GAN of two multilayer perceptrons",
        year=2014,
        references=("Goodfellow et al. 2014, section 5",),
        input_shape=(28, 28, 1),
        classes=0,
        # generator 100*128+128 + 128*784+784 = 114,064; discriminator 784*128+128 + 128+1 = 100,609
        params=214_673,
        features=("generator", "discriminator"),
        preprocessing=Preprocessing(size=(28, 28)),
        arguments={"latents": 100, "width": 128},
        recipes={
            "paper": Recipe(
                epochs=50,
                batch_size=100,
                learning_rate=2e-4,
                optimizer="adam",
                optimizer_arguments={"beta_1": 0.5},
                loss="non_saturating",
                deviations=(
                    "one hidden layer of 128 units in each network, not two of 1,200 and maxout",
                    "Adam with the learning rate and momentum of Radford et al. 2016, section 4, not SGD with momentum",
                ),
            )
        },
        stages=(Stage("all", ("*",), 1e-4, 10),),
        notes=("the generator's loss is the non-saturating one of section 3: it maximizes log D(G(z))",),
    )
)
def gan_mlp(input_shape: tuple, classes: int, *, latents: int, width: int) -> keras.Model:
    """Latents [B, Z], standard normal, to the discriminator's logits [B, 1] of the generator's images.

    The sub-model `generator` maps latents [B, Z] to images [B, H, W, C] in 0..1; `discriminator` maps images to
    logits [B, 1], positive for real ones.

    Args:
        latents: Z.
        width: units of the hidden layer of each network.
    """
    noise = keras.Input((latents,), name="latents")
    x = layers.Dense(width, activation="relu", name="hidden")(noise)
    x = layers.Dense(math.prod(input_shape), activation="sigmoid", name="output")(x)
    generator = keras.Model(noise, layers.Reshape(input_shape, name="images")(x), name="generator")

    images = keras.Input(input_shape, name="images")
    x = layers.Flatten(name="flatten")(images)
    x = layers.Dense(width, name="hidden")(x)
    x = layers.LeakyReLU(0.2, name="activation")(x)
    discriminator = keras.Model(images, layers.Dense(1, name="output")(x), name="discriminator")

    noise = keras.Input((latents,), name="latents")
    return keras.Model(noise, discriminator(generator(noise)), name="gan")
