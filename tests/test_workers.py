"""Several processes that train one network, over loopback: as one, killed, apart, and with bad input."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import cli
from zoo.artifacts import verification
from zoo.errors import ZooError
from zoo.tasks import get_task
from zoo.training import batches, workers
from zoo.training.batches import Share
from zoo.weights import load_arrays

SMALL = "--arg filters=[4] --arg hidden=[8] --batch-size 64 --seed 3"
# what draws random numbers and what has state; 2 and 4 divide neither the validation split nor its last batch
HARD = (
    f'{SMALL} --set ema=0.5 --set optimizer_arguments={{"momentum":0.5}} '
    '--set augmentation={"affine":{"rotation":10}}'
)
LOST_SECONDS = 60  # docs/scaling.md says so


@pytest.fixture(scope="module")
def processes():
    """The fork server has TensorFlow imported but not started, so that a process begins at once."""
    context = multiprocessing.get_context("forkserver")
    preloaded = ["keras", "zoo.cli", "zoo.training.trainer", "zoo.training.callbacks", "zoo.training.loop"]
    context.set_forkserver_preload([*preloaded, "zoo.training.plots", "zoo.tasks.losses", "zoo.exporting.saved_model"])
    return context


def _run(line, folder, meeting_seconds, code):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    verification.serve_golden_examples = lambda paths: []
    workers.MEETING_SECONDS = meeting_seconds
    if code:
        from zoo.training import trainer

        trainer.code_version = lambda: {"commit": code}
    sys.argv = ["zoo", "train", *line.split()]
    cli.main()


class Workers:
    """Processes with one command, each in a folder of its own."""

    def __init__(self, context, root, line, count, *, own=None, only=None, meeting_seconds=60, codes=None):
        with contextlib.ExitStack() as opened:
            free = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
            addresses = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in free)
        self.folders, self.started = {}, {}
        for number in range(count) if only is None else [only]:
            folder = self.folders[number] = root / f"worker{number}"
            folder.mkdir(parents=True, exist_ok=True)
            several = f"--workers {addresses} --worker {number}" if count > 1 else ""
            words = f"network3_relu --out run {line} {several} {(own or {}).get(number, '')}"
            arguments = (words, folder, meeting_seconds, (codes or {}).get(number))
            self.started[number] = context.Process(target=_run, args=arguments)
            self.started[number].start()

    def codes(self, seconds=240):
        deadline = time.monotonic() + seconds
        for process in self.started.values():
            process.join(max(deadline - time.monotonic(), 0))
        codes = [process.exitcode for process in self.started.values()]
        for process in self.started.values():
            process.kill()
        return codes

    def error(self, number):
        """The one line on standard error that is no note."""
        lines = (self.folders[number] / "err").read_text().splitlines()
        (line,) = [line for line in lines if not line.startswith("note: ")]
        return line

    def written(self, number):
        return sorted(file.name for file in self.folders[number].iterdir() if file.name not in ("out", "err"))


def record_of(folder):
    return json.loads((folder / "run" / "run.json").read_text())


def assert_close(one, other):
    for first, second in zip(record_of(one)["history"], record_of(other)["history"], strict=True):
        for key in first.keys() - {"seconds"}:
            assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-4), key
    expected, found = (load_arrays(folder / "run" / "weights.npz") for folder in (one, other))
    assert expected.keys() == found.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-3, atol=2e-4, err_msg=key)


@pytest.fixture(scope="module")
def alone(processes, tmp_path_factory):
    """A run of one process."""
    one = Workers(processes, tmp_path_factory.mktemp("alone"), f"{HARD} --epochs 3", 1)
    assert one.codes() == [0]
    return one.folders[0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_train_as_one(count, processes, alone, tmp_path):
    found = Workers(processes, tmp_path, f"{HARD} --epochs 3", count)
    assert found.codes() == [0] * count
    assert_close(alone, found.folders[0])
    assert found.written(0) == ["run", "saved_models"]
    assert record_of(found.folders[0])["workers"] == count
    for number in range(1, count):
        assert found.written(number) == []
        assert (
            (found.folders[number] / "out")
            .read_text()
            .endswith(f"worker {number} has finished: worker 0 writes and exports the run\n")
        )


@pytest.mark.slow
@pytest.mark.real_data
def test_two_processes_train_on_mnist_as_one(processes, tmp_path):
    """In few steps: differences of rounding grow in a network with rectifiers, however the work is divided."""
    line = "--data mnist --batch-size 5000 --epochs 1"
    found = [Workers(processes, tmp_path / str(count), line, count) for count in (1, 2)]
    assert [one.codes() for one in found] == [[0], [0, 0]]
    assert_close(found[0].folders[0], found[1].folders[0])


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "by"), [(0, signal.SIGKILL), (1, signal.SIGTERM)])
def test_where_one_is_killed_the_others_stop_and_the_run_resumes(killed, by, processes, alone, tmp_path):
    line = f"{HARD} --epochs 3"
    found = Workers(processes, tmp_path, line, 2)
    state = tmp_path / "worker0" / "run" / "state.npz"
    deadline = time.monotonic() + 120
    while not state.exists():  # after the first epoch
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(found.started[killed].pid, by)
    codes = found.codes(LOST_SECONDS)
    assert codes == [{signal.SIGKILL: -by, signal.SIGTERM: 143}[by] if number == killed else 2 for number in (0, 1)]
    assert found.error(1 - killed).startswith(f"error: worker {killed} stopped or is not reached")
    assert "metrics" not in record_of(tmp_path / "worker0")
    rows = json.loads(str(load_arrays(state)["history"]))
    assert rows
    found = Workers(processes, tmp_path, line, 2)
    assert found.codes() == [0, 0]
    assert_close(alone, tmp_path / "worker0")
    assert record_of(tmp_path / "worker0")["history"][: len(rows)] == rows  # they were not trained again


@pytest.mark.slow
@pytest.mark.parametrize("only", [0, 1])
def test_a_worker_without_the_others_ends_in_time(only, processes, tmp_path):
    found = Workers(processes, tmp_path, SMALL, 2, only=only, meeting_seconds=2)
    assert found.codes(60) == [2]
    message = (
        "worker 1 did not start within 2 seconds" if only == 0 else "worker 1 does not reach the chief at 127.0.0.1:"
    )
    assert message in found.error(only)
    assert found.written(only) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("different", "part"),
    [
        ({"own": {1: "--data ./own.npz"}}, "data set"),
        ({"own": {1: "--lr 0.5"}}, "recipe, seed or arguments"),
        ({"codes": {0: "first", 1: "second"}}, "code"),
    ],
)
def test_workers_with_something_else_are_refused(different, part, processes, tmp_path):
    for number in (0, 1):
        (tmp_path / f"worker{number}").mkdir()
        images = np.full((60, 8, 8), number, np.uint8)
        np.savez(tmp_path / f"worker{number}" / "own.npz", images=images, labels=np.arange(60) % 10)
    own = {0: "--data ./own.npz"} | different.get("own", {}) if part == "data set" else different.get("own")
    found = Workers(processes, tmp_path, f"{SMALL} --epochs 1", 2, own=own, codes=different.get("codes"))
    assert found.codes() == [2, 2]
    for number in (0, 1):
        assert f"error: worker 1 has another {part} than worker 0: " in found.error(number)
        assert found.written(number) == ["own.npz"]


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_ends_with_an_error_the_others_stop(failing, processes, tmp_path):
    found = Workers(processes, tmp_path, f"{SMALL} --epochs 1", 2, own={failing: "--data ./missing.npz"})
    assert found.codes(LOST_SECONDS) == [2, 2]
    assert "missing.npz" in found.error(failing)
    assert found.error(1 - failing).startswith(f"error: worker {failing} stopped or is not reached")
    assert found.written(0) == found.written(1) == []


TWO = ("a:1", "b:2")


@pytest.mark.parametrize(
    ("addresses", "worker", "message"),
    [
        (("a:1",), 0, "several workers need a list of at least two addresses"),
        (TWO, None, "several workers need a list of at least two addresses"),
        ((), 1, "several workers need a list of at least two addresses"),
        (("a:1", "b"), 0, "must be HOST:PORT, not 'b'"),
        (("a:1", "b:0"), 0, "must be HOST:PORT, not 'b:0'"),
        (("a:1", "b:65536"), 0, "b:65536 has no port from 1 to 65535"),
        ("a:1,b:2", 0, "several workers need a list of at least two addresses"),
        (("a:1", "a:1"), 0, "two workers have the same address"),
        (TWO, 2, "worker 2 of 2: their numbers are 0 to 1"),
        (TWO, -1, "worker -1 of 2"),
    ],
)
def test_addresses_that_make_no_cluster_are_refused(addresses, worker, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ZooError, match=message):
        workers.cluster(addresses, worker)
    assert "TF_CONFIG" not in os.environ


def test_the_cluster_is_that_of_tf_config_or_is_written_there_for_a_while(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert workers.cluster() is None
    given = workers.cluster(TWO, 1)
    with workers._in_environment(given):
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        assert resolver.cluster_spec().as_dict() == {"worker": [*TWO]}
        assert (resolver.task_type, resolver.task_id) == ("worker", 1)
        assert workers.cluster() == given == workers.Cluster(TWO, 1)
        with pytest.raises(ZooError, match="unset it"):
            workers.cluster(TWO, 0)
    assert "TF_CONFIG" not in os.environ
    chief = {"cluster": {"chief": ["c:1"], "worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": "1"}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert workers.cluster() == workers.Cluster(("c:1", "a:1", "b:2"), 2)
    monkeypatch.setenv(
        "TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}})
    )
    assert workers.cluster() is None
    for broken in ("{", "[]", '{"cluster": {"worker": ["a:1", "b:1"]}}', json.dumps(chief).replace('"1"', '"2"')):
        monkeypatch.setenv("TF_CONFIG", broken)
        with pytest.raises(ZooError, match="TF_CONFIG must name the workers"):
            workers.cluster()


def test_what_one_process_does_is_refused_to_several(monkeypatch):
    cluster = {"cluster": {"worker": [*TWO]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ZooError, match="fine-tuning runs in one process: unset TF_CONFIG"):
        zoo.fine_tune("lenet5.mnist", "digits")
    with pytest.raises(ZooError, match="a search runs in one process: unset TF_CONFIG"):
        zoo.tune("network3_relu")
    with pytest.raises(ZooError, match="leave devices cpu:2 out"):
        zoo.train("network3_relu", devices="cpu:2")


@pytest.mark.parametrize("augmentation", [{}, {"affine": {"rotation": 10}}, {"mixup": 0.4}])
def test_the_shares_of_all_machines_are_the_batch(augmentation):
    """Two machines with two devices each: the same batches as one alone, in four parts."""
    data = zoo.data.load("digits")
    spec = zoo.get_spec("network3_relu")
    task = get_task("classification").from_data(spec, data)
    recipe = task.with_options(spec.recipe()).replace(batch_size=16, epochs=1, augmentation=augmentation)
    given = {"task": task, "split": data.splits["train"], "recipe": recipe, "seed": 1, "replicas": 4}
    whole, steps = batches.training_batches(**given)
    parts = [batches.training_batches(**given, share=Share(first, 2, 4))[0].batch(2) for first in (0, 2)]
    for (images, labels), *shares in tf.data.Dataset.zip((whole, *parts)).take(3):
        for expected, number in ((images, 0), (labels, 1)):
            np.testing.assert_array_equal(np.concatenate([np.concatenate(share[number]) for share in shares]), expected)
    assert all(share.unbatch().reduce(0, lambda count, _: count + 1) == 2 * steps for share in parts)


@pytest.mark.parametrize("own", [1, 2, 4])
def test_the_shares_of_validation_are_the_split_and_none_is_empty(own):
    data = zoo.data.load("digits")
    task = get_task("classification").from_data(zoo.get_spec("network3_relu"), data)
    for count in (101, 102, 103, 107):
        split = data.splits["train"].head(count)
        parts = [
            [*batches.evaluation_batches(task, split, batch_size=100, replicas=4, share=Share(first, own, 4))]
            for first in range(0, 4, own)
        ]
        assert len({len(part) for part in parts}) == 1
        in_order = [
            labels for step in range(0, len(parts[0]), own) for part in parts for _, labels in part[step : step + own]
        ]
        assert all(len(labels) for labels in in_order)
        np.testing.assert_array_equal(np.concatenate(in_order).argmax(-1), split.targets)
