"""Ensembles: predictions as NumPy computes them from the members, scores, and exports."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import artifacts, testing
from zoo import data as zoo_data
from zoo.artifacts import index, verification
from zoo.artifacts.index import INDEX
from zoo.artifacts.manifest import MANIFEST
from zoo.data import Dataset, Split
from zoo.weights import named_weights

pytestmark = pytest.mark.slow

NAMES = ("network3_shallow", "mlp_784_30_10", "lenet5")  # logits, sigmoid, distances with a margin and a range
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def made(making):
    """A folder with trained members `runs/NAME` and `saved_models/NAME.a`, and with networks that do not fit them."""
    with making as folder:
        for name in NAMES:
            run = zoo.train(name, "digits", out=f"runs/{name}", epochs=2, batch_size=16)
            zoo.export(run, f"saved_models/{name}.a")

        def bare(path, classes=DIGITS, **options):
            name = Path(path).name.partition(".")[0]
            model = zoo.create_model(name, classes=len(classes), **options)
            zoo.export(model, path, spec=zoo.get_spec(name), classes=classes, **options)

        bare("saved_models/mlp_784_30_10.letters", tuple("abcdefghij"))
        bare("saved_models/mlp_784_30_10.turned", DIGITS[::-1])
        bare("saved_models/mlp_784_30_10.small", input_shape=(14, 14, 1))
        bare("saved_models/mlp_784_30_10.color", input_shape=(28, 28, 3))
        bare("saved_models/unet_tiny.masks", ("0", "1"))
        whole = zoo.create_ensemble(["mlp_784_30_10.a", "network3_shallow.a"])
        zoo.export(whole, "saved_models/ensemble.whole")
        images = np.arange(200 * 64, dtype=np.uint8).reshape(200, 8, 8, 1)
        masks = np.arange(200 * 64).reshape(200, 8, 8) % 10
        np.savez("masks.npz", x_train=images, y_train=masks, classes=DIGITS)
        np.savez("unlabeled.npz", x_train=images)
        np.savez("letters.npz", x_train=images, y_train=np.arange(200) % 10, classes=tuple("abcdefghij"))
    return folder


@pytest.fixture
def folder(made, monkeypatch):
    """The folder itself, not a copy, because tests write nothing there."""
    monkeypatch.chdir(made)
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    return made


@pytest.fixture
def members(made):
    return [made / "saved_models" / f"{name}.a" for name in NAMES]


def images_of(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def expected(members, images, method):
    """The probabilities of the ensemble, computed from those of each member."""
    each = np.stack([zoo.load(member)(images)["probabilities"] for member in members])
    return (np.eye(each.shape[-1])[each.argmax(-1)] if method == "vote" else each).mean(0)


def served(path, signature="serving_default", **inputs):
    function = tf.saved_model.load(str(path)).signatures[signature]
    return {key: v.numpy() for key, v in function(**{key: tf.constant(v) for key, v in inputs.items()}).items()}


# --- predictions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 28, 28, 1), (3, 9, 33, 1)])
@pytest.mark.parametrize("method", ["mean", "vote"])
def test_predictions_are_what_numpy_computes_from_the_members(method, shape, members):
    images = np.concatenate([images_of(*shape), np.zeros((1, *shape[1:]), np.uint8)])
    outputs = zoo.load(zoo.create_ensemble(members, method=method))(images)
    probabilities = expected(members, images, method)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    clear = np.sort(probabilities, -1)[:, -1] - np.sort(probabilities, -1)[:, -2] > 1e-4
    assert clear.any()
    np.testing.assert_array_equal(outputs["class_ids"][clear], probabilities.argmax(-1)[clear])


@pytest.mark.parametrize("name", NAMES)
def test_each_member_keeps_its_own_preprocessing_and_outputs(name, made):
    path = made / "saved_models" / f"{name}.a"
    images = images_of(20, 28, 28, 1)
    whole = zoo.load(zoo.create_ensemble([path, path]))(images)["probabilities"]
    np.testing.assert_allclose(whole, zoo.load(path)(images)["probabilities"], atol=1e-5)


def test_members_with_another_range_shape_and_arguments(unverified):
    """Perceptrons of other units for images of 14 x 14, one with a range from -1, one with 16 gray levels."""
    spec, images = zoo.get_spec("mlp_784_30_10"), images_of(20, 14, 14, 1)
    options = {"input_shape": (14, 14, 1), "arguments": {"hidden": (5, 4), "initialization": "glorot"}}
    model = zoo.create_model("mlp_784_30_10", input_shape=(14, 14, 1), **options["arguments"])
    ranges = [zoo.Preprocessing(size=(14, 14), low=-1.0), zoo.Preprocessing(size=(14, 14), full_scale=16.0)]
    paths = [f"mlp_784_30_10.{number}" for number in range(2)]
    for path, preprocessing in zip(paths, ranges, strict=True):
        zoo.export(model, path, spec=spec, classes=DIGITS, preprocessing=preprocessing, **options)
    predictor = zoo.load(zoo.create_ensemble(paths))
    assert predictor.task.input_shape == (14, 14, 1)
    np.testing.assert_allclose(predictor(images)["probabilities"], expected(paths, images, "mean"), atol=1e-5)


@pytest.mark.parametrize("name", ["airbench93", "alexnet_small"])
def test_members_whose_images_are_normalized_and_cropped(name, unverified):
    """airbench93 takes images of mean 0 and deviation 1, alexnet_small the middle of them."""
    spec, images = zoo.get_spec(name), images_of(5, 40, 36, 3)
    paths = [f"{name}.{number}" for number in range(2)]
    for path in paths:
        zoo.export(zoo.create_model(name), path, spec=spec, classes=DIGITS)
    whole = zoo.create_ensemble(paths)
    np.testing.assert_allclose(zoo.load(whole)(images)["probabilities"], expected(paths, images, "mean"), atol=1e-5)
    stretched = zoo.create_model(name)
    zoo.export(
        stretched, f"{name}.stretched", spec=spec, classes=DIGITS,
        preprocessing=dataclasses.replace(spec.preprocessing, fit="crop"),
    )  # fmt: skip
    with pytest.raises(zoo.ZooError, match="resized and cropped alike"):
        zoo.create_ensemble([paths[0], f"{name}.stretched"])


def constant(path, tops):
    """A perceptron that predicts the same for every image: the classes `tops` with equal probability."""
    model = zoo.create_model("mlp_784_10")
    weights = {"output/kernel": np.zeros((784, 10)), "output/bias": np.full(10, -5.0)}
    weights["output/bias"][list(tops)] = 5.0
    zoo.load_weights(model, weights)
    zoo.export(model, path, spec=zoo.get_spec("mlp_784_10"), classes=DIGITS)
    return path


@pytest.mark.parametrize(
    ("votes", "winner", "shares"),
    [
        ([8, 3], 3, {3: 0.5, 8: 0.5}),  # a tie: the lower class, whatever the order of members
        ([9, 4, 7], 4, {4: 1 / 3, 7: 1 / 3, 9: 1 / 3}),
        ([0, 9, 9], 9, {0: 1 / 3, 9: 2 / 3}),
    ],
)
def test_votes_and_ties(votes, winner, shares, unverified):
    paths = [constant(f"m/mlp_784_10.{number}", [one]) for number, one in enumerate(votes)]
    whole = zoo.create_ensemble(paths, method="vote")
    path = zoo.export(whole, "m/ensemble.tie")
    for outputs in (zoo.load(whole)(images_of(2, 28, 28, 1)), served(path, images=images_of(2, 28, 28, 1))):
        assert outputs["class_ids"].tolist() == [winner, winner]
        wanted = [shares.get(number, 0.0) for number in range(10)]
        np.testing.assert_allclose(outputs["probabilities"], [wanted] * 2, atol=1e-5)


def test_a_member_that_is_undecided_has_one_vote(unverified):
    paths = [constant("m/mlp_784_10.undecided", [4, 6]), constant("m/mlp_784_10.decided", [6])]
    votes = zoo.load(zoo.create_ensemble(paths, method="vote"))(images_of(1, 28, 28, 1))
    np.testing.assert_allclose(votes["probabilities"][0, [4, 6]], [0.5, 0.5], atol=1e-5)
    assert zoo.load(zoo.create_ensemble(paths))(images_of(1, 28, 28, 1))["class_ids"] == [6]


def test_an_ensemble_of_ensembles(folder, members):
    parts = [zoo.create_ensemble(members[:2]), "ensemble.whole"]
    images = images_of(5, 28, 28, 1)
    whole = zoo.create_ensemble(parts)
    assert [row["name"] for row in whole.record["members"]] == ["ensemble", "ensemble.whole"]
    np.testing.assert_allclose(
        zoo.load(whole)(images)["probabilities"], expected(members[:2], images, "mean"), atol=1e-5
    )


# --- scores and exports -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(made):
    """The mean of all three, evaluated on digits, and their vote in float16; the test of the export verifies both."""
    names = [f"{made}/saved_models/{name}.a" for name in NAMES]
    whole = zoo.create_ensemble(names, data="digits")
    vote = zoo.create_ensemble(names, data="digits", method="vote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "serve_golden_examples", lambda paths: [])
        half = zoo.export(vote, made / "exported" / "ensemble.half", storage="float16")
        return whole, zoo.export(whole, made / "exported" / "ensemble.digits"), vote, half


def test_scores_of_the_members_and_their_disagreement(exported, members):
    whole, path, vote, _ = exported
    manifest = json.loads((path / MANIFEST).read_text())
    training, dataset = manifest["training"], zoo_data.load("digits")
    assert [row["name"] for row in training["members"]] == [f"{name}.a" for name in NAMES]
    assert training["data"]["fingerprint"] == dataset.fingerprint
    for name in ("validation", "test"):
        split = dataset.splits[name]
        outputs = [zoo.load(member)(split.inputs) for member in members]
        predicted = np.stack([output["class_ids"] for output in outputs])
        accuracies = (predicted == split.targets).mean(-1).tolist()
        assert [row[name] for row in training["members"]] == pytest.approx(accuracies, abs=1e-6)
        alone = [zoo.evaluate(member, dataset, split=name)["accuracy"] for member in members]
        assert accuracies == pytest.approx(alone, abs=1e-6)

        different = sum(len(set(column)) > 1 for column in predicted.T.tolist()) / predicted.shape[1]
        twos = itertools.combinations(predicted.tolist(), 2)
        pairs = [sum(a != b for a, b in zip(*two, strict=True)) for two in twos]
        assert 0 < training["disagreement"][name]["pairs"] < different < 1  # numbers that differ
        assert training["disagreement"][name] == pytest.approx(
            {"any": different, "pairs": sum(pairs) / 3 / predicted.shape[1]}, abs=1e-9
        )

        joined = expected(members, split.inputs, "mean")
        scores = training["metrics"][name]
        assert scores["accuracy"] == pytest.approx((joined.argmax(-1) == split.targets).mean(), abs=1e-6)
        assert scores["loss"] == pytest.approx(-np.log(joined[np.arange(len(joined)), split.targets]).mean(), rel=1e-3)
        votes = expected(members, split.inputs, "vote").argmax(-1)
        assert vote.metrics[name]["accuracy"] == pytest.approx((votes == split.targets).mean(), abs=1e-6)
        assert np.isfinite(vote.metrics[name]["loss"])  # although some classes get no votes
        assert manifest["scores"][name] == scores["accuracy"]
    assert manifest["scores"]["dataset"] == "digits"
    assert [run["metrics"] for run in manifest["runs"]] == [whole.metrics]


def test_the_export_is_like_that_of_any_classifier(exported, made):
    whole, path, _, half = exported
    for result in zoo.verify(path, half):
        assert result["difference"] <= 1e-5
        assert result["signatures"] == ["encoded_images", "serving_default"]
    images = images_of(3, 28, 28, 1)
    wanted = zoo.load(whole)(images)
    single = served(made / "saved_models" / "lenet5.a" / "1", images=images)
    for outputs in (
        served(path, images=images),
        served(path, "encoded_images", encoded=np.array([tf.io.encode_png(image).numpy() for image in images])),
        zoo.load(path)(images),
    ):
        assert {key: value.shape for key, value in outputs.items()} == {k: v.shape for k, v in single.items()}
        np.testing.assert_allclose(outputs["probabilities"], wanted["probabilities"], atol=1e-5)
        np.testing.assert_array_equal(outputs["class_ids"], wanted["class_ids"])
        np.testing.assert_array_equal(outputs["class_names"], wanted["class_names"])
    np.testing.assert_allclose(
        served(path, images=images_of(2, 40, 50, 1))["probabilities"],
        expected([made / "saved_models" / f"{name}.a" for name in NAMES], images_of(2, 40, 50, 1), "mean"),
        atol=1e-5,
    )
    assert zoo.evaluate(path, "digits")["accuracy"] == pytest.approx(whole.metrics["test"]["accuracy"], abs=1e-6)
    (row,) = zoo.predict(path, made / "runs" / "lenet5" / "example.png")
    assert row["class"] in DIGITS


def test_weights_of_each_member_are_stored_once(exported, members):
    arrays = artifacts.open_artifact(exported[1]).arrays()
    for number, member in enumerate(members, start=1):
        for key, value in artifacts.open_artifact(member).arrays().items():
            np.testing.assert_array_equal(arrays.pop(f"member{number}/{key}"), value)
    assert not arrays


def test_create_model_returns_the_same_network(exported, made, monkeypatch):
    monkeypatch.setattr(index, "roots", lambda: [made / "exported"])
    images = images_of(4, 28, 28, 1)
    model = zoo.create_model("ensemble.digits")
    scores = model(images / np.float32(255)).numpy()
    for path in ("ensemble.digits", exported[1]):
        np.testing.assert_allclose(np.exp(scores), zoo.load(path)(images)["probabilities"], atol=1e-5)
    fresh = zoo.create_model("ensemble")
    assert fresh.count_params() == zoo.get_spec("ensemble").params == 3 * 23_860
    assert fresh(images / np.float32(255)).shape == (4, 10)


def test_float16_storage_takes_half_the_space(exported, members):
    _, path, vote, half = exported
    data = "variables/variables.data-00000-of-00001"
    assert 0.4 < (half / data).stat().st_size / (path / data).stat().st_size < 0.6
    for key, variable in named_weights(vote.model).items():
        rounded = variable.numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(artifacts.open_artifact(half).arrays()[key], rounded)
    images = images_of(10, 28, 28, 1)
    np.testing.assert_allclose(
        served(half, images=images)["probabilities"], zoo.load(half)(images)["probabilities"], atol=1e-5
    )
    assert json.loads((half / MANIFEST).read_text())["model"]["arguments"]["method"] == "vote"


def test_members_as_names_directories_and_runs(folder):
    run = zoo.load_run("runs/network3_shallow")
    images, (first, second) = images_of(5, 28, 28, 1), ("mlp_784_30_10.a", "network3_shallow.a")
    wanted = expected([first, second], images, "mean")
    for other in (second, Path("saved_models", second), f"saved_models/{second}/1", "runs/network3_shallow", run):
        whole = zoo.create_ensemble([first, other])
        label = second if other == second or "saved_models" in str(other) else "network3_shallow"
        assert [row["name"] for row in whole.record["members"]] == [first, label]
        np.testing.assert_allclose(zoo.load(whole)(images)["probabilities"], wanted, atol=1e-5)


def test_color_images_for_gray_members(folder):
    """As in `evaluate`, images are converted to the channels of the members."""
    data = zoo_data.load("digits")
    splits = {name: Split(split.inputs.repeat(3, -1), split.targets) for name, split in data.splits.items()}
    names = ["mlp_784_30_10.a", "network3_shallow.a"]
    color = zoo.create_ensemble(names, data=Dataset("digits", splits, data.classes))
    gray = zoo.create_ensemble(names, data=data)
    for one, other in zip(color.record["members"], gray.record["members"], strict=True):
        assert one["test"] == pytest.approx(other["test"], abs=0.01)


def test_nothing_is_evaluated_without_data(folder, unverified, tmp_path):
    whole = zoo.create_ensemble(["mlp_784_30_10.a", "network3_shallow.a"])
    manifest = json.loads((zoo.export(whole, tmp_path / "ensemble.x") / MANIFEST).read_text())
    assert manifest["training"]["members"] == [{"name": "mlp_784_30_10.a"}, {"name": "network3_shallow.a"}]
    assert (manifest["scores"]["test"], manifest["scores"]["runs"]) == (None, 0)
    entry = json.loads((tmp_path / INDEX).read_text())["models"]["ensemble"]["tags"]["x"]
    assert (entry["test"], entry["standard_deviation"]) == (None, None)


# --- the command line -------------------------------------------------------------------------------------------


def test_the_command_line(made, unverified, command):
    shutil.copytree(made / "saved_models", "saved_models")
    line = "ensemble mlp_784_30_10.a network3_shallow.a --data digits --method vote --storage auto"
    code, out, err = command(line)
    assert code == 0, err
    rows = {line.rsplit(maxsplit=2)[0].strip(): line.split()[-2:] for line in out.splitlines()[1:-1]}
    record = json.loads(Path("saved_models/ensemble.digits/1", MANIFEST).read_text())["training"]
    for row in record["members"]:
        assert rows[row["name"]] == [f"{1 - row['validation']:.4f}", f"{1 - row['test']:.4f}"]
    splits = [record["disagreement"][split] for split in ("validation", "test")]
    assert rows["not all agree"] == [f"{split['any']:.4f}" for split in splits]
    assert rows["two differ, mean"] == [f"{split['pairs']:.4f}" for split in splits]
    errors = [1 - record["metrics"][split]["accuracy"] for split in ("validation", "test")]
    assert rows["ensemble"] == [f"{error:.4f}" for error in errors]
    assert "exported to saved_models/ensemble.digits/1" in out.splitlines()[-1]
    code, out, _ = command("evaluate ensemble.digits --data digits --json")
    assert json.loads(out)["accuracy"] == pytest.approx(record["metrics"]["test"]["accuracy"], abs=1e-6)


PAIR = "ensemble mlp_784_30_10.a network3_shallow.a"

WRONG = {
    "ensemble mlp_784_30_10.a": "an ensemble needs two members or more, not 1",
    "ensemble mlp_784_30_10.a mlp_784_30_10.letters": "mlp_784_30_10.letters and mlp_784_30_10.a do not fit",
    "ensemble mlp_784_30_10.a mlp_784_30_10.turned": "must have the same 10 classes",
    "ensemble mlp_784_30_10.a mlp_784_30_10.small": "take images of 28 x 28 x 1",
    "ensemble lenet5.a mlp_784_30_10.color": "mlp_784_30_10.color and lenet5.a do not fit",
    "ensemble mlp_784_30_10.a unet_tiny.masks": "unet_tiny.masks is not a classifier of images of one size",
    "ensemble unet_tiny.masks unet_tiny.masks": "networks such as unet_tiny cannot be joined",
    "ensemble mlp_784_30_10.a lenet5.b": "unknown artifact 'lenet5.b': did you mean lenet5.a",
    "ensemble runs/lenet5 runs/nothing": "unknown artifact 'runs/nothing'",
    f"{PAIR} --method meen": "error: unknown method 'meen': did you mean mean",
    f"{PAIR} --name lenet5": "lenet5 is a network, not an ensemble: leave name= out",
    f"{PAIR} --name mask_ensemble": "mlp_784_30_10.a has no masks of overlapping classes: mask_ensemble joins",
    "ensemble unet_tiny.masks unet_tiny.masks --name mask_ensemble": "unet_tiny.masks has no masks of overlapping",
    f"{PAIR} --name ensembel": "unknown model 'ensembel': did you mean ensemble",
    f"{PAIR} --name network3_dropout_ensemble": "network3_dropout_ensemble joins network3_dropout, ",
    f"{PAIR} --data letters.npz": "letters has the classes ('a', 'b', ",
    f"{PAIR} --data unlabeled.npz": "needs a label for each image as targets",
    f"{PAIR} --data masks.npz": "needs a label for each image as targets",
    f"{PAIR} --data nothing": "unknown data set 'nothing'",
    f"{PAIR} --storage int8": "unknown storage 'int8'",
    f"{PAIR} --export saved_models/lenet5.x": "the directory must be named ensemble.TAG",
    "fine-tune ensemble.whole --data digits": "ensemble.whole is an ensemble: fine-tune its members",
    "train ensemble --data digits": "ensemble is an ensemble: train its members",
    "train network3_dropout_ensemble --data digits": "network3_dropout_ensemble is an ensemble: train its members",
    "reproduce ensemble.whole": "ensemble.whole was not trained from scratch by a recipe",
}


@pytest.mark.parametrize("line", WRONG)
def test_one_line_and_nothing_written(line, folder, refused):
    refused(line, WRONG[line])


def test_a_wrong_path_is_reported_before_members_are_evaluated(folder, monkeypatch, command):
    monkeypatch.setattr(zoo, "create_ensemble", lambda *arguments, **options: pytest.fail("they are evaluated first"))
    code, _, err = command(f"{PAIR} --data digits --export saved_models/lenet5.x")
    assert (code, "must be named ensemble.TAG" in err) == (2, True)


def test_a_registered_ensemble_takes_only_its_own_members(unverified):
    """The score that the book reports for its five networks is not shown for others."""
    members = [constant(f"m/mlp_784_10.{number}", [number]) for number in range(5)]
    with pytest.raises(zoo.ZooError, match=r"joins network3_dropout, .* not mlp_784_10, "):
        zoo.create_ensemble(members, name="network3_dropout_ensemble")


def test_the_contract_of_classifiers():
    model = testing.check_spec("ensemble")
    assert [layer.name for layer in model.layers if layer.name.startswith("member")] == [
        "member1",
        "member2",
        "member3",
    ]


def test_the_contract_of_masks():
    model = testing.check_spec("mask_ensemble")
    assert [layer.name for layer in model.layers if layer.name.startswith("member")] == ["member1", "member2"]
    images = np.zeros((2, 7, 10, 20), np.float32)
    members = [model.get_layer(f"member{number}")(images) for number in (1, 2)]
    np.testing.assert_allclose(model(images), np.concatenate(members, axis=-1), atol=1e-6)
