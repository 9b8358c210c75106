"""GoogLeNet: 22 layers of Inception modules, with two auxiliary classifiers that exist in training only.

    zoo info googlenet

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich, "Going Deeper with Convolutions" (2015).
There are no published weights: training as the paper did needs ImageNet.
"""

from __future__ import annotations

from typing import Any

from etils import epy

from zoo.options import ClassificationOptions
from zoo.recipe import Augmentation, FlipCrop, Recipe, ResizedCrop, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

PAPER = "Szegedy et al. 2015, Going Deeper with Convolutions, arXiv 1409.4842"

# Table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection. With the parameters of each module from c channels:
# c*n1 + n1 + c*r3 + r3 + 9*r3*n3 + n3 + c*r5 + r5 + 25*r5*n5 + n5 + c*p + p.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),  # 163,696
    "3b": (128, 128, 192, 32, 96, 64),  # 388,736
    "4a": (192, 96, 208, 16, 48, 64),  # 376,176
    "4b": (160, 112, 224, 24, 64, 64),  # 449,160
    "4c": (128, 128, 256, 24, 64, 64),  # 510,104
    "4d": (112, 144, 288, 32, 64, 64),  # 605,376
    "4e": (256, 160, 320, 32, 128, 128),  # 868,352
    "5a": (256, 160, 320, 32, 128, 128),  # 1,043,456
    "5b": (384, 192, 384, 48, 128, 128),  # 1,444,080
}
POOLED_BEFORE = ("4a", "5a")
AUXILIARY = {"4a": "auxiliary1", "4d": "auxiliary2"}  # modules whose outputs they see (section 5)


@register(
    ModelSpec(
        name="googlenet",
        task="classification",
        summary="nine Inception modules, average pooling, softmax; two auxiliary classifiers in training",
        year=2015,
        references=(PAPER,),
        input_shape=(224, 224, 3),
        classes=1000,
        # conv1 7*7*3*64 + 64; conv2_reduce 64*64 + 64; conv2 3*3*64*192 + 192; the modules above; output
        # 1024*1000 + 1000; the auxiliary ones: 1x1 to 128 from 512 and 528 channels, 4*4*128*1024 + 1024,
        # 1024*1000 + 1000
        params=9_472 + 4_160 + 110_784 + 5_849_136 + 1_025_000 + (65_664 + 67_712) + 2 * (2_098_176 + 1_025_000),
        head=("output", "auxiliary*_output"),
        features=("pool2", "inception3b", "inception4a", "inception4d", "inception4e", "inception5b", "average"),
        preprocessing=Preprocessing(
            size=(256, 256), fit="crop", crop_to=(224, 224), mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0)
        ),
        # Section 6: momentum 0.9, the rate falls by 4 % every 8 epochs; section 5: the loss of each auxiliary
        # classifier counts 0.3.
        recipes={
            "paper": Recipe(
                epochs=250,
                batch_size=128,
                learning_rate=0.01,
                optimizer_arguments={"momentum": 0.9},
                schedule=Schedule("step", decay=0.96, every=8),
                ema=0.9999,
                # section 6: from 8 to 100 % of the area, sides of 3 to 4 up to 4 to 3
                augmentation=Augmentation(flip_crop=FlipCrop(pad=0), resized_crop=ResizedCrop()),
                options=ClassificationOptions(loss_weights=(1.0, 0.3, 0.3)),
                deviations=(
                    "the paper states neither the learning rate, the size of batches nor the number of epochs",
                    "synchronous steps on one machine, not asynchronous ones on several",
                    "parts of the middle square of an image, whose colors are not varied",
                    "the average over 144 windows of seven networks is not taken",
                ),
            )
        },
        reported=(
            ReportedScore("imagenet2014", "top5_accuracy", 0.8993, f"{PAPER}, table 3: 1 model, 1 crop, error 10.07 %"),
        ),
        stages=(Stage("head", ("output", "auxiliary*"), 1e-2, 5), Stage("all", ("*",), 1e-3, 15)),
        notes=(
            "13,378,280 parameters in training, 6,998,552 of them are served",
            "the paper gives no constants of local response normalization: those of AlexNet",
        ),
    )
)
def googlenet(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, H, W, 3], 0..255 less the mean color, to logits [B, classes] of the last and of the two auxiliary
    classifiers."""
    inputs = keras.Input(input_shape, name="images")
    x = _convolution(64, 7, "conv1", strides=2)(inputs)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = zoo_layers.LocalResponseNormalization(name="rnorm1")(x)
    x = _convolution(64, 1, "conv2_reduce")(x)
    x = _convolution(192, 3, "conv2")(x)
    x = zoo_layers.LocalResponseNormalization(name="rnorm2")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool2")(x)
    auxiliary = []
    for module, filters in MODULES.items():
        if module in POOLED_BEFORE:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{module}")(x)
        x = _inception(x, filters, f"inception{module}")
        if module in AUXILIARY:
            auxiliary.append(_auxiliary(x, classes, AUXILIARY[module]))
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dropout(0.4, name="dropout")(x)
    return keras.Model(inputs, [layers.Dense(classes, name="output")(x), *auxiliary], name="googlenet")


def _inception(x: Any, filters: tuple[int, ...], name: str) -> Any:
    """Figure 2(b)."""
    n1, r3, n3, r5, n5, projected = filters
    branches = [
        _convolution(n1, 1, f"{name}_1x1")(x),
        _convolution(n3, 3, f"{name}_3x3")(_convolution(r3, 1, f"{name}_3x3_reduce")(x)),
        _convolution(n5, 5, f"{name}_5x5")(_convolution(r5, 1, f"{name}_5x5_reduce")(x)),
        _convolution(projected, 1, f"{name}_projection")(
            layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
        ),
    ]
    return layers.Concatenate(name=name)(branches)


def _auxiliary(x: Any, classes: int, name: str) -> Any:
    """Section 5: average pooling 5 x 5 / 3, 128 filters of 1 x 1, 1,024 units, 70 % dropout."""
    x = layers.AveragePooling2D(5, 3, name=f"{name}_average")(x)
    x = _convolution(128, 1, f"{name}_conv")(x)
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(1024, activation="relu", name=f"{name}_hidden")(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return layers.Dense(classes, name=f"{name}_output")(x)


def _convolution(filters: int, size: int, name: str, strides: int = 1) -> keras.layers.Layer:
    return layers.Conv2D(filters, size, strides, padding="same", activation="relu", name=name)
