"""Artifacts: what export writes, who can read it, and what is refused when somebody has changed it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import zoo
from zoo import artifacts, testing
from zoo.artifacts import index
from zoo.artifacts import manifest as manifest_file
from zoo.checkpoint import checkpoint_arrays
from zoo.data.decoding import decode_image
from zoo.errors import ZooError
from zoo.exporting import saved_model
from zoo.weights import named_weights, save_arrays

NAMES = ("mlp_784_30_10", "lenet5")
WRITES = "written-by-the-graph"


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """By name: a run of one epoch and the NAME.ex directory that was exported from it, in a folder with an index."""
    folder = tmp_path_factory.mktemp("exported")
    data = testing.example_data("classification")
    result = {}
    for name in NAMES:
        run = zoo.train(name, data, out=folder / "runs" / name, epochs=1, batch_size=8)
        zoo.export(run, folder / "saved_models" / f"{name}.ex")
        result[name] = types.SimpleNamespace(run=run, path=folder / "saved_models" / f"{name}.ex")
    return result


@pytest.fixture
def mlp(exported, tmp_path):
    """A copy of the perceptron's directory, without an index beside it."""
    return Path(shutil.copytree(exported["mlp_784_30_10"].path, tmp_path / "copy" / "mlp_784_30_10.ex"))


def random_images(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def served(path, signature="serving_default", **inputs):
    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in outputs.items()}


def versions(path):
    return sorted(child.name for child in path.iterdir())


def manifest_of(version):
    return json.loads((version / manifest_file.MANIFEST).read_text())


def write_manifest(version, manifest):
    (version / manifest_file.MANIFEST).write_text(json.dumps(manifest))


def reseal(version):
    """Bring the manifest's sizes and sha256 up to date, as an attacker would."""
    files = [file for file in version.rglob("*") if file.is_file() and file != version / manifest_file.MANIFEST]
    entries = {
        file.relative_to(version).as_posix(): {"size": file.stat().st_size, "sha256": manifest_file.sha256(file)}
        for file in files
    }
    write_manifest(version, {**manifest_of(version), "files": entries})


