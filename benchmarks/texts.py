"""Characters a second of a character LSTM: training against plain Keras and PyTorch, and generation against a loop that
calls the network on the whole text again for each character.

    pip install torch
    python benchmarks/texts.py       (--quick: a smoke run, which writes nothing)

All have the same layers, sizes, batches, loss, optimizer and gradient clipping, and no dropout. The contenders take
turns. Generation is also measured at several lengths: its seconds grow with the length.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import torch
from common import interleaved, ratios, write_results

import zoo
from zoo import tasks
from zoo.data import Dataset, Split

VOCABULARY = [chr(97 + number) for number in range(26)]


def zoo_training(tokens: np.ndarray, width: int) -> Callable[[], float]:
    spec = zoo.get_spec("lstm_char")
    text = Split(np.array(["".join(VOCABULARY) * 50], object))
    data = Dataset("letters", dict.fromkeys(("train", "validation", "test"), text))
    kind = tasks.get_task(spec.task)
    task = kind.from_data(spec, data, (tokens.shape[1] - 1,), width=width)
    recipe = kind.with_options(task, spec.recipe()).replace(batch_size=len(tokens), ema=None)
    trainer = task.compile(task.build(), recipe, lambda: keras.optimizers.Adam(2e-3, beta_2=0.99, global_clipnorm=1.0))
    window = np.zeros(len(tokens), np.int32)
    return lambda: timed(
        lambda: trainer.train_on_batch({"tokens": tokens[:, :-1], "window": window}, tokens[:, 1:]), tokens
    )


def keras_training(tokens: np.ndarray, width: int) -> Callable[[], float]:
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(len(VOCABULARY), 64)(inputs)
    for _ in range(2):
        x = keras.layers.LSTM(width, return_sequences=True)(x)
    model = keras.Model(inputs, keras.layers.Dense(len(VOCABULARY))(x))
    model.compile(
        keras.optimizers.Adam(2e-3, beta_2=0.99, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return lambda: timed(lambda: model.train_on_batch(tokens[:, :-1], tokens[:, 1:]), tokens)


def torch_training(tokens: np.ndarray, width: int) -> Callable[[], float]:
    embedding, output = torch.nn.Embedding(len(VOCABULARY), 64), torch.nn.Linear(width, len(VOCABULARY))
    lstm = torch.nn.LSTM(64, width, num_layers=2, batch_first=True)
    weights = [*embedding.parameters(), *lstm.parameters(), *output.parameters()]
    optimizer = torch.optim.Adam(weights, 2e-3, betas=(0.9, 0.99))
    inputs, targets = torch.from_numpy(tokens[:, :-1]).long(), torch.from_numpy(tokens[:, 1:]).long()

    def step() -> None:
        optimizer.zero_grad()
        logits = output(lstm(embedding(inputs))[0])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return lambda: timed(step, tokens)


def timed(step: Callable[[], object], tokens: np.ndarray, steps: int = 3) -> float:
    """Characters a second."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * tokens[:, 1:].size / (time.perf_counter() - start)


def generation(predictor: zoo.Predictor, length: int) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        written = sum(map(len, zoo.generate(predictor, "a", length=length)))
        return written / (time.perf_counter() - start)

    return once


def prefixes(predictor: zoo.Predictor, length: int) -> Callable[[], float]:
    """What a plain Keras loop does: the network on the whole text for each next character."""
    model = predictor.task.characters(predictor.model)
    network = tf.function(
        lambda tokens: predictor.model({"tokens": tokens, **model.zero_states(tokens)})["logits"][:, -1]
    )
    function = network.get_concrete_function(tf.TensorSpec([1, None], tf.int32))

    def once() -> float:
        tokens, random = np.zeros((1, 1), np.int32), np.random.default_rng(0)
        start = time.perf_counter()
        for _ in range(length):
            shares = tf.nn.softmax(function(tf.constant(tokens)))[0].numpy().astype(float)
            drawn = random.choice(len(shares), p=shares / shares.sum())
            tokens = np.append(tokens, [[np.int32(drawn)]], axis=1)
        return length / (time.perf_counter() - start)

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run, which writes nothing")
    arguments = parser.parse_args()
    width, rows, window, repeats, length = (16, 4, 8, 1, 20) if arguments.quick else (384, 64, 64, 5, 500)
    tokens = np.random.default_rng(0).integers(0, len(VOCABULARY), (rows, window + 1)).astype(np.int32)
    contenders = {
        "zoo": zoo_training(tokens, width),
        "keras": keras_training(tokens, width),
        "pytorch": torch_training(tokens, width),
    }
    training = interleaved(contenders, repeats)
    spec = zoo.get_spec("lstm_char")
    text = Split(np.array(["".join(VOCABULARY)], object))
    data = Dataset("letters", dict.fromkeys(("train", "validation", "test"), text))
    task = tasks.get_task(spec.task).from_data(spec, data, width=width)

    class Fresh:
        recipe = spec.recipe()

        def __init__(self) -> None:
            self.task, self.model = task, task.build()

    predictor = zoo.load(Fresh())
    writing = interleaved(
        {"steps": generation(predictor, length), "prefixes": prefixes(predictor, length)}, min(repeats, 3)
    )
    lengths = [length // 2, length, 2 * length, 4 * length]
    by_length = {str(one): one / generation(predictor, one)() for one in lengths}
    compared = {
        "zoo / keras": ratios(training, "zoo", "keras"),
        "zoo / pytorch": ratios(training, "zoo", "pytorch"),
        "generation: steps / prefixes": ratios(writing, "steps", "prefixes"),
    }
    for name, value in {**training, **writing}.items():
        print(f"{name:10} {value['median']:10,.0f} characters/s")
    for name, value in compared.items():
        print(f"{name:30} {value['median']:.2f} ({value['smallest']:.2f} to {value['largest']:.2f})")
    print("seconds by length:", {name: round(seconds, 2) for name, seconds in by_length.items()})
    if not arguments.quick:
        results = {"width": width, "batch": [rows, window], "training": training, "generation": writing}
        results |= {"generated_characters": length, "seconds_by_length": by_length, "ratios": compared}
        print(f"wrote {write_results('texts', results)}")


if __name__ == "__main__":
    main()
