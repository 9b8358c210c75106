"""JSON to arrays and back, in the form of TensorFlow Serving's REST API."""

from __future__ import annotations

import base64
import itertools
import json
from array import array as packed
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from zoo.errors import ZooError, unknown
from zoo.serving.batching import Arrays, Signature
from zoo.serving.limits import Limits

with epy.lazy_imports():
    import fastapi
    import orjson
    import tensorflow as tf

# How Python's `array` packs lists of numbers of a type: it takes no float for an integer, and no text.
PACKED = {np.uint8: "B", np.int32: "i", np.int64: "q", np.float32: "d"}
SIDES = {"count", "length"}  # inputs that say how much is computed: each has a limit of its name


class Request(NamedTuple):
    """A predict request.

    Attributes:
        signature: its name.
        inputs: of the signature's types and shapes.
        by_rows: whether it lists rows (`instances`); otherwise it has columns (`inputs`).
        is_empty: whether it has no rows, and no inputs.
    """

    signature: str
    inputs: Arrays
    by_rows: bool
    is_empty: bool = False


def read(body: bytes, signatures: Mapping[str, Signature], limits: Limits) -> Request:
    """The predict request in a body.

    Raises:
        ZooError: for one that is no such request.
        HTTPException: with status 413 for too many instances.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ZooError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise ZooError("the body must be an object with either 'instances' (rows) or 'inputs' (columns)")
    name = request.get("signature_name", "serving_default")
    if not isinstance(name, str) or name not in signatures:
        raise unknown("signature", str(name)[:100], signatures)
    specs, by_rows = signatures[name].inputs, "instances" in request
    if by_rows and request["instances"] == []:
        return Request(name, {}, by_rows, is_empty=True)
    columns = _columns(request["instances"], specs) if by_rows else _by_name(request["inputs"], specs)
    if missing := specs.keys() - columns.keys():
        raise ZooError(f"missing input {', '.join(map(repr, sorted(missing)))}")
    has_booleans = b"true" in body or b"false" in body
    inputs = {key: _to_array(key, columns[key], spec, has_booleans) for key, spec in specs.items()}
    for key, value in inputs.items():
        if value.ndim and len(value) > limits.batch:
            raise fastapi.HTTPException(413, f"input {key!r} has {len(value)} instances: send at most {limits.batch}")
        if key in SIDES and not value.ndim and value > getattr(limits, key):
            raise ZooError(f"{key} must be at most {getattr(limits, key)}, not {value}")
    return Request(name, inputs, by_rows)


def write(request: Request, outputs: Arrays) -> bytes:
    """The body of the answer with these outputs."""
    if request.is_empty:
        return b'{"predictions":[]}'
    values = {key: _to_json(key, value) for key, value in outputs.items()}
    only = next(iter(values.values())) if len(values) == 1 else None
    answer: dict[str, Any]
    if not request.by_rows:
        answer = {"outputs": values if only is None else only}
    else:
        sizes = {len(value) if value.ndim else None for value in outputs.values()}
        if len(sizes) != 1 or None in sizes:
            raise ZooError(f"the outputs of signature {request.signature!r} have no common batch axis: send 'inputs'")
        if only is not None:
            answer = {"predictions": only}
        else:
            rows = zip(*values.values(), strict=True)
            answer = {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _by_name(value: Any, specs: Mapping[str, Any]) -> dict[str, Any]:
    """`value` as an object keyed by input name; any other value is that of the only input."""
    if not isinstance(value, dict) or _is_binary(value):
        if len(specs) != 1:
            raise ZooError(f"the signature has the inputs {', '.join(sorted(specs))}: send an object keyed by them")
        return dict.fromkeys(specs, value)
    for name in value:
        if name not in specs:
            raise unknown("input", name[:100], specs)
    return value


def _columns(instances: Any, specs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The rows `instances` as one list of values per input."""
    if not isinstance(instances, list) or not instances:
        raise ZooError("'instances' must be a list of at least one instance")
    rows = [_by_name(instance, specs) for instance in instances]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ZooError("the instances do not all have the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _to_array(name: str, value: Any, spec: tf.TensorSpec, has_booleans: bool) -> np.ndarray:
    """The JSON `value` of an input as an array of the type and shape of `spec`; texts as bytes.

    The only conversion is that of a whole number to a float: 1.5, true, "1" and 300 are all refused for uint8.
    """
    dtype, array = spec.dtype, None
    if dtype.as_numpy_dtype in PACKED and not has_booleans:
        array = _packed(value, spec.shape.rank, PACKED[dtype.as_numpy_dtype])
    if array is None:
        array = _objects(name, value, dtype)  # slower, with the type of each value
    if not array.size:
        raise ZooError(f"input {name!r} is empty")
    if not spec.shape.is_compatible_with(array.shape):
        hint = " (send scalars in 'inputs', not in 'instances')" if spec.shape.rank == 0 else ""
        raise ZooError(f"input {name!r} has the shape {array.shape}, which does not fit {spec.shape}{hint}")
    if dtype == tf.string:
        return _each(_to_bytes, array)
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype.as_numpy_dtype, copy=False)
    except (OverflowError, FloatingPointError) as error:
        raise ZooError(f"input {name!r} has values out of the range of {dtype.name}") from error


