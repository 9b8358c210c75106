"""TensorFlow Serving's REST API: good requests return what the signature returns, bad ones a cause in one line."""

import base64
import dataclasses
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pytest
import tensorflow as tf
from fastapi.testclient import TestClient
from PIL import Image

import zoo
from zoo.errors import ZooError
from zoo.serving.limits import Limits
from zoo.serving.models import Catalog, Served
from zoo.serving.server import Options, create_app, serve
from zoo.tasks.base import graph_function

IMAGES = np.stack([np.arange(low, low + 20, dtype=np.uint8).reshape(5, 4, 1) for low in (0, 120, 235)])
PNGS = [tf.io.encode_png(image).numpy() for image in IMAGES]
CLASSES = ["zero", "één", "two"]


def until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def classify(images):
    means = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2]) / 255.0
    probabilities = tf.nn.softmax(means @ tf.constant([[1.0, -2.0, 0.5]]) + [0.0, 1.0, 0.4])
    class_ids = tf.argmax(probabilities, axis=-1)
    return {
        "probabilities": probabilities,
        "class_ids": class_ids,
        "class_names": tf.gather(tf.constant(CLASSES), class_ids),
    }


def encoded_images(encoded):
    def decode(data):
        return tf.image.resize(tf.io.decode_image(data, channels=1, expand_animations=False), [5, 4])

    return classify(tf.map_fn(decode, encoded, fn_output_signature=tf.float32))


def sample(count, seed):
    noise = tf.random.stateless_uniform([count, 2, 2, 1], [seed, 0], 0, 256, tf.int32)
    return {"images": tf.cast(noise, tf.uint8)}


def echo(texts, scores, flags):
    return {"texts": texts, "texts_bytes": texts, "scores": scores / (1 - tf.abs(scores)), "flags": flags}


def sizes(x):
    """The number of rows that were computed together, beside each."""
    tf.debugging.Assert(tf.reduce_all(x >= 0), ["x must be at least 0"])
    return {"x": x, "rows": tf.fill([tf.shape(x)[0]], tf.shape(x)[0])}


def wait(folder):
    """Writes a file `started`, then runs until there is a file `end`."""

    def waiting(step):
        end = tf.strings.join([folder, "/end", tf.strings.substr(tf.strings.as_string(step), 0, 0)])
        return tf.size(tf.io.matching_files(end)) == 0  # of a name that depends on the step: looked up in each

    with tf.control_dependencies([tf.io.write_file(folder + "/started", "")]):
        return {"steps": tf.while_loop(waiting, lambda step: (step + 1,), (tf.constant(0),))[0]}


def spec(name, dtype=tf.float32, shape=(None,)):
    return tf.TensorSpec(shape, dtype, name)


def functions():
    """Signatures like the zoo's, and some whose outputs JSON cannot represent directly."""
    return {
        "serving_default": graph_function(classify, spec("images", tf.uint8, [None, None, None, 1])),
        "encoded_images": graph_function(encoded_images, spec("encoded", tf.string)),
        "sample": graph_function(sample, spec("count", tf.int32, []), spec("seed", tf.int32, [])),
        "echo": graph_function(echo, spec("texts", tf.string), spec("scores", shape=[None, 2]), spec("flags", tf.bool)),
        "uneven": graph_function(lambda x: {"total": tf.reduce_sum(x), "x": x}, spec("x")),
        "spectrum": graph_function(lambda x: {"y": tf.cast(x, tf.complex64)}, spec("x")),
        "sizes": graph_function(sizes, spec("x")),
        "wait": graph_function(wait, spec("folder", tf.string, [])),
    }


LIMITS = Limits(body=200_000, batch=50, count=100, queue=4, seconds=5)


@pytest.fixture(scope="module")
def signatures():
    return functions()


