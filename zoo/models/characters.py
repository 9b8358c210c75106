"""Recurrent networks that predict the next character of a text.

Command, with the time on one CPU core and the validation loss of the published weights, in nats a character in windows
of 256:

    zoo train lstm_char --data tinyshakespeare   # 207 minutes, 1.4580

Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", Neural Computation 9(8): section 4. Gers, Schmidhuber and
Cummins 2000, "Learning to Forget: Continual Prediction with LSTM", Neural Computation 12(10): the forget gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from etils import epy

from zoo.errors import ZooError
from zoo.models.lstm import REFERENCES
from zoo.recipe import Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Stage

with epy.lazy_imports():
    import keras

    from zoo import layers as zoo_layers

CHARACTERS = (  # with tied weights the embedding is the output layer too
    Stage("vocabulary", ("output", "embedding"), 1e-3, 2),
    Stage("all", ("*",), 5e-4, 5),
)


@register(
    ModelSpec(
        name="lstm_char",
        task="language_model",
        summary="character model: two LSTM layers that take and return their states",
        year=1997,
        references=(
            *REFERENCES,
            "Merity, Keskar, Socher 2018, Regularizing and Optimizing LSTM Language Models (weight drop)",
            "Gal, Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
        ),
        input_shape=(64,),
        classes=65,
        # embedding 65*64; LSTM 4*(384*(64+384)+384) + 4*(384*(384+384)+384); output 384*65+65
        params=4_160 + 689_664 + 1_181_184 + 25_025,
        head=("output",),
        features=("embedding", "lstm_1"),
        arguments={"embedding": 64, "width": 384, "layers": 2},
        recipes={
            "modern": Recipe(
                epochs=24,
                batch_size=64,
                learning_rate=4e-3,
                optimizer="adam",
                optimizer_arguments={"beta_2": 0.99},
                schedule=Schedule("cosine"),
                ema=0.99,
                global_clip_norm=1.0,
                arguments={"dropout": 0.3, "weight_drop": 0.1},
            )
        },
        stages=CHARACTERS,
    )
)
def lstm_char(
    input_shape: tuple,
    classes: int,
    *,
    embedding: int,
    width: int,
    layers: int,
    tied: bool = False,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    weight_drop: float = 0.0,
    variational: bool = False,
) -> keras.Model:
    """Character ids, int [B, T], and states `h_1`, `c_1`, `h_2` ... [B, width] to a dict of logits [B, T, classes] of
    each next character and the new states.

    Args:
        embedding: units of the embedding; with `tied` also of the last layer.
        width: units of each LSTM layer.
        layers: number of LSTM layers, from 1.
        tied: whether the output layer's weights are those of the embedding (Press and Wolf 2017), without a bias.
        dropout: share of each LSTM layer's outputs that is zero in training.
        input_dropout: the same of the embedding's units.
        embedding_dropout: share of the characters whose embedding is zero in training.
        weight_drop: share of the recurrent weights that is zero in training.
        variational: whether the same units are zero at all times of a window (Gal and Ghahramani 2016, section 4).
    """

    def layer(units: int, **options: Any) -> Any:
        return zoo_layers.LSTM(units, weight_drop, **options)

    dropouts: dict[str, Any] = {"dropout": dropout, "input_dropout": input_dropout, "variational": variational}
    dropouts["embedding_dropout"] = embedding_dropout
    return character_network("lstm", layer, "hc", input_shape, classes, embedding, width, layers, tied, **dropouts)


GRU_CHAR = ModelSpec(
    name="gru_char",
    task="language_model",
    summary="character model: gated recurrent units, to compare with the LSTM",
    year=2014,
    notes=("two biases, and the reset gate after the recurrent product, as in cuDNN: the paper has it before",),
    references=("Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, section 2.3",),
    input_shape=(64,),
    classes=65,
    # embedding 65*32; GRU 3*(128*(32+128)+2*128); output 128*65+65
    params=2_080 + 62_208 + 8_385,
    head=("output",),
    features=("embedding", "gru_1"),
    arguments={"embedding": 32, "width": 128, "layers": 1},
    recipes={
        "modern": Recipe(
            epochs=10,
            batch_size=32,
            learning_rate=2e-3,
            optimizer="adam",
            schedule=Schedule("cosine"),
            global_clip_norm=1.0,
        )
    },
    stages=CHARACTERS,
)


@register(GRU_CHAR)
def gru_char(
    input_shape: tuple, classes: int, *, embedding: int, width: int, layers: int, dropout: float = 0.0
) -> keras.Model:
    """As `lstm_char`, with one state `h_1`, `h_2` ... a layer."""

    def layer(units: int, **options: Any) -> Any:
        return keras.layers.GRU(units, use_cudnn=False, **options)

    return character_network("gru", layer, "h", input_shape, classes, embedding, width, layers, dropout=dropout)


@register(
    replace(
        GRU_CHAR,
        name="simple_rnn_char",
        summary="character model: simple recurrent units, to compare with the LSTM",
        notes=(),
        year=1990,
        references=(
            "Elman 1990, Finding Structure in Time",
            "Bengio, Simard, Frasconi 1994, Learning Long-Term Dependencies with Gradient Descent is Difficult",
        ),
        # embedding 65*32; recurrent 128*(32+128)+128; output 128*65+65
        params=2_080 + 20_608 + 8_385,
        features=("embedding", "simple_rnn_1"),
    )
)
def simple_rnn_char(
    input_shape: tuple, classes: int, *, embedding: int, width: int, layers: int, dropout: float = 0.0
) -> keras.Model:
    """As `lstm_char`, with one state `h_1`, `h_2` ... a layer."""
    layer = keras.layers.SimpleRNN
    return character_network("simple_rnn", layer, "h", input_shape, classes, embedding, width, layers, dropout=dropout)


def character_network(
    kind: str,
    layer: Callable[..., Any],
    states: str,
    input_shape: tuple,
    classes: int,
    embedding: int,
    width: int,
    layers: int,
    tied: bool = False,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    variational: bool = False,
) -> keras.Model:
    """A recurrent character model.

    Args:
        kind: its layers are called KIND_1, KIND_2 ...
        layer: makes a recurrent layer of so many units.
        states: one letter for each of a layer's states.
    """
    if layers < 1:
        raise ZooError(f"layers must be at least 1, not {layers}")
    step = input_shape == (1,)  # a network for one character at a time, without a loop, for other formats
    tokens = keras.Input((1,) if step else (None,), dtype="int32", name="tokens")
    table = keras.layers.ReversibleEmbedding(classes, embedding, name="embedding")
    x = zoo_layers.TokenDropout(classes, embedding_dropout, name="embedding_dropout")([tokens, table(tokens)])
    dropout_layer = keras.layers.SpatialDropout1D if variational else keras.layers.Dropout
    x = dropout_layer(input_dropout, name="input_dropout")(x)
    inputs: dict[str, Any] = {"tokens": tokens}
    outputs: dict[str, Any] = {}
    for number in range(1, layers + 1):
        units = embedding if tied and number == layers else width
        given = {f"{state}_{number}": keras.Input((units,), name=f"{state}_{number}") for state in states}
        options = {"return_sequences": True, "return_state": True, "unroll": step, "name": f"{kind}_{number}"}
        x, *new = layer(units, **options)(x, initial_state=[*given.values()])
        inputs |= given
        outputs |= dict(zip(given, new, strict=True))
        x = dropout_layer(dropout, name=f"dropout_{number}")(x)
    logits = table(x, reverse=True) if tied else keras.layers.Dense(classes, name="output")(x)
    return keras.Model(inputs, {"logits": logits, **outputs}, name=f"{kind}_char")
