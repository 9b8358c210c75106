"""Multilayer perceptrons with sigmoid units and quadratic cost.

Michael Nielsen, "Neural Networks and Deep Learning" (2015), chapter 1, section "Implementing our network to classify
digits", and its program `network.py`.
"""

from __future__ import annotations

from dataclasses import replace

from etils import epy

from zoo.errors import unknown
from zoo.recipe import Affine, Augmentation, Elastic, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Published, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

INITIALISATIONS = ("normal", "glorot")
BOOK = "Nielsen 2015, Neural Networks and Deep Learning, chapter 1"

PAPER = Recipe(epochs=30, batch_size=10, learning_rate=3.0, loss="quadratic")
# With the cost of the book's chapter 3: the quadratic one learns slowly where an output is saturated.
MODERN = Recipe(
    arguments={"initialisation": "glorot"},
    epochs=120,
    batch_size=128,
    learning_rate=5e-3,
    optimizer="adamw",
    schedule=Schedule("cosine", warmup_epochs=1),
    loss="binary_cross_entropy",
    weight_decay=0.02,
    ema=0.999,
    augmentation=Augmentation(
        affine=Affine(rotation=6.0, translation=0.04, scale=0.06, skew=5.0), elastic=Elastic(alpha=12.0, sigma=4.0)
    ),
    targets={"mnist": 0.980},
)

# hidden units -> parameters, published test accuracy, target on the validation set. No target where runs differ much:
# with weights of variance 1 an output may stay saturated, and then a whole digit is never learnt.
VARIANTS = {
    (): (784 * 10 + 10, None, None),
    (30,): (784 * 30 + 30 + 30 * 10 + 10, 0.9542, 0.945),
    (100,): (784 * 100 + 100 + 100 * 10 + 10, 0.9659, None),
}


def _spec(hidden: tuple[int, ...], params: int, accuracy: float | None, target: float | None) -> ModelSpec:
    sizes = [784, *hidden, 10]
    stages = (Stage("head", ("output",), 3.0, 5), Stage("all", ("*",), 1.0, 10))
    targets = {"mnist": target} if target else {}
    return ModelSpec(
        name="_".join(map(str, ["mlp", *sizes])),
        task="classification",
        summary=f"perceptron {'-'.join(map(str, sizes))}, sigmoid units, quadratic cost",
        year=2015,
        sources=(BOOK, "https://github.com/mnielsen/neural-networks-and-deep-learning, src/network.py"),
        input_shape=(28, 28, 1),
        classes=10,
        params=params,
        head=("output",),
        features=tuple(f"hidden{index}" for index in range(1, len(hidden) + 1)),
        scores="sigmoid",
        preprocessing=Preprocessing(size=(28, 28)),
        arguments={"hidden": hidden},
        recipes={"paper": replace(PAPER, targets=targets), **({"modern": MODERN} if hidden == (100,) else {})},
        published=(
            (Published("mnist", "accuracy", accuracy, f"{BOOK}: the peak over the epochs on the test set"),)
            if accuracy
            else ()
        ),
        stages=stages if hidden else stages[1:],  # without hidden layers the head is all there is
        notes=() if hidden else ("the book sets this network as an exercise and gives no figure",),
    )


@register(*(_spec(hidden, *figures) for hidden, figures in VARIANTS.items()))
def mlp(input_shape: tuple, classes: int, *, hidden: tuple[int, ...], initialisation: str = "normal") -> keras.Model:
    """Images [B, H, W, C] in 0..1 to the sigmoid activations [B, classes] of the output units, in 0..1.

    Args:
        hidden: units of each hidden layer, from input to output.
        initialisation: weights and biases start from a normal distribution of variance 1 (`normal`, as in
            `network.py`), or by Glorot's rule with biases of 0 (`glorot`, Keras' default).
    """
    if initialisation not in INITIALISATIONS:
        raise unknown("initialisation", initialisation, INITIALISATIONS)
    start = {}
    if initialisation == "normal":
        normal = keras.initializers.RandomNormal
        start = {"kernel_initializer": normal(stddev=1.0), "bias_initializer": normal(stddev=1.0)}
    x = inputs = keras.Input(input_shape, name="images")
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden, start=1):
        x = layers.Dense(units, activation="sigmoid", name=f"hidden{index}", **start)(x)
    outputs = layers.Dense(classes, activation="sigmoid", name="output", **start)(x)
    return keras.Model(inputs, outputs, name="mlp")
