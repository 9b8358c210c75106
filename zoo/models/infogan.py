"""InfoGAN: a generative adversarial network that finds categories and continuous codes by itself.

    zoo train infogan --data mnist --recipe small    # 25 minutes, 0.0863

The Fréchet distance of the published weights on test, and the time on one CPU core, in part on two.
Chen et al. 2016, "InfoGAN", arXiv 1606.03657.
"""

from __future__ import annotations

import dataclasses

from etils import epy

from zoo.models.dcgan import CENTERED, PAPER, convolved, deconvolved, densely
from zoo.models.gan import joined
from zoo.options import GenerationOptions
from zoo.registry import register
from zoo.spec import ModelSpec, Stage

with epy.lazy_imports():
    import keras
    from keras import layers


CHEN = "Chen et al. 2016"
RECIPE = dataclasses.replace(
    PAPER,
    epochs=40,
    learning_rate=1e-3,  # of the generator, and 2e-4 of the discriminator: appendix C
    ema=0.999,
    options=GenerationOptions(discriminator_rate=0.2),
    deviations=(
        "62 of the 64 latents are normal, as in the paper's 62 noise variables; its values are uniform too",
        "the discriminator's optimizer, too, follows the information loss",
        "the samples are of a moving average of the generator",
        "leaky ReLU with a slope of 0.2, not 0.1",
    ),
)


@register(
    ModelSpec(
        name="infogan",
        task="generation",
        summary="InfoGAN: codes that the images reveal again, one of ten categories and two values",
        year=2016,
        references=(f"{CHEN}, section 7.2 and appendix C.1",),
        input_shape=(28, 28, 1),
        classes=0,
        # generator (64+10)*1024 + 2*1024 + 1024*6272 + 2*128 + 16*128*64 + 2*64 + 16*64+1 = 6,632,833
        # discriminator 16*64+64 + 16*64*128 + 2*128 + 6272*1024 + 2*1024 + 1024*128 + 2*128 + 1024+1 + 128*12+12
        # = 6,690,893
        params=13_323_726,
        features=("generator", "discriminator"),
        preprocessing=CENTERED,
        arguments={"latents": 64, "categories": 10, "values": 2, "widths": (128, 64), "kernel": 4, "dense": 1024},
        recipes={
            "paper": RECIPE,
            "small": dataclasses.replace(
                RECIPE,
                arguments={"dense": 256},
                precision="mixed_bfloat16",
                options=GenerationOptions(discriminator_rate=0.2, information_continuous=1.0),
                deviations=(
                    *RECIPE.deviations,
                    "256 units in the dense layers, not 1,024",
                    "weight 1 of the information of the continuous codes, not 0.1: else categories differ by slant",
                    "mixed_bfloat16",
                ),
            ),
        },
        stages=(Stage("all", ("*",), 1e-4, 10),),
        notes=("labels are the categorical code, whose meaning the network finds itself",),
    )
)
def infogan(
    input_shape: tuple,
    classes: int,
    *,
    latents: int,
    categories: int,
    values: int,
    widths: tuple[int, ...],
    kernel: int,
    dense: int,
) -> keras.Model:
    """Latents [B, Z], standard normal, and one-hot codes [B, categories] to the discriminator's outputs.

    The sub-model `generator` maps both to images [B, H, W, C] in -1..1; `discriminator` maps images to logits [B, 1],
    logits of the code [B, categories] and values [B, values] within -1..1 of the first latents made uniform.

    Args:
        latents: Z.
        categories: values of the categorical code.
        values: how many of the latents are codes.
        widths, kernel: as for `dcgan`.
        dense: units of a dense layer in each network.
    """
    generator = deconvolved(input_shape, latents, categories, widths, kernel, dense=dense, first=values)
    images = keras.Input(input_shape, name="images")
    x = densely(convolved(images, widths[::-1], kernel, normalized=True), dense)
    q = layers.BatchNormalization(name="code_norm")(layers.Dense(128, use_bias=False, name="code_dense")(x))
    q = layers.LeakyReLU(0.2, name="code_relu")(q)
    outputs = [
        layers.Dense(1, name="output")(x),
        layers.Dense(categories, name="category")(q),
        layers.Dense(values, name="values")(q),
    ]
    return joined(generator, keras.Model(images, outputs, name="discriminator"), "infogan")