def _packed(value: Any, rank: int, code: str) -> np.ndarray | None:
    """Nested lists of numbers as an array; None where they are anything else, or out of the code's range."""
    if not rank:
        return None
    try:
        values, shape = value, [len(value)]
        for _ in range(rank - 1):
            (length,) = set(map(len, values))
            values, shape = list(itertools.chain.from_iterable(values)), [*shape, length]
        return np.frombuffer(packed(code, values), code).reshape(shape)
    except (TypeError, ValueError, OverflowError):
        return None


def _objects(name: str, value: Any, dtype: tf.DType) -> np.ndarray:
    """Nested lists as an array of JSON values, all of types that `dtype` takes."""
    try:
        array = np.array(value, dtype=object)  # each leaf keeps its JSON type, and ragged lists stay lists
        types: set[type] = set(map(type, array.flat))
    except (ValueError, RuntimeError):
        raise ZooError(f"input {name!r} is nested too deep") from None
    if list in types:
        raise ZooError(f"input {name!r} is ragged: lists at one depth must have one length")
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
    return array


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, dict) and not _is_binary(value):
        raise ZooError('an object in place of a string must be {"b64": "..."}')
    try:
        return base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value.encode()
    except (TypeError, ValueError) as error:  # base64 that is no string or has wrong letters
        raise ZooError(f"a string is not valid: {error}") from error


def _to_json(name: str, array: np.ndarray) -> Any:
    """The output `name` as what orjson writes: an array of numbers, or nested lists."""
    if array.dtype == object and name.endswith("_bytes"):
        return _each(lambda value: {"b64": base64.b64encode(value).decode()}, array).tolist()
    if array.dtype == object:
        return _each(lambda value: value.decode(errors="replace"), array).tolist()
    if array.dtype.kind == "f":
        odd = ~np.isfinite(array)
        if not odd.any():
            return _contiguous(array)
        values = array.astype(np.float64).astype(object)
        values[odd] = [json.dumps(float(value)) for value in array[odd]]  # as text: NaN, Infinity, -Infinity
        return values.tolist()
    if array.dtype.kind not in "iub":
        raise ZooError(f"output {name!r} is {array.dtype.name}, which JSON cannot represent")
    return _contiguous(array)


def _contiguous(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _each(function: Callable[[Any], Any], array: np.ndarray) -> np.ndarray:
    """`function` of each element, as an object array of the same shape."""
    return np.asarray(np.frompyfunc(function, 1, 1)(array), dtype=object)
