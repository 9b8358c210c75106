"""Language models and classifiers of texts: answers that are known, streams, padding, generation and scoring."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import zoo
from zoo import layers as zoo_layers
from zoo import tasks, testing
from zoo.cli import app
from zoo.data import Dataset, Split
from zoo.tasks import characters
from zoo.training.batches import training_batches
from zoo.training.randomness import dtype_policy
from zoo.weights import named_weights

SMALL = {"embedding": 4, "width": 8, "layers": 1}
NO_DROPOUT = {"dropout": 0.0, "input_dropout": 0.0, "embedding_dropout": 0.0, "weight_drop": 0.0}
PLAIN = {"schedule": {}, "ema": None, "arguments": {**SMALL, **NO_DROPOUT}}
RECURRENT = ["lstm_text", "lstm_mnist", "lstm_char", "gru_char", "simple_rnn_char"]


def prose(*texts):
    """A data set of a training, a validation and a test text, the last of which may stand for those that follow."""
    texts = [*texts, *[texts[-1]] * (3 - len(texts))]
    parts = zip(("train", "validation", "test"), texts, strict=True)
    return Dataset("prose", {name: Split(np.array([text], object)) for name, text in parts})


def char_task(data, name="lstm_char", window=4, **arguments):
    spec = zoo.get_spec(name)
    return tasks.get_task(spec.task).from_data(spec, data, (window,), **{**SMALL, **arguments})


# --- answers that are known --------------------------------------------------------------------------------------

FOLLOWS = [0, 0.9, 0.05, 0.05]  # probabilities that 0 to 3 letters later in the alphabet a, b, c, d, a... comes next


def chain(length: int, seed: int) -> tuple[str, float]:
    """A text of a source that draws each letter by the last one, and its nats a letter under these probabilities: no
    model can do better but by chance. No letter follows itself, so that a model whose targets were its inputs would be
    right each time."""
    steps = np.random.default_rng(seed).choice(4, size=length, p=FOLLOWS)
    return "".join("abcd"[number] for number in np.cumsum(steps) % 4), -np.log(np.take(FOLLOWS, steps)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_char", "gru_char", "simple_rnn_char"])
def test_a_language_model_reaches_the_entropy_of_its_source(name, tmp_path):
    lengths = {"train": 16_000, "validation": 8_000, "test": 6_000}
    chains = {split: chain(length, seed) for seed, (split, length) in enumerate(lengths.items())}
    data = prose(*(text for text, _ in chains.values()))
    arguments = SMALL | (NO_DROPOUT if name == "lstm_char" else {})
    run = zoo.train(
        name, data, out=tmp_path, input_shape=(20,), epochs=3, batch_size=40, learning_rate=0.05,
        schedule={}, ema=None, arguments=arguments,
    )  # fmt: skip
    losses = [row["val_loss"] for row in run.history]
    assert losses[run.best_epoch - 1] == min(losses) < max(losses)
    for split, scores in run.metrics.items():
        text, entropy = chains[split]
        assert scores["loss"] == pytest.approx(entropy, abs=0.02), split
        assert scores["carried_loss"] == pytest.approx(entropy, abs=0.02), split
        assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]), rel=1e-3)
        assert scores["bits_per_character"] == pytest.approx(scores["loss"] / math.log(2), rel=1e-3)
        follows = np.mean([pair in ("ab", "bc", "cd", "da") for pair in map("".join, itertools.pairwise(text))])
        assert scores["accuracy"] == pytest.approx(follows, abs=0.01), split
    outputs = zoo.load(run)(["bcda", "bcdabcdbc", "bcd"])[
        "probabilities"
    ]  # each follows an a, as the vocabulary begins
    expected = [[0, 0.9, 0.05, 0.05], [0.05, 0.05, 0, 0.9], [0.9, 0.05, 0.05, 0]]
    np.testing.assert_allclose(outputs, expected, atol=0.06)
    nats = zoo.score(run, "bcda")[0].character_nats
    np.testing.assert_allclose(nats, [-math.log(0.9)] * 4, atol=0.12)


@pytest.mark.slow
def test_a_text_classifier_learns_which_of_two_words_a_text_contains(tmp_path):
    """`yes` or `no` among words without a meaning, early and late."""
    random, classes = np.random.default_rng(0), ("yes", "no")
    labels = np.arange(300, dtype=np.int64) % 2
    texts = []
    for label in labels:
        words = list(random.choice(["of", "the", "and"], random.integers(1, 8)))
        words.insert(random.integers(len(words) + 1), classes[label])
        texts.append(" ".join(words))
    whole = Split(np.array(texts, object), labels)
    parts = {"train": slice(0, 120), "validation": slice(120, 210), "test": slice(210, 300)}
    data = Dataset("words", {name: whole.take(part) for name, part in parts.items()}, classes)
    run = zoo.train(
        "lstm_text", data, out=tmp_path, epochs=8, batch_size=20, learning_rate=0.05, ema=None,
        arguments={"vocabulary_size": 20, "embedding": 8, "width": 8},
    )  # fmt: skip
    assert run.metrics["validation"]["accuracy"] == run.metrics["test"]["accuracy"] == 1.0
    for number, name in enumerate(classes):
        outputs = zoo.load(run)([f"of {name} the", f"the of and {name}", f"{name.upper()}!"])
        assert outputs["class_names"].tolist() == [name.encode()] * 3
        assert outputs["class_ids"].tolist() == [number] * 3
        assert (outputs["probabilities"][:, number] > 0.5).all()
    assert [row["class"] for row in zoo.predict(run, ["the yes", "no of the"])] == ["yes", "no"]


@pytest.mark.slow
def test_a_stream_that_needs_context_older_than_one_window(tmp_path):
    """In aabaab... an `a` is followed by `a` or by `b`, as the character before it tells. In windows of one character
    only the carried state knows that one."""
    run = zoo.train(
        "lstm_char", prose("aab" * 240), out=tmp_path, input_shape=(1,), epochs=3, batch_size=9,
        learning_rate=0.05, **PLAIN,
    )  # fmt: skip
    without = 2 / 3 * math.log(2)  # nats of the best guess by one character alone
    assert run.history[-1]["loss"] < 0.2 * without
    assert run.metrics["test"]["carried_loss"] < 0.2 * without


# --- streams -----------------------------------------------------------------------------------------------------


def test_windows_are_consecutive_and_their_targets_are_the_next_characters():
    data = prose("abcdefghijklmnopq")
    task = char_task(data)
    recipe = task.with_options(task.spec.recipe()).replace(epochs=2, batch_size=2)
    batches, steps = training_batches(task, data.splits["train"], recipe, seed=0)
    letters = np.array(task.vocabulary)
    read = [
        (["".join(row) for row in letters[inputs["tokens"]]], ["".join(row) for row in letters[targets]])
        for inputs, targets in batches.as_numpy_iterator()
    ]
    first, second = (["abcd", "ijkl"], ["bcde", "jklm"]), (["efgh", "mnop"], ["fghi", "nopq"])
    assert read == [first, second] * 2
    assert steps == 2


def trainer_of(task, rows):
    recipe = task.with_options(task.spec.recipe()).replace(batch_size=rows, ema=None)
    model = task.build()
    return model, task.compile(model, recipe, lambda: keras.optimizers.SGD(0.0))


def test_the_state_is_carried_from_window_to_window_and_reset_where_a_stream_begins():
    data = prose("abcdefgh" * 40)
    task = char_task(data, layers=2)
    model, trainer = trainer_of(task, rows=3)
    tokens, targets, numbers = task.examples(data.splits["train"], task.Options())
    order = task.order(len(tokens), 3, tf.constant([0, 0])).numpy()

    def step(index):
        trainer.train_on_batch(*task.network_batch(tokens[index], targets[index], numbers[index]))
        return {name: state.numpy() for name, state in trainer.carried.items()}

    beginning = step(order[0])
    carried = step(order[1])
    both = np.concatenate([tokens[order[0]], tokens[order[1]]], axis=1)
    expected = model({"tokens": both, **{name: np.zeros((3, 8), np.float32) for name in carried}})
    for name, state in carried.items():
        np.testing.assert_allclose(state, expected[name], atol=1e-6, err_msg=name)
        assert np.abs(state - beginning[name]).max() > 1e-3
    again = step(order[0])
    for name, state in again.items():
        np.testing.assert_allclose(state, beginning[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path):
    """With all kinds of dropout, whose random state is resumed too."""
    settings = {
        "input_shape": (8,), "batch_size": 4, "learning_rate": 0.01, "schedule": {}, "ema": 0.9,
        "arguments": {**SMALL, **dict.fromkeys(NO_DROPOUT, 0.2)},
    }  # fmt: skip
    data = prose("the quick brown fox " * 30)
    whole = zoo.train("lstm_char", data, out=tmp_path / "whole", epochs=2, **settings)
    zoo.train("lstm_char", data, out=tmp_path / "parts", epochs=1, **settings)
    parts = zoo.train("lstm_char", data, out=tmp_path / "parts", epochs=2, **settings)
    for key, variable in named_weights(whole.model).items():
        np.testing.assert_array_equal(named_weights(parts.model)[key].numpy(), variable.numpy(), err_msg=key)
    assert [row["loss"] for row in parts.history] == [row["loss"] for row in whole.history]


def test_dropout_in_training_alone():
    data = prose("abcdefgh" * 40)
    for name in NO_DROPOUT:
        task = char_task(data, **{name: 0.5})
        model = task.build()
        inputs = {"tokens": np.arange(8)[None], "h_1": np.zeros((1, 8)), "c_1": np.zeros((1, 8))}
        evaluated, *trained = (model(inputs, training=training)["logits"].numpy() for training in (False, True, True))
        np.testing.assert_array_equal(model(inputs, training=False)["logits"], evaluated)
        assert np.abs(trained[0] - evaluated).max() > 1e-6, name
        assert np.abs(trained[0] - trained[1]).max() > 1e-6, name


def test_weight_drop_takes_the_same_weights_at_all_times():
    """With one unit and all gates open, the state counts the times at which its recurrent weight is there."""
    lstm = zoo_layers.LSTM(64, 0.5, return_sequences=True)
    lstm.build((None, None, 1))
    kernel, recurrent, bias = lstm.get_weights()
    lstm.set_weights([np.zeros_like(kernel), 0.01 * np.ones_like(recurrent), bias])
    states = [np.ones((2, 64), np.float32), np.zeros((2, 64), np.float32)]
    outputs = lstm(np.zeros((2, 3, 1), np.float32), initial_state=states, training=True).numpy()
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-7)  # the same weights for all rows
    assert len(np.unique(outputs[0, 0].round(6))) > 30  # and others for each unit


def test_the_fast_training_loop_is_kerass():
    inputs = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    for options in ({}, {"return_sequences": True}, {"activation": "relu", "unit_forget_bias": False}):
        own, plain = zoo_layers.LSTM(6, **options), keras.layers.LSTM(6, **options)
        own.build(inputs.shape)
        plain.build(inputs.shape)
        plain.set_weights(own.get_weights())
        np.testing.assert_allclose(own(inputs, training=True), plain(inputs), atol=1e-6)


# --- padding -----------------------------------------------------------------------------------------------------


def test_padding_changes_neither_a_classifier_nor_its_gradient():
    keras.utils.set_random_seed(0)
    model = zoo.create_model("lstm_text", classes=2, vocabulary_size=20, embedding=6, width=5)
    tokens = np.array([[3, 4, 5], [6, 7, 0]])
    results = []
    for padding in (0, 9):
        with tf.GradientTape() as tape:
            logits = model(np.pad(tokens, ((0, 0), (0, padding))))
            loss = tf.reduce_sum(logits[:, 0])
        results.append((logits, *map(tf.convert_to_tensor, tape.gradient(loss, model.trainable_variables))))
    for plain, padded in zip(*results, strict=True):
        np.testing.assert_allclose(plain, padded, atol=1e-6)


def test_a_text_has_the_same_outputs_beside_longer_ones(language, classifier):
    texts = ["the", "", "the quick brown fox"]
    for predictor, signature in ((language, "serving_default"), (language, "score"), (classifier, "serving_default")):
        together = predictor(texts, signature=signature)
        for place, text in enumerate(texts):
            for name, alone in predictor([text], signature=signature).items():
                if alone.dtype != object:
                    beside = together[name][place]
                    beside = beside[: alone.shape[1]] if alone.ndim > 1 else beside
                    np.testing.assert_allclose(beside, alone[0], atol=1e-6, err_msg=name)


def test_long_texts_are_cut_to_their_first_words():
    data = testing.example_data("text_classification")
    spec = zoo.get_spec("lstm_text")
    task = tasks.get_task(spec.task).from_data(spec, data, (3,), vocabulary_size=20, embedding=2, width=2)
    tokens = task.tokens(task.tokenizer(), tf.constant(["Dull, weak! POOR flat", "dull,weak", "\n", ""]))
    numbers = [task.vocabulary.index(word) + 2 for word in ("dull", "weak")]
    assert tokens.numpy().tolist() == [[numbers[0], 1, numbers[1]]] * 2 + [[1, 0, 0]] * 2


@pytest.mark.slow
def test_two_devices_carry_the_state_as_one(tmp_path):
    data = testing.example_data("language_model")
    one, two = (
        zoo.train(
            "gru_char", data, out=tmp_path / devices, devices=devices, epochs=2, batch_size=8,
            arguments={"embedding": 8, "width": 8},
        )
        for devices in ("cpu", "cpu:2")
    )  # fmt: skip
    for first, second in zip(one.record["history"], two.record["history"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
        assert second["val_loss"] == pytest.approx(first["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_an_adversarial_step_is_that_of_both_losses():
    """The gradient is that on the embedding as it is, plus that on the embedding one step along its own gradient."""
    spec, data = zoo.get_spec("lstm_text"), testing.example_data("text_classification")
    task = tasks.get_task(spec.task).from_data(spec, data, vocabulary_size=20, embedding=3, width=2)
    keras.utils.set_random_seed(2)
    model = task.build()
    table = model.get_layer("embedding").embeddings
    tokens, labels = np.array([[2, 3, 4], [5, 2, 0]]), np.eye(2)

    def gradients():
        with tf.GradientTape() as tape:
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)(labels, model(tokens))
        return float(loss), [
            tf.convert_to_tensor(one).numpy() for one in tape.gradient(loss, model.trainable_variables)
        ]

    start = [variable.numpy() for variable in model.trainable_variables]
    loss, first = gradients()
    table.assign_add(0.7 * first[0] / np.linalg.norm(first[0]))
    higher, second = gradients()
    assert higher > loss
    table.assign(start[0])
    recipe = task.with_options(spec.recipe()).replace(perturbation=0.7)
    trainer = task.compile(model, recipe, lambda: keras.optimizers.SGD(0.1))
    logs = trainer.train_on_batch(tokens, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    for variable, before, one, other in zip(model.trainable_variables, start, first, second, strict=True):
        np.testing.assert_allclose(variable, before - 0.1 * (one + other), atol=1e-6)


def test_balanced_classes_of_texts_weigh_the_same():
    texts = Split(np.array(["good"] * 3 + ["bad"], object), np.array([1, 1, 1, 0]))
    data = Dataset("texts", dict.fromkeys(("train", "validation", "test"), texts), ("bad", "good"))
    spec = zoo.get_spec("lstm_text")
    task = tasks.get_task(spec.task).from_data(spec, data)
    recipe = task.with_options(spec.recipe()).replace(class_weight="balanced", batch_size=4)
    batches, _ = training_batches(task, texts, recipe, seed=0)
    _, labels, weights = next(iter(batches))
    np.testing.assert_allclose(weights, np.where(labels[:, 0] == 1, 2, 2 / 3), rtol=1e-6)


def test_an_adversarial_step_in_float16_is_as_long_as_in_float32():
    """Keras multiplies losses in float16 by a large number, and divides the gradients by it."""
    spec, data = zoo.get_spec("lstm_text"), testing.example_data("text_classification")
    task = tasks.get_task(spec.task).from_data(spec, data, vocabulary_size=20, embedding=3, width=2)
    changes = []
    for precision in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(2)
        with dtype_policy(precision):
            model = task.build()
            recipe = task.with_options(spec.recipe()).replace(perturbation=0.7)
            trainer = task.compile(model, recipe, lambda: keras.optimizers.SGD(0.1))
        before = model.get_layer("output").kernel.numpy()
        trainer.train_on_batch(np.array([[2, 3, 4], [5, 2, 0]]), np.eye(2))
        changes.append(model.get_layer("output").kernel.numpy() - before)
    assert np.abs(changes[0]).max() > 1e-3
    np.testing.assert_allclose(changes[1], changes[0], atol=1e-3)


def test_a_frozen_embedding_is_not_perturbed():
    spec, data = zoo.get_spec("lstm_text"), testing.example_data("text_classification")
    task = tasks.get_task(spec.task).from_data(spec, data, vocabulary_size=20, embedding=3, width=2)
    model = task.build()
    model.get_layer("embedding").trainable = False
    table = model.get_layer("embedding").embeddings.numpy()
    recipe = task.with_options(spec.recipe()).replace(perturbation=0.7)
    trainer = task.compile(model, recipe, lambda: keras.optimizers.SGD(0.1))
    before = model.get_layer("output").kernel.numpy()
    trainer.train_on_batch(np.array([[2, 3, 4], [5, 2, 0]]), np.eye(2))
    assert np.array_equal(model.get_layer("embedding").embeddings, table)
    assert not np.array_equal(model.get_layer("output").kernel, before)


def test_perturbation_needs_an_embedding():
    spec = zoo.get_spec("mlp_784_10")
    task = tasks.get_task(spec.task).from_data(spec, testing.example_data(spec.task))
    recipe = task.with_options(spec.recipe()).replace(perturbation=1.0)
    with pytest.raises(zoo.ZooError, match="perturbation moves one embedding layer, mlp has 0: leave it out"):
        task.compile(task.build(), recipe, keras.optimizers.SGD)


# --- generation and scoring --------------------------------------------------------------------------------------


def predictor_of(name, **arguments):
    """A network with initial weights, ready to predict."""
    spec = zoo.get_spec(name)
    task = tasks.get_task(spec.task).from_data(spec, testing.example_data(spec.task), **arguments)
    keras.utils.set_random_seed(1)
    return zoo.load(SimpleNamespace(task=task, model=task.build(), recipe=spec.recipe()))


@pytest.fixture(scope="module")
def language():
    return predictor_of("lstm_char", embedding=8, width=16)


@pytest.fixture(scope="module")
def classifier():
    return predictor_of("lstm_text", vocabulary_size=50, embedding=4, width=4)


NUMBERS = {"length": 40, "temperature": 0.9, "top_k": 9, "top_p": 0.95, "seed": 3}


def test_a_streamed_text_is_that_of_the_signature(language):
    pieces = [*zoo.generate(language, "the quick", **NUMBERS)]
    assert pieces == [*zoo.generate(language, "the quick", **NUMBERS)]
    assert len(pieces) > 1
    (text,) = language(["the quick"], signature="generate", **NUMBERS)["texts"]
    assert "the quick" + "".join(pieces) == text.decode()


def test_generation_takes_one_step_a_character(language):
    shapes = []

    def network(inputs):
        shapes.append(inputs["tokens"].shape)
        return language.model(inputs)

    model = language.task.characters(language.model, network)
    sampling = {name: tf.constant(NUMBERS[name], dtype) for name, dtype in characters.SAMPLING.items()}
    model.generate(tf.constant(["the", "fox"]), tf.constant(5), sampling)
    assert shapes == [(2, 1)] * (3 + 5)


def test_top_p_draws_from_the_most_probable_characters():
    logits = tf.tile(tf.math.log(tf.constant([[0.1, 0.5, 0.15, 0.25]])), [1000, 1])

    def drawn(**changed):
        numbers = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0, **changed}
        numbers = {name: tf.constant(numbers[name], dtype) for name, dtype in characters.SAMPLING.items()}
        return np.bincount(characters.draw(logits, tf.constant(0), **numbers).numpy(), minlength=4) / 1000

    np.testing.assert_allclose(drawn(), [0.1, 0.5, 0.15, 0.25], atol=0.08)
    np.testing.assert_allclose(drawn(top_p=0.6), [0, 2 / 3, 0, 1 / 3], atol=0.08)
    np.testing.assert_allclose(drawn(top_p=0.45), [0, 1, 0, 0])
    np.testing.assert_allclose(drawn(top_k=3, top_p=0.8), [0, 2 / 3, 0, 1 / 3], atol=0.08)  # 0.25 and 0.5 of 0.9
    np.testing.assert_allclose(drawn(temperature=0.0), [0, 1, 0, 0])
    np.testing.assert_allclose(drawn(temperature=0.5), np.array([1, 25, 2.25, 6.25]) / 34.5, atol=0.08)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"length": 10_001}, "length must be from 1 to 10000"),
        ({"length": 0}, "length must be from 1 to 10000"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
    ],
    ids=str,
)
def test_numbers_out_of_range(language, changed, message):
    numbers = {**NUMBERS, **changed}
    with pytest.raises(zoo.ZooError, match=message):
        zoo.generate(language, "the", **numbers)
    with pytest.raises(zoo.ZooError, match=message):
        language(["the"], signature="generate", **numbers)


def test_seeds_are_not_wrapped(language):
    with pytest.raises(zoo.ZooError, match="the seed must be from 0 to"):
        zoo.generate(language, "the", **{**NUMBERS, "seed": 2**32 + 1})


def test_a_score_is_the_sum_of_the_characters_nats(language):
    text = "the qu"
    begun = [text[:end] for end in range(len(text))]
    probabilities = language(begun)["probabilities"]
    chosen = [
        row[language.task.vocabulary.index(character)] for row, character in zip(probabilities, text, strict=True)
    ]
    (score,) = zoo.score(language, text)
    np.testing.assert_allclose(score.character_nats, -np.log(chosen), rtol=1e-4)
    assert score.nats == pytest.approx(-np.log(chosen).sum(), rel=1e-4)
    assert score.bits_per_character == pytest.approx(score.nats / math.log(2) / len(text))


def test_empty_and_unknown_texts_have_scores(language):
    empty, unknown, first = zoo.score(language, ["", "Ω", language.task.vocabulary[0]])
    assert (empty.nats, empty.bits_per_character, len(empty.character_nats)) == (0.0, 0.0, 0)
    assert unknown.nats == pytest.approx(first.nats)
    (invalid,) = language([b"\xff"], signature="score")["nats"]
    assert invalid == pytest.approx(first.nats)


def test_only_language_models_write_and_score(classifier):
    for call in (zoo.generate, zoo.score):
        with pytest.raises(zoo.ZooError, match="lstm_text is no language model"):
            call(classifier, "the")


@pytest.mark.slow
def test_the_commands(language, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = language.task
    path = zoo.export(
        language.model, "lstm_char.fox", spec=task.spec, classes=task.classes, vocabulary=task.vocabulary,
        arguments=task.arguments,
    )  # fmt: skip
    path = str(path.parent)
    numbers = [part for name, value in NUMBERS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    written = CliRunner().invoke(app, ["generate", path, "--prompt", "the quick", *numbers])
    assert written.stdout == "the quick" + "".join(zoo.generate(language, "the quick", **NUMBERS)) + "\n"
    scored = CliRunner().invoke(app, ["score", path, "the fox", "eht xof", "--json", "--picture", "scores.png"])
    likely, unlikely = json.loads(scored.stdout)
    assert [row["text"] for row in (likely, unlikely)] == ["the fox", "eht xof"]
    assert likely["nats"] == pytest.approx(sum(likely["character_nats"]))
    assert (tmp_path / "scores.png").stat().st_size > 1000
    lines = CliRunner().invoke(app, ["score", path, "the fox", "eht xof"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{row['nats']:.4f}" for row in (likely, unlikely)]
    predicted = CliRunner().invoke(app, ["predict", path, "the", "fox\n", "--top", "2"]).stdout.splitlines()
    assert [line.partition("  ")[0] for line in predicted] == ["the", "fox\\n"]
    _, _, probability, _, less = predicted[0].split("  ")
    assert float(probability) >= float(less)


# --- exports -----------------------------------------------------------------------------------------------------


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", RECURRENT)
def test_no_graph_has_an_operation_of_cudnn(name):
    """On a machine with a GPU Keras writes them into a graph of its own accord, and no CPU serves them."""
    spec = zoo.get_spec(name)
    task = tasks.get_task(spec.task).from_data(spec, testing.example_data(spec.task))
    model = task.build()
    recurrent = [getattr(layer, "forward_layer", layer) for layer in model.layers]
    recurrent = [layer for layer in recurrent if isinstance(layer, keras.layers.RNN)]
    assert recurrent
    assert not any(getattr(layer, "use_cudnn", False) for layer in recurrent)
    for function in task.signatures(model).values():
        graph = function.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
        assert not [node.op for node in nodes if "cudnn" in node.op.lower()]


def test_characters_outside_the_vocabulary_are_counted(language, capsys):
    task = zoo.load(language).task
    assert set("ab") <= set(task.vocabulary)
    task.examples(prose("ab12" * 80).splits["test"])
    (line,) = capsys.readouterr().err.splitlines()
    counted = f"count as {task.vocabulary[0]!r}: '1', '2'"
    assert line == f"note: 160 of 320 characters are not in the vocabulary and {counted}"


def test_a_path_is_no_text(language):
    with pytest.raises(zoo.ZooError, match=r"takes texts, not files such as review\.txt"):
        zoo.predict(language, Path("review.txt"))


def test_a_language_model_predicts_a_character(language):
    (row,) = zoo.predict(language, ["the"])
    assert row["classes"] == [*language.task.vocabulary]
    assert row["class"] == row["classes"][np.argmax(row["probabilities"])]
    assert row["probability"] == max(row["probabilities"])


@pytest.mark.slow
def test_a_network_with_tied_weights_is_fine_tuned(tmp_path, unverified):
    Path("text.txt").write_text("abcab " * 500)
    small = {"embedding": 4, "width": 8, "layers": 1, "tied": True, "weight_drop": 0.0}
    run = zoo.train("lstm_char", "text.txt", epochs=1, batch_size=2, input_shape=(8,), arguments=small)
    path = zoo.export(run, "lstm_char.tied")
    tuned = zoo.fine_tune(path, "text.txt", epochs=1, batch_size=2)
    assert [row["stage"] for row in tuned.history] == ["vocabulary", "all"]


@pytest.mark.parametrize("argument", ["layers=0", "weight_drop=-0.1", "weight_drop=1.0", "embedding_dropout=1.5"])
def test_arguments_out_of_range(argument, refused):
    Path("text.txt").write_text("abcab " * 200)
    name = argument.partition("=")[0].replace("_dropout", " dropout")
    refused(f"train lstm_char --data text.txt --arg {argument}", f"{name} must be ")


def test_tied_weights():
    arguments = {"embedding": 12, "width": 8, "layers": 2}
    tied = zoo.create_model("lstm_char", classes=5, tied=True, **arguments)
    assert [layer.name for layer in tied.layers if layer.name == "output"] == []
    table = tied.get_layer("embedding").embeddings
    assert table.shape == (5, 12)
    inputs = {"tokens": np.array([[1, 2]]), **{name: np.zeros((1, width)) for name, width in
              {"h_1": 8, "c_1": 8, "h_2": 12, "c_2": 12}.items()}}  # fmt: skip
    hidden = keras.Model(tied.input, tied.get_layer("lstm_2").output)(inputs)[0]
    np.testing.assert_allclose(tied(inputs)["logits"], hidden @ np.array(table).T, atol=1e-5)
