"""Several machines that train one network: who they are, how they meet, and what they must agree on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import signal
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo.errors import ZooError
from zoo.training.addresses import connect as connect_to
from zoo.training.addresses import host_and_port, listen

with epy.lazy_imports():
    import tensorflow as tf

VARIABLE = "TF_CONFIG"
MEETING_SECONDS = 120.0  # until all workers must have started
COLLECTIVE_SECONDS = 600.0  # that a worker waits for the others in one step
SHARED_FILES = ("run.json", "state.npz", "best-*.npz")  # by which a run is resumed


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train together, and which of them this process is. The first one is the chief."""

    addresses: tuple[str, ...]
    worker: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run."""
        return self.worker == 0


def cluster(workers: Sequence[str] = (), worker: int | None = None) -> Cluster | None:
    """The cluster of these addresses `host:port`, or else the one in the environment variable `TF_CONFIG`, where it has
    several workers; None for a training by this process alone.

    Addresses are written to `TF_CONFIG`, where TensorFlow finds them.

    Raises:
        ZooError: for addresses or a `TF_CONFIG` that make no cluster, or that contradict each other.
    """
    if not workers and worker is None:
        return _configured()
    if isinstance(workers, str) or len(workers) < 2 or worker is None:
        raise ZooError("several workers need a list of at least two addresses, and the number of this one: give both")
    for address in workers:
        host_and_port(address)
    if len(set(workers)) < len(workers):
        raise ZooError("two workers have the same address: each needs one of its own")
    if not 0 <= worker < len(workers):
        raise ZooError(f"worker {worker} of {len(workers)}: their numbers are 0 to {len(workers) - 1}")
    given = Cluster(tuple(workers), worker)
    if VARIABLE in os.environ and (found := _configured()) != given:
        raise ZooError(f"{VARIABLE} in the environment is {found}, not {given}: unset it, or leave the workers out")
    return given


def _configured() -> Cluster | None:
    """The cluster of `TF_CONFIG`; None where it has one worker, or is not set."""
    try:
        found = json.loads(os.environ.get(VARIABLE) or "{}")
        jobs, task = found.get("cluster", {}), found.get("task", {})
        chiefs = jobs.get("chief", jobs.get("master", []))
        addresses = (*chiefs, *jobs.get("worker", []))
        if len(addresses) < 2:
            return None
        kind, index = task["type"], int(task["index"])
        worker = {"chief": index, "master": index, "worker": len(chiefs) + index}[kind]
        if not 0 <= worker < len(addresses):
            raise IndexError(worker)
        return Cluster(addresses, worker)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise ZooError(
            f"{VARIABLE} must name the workers and which of them this process is, as TensorFlow documents it"
        ) from None


@contextlib.contextmanager
def _in_environment(cluster: Cluster) -> Iterator[None]:
    """Within it `TF_CONFIG`, by which TensorFlow finds the workers, has the cluster."""
    before = os.environ.get(VARIABLE)
    if not before:
        task = {"type": "worker", "index": cluster.worker}
        os.environ[VARIABLE] = json.dumps({"cluster": {"worker": [*cluster.addresses]}, "task": task})
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def check_alone(what: str) -> None:
    """Raises ZooError where `TF_CONFIG` has several workers, for what one process does."""
    if _configured() is not None:
        raise ZooError(f"{what} runs in one process: unset {VARIABLE}, which names several workers")


@functools.cache  # TensorFlow joins a cluster once a process
def connect(cluster: Cluster, devices: str = "auto") -> tf.distribute.Strategy:
    """The strategy of a cluster, once all of its workers have started.

    Raises:
        ZooError: where they do not within `MEETING_SECONDS`, for other devices than `auto`, or where TensorFlow has
            computed something in this process.
    """
    if devices != "auto":
        raise ZooError(f"several workers use all GPUs of each machine, or else its CPU: leave devices {devices} out")
    _meet(cluster)
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=COLLECTIVE_SECONDS)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with _in_environment(cluster):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise ZooError("several workers must be requested before TensorFlow has started in this process") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # TensorFlow has taken the signal, and does nothing
    return strategy


def _meet(cluster: Cluster) -> None:
    """Wait until all workers have started: TensorFlow alone would wait forever. They meet at the chief's address,
    which TensorFlow uses afterwards."""
    deadline = time.monotonic() + MEETING_SECONDS
    if cluster.is_chief:
        _gather(cluster.addresses[0], len(cluster.addresses) - 1, deadline)
        return
    hello = _hello(cluster.worker)
    while True:
        try:
            with connect_to(cluster.addresses[0]) as found:
                found.sendall(hello)
                found.settimeout(max(deadline - time.monotonic(), 1))
                if found.recv(1) == b"1":
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise ZooError(
                f"worker {cluster.worker} does not reach the chief at {cluster.addresses[0]}, or others are missing "
                f"there, since {MEETING_SECONDS:.0f} seconds: start all workers, and check the addresses"
            )
        time.sleep(0.2)


def _hello(worker: int) -> bytes:
    return f"zoo{worker:08d}".encode()


def _gather(address: str, others: int, deadline: float) -> None:
    """As the chief: wait for the other workers, then tell them to go on."""
    expected = {_hello(worker): worker for worker in range(1, others + 1)}
    met: dict[bytes, socket.socket] = {}
    try:
        with contextlib.ExitStack() as opened, listen(address) as server:
            while len(met) < others:
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                found = opened.enter_context(server.accept()[0])
                found.settimeout(5)
                with contextlib.suppress(OSError):
                    if (hello := found.recv(len(_hello(0)))) in expected:
                        met[hello] = found
            for found in met.values():
                found.sendall(b"1")
            for found in met.values():
                found.recv(1)  # until it has closed its end, which leaves the port free
    except TimeoutError:
        missing = ", ".join(str(worker) for hello, worker in expected.items() if hello not in met)
        raise ZooError(
            f"worker {missing} did not start within {MEETING_SECONDS:.0f} seconds: start all workers"
        ) from None
    except OSError as error:
        raise ZooError(f"the chief cannot listen at {address}: {error.strerror or error}") from None


def check_same(cluster: Cluster, strategy: tf.distribute.Strategy, parts: Mapping[str, Any]) -> None:
    """Compare what the workers are about to do, by its fingerprint.

    Args:
        parts: plain data by what it is, such as `data`.

    Raises:
        ZooError: on all workers, where one has another part than the chief.
    """
    digests = [hashlib.sha256(json.dumps(part, sort_keys=True).encode()).digest()[:4] for part in parts.values()]
    table = np.zeros((len(cluster.addresses), len(parts)), np.int64)
    table[cluster.worker] = [int.from_bytes(digest) for digest in digests]
    table = _total(strategy, table)
    others = [
        f"worker {worker} has another {', '.join(np.array([*parts])[different])} than worker 0"
        for worker, different in enumerate(table != table[0])
        if different.any()
    ]
    if others:
        raise ZooError(f"{'; '.join(others)}: start the same command with the same data everywhere")


def copy_run(cluster: Cluster, strategy: tf.distribute.Strategy, directory: Path) -> None:
    """Copy the chief's run so far to the other workers' directories: all of them resume it, on whatever disk."""
    packed = io.BytesIO()
    if cluster.is_chief:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in sorted(file for pattern in SHARED_FILES for file in directory.glob(pattern)):
                archive.add(file, file.name)
    size = int(_total(strategy, np.array([len(packed.getvalue())], np.int64))[0])
    content = np.zeros(-(-size // 4), np.int32)
    if cluster.is_chief:
        content.view(np.uint8)[:size] = np.frombuffer(packed.getvalue(), np.uint8)
    content = _total(strategy, content)
    if not cluster.is_chief:
        with tarfile.open(fileobj=io.BytesIO(content.tobytes()[:size])) as archive:
            archive.extractall(directory, filter="data")


def _total(strategy: tf.distribute.Strategy, array: np.ndarray) -> np.ndarray:
    """The sum of the workers' arrays, each counted once however many devices a worker has."""
    own = len(strategy.extended.worker_devices)

    def of_replica(context: Any) -> tf.Tensor:
        return tf.constant(array if context.replica_id_in_sync_group % own == 0 else np.zeros_like(array))

    return strategy.reduce("SUM", strategy.experimental_distribute_values_from_function(of_replica), None).numpy()


@contextlib.contextmanager
def joined(cluster: Cluster, directory: Path) -> Iterator[Path]:
    """Within the context this worker depends on the others. Yields where it writes: the chief the run, another worker a
    temporary copy.

    Raises:
        ZooError: where another worker stops.
    """
    with contextlib.ExitStack() as opened:
        if not cluster.is_chief:
            directory = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="zoo-worker-")))
        try:
            yield directory
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
            numbers = sorted(set(re.findall(r"/task:(\d+)", str(error))) - {str(cluster.worker)})
            raise ZooError(
                f"worker {' or '.join(numbers) or 'of another number'} stopped or is not reached: when all workers are "
                "started again they resume from the last finished epoch"
            ) from None
