"""LeNet-5, as its paper describes it and as it is built today.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the
IEEE 86(11): section II.B and figure 2 (the network), table I (connections), section III (MNIST), appendix A (start).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from etils import epy

from zoo.recipe import MODERN_PICTURES, Affine, Augmentation, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Published, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

PAPER = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition"

# Table I: for each map of C3 the maps of S2 that it sees; 60 connections.
TABLE = (
    *[(first, (first + 1) % 6, (first + 2) % 6) for first in range(6)],
    *[(first, (first + 1) % 6, (first + 2) % 6, (first + 3) % 6) for first in range(6)],
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

# The target codes of F6: stylised characters of 12 rows and 7 columns after the manner of figure 3, +1 for ink, -1 for
# ground; the first and the last row are ground alone and left out here.
BITMAPS = """
..###.. ...##.. .#####. .#####. ##...## ####### ...###. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ##...## ##..... ..##... ##...## ##...## ##...##
##...## .####.. .....## .....## ##...## ##..... .##.... .....## ##...## ##...##
##...## ...##.. .....## .....## ##...## ##..... ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. ##...## ######. ######. ....##. ..###.. .######
##...## ...##.. ...##.. .....## .###### .....## ##...## ...##.. .##.##. .....##
##...## ...##.. ..##... .....## .....## .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## .....## .....## ##...## ..##... ##...## ....##.
.##.##. ...##.. ##..... ##...## .....## ##...## ##...## ..##... ##...## ...##..
..###.. .###### ####### .#####. .....## .#####. .#####. ..##... .#####. .###...
"""

# Section III.A: passes over the data and the global rates 5e-4 (2), 2e-4 (3), 1e-4 (3), 5e-5 (4), 1e-5 (8),
# here as factors on the rate of another optimizer.
PAPER_RECIPE = Recipe(
    epochs=20,
    batch_size=16,
    learning_rate=1e-3,
    optimizer="adam",
    schedule=Schedule("table", table=((0, 1.0), (2, 0.4), (5, 0.2), (8, 0.1), (12, 0.02))),
    loss="rbf_map",
    targets={"mnist": 0.985},
    deviations=(
        "Adam on batches of 16 in place of the stochastic diagonal Levenberg-Marquardt method on single images; the "
        "passes and the steps of the rate are the paper's",
        "50,000 training images and 10,000 for validation; the paper trains on all 60,000",
        "the table of rates is told of the paper, not checked against its text",
    ),
)
DISTORTED = replace(
    PAPER_RECIPE,
    epochs=40,
    schedule=Schedule("cosine"),
    augmentation=Augmentation(affine=Affine(translation=0.07, scale=0.15, skew=15.0)),
    deviations=(
        *PAPER_RECIPE.deviations,
        "40 passes with a cosine schedule in place of 20 with steps",
        "distortions drawn anew in each pass in place of 540,000 images distorted once; the paper names their kinds "
        "(translation, scaling, squeezing, shearing) but not their extent",
    ),
)
MODERN = replace(MODERN_PICTURES, targets={"mnist": 0.988})


def bitmap_codes() -> list[list[float]]:
    """The codes [10, 84] of the ten digits, each 12 rows x 7 columns, flattened row by row."""
    rows = [row.split() for row in BITMAPS.strip().splitlines()]
    digits = [" " * 7 + "".join(digit) + " " * 7 for digit in zip(*rows, strict=True)]
    return [[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits]


def random_codes(classes: int) -> list[list[float]]:
    """Codes [classes, 84] of +-1 with equal probability, the same in every run: the other choice that section II.B
    names, for classes that are not digits."""
    draw = random.Random(1998)
    return [[draw.choice((-1.0, 1.0)) for _ in range(84)] for _ in range(classes)]


@register(
    ModelSpec(
        name="lenet5",
        task="classification",
        summary="LeNet-5 as published: trained subsampling, connection table, distances to fixed codes",
        year=1998,
        sources=(PAPER,),
        input_shape=(32, 32, 1),
        classes=10,
        # C1 6 * 26 = 156, S2 12, C3 60 * 25 + 16 = 1,516, S4 32, C5 120 * 401 = 48,120, F6 84 * 121 = 10,164
        params=60_000,
        head=("output",),
        features=("c1_squash", "s2_squash", "c3_squash", "s4_squash", "c5_squash", "f6_squash"),
        scores="distances",
        # section II.B: ground -0.1 and ink 1.175 make the mean about 0 and the variance about 1
        preprocessing=Preprocessing(size=(28, 28), pad_to=(32, 32), low=-0.1, high=1.175),
        recipes={"paper": PAPER_RECIPE, "distorted": DISTORTED, "modern": replace(MODERN, epochs=80, loss="rbf_map")},
        published=(
            Published("mnist", "accuracy", 0.9905, f"{PAPER}, section III.B: 0.95 % error"),
            Published("mnist", "accuracy", 0.992, f"{PAPER}, section III.B: 0.8 % error, distortions", "distorted"),
        ),
        stages=(
            Stage("head", ("f6", "output"), 1e-3, 5),
            Stage("top", ("c5", "f6", "output"), 1e-3, 5),
            Stage("all", ("*",), 1e-3, 40),
        ),
        notes=(
            "the codes of ten classes are digits drawn after the manner of figure 3, not traced; for another number of "
            "classes they are random, as section II.B allows; they are not trained: a new head learns through F6",
        ),
    )
)
def lenet5(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, 32, 32, C], ground -0.1 and ink 1.175, to squared distances [B, classes] from F6 to each code.

    Raises:
        ValueError: for images that are not 32 x 32: C5 must see all of S4.
    """
    if tuple(input_shape[:2]) != (32, 32):
        raise ValueError(f"lenet5 takes images of 32 x 32, not {input_shape[0]} x {input_shape[1]}")

    def squash(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return zoo_layers.ScaledTanh(name=f"{name}_squash")(x)

    x = inputs = keras.Input(input_shape, name="images")
    x = squash(layers.Conv2D(6, 5, name="c1", **start(25 * input_shape[-1]))(x), "c1")
    x = squash(zoo_layers.Subsampling2D(2, name="s2", **start(4, "coefficient"))(x), "s2")
    x = squash(zoo_layers.ConnectionTableConv2D(TABLE, 5, bound=2.4, name="c3")(x), "c3")
    x = squash(zoo_layers.Subsampling2D(2, name="s4", **start(4, "coefficient"))(x), "s4")
    x = squash(layers.Conv2D(120, 5, name="c5", **start(25 * 16))(x), "c5")
    x = layers.Flatten(name="flatten")(x)
    x = squash(layers.Dense(84, name="f6", **start(120))(x), "f6")
    codes = bitmap_codes() if classes == 10 else random_codes(classes)
    return keras.Model(inputs, zoo_layers.EuclideanRBF(codes, name="output")(x), name="lenet5")


def start(fan_in: int, weight: str = "kernel") -> dict[str, Any]:
    """Weights and biases uniform within +- 2.4 / fan-in (appendix A)."""
    bound = 2.4 / fan_in
    return {
        f"{weight}_initializer": keras.initializers.RandomUniform(-bound, bound),
        "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
    }


@register(
    ModelSpec(
        name="lenet5_modern",
        task="classification",
        summary="LeNet-5 as it is taught today: ReLU, max-pooling, all maps connected, softmax",
        year=1998,
        sources=(f"{PAPER}: the sizes of its layers",),
        input_shape=(28, 28, 1),
        classes=10,
        # conv1 156, conv2 16 * 151 = 2,416, hidden1 120 * 401 = 48,120, hidden2 84 * 121 = 10,164, output 850
        params=61_706,
        head=("output",),
        features=("pool1", "pool2", "hidden1", "hidden2"),
        preprocessing=Preprocessing(size=(28, 28)),
        recipes={"modern": replace(MODERN, epochs=120, label_smoothing=0.1)},
        stages=(
            Stage("head", ("output",), 1e-3, 5),
            Stage("hidden", ("hidden*", "output"), 5e-4, 5),
            Stage("all", ("*",), 1e-4, 10),
        ),
        notes=("no source gives a figure for this form",),
    )
)
def lenet5_modern(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, H, W, C] in 0..1 to logits [B, classes]; starts by Glorot's rule, Keras' default."""
    x = inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(16, 5, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(120, activation="relu", name="hidden1")(x)
    x = layers.Dense(84, activation="relu", name="hidden2")(x)
    return keras.Model(inputs, layers.Dense(classes, name="output")(x), name="lenet5_modern")
