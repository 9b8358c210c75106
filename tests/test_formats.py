"""ONNX, LiteRT and Keras files compute what the model computes; OpenVINO reads the published SavedModels."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.artifacts import open_artifact
from zoo.exporting import formats

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "keras": ".keras"}
DIGITS = tuple("abcdefghij")
ARGUMENTS = {  # what `export` needs beside a bare model
    "lenet5": {"classes": DIGITS},  # resized, padded, distances
    "mlp_784_30_10": {"classes": DIGITS, "input_shape": (10, 12, 1)},  # sigmoid
    "unet_tiny": {"classes": ("ground", "cell")},
    "gan_mlp": {"arguments": {"latents": 5}},
}


def made(name):
    """A model with initial weights, and the arguments of its export."""
    keras.utils.set_random_seed(0)
    given = {"input_shape": None, "classes": (), "arguments": {}, **ARGUMENTS[name]}
    spec = zoo.get_spec(name)
    return spec.build(given["input_shape"], len(given["classes"]), **given["arguments"]), {"spec": spec, **given}


def exported(name, format):
    """A model, and the file that it is exported to."""
    model, arguments = made(name)
    return model, zoo.export(model, f"out/m{SUFFIXES[format]}", format=format, **arguments)


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def resized(images, size):
    return tf.image.resize(images, size, antialias=True).numpy()


def lenet5(model, images):
    inputs = np.pad(resized(images, (28, 28)), ((0, 0), (2, 2), (2, 2), (0, 0))) / 255 * 1.275 - 0.1
    return softmax(-model.predict(inputs, verbose=0))


def mlp(model, images):
    logits = model.predict(resized(images, (10, 12)) / 255, verbose=0)
    activations = 1 / (1 + np.exp(-logits))
    return activations / activations.sum(axis=-1, keepdims=True)


def unet(model, images):
    return softmax(model.predict(images / np.float32(255), verbose=0))


PROBABILITIES = {"lenet5": lenet5, "mlp_784_30_10": mlp, "unet_tiny": unet}
IMAGES = [noise(1, 28, 28, 1), noise(3, 41, 23, 1), noise(2, 9, 60, 1)]


def run_onnx(path, inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_litert(path, inputs):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    return interpreter.get_signature_runner("serving_default")(**inputs)


def names_in_onnx(path):
    properties = pytest.importorskip("onnx").load(path).metadata_props
    return {entry.key: json.loads(entry.value) for entry in properties}["class_names"]


def names_in_litert(path):
    return json.loads(zipfile.ZipFile(path).read("class_names.json"))


RUN = {"onnx": run_onnx, "litert": run_litert}
CLASS_NAMES = {"onnx": names_in_onnx, "litert": names_in_litert}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "lenet5" else pytest.mark.slow) for name in PROBABILITIES]
)
@pytest.mark.parametrize("format", RUN)
def test_a_file_takes_images_of_any_size_and_returns_probabilities(name, format):
    model, path = exported(name, format)
    for images in IMAGES:
        outputs = RUN[format](path, {"images": images})
        expected = PROBABILITIES[name](model, images)
        assert outputs.keys() == {"probabilities", "class_ids"}
        np.testing.assert_allclose(outputs["probabilities"], expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(outputs["probabilities"].sum(axis=-1), 1, atol=1e-5)
        assert outputs["class_ids"].dtype == np.int64
        chosen = np.take_along_axis(expected, outputs["class_ids"][..., None], -1)[..., 0]
        np.testing.assert_allclose(chosen, expected.max(axis=-1), rtol=0, atol=1e-4)
    assert CLASS_NAMES[format](path) == list(ARGUMENTS[name]["classes"])


@pytest.mark.slow_but_one
@pytest.mark.parametrize("format", RUN)
def test_a_generator_takes_latents_and_returns_images(format):
    model, path = exported("gan_mlp", format)
    latents = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    outputs = RUN[format](path, {"latents": latents})
    expected = np.rint(model.get_layer("generator").predict(latents, verbose=0) * 255)
    assert outputs.keys() == {"images"}
    assert outputs["images"].dtype == np.uint8
    np.testing.assert_allclose(outputs["images"], expected, rtol=0, atol=1)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("format", RUN)
@pytest.mark.parametrize("name", ["lstm_char", "gru_char"])
def test_a_character_model_reads_a_text_step_by_step(name, format):
    keras.utils.set_random_seed(0)
    spec, sizes, vocabulary = zoo.get_spec(name), {"embedding": 4, "width": 6, "layers": 2}, "abcde"
    model = spec.build(None, len(vocabulary), **sizes)
    given = {"spec": spec, "classes": tuple(vocabulary), "vocabulary": tuple(vocabulary), "arguments": sizes}
    path = zoo.export(model, f"m{SUFFIXES[format]}", format=format, **given)
    tokens = np.array([[0, 3, 1, 4], [2, 2, 0, 1]], np.int32)
    states = {key: np.zeros((2, 6), np.float32) for key in model.input if key != "tokens"}
    whole = model({"tokens": tokens, **states})["logits"]
    for place in range(4):
        outputs = RUN[format](path, {"tokens": tokens[:, place : place + 1], **states})
        np.testing.assert_allclose(outputs["logits"][:, 0], whole[:, place], rtol=0, atol=1e-5)
        states = {key: outputs[f"next_{key}"] for key in states}
    assert CLASS_NAMES[format](path) == list(vocabulary)


LOAD_KERAS = """
import sys
import numpy as np
{imports}
for name in sys.argv[1:]:
    network = keras.saving.load_model(f"{{name}}.keras")
    np.save(f"{{name}}.npy", network.predict(np.load("inputs.npy"), verbose=0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("imports", ["import zoo, keras", "import keras, zoo"])
def test_loading_a_keras_file_needs_the_import_of_zoo_and_nothing_else(imports):
    inputs = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    np.save("inputs.npy", inputs)
    networks = {}
    for name in ("lenet5", "unet_tiny"):  # both have layers that Keras lacks
        networks[name], arguments = made(name)
        zoo.export(networks[name], f"{name}.keras", format="keras", **arguments)
    subprocess.run([sys.executable, "-c", LOAD_KERAS.format(imports=imports), *networks], check=True)
    for name, network in networks.items():
        expected = network.predict(inputs, verbose=0)
        np.testing.assert_allclose(np.load(f"{name}.npy"), expected, rtol=1e-5, atol=1e-5)


# --- files that are not kept ------------------------------------------------------------------------------------


def served_with(change):
    """A writer whose file returns the model's outputs after `change`."""

    def write(task, model, path):
        path.write_bytes(b"written")
        function = task.signatures(model)["serving_default"]

        def serve(inputs):
            outputs = {name: value.numpy() for name, value in function(**inputs).items()}
            return {**outputs, **change(outputs)}

        return serve

    return write


WRONG = {
    "scaled": (lambda outputs: {"probabilities": outputs["probabilities"] * 1.001}, r"probabilities .* by .*e-04"),
    "not a number": (lambda outputs: {"probabilities": outputs["probabilities"] * np.nan}, "probabilities .* by nan"),
    "one example": (lambda outputs: {"probabilities": outputs["probabilities"][:1]}, "probabilities .* by inf"),
    "other type": (lambda outputs: {"class_ids": outputs["class_ids"].astype(np.int32)}, "class_ids .* by inf"),
    "other classes": (lambda outputs: {"class_ids": (outputs["class_ids"] + 1) % 2}, "class_ids .* by"),
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_file_that_differs_is_not_kept(change, message, monkeypatch):
    model, arguments = made("unet_tiny")
    monkeypatch.setitem(formats.WRITERS, "onnx", served_with(change))
    Path("old.onnx").write_bytes(b"old")
    for path in ("old.onnx", "new/folder/m.onnx"):
        with pytest.raises(zoo.ZooError, match=f"^the onnx file was not kept: its {message}"):
            zoo.export(model, path, format="onnx", **arguments)
    assert Path("old.onnx").read_bytes() == b"old"
    assert [str(path) for path in Path().rglob("*")] == ["old.onnx"]


def test_classes_of_the_same_probability_are_equally_right(monkeypatch):
    model, arguments = made("mlp_784_30_10")
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    change = served_with(lambda outputs: {"class_ids": outputs["class_ids"] + 3})
    monkeypatch.setitem(formats.WRITERS, "onnx", change)
    assert zoo.export(model, "m.onnx", format="onnx", **arguments).read_bytes() == b"written"


def test_a_missing_package_is_named(monkeypatch):
    model, arguments = made("mlp_784_30_10")
    for format, module in (("onnx", "onnxruntime"), ("litert", "ai_edge_litert.interpreter")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(zoo.ZooError, match=rf"{format} needs the package {module}: pip install 'zoo\[{format}\]'"):
            zoo.export(model, f"m{SUFFIXES[format]}", format=format, **arguments)
    assert not any(Path().iterdir())


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_network_of_raw_text_has_no_other_format(format):
    spec, sizes = zoo.get_spec("lstm_text"), {"vocabulary_size": 20, "embedding": 4, "width": 4}
    given = {"spec": spec, "classes": ("a", "b"), "vocabulary": tuple("cdef"), "arguments": sizes}
    with pytest.raises(zoo.ZooError, match=f"lstm_text takes raw text, which {format} files do not: export a Saved"):
        zoo.export(spec.build(None, 2, **sizes), f"m{SUFFIXES[format]}", format=format, **given)
    assert not any(Path().iterdir())


# --- OpenVINO ---------------------------------------------------------------------------------------------------

EACH_TASK = (  # with weights: of classification distances, sigmoid units and votes too
    "lenet5.mnist_paper",
    "network3_sigmoid.mnist_paper",
    "network3_dropout_ensemble.mnist_modern",
    "unet_small.isbi",
    "unet_satellite.scenes",
    "ssgan.mnist",
)
GENERATORS = ("dcgan_conditional.mnist",)
OF_TEXTS = {"language_model", "text_classification"}  # strings, which OpenVINO reads by an extension only


def test_each_published_task_is_opened_by_openvino():
    published = {zoo.get_spec(name).task for name in zoo.list_models(pretrained=True)}
    assert {zoo.get_spec(name).task for name in EACH_TASK + GENERATORS} == published - OF_TEXTS


def compare_with_openvino(path, shape=None):
    """Holds the scores of a SavedModel in OpenVINO against those in TensorFlow on inputs of a shape; on batches of 4 of
    known shapes without one."""
    openvino = pytest.importorskip("openvino")
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures["serving_default"]
    random, inputs = np.random.default_rng(0), {}
    for name, spec in signature.structured_input_signature[1].items():
        sides, most = shape or (4, *spec.shape[1:]), 256 if spec.dtype == tf.uint8 else 10
        drawn = random.standard_normal(sides) if spec.dtype.is_floating else random.integers(0, most, sides)
        inputs[name] = drawn.astype(spec.dtype.as_numpy_dtype)
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = {output.any_name: value for output, value in model(inputs).items()}
    given = {name: tf.constant(value) for name, value in inputs.items()}
    expected = {name: value.numpy() for name, value in signature(**given).items()}
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == object:
            np.testing.assert_array_equal(outputs[name], value.astype(str))
        elif value.dtype == np.float32:
            np.testing.assert_allclose(outputs[name], value, rtol=0, atol=1e-4)
        else:  # decided by thresholds of such scores
            assert np.mean(outputs[name] != value) <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH_TASK)
def test_openvino_gives_the_scores_of_tensorflow(name):
    channels = zoo.get_spec(name).input_shape[-1]
    for size in ((28, 28), (61, 43), (9, 100)):
        compare_with_openvino(open_artifact(name).path, (3, *size, channels))


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_openvino_draws_the_images_of_published_generators(name):
    compare_with_openvino(open_artifact(name).path)


def test_openvino_generates_the_images_of_tensorflow(unverified):
    model, arguments = made("gan_mlp")
    compare_with_openvino(zoo.export(model, "gan_mlp.fresh", **arguments))


@pytest.mark.slow
def test_openvino_reads_every_published_savedmodel():
    core = pytest.importorskip("openvino").Core()
    unread = {}
    for name in zoo.list_models(pretrained=True):
        if zoo.get_spec(name).task in OF_TEXTS:
            continue
        try:
            core.read_model(open_artifact(name).path)
        except RuntimeError as error:
            unread[name] = str(error)
    assert not unread
