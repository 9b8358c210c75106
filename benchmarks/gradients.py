"""How far back in time the gradient reaches: simple recurrent units, GRU and LSTM, before and after training.

    python benchmarks/gradients.py   (a text of its own; five minutes)

Each network learns to repeat letters after a pause, for which it must keep them. The norm of the gradient of the last
logits with respect to the embedding of each earlier character, relative to that of the last one, is the mean over 64
windows. Writes docs/gradients.png and results/gradients.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import write_results
from matplotlib.figure import Figure

import zoo

# A simple recurrent network is shown with Keras' orthogonal recurrent kernel and with multiples of it: its gradient
# falls or grows by about the factor at each step, a gated network's need not.
NETWORKS = {
    "simple recurrent units": ("simple_rnn_char", 1.0),
    "simple, recurrent kernel x 0.5": ("simple_rnn_char", 0.5),
    "simple, recurrent kernel x 2": ("simple_rnn_char", 2.0),
    "GRU": ("gru_char", 1.0),
    "LSTM": ("lstm_char", 1.0),
}
LETTERS, PAUSE, WINDOW, WIDTH = 8, 20, 48, 64


def windows(count: int, seed: int) -> np.ndarray:
    """Texts int [count, WINDOW + 1]: a letter, then `PAUSE` dots, then the letter again, and so on."""
    random = np.random.default_rng(seed)
    letters = np.repeat(random.integers(1, LETTERS, (count, 1 + WINDOW // (2 * PAUSE))), 2, axis=1)
    texts = np.zeros((count, WINDOW + 1), np.int32)
    for place in range(letters.shape[1]):
        if place * PAUSE <= WINDOW:
            texts[:, place * PAUSE] = letters[:, place]
    return texts


def norms(model: keras.Model, tokens: np.ndarray) -> np.ndarray:
    """By distance 0, 1, ... from the last character the norm of the gradient with respect to its embedding."""
    states = {
        name: tf.zeros([len(tokens), tensor.shape[-1]]) for name, tensor in model.input.items() if name != "tokens"
    }
    embedding, first = model.get_layer("embedding"), model.get_layer("input_dropout").output
    recurrent = keras.Model({first.name: first, **{name: model.input[name] for name in states}}, model.output["logits"])
    vectors = embedding(tokens)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        last = recurrent({first.name: vectors, **states})[:, -1]
        target = tf.reduce_sum(tf.reduce_max(tf.nn.log_softmax(last), -1))
    found = tf.norm(tape.gradient(target, vectors), axis=-1).numpy()[:, ::-1]
    return (found / found[:, :1]).mean(0)


def training_step(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """One step of training on windows int [B, WINDOW + 1]; returns the loss."""
    optimizer = keras.optimizers.Adam(2e-3, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    widths = {key: tensor.shape[-1] for key, tensor in model.input.items() if key != "tokens"}

    @tf.function
    def step(tokens: tf.Tensor) -> tf.Tensor:
        states = {key: tf.zeros([tf.shape(tokens)[0], width]) for key, width in widths.items()}
        with tf.GradientTape() as tape:
            logits = model({"tokens": tokens[:, :-1], **states}, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tokens[:, 1:], logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


def draw(measured: dict[str, dict[str, list[float]]]) -> None:
    drawing = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, moment in zip(drawing.subplots(1, 2, sharey=True), ("initial", "trained"), strict=True):
        for label, found in measured.items():
            axes.semilogy(found[moment], label=label)
        axes.set(title=f"{moment} weights", xlabel="distance in characters")
    drawing.axes[0].set(ylabel="relative norm of the gradient", ylim=(1e-9, 1e3))
    drawing.axes[1].legend(loc="lower left")
    drawing.savefig(Path(__file__).parents[1] / "docs" / "gradients.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
    measured: dict[str, dict[str, list[float]]] = {}
    for label, (name, factor) in NETWORKS.items():
        keras.utils.set_random_seed(0)
        model = zoo.create_model(name, classes=LETTERS, embedding=16, width=WIDTH, layers=1)
        for variable in model.trainable_variables:
            if variable.name == "recurrent_kernel":
                variable.assign(variable * factor)
        step = training_step(model)
        tokens = windows(64, seed=10**6)[:, :-1]
        before = norms(model, tokens)
        for number in range(arguments.steps):
            loss = step(tf.constant(windows(32, seed=number)))
        measured[label] = {"initial": before.tolist(), "trained": norms(model, tokens).tolist(), "loss": [float(loss)]}
        far = {moment: f"{measured[label][moment][20]:.1e}" for moment in ("initial", "trained")}
        print(f"{label}: loss {float(loss):.4f}, gradient at distance 20:", far, flush=True)
    draw(measured)
    print(f"wrote docs/gradients.png and {write_results('gradients', {'steps': arguments.steps, 'norms': measured})}")


if __name__ == "__main__":
    main()
