"""Generative adversarial networks of convolutions: DCGAN, a small one, and one that is given the class.

Commands, with the Fréchet distance of the published weights on test, and the time on one CPU core, or of the second one
on one H100 GPU by Keras' JAX backend:

    zoo train dcgan_small --data mnist                 # 61 minutes, 0.1342
    zoo train dcgan_conditional --data mnist           # 44 seconds, 0.0098
    zoo train dcgan --data cats_dogs --recipe small    # 13 minutes, 0.2523

Radford, Metz and Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional GANs", arXiv 1511.06434.
Mirza and Osindero 2014, "Conditional Generative Adversarial Nets", arXiv 1411.1784.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epy

from zoo.errors import ZooError
from zoo.models.gan import joined
from zoo.options import GenerationOptions
from zoo.recipe import Augmentation, FlipCrop, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

RADFORD = "Radford et al. 2016"
CENTERED = Preprocessing(size=(28, 28), low=-1.0, high=1.0)  # the generator's tanh

# Section 4: batches of 128, Adam at 0.0002 with a momentum of 0.5.
PAPER = Recipe(
    epochs=25,
    batch_size=128,
    learning_rate=2e-4,
    optimizer="adam",
    optimizer_arguments={"beta_1": 0.5},
    loss="non_saturating",
    deviations=("latents are standard normal, not uniform", "initial weights are Keras' default"),
)
NOT_THE_PAPERS = "the recipe's rates, schedule and average are not the paper's"
SMALL = dataclasses.replace(
    PAPER,
    epochs=20,
    learning_rate=1e-3,  # of the generator, and 2e-4 of the discriminator, as for InfoGAN
    schedule=Schedule("table", table=((0, 1.0), (12, 0.5), (16, 0.25))),
    ema=0.999,
    options=GenerationOptions(discriminator_rate=0.2),
)
CONDITIONAL = dataclasses.replace(
    PAPER,
    learning_rate=5e-4,
    schedule=Schedule("table", table=((0, 1.0), (16, 0.5), (21, 0.25))),
    ema=0.999,
    options=GenerationOptions(r1=0.1),
)
# An eighth of the paper's maps, and what keeps the discriminator from learning a thousand photographs by heart.
FEW_PHOTOGRAPHS = dataclasses.replace(
    PAPER,
    epochs=400,
    batch_size=32,
    ema=0.999,
    precision="mixed_bfloat16",
    augmentation=Augmentation(flip_crop=FlipCrop(pad=0)),
    arguments={"widths": [128, 64, 32, 16]},
    options=GenerationOptions(real_target=0.9, discriminator_rate=0.5),
    deviations=(
        *PAPER.deviations,
        "128 to 16 maps, not 1,024 to 128",
        "batches of 32, not 128",
        "one-sided label smoothing, half the learning rate for the discriminator, reflected images",
        "the samples are of a moving average of the generator",
        "mixed_bfloat16",
    ),
)

DCGAN_SMALL = ModelSpec(
    name="dcgan_small",
    task="generation",
    summary="a small DCGAN for images of 28 x 28",
    year=2016,
    references=(
        f"{RADFORD}, section 3: the kind of architecture",
        "Chen et al. 2016, appendix C.1: a dense layer between the convolutions and the ends",
    ),
    input_shape=(28, 28, 1),
    classes=0,
    # generator 100*176 + 2*176 + 176*4704 + 2*96 + 16*96*48 + 2*48 + 16*48+1 = 920,641
    # discriminator 16*48+48 + 16*48*96 + 2*96 + 4704*176 + 2*176 + 176+1 = 903,169
    params=1_823_810,
    features=("generator", "discriminator"),
    preprocessing=CENTERED,
    arguments={"latents": 100, "widths": (96, 48), "kernel": 4, "normalized": True, "dense": 176},
    recipes={"stable": SMALL},
    stages=(Stage("all", ("*",), 1e-4, 10),),
    notes=(NOT_THE_PAPERS,),
)


def deconvolved(
    input_shape: tuple,
    latents: int,
    labels: int,
    widths: tuple[int, ...],
    kernel: int,
    *,
    dense: int = 0,
    first: int = 0,
) -> keras.Model:
    """A generator (Radford et al. 2016, section 3): a dense layer, then transposed convolutions of stride 2, each after
    the first with batch normalization and ReLU; tanh at the end.

    Args:
        labels: width of a second input of one-hot labels; 0 for none.
        widths: channels of the feature maps that each transposed convolution takes.
        dense: units of a dense layer before these; 0 for none.
        first: how many latents are made uniform.

    Raises:
        ZooError: for images whose sides the strides do not divide.
    """
    height, width, channels = input_shape
    stride = 2 ** len(widths)
    if height % stride or width % stride:
        raise ZooError(f"{len(widths)} doublings make images whose sides {stride} divides, not {height} x {width}")
    inputs = [keras.Input((latents,), name="latents")]
    x = zoo_layers.ToUniform(first, name="codes")(inputs[0]) if first else inputs[0]
    units = dense or height * width // stride**2 * widths[0]
    x = layers.Dense(units, use_bias=False, name="dense")(x)
    if labels:
        inputs.append(keras.Input((labels,), name="labels"))
        x = layers.Add(name="labeled")([x, layers.Dense(units, use_bias=False, name="class_dense")(inputs[1])])
    if dense:
        x = layers.ReLU(name="dense_relu")(layers.BatchNormalization(name="dense_norm")(x))
        x = layers.Dense(height * width // stride**2 * widths[0], use_bias=False, name="dense2")(x)
    x = layers.Reshape((height // stride, width // stride, widths[0]), name="maps")(x)
    x = layers.ReLU(name="maps_relu")(layers.BatchNormalization(name="maps_norm")(x))
    for number, maps in enumerate(widths[1:], start=1):
        name = f"deconv{number}"
        x = layers.Conv2DTranspose(maps, kernel, strides=2, padding="same", use_bias=False, name=name)(x)
        x = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_norm")(x))
    x = layers.Conv2DTranspose(channels, kernel, strides=2, padding="same", name="pixels")(x)
    return keras.Model(inputs, layers.Activation("tanh", dtype="float32", name="images")(x), name="generator")


def convolved(
    images: Any, widths: tuple[int, ...], kernel: int, *, spectral: bool = False, normalized: bool = False
) -> Any:
    """The feature maps of a discriminator: convolutions of stride 2 with leaky ReLU.

    Args:
        spectral: whether each kernel is divided by its largest singular value.
        normalized: whether each layer but the first has batch normalization.
    """
    x = images
    for number, maps in enumerate(widths, start=1):
        name = f"conv{number}"
        with_bias = not (normalized and number > 1)
        layer = layers.Conv2D(maps, kernel, strides=2, padding="same", use_bias=with_bias, name=name)
        x = layers.SpectralNormalization(layer, name=f"{name}_spectral")(x) if spectral else layer(x)
        if normalized and number > 1:
            x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.LeakyReLU(0.2, name=f"{name}_relu")(x)
    return layers.Flatten(name="flatten")(x)


def densely(features: Any, units: int, *, spectral: bool = False) -> Any:
    """A dense layer of a discriminator, with batch normalization and leaky ReLU (Chen et al. 2016, appendix C.1)."""
    layer = layers.Dense(units, use_bias=False, name="dense")
    x = layers.SpectralNormalization(layer, name="dense_spectral")(features) if spectral else layer(features)
    return layers.LeakyReLU(0.2, name="dense_relu")(layers.BatchNormalization(name="dense_norm")(x))


@register(
    DCGAN_SMALL,
    dataclasses.replace(
        DCGAN_SMALL,
        name="dcgan",
        summary="DCGAN as published, for color images of 64 x 64",
        references=(f"{RADFORD}, figure 1 and section 4", "its code, for the discriminator"),
        input_shape=(64, 64, 3),
        # generator 100*16384 + 25*(1024*512 + 512*256 + 256*128 + 128*3) + 3 + 2*(1024+512+256+128) = 18,855,043
        # discriminator 25*3*128+128 + 25*(128*256 + 256*512 + 512*1024) + 2*(256+512+1024) + 16384+1 = 17,232,897
        params=36_087_940,
        preprocessing=Preprocessing(size=(64, 64), low=-1.0, high=1.0),
        arguments={"latents": 100, "widths": (1024, 512, 256, 128), "kernel": 5, "normalized": True},
        recipes={"paper": PAPER, "small": FEW_PHOTOGRAPHS},
        notes=("the paper does not draw the discriminator: it mirrors the generator here",),
    ),
)
def dcgan(
    input_shape: tuple,
    classes: int,
    *,
    latents: int,
    widths: tuple[int, ...],
    kernel: int,
    dense: int = 0,
    spectral: bool = False,
    normalized: bool = False,
) -> keras.Model:
    """Latents [B, Z], standard normal, to the discriminator's logits [B, 1] of the generator's images.

    The sub-model `generator` maps latents [B, Z] to images [B, H, W, C] in -1..1; `discriminator` maps images to
    logits [B, 1], positive for real ones.

    Args:
        latents: Z.
        widths: channels of the generator's feature maps, from the first; the discriminator has the reverse.
        kernel: height and width of all kernels.
        dense: units of the dense layer that the generator begins with and the discriminator ends with; 0 for none.
        spectral: whether the discriminator has spectral normalization.
        normalized: whether it has batch normalization.
    """
    generator = deconvolved(input_shape, latents, 0, widths, kernel, dense=dense)
    images = keras.Input(input_shape, name="images")
    x = convolved(images, widths[::-1], kernel, spectral=spectral, normalized=normalized)
    x = densely(x, dense, spectral=spectral) if dense else x
    discriminator = keras.Model(images, scored(x, spectral), name="discriminator")
    return joined(generator, discriminator, "dcgan")


def scored(features: Any, spectral: bool) -> Any:
    """Logits [B, 1] of features [B, F]."""
    layer = layers.Dense(1, name="output")
    return layers.SpectralNormalization(layer, name="output_spectral")(features) if spectral else layer(features)


@register(
    dataclasses.replace(
        DCGAN_SMALL,
        name="dcgan_conditional",
        summary="a small DCGAN that is given the class",
        references=(
            "Mirza and Osindero 2014: labels for both networks",
            "Miyato and Koyama 2018, section 3: the discriminator's projection",
            f"{RADFORD}, section 3: the kind of architecture",
        ),
        year=2018,
        classes=10,
        # generator (100+10)*6272 + 2*128 + 16*128*64 + 2*64 + 16*64+1 = 822,401
        # discriminator 16*64+64 + 16*64*128 + 128 + 6272+1 + 10*6272 = 201,281
        params=1_023_682,
        head=("class_dense", "class_features"),
        arguments={"latents": 100, "widths": (128, 64), "kernel": 4, "spectral": False},
        recipes={"stable": CONDITIONAL},
        stages=(Stage("classes", ("class_*",), 1e-4, 5), Stage("all", ("*",), 1e-4, 10)),
        notes=(
            NOT_THE_PAPERS,
            "the discriminator has no batch normalization, which does not go together with the R1 penalty",
            "fine-tuning initializes the weights of the classes anew in both networks",
        ),
    )
)
def dcgan_conditional(
    input_shape: tuple, classes: int, *, latents: int, widths: tuple[int, ...], kernel: int, spectral: bool
) -> keras.Model:
    """Latents [B, Z], standard normal, and one-hot labels [B, classes] to the logits [B, 1] of the images.

    The sub-model `generator` maps both to images [B, H, W, C] in -1..1; `discriminator` maps images and labels to
    logits: a linear function of its features, plus their product with a vector of the class.

    Args:
        latents, widths, kernel, spectral: as for `dcgan`.
    """
    generator = deconvolved(input_shape, latents, classes, widths, kernel)
    images, labels = keras.Input(input_shape, name="images"), keras.Input((classes,), name="labels")
    x = convolved(images, widths[::-1], kernel, spectral=spectral)
    of_class = layers.Dense(x.shape[-1], use_bias=False, name="class_features")(labels)
    logits = layers.Add(name="logits")([scored(x, spectral), layers.Dot(1, name="projection")([x, of_class])])
    return joined(generator, keras.Model([images, labels], logits, name="discriminator"), "dcgan_conditional")
