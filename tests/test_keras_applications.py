"""Networks of keras.applications: fetched once from a local server, fine-tuned, predicted with, and refused offline."""

import functools
import hashlib
import http.server
import importlib.metadata
import json
import threading

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet_v3
from keras.src.legacy.saving import legacy_h5_format
from PIL import Image

import zoo
from zoo import registry, testing
from zoo.models import keras_applications
from zoo.weights import named_weights

NAME = "keras_mobilenet_v3_small"
FILE = "weights_mobilenet_v3_small_224_1.0_float.h5"
CLASSES = {
    str(number): [f"n{number:08}", "crane" if number in (134, 517) else f"thing{number}"] for number in range(1000)
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random weights in the form that Keras publishes, and a server that hands them out."""
    folder = tmp_path_factory.mktemp("published")
    model = keras.applications.MobileNetV3Small(weights=None, classifier_activation=None)
    with h5py.File(folder / FILE, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    (folder / "imagenet_class_index.json").write_text(json.dumps(CLASSES))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/", model
        server.shutdown()


@pytest.fixture
def network(published, tmp_path, monkeypatch):
    """The addresses and hashes of these weights in Keras, and folders of its own."""
    folder, address, _ = published
    md5 = {file.name: hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() for file in folder.iterdir()}
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", address)
    monkeypatch.setattr(mobilenet_v3, "WEIGHTS_HASHES", {"small_224_1.0_float": (md5[FILE], "")})
    monkeypatch.setattr(keras_applications, "CLASS_NAMES", f"{address}imagenet_class_index.json")
    monkeypatch.setattr(keras_applications, "CLASS_NAMES_MD5", md5["imagenet_class_index.json"])
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path / "keras"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("cache", "keras/models"):
        (tmp_path / name).mkdir(parents=True)
    return address


def test_the_package_registers_them():
    assert "keras_applications" in importlib.metadata.entry_points(group="zoo.models").names


@pytest.mark.slow
def test_weights_are_fetched_once_and_are_those_that_keras_loads(network, published, monkeypatch):
    fetched = zoo.create_model(f"{NAME}.imagenet")
    expected = {key: variable.numpy() for key, variable in named_weights(published[2]).items()}
    assert {key: variable.shape for key, variable in named_weights(fetched).items()} == {
        key: array.shape for key, array in expected.items()
    }
    for key, variable in named_weights(fetched).items():
        np.testing.assert_array_equal(variable, expected[key])
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", "http://127.0.0.1:9/")
    predictor = zoo.load(f"{NAME}.imagenet")
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 80, 3), dtype=np.uint8)
    found = predictor(images)
    middle = keras.ops.image.resize(images[:, :, 15:65].astype(np.float32), (224, 224), antialias=True)
    logits = published[2].predict(middle, verbose=0)
    np.testing.assert_allclose(found["probabilities"], keras.ops.softmax(logits), atol=1e-4)
    names = predictor.task.classes
    assert names[0] == "thing0"
    assert names[134] == "crane n00000134"


@pytest.mark.slow
def test_a_folder_of_photographs_is_fine_tuned_and_exported(network, tmp_path, command, unverified):
    for number in range(24):
        name, color = ("dark", 40) if number % 2 else ("light", 210)
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(color - 30, color + 30, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    line = f"fine-tune {NAME}.imagenet --data photos --epochs 1 --input-shape 32,32,3 --set batch_size=8"
    code, out, err = command(f"{line} --export {NAME}.photos")
    assert code == 0, err
    assert "reinitialized: logits/kernel, logits/bias" in out
    code, out, err = command(f"predict {NAME}.photos photos --csv")
    assert code == 0, err
    assert len(out.splitlines()) == 25


@pytest.mark.parametrize("offline", ["1", "0"])
def test_what_cannot_be_fetched_names_the_file_to_bring(network, monkeypatch, refused, tmp_path, offline):
    monkeypatch.setenv("ZOO_OFFLINE", offline)
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", "http://127.0.0.1:9/")
    refused(f"fine-tune {NAME}.imagenet --data digits", f"{FILE} is not in {tmp_path / 'keras' / 'models'} and could")
    assert not [*(tmp_path / "cache").iterdir()]


def test_changed_weights_are_refused(network, monkeypatch):
    monkeypatch.setattr(mobilenet_v3, "WEIGHTS_HASHES", {"small_224_1.0_float": ("0" * 32, "")})
    with pytest.raises(zoo.ZooError, match="file hash does not match"):
        zoo.load(f"{NAME}.imagenet")


def test_they_are_listed_apart(run_zoo, command):
    assert not zoo.list_models("keras_*")
    assert zoo.list_models(origin="keras.applications") == sorted(keras_applications.TABLE, key=registry.natural_order)
    assert f"{NAME}.imagenet" in zoo.list_models(origin="keras.applications", pretrained=True)
    assert "zoo list --origin keras.applications" in command("list")[2]
    table = run_zoo("list --origin keras.applications")
    assert "0.6810" in next(line for line in table.splitlines() if line.startswith(NAME))


@pytest.fixture
def run_zoo(command, monkeypatch):
    def run(line):
        monkeypatch.setenv("COLUMNS", "200")
        code, out, err = command(line)
        assert code == 0, err
        return out

    return run


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == NAME else pytest.mark.slow)
        for name, row in keras_applications.TABLE.items()
    ],
)
def test_the_table_is_true(name):
    testing.check_spec(name)
    first, second = (zoo.get_spec(name).build(classes=3) for _ in range(2))
    assert named_weights(first).keys() == named_weights(second).keys(), "weights would not be found again"
