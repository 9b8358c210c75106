"""Weights that an installation leaves out: fetched once, checked, and nothing half-written whatever goes wrong."""

import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest

from zoo import artifacts
from zoo.artifacts import hub, index
from zoo.artifacts import manifest as manifest_file
from zoo.errors import ZooError
from zoo.files import cache_folder

ROOT = Path(__file__).parent.parent
NAME = "mlp_784_10.mnist_paper"
MANIFEST = manifest_file.MANIFEST
DATA = "variables/variables.data-00000-of-00001"
FILES = 6  # of the artifact, its manifest among them


class Handler(BaseHTTPRequestHandler):
    """Serves the files below `server.folder`; `server.fault` names what it does wrong, and to paths that end how."""

    def do_GET(self):
        self.server.asked.append(self.path)
        fault, ending = self.server.fault
        fault = fault if self.path.endswith(ending) else ""
        time.sleep(self.server.delay)
        if fault == "silent":
            self.server.released.wait(30)
            return
        if fault.isdecimal():
            self.send_error(int(fault))
            return
        body = (self.server.folder / self.path.lstrip("/")).read_bytes()
        sent = {"truncated": body[:-9], "unnoticed": body[:-9], "corrupted": b"?" + body[1:]}.get(fault, body)
        self.send_response(200)
        if fault not in ("unnoticed", "endless"):  # without a length the end of the connection is the end of the file
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "dripping":
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.released.wait(0.1):
                    return
        if fault == "endless":
            self.wfile.write(body)
            while not self.server.released.is_set():
                self.wfile.write(bytes(2**16))
        if fault == "hanging":
            self.wfile.write(body[:9])
            self.server.released.wait(30)
            return
        self.wfile.write(sent)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that serves one artifact, an installation that has its index only, and a cache that is not there yet."""
    folder = tmp_path / "served"
    shutil.copytree(ROOT / "saved_models" / NAME, folder / NAME)
    index.write_index(folder)
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(folder / index.INDEX, package)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.package, server.asked = folder, package, []
    server.fault, server.delay, server.released = ("", ""), 0, threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(index, "package_folder", lambda: package)
    monkeypatch.setattr(hub, "TIMEOUT", 0.5)
    monkeypatch.setenv("ZOO_HUB", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def cached():
    """All that lies in the cache, without the empty files of locks."""
    return [path for path in cache_folder().rglob("*") if path.suffix != ".lock"]


def served_equals(path, server):
    return contents(path) == contents(server.folder / NAME / "1")


def edit_manifest(server, **changes):
    """Publish another manifest: its sha256 in the index of the installation is right."""
    file = server.folder / NAME / "1" / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    content = json.loads((server.package / index.INDEX).read_text())
    content["sha256"][f"{NAME}/1"] = manifest_file.sha256(file)
    (server.package / index.INDEX).write_text(json.dumps(content))
    index.index_of.cache_clear()


def error_of(name=NAME):
    """The one line that finding a name ends with."""
    with pytest.raises(ZooError) as caught:
        artifacts.find(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def process(server, code="print(artifacts.find(NAME))"):
    """A process of its own in which the same installation finds the name."""
    setup = f"""
