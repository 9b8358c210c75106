"""Multilayer perceptrons with sigmoid units and quadratic cost.

Commands, with the time on two CPU cores and the test accuracy of the published weights:

    zoo train mlp_784_10 --data mnist                       # 20 seconds, 0.9203 (mean of 10 runs 0.8180)
    zoo train mlp_784_30_10 --data mnist                    # 20 seconds, 0.9525 (mean of 10 runs 0.9511)
    zoo train mlp_784_100_10 --data mnist                   # 25 seconds, 0.9671 (mean of 10 runs 0.8826)
    zoo train mlp_784_100_10 --data mnist --recipe modern   # 4 minutes, 0.9881 (mean of 3 runs 0.9880)

Michael Nielsen, "Neural Networks and Deep Learning" (2015), chapter 1, section "Implementing our network to classify
digits", and its program `network.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from etils import epy

from zoo.errors import unknown
from zoo.models.recipes import MILD_DISTORTIONS, MODERN_IMAGES
from zoo.recipe import Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

BOOK = "Nielsen 2015, Neural Networks and Deep Learning, chapter 1"
INITIALIZATIONS = ("normal", "glorot")

# Only the network of 30 units has a target: the others' runs differ much. With initial weights of variance 1 an output
# may stay saturated, and then a whole digit is never learned.
PAPER = Recipe(epochs=30, batch_size=10, learning_rate=3.0, loss="quadratic")
# With the cost of the book's chapter 3: the quadratic one learns slowly where an output is saturated.
MODERN = replace(
    MODERN_IMAGES,
    arguments={"initialization": "glorot"},
    epochs=120,
    learning_rate=5e-3,
    loss="binary_cross_entropy",
    augmentation=MILD_DISTORTIONS,
    targets={"mnist": 0.980},
)

ALL = Stage("all", ("*",), 1.0, 10)
STAGES = (Stage("head", ("output",), 3.0, 5), ALL)


def _mlp(
    name: str,
    summary: str,
    *,
    hidden: tuple[int, ...],
    params: int,
    recipes: Mapping[str, Recipe],
    features: tuple[str, ...] = ("hidden1",),
    stages: tuple[Stage, ...] = STAGES,
    reported: float | None = None,
    notes: tuple[str, ...] = (),
) -> ModelSpec:
    """The spec of a variant; `reported` is the book's test accuracy."""
    reference = f"{BOOK}: the peak over the epochs on the test set"
    return ModelSpec(
        name=name,
        task="classification",
        summary=summary,
        year=2015,
        references=(BOOK, "https://github.com/mnielsen/neural-networks-and-deep-learning, src/network.py"),
        input_shape=(28, 28, 1),
        classes=10,
        params=params,
        head=("output",),
        features=features,
        outputs="sigmoid",
        preprocessing=Preprocessing(size=(28, 28)),
        arguments={"hidden": hidden},
        recipes=recipes,
        reported=(ReportedScore("mnist", "accuracy", reported, reference),) if reported else (),
        stages=stages,
        notes=notes,
    )


@register(
    _mlp(
        "mlp_784_10",
        "perceptron 784-10, sigmoid units, quadratic cost",
        hidden=(),
        params=784 * 10 + 10,
        recipes={"paper": PAPER},
        features=(),
        stages=(ALL,),  # the head is all there is
        notes=("the book sets this network as an exercise and reports no score",),
    ),
    _mlp(
        "mlp_784_30_10",
        "perceptron 784-30-10, sigmoid units, quadratic cost",
        hidden=(30,),
        params=784 * 30 + 30 + 30 * 10 + 10,
        recipes={"paper": replace(PAPER, targets={"mnist": 0.945})},
        reported=0.9542,
    ),
    _mlp(
        "mlp_784_100_10",
        "perceptron 784-100-10, sigmoid units, quadratic cost",
        hidden=(100,),
        params=784 * 100 + 100 + 100 * 10 + 10,
        recipes={"paper": PAPER, "modern": MODERN},
        reported=0.9659,
        notes=("a footnote of the book says that readers' results vary much and that some are much worse",),
    ),
)
def mlp(input_shape: tuple, classes: int, *, hidden: tuple[int, ...], initialization: str = "normal") -> keras.Model:
    """Images [B, H, W, C] in 0..1 to the logits [B, classes] of the output units, which are sigmoid.

    Args:
        hidden: units of each hidden layer, from input to output.
        initialization: `normal` for weights and biases of variance 1, as in `network.py`; `glorot`, Keras' default, for
            Glorot's rule with biases of 0.

    Raises:
        ZooError: for an unknown initialization.
    """
    if initialization not in INITIALIZATIONS:
        raise unknown("initialization", initialization, INITIALIZATIONS)
    initializers = {}
    if initialization == "normal":
        normal = keras.initializers.RandomNormal
        initializers = {"kernel_initializer": normal(stddev=1.0), "bias_initializer": normal(stddev=1.0)}
    x = inputs = keras.Input(input_shape, name="images")
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden, start=1):
        x = layers.Dense(units, activation="sigmoid", name=f"hidden{index}", **initializers)(x)
    return keras.Model(inputs, layers.Dense(classes, name="output", **initializers)(x), name="mlp")
