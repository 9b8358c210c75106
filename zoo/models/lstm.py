"""Long short-term memory as a classifier of texts and of images.

Commands, with the time on two CPU cores:

    zoo train lstm_mnist --data mnist            # 35 minutes, 0.9953
    zoo train lstm_text --data rt_polarity       # 5 minutes, 0.7477

Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", Neural Computation 9(8): section 4. Gers, Schmidhuber and
Cummins 2000, "Learning to Forget: Continual Prediction with LSTM", Neural Computation 12(10): the forget gate.
"""

from __future__ import annotations

from etils import epy

from zoo.options import ClassificationOptions
from zoo.recipe import Affine, Augmentation, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Stage

with epy.lazy_imports():
    import keras

    from zoo import layers as zoo_layers

REFERENCES = (
    "Hochreiter, Schmidhuber 1997, Long Short-Term Memory, section 4",
    "Gers, Schmidhuber, Cummins 2000, Learning to Forget (the forget gate, its initial bias 1)",
)


@register(
    ModelSpec(
        name="lstm_text",
        task="text_classification",
        summary="a bidirectional LSTM layer over word embeddings, maximum over time, for short texts",
        year=1997,
        references=(
            *REFERENCES,
            "Graves, Schmidhuber 2005, Framewise Phoneme Classification (both directions)",
            "Miyato, Dai, Goodfellow 2017, Adversarial Training Methods for Semi-Supervised Text Classification",
        ),
        input_shape=(64,),
        classes=2,
        # embedding 20,000*100; LSTM 2 * 4*(64*(100+64)+64) = 84,480; output 128*2+2
        params=2_084_738,
        head=("output",),
        features=("embedding", "lstm", "maximum"),
        arguments={"vocabulary_size": 20_000, "embedding": 100, "width": 64},
        recipes={
            "modern": Recipe(
                epochs=8,
                batch_size=64,
                learning_rate=2e-3,
                optimizer="adam",
                ema=0.99,
                options=ClassificationOptions(perturbation=1.0),
                arguments={"dropout": 0.5, "embedding_dropout": 0.5, "word_dropout": 0.5},
            )
        },
        stages=(
            Stage("head", ("output",), 1e-3, 3),
            Stage("lstm", ("lstm", "output"), 1e-3, 3),
            Stage("all", ("*",), 3e-4, 3),
        ),
    )
)
def lstm_text(
    input_shape: tuple,
    classes: int,
    *,
    vocabulary_size: int,
    embedding: int,
    width: int,
    dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    word_dropout: float = 0.0,
) -> keras.Model:
    """Word ids, int [B, T], 0 for padding and 1 for unknown words, to logits [B, classes].

    Args:
        vocabulary_size: number of word ids.
        embedding: units of the embedding.
        width: units of the LSTM in each direction.
        dropout: share of the pooled features that is zero in training.
        embedding_dropout: share of the embedding's units that is zero in training, the same at all times.
        word_dropout: share of the words that are unknown in training.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = zoo_layers.WordDropout(word_dropout, name="word_dropout")(tokens)
    x = keras.layers.Embedding(vocabulary_size, embedding, mask_zero=True, name="embedding")(x)
    x = keras.layers.SpatialDropout1D(embedding_dropout, name="embedding_dropout")(x)
    lstm = keras.layers.LSTM(width, return_sequences=True, use_cudnn=False, name="lstm_forward")
    x = keras.layers.Bidirectional(lstm, name="lstm")(x)
    x = zoo_layers.GlobalMaxPooling1D(name="maximum")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(tokens, keras.layers.Dense(classes, name="output")(x), name="lstm_text")


@register(
    ModelSpec(
        name="lstm_mnist",
        task="classification",
        summary="an LSTM layer that reads an image row by row",
        year=1997,
        references=REFERENCES,
        input_shape=(28, 28, 1),
        classes=10,
        # LSTM 4*(128*(28+128)+128); output 128*10+10
        params=80_384 + 1_290,
        preprocessing=Preprocessing(size=(28, 28)),
        head=("output",),
        features=("lstm",),
        arguments={"width": 128},
        recipes={
            "modern": Recipe(
                epochs=20,
                batch_size=128,
                learning_rate=3e-3,
                optimizer="adam",
                schedule=Schedule("cosine", warmup_epochs=1),
                ema=0.998,
                global_clip_norm=1.0,
                augmentation=Augmentation(affine=Affine(rotation=8.0, translation=0.06, scale=0.08, skew=5.0)),
                arguments={"dropout": 0.2},
                targets={"mnist": 0.988},
            )
        },
        stages=(Stage("head", ("output",), 1e-3, 3), Stage("all", ("*",), 1e-3, 3)),
    )
)
def lstm_mnist(input_shape: tuple, classes: int, *, width: int, dropout: float = 0.0) -> keras.Model:
    """Images [B, H, W, C] in 0..1 to logits [B, classes]: the rows from top to bottom are the sequence.

    Args:
        width: units of the LSTM.
        dropout: share of the last state that is zero in training.
    """
    inputs = keras.Input(input_shape, name="images")
    x = keras.layers.Reshape((input_shape[0], input_shape[1] * input_shape[2]), name="rows")(inputs)
    x = zoo_layers.LSTM(width, unroll=True, name="lstm")(x)  # without a loop, which LiteRT could not read
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="output")(x), name="lstm_mnist")