from pathlib import Path
from zoo import artifacts
from zoo.artifacts import index
NAME = {NAME!r}
index.package_folder = lambda: Path({str(server.package)!r})
"""
    command = [sys.executable, "-c", setup + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- what is fetched --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "mlp_784_10.mnist", "mlp_784_10"])
def test_what_is_listed_and_nowhere_is_fetched_once(server, name, tmp_path):
    artifact = artifacts.open_artifact(name)
    assert artifact.path == tmp_path / "cache" / NAME / "1"
    assert served_equals(artifact.path, server)
    assert artifact.arrays()["output/kernel"].shape == (784, 10)
    assert len(server.asked) == FILES
    assert artifacts.find(name) == artifact.path
    assert len(server.asked) == FILES
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [NAME]


def test_the_index_of_the_working_directory_is_fetched_from_too(server):
    Path("saved_models").mkdir()
    (server.package / index.INDEX).rename(f"saved_models/{index.INDEX}")
    assert served_equals(artifacts.open_artifact(NAME).path, server)


def test_what_lies_in_a_folder_is_not_fetched(server):
    shutil.copytree(server.folder / NAME, server.package / NAME)
    assert artifacts.find("mlp_784_10.mnist") == server.package / NAME / "1"
    Path("saved_models").mkdir(exist_ok=True)
    shutil.move(server.package / NAME, f"saved_models/{NAME}")
    assert artifacts.find(NAME) == Path(f"saved_models/{NAME}/1").resolve()
    assert not server.asked


def test_two_processes_at_once_fetch_once(server):
    server.delay = 0.2
    processes = [process(server) for _ in range(2)]
    outputs = [done.communicate(timeout=60) for done in processes]
    assert [done.returncode for done in processes] == [0, 0], outputs
    assert {output.strip() for output, _ in outputs} == {str(cache_folder() / NAME / "1")}
    assert len(server.asked) == FILES
    assert served_equals(artifacts.find(NAME), server)


def test_other_releases_share_the_cache(server):
    """Neither the same version with another content nor a later version is what the index lists."""
    path = artifacts.find(NAME)
    shutil.copytree(path, path.parent / "2")
    edit_manifest(server, name="published anew")
    assert artifacts.find(NAME) == path
    assert artifacts.open_artifact(path).manifest["name"] == "published anew"
    assert sorted(child.name for child in path.parent.iterdir()) == ["1", "2"]


def test_what_was_changed_in_the_cache_is_refused(server):
    path = artifacts.find(NAME)
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ZooError, match=r"is not the published one: its sha256 differs from that in published\.json"):
        artifacts.open_artifact(path)


def test_a_misspelt_name_is_not_asked_for(server):
    assert f"unknown artifact 'mlp_784_10.mnist_papr': did you mean {NAME}?" in error_of("mlp_784_10.mnist_papr")
    assert "unknown artifact 'nowhere/at.all'" in error_of("nowhere/at.all")
    assert not server.asked


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [MANIFEST, DATA])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", "cannot fetch {url}: 404 Client Error: Not Found"),
        ("500", "cannot fetch {url}: 500 Server Error: Internal Server Error"),
        ("truncated", "cannot fetch {url}: .*IncompleteRead"),
        ("unnoticed", "{url} is damaged or not the published one: its sha256 differs"),
        ("corrupted", "{url} is damaged or not the published one: its sha256 differs"),
        ("hanging", "cannot fetch {url}: .*Read timed out"),
        ("silent", "cannot fetch {url}: .*Read timed out"),
    ],
)
def test_a_failure_leaves_nothing_and_the_next_attempt_succeeds(server, fault, message, ending):
    server.fault = fault, ending
    started = time.monotonic()
    error = error_of()
    assert re.match(message.format(url=re.escape(f"{os.environ['ZOO_HUB']}{NAME}/1/{ending}")), error), error
    assert f"put its folder at {cache_folder() / NAME / '1'}" in error
    assert time.monotonic() - started < 10
    assert cached() == []
    server.fault = "", ""
    assert served_equals(artifacts.open_artifact(NAME).path, server)


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("ending", [MANIFEST, DATA])
def test_a_server_has_limits_on_bytes_and_time(server, ending, monkeypatch):
    monkeypatch.setattr(hub, "SLOWEST", 10**9)
    server.fault = ("endless", ending)
    assert "sends more bytes than are listed" in error_of()
    server.fault = ("dripping", ending)
    assert "it takes too long" in error_of()
    assert not cached()


def test_files_larger_than_the_index_says_are_not_fetched(server):
    content = json.loads((server.package / index.INDEX).read_text())
    content["models"]["mlp_784_10"]["tags"]["mnist_paper"]["bytes"] = 1000
    (server.package / index.INDEX).write_text(json.dumps(content))
    index.index_of.cache_clear()
    assert "the index lists 1,000" in error_of()
    assert len(server.asked) == 1


def test_a_password_is_not_printed(server, monkeypatch):
    for fault in ("404", "corrupted"):
        server.fault = (fault, DATA)
        monkeypatch.setenv("ZOO_HUB", f"http://me:secret@127.0.0.1:{server.server_port}")
        assert "secret" not in error_of()


def test_who_waits_for_another_process_is_told(server, capsys, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.01)
    cache_folder().mkdir(parents=True)
    held = threading.Event()

    def hold():
        with filelock.FileLock(cache_folder() / f".{NAME}.1.lock"):
            held.set()
            time.sleep(0.3)

    threading.Thread(target=hold).start()
    held.wait()
    artifacts.find(NAME)
    assert f"note: another process fetches {NAME}: waiting for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:{closed}", "Connection refused"),
        ("nowhere", "No scheme supplied"),
        ("ftp://127.0.0.1/zoo", "No connection adapters"),
    ],
)
def test_an_address_that_does_not_answer(server, monkeypatch, address, message):
    good, address = os.environ["ZOO_HUB"], address.format(closed=closed_port())
    monkeypatch.setenv("ZOO_HUB", address)
    error = error_of()
    assert error.startswith(f"cannot fetch {address}/{NAME}/1/{MANIFEST}: ")
    assert message in error
    assert "check ZOO_HUB" in error
    assert cached() == []
    monkeypatch.setenv("ZOO_HUB", good)
    assert served_equals(artifacts.find(NAME), server)


def test_without_an_address_the_error_tells_what_to_do(server, monkeypatch):
    monkeypatch.delenv("ZOO_HUB")
    target = cache_folder() / NAME / "1"
    assert error_of("mlp_784_10") == (
        f"{NAME} (0.2 MB) is not part of this installation: set ZOO_HUB to an address that serves {NAME}/1/, "
        f"or put its folder at {target}"
    )
    shutil.copytree(server.folder / NAME / "1", target)  # as it says
    assert artifacts.open_artifact("mlp_784_10").path == target


def test_offline_never_opens_a_connection(server, monkeypatch):
    def connect(*arguments):
        raise AssertionError("a connection is opened")

    path = artifacts.find(NAME)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert artifacts.find(NAME) == path  # what is there can be had
    shutil.rmtree(path.parent)
    assert error_of().startswith(f"{NAME} (0.2 MB) is not part of this installation, and ZOO_OFFLINE forbids")
    assert len(server.asked) == FILES
    assert cached() == []


def test_a_cache_that_cannot_be_written(server, monkeypatch):
    Path("file").write_text("kept")
    monkeypatch.setenv("ZOO_CACHE", "file/cache")
    error = error_of()
    assert error.startswith(f"cannot write {NAME} to {Path('file/cache').absolute()}: [Errno 20] Not a directory")
    assert "set ZOO_CACHE to another folder" in error
    assert Path("file").read_text() == "kept"
    assert not server.asked


def test_a_full_disk(server):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        error = error_of()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert error.startswith(f"cannot write {NAME} to {cache_folder()}: [Errno 27] File too large")
    assert cached() == []
    assert served_equals(artifacts.find(NAME), server)


def test_what_a_killed_process_leaves_is_cleared_away(server):
    server.fault = "hanging", DATA
    killed = process(server, "from zoo.artifacts import hub; hub.TIMEOUT = 60; artifacts.find(NAME)")
    deadline = time.monotonic() + 60
    while not any(path.endswith(DATA) for path in server.asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert cached()
    (cache_folder() / f".{NAME}.1.part" / "new" / "stray").touch()
    server.fault = "", ""
    assert served_equals(artifacts.open_artifact(NAME).path, server)
    assert {path.relative_to(cache_folder()).parts[0] for path in cached()} == {NAME}


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "variables/../../../evil", "/tmp/evil", "..\\evil", "C:\\evil", ""])
def test_files_outside_of_the_folder_are_refused(server, name, tmp_path):
    listed = json.loads((server.folder / NAME / "1" / MANIFEST).read_text())["files"]
    edit_manifest(server, files={**listed, name: listed["fingerprint.pb"]})
    before = contents(tmp_path)
    assert f"is refused: it lists {name!r}" in error_of()
    assert len(server.asked) == 1
    assert cached() == []
    assert {path for path in contents(tmp_path).keys() - before.keys() if not path.endswith(".lock")} == set()


def test_an_index_cannot_name_a_folder_outside_of_the_cache(server):
    (server.package / index.INDEX).unlink()
    Path("saved_models").mkdir()
    tag = json.loads((server.folder / index.INDEX).read_text())["models"]["mlp_784_10"]["tags"]["mnist_paper"]
    entry = {"tags": {"../../evil": tag}, "aliases": {"default": "../../evil"}}
    listed = {"models": {"lenet5": entry}, "sha256": {"lenet5.../../evil/1": "0"}}
    Path("saved_models", index.INDEX).write_text(json.dumps(listed))
    index.index_of.cache_clear()
    assert "'../../evil' is no name" in error_of("lenet5")
    assert not server.asked


# --- what the wheel carries -------------------------------------------------------------------------------------


def test_the_wheel_carries_small_and_listed_artifacts_only(tmp_path):
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hatch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hatch_build)
    for name in (NAME, "lenet5.mnist_paper"):
        shutil.copytree(ROOT / "saved_models" / name, name)
    index.write_index(tmp_path)
    shutil.copytree(f"{NAME}/1", f"{NAME}/2")  # neither of them is listed
    shutil.copytree(NAME, "mlp_784_10.own")
    Path(NAME, "1", "notes.txt").touch()
    expected = contents(ROOT / "saved_models" / NAME / "1")
    assert sorted(hatch_build.carried(tmp_path, 300_000)) == sorted(
        [index.INDEX, *(f"{NAME}/1/{file}" for file in expected)]
    )
    assert f"lenet5.mnist_paper/1/{MANIFEST}" in hatch_build.carried(tmp_path)


USE = """
import zoo
from zoo import artifacts
model = zoo.create_model("lenet5", weights="mnist")
print(zoo.__file__, artifacts.find("lenet5.mnist"), model.count_params(), sep="\\n")
"""


@pytest.mark.slow
def test_the_wheel_works_elsewhere_without_a_network(tmp_path):
    pytest.importorskip("pip")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-index", "--no-build-isolation", "-w", "wheels"]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = Path("wheels").iterdir()
    listed = json.loads((ROOT / "saved_models" / index.INDEX).read_text())
    versions = {
        f"{name}.{tag}/{row['version']}"
        for name, entry in listed["models"].items()
        for tag, row in entry["tags"].items()
        if row["bytes"] <= 2_000_000
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = "zoo/saved_models/"
        names = [name.removeprefix(inside) for name in archive.namelist() if name.startswith(inside)]
        assert json.loads(archive.read(f"{inside}{index.INDEX}")) == listed
    assert {"/".join(name.split("/")[:2]) for name in names} == versions | {index.INDEX}
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", "installed", str(wheel)], check=True)
    Path("elsewhere").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ZOO_")}
    environment |= {"PYTHONPATH": str(tmp_path / "installed"), "ZOO_OFFLINE": "1", "ZOO_CACHE": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd="elsewhere", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    package, artifact, parameters = done.stdout.splitlines()[-3:]
    assert Path(package) == tmp_path / "installed" / "zoo" / "__init__.py"
    assert tmp_path / "installed" / "zoo" / "saved_models" in Path(artifact).parents
    assert int(parameters) > 60_000
