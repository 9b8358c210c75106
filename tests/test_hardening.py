"""What comes from outside cannot stop, fill, fool or run anything: artifacts made by an attacker.

The sweep over thousands of them is `python tests/attack/sweep.py`; here is a small one of each kind.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from attack import forging
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

import zoo
from zoo import artifacts, report
from zoo.artifacts import index
from zoo.artifacts.rebuilding import rebuild
from zoo.checkpoint import checkpoint_arrays
from zoo.errors import ZooError
from zoo.files import written
from zoo.training import runs

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def honest(making):
    """The exported directory of a small network that was never trained."""
    with making as folder:
        return forging.export(folder / "mlp_784_10.made")


@pytest.fixture
def version(honest, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(honest, tmp_path / "mlp_784_10.copy" / "1"))


def refused(version, message, *calls):
    """Asserts that a resealed directory is refused in one line."""
    forging.reseal(version)
    for call in calls or (zoo.verify, zoo.load):
        with pytest.raises(ZooError, match=message) as caught:
            call(version)
        assert "\n" not in str(caught.value)


# --- verify means verified --------------------------------------------------------------------------------------


def test_an_honest_artifact_verifies_and_is_rebuilt(honest):
    (result,) = zoo.verify(honest)
    assert result["difference"] <= 1e-5
    built = rebuild(artifacts.open_artifact(honest))
    images = np.zeros((2, 28, 28, 1), np.uint8)
    expected = tf.saved_model.load(str(honest)).signatures["serving_default"](images=tf.constant(images))
    outputs = built.signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-6)


@pytest.mark.slow
def test_golden_examples_do_not_excuse_a_wrong_graph(tmp_path):
    path = forging.forged(tmp_path, lambda outputs, *_: {**outputs, "class_ids": outputs["class_ids"] + 1})
    with pytest.raises(ZooError, match=r"class_ids of (golden|fresh) example \d differs by 1"):
        zoo.verify(path)


def test_a_graph_that_keeps_a_request_is_refused(tmp_path):
    path = forging.forged(tmp_path, forging.remember)
    with pytest.raises(ZooError, match="a signature holds operations that are not allowed: Assign"):
        zoo.verify(path)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), [("endless", "computes more than"), ("greedy", "cannot serve")])
def test_graphs_are_run_within_limits(change, message, tmp_path):
    path = forging.forged(tmp_path, getattr(forging, change), golden=False)
    with pytest.raises(ZooError, match=message):
        zoo.verify(path)


def test_serving_and_loading_run_the_same_signatures(version):
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    definitions = saved.meta_graphs[0].signature_def
    definitions["other"].CopyFrom(definitions["serving_default"])
    (version / "saved_model.pb").write_bytes(saved.SerializeToString())
    refused(version, "not the functions that plain TensorFlow loads", zoo.verify)


# --- sizes before the network is built --------------------------------------------------------------------------

TOO_LARGE = {
    "a wide layer": ({"arguments": {"hidden": [10**6]}}, "larger network than its weights file holds"),
    "many layers": ({"arguments": {"hidden": [8] * 10**5}}, "larger network than its weights file holds"),
    "a large image": ({"input_shape": [3000, 3000, 1]}, "larger network than its weights file holds"),
    "a number without end": ({"input_shape": [10**30, 1, 1]}, "the number 1e.30"),
    "a negative side": ({"input_shape": [-3, 28, 1]}, "refused|cannot be built"),
    "a text for a side": ({"input_shape": ["28", "28", 1]}, "input_shape is of a wrong type"),
    "a wide member": (
        {"spec": "ensemble", "arguments": {"members": [{"spec": "mlp_784_30_10", "arguments": {"hidden": [9**6]}}]}},
        "larger network than its weights file holds",
    ),
    "a large resize": ({"preprocessing": {"size": [10**6, 10**6]}}, "preprocessing"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_no_network_is_larger_than_its_weights_file(what, version):
    changes, message = TOO_LARGE[what]
    manifest = forging.manifest_of(version)
    forging.write_manifest(version, {**manifest, "model": {**manifest["model"], **changes}})
    refused(version, message, zoo.load)


# --- checkpoints ------------------------------------------------------------------------------------------------


def test_checkpoints_are_read_as_tensorflow_reads_them(honest):
    prefix = honest / "variables" / "variables"
    reader = tf.train.load_checkpoint(str(prefix))
    arrays = checkpoint_arrays(prefix)
    assert {key: value.shape for key, value in arrays.items()} == {"output/kernel": (784, 3), "output/bias": (3,)}
    for key, value in arrays.items():
        stored = reader.get_tensor(f"weights/{key.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE")
        np.testing.assert_array_equal(value, stored)


def test_an_index_of_many_blocks_is_read():
    module = tf.Module()
    module.weights = {f"layer{number}/{'long' * 20}": tf.Variable([float(number)]) for number in range(300)}
    tf.saved_model.save(module, "many")
    arrays = checkpoint_arrays(Path("many/variables/variables"))
    assert {key: float(value[0]) for key, value in arrays.items()} == {
        f"layer{number}/{'long' * 20}": number for number in range(300)
    }


KERNEL = b"weights/output.Skernel/.ATTRIBUTES/VARIABLE_VALUE"
HOSTILE_ENTRIES = {
    "an overflowing product": ({"shape": [2**31, 2**31, 2**31]}, "has .* bytes"),
    "a negative side": ({"shape": [-1, 3]}, "has the shape"),
    "no side": ({"shape": [0, 3]}, "has the shape"),
    "many axes": ({"shape": [1] * 300 + [784, 3]}, "has the shape"),
    "an unknown type": ({"dtype": 99}, "no whole array of float32"),
    "texts": ({"dtype": 7}, "no whole array of float32"),
    "gigabytes": ({"shape": [10**9, 100], "size": 4 * 10**11}, "outside of the data file"),
    "a negative place": ({"offset": -8}, "outside of the data file"),
    "a place beyond the end": ({"offset": 2**40}, "outside of the data file"),
    "another file": ({"shard_id": 1}, "no whole array"),
}


@pytest.mark.parametrize("what", HOSTILE_ENTRIES)
def test_entries_of_a_checkpoint_fit_its_file(what, version):
    changes, message = HOSTILE_ENTRIES[what]
    forging.change_entries(version, lambda key, entry: forging.changed(entry, **changes) if key == KERNEL else entry)
    refused(version, f"cannot be read: .*{message}")


def test_arrays_that_share_their_bytes_are_refused(version):
    index = version / "variables" / "variables.index"
    rows = forging.rows_of(index.read_bytes())
    first = next(value for key, value in rows if key == KERNEL)
    more = [(b"weights/x%05d/.ATTRIBUTES/VARIABLE_VALUE" % number, first) for number in range(2_000)]
    index.write_bytes(forging.table_of([*rows, *more]))
    refused(version, "shares its bytes with another array")


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_in_an_index_are_refused_or_change_nothing(seed, version):
    random = np.random.default_rng(seed)
    index = version / "variables" / "variables.index"
    data = bytearray(index.read_bytes())
    for place in random.integers(0, len(data), random.integers(1, 9)):
        data[place] = random.integers(0, 256)
    before = checkpoint_arrays(version / "variables" / "variables")
    index.write_bytes(data)
    with contextlib.suppress(ZooError):
        after = checkpoint_arrays(version / "variables" / "variables")
        assert sum(value.nbytes for value in after.values()) <= sum(value.nbytes for value in before.values())


# --- manifests and indexes --------------------------------------------------------------------------------------


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


def edited(**changes):
    return lambda manifest: {**manifest, **changes}


TRAINING = {"recipe": {"optimizer": "sgd", "learning_rate": 1, "batch_size": 1, "epochs": 1, "loss": "cross_entropy"}}
WRONG = {
    "a list for the scores": edited(scores=[]),
    "no reported score": lambda manifest: {**manifest, "scores": without(manifest["scores"], "reported")},
    "a text for the runs": edited(runs="none"),
    "runs of numbers": edited(runs=[1, 2]),
    "a training without a recipe": edited(training={"data": {}}),
    "no origin": lambda manifest: {**manifest, "training": {**TRAINING, "origin": None}},
    "data as a list": lambda manifest: {**manifest, "training": {**TRAINING, "data": []}},
    "weights as a number": edited(weights=3),
    "classes of numbers": lambda manifest: {**manifest, "model": {**manifest["model"], "classes": [1, 2, 3]}},
    "no input shape": lambda manifest: {**manifest, "model": {**manifest["model"], "input_shape": []}},
    "a size of one side": lambda manifest: {
        **manifest,
        "model": {**manifest["model"], "preprocessing": {**manifest["model"]["preprocessing"], "size": [28]}},
    },
    "an origin of numbers": edited(training={**TRAINING, "origin": {"name": "a.b", "classes": [1]}}),
    "versions as a list": edited(training={**TRAINING, "trained_by": ["jax"]}),
    "a size as text": lambda manifest: {**manifest, "files": {"saved_model.pb": {"size": "1", "sha256": "0"}}},
    "a score that is no number": lambda manifest: {**manifest, "scores": {**manifest["scores"], "test": "good"}},
}


@pytest.mark.parametrize("what", WRONG)
def test_manifests_have_one_form(what, version):
    forging.write_manifest(version, WRONG[what](forging.manifest_of(version)))
    for call in (artifacts.read_manifest, zoo.load, zoo.verify):
        with pytest.raises(ZooError, match=r"manifest\.json is damaged: ") as caught:
            call(version)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": ' * 40 + "1" + "}" * 40, "more than 32 levels deep"),
        ('{"format": ' + "9" * 5_000 + "}", "is damaged"),
        ('{"format": "' + "x" * 2**22 + '"}', "has .* bytes, more than"),
        ("[]", "no JSON object"),
    ],
)
def test_json_is_read_within_limits(text, message, version):
    (version / "assets.extra" / "manifest.json").write_text(text)
    with pytest.raises(ZooError, match=message):
        artifacts.read_manifest(version)


def fifo(file):
    os.mkfifo(file)


def link(file):
    file.symlink_to("/dev/zero")


def sparse(file):
    with file.open("wb") as opened:
        opened.truncate(2**40)


@pytest.mark.parametrize("make", [fifo, link, sparse])
@pytest.mark.parametrize(
    "name", ["assets.extra/manifest.json", "saved_model.pb", "variables/variables.index", "assets.extra/golden.npz"]
)
def test_only_regular_files_are_opened(name, make, version):
    manifest = forging.manifest_of(version)
    (version / name).unlink()
    make(version / name)
    if name in manifest["files"]:
        manifest["files"][name] = {"size": (version / name).lstat().st_size, "sha256": "0" * 64}
        forging.write_manifest(version, manifest)
    for call in (zoo.load, zoo.verify):
        with pytest.raises(ZooError, match=r"regular file|is a link|sparse|more than"):
            call(version)


def test_a_broken_neighbor_keeps_its_place_in_the_index(honest, tmp_path):
    for name in ("mlp_784_10.one", "mlp_784_10.two"):
        shutil.copytree(honest.parent, tmp_path / "saved_models" / name)
    root = tmp_path / "saved_models"
    index.write_index(root)
    before = json.loads((root / index.INDEX).read_text())
    manifest = root / "mlp_784_10.two" / "1" / "assets.extra" / "manifest.json"
    manifest.write_text('{"scores": {"metric": "nothing"}}')
    index.write_index(root)
    assert json.loads((root / index.INDEX).read_text()) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"models": []},
        {"sha256": {"a": 1}},
        {"models": {"mlp_784_10": {"tags": {}, "aliases": {"default": "../../elsewhere"}}}},
        {"models": {"mlp_784_10": {"tags": [], "aliases": {}}}},
        {"models": {"../up": {"tags": {}, "aliases": {}}}},
    ],
)
def test_indexes_have_one_form(changes, honest, monkeypatch, tmp_path):
    shutil.copytree(honest.parent, "saved_models/mlp_784_10.one")
    index.write_index(Path("saved_models"))
    file = Path("saved_models", index.INDEX)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ZooError, match=r"published\.json is damaged: .*remove it"):
        index.published_index()


def test_the_index_of_the_cache_says_nothing(honest, monkeypatch):
    """A published name means the weights of the package's index, whatever lies in the cache."""
    package, cache = Path("package").resolve(), Path("cache").resolve()
    for folder, name in [(package, "mlp_784_10.good"), (cache, "mlp_784_10.good"), (cache, "mlp_784_10.evil")]:
        shutil.copytree(honest.parent, folder / name)
    for folder in (package, cache):
        index.write_index(folder)
    shutil.rmtree(package / "mlp_784_10.good")
    content = json.loads((cache / index.INDEX).read_text())
    content["models"]["mlp_784_10"]["aliases"] = dict.fromkeys(("default", "good", "data"), "evil")
    (cache / index.INDEX).write_text(json.dumps(content))
    monkeypatch.setenv("ZOO_CACHE", str(cache))
    monkeypatch.setattr(index, "package_folder", lambda: package)
    index.index_of.cache_clear()
    for name in ("mlp_784_10.good", "mlp_784_10"):
        assert artifacts.find(name).parent.name == "mlp_784_10.good"
    manifest = cache / "mlp_784_10.good" / "1" / "assets.extra" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(ZooError, match="is not the published one"):
        artifacts.read_manifest(manifest.parent.parent)


