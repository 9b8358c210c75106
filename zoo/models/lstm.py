"""Long short-term memory.

Commands, with the time on two CPU cores; no weights are published:

    zoo train lstm_text --data rt_polarity       # 1 minute
    zoo train lstm_char --data tinyshakespeare   # 7 minutes

Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", Neural Computation 9(8): section 4. Gers, Schmidhuber and
Cummins 2000, "Learning to Forget: Continual Prediction with LSTM", Neural Computation 12(10): the forget gate.
"""

from __future__ import annotations

from etils import epy

from zoo.recipe import Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

REFERENCES = (
    "Hochreiter, Schmidhuber 1997, Long Short-Term Memory, section 4",
    "Gers, Schmidhuber, Cummins 2000, Learning to Forget (the forget gate, its initial bias 1)",
)


@register(
    ModelSpec(
        name="lstm_text",
        task="text_classification",
        summary="one LSTM layer over word embeddings, mean over time, for short texts",
        year=1997,
        references=REFERENCES,
        input_shape=(64,),
        classes=2,
        # embedding 10,000*64; LSTM 4*(64*(64+64)+64) = 33,024; output 64*2+2
        params=673_154,
        head=("output",),
        features=("embedding", "lstm", "mean"),
        arguments={"vocabulary_size": 10_000, "width": 64},
        recipes={"paper": Recipe(epochs=10, batch_size=32, learning_rate=1e-3, optimizer="adam", patience=3)},
        stages=(
            Stage("head", ("output",), 1e-3, 3),
            Stage("lstm", ("lstm", "output"), 1e-3, 3),
            Stage("all", ("*",), 3e-4, 3),
        ),
    )
)
def lstm_text(input_shape: tuple, classes: int, *, vocabulary_size: int, width: int) -> keras.Model:
    """Token ids, int [B, length], 0 for padding, to logits [B, classes].

    Args:
        vocabulary_size: number of token ids.
        width: units of the embedding and of the LSTM.
    """
    tokens = keras.Input(input_shape, dtype="int32", name="tokens")
    x = layers.Embedding(vocabulary_size, width, mask_zero=True, name="embedding")(tokens)
    x = layers.LSTM(width, return_sequences=True, use_cudnn=False, name="lstm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(tokens, layers.Dense(classes, name="output")(x), name="lstm_text")


SHAKESPEARE = Recipe(
    epochs=24,
    batch_size=64,
    learning_rate=2e-3,
    optimizer="adam",
    schedule=Schedule("cosine", warmup_epochs=1),
    ema=0.995,
    global_clip_norm=1.0,
    arguments={"dropout": 0.3, "input_dropout": 0.1, "embedding_dropout": 0.05, "weight_drop": 0.2},
)


@register(
    ModelSpec(
        name="lstm_char",
        task="language_model",
        summary="character model: two LSTM layers that take and return their states",
        year=1997,
        references=REFERENCES,
        input_shape=(64,),
        classes=65,
        # embedding 65*64; LSTM 4*(384*(64+384)+384) + 4*(384*(384+384)+384); output 384*65+65
        params=4_160 + 689_664 + 1_181_184 + 25_025,
        head=("output",),
        features=("embedding", "lstm_1"),
        arguments={"embedding": 64, "width": 384, "layers": 2},
        recipes={"modern": SHAKESPEARE},
        stages=(Stage("head", ("output",), 1e-3, 2), Stage("all", ("*",), 5e-4, 5)),
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
) -> keras.Model:
    """Character ids, int [B, T], and states `h_1`, `c_1`, `h_2` ... [B, width] to a dict of logits [B, T, classes] of
    each next character and the new states.

    Dropout masks of units are the same at all times of a window (Gal and Ghahramani 2016, section 4).

    Args:
        embedding: units of the embedding; with `tied` also of the last layer.
        width: units of each LSTM layer.
        layers: number of LSTM layers, from 1.
        tied: whether the output layer's weights are those of the embedding (Press and Wolf 2017), without a bias.
        dropout: share of each LSTM layer's outputs that is zero in training.
        input_dropout: the same of the embedding's units.
        embedding_dropout: share of the characters whose embedding is zero in training.
        weight_drop: share of the recurrent weights that is zero in training.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    table = keras.layers.ReversibleEmbedding(classes, embedding, name="embedding")
    x = zoo_layers.TokenDropout(classes, embedding_dropout, name="embedding_dropout")([tokens, table(tokens)])
    x = keras.layers.SpatialDropout1D(input_dropout, name="input_dropout")(x)
    inputs, states = {"tokens": tokens}, {}
    for number in range(1, layers + 1):
        units = embedding if tied and number == layers else width
        h, c = (keras.Input((units,), name=f"{state}_{number}") for state in "hc")
        lstm = zoo_layers.LSTM(units, weight_drop, return_sequences=True, return_state=True, name=f"lstm_{number}")
        inputs |= {h.name: h, c.name: c}
        x, states[h.name], states[c.name] = lstm(x, initial_state=[h, c])
        x = keras.layers.SpatialDropout1D(dropout, name=f"dropout_{number}")(x)
    logits = table(x, reverse=True) if tied else keras.layers.Dense(classes, name="output")(x)
    return keras.Model(inputs, {"logits": logits, **states}, name="lstm_char")
