"""Long short-term memory.

Commands, with the time on two CPU cores; no weights are published:

    zoo train lstm_text --data rt_polarity       # 1 minute
    zoo train lstm_char --data tinyshakespeare   # 7 minutes

Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", Neural Computation 9(8): section 4. Gers, Schmidhuber and
Cummins 2000, "Learning to Forget: Continual Prediction with LSTM", Neural Computation 12(10): the forget gate.
"""

from __future__ import annotations

from etils import epy

from zoo.recipe import Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

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


@register(
    ModelSpec(
        name="lstm_char",
        task="language_model",
        summary="character model: one LSTM layer that takes and returns its state",
        year=1997,
        references=REFERENCES,
        input_shape=(64,),
        classes=65,
        # embedding 65*32; LSTM 4*(128*(32+128)+128) = 82,432; output 128*65+65
        params=92_897,
        head=("output",),
        features=("embedding", "lstm"),
        arguments={"embedding": 32, "width": 128},
        recipes={"paper": Recipe(epochs=20, batch_size=64, learning_rate=2e-3, optimizer="adam", clip_norm=5.0)},
        stages=(Stage("head", ("output",), 1e-3, 2), Stage("all", ("*",), 5e-4, 5)),
    )
)
def lstm_char(input_shape: tuple, classes: int, *, embedding: int, width: int) -> keras.Model:
    """Character ids, int [B, T], and states `h` and `c` [B, width] to a dict of logits [B, T, classes] of each next
    character and the new `h` and `c`.

    Args:
        embedding: units of the embedding.
        width: units of the LSTM.
    """
    inputs = {
        "tokens": keras.Input((None,), dtype="int32", name="tokens"),
        "h": keras.Input((width,), name="h"),
        "c": keras.Input((width,), name="c"),
    }
    x = layers.Embedding(classes, embedding, name="embedding")(inputs["tokens"])
    lstm = layers.LSTM(width, return_sequences=True, return_state=True, use_cudnn=False, name="lstm")
    x, h, c = lstm(x, initial_state=[inputs["h"], inputs["c"]])
    logits = layers.Dense(classes, name="output")(x)
    return keras.Model(inputs, {"logits": logits, "h": h, "c": c}, name="lstm_char")
