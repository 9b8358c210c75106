"""LeNet-5 as published, and in the form taught today.

Commands, with the time on two CPU cores and the test accuracy of the published weights:

    zoo train lenet5 --data mnist                       # 3 minutes, 0.9884 (mean of 3 runs 0.9887)
    zoo train lenet5 --data mnist --recipe distorted    # 9 minutes, 0.9926 (mean of 3 runs 0.9928)
    zoo train lenet5_modern --data mnist                # 11 minutes, 0.9949 (mean of 3 runs 0.9951)

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the
IEEE 86(11): section II.B and figure 2 (the network), table I (connections), section III (MNIST), appendix A (initial
weights).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from etils import epy

from zoo.errors import ZooError
from zoo.models.recipes import MODERN_IMAGES
from zoo.options import ClassificationOptions
from zoo.recipe import Affine, Augmentation, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

PAPER = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition"

# Table I: for each map of C3 the maps of S2 that it is connected to; 60 connections.
TABLE = (
    *[(first, (first + 1) % 6, (first + 2) % 6) for first in range(6)],
    *[(first, (first + 1) % 6, (first + 2) % 6, (first + 3) % 6) for first in range(6)],
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

# The target codes of F6: stylized characters of 12 rows and 7 columns in the style of figure 3, +1 for ink, -1 for
# ground. The first and the last row are all ground and are left out here.
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

# Section III.A: the global learning rates 5e-4, 2e-4, 1e-4, 5e-5 and 1e-5 for 2, 3, 3, 4 and 8 passes over the data,
# here as factors on the learning rate of another optimizer.
PAPER_RECIPE = Recipe(
    epochs=20,
    batch_size=16,
    learning_rate=1e-3,
    optimizer="adam",
    schedule=Schedule("table", table=((0, 1.0), (2, 0.4), (5, 0.2), (8, 0.1), (12, 0.02))),
    loss="rbf_map",
    targets={"mnist": 0.985},
    deviations=(
        "Adam on batches of 16, not the stochastic diagonal Levenberg-Marquardt method on single images; the number of "
        "passes and the steps of the learning rate are the paper's",
        "50,000 training images and 10,000 for validation; the paper trains on all 60,000",
        "the table of learning rates is cited from secondary sources, not checked in the paper",
    ),
)
DISTORTED = replace(
    PAPER_RECIPE,
    epochs=40,
    schedule=Schedule("cosine"),
    augmentation=Augmentation(affine=Affine(translation=0.07, scale=0.15, skew=15.0)),
    deviations=(
        *PAPER_RECIPE.deviations,
        "40 passes with a cosine schedule, not 20 with steps",
        "distortions drawn again in each pass, not 540,000 images distorted once; the paper names their kinds "
        "(translation, scaling, squeezing, shearing) but not their extent",
    ),
)
MODERN = replace(MODERN_IMAGES, targets={"mnist": 0.988})


def bitmap_codes() -> list[list[float]]:
    """The codes [10, 84] of the ten digits, each 12 rows x 7 columns, flattened row by row."""
    rows = [row.split() for row in BITMAPS.strip().splitlines()]
    digits = [" " * 7 + "".join(digit) + " " * 7 for digit in zip(*rows, strict=True)]
    return [[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits]


def random_codes(classes: int) -> list[list[float]]:
    """Codes [classes, 84] of +-1 with equal probability, the same in every run, for classes that are not digits: the
    other choice that section II.B names."""
    draw = random.Random(1998)
    return [[draw.choice((-1.0, 1.0)) for _ in range(84)] for _ in range(classes)]


@register(
    ModelSpec(
        name="lenet5",
        task="classification",
        summary="LeNet-5 as published: trained subsampling, connection table, distances to fixed codes",
        year=1998,
        references=(PAPER,),
        input_shape=(32, 32, 1),
        classes=10,
        # C1 6 * 26 = 156, S2 12, C3 60 * 25 + 16 = 1,516, S4 32, C5 120 * 401 = 48,120, F6 84 * 121 = 10,164
        params=60_000,
        head=("output",),
        features=("c1_squash", "s2_squash", "c3_squash", "s4_squash", "c5_squash", "f6_squash"),
        outputs="distances",
        # section II.B: ground -0.1 and ink 1.175 make the mean about 0 and the variance about 1
        preprocessing=Preprocessing(size=(28, 28), pad_to=(32, 32), low=-0.1, high=1.175),
        recipes={"paper": PAPER_RECIPE, "distorted": DISTORTED, "modern": replace(MODERN, epochs=80, loss="rbf_map")},
        reported=(
            ReportedScore("mnist", "accuracy", 0.9905, f"{PAPER}, section III.B: 0.95% error"),
            ReportedScore("mnist", "accuracy", 0.992, f"{PAPER}, section III.B: 0.8% error, distortions", "distorted"),
        ),
        stages=(
            Stage("head", ("f6", "output"), 1e-3, 5),
            Stage("top", ("c5", "f6", "output"), 1e-3, 5),
            Stage("all", ("*",), 1e-3, 40),
        ),
        notes=(
            "the codes of ten classes are digits drawn in the style of figure 3, not traced; for another number of "
            "classes they are random, as section II.B allows; they are not trained: a new head learns through F6",
        ),
    )
)
def lenet5(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, 32, 32, C], ground -0.1 and ink 1.175, to squared distances [B, classes] from F6 to each code.

    Raises:
        ZooError: for images that are not 32 x 32: the kernels of C5 cover all of S4.
    """
    if tuple(input_shape[:2]) != (32, 32):
        raise ZooError(f"lenet5 takes images of 32 x 32, not {input_shape[0]} x {input_shape[1]}")

    def squash(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return zoo_layers.ScaledTanh(name=f"{name}_squash")(x)

    x = inputs = keras.Input(input_shape, name="images")
    x = squash(layers.Conv2D(6, 5, name="c1", **initializers(25 * input_shape[-1]))(x), "c1")
    x = squash(zoo_layers.Subsampling2D(2, name="s2", **initializers(4, "coefficient"))(x), "s2")
    x = squash(zoo_layers.ConnectionTableConv2D(TABLE, 5, bound=2.4, name="c3")(x), "c3")
    x = squash(zoo_layers.Subsampling2D(2, name="s4", **initializers(4, "coefficient"))(x), "s4")
    x = squash(layers.Conv2D(120, 5, name="c5", **initializers(25 * 16))(x), "c5")
    x = layers.Flatten(name="flatten")(x)
    x = squash(layers.Dense(84, name="f6", **initializers(120))(x), "f6")
    codes = bitmap_codes() if classes == 10 else random_codes(classes)
    return keras.Model(inputs, zoo_layers.EuclideanRBF(codes, name="output")(x), name="lenet5")


def initializers(fan_in: int, weight: str = "kernel") -> dict[str, Any]:
    """Initial weights and biases, uniform within +-2.4 / fan-in (appendix A)."""
    bound = 2.4 / fan_in
    return {
        f"{weight}_initializer": keras.initializers.RandomUniform(-bound, bound),
        "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
    }


@register(
    ModelSpec(
        name="lenet5_modern",
        task="classification",
        summary="LeNet-5 as taught today: ReLU, max-pooling, all maps connected, softmax",
        year=1998,
        references=(f"{PAPER}: the sizes of the layers",),
        input_shape=(28, 28, 1),
        classes=10,
        # conv1 156, conv2 16 * 151 = 2,416, hidden1 120 * 401 = 48,120, hidden2 84 * 121 = 10,164, output 850
        params=61_706,
        head=("output",),
        features=("pool1", "pool2", "hidden1", "hidden2"),
        preprocessing=Preprocessing(size=(28, 28)),
        recipes={
            "modern": replace(MODERN, epochs=120, options=ClassificationOptions(label_smoothing=0.1)),
        },
        stages=(
            Stage("head", ("output",), 1e-3, 5),
            Stage("hidden", ("hidden*", "output"), 5e-4, 5),
            Stage("all", ("*",), 1e-4, 10),
        ),
        notes=("no reference reports a score for this form",),
    )
)
def lenet5_modern(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, H, W, C] in 0..1 to logits [B, classes]. Initial weights follow Glorot's rule, Keras' default."""
    x = inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(16, 5, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(120, activation="relu", name="hidden1")(x)
    x = layers.Dense(84, activation="relu", name="hidden2")(x)
    return keras.Model(inputs, layers.Dense(classes, name="output")(x), name="lenet5_modern")
