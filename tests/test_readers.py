"""Readers, which prepare the batches of a training: the same batches, lost ones, and what is refused."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import tasks
from zoo.errors import ZooError
from zoo.recipe import Affine, Augmentation
from zoo.training import readers
from zoo.training.batches import load_for, training_batches
from zoo.weights import load_arrays

VARIED = {"augmentation": {"expand_shift": True, "affine": {"rotation": 10}}}
SMALL = {"arguments": {"filters": [4], "hidden": [8]}, "batch_size": 16, "seed": 3, **VARIED}


def addresses(count):
    """Addresses whose port and the next two are free."""
    found = []
    for first in itertools.count(20_000 + os.getpid() % 10_000, 3):
        try:
            for port in range(first, first + 3):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(f"127.0.0.1:{first}")
        if len(found) == count:
            return found


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of image files that are decoded again whenever they are read."""
    monkeypatch.setenv("ZOO_CACHE_GB", "0")
    random = np.random.default_rng(0)
    for number in range(120):
        path = tmp_path / "photos" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24), np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def two(monkeypatch):
    """Two readers in threads of this process."""
    monkeypatch.setenv("ZOO_CACHE_GB", "0")  # as readers set it
    found = addresses(2)
    for address in found:
        threading.Thread(target=readers.read, args=(address,), daemon=True).start()
    return found


def test_parts_in_turn_are_the_batches_of_all_epochs():
    spec = zoo.get_spec("network3_relu")
    recipe = spec.recipe().replace(epochs=3, batch_size=100, augmentation=Augmentation(affine=Affine(rotation=10)))
    data = load_for(spec, None, recipe, "digits")
    task = tasks.get_task(spec.task).from_data(spec, data)
    made = [training_batches(task, data.splits["train"], recipe, seed=1, part=(n, 3))[0] for n in range(3)]
    whole = [*training_batches(task, data.splits["train"], recipe, seed=1)[0]]
    parts = [[*one] for one in made]
    assert len(whole) == 36 == sum(map(len, parts))
    for step, (images, _) in enumerate(whole):
        np.testing.assert_array_equal(images, parts[step % 3][step // 3][0])


def test_a_training_with_readers_is_the_one_without(photos, two, capfd, monkeypatch):
    asked, batches = [], readers._prepared
    monkeypatch.setattr(readers, "_prepared", lambda request: asked.append(request["part"]) or batches(request))
    alone = zoo.train("network3_relu", photos, out="alone", epochs=2, **SMALL)
    expected = load_arrays(Path("alone/weights.npz"))
    for again in range(2):  # the readers wait for the next training
        helped = zoo.train("network3_relu", "photos", out=f"helped{again}", epochs=2, readers=two, **SMALL)
        for one, other in zip(alone.history, helped.history, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        for key, value in load_arrays(Path(f"helped{again}/weights.npz")).items():
            np.testing.assert_array_equal(value, expected[key])
    assert sorted(asked) == [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert capfd.readouterr().out.count("preparing the batches of a training") == 4


def test_a_file_that_a_reader_cannot_read_any_more_is_named(photos, two):
    with pytest.raises(ZooError, match="could be read before and cannot now"):
        zoo.train("network3_relu", "photos", epochs=2, readers=two, callbacks=[Breaking(photos)], **SMALL)


class Breaking(keras.callbacks.Callback):
    """Truncates all files after the first epoch."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        for file in self.folder.rglob("*.png"):
            file.write_bytes(file.read_bytes()[:40])


def test_readers_are_for_image_files(two):
    with pytest.raises(ZooError, match="digits has no image files in class folders, which readers are for"):
        zoo.train("network3_relu", "digits", out="run", epochs=1, readers=two, **SMALL)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"code": {}}, "it has another version of the code"),
        ({"data": "digits"}, "it has another data set digits"),
        ({"data": "./missing"}, "missing"),
    ],
)
def test_a_reader_with_something_else_is_refused(changed, message, photos, two, monkeypatch):
    batches = readers._prepared
    monkeypatch.setattr(readers, "_prepared", lambda request: batches({**request, **changed}))
    with pytest.raises(ZooError, match=rf"the reader {two[0]} cannot prepare the batches: .*{message}"):
        zoo.train("network3_relu", "photos", out="run", epochs=1, readers=two, **SMALL)
    assert not Path("run").exists()


def test_what_readers_refuse(refused, monkeypatch):
    monkeypatch.setattr(readers, "STARTING_SECONDS", 0.1)
    (address,) = addresses(1)
    line = "train network3_relu --out run --epochs 1"
    refused(f"{line} --readers {address}", f"no reader answers at {address} since 0 seconds: start `zoo read` there")
    refused(f"{line} --readers here", "an address must be HOST:PORT, not 'here'")
    refused(f"{line} --readers a:1 --workers a:1,b:2 --worker 0", "several workers prepare their own batches")
    refused("read :5000", "an address must be HOST:PORT, not ':5000'")
    refused("read a:65535", "a:65537 has no port from 1 to 65535")
    with socket.create_server(("", int(address.rpartition(":")[2]))):
        refused(f"read {address}", f"cannot listen at {address} and the next two ports: Address already in use")
    with socket.create_server(("", int(address.rpartition(":")[2]) + 1)):
        refused(f"read {address}", f"cannot listen at {address} and the next two ports: Could not start gRPC server")
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):  # it says nothing
        refused(f"{line} --readers {address}", f"there is no reader at {address}: give the address of `zoo read`")
    with pytest.raises(ZooError, match="give its name or path"):
        zoo.train("network3_relu", zoo.data.load("digits"), readers=[address])


def test_the_service_of_a_reader_is_no_reader(two, monkeypatch):
    monkeypatch.setattr(readers, "STARTING_SECONDS", 1)
    host, _, port = two[0].partition(":")
    with pytest.raises(ZooError, match="there is no reader at"):
        zoo.train("network3_relu", "digits", out="run", readers=[f"{host}:{int(port) + 1}"], **SMALL)
    assert not Path("run").exists()


def test_a_reader_that_gives_another_address_than_its_own_is_named(photos):
    (address,) = addresses(1)
    port = address.partition(":")[2]
    threading.Thread(target=readers.read, args=(f"nowhere.invalid:{port}",), daemon=True).start()
    with pytest.raises(
        ZooError, match=f"the reader {address} sends its batches from nowhere.invalid:.* is not reached"
    ):
        zoo.train("network3_relu", "photos", out="run", epochs=1, readers=[address], **SMALL)
    assert not Path("run").exists()


@pytest.fixture
def start():
    """Starts a reader in a process of its own, which ends with the test."""
    started = []

    def begin(address):
        started.append(subprocess.Popen([sys.executable, "-m", "zoo", "read", address], stdout=subprocess.DEVNULL))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.mark.slow
def test_where_a_reader_is_killed_the_training_stops_and_resumes(photos, start, command):
    first, second = addresses(2)
    line = (
        "train network3_relu --data photos --arg filters=[4] --arg hidden=[8] --batch-size 16 --epochs 60 --out run "
        f"--readers {first},{second}"
    )
    state, lost = Path("run/state.npz"), [start(first), start(second)][1]

    def kill():
        while not state.exists():  # after the first epoch
            time.sleep(0.01)
        lost.kill()

    threading.Thread(target=kill, daemon=True).start()
    code, _, err = command(line)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: the reader {second} stopped or is not reached: start it again")
    rows = json.loads(str(load_arrays(state)["history"]))
    assert 0 < len(rows) < 60
    start(second)
    assert command(line)[0] == 0
    assert zoo.load_run("run").history[: len(rows)] == rows  # they were not trained again
