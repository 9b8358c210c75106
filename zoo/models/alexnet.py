"""AlexNet, and the network by which its authors tried local response normalization on CIFAR-10.

Command, with the time that Keras' JAX backend took on one H100 GPU and the test accuracy of the published weights:

    zoo train alexnet_small --data cifar10   # 190 seconds, 0.8232

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), with the
program cuda-convnet and its layer definitions for CIFAR-10.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from etils import epy

from zoo.recipe import Augmentation, ColorPca, FlipCrop, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers, ops

    from zoo import layers as zoo_layers

PAPER = "Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks"
CUDA_CONVNET = (
    "cuda-convnet (as in github.com/dnouri/cuda-convnet), example-layers/layers-conv-local-11pct.cfg and "
    "layer-params-conv-local-11pct.cfg"
)

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
        "160 epochs of the training split, as for the 13 % definition, not 520; the rate falls after 140 and 150",
        "kernels of convolutions decay as those of the other layers do, and do not in cuda-convnet",
        "the mean color of the training images is subtracted, not the mean image",
    ),
)


# Section 5: batches of 128, momentum 0.9, learning rate 0.01, divided by ten three times when the validation error
# stopped improving, over roughly 90 epochs. The decay of 0.0005 is added to the gradient: times 1 / (1 - 0.9) here.
IMAGENET = Recipe(
    epochs=90,
    batch_size=128,
    learning_rate=0.01,
    optimizer_arguments={"momentum": 0.9},
    schedule=Schedule("step", decay=0.1, every=25),
    weight_decay=5e-3,
    # Section 4.1: windows of 227 x 227 pixels in 256 x 256, reflections, and colors along their principal components.
    augmentation=Augmentation(flip_crop=FlipCrop(pad=14), color_pca=ColorPca()),
    deviations=(
        "the rate falls every 25 epochs, whatever the validation error",
        "the average over ten windows is not taken",
    ),
)
# Mean color of ImageNet's training images: 0.485, 0.456, 0.406 times 255.
# Section 2: the shorter side becomes 256 pixels, and the middle is cut out.
IMAGENET_COLORS = Preprocessing(
    size=(256, 256), fit="crop", crop_to=(227, 227), mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0)
)
FINE_TUNING = (Stage("head", ("output",), 1e-2, 5), Stage("all", ("*",), 1e-3, 15))


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
        reported=(ReportedScore("cifar10", "accuracy", 0.89, f"{PAPER}, section 3.3, averaged over ten views"),),
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
    x = layers.Conv2D(64, 5, padding="same", activation="relu", kernel_initializer=_normal(1e-4), name="conv1")(inputs)
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


def _normal(stddev: float) -> Any:
    return keras.initializers.RandomNormal(stddev=stddev)


def _response_normalization(name: str) -> keras.layers.Layer:
    """With cuda-convnet's constants: scale 0.001, which it divides by the 5 channels."""
    return zoo_layers.LocalResponseNormalization(k=1.0, n=5, alpha=0.001 / 5, beta=0.75, name=name)


