"""Exported SavedModels behind TensorFlow Serving's REST API, with FastAPI and uvicorn (the extra `serve`).

    curl localhost:8501/v1/models/lenet5.mnist
    curl localhost:8501/v1/models/lenet5.mnist/metadata
    curl localhost:8501/v1/models/lenet5.mnist:predict \
        -d '{"signature_name": "encoded_images", "instances": [{"b64": "iVBORw0..."}]}'

The API is that of https://www.tensorflow.org/tfx/serving/api_rest (status, metadata, predict), with few differences: a
float that is not finite is returned as the string "NaN", "Infinity" or "-Infinity" (protobuf's JSON mapping), where
TensorFlow Serving writes a bare token that is not JSON; one version of each model is served; an empty list of instances
is answered by an empty list. For artifacts of zoo the metadata hold the class names, and image files are read as in
training (`zoo.data.decoding`), of more formats than the graph alone reads. The caller of `create_app` must have
verified the SavedModels: loading one runs its initialization.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from etils import epy

from zoo import preprocessing
from zoo.artifacts.manifest import MANIFEST, parse_manifest
from zoo.data.decoding import IMAGE_FORMATS, UNREADABLE, WHITE, Unusable, decode_image
from zoo.errors import ZooError, graph_error, listed, unknown


def _needs_fastapi(error: Exception) -> None:
    raise ZooError("serving needs FastAPI: pip install 'zoo[serve]'") from error


with epy.lazy_imports(error_callback=_needs_fastapi):
    import fastapi
    import uvicorn
    from fastapi import responses
    from starlette import exceptions
with epy.lazy_imports():
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow.core.protobuf import saved_model_pb2

_PREDICT_BODY = {  # the endpoint reads the body itself, so FastAPI's own pages document it from here
    "requestBody": {
        "required": True,
        "content": {"application/json": {"example": {"signature_name": "serving_default", "instances": [[[[0]]]]}}},
    }
}


@dataclass(frozen=True)
class _Served:
    """A loaded SavedModel."""

    version: str
    module: Any  # kept, because its variables are freed with it
    definitions: dict[str, Any]  # signature name -> SignatureDef
    manifest: Mapping[str, Any]  # empty for a SavedModel that is not an artifact of zoo

    @property
    def described(self) -> dict[str, Any]:
        """What a client needs beside the signatures: the class names in the order of the probabilities, and which image
        files this server takes."""
        classes = self.manifest.get("model", {}).get("classes", [])
        found = {"class_names": classes} if classes else {}
        if self.reads_files:
            found["encoded_images"] = {"formats": list(IMAGE_FORMATS), "exif_orientation": "applied"}
        return found

    @property
    def reads_files(self) -> bool:
        return "encoded_images" in self.definitions and bool(self.manifest)


def create_app(models: Mapping[str, Path]) -> fastapi.FastAPI:
    """The application that serves `models`: name -> version directory, which holds `saved_model.pb`.

    The version is the directory's name where that is a number, else 1. A bad request gets status 404 (unknown model or
    version) or 400, with `{"error": "one line"}`.

    Raises:
        ZooError: where FastAPI is missing or a SavedModel does not load.
    """
    app = fastapi.FastAPI(title="zoo", description="TensorFlow Serving's REST API.")
    served = {name: _load(Path(directory)) for name, directory in models.items()}

    def find(name: str, version: str | None) -> _Served:
        if name not in served:
            raise fastapi.HTTPException(404, str(unknown("model", name, served)))
        if version not in (None, served[name].version):
            raise fastapi.HTTPException(404, str(unknown(f"version of {name}", version, [served[name].version])))
        return served[name]

    @app.exception_handler(ZooError)
    async def bad_request(request: fastapi.Request, error: ZooError) -> responses.JSONResponse:
        return responses.JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(exceptions.HTTPException)
    async def http_error(request: fastapi.Request, error: exceptions.HTTPException) -> responses.JSONResponse:
        return responses.JSONResponse({"error": error.detail}, error.status_code, error.headers)

    # The two cheap endpoints run on the event loop, so they respond even when long predictions use every worker thread.
    @app.get("/v1/models/{name}")
    @app.get("/v1/models/{name}/versions/{version}")
    async def status(name: str, version: str | None = None) -> dict[str, Any]:
        ok = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": find(name, version).version, "state": "AVAILABLE", "status": ok}]}

    @app.get("/v1/models/{name}/metadata")
    @app.get("/v1/models/{name}/versions/{version}/metadata")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        model = find(name, version)
        definitions = {
            signature: json_format.MessageToDict(
                definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            for signature, definition in model.definitions.items()
        }
        return {
            "model_spec": {"name": name, "signature_name": "", "version": model.version},
            "metadata": {"signature_def": {"signature_def": definitions}, **model.described},
        }

    # Not `async`, so that FastAPI runs it in a worker thread.
    @app.post("/v1/models/{name}:predict", openapi_extra=_PREDICT_BODY)
    @app.post("/v1/models/{name}/versions/{version}:predict", openapi_extra=_PREDICT_BODY)
    def predict(
        name: str, body: Annotated[bytes, fastapi.Depends(_body)], version: str | None = None
    ) -> responses.JSONResponse:
        return responses.JSONResponse(_predict(find(name, version), body))

    return app


def serve(models: Mapping[str, Path], host: str = "127.0.0.1", port: int = 8501) -> None:
    """Serve `models` (see `create_app`) until interrupted."""
    uvicorn.run(create_app(models), host=host, port=port)


async def _body(request: fastapi.Request) -> bytes:
    return await request.body()  # whatever its content type: `curl -d` declares JSON as a form


def _load(directory: Path) -> _Served:
    try:
        # TensorFlow Serving's own tag; without it `load` refuses a SavedModel that also contains a training graph
        module = tf.saved_model.load(str(directory), tags=["serve"])
        saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    except Exception as error:  # a damaged file makes TensorFlow raise errors of many kinds
        raise ZooError(f"{directory} does not load as a SavedModel: {graph_error(str(error))}") from error
    (graph,) = (graph for graph in saved.meta_graphs if set(graph.meta_info_def.tags) == {"serve"})
    definitions = {name: graph.signature_def[name] for name in sorted(module.signatures)}
    manifest = parse_manifest(directory) if (directory / MANIFEST).is_file() else {}
    return _Served(directory.name if directory.name.isdecimal() else "1", module, definitions, manifest)


def _predict(model: _Served, body: bytes) -> dict[str, Any]:
    """The response to the predict request `body`; raises ZooError for a bad request."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ZooError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise ZooError("the body must be an object with either 'instances' (rows) or 'inputs' (columns)")
    signature = request.get("signature_name", "serving_default")
    if not isinstance(signature, str) or signature not in model.definitions:
        raise unknown("signature", str(signature), model.definitions)
    definition = model.definitions[signature]
    names = sorted(definition.inputs)
    if request.get("instances") == []:
        return {"predictions": []}

    columns = _columns(request["instances"], names) if "instances" in request else _by_name(request["inputs"], names)
    defaults = {name: tf.constant(tf.make_ndarray(value)) for name, value in definition.defaults.items()}
    if missing := set(names) - set(columns) - set(defaults):
        raise ZooError(f"missing input {', '.join(map(repr, sorted(missing)))}")
    tensors = defaults | {name: _to_tensor(name, value, definition.inputs[name]) for name, value in columns.items()}
    if signature == "encoded_images" and model.reads_files:
        tensors = {name: _as_png(tensor, model.manifest["model"]) for name, tensor in tensors.items()}

    try:
        outputs = model.module.signatures[signature](**tensors)
    except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError) as error:  # the latter by large sizes
        raise ZooError(f"signature {signature!r}: {graph_error(error.message)}") from error

    values = {name: _to_json(name, tensor) for name, tensor in outputs.items()}
    only = next(iter(values)) if len(values) == 1 else None
    if "inputs" in request:
        return {"outputs": values[only] if only else values}
    sizes = {tensor.shape[0] if tensor.shape.rank else None for tensor in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        raise ZooError(f"the outputs of signature {signature!r} have no common batch axis: send 'inputs' instead")
    if only:
        return {"predictions": values[only]}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _as_png(encoded: tf.Tensor, description: Mapping[str, Any]) -> tf.Tensor:
    """The bytes of image files, read as in training and written again as PNG files with the network's channels, which
    the graph decodes without further change.

    Raises:
        ZooError: for files that cannot be read, all at once.
    """
    background = description["preprocessing"].get("background", WHITE)
    channels = description["input_shape"][-1]
    files, faults = [], []
    for number, data in enumerate(encoded.numpy()):
        try:
            pixels = decode_image(data, background).pixels
        except Unusable as error:
            faults.append(f"image {number} ({error})")
        except Exception:  # for a broken file Pillow raises a dozen kinds of errors
            faults.append(f"image {number} ({UNREADABLE})")
        else:
            files.append(tf.io.encode_png(preprocessing.to_channels(pixels[None], channels)[0]).numpy())
    if faults:
        raise ZooError(f"{listed(faults)} of {len(encoded)} cannot be read: send {', '.join(IMAGE_FORMATS)} files")
    return tf.constant(files, tf.string)


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _by_name(value: Any, names: list[str]) -> dict[str, Any]:
    """`value` as an object keyed by input name; any other value is that of the only input."""
    if not isinstance(value, dict) or _is_binary(value):
        if len(names) != 1:
            raise ZooError(f"the signature has the inputs {', '.join(names)}: send an object keyed by them")
        return {names[0]: value}
    for name in value:
        if name not in names:
            raise unknown("input", name, names)
    return value


def _columns(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    """The rows `instances` as one list of values per input."""
    if not isinstance(instances, list) or not instances:
        raise ZooError("'instances' must be a list of at least one instance")
    rows = [_by_name(instance, names) for instance in instances]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ZooError("the instances do not all have the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _to_tensor(name: str, value: Any, info: Any) -> tf.Tensor:
    """The JSON `value` of the input `name` as a tensor of the type and shape in `info` (a TensorInfo).

    The only conversion is that of a whole number to a float: 1.5, true, "1" and 300 are all refused for uint8.
    """
    dtype, shape = tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    array = np.array(value, dtype=object)  # each leaf keeps its JSON type, and ragged lists stay lists
    types: set[type] = set(map(type, array.flat))
    if list in types:
        raise ZooError(f"input {name!r} is ragged: lists at one depth must have one length")
    if not types:
        raise ZooError(f"input {name!r} is empty")
    allowed: set[type] = set()
    if dtype == tf.string:
        allowed = {str, dict}
    elif dtype == tf.bool:
        allowed = {bool}
    elif dtype.is_floating:
        allowed = {int, float}
    elif dtype.is_integer:
        allowed = {int}
    if wrong := types - allowed:
        raise ZooError(f"input {name!r} takes {dtype.name} values, not {', '.join(sorted(t.__name__ for t in wrong))}")
    if not shape.is_compatible_with(array.shape):
        hint = " (send scalars in 'inputs', not in 'instances')" if shape.rank == 0 else ""
        raise ZooError(f"input {name!r} has the shape {array.shape}, which does not fit {shape}{hint}")
    if dtype == tf.string:
        return tf.constant(_each(_to_bytes, array), dtype)
    try:
        with np.errstate(over="raise"):
            return tf.constant(array.astype(dtype.as_numpy_dtype))
    except (OverflowError, FloatingPointError) as error:
        raise ZooError(f"input {name!r} has values out of the range of {dtype.name}") from error


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, dict) and not _is_binary(value):
        raise ZooError('an object in place of a string must be {"b64": "..."}')
    try:
        return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value.encode()
    except (TypeError, ValueError) as error:  # base64 that is no string or has wrong letters; half a surrogate pair
        raise ZooError(f"a string is not valid: {graph_error(str(error))}") from error


def _to_json(name: str, tensor: tf.Tensor) -> Any:
    """The output `name` as nested lists of JSON values."""
    array = np.asarray(tensor.numpy(), dtype=object if tensor.dtype == tf.string else None)
    if tensor.dtype == tf.string and name.endswith("_bytes"):
        array = _each(lambda value: {"b64": base64.b64encode(value).decode()}, array)
    elif tensor.dtype == tf.string:
        array = _each(lambda value: value.decode(errors="replace"), array)
    elif tensor.dtype.is_floating:
        odd = ~np.isfinite(array)
        array = array.astype(np.float64).astype(object)
        array[odd] = [json.dumps(value) for value in array[odd]]  # as text: NaN, Infinity, -Infinity
    elif not (tensor.dtype.is_integer or tensor.dtype == tf.bool):
        raise ZooError(f"output {name!r} is {tensor.dtype.name}, which JSON cannot represent")
    return array.tolist()


def _each(function: Callable[[Any], Any], array: np.ndarray) -> np.ndarray:
    """`function` of each element, as an object array of the same shape."""
    return np.asarray(np.frompyfunc(function, 1, 1)(array), dtype=object)
