"""Multilayer perceptrons with sigmoid units and quadratic cost.

Michael Nielsen, "Neural Networks and Deep Learning" (2015), chapter 1, section "Implementing our network to classify
digits", and its program `network.py`.
"""

from __future__ import annotations

from dataclasses import replace

from etils import epy

from zoo.errors import unknown
from zoo.recipe import MILD_DISTORTIONS, MODERN_PICTURES, Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Published, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

INITIALISATIONS = ("normal", "glorot")
BOOK = "Nielsen 2015, Neural Networks and Deep Learning, chapter 1"

PAPER = Recipe(epochs=30, batch_size=10, learning_rate=3.0, loss="quadratic")
# With the cost of the book's chapter 3: the quadratic one learns slowly where an output is saturated.
MODERN = replace(
    MODERN_PICTURES,
    arguments={"initialisation": "glorot"},
    epochs=120,
    learning_rate=5e-3,
    loss="binary_cross_entropy",
    augmentation=MILD_DISTORTIONS,
    targets={"mnist": 0.980},
)

# hidden units -> parameters, published test accuracy, recipes. The paper's has no target where runs differ much: with
# weights of variance 1 an output may stay saturated, and then a whole digit is never learnt.
VARIANTS: dict[tuple[int, ...], tuple[int, float | None, dict[str, Recipe]]] = {
    (): (784 * 10 + 10, None, {"paper": PAPER}),
    (30,): (784 * 30 + 30 + 30 * 10 + 10, 0.9542, {"paper": replace(PAPER, targets={"mnist": 0.945})}),
    (100,): (784 * 100 + 100 + 100 * 10 + 10, 0.9659, {"paper": PAPER, "modern": MODERN}),
}
NOTES = {
    (): "the book sets this network as an exercise and gives no figure",
    (100,): "a footnote of the book says that readers' results vary much and that some are a good deal worse",
}


def _spec(hidden: tuple[int, ...], params: int, accuracy: float | None, recipes: dict[str, Recipe]) -> ModelSpec:
    sizes = [784, *hidden, 10]
    stages = (Stage("head", ("output",), 3.0, 5), Stage("all", ("*",), 1.0, 10))
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
        recipes=recipes,
        published=(
            (Published("mnist", "accuracy", accuracy, f"{BOOK}: the peak over the epochs on the test set"),)
            if accuracy
            else ()
        ),
        stages=stages if hidden else stages[1:],  # without hidden layers the head is all there is
        notes=(NOTES[hidden],) if hidden in NOTES else (),
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
