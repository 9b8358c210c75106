"""`zoo serve` under load: requests a second, latency, wrong answers and memory, against ONNX Runtime behind FastAPI.

    python benchmarks/load.py                             (needs the extras `serve` and `onnx`)
    python benchmarks/load.py --other ../checkout-before  (and against `zoo serve` of another checkout)

Each client sends one request after the other on one connection: one image of 28 x 28 as JSON or as a base64 PNG file.
All servers run at the same time, each in a process of its own, and are asked in turns, so that a busy moment of the
machine does not fall on one of them alone; the ratios compare requests within each turn. The clients share the cores
with the servers. Each answer is compared with the probabilities that the Keras model computes.

The server `onnx` is FastAPI on granian with one endpoint, which reads the same body and calls ONNX Runtime on a file
with the same preprocessing in its graph. PNG files are decoded by `zoo.data.decoding.decode_image` in both.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fastapi
import numpy as np
from common import ratios, write_between, write_results

MODEL = "network3_relu"
KINDS = ("JSON", "PNG")
IMAGES = 64
TOLERANCE = 1e-5
README = Path(__file__).parent.parent / "README.md"
RATIO = "zoo_divided_by_it"


def onnx_app() -> Any:
    """FastAPI with ONNX Runtime, as one would write it: the ONNX file is named by an environment variable."""
    import onnxruntime

    from zoo.data.decoding import decode_image

    app = fastapi.FastAPI()
    session = onnxruntime.InferenceSession(os.environ["LOAD_ONNX"], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    @app.get("/v1/models/{name}")
    async def status(name: str) -> dict[str, str]:
        return {}

    @app.post("/v1/models/{name}:predict")
    async def predict(request: fastapi.Request) -> fastapi.Response:
        body = json.loads(await request.body())
        if body.get("signature_name") == "encoded_images":
            files = [base64.b64decode(instance["b64"]) for instance in body["instances"]]
            images = np.stack([decode_image(data).pixels for data in files])
        else:
            images = np.array(body["instances"], np.uint8)
        outputs = [value.tolist() for value in session.run(names, {"images": images})]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*outputs, strict=True)]
        return fastapi.responses.JSONResponse({"predictions": rows})

    return app


@dataclasses.dataclass
class Server:
    port: int
    process: subprocess.Popen

    def megabytes(self) -> float:
        """Resident memory of the process and its children."""
        text = subprocess.run(["ps", "-eo", "pid,ppid,rss"], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in text.splitlines()[1:]]
        family = {self.process.pid}
        for pid, parent, _ in sorted(rows):
            family |= {pid} if parent in family else set()
        return sum(size for pid, _, size in rows if pid in family) / 1024


@contextlib.contextmanager
def running(command: list[str], **environment: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, **environment},
        cwd=tempfile.gettempdir(),  # -m looks into the working directory first
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended with code {process.returncode}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/{MODEL}.load", timeout=5).close()
                break
            time.sleep(0.1)
        yield Server(port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, run: Run, first: int) -> None:
        self.run, self.number, self.buffer = run, first, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.number = (self.number + 1) % IMAGES
        self.began = time.perf_counter()
        self.transport.write(self.run.requests[self.number])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found or len(body) < int(re.search(rb"content-length: (\d+)", head.lower())[1]):
            return
        self.run.count(time.perf_counter() - self.began, head, body, self.run.expected[self.number])
        self.buffer = b""
        if time.perf_counter() < self.run.end:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.run.lost += error is not None or time.perf_counter() < self.run.end
        self.run.open -= 1
        if not self.run.open:
            self.run.over.set()


class Run:
    """What a number of clients saw of a server."""

    def __init__(self, requests: list[bytes], expected: np.ndarray) -> None:
        self.requests, self.expected = requests, expected
        self.times: list[float] = []
        self.wrong = self.lost = 0

    def count(self, seconds: float, head: bytes, body: bytes, expected: np.ndarray) -> None:
        self.times.append(seconds)
        try:
            (row,) = json.loads(body)["predictions"]
            right = b" 200 " in head and np.abs(np.array(row["probabilities"]) - expected).max() <= TOLERANCE
        except (ValueError, KeyError):
            right = False
        self.wrong += not right

    async def ask(self, port: int, clients: int, seconds: float) -> None:
        self.open, self.over = clients, asyncio.Event()
        began = time.perf_counter()
        self.end = began + seconds
        loop = asyncio.get_running_loop()
        for number in range(clients):
            await loop.create_connection(lambda number=number: Client(self, 7 * number), "127.0.0.1", port)
        await self.over.wait()
        self.seconds = time.perf_counter() - began


def write_artifact(folder: Path) -> dict[str, Any]:
    """Writes the artifact, of the same weights in each checkout; returns what `zoo.export` takes."""
    import zoo

    model, spec = zoo.create_model(MODEL), zoo.get_spec(MODEL)
    random = np.random.default_rng(0)  # the initial weights of the last layer are 0: all answers would be alike
    model.set_weights([random.normal(0, 0.1, value.shape) for value in model.get_weights()])
    exported = {"source": model, "spec": spec, "classes": [str(digit) for digit in range(10)]}
    zoo.export(path=folder / f"{MODEL}.load", **exported)
    return exported


def requests_and_answers(folder: Path) -> tuple[dict[str, list[bytes]], np.ndarray]:
    """The requests of each kind, and the probabilities, for random images; writes the artifact and the ONNX file."""
    import tensorflow as tf

    import zoo

    exported = write_artifact(folder)
    zoo.export(path=folder / "load.onnx", format="onnx", **exported)
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (IMAGES, 28, 28, 1), np.uint8)
    expected = zoo.load(folder / f"{MODEL}.load")(images)["probabilities"]
    bodies = {
        "JSON": [json.dumps({"instances": [image.tolist()]}) for image in images],
        "PNG": [
            json.dumps({"signature_name": "encoded_images", "instances": [{"b64": base64.b64encode(png).decode()}]})
            for png in (tf.io.encode_png(image).numpy() for image in images)
        ],
    }
    head = f"POST /v1/models/{MODEL}.load:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    return {
        kind: [f"{head}{len(body)}\r\n\r\n{body}".encode() for body in each] for kind, each in bodies.items()
    }, expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--other", type=Path, help="another checkout, whose `zoo serve` is measured too")
    parser.add_argument("--quick", action="store_true", help="a smoke run: short, nothing written")
    options = parser.parse_args()
    repeats, seconds = (1, 1.0) if options.quick else (options.repeats, options.seconds)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        requests, expected = requests_and_answers(folder)
        zoo_serve = [sys.executable, "-m", "zoo", "serve", str(folder / f"{MODEL}.load")]
        here = str(Path(__file__).parent.parent)
        onnx = [sys.executable, "-m", "granian", "--interface", "asginl", "--factory", "--no-log", "load:onnx_app"]
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "zoo": ([*zoo_serve, "--no-access-log"], {"PYTHONPATH": here}),
            "onnx": (onnx, {"PYTHONPATH": f"{here}:{here}/benchmarks", "LOAD_ONNX": str(folder / "load.onnx")}),
        }
        if options.other:
            before = {"PYTHONPATH": f"{options.other.resolve()}:{here}/benchmarks"}
            code = f"import load, pathlib; load.write_artifact(pathlib.Path({str(folder / 'other')!r}))"
            subprocess.run([sys.executable, "-P", "-c", code], env={**os.environ, **before}, check=True)
            commands["other"] = ([*zoo_serve[:-1], str(folder / "other" / f"{MODEL}.load")], before)
        servers = {key: stack.enter_context(running(one, **more)) for key, (one, more) in commands.items()}
        results = measure(servers, requests, expected, options.clients, repeats, seconds)
    if not options.quick:
        path = write_results("load", {"seconds": seconds, "other": bool(options.other), "results": results})
        write_between(README, "load", table(results))
        print(f"written to {path.parent.name}/{path.name} and {README.name}")


def table(results: dict[str, Any]) -> str:
    """The lines of README."""
    lines = [
        "| body | clients | requests a second | median | 99 % within | times ONNX Runtime behind FastAPI |",
        "|---|---|---|---|---|---|",
    ]
    for name, servers in results.items():
        own = servers["zoo"]
        body, clients = name.removesuffix(" clients").split(", ")
        lines.append(
            f"| {body} | {clients} | {own['requests_a_second']:,.0f} | {own['median_milliseconds']:.1f} ms | "
            f"{own['p99_milliseconds']:.1f} ms | {servers['onnx'][RATIO]['median']:.2f} |"
        )
    rows = [servers["zoo"] for servers in results.values()]
    answers, wrong, lost = (sum(row[key] for row in rows) for key in ("requests", "wrong", "lost"))
    memory = [row["megabytes"] for row in rows]
    counts = f"`{MODEL}`: {answers:,} answers, {wrong} wrong, {lost} lost; {min(memory):.0f} to {max(memory):.0f} MB."
    return "\n".join([*lines, "", counts])


def measure(
    servers: dict[str, Server],
    requests: dict[str, list[bytes]],
    expected: np.ndarray,
    clients: list[int],
    repeats: int,
    seconds: float,
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    heads = ("server", "requests/s", "p50 ms", "p99 ms", "wrong", "lost", "MB", "zoo / it")
    print(" " * 20 + "".join(f"{head:>11}" for head in heads))
    for kind in KINDS:
        for count in clients:
            runs: dict[str, list[Run]] = {key: [] for key in servers}
            for turn in range(repeats + 1):  # the first one warms up
                for key, server in servers.items():
                    run = Run(requests[kind], expected)
                    asyncio.run(run.ask(server.port, count, min(seconds, 1.0) if turn == 0 else seconds))
                    if turn:
                        runs[key].append(run)
            rates = {key: {"values": [len(run.times) / run.seconds for run in each]} for key, each in runs.items()}
            for key, each in runs.items():
                times = np.concatenate([run.times for run in each])
                one = {
                    "requests_a_second": statistics.median(rates[key]["values"]),
                    "median_milliseconds": float(1000 * np.median(times)),
                    "p99_milliseconds": float(1000 * np.quantile(times, 0.99)),
                    "requests": len(times),
                    "wrong": sum(run.wrong for run in each),
                    "lost": sum(run.lost for run in each),
                    "megabytes": servers[key].megabytes(),
                    RATIO: ratios(rates, "zoo", key),
                }
                results.setdefault(f"{kind}, {count} clients", {})[key] = one
                numbers = (f"{value:11,.1f}" for name, value in one.items() if name not in ("requests", RATIO))
                print(
                    f"{f'{kind}, {count} clients':20}{key:>11}{''.join(numbers)}{one[RATIO]['median']:11.2f}",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    main()