@pytest.fixture(scope="module")
def client(signatures):
    catalog = {"toy.test": {"3": Served("3", signatures, LIMITS), "2": Served("2", signatures, LIMITS)}}
    with TestClient(create_app(catalog, LIMITS), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, body, path: str = "toy.test"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/v1/models/{path}:predict", content=content)


def classes_of(outputs) -> dict:
    """The classification outputs as columns of JSON values."""
    names = [name.decode() for name in outputs["class_names"].numpy()]
    return {
        "probabilities": json.loads(orjson.dumps(outputs["probabilities"].numpy(), option=orjson.OPT_SERIALIZE_NUMPY)),
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


def test_scalars_and_a_single_output(client, signatures):
    expected = signatures["sample"](count=tf.constant(4), seed=tf.constant(7))["images"].numpy()
    response = post(client, {"signature_name": "sample", "inputs": {"count": 4, "seed": 7}})
    assert response.json() == {"outputs": expected.tolist()}
    assert expected.shape == (4, 2, 2, 1)


def test_text_bytes_booleans_and_floats_that_are_not_finite(client):
    text = "tekst – ünï"
    body = {
        "signature_name": "echo",
        "instances": [
            {"texts": text, "scores": [0, 0.5], "flags": True},
            {"texts": b64(b"\xff\x00"), "scores": [-1, 1.0], "flags": False},
        ],
    }
    response = post(client, body)
    parsed = json.loads(response.text, parse_constant=lambda token: pytest.fail(f"{token} is not JSON"))
    assert parsed["predictions"] == [
        {"texts": text, "texts_bytes": b64(text.encode()), "scores": [0.0, 1.0], "flags": True},
        {"texts": "\ufffd\x00", "texts_bytes": b64(b"\xff\x00"), "scores": ["-Infinity", "Infinity"], "flags": False},
    ]


def test_outputs_without_a_common_batch_axis_are_returned_as_columns(client):
    response = post(client, {"signature_name": "uneven", "inputs": [1.0, 2.5]})
    assert response.json() == {"outputs": {"total": 3.5, "x": [1.0, 2.5]}}


@pytest.mark.parametrize(("path", "versions"), [("", ["3", "2"]), ("/versions/3", ["3"])])
def test_status_and_metadata(client, path, versions):
    ok = {"error_code": "OK", "error_message": ""}
    status = client.get(f"/v1/models/toy.test{path}").json()
    assert status["model_version_status"] == [
        {"version": version, "state": "AVAILABLE", "status": ok} for version in versions
    ]
    metadata = client.get(f"/v1/models/toy.test{path}/metadata").json()
    assert metadata["model_spec"] == {"name": "toy.test", "signature_name": "", "version": "3"}
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    assert list(definitions) == sorted(functions())
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
    "NaN, which is not JSON": (b'{"inputs": [NaN]}', "the body is not JSON"),
    "nested deeper than an array": ({"inputs": json.loads("[" * 200 + "]" * 200)}, "input 'images' is nested too deep"),
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
    "int32 too large": (
        {"signature_name": "sample", "inputs": {"count": 1, "seed": 2**31}},
        "out of the range of int32",
    ),
    "integer past 64 bits": (
        {"signature_name": "sample", "inputs": {"count": 1, "seed": 2**80}},
        "takes int32 values, not float",
    ),
    "true for a float": (changed(scores=[True, 0]), "takes float32 values, not bool"),
    "float32 too large": (changed(scores=[1e39, 0]), "out of the range of float32"),
    "number for a boolean": (changed(flags=1), "takes bool values, not int"),
    "number for a text": (changed(texts=1), "takes string values, not int"),
    "object for a text": (changed(texts={"text": "a"}), '{"b64": "..."}'),
    "half a surrogate pair": (changed(texts="\ud800"), "the body is not JSON"),
    "ragged rows": ({"instances": [[[[1], [2]], [[3]]]]}, "input 'images' is ragged"),
    "ragged batch": ({"instances": [[[[1], [2]]], [[[3]]]]}, "input 'images' is ragged"),
    "wrong rank": ({"instances": [[[1, 2], [3, 4]]]}, "shape (1, 2, 2), which does not fit (None, None, None, 1)"),
    "wrong channels": ({"instances": [[[[1, 2, 3]]]]}, "shape (1, 1, 1, 3), which does not fit"),
    "bad base64": ({"signature_name": "encoded_images", "instances": [{"b64": "?!"}]}, "a string is not valid"),
    "base64 of a number": ({"signature_name": "encoded_images", "instances": [{"b64": 5}]}, "a string is not valid"),
    "bytes of no image": ({"signature_name": "encoded_images", "instances": [b64(b"no")]}, "Unknown image file"),
    "negative count": ({"signature_name": "sample", "inputs": {"count": -1, "seed": 1}}, "Dimension -1 must be >= 0"),
    "count beyond the limit": (
        {"signature_name": "sample", "inputs": {"count": 101, "seed": 1}},
        "count must be at most 100, not 101",
    ),
    "refused by the graph": ({"signature_name": "sizes", "inputs": [-1.0]}, "x must be at least 0"),
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
        ("GET", "/v1/models/toy.test/versions/4", 404, "unknown version of toy.test '4': known: 2, 3."),
        ("GET", "/v1/models/toy.test/versions/latest/metadata", 404, "unknown version of toy.test"),
        ("POST", "/v1/models/toy.test/versions/33:predict", 404, "did you mean 3?"),
        ("GET", "/v2/models", 404, "Not Found"),
        ("POST", "/v1/models/toy.test:classify", 501, "'classify' is not supported: send :predict"),
        ("POST", "/v1/models/toy.test/versions/3:regress", 501, "'regress' is not supported"),
        ("GET", "/v1/models/toy.test/labels/stable", 501, "send /versions/NUMBER"),
        ("DELETE", "/v1/models/toy.test", 405, "Method Not Allowed"),
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


def test_importing_is_cheap_and_a_missing_fastapi_is_named():
    code = (
        "import sys; sys.modules['fastapi'] = None; from zoo.serving import server as serving\n"
        "assert not {'tensorflow', 'granian'} & set(sys.modules)\n"
        "serving.create_app({})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].endswith("ZooError: serving needs FastAPI: pip install 'zoo[serve]'")


def test_requests_are_computed_together_and_a_refused_one_alone(client):
    """Those that come while the signature is busy are one call; a bad one among them fails for itself."""

    together = threading.Barrier(4)

    def ask(numbers):
        together.wait()
        return post(client, {"signature_name": "sizes", "inputs": numbers})

    with ThreadPoolExecutor(4) as pool:
        for _ in range(200):  # until some have met
            good = [pool.submit(ask, [float(number)] * 2) for number in range(3)]
            bad = pool.submit(ask, [-1.0])
            answers = [future.result().json()["outputs"] for future in good]
            assert [answer["x"] for answer in answers] == [[float(number)] * 2 for number in range(3)]
            assert bad.result().status_code == 400
            if max(answer["rows"][0] for answer in answers) > 2:
                return
    raise AssertionError("each request was computed alone")


def test_limits_of_size(client):
    response = post(client, b" " * (LIMITS.body + 1))
    assert response.status_code == 413
    assert_one_line(response.json(), "the body has more than 200,000 bytes")
    response = client.post("/v1/models/toy.test:predict", content=iter([b" " * LIMITS.body, b" "]))
    assert response.status_code == 413
    response = post(client, {"signature_name": "uneven", "inputs": [1.0] * 51})
    assert response.status_code == 413
    assert_one_line(response.json(), "input 'x' has 51 instances: send at most 50")


def test_a_busy_signature(signatures, tmp_path):
    """Too many requests wait: 503; no answer in time: 504, and not ready; other signatures answer meanwhile."""
    limits = dataclasses.replace(LIMITS, queue=1, seconds=0.5)
    served = Served("1", signatures, limits)
    with TestClient(create_app({"toy": {"1": served}}, limits)) as client, ThreadPoolExecutor(2) as pool:
        body = {"signature_name": "wait", "inputs": {"folder": str(tmp_path)}}
        try:
            first = pool.submit(post, client, body, "toy")
            until((tmp_path / "started").exists)
            second = pool.submit(post, client, body, "toy")
            until(lambda: served.waiting)
            response = post(client, body, "toy")
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert_one_line(response.json(), "the queue is full (1 waiting): try again")
            assert post(client, {"signature_name": "uneven", "inputs": [1.0]}, "toy").status_code == 200
            for future in (first, second):
                assert future.result().status_code == 504
                assert_one_line(future.result().json(), "no answer within 0.5 seconds")
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert_one_line(ready.json(), "toy computes for more than 0.5 seconds")
            assert client.get("/healthz").status_code == 200
        finally:
            (tmp_path / "end").touch()
        until(lambda: served.signatures["wait"].busy_since is None)  # the second one was dropped, not computed
        assert client.get("/readyz").json() == {"status": "ready"}


def test_metrics(client):
    assert post(client, {"signature_name": "uneven", "inputs": [1.0]}).status_code == 200
    text = client.get("/metrics").text
    assert 'zoo_requests_total{model="toy.test",status="200"}' in text
    assert 'zoo_request_seconds_count{model="toy.test"}' in text
    assert "zoo_waiting_requests 0.0" in text


def test_origins_and_hosts(signatures):
    options = Options(origins=("https://page.example",), hosts=("zoo.example",))
    app = create_app({"toy": {"1": Served("1", signatures, LIMITS)}}, LIMITS, options)
    client = TestClient(app, base_url="http://zoo.example:8501")
    origin = {"Origin": "https://page.example"}
    assert client.get("/v1/models/toy", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]
    other = client.get("/v1/models/toy", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    response = client.get("/v1/models/toy", headers={"Host": "evil.example"})
    assert response.status_code == 400
    assert_one_line(response.json(), "Invalid host header")


@pytest.fixture(scope="module")
def exported(making):
    """Two exports of one network with other weights: versions 1 and 2 of a folder."""
    with making as folder:
        for seed in (1, 2):
            tf.keras.utils.set_random_seed(seed)
            spec = zoo.get_spec("mlp_784_10")
            path = zoo.export(
                zoo.create_model("mlp_784_10"), folder / "mlp_784_10.toy", spec=spec, classes=tuple("0123456789")
            )
        return path.parent.absolute()


def photograph(size, mode="L", kind="PNG", **options):
    """The bytes of an image file."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, *([3] if mode == "RGB" else [])), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def test_image_files_of_several_sizes_are_read_as_predict_reads_them(exported):
    files = [photograph((28, 28)), photograph((40, 30), "RGB", "JPEG"), photograph((28, 28), "RGB", "TIFF")]
    exif = Image.Exif()
    exif[0x0112] = 6
    files.append(photograph((40, 30), exif=exif))
    expected = [row["probabilities"] for row in zoo.predict(exported / "2", files)]
    with TestClient(create_app(Catalog([str(exported)], LIMITS), LIMITS)) as client:
        body = {"signature_name": "encoded_images", "instances": [b64(file) for file in files]}
        rows = post(client, body, "mlp_784_10.toy").json()["predictions"]
        assert np.allclose([row["probabilities"] for row in rows], expected, atol=1e-5)
        assert [row["class_names"] for row in rows] == [str(np.argmax(one)) for one in expected]
        many = [b64(photograph((28, 20 + number))) for number in range(LIMITS.queue + 1)]
        assert post(client, {**body, "instances": many}, "mlp_784_10.toy").status_code == 200  # one request, many sizes
        metadata = client.get("/v1/models/mlp_784_10.toy/metadata").json()["metadata"]
        assert metadata["class_names"] == list("0123456789")
        assert "TIFF" in metadata["encoded_images"]["formats"]
        bad = post(client, {**body, "instances": [b64(files[0]), b64(b"no")]}, "mlp_784_10.toy")
        assert bad.status_code == 400
        assert_one_line(bad.json(), "image 1 (unreadable or truncated) of 2 cannot be read: send PNG, JPEG")


@pytest.mark.parametrize("size", [(50, 40), (2000, 1000)])
def test_too_many_pixels_are_refused_before_they_are_decoded(exported, size, monkeypatch):
    limits = dataclasses.replace(LIMITS, body=2**23, pixels=2 * size[0] * size[1] - 1)
    served = Catalog([str(exported)], limits)
    image = b64(photograph(size, "RGB", "JPEG"))
    with TestClient(create_app(served, limits)) as client:
        body = {"signature_name": "encoded_images", "instances": [image]}
        assert post(client, body, "mlp_784_10.toy").status_code == 200
        monkeypatch.setattr(Served, "_images", lambda *_: pytest.fail("decoded"))
        response = post(client, {**body, "instances": [image] * 2}, "mlp_784_10.toy")
        assert response.status_code == 413
        assert_one_line(response.json(), "pixels: send at most")


@pytest.mark.slow
def test_a_new_version_takes_over_and_a_damaged_one_does_not(exported, tmp_path, capfd):
    folder = tmp_path / "mlp_784_10.toy"
    shutil.copytree(exported / "1", folder / "1")
    catalog = Catalog([str(folder)], LIMITS)
    images = {"instances": np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1)).tolist()}
    with TestClient(create_app(catalog, LIMITS)) as client:
        before = post(client, images, "mlp_784_10.toy").json()
        shutil.copytree(exported / "2", folder / "2")
        catalog.refresh()
        status = client.get("/v1/models/mlp_784_10.toy").json()["model_version_status"]
        assert [one["version"] for one in status] == ["2"]
        after = post(client, images, "mlp_784_10.toy").json()
        assert after != before
        assert "mlp_784_10.toy: version 2 is served" in capfd.readouterr().err
        (folder / "3").mkdir()
        for _ in range(2):
            catalog.refresh()
        (line,) = capfd.readouterr().err.splitlines()  # said once
        assert "3 is not served: " in line
        assert post(client, images, "mlp_784_10.toy").json() == after
        shutil.copytree(exported / "1", folder / "3", dirs_exist_ok=True)  # the rest of it arrives
        catalog.refresh()
        assert post(client, images, "mlp_784_10.toy").json() == before


def test_several_versions_beside_each_other(exported):
    catalog = Catalog([str(exported / "1"), str(exported / "2")], LIMITS)
    assert {name: sorted(versions) for name, versions in catalog.items()} == {"mlp_784_10.toy": ["1", "2"]}
    with pytest.raises(ZooError, match="the same version"):
        Catalog([str(exported), str(exported / "2")], LIMITS)


def test_the_app_looks_for_new_versions(signatures):
    looks = []
    catalog = {"toy": {"1": Served("1", signatures, LIMITS)}}
    with TestClient(create_app(catalog, LIMITS, Options(poll=0.01), lambda: looks.append(1))):
        until(lambda: len(looks) > 1)


@pytest.fixture(scope="module")
def process(exported):
    """The port of a real server in a process of its own; it must end within seconds after SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--port {port} --header-timeout 1 --shutdown-timeout 5"
    command = [sys.executable, "-m", "zoo", "serve", str(exported), *options.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        yield port
        with ThreadPoolExecutor(4) as pool:  # stopped under load: a request is answered, or its connection refused
            images = np.zeros((40, 28, 28, 1), int).tolist()
            url, body = f"http://127.0.0.1:{port}/v1/models/mlp_784_10.toy:predict", json.dumps({"instances": images})
            asked = [pool.submit(ask, url, body.encode()) for _ in range(100)]
            asked[10].result()
            process.terminate()
            statuses = {one.result() for one in asked}
        assert statuses <= {200, "refused"}
    finally:
        process.terminate()
        log, _ = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert "POST /v1/models/mlp_784_10.toy:predict" in log, "each request is logged"


def ask(url, body):
    """The status of the answer; `refused` where no connection is accepted."""
    try:
        with urllib.request.urlopen(url, body, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return "refused"


def wait_for(url, process):
    for _ in range(600):
        assert process.poll() is None, process.stdout.read()
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def test_a_real_server(process):
    url = f"http://127.0.0.1:{process}/v1/models/mlp_784_10.toy"
    body = json.dumps({"instances": np.zeros((3, 28, 28, 1), int).tolist()}).encode()
    with urllib.request.urlopen(f"{url}:predict", body) as response:
        assert len(json.load(response)["predictions"]) == 3
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "evil.example"}))
    assert error.value.code == 400
    assert_one_line(json.load(error.value), "Invalid host header")


def metric(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_client_that_leaves_is_not_waited_for(process):
    """One that sends no end of its body, and one that does not wait for its answer."""
    name, left = "mlp_784_10.toy", 'zoo_requests_total{model="mlp_784_10.toy",status="499"}'
    body = json.dumps({"instances": np.zeros((200, 28, 28, 1), int).tolist()}).encode()  # read in a thread
    head = f"POST /v1/models/{name}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    for sent in (body[:100], body):
        before = metric(process, left)
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", process)) as connection:
                connection.sendall(head.encode() + sent)
            time.sleep(0.05)
            if metric(process, left) > before:
                break
        else:
            raise AssertionError("the server has not noticed")


def test_a_port_that_is_taken(process, exported):
    with pytest.raises(ZooError, match=f"cannot listen on 127.0.0.1:{process}: .*in use"):
        serve([str(exported)], port=process)


@pytest.mark.slow
def test_half_a_header_does_not_hold_a_connection(process):
    with socket.create_connection(("127.0.0.1", process), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert connection.recv(100) == b"", "the server closes it"


def test_the_page_has_the_default_limits():
    page, limits = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8"), Limits()
    drawn = f"{limits.count:,}; {limits.length:,}"
    shown = (f"{limits.body >> 20} MiB", f"{limits.pixels:,}", f"{limits.batch:,}", drawn, limits.queue)
    for number in shown:
        assert f"| {number} |" in page
