"""What comes from outside cannot stop, fill, fool or run anything: artifacts made by an attacker.

The sweep over thousands of them is `python tests/attack/sweep.py`; here is a small one of each kind.
"""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from attack import forging
from tensorflow.core.protobuf import saved_model_pb2

import zoo
from zoo import artifacts
from zoo.artifacts.rebuilding import rebuild
from zoo.checkpoint import checkpoint_arrays
from zoo.errors import ZooError


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


def test_golden_examples_of_a_wrong_graph_prove_nothing(tmp_path):
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
    "a number without end": ({"input_shape": [10**30, 1, 1]}, "asks for 1e.30"),
    "a negative side": ({"input_shape": [-3, 28, 1]}, "refused|cannot be built"),
    "a text for a side": ({"input_shape": ["28", "28", 1]}, "refused|cannot be built"),
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
