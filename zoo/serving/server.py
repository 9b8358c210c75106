"""Artifacts behind TensorFlow Serving's REST API, with FastAPI and granian (the extra `serve`).

    curl localhost:8501/v1/models/lenet5.mnist
    curl localhost:8501/v1/models/lenet5.mnist/metadata
    curl localhost:8501/v1/models/lenet5.mnist:predict \
        -d '{"signature_name": "encoded_images", "instances": [{"b64": "iVBORw0..."}]}'

The API is that of https://www.tensorflow.org/tfx/serving/api_rest (status, metadata, predict), with few differences: a
float that is not finite is returned as the string "NaN", "Infinity" or "-Infinity" (protobuf's JSON mapping), where
TensorFlow Serving writes a bare token that is not JSON, and such tokens are refused in requests; an empty list of
instances is answered by an empty list; classify and regress requests are answered by status 501. The metadata hold the
class names, and image files are read as in training (`zoo.data.decoding`), of more formats than the graph alone reads.

No stored graph is run: the signatures are traced anew from the registry and the artifact's weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import multiprocessing
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from etils import epy

from zoo import artifacts
from zoo.data.decoding import IMAGE_FORMATS
from zoo.errors import ZooError
from zoo.serving import models
from zoo.serving.limits import Limits


def _needs_fastapi(error: Exception) -> None:
    raise ZooError("serving needs FastAPI: pip install 'zoo[serve]'") from error


with epy.lazy_imports(error_callback=_needs_fastapi):
    import fastapi
    import granian
    import prometheus_client
    from fastapi import responses
    from granian import constants
    from granian import http as granian_http
    from starlette import exceptions, requests
    from starlette.middleware import cors as cors_middleware
    from starlette.middleware import trustedhost
with epy.lazy_imports():
    from google.protobuf import json_format
    from tensorflow.core.protobuf import meta_graph_pb2

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")  # the last as the Host header has it
_PREDICT_BODY = {  # the endpoint reads the body itself, so FastAPI's own pages document it from here
    "requestBody": {
        "required": True,
        "content": {"application/json": {"example": {"signature_name": "serving_default", "instances": [[[[0]]]]}}},
    }
}

Catalog = Mapping[str, Mapping[str, models.Served]]  # by name and version


@dataclasses.dataclass(frozen=True)
class Options:
    """How the server meets the world.

    Attributes:
        origins: origins of web pages that may read its answers (CORS), `*` for all.
        hosts: names that the Host header may have, such as `example.org` or `*.example.org`; empty for all.
        poll: seconds between looks for new versions; 0 for none.
        access_log: whether each request is logged, in one line.
    """

    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    poll: float = 10.0
    access_log: bool = True


def create_app(
    catalog: Catalog,
    limits: Limits = Limits(),  # noqa: B008  a constant
    options: Options = Options(),
    refresh: Callable[[], None] | None = None,
) -> fastapi.FastAPI:
    """The application that serves `catalog`.

    An error is `{"error": "one line"}`, with status 400 (bad request), 404 (unknown model or version), 408 (the body
    does not arrive), 413 (beyond a limit), 501 (not supported), 503 (too many requests wait) or 504 (no answer in
    time).

    Args:
        refresh: looks for new versions, called in a thread every `options.poll` seconds.

    Raises:
        ZooError: where FastAPI is missing.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_call_every(options.poll, refresh)) if refresh and options.poll else None
        yield
        if task:
            task.cancel()

    app = fastapi.FastAPI(title="zoo", description="TensorFlow Serving's REST API.", lifespan=lifespan)
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    answered = prometheus_client.Counter("zoo_requests", "Predict requests.", ["model", "status"], registry=registry)
    seconds = prometheus_client.Histogram(
        "zoo_request_seconds", "Time to answer a predict request.", ["model"], registry=registry
    )
    waiting = prometheus_client.Gauge("zoo_waiting_requests", "Requests that wait for a signature.", registry=registry)
    waiting.set_function(lambda: sum(served.waiting for versions in catalog.values() for served in versions.values()))

    def error(status: int, text: str, headers: Mapping[str, str] | None = None) -> fastapi.Response:
        return responses.JSONResponse({"error": " ".join(text.split())}, status, headers)

    @app.exception_handler(ZooError)
    async def bad_request(request: fastapi.Request, raised: ZooError) -> fastapi.Response:
        return error(400, str(raised))

    @app.exception_handler(exceptions.HTTPException)
    async def http_error(request: fastapi.Request, raised: exceptions.HTTPException) -> fastapi.Response:
        return error(raised.status_code, raised.detail, raised.headers)

    @app.exception_handler(Exception)  # its traceback is in the server's log
    async def failure(request: fastapi.Request, raised: Exception) -> fastapi.Response:
        return error(500, "the server failed")

    async def predict(request: fastapi.Request, name: str, version: str | None = None) -> fastapi.Response:
        served = models.find(catalog, name, version)
        status = 500
        try:
            with seconds.labels(name).time():
                body = await _body(request, limits)
                content = await _answer(request, served.predict(body), limits.seconds)
            status = 200
            return fastapi.Response(content, media_type="application/json")
        except ZooError:
            status = 400
            raise
        except exceptions.HTTPException as raised:
            status = raised.status_code
            raise
        finally:
            answered.labels(name, str(status)).inc()

    for path in ("/v1/models/{name}:predict", "/v1/models/{name}/versions/{version}:predict"):  # the first to be tried
        app.router.add_api_route(
            path, predict, methods=["POST"], openapi_extra=_PREDICT_BODY, route_class_override=_direct_route()
        )

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        """All models are loaded, and none of them computes for longer than a request may."""
        for name, versions in catalog.items():
            if any(served.is_stuck for served in versions.values()):
                raise fastapi.HTTPException(503, f"{name} computes for more than {limits.seconds:g} seconds")
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> fastapi.Response:
        """Prometheus metrics."""
        return fastapi.Response(prometheus_client.generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models/{name}")
    @app.get("/v1/models/{name}/versions/{version}")
    async def status(name: str, version: str | None = None) -> dict[str, Any]:
        served = models.find(catalog, name, version)
        found = [served] if version else catalog[name].values()
        newest_first = sorted(found, key=lambda served: -int(served.version))
        ok = {"error_code": "OK", "error_message": ""}
        states = [{"version": served.version, "state": "AVAILABLE", "status": ok} for served in newest_first]
        return {"model_version_status": states}

    @app.get("/v1/models/{name}/metadata")
    @app.get("/v1/models/{name}/versions/{version}/metadata")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        served = models.find(catalog, name, version)
        found: dict[str, Any] = {"class_names": served.classes} if served.classes else {}
        if served.reads_files:
            found[models.FILES] = {"formats": list(IMAGE_FORMATS), "exif_orientation": "applied"}
        return {
            "model_spec": {"name": name, "signature_name": "", "version": served.version},
            "metadata": {"signature_def": {"signature_def": _definitions(served)}, **found},
        }

    @app.post("/v1/models/{name}:{verb}")
    @app.post("/v1/models/{name}/versions/{version}:{verb}")
    async def other(name: str, verb: str, version: str | None = None) -> None:
        models.find(catalog, name, version)
        raise fastapi.HTTPException(
            501, f"{verb[:20]!r} is not supported: send :predict, which returns class names too"
        )

    @app.get("/v1/models/{name}/labels/{rest:path}")
    @app.post("/v1/models/{name}/labels/{rest:path}")
    async def labels(name: str, rest: str) -> None:
        raise fastapi.HTTPException(501, "labels of versions are not supported: send /versions/NUMBER")

    if options.origins:
        app.add_middleware(
            cors_middleware.CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type"],
        )
    if options.hosts:
        app.add_middleware(trustedhost.TrustedHostMiddleware, allowed_hosts=options.hosts, www_redirect=False)
        app.add_middleware(_JsonErrors)
    return app


def _direct_route() -> type[fastapi.routing.APIRoute]:
    """A route that calls its endpoint with the parts of the path as they are: FastAPI's way to look at each argument
    takes as long as a small network."""

    class Direct(fastapi.routing.APIRoute):
        def get_route_handler(self) -> Callable:
            async def handle(request: fastapi.Request) -> fastapi.Response:
                return await self.endpoint(request, **request.path_params)

            return handle

    return Direct


class _JsonErrors:
    """Turns the plain text of a middleware's error, such as that of a wrong Host header, into `{"error": ...}`."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def send_json(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and message["status"] >= 400:
                status = (
                    message["status"] if (b"content-type", b"text/plain; charset=utf-8") in message["headers"] else 0
                )
            if not status:
                await send(message)
            elif message["type"] == "http.response.body":
                answer = responses.JSONResponse({"error": message["body"].decode()}, status)
                await answer(scope, receive, send)

        await self.app(scope, receive, send_json)


async def _call_every(poll: float, refresh: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(poll)
        await asyncio.to_thread(refresh)


async def _body(request: fastapi.Request, limits: Limits) -> bytes:
    """The body of any content type: `curl -d` declares JSON as a form. A body that is too large is not read to its
    end, or not at all where its header says so; Starlette's own limit does the same, with an error in plain text."""
    body, size = bytearray(), int(request.headers.get("content-length", 0))
    try:
        async with asyncio.timeout(limits.seconds):
            parts = request.stream()
            while size <= limits.body and (part := await anext(parts, b"")):
                body += part
                size = max(size, len(body))
    except TimeoutError:
        raise fastapi.HTTPException(408, f"the body did not arrive within {limits.seconds:g} seconds") from None
    except requests.ClientDisconnect:
        raise fastapi.HTTPException(499, "the client left") from None
    if size > limits.body:
        raise fastapi.HTTPException(413, f"the body has more than {limits.body:,} bytes")
    return bytes(body)


async def _answer(request: fastapi.Request, work: Any, seconds: float) -> bytes:
    """The result of the work; it is cancelled where the client leaves or the time is over."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise fastapi.HTTPException(499, "the client left")
        raise fastapi.HTTPException(504, f"no answer within {seconds:g} seconds")
    finally:
        task.cancel()
        gone.cancel()


def _definitions(served: models.Served) -> dict[str, Any]:
    """The signatures as TensorFlow Serving describes them."""

    def tensors(specs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: meta_graph_pb2.TensorInfo(
                name=f"{prefix}_{key}:0", dtype=spec.dtype.as_datatype_enum, tensor_shape=spec.shape.as_proto()
            )
            for key, spec in specs.items()
        }

    definitions = {
        name: meta_graph_pb2.SignatureDef(
            inputs=tensors(one.inputs, name),
            outputs=tensors(one.outputs, name),
            method_name="tensorflow/serving/predict",
        )
        for name, one in served.signatures.items()
    }
    return {
        name: json_format.MessageToDict(
            definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, definition in definitions.items()
    }


def serve(
    sources: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8501,
    limits: Limits = Limits(),  # noqa: B008  a constant
    options: Options = Options(),
) -> None:
    """Serve artifacts in a process of its own until SIGTERM or SIGINT; requests in progress are answered then.

    Args:
        sources: names or folders, of which the newest version is served and replaced by newer ones, and directories of
            one version.

    Raises:
        ZooError: for an artifact that is missing or damaged, an address that is taken, and where the process ends.
    """
    if host in LOOPBACK and not options.hosts:  # a web page whose name resolves to this address is no friend
        options = dataclasses.replace(options, hosts=LOOPBACK)
    for source in sources:
        artifacts.open_artifact(source)
    try:  # granian shares a port with another server that does
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ZooError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    multiprocessing.set_start_method("spawn", force=True)  # TensorFlow's threads do not survive a fork
    server = granian.Granian(
        "zoo",
        host,
        port,
        interface=constants.Interfaces.ASGI,
        http=constants.HTTPModes.http1,
        websockets=False,
        backpressure=limits.connections,
        http1_settings=granian_http.HTTP1Settings(header_read_timeout=1000 * limits.header_seconds),
        log_access=options.access_log,
        workers_kill_timeout=limits.shutdown_seconds,
    )
    try:
        server.serve(target_loader=functools.partial(_app, list(sources), limits, options), wrap_loader=False)
    except SystemExit:
        raise ZooError("the server's process ended: its reason is above") from None


def _app(sources: Sequence[str], limits: Limits, options: Options) -> fastapi.FastAPI:
    """The application, in the server's process."""
    try:
        catalog = models.Catalog(sources, limits)
    except ZooError as error:
        sys.exit(f"error: {error}")
    gc.collect()
    gc.freeze()  # TensorFlow's objects stay: to look at them again and again would stop all requests
    return create_app(catalog, limits, options, catalog.refresh)
