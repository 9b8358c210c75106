"""What all tests share: two logical CPUs, no chatter, and the real data where they are."""

import contextlib
import os
import shlex
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # there is a process of pytest-xdist on each core

import keras
import pytest
import tensorflow as tf

from zoo import cli
from zoo.artifacts import index, verification

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.get_logger().setLevel("ERROR")  # as in the commands; it warns of many networks in one process


def pytest_runtest_setup():
    """Each test, and what its fixtures make, starts from the same random numbers, whatever ran before it."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test works in a folder of its own: nothing is written to the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def making(tmp_path_factory):
    """A new folder, the working directory within the context, for what a module's tests share. Nothing that is
    exported there is verified."""

    @contextlib.contextmanager
    def entered():
        folder = tmp_path_factory.mktemp("made")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(verification, "serve_golden_examples", lambda paths: [])
            yield folder
        index.index_of.cache_clear()

    return entered()


@pytest.fixture
def unverified(monkeypatch):
    """Exports without the process that verifies them, where something else is tested."""
    monkeypatch.setattr(verification, "serve_golden_examples", lambda paths: [])


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs a command line in this process; gives the exit code, and both outputs."""

    def run(line):
        monkeypatch.setattr(sys, "argv", ["zoo", *shlex.split(line)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(command):
    """Asserts that a command line is answered in one line with a message, and changes nothing in the folder."""

    def check(line, message):
        before = {file: file.stat().st_mtime_ns for file in Path().rglob("*")}
        code, out, err = command(line)
        assert code == 2, out + err
        assert len(err.splitlines()) == 1, err
        assert err.startswith("error: ")
        assert message in err
        assert "Traceback" not in out + err
        assert {file: file.stat().st_mtime_ns for file in Path().rglob("*")} == before

    return check


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    met = set()
    for item in items:
        if item.get_closest_marker("slow_but_one"):
            if item.function in met:
                item.add_marker(pytest.mark.slow)
            met.add(item.function)
    # The slow ones first, then the longest files: otherwise the last of them would run when all else is done.
    items.sort(key=lambda item: ("slow" not in item.keywords, -item.path.stat().st_size))
    folder = os.environ.get("ZOO_DATA_DIR")
    if not folder or not Path(folder, "mnist.npz").is_file():
        for item in items:
            if "real_data" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs the real data sets: set ZOO_DATA_DIR"))
