"""A signature refuses, within its graph, more work than a call may ask for: plain TensorFlow refuses it too."""

import io
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import zoo
from zoo import preprocessing, tasks
from zoo.tasks import characters, image_task, text_classification


def signatures(name, classes=(), vocabulary=(), **arguments):
    spec = zoo.get_spec(name)
    task = tasks.get_task(spec.task)(spec, spec.input_shape, classes, vocabulary, spec.preprocessing, arguments)
    return task.signatures(task.build())


def refused(call, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call()


def png(height, width):
    """A PNG file whose header has this size, and which has no pixels: a decoder fails for another reason."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg(height, width):
    """The same of JPEG: a small image, whose header gets another size."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "JPEG")
    data = file.getvalue()
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


@pytest.fixture
def classifier():
    return signatures("mlp_784_10", tuple("0123456789"))


def test_images_and_their_pixels(classifier, monkeypatch):
    call = classifier["serving_default"]
    monkeypatch.setattr(image_task, "MOST_NUMBERS", 3 * 784)
    monkeypatch.setattr(preprocessing, "MOST_PIXELS", 100)
    assert call(tf.zeros([3, 3, 11, 1], tf.uint8))["class_ids"].shape == 3
    refused(lambda: call(tf.zeros([4, 1, 1, 1], tf.uint8)), "at most 3 images")
    refused(lambda: call(tf.zeros([2, 3, 17, 1], tf.uint8)), "together 100 pixels")


def test_inner_layers_are_computed_for_as_many_images(monkeypatch):
    spec = zoo.get_spec("mlp_784_10")
    task = tasks.get_task(spec.task)(spec, spec.input_shape, tuple("0123456789"), (), spec.preprocessing, {})
    call = task.with_features(["output"]).signatures(task.build())["features"]
    monkeypatch.setattr(image_task, "MOST_NUMBERS", 3 * 784)
    assert call(tf.zeros([3, 28, 28, 1], tf.uint8))["output"].shape == (3, 10)
    refused(lambda: call(tf.zeros([4, 28, 28, 1], tf.uint8)), "at most 3 images")


def test_the_widest_output_is_that_of_any_call_of_a_layer():
    inputs = keras.Input((4, 4, 1))
    shared = keras.layers.UpSampling2D(2)
    assert image_task.widest(keras.Model(inputs, shared(shared(inputs)))) == 16 * 16
    assert image_task.widest(keras.Model(inputs, keras.ops.one_hot(keras.ops.cast(inputs, "int32"), 50))) == 16 * 50


def test_a_network_of_any_size_takes_fewer_pixels(monkeypatch):
    monkeypatch.setattr(image_task, "MOST_PIXELS_OF_ANY_SIZE", 16 * 16)
    call = signatures("unet_tiny", ("no", "yes"))["serving_default"]
    assert call(tf.zeros([1, 16, 16, 1], tf.uint8))["class_ids"].shape == (1, 16, 16)
    refused(lambda: call(tf.zeros([1, 16, 17, 1], tf.uint8)), "together 256 pixels")


@pytest.mark.parametrize("file", [png, jpeg])
def test_a_file_is_not_decoded_if_its_header_has_too_many_pixels(classifier, file):
    side = int(preprocessing.MOST_PIXELS**0.5)
    refused(lambda: classifier["encoded_images"](tf.constant([file(side, side + 1)])), "an image has more than")


def test_an_image_of_another_format_is_refused_after_it_was_decoded(classifier, monkeypatch):
    monkeypatch.setattr(preprocessing, "MOST_PIXELS", 100)
    file = io.BytesIO()
    Image.fromarray(np.zeros((11, 10), np.uint8)).save(file, "BMP")
    files = tf.constant([file.getvalue()])
    refused(lambda: classifier["encoded_images"](files), "an image has more than 100 pixels")


def test_images_of_a_generator(monkeypatch):
    monkeypatch.setattr(image_task, "MOST_NUMBERS", 3 * 1200)
    call = signatures("gan_mlp")["serving_default"]
    assert call(tf.zeros([3, 100]))["images"].shape == (3, 28, 28, 1)
    refused(lambda: call(tf.zeros([4, 100])), "at most 3 images")


def test_characters_of_all_texts_together(monkeypatch):
    monkeypatch.setattr(characters, "MOST_TOGETHER", 40)
    functions = signatures("lstm_char", tuple("\nab"), tuple("\nab"))
    assert functions["score"](tf.constant(["ab" * 10, "a"]))["nats"].shape == 2
    refused(lambda: functions["score"](tf.constant(["ab" * 10, "a", "b"])), "at most 40 characters")
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    given = {name: tf.constant(value, characters.SAMPLING[name]) for name, value in sampling.items()}
    texts = tf.constant(["a", "b"])
    assert functions["generate"](texts=texts, length=tf.constant(20), **given)["texts"].shape == 2
    refused(lambda: functions["generate"](texts=texts, length=tf.constant(21), **given), "at most 40 characters")
    refused(lambda: functions["generate"](texts=texts, length=tf.constant(2**31 - 1), **given), "from 1 to 10000")


def test_bytes_of_texts_to_classify(monkeypatch):
    monkeypatch.setattr(text_classification, "MOST_BYTES", 40)
    call = signatures("lstm_text", ("no", "yes"), ("good", "bad"))["serving_default"]
    assert call(tf.constant(["x" * 20, "good"]))["class_ids"].shape == 2
    refused(lambda: call(tf.constant(["x" * 20, "good", "bad"])), "at most 40 bytes")