# --- nothing is run, nothing is hidden --------------------------------------------------------------------------


def test_names_are_shown_without_control_characters_and_markup(version, command):
    names = ["\x1b[31mred\x1b[0m", "[bold]b[/bold]", "a\u202eb"]
    manifest = forging.manifest_of(version)
    forging.write_manifest(version, {**manifest, "model": {**manifest["model"], "classes": names}})
    Image.new("L", (28, 28)).save("image.png")
    for line in (f"info {version}", f"predict {version} image.png", f"predict {version} no\x1b[31m.png"):
        _, out, err = command(line)
        assert not {"\x1b", "\u202e"} & {*out, *err}, line
    _, out, _ = command(f"info {version}")
    assert "\\x1b[31mred\\x1b[0m, [bold]b[/bold], a\\u202eb" in " ".join(out.split())


def test_a_report_holds_no_html(honest, monkeypatch):
    shutil.copytree(honest.parent, "saved_models/mlp_784_10.<b>x")
    version = Path("saved_models/mlp_784_10.<b>x/1")
    manifest = forging.manifest_of(version)
    scores = {**manifest["scores"], "dataset": "<script>|", "metric": "accuracy", "test": 0.5}
    forging.write_manifest(version, {**manifest, "scores": scores})
    index.write_index(Path("saved_models"))
    table = report.table(Path("saved_models"))
    assert "&lt;script&gt;&#124;" in table
    assert "<" not in table


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 28 28
%%EndComments
(written) (w) file closefile
showpage
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.eps", "x.png"])
def test_no_command_starts_ghostscript(name, honest, command, monkeypatch, tmp_path):
    """A Ghostscript of our own says whether it was started."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    for folder in ("data/a", "data/b", "images", "masks"):
        Path(folder).mkdir(parents=True)
        Path(folder, name).write_bytes(EPS)
    Path(name).write_bytes(EPS)
    unet = ROOT / "saved_models" / "unet_small.isbi"
    for line in (
        f"predict {honest} {name}",
        f"predict {honest} images",
        f"segment {name} -o mask.png --model {unet}",
        f"evaluate {honest} --data data",
        "train mlp_784_10 --data data --epochs 1",
    ):
        code, out, err = command(line)
        assert code == 2, out
        assert "Traceback" not in out + err
    assert not (tmp_path / "started").exists()


# --- runs -------------------------------------------------------------------------------------------------------

TRAIN = "train mlp_784_10 --data digits --epochs {} --out run --export saved/mlp_784_10.run"


def start(line, *, most=None):
    """A command in a process of its own, whose files may have so many bytes."""
    code = "from zoo import cli; cli.main()"
    if most:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most})); {code}"
    command = [sys.executable, "-c", code, *line.split()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def has(path, process):
    while not Path(path).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_sigterm_ends_a_training_as_the_keyboard_does(command):
    process = start(TRAIN.format(10_000))
    has("run/state.npz", process)
    code, _, err = command(TRAIN.format(10_000))
    assert (code, err.count("\n")) == (2, 1)
    assert "another process trains in run: wait for it, or choose another --out" in err
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines()[-1] == "stopped by SIGTERM: a training resumes when its command is repeated"
    assert "Traceback" not in err
    state = np.load("run/state.npz")
    assert len(json.loads(str(state["history"]))) >= 1
    assert not list(Path("run").glob("*.partial"))
    assert not Path("saved").exists()


@pytest.mark.slow
def test_a_full_disk_ends_a_training_in_one_line_and_it_resumes(command):
    process = start(TRAIN.format(3), most=20_000)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert err.splitlines()[-1].startswith("error: cannot write run: ")
    assert "Traceback" not in err
    assert not list(Path("run").glob("*.partial"))
    code, _, err = command(TRAIN.format(3))
    assert code == 0, err


def test_a_run_in_use_is_not_written(tmp_path):
    recipe = dataclasses.asdict(zoo.Recipe(epochs=1, batch_size=1, learning_rate=1.0))
    record = {"model": {"preprocessing": dataclasses.asdict(zoo.Preprocessing())}, "recipe": recipe}
    record = json.loads(json.dumps(record))
    with runs.open_run(Path("run"), record):
        before = Path("run", "run.json").read_bytes()
        code = f"""
from pathlib import Path
from zoo.training import runs
with runs.open_run(Path("run"), {record}):
    pass
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process trains in run" in done.stderr
        assert Path("run", "run.json").read_bytes() == before
    with runs.open_run(Path("run"), record):
        pass


def test_leftovers_of_killed_exports_are_removed_by_the_next(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for name in (f".1.{int(gone.stdout)}", f".7.{int(gone.stdout)}", f".2.{os.getppid()}", ".2.kept"):
        Path("m.x", name).mkdir(parents=True)
    with written(Path("m.x", "2")) as temporary:
        temporary.mkdir()
    assert sorted(child.name for child in Path("m.x").iterdir()) == [f".2.{os.getppid()}", ".2.kept", "2"]


@pytest.mark.slow
def test_a_part_of_the_sweep():
    """One of each kind, as `python tests/attack/sweep.py` makes a thousand."""
    command = [sys.executable, ROOT / "tests" / "attack" / "sweep.py", "--attempts", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 tracebacks, 0 aborts, 0 hangs, 0 over 2 GB, 0 code run, 0 wrong weights, 0 wrong answers" in done.stdout
