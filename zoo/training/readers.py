"""Readers: processes, on other machines too, that decode and augment the images of a training, by `tf.data` service.

A reader greets whoever connects with the address of its service. Then a trainer and each of its readers exchange lines
of JSON: what is trained, and whether the reader can; from which epoch on, and by which name the service has the
batches. The connection stays open as long as the training lasts: where it ends, the other side is gone. Of R readers
number r prepares the batches r, r + R, ..., in order, and the trainer takes them in turn: they are those of a training
without readers.

Each reader is a `tf.data` service of its own. A common one would give the batches in any order, and could not run
Python, which decodes the images: that works in the process alone that has registered the batches.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epy

from zoo import tasks
from zoo.data.streamed import Streamed
from zoo.errors import ZooError, say
from zoo.training.addresses import connect, host_and_port, listen
from zoo.training.batches import load_for, training_batches
from zoo.training.runs import code_version

with epy.lazy_imports():
    import tensorflow as tf

GREETING = "zoo reader "
STARTING_SECONDS = 120.0  # until all readers must have been started
AHEAD = 2  # batches of each reader that wait to be taken
SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # a machine that is silent for 40 seconds is gone


def read(address: str) -> None:
    """Prepare the batches of trainings, until the process is stopped.

    Args:
        address: `host:port` at which trainers reach this machine. The next two ports are used, too.

    Raises:
        ZooError: for another address, and one that is in use.
    """
    host, port = host_and_port(address)
    sending = f"{host}:{port + 2}"
    host_and_port(sending)  # raises where there is no such port
    os.environ["ZOO_CACHE_GB"] = "0"  # the service copies what is in memory
    service = tf.data.experimental.service
    try:
        with listen(address) as server, contextlib.ExitStack() as opened:
            dispatcher = service.DispatchServer(service.DispatcherConfig(port=port + 1))
            opened.callback(dispatcher.stop)
            config = service.WorkerConfig(f"localhost:{port + 1}", sending, port + 2)
            opened.callback(service.WorkerServer(config).stop)
            say(f"reader at {address}: waiting for trainings", flush=True)
            while True:
                connection, _ = server.accept()
                threading.Thread(target=_answer, args=(connection, port, sending), daemon=True).start()
    except (OSError, RuntimeError) as error:  # of sockets, and of gRPC
        reason = getattr(error, "strerror", None) or error
        raise ZooError(f"the reader cannot listen at {address} and the next two ports: {reason}") from None


def _answer(connection: socket.socket, port: int, sending: str) -> None:
    """Prepare the batches of the trainer that asks, until it is gone; `sending` is the address that sends them."""
    with contextlib.suppress(OSError), connection, connection.makefile("rw", encoding="utf-8") as lines:
        _notice_loss(connection)
        print(GREETING + sending, file=lines, flush=True)
        try:
            batches = _prepared(json.loads(lines.readline()))
            _send(lines, {})
            shared, name = json.loads(lines.readline() or "null"), uuid.uuid4().hex
            if shared is None:  # it could not begin
                return
            service = f"grpc://localhost:{port + 1}"
            tf.data.experimental.service.register_dataset(service, batches(**shared), dataset_id=name)
            _send(lines, {"name": name})
        except (ZooError, ValueError, LookupError, tf.errors.OpError) as error:
            _send(lines, {"error": str(error).partition("\n")[0]})
            return
        say("preparing the batches of a training", flush=True)
        lines.read()
        say("a training is over", flush=True)


def _prepared(request: Mapping[str, Any]) -> Callable[..., tf.data.Dataset]:
    """A function that returns the reader's part of the batches; raises ZooError where it cannot prepare them."""
    if request["code"] != code_version():
        raise ZooError("it has another version of the code, TensorFlow, Keras, NumPy or Python")
    record = request["record"]
    task = tasks.restore(record["model"])
    recipe = tasks.read_recipe(record["recipe"], task.spec.task)
    dataset = load_for(
        task.spec, task.input_shape, recipe, request["data"], strict=request["strict"], fold=record.get("fold")
    )
    if dataset.fingerprint != record["data"]["fingerprint"]:
        raise ZooError(f"it has another data set {request['data']}")
    split = dataset.splits["train"]
    if not isinstance(split.inputs, Streamed):
        raise ZooError(f"{dataset.name} has no image files in class folders, which readers are for")
    part = tuple(request["part"])
    return lambda **shared: training_batches(task, split, recipe, part=part, **shared)[0]


def place(data: Any, readers: Sequence[str]) -> str:
    """The data as readers find it, a name or a whole path; raises ZooError for data in memory, and for addresses that
    are none."""
    for address in readers:
        host_and_port(address)
    if not isinstance(data, str | os.PathLike):
        raise ZooError("readers load the data themselves: give its name or path")
    return str(Path(data).resolve()) if Path(data).exists() else str(data)


