"""The signatures that generate texts and images, on networks with initial weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import tasks, testing

PROMPTS = ["the quick", "fox", ""]


@pytest.fixture(scope="module")
def texts():
    spec, data = zoo.get_spec("lstm_char"), testing.example_data("language_model")
    task = tasks.get_task(spec.task).from_data(spec, data, embedding=8, width=16)
    keras.utils.set_random_seed(1)
    return task.signatures(task.build())


def generated(signatures, prompts, *, length=6, temperature=1.0, top_k=0, top_p=1.0, seed=0):
    numbers = {"length": length, "top_k": top_k, "seed": seed}
    inputs = {name: tf.constant(value, tf.int32) for name, value in numbers.items()}
    inputs |= {"temperature": tf.constant(temperature), "top_p": tf.constant(top_p)}
    outputs = signatures["generate"](texts=tf.constant(prompts), **inputs)
    return [text.decode() for text in outputs["texts"].numpy()]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_the_most_probable_character_is_next(texts, settings):
    vocabulary = sorted(set("the quick brown fox jumps over the lazy dog. "))
    expected = PROMPTS
    for _ in range(6):
        probabilities = texts["serving_default"](texts=tf.constant(expected))["probabilities"].numpy()
        expected = [text + vocabulary[row.argmax()] for text, row in zip(expected, probabilities, strict=True)]
    assert generated(texts, PROMPTS, **settings) == expected


def test_texts_depend_on_the_seed_alone(texts):
    first = generated(texts, PROMPTS, length=30)
    assert [text[:-30] for text in first] == PROMPTS
    assert generated(texts, PROMPTS, length=30) == first
    assert all(a != b for a, b in zip(generated(texts, PROMPTS, length=30, seed=1), first, strict=True))


def test_a_low_temperature_generates_the_most_probable_text(texts):
    most_probable = generated(texts, PROMPTS, length=30, temperature=0.0)
    assert generated(texts, PROMPTS, length=30, temperature=1e-6) == most_probable
    assert generated(texts, PROMPTS, length=30, temperature=1.0) != most_probable


def test_images_depend_on_the_seed_alone():
    spec = zoo.get_spec("gan_mlp")
    task = tasks.get_task(spec.task).from_data(spec, testing.example_data("generation"), width=16)
    sample = task.signatures(task.build())["sample"]
    first, again, other = (sample(count=tf.constant(3), seed=tf.constant(s))["images"].numpy() for s in (0, 0, 1))
    assert first.shape == (3, *spec.input_shape)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
