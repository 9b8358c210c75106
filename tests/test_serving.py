"""TensorFlow Serving's REST API: good requests return what the signature returns, bad ones a cause in one line."""

import base64
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fastapi.testclient import TestClient

from zoo.errors import ZooError
from zoo.serving.server import create_app

IMAGES = np.stack([np.arange(low, low + 20, dtype=np.uint8).reshape(5, 4, 1) for low in (0, 120, 235)])
PNGS = [tf.io.encode_png(image).numpy() for image in IMAGES]
CLASSES = ["zero", "één", "two"]


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


class Module(tf.Module):
    """Signatures like the zoo's, and some whose outputs JSON cannot represent directly."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable([[1.0, -2.0, 0.5]])
        self.bias = tf.Variable([0.0, 1.0, 0.4])

    def classify(self, images):
        means = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2]) / 255.0
        probabilities = tf.nn.softmax(means @ self.kernel + self.bias)
        class_ids = tf.argmax(probabilities, axis=-1)
        names = tf.gather(tf.constant(CLASSES), class_ids)
        return {"probabilities": probabilities, "class_ids": class_ids, "class_names": names}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8, name="images")])
    def serving_default(self, images):
        return self.classify(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def encoded_images(self, encoded):
        def decode(data):
            return tf.image.resize(tf.io.decode_image(data, channels=1, expand_animations=False), [5, 4])

        return self.classify(tf.map_fn(decode, encoded, fn_output_signature=tf.float32))

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="count"), tf.TensorSpec([], tf.int32, name="seed")])
    def sample(self, count, seed=tf.constant(7)):  # noqa: B008 (a default of the signature)
        noise = tf.random.stateless_uniform([count, 2, 2, 1], [seed, 0], 0, 256, tf.int32)
        return {"images": tf.cast(noise, tf.uint8)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="texts"),
            tf.TensorSpec([None, 2], tf.float32, name="scores"),
            tf.TensorSpec([None], tf.bool, name="flags"),
        ]
    )
    def echo(self, texts, scores, flags):
        return {"texts": texts, "texts_bytes": texts, "scores": scores, "flags": flags}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def uneven(self, x):
        return {"total": tf.reduce_sum(x), "x": x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def spectrum(self, x):
        return {"y": tf.cast(x, tf.complex64)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="folder")])
    def wait(self, folder):
        """Writes a file `started`, then runs until there is a file `end`."""

        def waiting(step):
            end = tf.strings.join([folder, "/end", tf.strings.substr(tf.strings.as_string(step), 0, 0)])
            return tf.size(tf.io.matching_files(end)) == 0  # of a name that depends on the step: looked up in each

        with tf.control_dependencies([tf.io.write_file(folder + "/started", "")]):
            return {"steps": tf.while_loop(waiting, lambda step: (step + 1,), (tf.constant(0),))[0]}


SIGNATURES = ["serving_default", "encoded_images", "sample", "echo", "uneven", "spectrum", "wait"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved_models") / "toy.test" / "3"
    module = Module()
    tf.saved_model.save(module, str(path), signatures={name: getattr(module, name) for name in SIGNATURES})
    return path


@pytest.fixture(scope="module")
def signatures(directory):
    return tf.saved_model.load(str(directory)).signatures


@pytest.fixture(scope="module")
def client(directory) -> TestClient:
    return TestClient(create_app({"toy.test": directory}))


def post(client: TestClient, body, path: str = "toy.test"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/v1/models/{path}:predict", content=content)


def classes_of(outputs) -> dict:
    """The classification outputs as columns of JSON values."""
    names = [name.decode() for name in outputs["class_names"].numpy()]
    return {
        "probabilities": outputs["probabilities"].numpy().tolist(),
        "class_ids": outputs["class_ids"].numpy().tolist(),
        "class_names": names,
    }


CLASSIFY = [
    ("serving_default", "images", IMAGES.tolist()),
    ("encoded_images", "encoded", [b64(png) for png in PNGS]),
]


@pytest.mark.parametrize(("signature", "key", "values"), CLASSIFY)
def test_rows_and_columns_return_what_the_signature_returns(client, signatures, signature, key, values):
    tensor = tf.constant(IMAGES) if key == "images" else tf.constant(PNGS)
    columns = classes_of(signatures[signature](**{key: tensor}))
    assert sorted(columns["class_names"]) == sorted(CLASSES)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for instances in (values, [{key: value} for value in values]):
        response = post(client, {"signature_name": signature, "instances": instances})
        assert (response.status_code, response.json()) == (200, {"predictions": rows})
    for inputs in (values, {key: values}):
        response = post(client, {"signature_name": signature, "inputs": inputs}, "toy.test/versions/3")
        assert (response.status_code, response.json()) == (200, {"outputs": columns})


def test_the_default_signature_and_a_body_of_any_content_type(client, signatures):
    expected = classes_of(signatures["serving_default"](images=tf.constant(IMAGES)))
    body = json.dumps({"inputs": IMAGES.tolist()})
    response = client.post(
        "/v1/models/toy.test:predict", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert response.json() == {"outputs": expected}


@pytest.mark.parametrize("inputs", [{"count": 4, "seed": 7}, {"count": 4}, {"count": 4, "seed": 8}])
def test_scalars_defaults_and_a_single_output(client, signatures, inputs):
    tensors = {name: tf.constant(value) for name, value in ({"seed": 7} | inputs).items()}
    expected = signatures["sample"](**tensors)["images"].numpy()
    response = post(client, {"signature_name": "sample", "inputs": inputs})
    assert response.json() == {"outputs": expected.tolist()}
    assert expected.shape == (4, 2, 2, 1)


def test_text_bytes_booleans_and_floats_that_are_not_finite(client):
    text = "tekst – ünï"
    body = {
        "signature_name": "echo",
        "instances": [
            {"texts": text, "scores": [1, float("nan")], "flags": True},
            {"texts": b64(b"\xff\x00"), "scores": [float("-inf"), float("inf")], "flags": False},
        ],
    }
    response = post(client, body)
    parsed = json.loads(response.text, parse_constant=lambda token: pytest.fail(f"{token} is not JSON"))
    assert parsed["predictions"] == [
        {"texts": text, "texts_bytes": b64(text.encode()), "scores": [1.0, "NaN"], "flags": True},
        {"texts": "\ufffd\x00", "texts_bytes": b64(b"\xff\x00"), "scores": ["-Infinity", "Infinity"], "flags": False},
    ]


def test_outputs_without_a_common_batch_axis_are_returned_as_columns(client):
    response = post(client, {"signature_name": "uneven", "inputs": [1.0, 2.5]})
    assert response.json() == {"outputs": {"total": 3.5, "x": [1.0, 2.5]}}


@pytest.mark.parametrize("path", ["", "/versions/3"])
def test_status_and_metadata(client, path):
    ok = {"error_code": "OK", "error_message": ""}
    status = client.get(f"/v1/models/toy.test{path}").json()
    assert status == {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": ok}]}
    metadata = client.get(f"/v1/models/toy.test{path}/metadata").json()
    assert metadata["model_spec"] == {"name": "toy.test", "signature_name": "", "version": "3"}
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    assert sorted(definitions) == sorted(SIGNATURES)  # without __saved_model_init_op
    images = definitions["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in images["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "1"]
    assert images["tensor_shape"]["unknown_rank"] is False
    assert definitions["serving_default"]["outputs"]["class_names"]["dtype"] == "DT_STRING"


def test_fastapi_documents_the_routes(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert "requestBody" in paths["/v1/models/{name}:predict"]["post"]
    assert client.get("/docs").status_code == 200


IMAGE = IMAGES[0].tolist()
ECHO = {"texts": "a", "scores": [1.0, 2.0], "flags": True}


def changed(**values):
    return {"signature_name": "echo", "instances": [ECHO | values]}


BAD = {  # case: (body, part of the error)
    "not JSON": (b"{instances: 1}", "the body is not JSON"),
    "not text": (b"\xff\xfe\xfa", "the body is not JSON"),
    "nested too deep": (b"[" * 100_000, "the body is not JSON"),
    "a list": ([1, 2], "either 'instances' (rows) or 'inputs' (columns)"),
    "neither": ({"signature_name": "sample"}, "either 'instances' (rows) or 'inputs' (columns)"),
    "both": ({"instances": [IMAGE], "inputs": [IMAGE]}, "either 'instances' (rows) or 'inputs' (columns)"),
    "unknown signature": ({"signature_name": "encoded_image", "inputs": []}, "did you mean encoded_images?"),
    "signature of a wrong type": ({"signature_name": ["sample"], "inputs": []}, "unknown signature"),
    "hidden signature": ({"signature_name": "__saved_model_init_op", "inputs": {}}, "unknown signature"),
    "no list": ({"instances": {}}, "at least one instance"),
    "empty inputs": ({"inputs": []}, "input 'images' is empty"),
    "instances not a list": ({"instances": 3}, "at least one instance"),
    "unknown input": ({"inputs": {"image": [IMAGE]}}, "unknown input 'image': did you mean images?"),
    "unknown input of a row": ({"instances": [{"image": IMAGE}]}, "did you mean images?"),
    "missing input": ({"signature_name": "sample", "inputs": {"seed": 1}}, "missing input 'count'"),
    "inputs without names": ({"signature_name": "echo", "inputs": ["a"]}, "inputs flags, scores, texts"),
    "rows that differ": (
        {"signature_name": "echo", "instances": [ECHO, {"texts": "a"}]},
        "the instances do not all have the same inputs",
    ),
    "scalar as a row": (
        {"signature_name": "sample", "instances": [{"count": 1, "seed": 1}]},
        "send scalars in 'inputs'",
    ),
    "text for pixels": ({"instances": [[[["12"]]]]}, "takes uint8 values, not str"),
    "base64 for pixels": ({"instances": [b64(PNGS[0])]}, "takes uint8 values, not dict"),
    "fraction for pixels": ({"instances": [[[[0.5]]]]}, "takes uint8 values, not float"),
    "null for pixels": ({"instances": [[[[None]]]]}, "takes uint8 values, not NoneType"),
    "true for pixels": ({"instances": [[[[True]]]]}, "takes uint8 values, not bool"),
    "pixel above 255": ({"instances": [[[[256]]]]}, "out of the range of uint8"),
    "pixel below 0": ({"instances": [[[[-1]]]]}, "out of the range of uint8"),
    "int32 too large": ({"signature_name": "sample", "inputs": {"count": 2**31}}, "out of the range of int32"),
    "integer past 64 bits": ({"signature_name": "sample", "inputs": {"count": 2**80}}, "out of the range of int32"),
    "true for a float": (changed(scores=[True, 0]), "takes float32 values, not bool"),
    "float32 too large": (changed(scores=[1e39, 0]), "out of the range of float32"),
    "number for a boolean": (changed(flags=1), "takes bool values, not int"),
    "number for a text": (changed(texts=1), "takes string values, not int"),
    "object for a text": (changed(texts={"text": "a"}), '{"b64": "..."}'),
    "half a surrogate pair": (changed(texts="\ud800"), "a string is not valid"),
    "ragged rows": ({"instances": [[[[1], [2]], [[3]]]]}, "input 'images' is ragged"),
    "ragged batch": ({"instances": [[[[1], [2]]], [[[3]]]]}, "input 'images' is ragged"),
    "wrong rank": ({"instances": [[[1, 2], [3, 4]]]}, "shape (1, 2, 2), which does not fit (None, None, None, 1)"),
    "wrong channels": ({"instances": [[[[1, 2, 3]]]]}, "shape (1, 1, 1, 3), which does not fit"),
    "bad base64": ({"signature_name": "encoded_images", "instances": [{"b64": "?!"}]}, "a string is not valid"),
    "base64 of a number": ({"signature_name": "encoded_images", "instances": [{"b64": 5}]}, "a string is not valid"),
    "bytes of no image": ({"signature_name": "encoded_images", "instances": [b64(b"no")]}, "Unknown image file"),
    "negative count": ({"signature_name": "sample", "inputs": {"count": -1}}, "Dimension -1 must be >= 0"),
    "no batch axis": ({"signature_name": "uneven", "instances": [1.0, 2.0]}, "no common batch axis"),
    "no JSON representation": ({"signature_name": "spectrum", "inputs": [1.0]}, "output 'y' is complex64"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD.keys())
def test_bad_request(client, body, message):
    response = post(client, body)
    assert response.status_code == 400
    assert_one_line(response.json(), message)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models/toy.tset", 404, "unknown model 'toy.tset': did you mean toy.test?"),
        ("GET", "/v1/models/toy.tset/metadata", 404, "did you mean toy.test?"),
        ("POST", "/v1/models/toy.tset:predict", 404, "did you mean toy.test?"),
        ("GET", "/v1/models/toy.test/versions/4", 404, "unknown version of toy.test '4': known: 3."),
        ("GET", "/v1/models/toy.test/versions/latest/metadata", 404, "unknown version of toy.test"),
        ("POST", "/v1/models/toy.test/versions/33:predict", 404, "did you mean 3?"),
        ("GET", "/v2/models", 404, "Not Found"),
        ("POST", "/v1/models/toy.test:classify", 405, "Method Not Allowed"),
    ],
)
def test_bad_path(client, method, path, status, message):
    response = client.request(method, path, content=json.dumps({"instances": [IMAGE]}))
    assert response.status_code == status
    assert_one_line(response.json(), message)


def assert_one_line(response: dict, message: str) -> None:
    assert response.keys() == {"error"}
    assert message in response["error"]
    for trace in ("\n", "Traceback", "{{node", "Graph execution", "[Op:"):
        assert trace not in response["error"]


def test_a_directory_whose_name_is_not_a_number_is_version_1(directory, tmp_path):
    (tmp_path / "latest").symlink_to(directory)
    client = TestClient(create_app({"toy": tmp_path / "latest"}))
    assert client.get("/v1/models/toy").json()["model_version_status"][0]["version"] == "1"


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_directory_that_does_not_load(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ZooError, match=r"does not load as a SavedModel: .+\Z"):
        create_app({"toy": tmp_path})


def test_importing_is_cheap_and_a_missing_fastapi_is_named():
    code = (
        "import sys; sys.modules['fastapi'] = None; from zoo.serving import server as serving\n"
        "assert not {'tensorflow', 'uvicorn'} & set(sys.modules)\n"
        "serving.create_app({})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].endswith("ZooError: serving needs FastAPI: pip install 'zoo[serve]'")


@pytest.fixture
def server(directory):
    """The address of a real server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from zoo.serving.server import serve; serve({{'toy.test': {str(directory)!r}}}, port={port})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/v1/models/toy.test"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server exited"
            try:
                urllib.request.urlopen(url).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def test_a_real_server_returns_the_status_during_a_prediction(server, tmp_path):
    def predict(body: dict) -> dict:
        with urllib.request.urlopen(f"{server}:predict", json.dumps(body).encode()) as response:
            return json.load(response)

    rows = predict({"instances": IMAGES.tolist()})["predictions"]
    assert [sorted(row) for row in rows] == [["class_ids", "class_names", "probabilities"]] * 3
    with pytest.raises(urllib.error.HTTPError) as error:
        predict({"instances": 3})
    assert error.value.code == 400

    responses = []
    body = {"signature_name": "wait", "inputs": {"folder": str(tmp_path)}}
    thread = threading.Thread(target=lambda: responses.append(predict(body)))
    thread.start()
    try:
        while not (tmp_path / "started").exists():
            assert thread.is_alive(), "the prediction failed"
            time.sleep(0.1)
        with urllib.request.urlopen(server, timeout=60) as status:  # before the prediction ends
            assert json.load(status)["model_version_status"][0]["state"] == "AVAILABLE"
    finally:
        (tmp_path / "end").touch()
        thread.join()
    assert responses[0]["outputs"] >= 0