@register(
    ModelSpec(
        name="alexnet",
        task="classification",
        summary="five convolutions, three of them in two groups, local response normalization, two layers of 4,096",
        year=2012,
        references=(PAPER,),
        input_shape=(227, 227, 3),
        classes=1000,
        # conv1 11*11*3*96 + 96; conv2 2 * (5*5*48*128 + 128); conv3 3*3*256*384 + 384; conv4 2 * (3*3*192*192 + 192);
        # conv5 2 * (3*3*192*128 + 128); hidden6 6*6*256*4096 + 4096; hidden7 4096*4096 + 4096; output 4096*1000 + 1000
        params=34_944 + 307_456 + 885_120 + 663_936 + 442_624 + 37_752_832 + 16_781_312 + 4_097_000,
        head=("output",),
        features=("pool1", "pool2", "conv3", "conv4", "pool5", "hidden6", "hidden7"),
        preprocessing=IMAGENET_COLORS,
        recipes={"paper": IMAGENET},
        reported=(ReportedScore("imagenet2012", "accuracy", 0.593, f"{PAPER}, table 2, 1 CNN: top-1 error 40.7 %"),),
        stages=FINE_TUNING,
        notes=(
            "the paper gives images of 224 x 224 pixels; its first layer of 55 x 55 needs 227 without padding",
            "the two groups are the two GPUs of the paper: layers 2, 4 and 5 see the half on their own GPU alone",
        ),
    )
)
def alexnet(input_shape: tuple, classes: int, width: int = 4096) -> keras.Model:
    """Images [B, H, W, 3], 0..255 less the mean color, to logits [B, classes].

    Args:
        width: units of the two hidden layers.
    """
    inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(96, 11, 4, activation="relu", kernel_initializer=_normal(0.01), name="conv1")(inputs)
    x = zoo_layers.LocalResponseNormalization(name="rnorm1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = _two_groups(x, 256, 5, "conv2")
    x = zoo_layers.LocalResponseNormalization(name="rnorm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = _convolution(384, 3, "conv3")(x)
    x = _two_groups(x, 384, 3, "conv4")
    x = _two_groups(x, 256, 3, "conv5")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    return _classifier(inputs, x, width, classes, "alexnet")


@register(
    ModelSpec(
        name="alexnet_one_tower",
        task="classification",
        summary="five convolutions without groups, local response normalization, two layers of 4,096",
        year=2014,
        references=(
            "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997",
            "cuda-convnet2, layers/layers-223-1gpu.cfg",
        ),
        input_shape=(224, 224, 3),
        classes=1000,
        # conv1 11*11*3*64 + 64; conv2 5*5*64*192 + 192; conv3 3*3*192*384 + 384; conv4 3*3*384*256 + 256;
        # conv5 3*3*256*256 + 256; hidden6 6*6*256*4096 + 4096; hidden7 4096*4096 + 4096; output 4096*1000 + 1000
        params=23_296 + 307_392 + 663_936 + 884_992 + 590_080 + 37_752_832 + 16_781_312 + 4_097_000,
        head=("output",),
        features=("pool1", "pool2", "conv3", "conv4", "pool5", "hidden6", "hidden7"),
        preprocessing=replace(IMAGENET_COLORS, crop_to=(224, 224)),
        recipes={"paper": replace(IMAGENET, augmentation=Augmentation(flip_crop=FlipCrop(pad=16)))},
        stages=FINE_TUNING,
        notes=(
            "images of 224 x 224 pixels, padded by 2, so that the first layer has 55 x 55 outputs; the definition has "
            "images of 223 x 223 pixels without padding, and 54 x 54 outputs",
        ),
    )
)
def alexnet_one_tower(input_shape: tuple, classes: int, width: int = 4096) -> keras.Model:
    """Images [B, H, W, 3], 0..255 less the mean color, to logits [B, classes].

    Args:
        width: units of the two hidden layers.
    """
    inputs = keras.Input(input_shape, name="images")
    x = layers.ZeroPadding2D(2, name="padding1")(inputs)
    x = layers.Conv2D(64, 11, 4, kernel_initializer=_normal(0.01), name="conv1")(x)
    x = zoo_layers.LocalResponseNormalization(name="rnorm1")(x)
    x = layers.Activation("relu", name="pool1")(layers.MaxPooling2D(3, 2, name="pool1_sums")(x))
    x = _convolution(192, 5, "conv2", bias=1.0)(x)
    x = zoo_layers.LocalResponseNormalization(name="rnorm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = _convolution(384, 3, "conv3", stddev=0.03)(x)
    x = _convolution(256, 3, "conv4", bias=1.0, stddev=0.03)(x)
    x = _convolution(256, 3, "conv5", bias=1.0, stddev=0.03)(x)
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    return _classifier(inputs, x, width, classes, "alexnet_one_tower", bias=-7.0)


def _convolution(filters: int, size: int, name: str, bias: float = 0.0, stddev: float = 0.01) -> keras.layers.Layer:
    """Section 5: weights from N(0, 0.01^2), biases of 1 in layers 2, 4 and 5 and in the hidden layers."""
    return layers.Conv2D(
        filters,
        size,
        padding="same",
        activation="relu",
        kernel_initializer=_normal(stddev),
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
    )


def _two_groups(x: Any, filters: int, size: int, name: str) -> Any:
    """Two halves of the channels, each convolved by itself: faster to train here than a grouped convolution, and valid
    in every export."""
    halves = zip(ops.split(x, 2, axis=-1), "ab", strict=True)
    parts = [_convolution(filters // 2, size, name + end, bias=1.0)(half) for half, end in halves]
    return layers.Concatenate(name=name)(parts)


def _classifier(inputs: Any, x: Any, width: int, classes: int, name: str, bias: float = 0.0) -> keras.Model:
    """Two hidden layers with dropout, and the output, whose biases begin at `bias`."""
    ones = keras.initializers.Constant(1.0)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        dense = layers.Dense(
            width, activation="relu", kernel_initializer=_normal(0.01), bias_initializer=ones, name=f"hidden{number}"
        )
        x = layers.Dropout(0.5, name=f"dropout{number}")(dense(x))
    first = keras.initializers.Constant(bias)
    outputs = layers.Dense(classes, kernel_initializer=_normal(0.01), bias_initializer=first, name="output")(x)
    return keras.Model(inputs, outputs, name=name)