# --- what is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_stored_once_under_readable_keys(exported, name):
    version = exported[name].path / "1"
    weights = {key: variable.numpy() for key, variable in named_weights(exported[name].run.model).items()}
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    stored = {key for key in reader.get_variable_to_shape_map() if key != "_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert stored == {f"weights/{key.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE" for key in weights}
    size = sum(value.nbytes for value in weights.values())
    on_disk = sum(file.stat().st_size for file in (version / "variables").iterdir())
    assert size <= on_disk < 1.05 * size + 8_000  # the index and the object graph
    assert (version / "saved_model.pb").stat().st_size < 300_000  # no weights as constants
    manifest = manifest_of(version)
    assert manifest["weights"] == {"storage": "float32", "parameters": size // 4}
    for key, value in checkpoint_arrays(version / "variables" / "variables").items():
        np.testing.assert_array_equal(value, weights.pop(key))
    assert not weights


def test_the_manifest_tells_all(exported):
    run, version = exported["lenet5"].run, exported["lenet5"].path / "1"
    manifest = manifest_of(version)
    assert manifest["model"]["spec"] == "lenet5"
    assert manifest["model"]["classes"] == ["class0", "class1"]
    assert manifest["training"]["recipe"]["epochs"] == 1
    assert manifest["training"]["data"]["fingerprint"] == "example bars 2"
    assert manifest["training"]["history"] == run.history
    assert manifest["scores"]["test"] == run.metrics["test"]["accuracy"]
    listed = {file.relative_to(version).as_posix() for file in version.rglob("*") if file.is_file()}
    assert set(manifest["files"]) == listed - {manifest_file.MANIFEST}


def test_sub_models_with_the_same_layer_names_are_both_kept(unverified, tmp_path):
    model = zoo.create_model("gan_mlp", width=4)
    path = zoo.export(model, "gan_mlp.ex", spec=zoo.get_spec("gan_mlp"), arguments={"width": 4})
    arrays = artifacts.open_artifact(path).arrays()
    for part in ("generator", "discriminator"):
        for layer in ("hidden1", "hidden2"):
            kernel = model.get_layer(part).get_layer(layer).kernel
            np.testing.assert_array_equal(arrays[f"{part}/{layer}/kernel"], kernel.numpy())
    assert len(arrays) == 12


def test_weights_that_share_a_key_raise():
    class Twice(keras.layers.Layer):
        def build(self, shape):
            self.first, self.second = (self.add_weight(shape=(2,), name="same") for _ in range(2))

        def call(self, inputs):
            return inputs + self.first + self.second

    inputs = keras.Input((2,))
    inner = keras.Model(inputs, Twice(name="twice")(inputs), name="inner")
    with pytest.raises(ZooError, match="share the key 'inner/twice/same'"):
        named_weights(keras.Model(inputs, inner(inputs)))


def test_keys_with_dots_come_back_as_they_were(tmp_path):
    module = tf.Module()
    keys = ["block.Start/kernel", "a..b/c.", "x/y/z", "S.S/.S"]
    module.weights = {key: tf.Variable([float(number)]) for number, key in enumerate(keys)}
    tf.saved_model.save(module, "keys")
    arrays = checkpoint_arrays(Path("keys/variables/variables"))
    assert {key: value.tolist() for key, value in arrays.items()} == {key: [n] for n, key in enumerate(keys)}


# --- plain TensorFlow serves it ---------------------------------------------------------------------------------

SERVE = """
import sys
sys.modules["keras"] = sys.modules["zoo"] = None
import numpy as np, tensorflow as tf
arrays = np.load("inputs.npz")
outputs = {}
for path in sys.argv[1:]:
    signatures = tf.saved_model.load(path).signatures
    for key in arrays.files:
        out = signatures["serving_default"](images=tf.constant(arrays[key]))
        outputs |= {f"{path} {key} {name}": value.numpy() for name, value in out.items() if name != "class_names"}
np.savez("outputs.npz", **outputs)
"""


def test_tensorflow_alone_gives_the_same_for_images_of_any_size(exported):
    inputs = {
        "same": random_images(3, 28, 28, 1),
        "small": random_images(1, 5, 9, 1),
        "large": random_images(2, 61, 40, 1),
    }
    np.savez("inputs.npz", **inputs)
    paths = [str(exported[name].path / "1") for name in NAMES]
    done = subprocess.run([sys.executable, "-I", "-c", SERVE, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = np.load("outputs.npz")
    for path in paths:
        predictor = zoo.load(path)
        for key, images in inputs.items():
            expected = predictor(images)
            assert expected["probabilities"].shape == (len(images), 2)
            np.testing.assert_allclose(outputs[f"{path} {key} probabilities"], expected["probabilities"], atol=1e-6)
            np.testing.assert_array_equal(outputs[f"{path} {key} class_ids"], expected["class_ids"])


@pytest.mark.parametrize("name", NAMES)
def test_encoded_images_equal_decoded_ones(exported, name):
    images = random_images(2, 31, 20, 1)
    pngs = [tf.io.encode_png(image).numpy() for image in images]
    jpegs = [tf.io.encode_jpeg(image).numpy() for image in images]
    path = exported[name].path / "1"
    expected = served(path, images=images)
    encoded = served(path, "encoded_images", encoded=np.array(pngs))
    np.testing.assert_allclose(encoded["probabilities"], expected["probabilities"], atol=1e-6)
    np.testing.assert_array_equal(encoded["class_names"], expected["class_names"])
    decoded = np.stack([decode_image(jpeg).pixels for jpeg in jpegs])
    assert not np.array_equal(decoded, images)
    encoded = served(path, "encoded_images", encoded=np.array(jpegs))
    np.testing.assert_allclose(encoded["probabilities"], served(path, images=decoded)["probabilities"], atol=1e-6)


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("name", "outputs_kind"), [("network3_shallow", "logits"), ("mlp_784_30_10", "sigmoid"), ("lenet5", "distances")]
)
def test_probabilities_sum_to_one(name, outputs_kind, unverified):
    spec = zoo.get_spec(name)
    assert spec.outputs == outputs_kind
    path = zoo.export(zoo.create_model(name), f"{name}.ex", spec=spec, classes=tuple("abcdefghij"))
    outputs = served(path, images=random_images(4, 28, 28, 1))
    assert outputs["probabilities"].min() >= 0
    np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(outputs["class_ids"], outputs["probabilities"].argmax(-1))
    assert [name.decode() for name in outputs["class_names"]] == ["abcdefghij"[i] for i in outputs["class_ids"]]


@pytest.mark.slow
def test_float16_halves_the_size_and_computes_in_float32(exported, tmp_path):
    source = exported["lenet5"]
    path = zoo.export(source.run, "half/lenet5.ex", storage="float16")
    data = "variables/variables.data-00000-of-00001"
    small, large = ((folder / data).stat().st_size for folder in (path, source.path / "1"))
    assert 0.45 < small / large < 0.6
    assert zoo.verify(path)[0]["difference"] <= 1e-5
    arrays = artifacts.open_artifact(path).arrays()
    for key, variable in named_weights(source.run.model).items():
        np.testing.assert_array_equal(arrays[key], variable.numpy().astype(np.float16).astype(np.float32))
    images = random_images(5, 28, 28, 1)
    outputs = served(path, images=images)
    assert outputs["probabilities"].dtype == np.float32
    np.testing.assert_allclose(outputs["probabilities"], zoo.load(path)(images)["probabilities"], atol=1e-5)


# --- versions ---------------------------------------------------------------------------------------------------


def test_a_second_export_is_a_second_version(exported, unverified, tmp_path, monkeypatch):
    source = exported["mlp_784_30_10"]
    path = Path(shutil.copytree(source.path, tmp_path / "saved_models" / source.path.name))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert zoo.export(source.run, path) == path / "2"
    assert versions(path) == ["1", "2"]
    assert all(file.read_bytes() == content for file, content in before.items())
    assert artifacts.find("mlp_784_30_10.ex") == Path("saved_models").resolve() / path.name / "2"
    assert artifacts.find(path / "1") == path / "1"
    (path / "10").mkdir()
    assert artifacts.find(path).name == "10"  # by number, not by letter
    (path / "10").rmdir()

    written = json.loads((path.parent / index.INDEX).read_text())
    entry = written["models"]["mlp_784_30_10"]["tags"]["ex"]
    assert (entry["version"], entry["parameters"], entry["dataset"]) == ("2", 23_612, "bars")
    assert entry["test"] == source.run.metrics["test"]["accuracy"]
    assert written["sha256"] == {"mlp_784_30_10.ex/2": manifest_file.sha256(path / "2" / manifest_file.MANIFEST)}
    assert "mlp_784_30_10.ex" in zoo.list_models("mlp*", pretrained=True)


def test_the_default_is_the_best_on_validation(exported, tmp_path):
    for tag, validation in [("worse", 0.5), ("better", 0.9), ("unmeasured", None)]:
        version = shutil.copytree(exported["mlp_784_30_10"].path, f"saved_models/mlp_784_30_10.{tag}") + "/1"
        manifest = manifest_of(Path(version))
        manifest["scores"]["validation"] = validation
        write_manifest(Path(version), manifest)

    def default():
        index.write_index(Path("saved_models"))
        written = json.loads(Path("saved_models", index.INDEX).read_text("utf-8"))
        return written["models"]["mlp_784_30_10"]["aliases"]["default"]

    assert default() == "better"
    manifest = manifest_of(Path("saved_models/mlp_784_30_10.worse/1"))
    manifest["scores"]["dataset"] = "mnist"  # on which sources report: with figures on other data it does not compare
    write_manifest(Path("saved_models/mlp_784_30_10.worse/1"), manifest)
    assert default() == "worse"
    assert artifacts.find("mlp_784_30_10").parent.name == "mlp_784_30_10.mnist_paper"  # published names win


def test_a_failed_verification_leaves_nothing_new(exported, mlp, monkeypatch):
    run = exported["mlp_784_30_10"].run
    seen = []
    rounded = tf.config.experimental.tensor_float_32_execution_enabled  # on a GPU, where nobody asks otherwise

    def fail(path):
        assert not rounded()
        seen.append(versions(Path(path).parent))
        raise ZooError("verification failed")

    monkeypatch.setattr(saved_model, "verify", fail)
    for path in (mlp, Path("new/folder/mlp_784_30_10.ex")):
        with pytest.raises(ZooError, match="verification failed"):
            zoo.export(run, path)
    assert [len(names) for names in seen] == [2, 1]  # it had been written by then
    assert rounded()
    assert versions(mlp) == ["1"]
    assert not Path("new").exists()
    assert not (mlp.parent / index.INDEX).exists()
    zoo.load(mlp)


KILLED = """
import os, signal, sys
import zoo
from zoo.exporting import saved_model
saved_model.verify = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
model = zoo.create_model("mlp_784_30_10", classes=2)
zoo.export(model, sys.argv[1], spec=zoo.get_spec("mlp_784_30_10"), classes=("a", "b"))
"""


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_version(exported, mlp, unverified):
    done = subprocess.run([sys.executable, "-c", KILLED, mlp], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (leftover,) = (name for name in versions(mlp) if name != "1")
    assert leftover.startswith(".2.")
    assert artifacts.find(mlp) == mlp / "1"
    zoo.load(mlp)
    assert zoo.export(exported["mlp_784_30_10"].run, mlp) == mlp / "2"
    assert zoo.load(mlp).task.classes == ("class0", "class1")


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from zoo import cli
sys.argv = ["zoo", "export", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_line(exported, mlp):
    run = exported["mlp_784_30_10"].run.directory
    done = subprocess.run([sys.executable, "-B", "-c", FULL, run, mlp], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"error: cannot write {mlp / '2'}: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert versions(mlp) == ["1"]
    zoo.load(mlp)


@pytest.mark.parametrize("path", ["file/mlp_784_30_10.ex", "file/deep/er/mlp_784_30_10.ex", "file/m.onnx"])
def test_below_a_file_nothing_can_be_written(exported, path):
    Path("file").write_text("kept")
    format = "onnx" if path.endswith("onnx") else "tensorflow"
    with pytest.raises(ZooError, match="cannot write file/"):
        zoo.export(exported["mlp_784_30_10"].run, path, format=format)
    assert Path("file").read_text() == "kept"


# --- what is refused --------------------------------------------------------------------------------------------


def change_byte(version, manifest):
    file = version / "variables" / "variables.data-00000-of-00001"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)


def truncate(version, manifest):
    os.truncate(version / "variables" / "variables.data-00000-of-00001", 5_000)


def drop_file(version, manifest):
    (version / "variables" / "variables.index").unlink()


def add_file(version, manifest):
    (version / "assets").mkdir(exist_ok=True)
    (version / "assets" / "more.txt").write_text("more")


def add_link(version, manifest):
    (version / "more").symlink_to(version.parent)


def change_graph(version, manifest):
    with (version / "saved_model.pb").open("ab") as file:
        file.write(b"\0")


def change_golden(version, manifest):
    (version / manifest_file.GOLDEN).write_bytes(b"")


def drop_manifest(version, manifest):
    (version / manifest_file.MANIFEST).unlink()


def edit(**changes):
    """A change of the manifest's keys; None removes one."""

    def change(version, manifest):
        for key, value in changes.items():
            manifest.pop(key) if value is None else manifest.update({key: value})
        write_manifest(version, manifest)

    return change


def describe(**changes):
    """A change of what the manifest says of the network."""

    def change(version, manifest):
        write_manifest(version, {**manifest, "model": {**manifest["model"], **changes}})

    return change


def raw(text):
    def change(version, manifest):
        (version / manifest_file.MANIFEST).write_bytes(text)

    return change


def list_outside(key):
    def change(version, manifest):
        Path("outside").write_text("x")
        entry = {"size": 1, "sha256": manifest_file.sha256(Path("outside"))}
        write_manifest(version, {**manifest, "files": {**manifest["files"], key: entry}})

    return change


TAMPERED = {
    "a changed byte": (change_byte, "variables.data-00000-of-00001 does not have the sha256 in its manifest"),
    "a truncated file": (truncate, "variables.data-00000-of-00001 has 5000 bytes, not"),
    "a missing file": (drop_file, "variables/variables.index is missing"),
    "an extra file": (add_file, "assets/more.txt is not in its manifest"),
    "an extra link": (add_link, "more is not in its manifest"),
    "a changed graph": (change_graph, "saved_model.pb has"),
    "changed golden examples": (change_golden, "golden.npz has 0 bytes"),
    "no manifest": (drop_manifest, "it has no assets.extra/manifest.json"),
    "no JSON": (raw(b"{"), "manifest.json is damaged"),
    "no text": (raw(b"\xff\xfe\x00"), "manifest.json is damaged"),
    "a list": (raw(b"[]"), "is damaged: "),
    "a number": (raw(b"5"), "is damaged: "),
    "no format": (edit(format=None), "is damaged: "),
    "no model": (edit(model=None), "is damaged: "),
    "no files": (edit(files=None), "is damaged: "),
    "files as a list": (edit(files=[]), "is damaged: "),
    "files as numbers": (edit(files={"saved_model.pb": 5}), "is damaged: "),
    "no files listed": (edit(files={}), "is not in its manifest"),
    "another format": (edit(format=1), "has format 1, not 2"),
    "a path upwards": (list_outside("../../../outside"), "outside is missing"),
    "another model": (describe(spec="mlp_784_100_10"), "weights do not fit|no model|cannot be built"),
    "a model of another shape": (describe(spec="lenet5", arguments={}), "lenet5 takes images of 32 x 32, not 28 x 28"),
    "an unknown model": (describe(spec="nobody"), "unknown model 'nobody'"),
    "a model that is no name": (describe(spec=5), "is damaged: "),
    "no description": (edit(model="mlp_784_30_10"), "is damaged: "),
    "more classes": (describe(classes=["class0", "class1", "class2"]), "weights do not fit: output/kernel"),
    "classes as a number": (describe(classes=2), "is damaged: "),
    "another input": (describe(input_shape=[14, 14, 1]), "weights do not fit: hidden1/kernel"),
    "other units": (describe(arguments={"hidden": [31]}), "weights do not fit: hidden1/kernel"),
    "unknown arguments": (describe(arguments={"depth": 3}), "unexpected keyword argument 'depth'"),
    "preprocessing as text": (describe(preprocessing="none"), "is damaged: "),
    "unknown preprocessing": (describe(preprocessing={"code": "x"}), "unknown preprocessing key 'code'"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_is_refused_everywhere(what, mlp):
    change, message = TAMPERED[what]
    if what == "another model":  # its hidden layer follows from the spec
        manifest = manifest_of(mlp / "1")
        write_manifest(mlp / "1", {**manifest, "model": {**manifest["model"], "arguments": {}}})
    change(mlp / "1", manifest_of(mlp / "1"))
    ways = {
        "verify": lambda: zoo.verify(mlp),
        "load": lambda: zoo.load(mlp),
        "create_model": lambda: zoo.create_model("mlp_784_30_10", weights=mlp),
        "fine_tune": lambda: zoo.fine_tune(mlp, testing.example_data("classification", classes=3), epochs=1),
    }
    for way, call in ways.items():
        if way == "create_model" and what in ("another model", "a model of another shape"):
            expected = "contains weights of"
        else:
            expected = message
        with pytest.raises(ZooError, match=expected):
            call()
    assert not Path("runs").exists()


def test_a_manifest_other_than_the_published_one_is_refused(exported, tmp_path):
    root = Path(shutil.copytree(exported["lenet5"].path.parent, tmp_path / "published"))
    version = root / "lenet5.ex" / "1"
    artifacts.read_manifest(version)
    describe(classes=["class1", "class0"])(version, manifest_of(version))
    for call in (zoo.verify, zoo.load):
        with pytest.raises(
            ZooError, match=r"is not the published one: its sha256 differs from that in published\.json"
        ):
            call(version)
    zoo.load(root / "mlp_784_30_10.ex")


def test_a_changed_weight_does_not_verify(mlp):
    change_byte(mlp / "1", None)
    reseal(mlp / "1")
    with pytest.raises(ZooError, match=r"cannot serve the artifact: .*DataLossError"):
        zoo.verify(mlp)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "difference"), [(0.001, r"1\.0e-03"), (np.nan, "inf")])
def test_other_golden_outputs_are_refused(mlp, change, difference):
    golden = dict(np.load(mlp / "1" / manifest_file.GOLDEN))
    golden["serving_default/7/outputs/probabilities"] += np.float32(change)
    np.savez(mlp / "1" / manifest_file.GOLDEN, **golden)
    reseal(mlp / "1")
    with pytest.raises(ZooError, match=f"serving_default probabilities of golden example 7 differs by {difference}"):
        zoo.verify(mlp)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [{}, {"serving_default/1/outputs/probabilities": np.zeros((1, 2))}])
def test_golden_examples_must_be_there(mlp, examples):
    np.savez(mlp / "1" / manifest_file.GOLDEN, **examples)
    reseal(mlp / "1")
    with pytest.raises(
        ZooError, match=r"plain TensorFlow cannot serve the artifact|the golden examples do not both have"
    ):
        zoo.verify(mlp)


class Touch:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return Path.touch, (Path(WRITES).resolve(),)


@pytest.mark.slow
def test_pickled_golden_examples_are_not_opened(mlp):
    golden = {**np.load(mlp / "1" / manifest_file.GOLDEN), "serving_default/9/inputs/images": np.array([Touch()])}
    np.savez(mlp / "1" / manifest_file.GOLDEN, **golden)
    reseal(mlp / "1")
    with pytest.raises(ZooError, match=r"cannot serve the artifact: ValueError: .*allow_pickle=False"):
        zoo.verify(mlp)
    assert not Path(WRITES).exists()


class Forged(tf.Module):
    """A SavedModel with the right signature that does something besides."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8, name="images")])
    def serve(self, images):
        with tf.control_dependencies([self.act()]):
            return {"class_ids": tf.zeros([tf.shape(images)[0]], tf.int64)}


def save_op(where):
    return tf.raw_ops.SaveV2(prefix=where, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant([1.0])])


ACTS = {
    "ReadFile": lambda where: tf.io.read_file("/etc/hostname"),
    "WriteFile": lambda where: tf.io.write_file(where, "x"),
    "PyFunc": lambda where: tf.numpy_function(lambda: Path(where).write_bytes(b"x"), [], tf.int64),
    "EagerPyFunc": lambda where: tf.py_function(lambda: Path(where).write_bytes(b"x"), [], tf.int64),
    "MatchingFiles": lambda where: tf.io.matching_files("/*"),
    "PrintV2": lambda where: tf.print("x", output_stream=f"file://{where}"),
    "SaveV2": save_op,
}


def refused(mlp, message):
    reseal(mlp / "1")
    with pytest.raises(ZooError, match=message):
        zoo.verify(mlp)
    zoo.load(mlp)  # reads numbers alone
    assert not [file for file in Path.cwd().iterdir() if file.name.startswith(WRITES)]


@pytest.mark.parametrize("operation", ACTS)
def test_graphs_with_other_operations_are_refused_and_not_run(operation, mlp, tmp_path):
    module = Forged(lambda: ACTS[operation](str(tmp_path / WRITES)))
    tf.saved_model.save(module, "forged", signatures=module.serve)
    shutil.copy("forged/saved_model.pb", mlp / "1")
    refused(mlp, rf"is refused: its graph holds operations that are not allowed: .*\b{operation}")


def test_operations_within_loops_are_found(mlp, tmp_path):
    def body(index):
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / WRITES), "x")]):
            return [index + 1]

    module = Forged(lambda: tf.while_loop(lambda index: index < 1, body, [tf.constant(0)])[0])
    tf.saved_model.save(module, "forged", signatures=module.serve)
    shutil.copy("forged/saved_model.pb", mlp / "1")
    refused(mlp, "not allowed: WriteFile")


def test_an_initializer_may_not_save(mlp, tmp_path):
    """Loading runs it, no signature reaches it."""
    from tensorflow.python.trackable import resource

    class Acting(resource.CapturableResource):
        def _create_resource(self):
            return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="table")

        def _initialize(self):
            with tf.control_dependencies([save_op(str(tmp_path / WRITES))]):
                return tf.identity(1)

    module = Forged(tf.no_op)
    module.acting = Acting()
    module.handle = module.acting.resource_handle
    tf.saved_model.save(module, "forged", signatures=module.serve)
    saved = saved_model_pb2.SavedModel.FromString(Path("forged/saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0]
    del graph.signature_def["__saved_model_init_op"]
    for function in graph.graph_def.library.function:  # TensorFlow drops what nothing depends on
        if "initializer" in function.signature.name:
            for node in function.node_def:
                if node.op == "Identity":
                    node.input.append("^SaveV2")
    (mlp / "1" / "saved_model.pb").write_bytes(saved.SerializeToString())
    refused(mlp, "not allowed: SaveV2")


def test_a_graph_of_tensorflow_1_is_refused(mlp, tmp_path):
    """Its main operation is run by loading and stands in no signature."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8, [None, None, None, 1], "images")
        infos = ({"images": images}, {"class_ids": tf.zeros([tf.shape(images)[0]], tf.int64)})
        signature = v1.saved_model.build_signature_def(
            *({key: v1.saved_model.build_tensor_info(value) for key, value in info.items()} for info in infos)
        )
        builder = v1.saved_model.Builder("forged")
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=save_op(str(tmp_path / WRITES))
        )
        builder.save()
    shutil.copy("forged/saved_model.pb", mlp / "1")
    refused(mlp, "is refused: it is no SavedModel of TensorFlow 2")


def test_a_graph_that_is_none_is_refused(mlp):
    (mlp / "1" / "saved_model.pb").write_bytes(b"\xff" * 100)
    refused(mlp, "holds no readable SavedModel")


# --- loading weights --------------------------------------------------------------------------------------------


def snapshot(model):
    return [weight.numpy() for weight in model.weights]


def test_the_report_of_loading(exported):
    path = exported["mlp_784_30_10"].path
    keys = ("hidden1/kernel", "hidden1/bias", "output/kernel", "output/bias")
    report = zoo.load_weights(zoo.create_model("mlp_784_30_10", classes=2), path)
    assert (report.loaded, report.reinitialized, report.skipped) == (keys, (), ())

    model = zoo.create_model("mlp_784_30_10", classes=3)
    before = snapshot(model)
    report = zoo.load_weights(model, path, reinitialize=["output"])
    assert (report.loaded, report.reinitialized) == (keys[:2], keys[2:])
    assert set(report.skipped) == set(keys[2:])
    assert str(report).startswith("2 arrays loaded; reinitialized: output/kernel, output/bias; skipped: ")
    arrays = artifacts.open_artifact(path).arrays()
    np.testing.assert_array_equal(model.get_layer("hidden1").kernel.numpy(), arrays["hidden1/kernel"])
    np.testing.assert_array_equal(model.get_layer("output").kernel.numpy(), before[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("output/bias"), "output/bias is of shape .2,. .* missing in the source"),
        (lambda arrays: arrays.update(more=np.zeros(3)), "more is unknown in the model and of shape .3,."),
        (lambda arrays: arrays.update({"output/bias": np.zeros((2, 1))}), "output/bias is of shape .2,. .*.2, 1."),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_change_nothing(exported, change, message):
    arrays = artifacts.open_artifact(exported["mlp_784_30_10"].path).arrays()
    change(arrays)
    model = zoo.create_model("mlp_784_30_10", classes=2)
    before = snapshot(model)
    with pytest.raises(ZooError, match=message):
        zoo.load_weights(model, arrays)
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_from_a_file_and_by_name(exported, monkeypatch):
    source = exported["mlp_784_30_10"]
    expected = snapshot(source.run.model)
    save_arrays(Path("w.npz"), {key: value.numpy() for key, value in named_weights(source.run.model).items()})
    monkeypatch.setattr(index, "roots", lambda: [source.path.parent])
    for given in (
        "w.npz",
        Path("w.npz"),
        "mlp_784_30_10.ex",
        source.path,
        source.path / "1",
        source.run.directory / "weights.npz",
    ):
        model = zoo.create_model("mlp_784_30_10", classes=2)
        zoo.load_weights(model, given)
        for old, new in zip(expected, snapshot(model), strict=True):
            np.testing.assert_array_equal(old, new)
    for call in (
        lambda: zoo.create_model("mlp_784_30_10.ex"),
        lambda: zoo.create_model("mlp_784_30_10", "ex"),
        lambda: zoo.create_model("mlp_784_30_10", weights=source.path),
        lambda: zoo.load("mlp_784_30_10.ex").model,
    ):
        np.testing.assert_array_equal(snapshot(call())[0], expected[0])
    with pytest.raises(ZooError, match=r"unknown artifact 'mlp_784_30_10\.exx': did you mean mlp_784_30_10\.ex"):
        zoo.create_model("mlp_784_30_10.exx")


def test_other_classes_get_a_fresh_head(exported):
    path = exported["mlp_784_30_10"].path
    model = zoo.create_model("mlp_784_30_10", weights=path, classes=5)
    assert model.output_shape == (None, 5)
    expected = exported["mlp_784_30_10"].run.model.get_layer("hidden1").kernel.numpy()
    np.testing.assert_array_equal(model.get_layer("hidden1").kernel.numpy(), expected)
    with pytest.raises(ZooError, match="weights do not fit: hidden1/kernel"):
        zoo.create_model("mlp_784_30_10", weights=path, input_shape=(8, 8, 1))


def test_damaged_weight_files_are_refused():
    model = zoo.create_model("mlp_784_10")
    np.savez("objects.npz", **{"output/bias": np.array([Touch()])})
    Path("text.npz").write_text("no archive")
    for name, message in [
        ("objects.npz", "allow_pickle"),
        ("text.npz", "not a readable .npz"),
        ("no.npz", "no weights file"),
    ]:
        with pytest.raises(ZooError, match=message):
            zoo.load_weights(model, name)
    assert not Path(WRITES).exists()


def test_a_folder_named_as_the_tag_does_not_hide_it(exported, monkeypatch):
    monkeypatch.setattr(index, "roots", lambda: [exported["mlp_784_30_10"].path.parent])
    Path("ex").mkdir()
    zoo.create_model("mlp_784_30_10", weights="ex")


def test_two_folders_of_artifacts_are_both_listed(exported, monkeypatch):
    for root, tag in [("first", "mine"), ("second", "theirs")]:
        shutil.copytree(exported["mlp_784_30_10"].path, f"{root}/mlp_784_30_10.{tag}")
        index.write_index(Path(root))
    monkeypatch.setattr(index, "roots", lambda: [Path("first"), Path("second")])
    assert zoo.list_models(pretrained=True) == ["mlp_784_30_10.mine", "mlp_784_30_10.theirs"]


def test_a_damaged_neighbor_does_not_spoil_an_export(exported, unverified, mlp):
    neighbor = shutil.copytree(mlp, mlp.parent / "mlp_784_30_10.bad")
    (neighbor / "1" / manifest_file.MANIFEST).write_text("{")
    assert zoo.export(exported["mlp_784_30_10"].run, mlp).name == "2"


# --- what export refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "m.onx", "format": "onx"}, "unknown format 'onx': did you mean onnx"),
        ({"path": "m", "format": "litert"}, r"must be named NAME\.tflite"),
        ({"path": "m.h5", "format": "keras"}, r"must be named NAME\.keras"),
        ({"path": "lenet5.ex", "storage": "int8"}, "unknown storage 'int8': known: auto, float16, float32"),
        ({"path": "mlp_784_30_10.ex"}, r"must be named lenet5\.TAG"),
        ({"path": "lenet5"}, r"must be named lenet5\.TAG"),
        ({"path": "lenet5."}, r"must be named lenet5\.TAG"),
        ({"path": "lenet5_modern.ex"}, r"must be named lenet5\.TAG"),
    ],
)
def test_exports_that_cannot_be(exported, arguments, message):
    with pytest.raises(ZooError, match=message):
        zoo.export(exported["lenet5"].run, **arguments)
    assert versions(Path()) == []


@pytest.mark.parametrize("format", ["onnx", "litert", "keras"])
def test_a_network_of_raw_text_has_no_other_format(format):
    spec, sizes = zoo.get_spec("lstm_text"), {"vocabulary_size": 20, "embedding": 4, "width": 4}
    model = spec.build(None, 2, **sizes)
    words = tuple(f"word{number}" for number in range(18))
    with pytest.raises(ZooError, match="takes raw text"):
        zoo.export(
            model,
            f"m.{ {'litert': 'tflite'}.get(format, format) }",
            format=format,
            spec=spec,
            classes=("a", "b"),
            vocabulary=words,
            arguments=sizes,
        )
    assert versions(Path()) == []


# --- bare models ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bare_model(tmp_path):
    spec = zoo.get_spec("mlp_784_10")
    model = zoo.create_model("mlp_784_10", input_shape=(10, 12, 1), classes=3)
    path = zoo.export(model, "mlp_784_10.bare", spec=spec, classes=("a", "b", "c"), input_shape=(10, 12, 1))
    assert path == Path("mlp_784_10.bare/1")
    predictor = zoo.load("mlp_784_10.bare")
    assert predictor.task.classes == ("a", "b", "c")
    assert predictor.task.preprocessing.size == (10, 12)
    images = random_images(2, 10, 12, 1)
    activations = 1 / (1 + np.exp(-model.predict(images / np.float32(255), verbose=0)))
    expected = activations / activations.sum(-1, keepdims=True)
    np.testing.assert_allclose(predictor(images)["probabilities"], expected, atol=1e-6)
    manifest = manifest_of(path)
    assert manifest["training"] is None
    assert manifest["scores"]["test"] is None


def test_a_bare_model_needs_what_belongs_to_it():
    model, spec = zoo.create_model("mlp_784_10"), zoo.get_spec("mlp_784_10")
    with pytest.raises(ZooError, match="a bare model needs spec="):
        zoo.export(model, "mlp_784_10.ex")
    with pytest.raises(ZooError, match="not mlp_784_10 with 2 classes: output/"):
        zoo.export(model, "mlp_784_10.ex", spec=spec, classes=("a", "b"))
    with pytest.raises(ZooError, match="units=0"):
        zoo.export(model, "mlp_784_10.ex", spec=spec)
    with pytest.raises(ZooError, match=r"must be named mlp_784_10\.TAG"):
        zoo.export(model, "mlp.ex", spec=spec, classes=tuple("abcdefghij"))
    with pytest.raises(ZooError, match="the model is not lenet5"):
        zoo.export(model, "lenet5.ex", spec=zoo.get_spec("lenet5"), classes=tuple("abcdefghij"))
    assert versions(Path()) == []


def test_the_run_of_a_finished_training_comes_back(exported):
    source = exported["lenet5"]
    run = zoo.load_run(source.run.directory)
    for old, new in zip(snapshot(source.run.model), snapshot(run.model), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (run.metrics, run.recipe) == (source.run.metrics, source.run.recipe)
    buffer = io.BytesIO((source.run.directory / "weights.npz").read_bytes()[:500])
    broken = Path(shutil.copytree(source.run.directory, "broken"))
    (broken / "weights.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ZooError, match=r"not a readable \.npz file"):
        zoo.load_run(broken)
    Path("file").touch()
    for nowhere in ("file", "nowhere"):
        with pytest.raises(ZooError, match=f"no run.json in {nowhere}"):
            zoo.load_run(nowhere)


DIFFERENCES = """
import json, runpy, sys
sys.argv = ["", json.dumps({"directories": [], "examples": [], "seconds": 600, "bytes": 2**36})]
difference = runpy.run_path("FILE")["difference"]
import numpy as np
for most in (0.5, 1.0, 40.0):
    values = np.array([most, -most / 2])
    print(difference(values + [0, 2e-3], values))
print(difference(values * np.nan, values))
"""


def test_a_served_output_differs_in_proportion_where_values_are_above_1():
    code = DIFFERENCES.replace("FILE", str(Path(artifacts.__file__).parent / "serve_golden.py"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [float(line) for line in done.stdout.splitlines()[1:]] == pytest.approx([2e-3, 2e-3, 5e-5, np.inf])