@contextlib.contextmanager
def asked(
    readers: Sequence[str], data: str, record: Mapping[str, Any], strict: bool
) -> Iterator[Callable[..., tf.data.Dataset]]:
    """Within the context readers prepare the batches of a training. Yields a function of the same batches, prepared by
    this process, and of what they share with those of the readers, arguments of `training_batches`; it returns the
    batches, to be taken once.

    Args:
        readers: their addresses.
        data: see `place`.
        record: describes the run.
        strict: as in training.

    Raises:
        ZooError: where a reader does not answer within `STARTING_SECONDS`, or cannot prepare the batches; while batches
            are taken, where one is gone.
    """
    request = {"data": data, "record": record, "strict": strict, "code": code_version()}
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(_connection(address)) for address in readers]
        files = [opened.enter_context(one.makefile("rw", encoding="utf-8")) for one in connections]
        for address, connection, file in zip(readers, connections, files, strict=True):
            _await_greeting(address, connection, file)

        def answers(requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
            """Of all readers, which work at the same time."""
            for file, one in zip(files, requests, strict=True):
                _send(file, one)
            found = [json.loads(file.readline() or '{"error": "it has stopped"}') for file in files]
            for address, answer in zip(readers, found, strict=True):
                if "error" in answer:
                    raise ZooError(f"the reader {address} cannot prepare the batches: {answer['error']}")
            return found

        answers([{**request, "part": [number, len(readers)]} for number in range(len(readers))])

        def batches(local: tf.data.Dataset, **shared: Any) -> tf.data.Dataset:
            parts = []
            for address, connection, answer in zip(readers, connections, answers([shared] * len(readers)), strict=True):
                parts.append(_Part(address, connection, answer["name"], local.element_spec))
                opened.callback(parts[-1].close)

            def in_turn() -> Iterator[Any]:
                for part in itertools.cycle(parts):
                    if (batch := part.next()) is None:
                        return
                    yield batch

            return tf.data.Dataset.from_generator(in_turn, output_signature=local.element_spec)

        yield batches


class _Part:
    """The batches of one reader, taken by a thread: TensorFlow would wait for a lost reader without end."""

    def __init__(self, address: str, connection: socket.socket, name: str, element_spec: Any) -> None:
        host, port = host_and_port(address)
        service = tf.data.experimental.service
        self.batches = service.from_dataset_id(
            service.ShardingPolicy.OFF, f"grpc://{host}:{port + 1}", name, element_spec
        )
        self.address, self.connection = address, connection
        self.taken: queue.Queue = queue.Queue(AHEAD)
        self.gone = threading.Event()
        for target in (self._watch, self._take):
            threading.Thread(target=target, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.recv(1)  # nothing comes: it returns when the reader is gone
        self.gone.set()

    def _take(self) -> None:
        try:
            for batch in self.batches:
                self._put(batch)
                if self.gone.is_set():
                    return
            self._put(None)
        except Exception as error:  # raised where the batches are used
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self.gone.is_set():
            with contextlib.suppress(queue.Full):
                return self.taken.put(item, timeout=1)

    def next(self) -> Any:
        """The next batch; None at the end."""
        while True:
            with contextlib.suppress(queue.Empty):
                item = self.taken.get(timeout=1)
                if isinstance(item, Exception):
                    raise item
                return item
            if self.gone.is_set():
                raise ZooError(
                    f"the reader {self.address} stopped or is not reached: start it again, and repeat the command to "
                    "resume from the last finished epoch"
                )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)  # which ends the threads


def _connection(address: str) -> socket.socket:
    """A connection to a reader, once it has been started."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            connection = connect(address)
        except OSError:
            if time.monotonic() > deadline:
                raise ZooError(
                    f"no reader answers at {address} since {STARTING_SECONDS:.0f} seconds: start `zoo read` there"
                ) from None
            time.sleep(0.2)
        else:
            _notice_loss(connection)
            return connection


def _await_greeting(address: str, connection: socket.socket, lines: Any) -> None:
    """Raises ZooError where something else than a reader is at the address, which may never say anything, and where the
    reader's batches cannot be had from here: TensorFlow would try without end."""
    connection.settimeout(STARTING_SECONDS)
    greeting = ""
    with contextlib.suppress(OSError, ValueError):  # of time, and of bytes that are no text
        greeting = lines.readline().strip()
    if not greeting.startswith(GREETING):
        raise ZooError(f"there is no reader at {address}: give the address of `zoo read`")
    connection.settimeout(None)
    sending = greeting.removeprefix(GREETING)
    try:
        connect(sending).close()
    except OSError:
        raise ZooError(
            f"the reader {address} sends its batches from {sending}, which is not reached: start it with the address "
            "that trainings use"
        ) from None


def _notice_loss(connection: socket.socket) -> None:
    """Lets the system end the connection where the other machine is silent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in SILENCE.items():
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(lines: Any, content: Mapping[str, Any]) -> None:
    print(json.dumps(content), file=lines, flush=True)
