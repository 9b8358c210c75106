"""AlexNet, and the network by which its authors tried local response normalization on CIFAR-10.

    zoo train alexnet_small --data cifar10

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), with the
program cuda-convnet and its layer definitions for CIFAR-10.
"""

from __future__ import annotations

from typing import Any

from etils import epy

from zoo.recipe import Augmentation, FlipCrop, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

PAPER = "Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks"
CUDA_CONVNET = "cuda-convnet, example-layers/layers-conv-local-11pct.cfg and layer-params-conv-local-11pct.cfg"

# cuda-convnet: learning rate 0.001, twice that for biases, momentum 0.9, batches of 128; 500 epochs, then ten at a
# tenth and ten at a hundredth of the rate. Its decay of 0.004 is added to the gradient, which momentum multiplies by
# 1 / (1 - 0.9); here it is subtracted apart from the momentum.
CIFAR10 = Recipe(
    epochs=160,
    batch_size=128,
    learning_rate=1e-3,
    optimizer_arguments={"momentum": 0.9},
    schedule=Schedule("table", table=((0, 1.0), (140, 0.1), (150, 0.01))),
    weight_decay=0.04,
    rate_factors={"bias": 2.0},
    augmentation=Augmentation(flip_crop=FlipCrop(pad=4)),  # windows of 24 x 24 pixels anywhere in 32 x 32
    deviations=(
        "160 epochs of the training split, as for the 13 % definition, not 520; the rate falls after 140 and 150 of them",
        "kernels of convolutions decay as those of the other layers do, and do not in cuda-convnet",
        "the mean color of the training images is subtracted, not the mean image",
    ),
)


@register(
    ModelSpec(
        name="alexnet_small",
        task="classification",
        summary="two convolutions with local response normalization and overlapping pooling, two local layers, softmax",
        year=2012,
        references=(f"{PAPER}, section 3.3", CUDA_CONVNET),
        input_shape=(24, 24, 3),
        classes=10,
        # conv1 5*5*3*64 + 64; conv2 5*5*64*64 + 64; local3 6*6*(3*3*64*32 + 32); local4 6*6*(3*3*32*32 + 32);
        # output 6*6*32*10 + 10
        params=4_864 + 102_464 + 664_704 + 332_928 + 11_530,
        head=("output",),
        features=("pool1", "pool2", "local3", "local4"),
        preprocessing=Preprocessing(
            size=(32, 32), crop_to=(24, 24), mean=(125.307, 122.961, 113.8575), std=(1.0, 1.0, 1.0)
        ),
        recipes={"paper": CIFAR10},
        reported=(
            ReportedScore("cifar10", "accuracy", 0.89, f"{PAPER}, section 3.3, averaged over ten views"),
        ),
        stages=(Stage("head", ("output",), 1e-3, 5), Stage("all", ("*",), 1e-4, 15)),
        notes=(
            "the paper reports 13 % of test errors without normalization and 11 % with it, by 160 and 520 epochs of "
            "cuda-convnet's two definitions",
        ),
    )
)
def alexnet_small(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, H, W, C], 0..255 less the mean color, to logits [B, classes]."""
    inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(
        64, 5, padding="same", activation="relu", kernel_initializer=_normal(1e-4), name="conv1"
    )(inputs)
    x = _response_normalization("rnorm1")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = layers.Conv2D(64, 5, padding="same", activation="relu", kernel_initializer=_normal(0.01), name="conv2")(x)
    x = _response_normalization("rnorm2")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool2")(x)
    for number in (3, 4):
        x = zoo_layers.LocallyConnected2D(32, 3, kernel_initializer=_normal(0.04), name=f"local{number}_sums")(x)
        x = layers.Activation("relu", name=f"local{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    outputs = layers.Dense(classes, kernel_initializer=_normal(0.01), name="output")(x)
    return keras.Model(inputs, outputs, name="alexnet_small")


def _normal(deviation: float) -> Any:
    return keras.initializers.RandomNormal(stddev=deviation)


def _response_normalization(name: str) -> keras.layers.Layer:
    """With cuda-convnet's constants: scale 0.001, which it divides by the 5 channels."""
    return zoo_layers.LocalResponseNormalization(k=1.0, n=5, alpha=0.001 / 5, beta=0.75, name=name)
