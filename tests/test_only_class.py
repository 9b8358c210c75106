"""From a network of all classes to one of a single class, and such networks joined again."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import artifacts
from zoo.artifacts.index import INDEX, write_index
from zoo.artifacts.manifest import MANIFEST
from zoo.data import Dataset, Split
from zoo.data.sources import NAMED
from zoo.exporting.ensembles import registered_name
from zoo.training import fine_tuning, plots, trainer
from zoo.training.runs import data_of
from zoo.weights import named_weights

pytestmark = pytest.mark.slow

CLASSES = ("roads", "tall trees", "water")
TINY = {"arguments": {"width": 2, "depth": 1}, "precision": "float32", "augmentation": {}, "batch_size": 4}
ONE_EPOCH = {"epochs": 1, "batch_size": 4, "precision": "float32"}


def scenes():
    """Images of 20 bands; each of the first three is brighter where a pixel has one of the classes."""
    random, splits = np.random.default_rng(5), {}
    for name, count in (("train", 8), ("validation", 3), ("test", 3)):
        masks = (random.random((count, 16, 16, 3)) < (0.5, 0.2, 0.4)).astype(np.uint8)
        images = random.integers(0, 1000, (count, 16, 16, 20), dtype=np.uint16)
        images[..., :3] += np.uint16(600) * masks
        splits[name] = Split(images, masks)
    return Dataset("scenes", splits, CLASSES)


DATA = scenes()


def untrained(task, *arguments, **options):
    """In place of `fit`: the weights stay unchanged."""
    row = {"epoch": 1, "seconds": 0.0, "learning_rate": 1.0, "loss": 1.0, "val_loss": 1.0}
    return SimpleNamespace(rows=[{**row, "mean_iou": 0.5, "val_mean_iou": 0.5}], best_epoch=1)


@pytest.fixture(scope="module")
def made(making):
    """A folder with `unet_satellite.all`, an untrained network of each class in `unet_satellite.CLASS`, a trained one
    for roads in `unet_satellite.trained`, and networks that do not fit these."""
    with making as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "training_curves", lambda *arguments: None)
        run = zoo.train(
            "unet_satellite", DATA, out="runs/all", epochs=1, learning_rate=0.03, threshold_by="iou", **TINY
        )
        zoo.export(run, "saved_models/unet_satellite.all")
        trained = zoo.fine_tune("unet_satellite.all", DATA, only_class="roads", learning_rate=0.01, **ONE_EPOCH)
        zoo.export(trained, "saved_models/unet_satellite.trained")
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(fine_tuning, "fit", untrained)
            scores = {"validation": {}, "test": {"mean_iou": 0.5}}
            inner.setattr(trainer, "evaluate_splits", lambda *arguments: scores)
            for name in CLASSES:
                one = zoo.fine_tune("unet_satellite.all", DATA, only_class=name, seed=1)
                zoo.export(one, f"saved_models/unet_satellite.{name.split()[0]}")

        def bare(path, classes, arguments=None, **options):
            name = Path(path).name.partition(".")[0]
            model = zoo.create_model(name, classes=len(classes), **arguments or {}, **options)
            options |= {"arguments": arguments, "classes": classes}
            zoo.export(model, path, spec=zoo.get_spec(name), **options)

        bare("saved_models/unet_satellite.gray", ("clouds",), TINY["arguments"], input_shape=(None, None, 1))
        bare("saved_models/unet_satellite.brighter", ("clouds",), TINY["arguments"])
        bare("saved_models/unet_tiny.exclusive", CLASSES)
        bare("saved_models/mlp_784_10.digits", tuple("0123456789"))
        joined = zoo.create_ensemble(["unet_satellite.water", "unet_satellite.trained"])
        zoo.export(joined, "saved_models/mask_ensemble.two")
        images = np.arange(20 * 16 * 16 * 20, dtype=np.uint16).reshape(20, 16, 16, 20)
        masks = np.uint8(images[..., 0] // 20 % 2)
        np.savez("exclusive.npz", x_train=images, y_train=masks, classes=CLASSES[:2])
        np.savez("fewer.npz", x_train=images, y_train=np.stack([masks] * 2, -1))
    return folder


@pytest.fixture
def folder(made, monkeypatch):
    """The folder itself, not a copy, because tests write nothing there; its data set has the name `scenes`."""
    monkeypatch.chdir(made)
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    monkeypatch.setitem(NAMED, "scenes", lambda: (dict(DATA.splits), CLASSES))
    return made


def images_of(count=2, height=11, width=18):
    return np.random.default_rng(3).integers(0, 1600, (count, height, width, 20)).astype(np.float32)


def probabilities(source, images):
    return zoo.load(source)(images)["probabilities"]


# --- from all classes to one ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_weights_are_those_of_the_source_with_the_head_of_the_class(number, folder):
    source = artifacts.open_artifact("unet_satellite.all").arrays()
    run = zoo.load_run(f"runs/unet_satellite.scenes-{CLASSES[number].replace(' ', '_')}.all-1")
    assert run.task.classes == (CLASSES[number],)
    for key, variable in named_weights(run.model).items():
        value = source.pop(key)
        value = value[..., [number]] if key.startswith("output/") else value
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=key)
    assert not source
    assert run.record["loaded"] == f"{len(named_weights(run.model))} arrays loaded"  # and none was reinitialized


@pytest.mark.parametrize("number", range(3))
def test_before_training_it_predicts_what_the_source_predicts_for_the_class(number, folder):
    one = zoo.load(f"unet_satellite.{CLASSES[number].split()[0]}")(images_of())
    every = zoo.load("unet_satellite.all")(images_of())
    for output in ("probabilities", "masks"):  # each class has its own threshold
        assert one[output].shape == (2, 11, 18, 1)
        np.testing.assert_allclose(one[output][..., 0], every[output][..., number], atol=1e-6)


def test_a_trained_one_is_a_run_like_any_other(folder):
    run = zoo.load_run("runs/unet_satellite.scenes-roads.all-0")
    assert [row["stage"] for row in run.history] == ["head", "decoder", "all"]
    assert run.task.classes == ("roads",)
    assert len(run.task.thresholds) == 1
    assert run.record["only_class"] == "roads"
    assert run.record["data"]["name"] == "scenes"
    found = data_of(run.record, run.task, run.recipe)
    assert run.record["data"]["fingerprint"] == DATA.only_classes("roads").fingerprint == found.fingerprint
    assert set(run.metrics["test"]) >= {"mean_iou", "iou_roads"}
    assert "iou_water" not in run.metrics["test"]
    assert np.abs(probabilities(run, images_of()) - probabilities("unet_satellite.roads", images_of())).max() > 1e-3
    (path,) = Path("saved_models/unet_satellite.trained").iterdir()
    served = tf.saved_model.load(str(path)).signatures["serving_default"](images=tf.constant(images_of()))
    np.testing.assert_allclose(served["probabilities"], probabilities(run, images_of()), atol=1e-5)
    assert served["masks"].shape == (2, 11, 18, 1)


def test_it_is_evaluated_on_data_of_one_class_and_of_all(folder):
    run = zoo.load_run("runs/unet_satellite.scenes-roads.all-0")
    for data in (DATA, DATA.only_classes("roads"), "scenes"):
        assert zoo.evaluate("unet_satellite.trained", data) == pytest.approx(run.metrics["test"], abs=1e-6)
    masks = zoo.load(run)(DATA.splits["test"].inputs.astype(np.float32))["masks"][..., 0]
    true = DATA.splits["test"].targets[..., 0]
    assert run.metrics["test"]["mean_iou"] == pytest.approx((masks & true).sum() / (masks | true).sum(), abs=1e-6)


def test_classes_of_the_data_are_reordered_for_the_network(folder):
    turned = Dataset(
        "turned", {name: Split(s.inputs, s.targets[..., ::-1]) for name, s in DATA.splits.items()}, CLASSES[::-1]
    )
    assert zoo.evaluate("unet_satellite.all", turned) == pytest.approx(zoo.evaluate("unet_satellite.all", DATA))
    with pytest.raises(zoo.ZooError, match="has the classes"):
        zoo.evaluate("unet_satellite.all", DATA.only_classes("roads"))


def test_resuming_in_the_directory_of_another_class_is_refused(folder, monkeypatch):
    monkeypatch.setattr(fine_tuning, "fit", lambda *arguments, **options: pytest.fail("it is trained"))
    with pytest.raises(zoo.ZooError, match=r"contains another run \(different .*only_class"):
        zoo.fine_tune("unet_satellite.all", DATA, only_class="water", out="runs/unet_satellite.scenes-roads.all-0")


def test_the_default_weights_are_those_of_all_classes(made, tmp_path):
    """However much better the score of a single class is."""
    shutil.copytree(
        made / "saved_models", tmp_path / "saved_models", ignore=shutil.ignore_patterns("*.gray", "*.brighter")
    )
    path = next(Path("saved_models/unet_satellite.water").iterdir()) / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["scores"]["validation"] = 1.0
    path.write_text(json.dumps(manifest))
    write_index(Path("saved_models"))
    entry = json.loads(Path("saved_models", INDEX).read_text())["models"]["unet_satellite"]
    assert entry["tags"]["water"] | {"validation": 1.0, "only_class": "water"} == entry["tags"]["water"]
    assert entry["aliases"]["default"] == "all"


# --- from single classes to all ---------------------------------------------------------------------------------


def test_joined_they_predict_what_each_predicts_for_its_class(folder, unverified, tmp_path):
    names = ["unet_satellite.water", "unet_satellite.trained"]
    whole = zoo.create_ensemble(names, data=DATA)
    predictors = [zoo.load(name) for name in names]
    assert whole.task.spec.name == "mask_ensemble"
    assert whole.task.classes == ("water", "roads")
    assert whole.task.thresholds == sum((predictor.task.thresholds for predictor in predictors), ())
    path = zoo.export(whole, tmp_path / "mask_ensemble.measured")
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    for images in (images_of(), images_of(1, 16, 16)):
        for outputs in (zoo.load(whole)(images), zoo.load(path)(images), served(images=tf.constant(images))):
            assert sorted(outputs) == ["masks", "probabilities"]
            for output in outputs:
                each = np.concatenate([predictor(images)[output] for predictor in predictors], axis=-1)
                np.testing.assert_allclose(outputs[output], each, atol=1e-5)

    written = json.loads((path / MANIFEST).read_text())["training"]
    assert [row["name"] for row in written["members"]] == names
    assert "disagreement" not in written
    for split in ("validation", "test"):
        for row, name, predictor in zip(written["members"], names, predictors, strict=True):
            (own,) = predictor.task.classes
            assert row[split] == pytest.approx(zoo.evaluate(name, DATA, split=split)["mean_iou"], abs=1e-6)
            assert row[split] == pytest.approx(written["metrics"][split][f"iou_{own}"], abs=1e-6)
        scores = [row[split] for row in written["members"]]
        assert len(set(scores)) == 2
        assert written["metrics"][split]["mean_iou"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert zoo.evaluate(path, DATA) == pytest.approx(written["metrics"]["test"], abs=1e-6)


def test_joined_untrained_they_equal_the_source(folder):
    whole = zoo.create_ensemble([f"unet_satellite.{name.split()[0]}" for name in CLASSES])
    source = zoo.load("unet_satellite.all").task
    assert (whole.task.classes, whole.task.thresholds) == (source.classes, source.thresholds)
    each = probabilities("unet_satellite.all", images_of())
    np.testing.assert_allclose(probabilities(whole, images_of()), each, atol=1e-5)


def test_members_of_several_classes_with_and_without_thresholds(unverified):
    spec, paths = zoo.get_spec("unet_satellite"), []
    for number, classes in enumerate([("a", "b"), ("c",), ("d", "e", "f")]):
        model = zoo.create_model("unet_satellite", classes=len(classes), width=2 + number, depth=1)
        arguments = {"width": 2 + number, "depth": 1}
        paths.append(zoo.export(model, f"m/unet_satellite.{number}", spec=spec, classes=classes, arguments=arguments))
    manifest = json.loads((paths[1] / MANIFEST).read_text())
    manifest["model"]["thresholds"] = [0.3]
    (paths[1] / MANIFEST).write_text(json.dumps(manifest))
    write_index(Path("m"))
    whole = zoo.create_ensemble(paths)
    assert (whole.task.classes, whole.task.thresholds) == (tuple("abcdef"), (0.5, 0.5, 0.3, 0.5, 0.5, 0.5))
    images = np.random.default_rng(2).integers(0, 256, (2, 9, 9, 20), dtype=np.uint8)
    each = np.concatenate([probabilities(path, images) for path in paths], axis=-1)
    np.testing.assert_allclose(probabilities(whole, images), each, atol=1e-5)


def test_an_ensemble_of_ensembles_is_evaluated_on_its_own_classes(folder):
    whole = zoo.create_ensemble(["unet_satellite.tall", "mask_ensemble.two"], data=DATA)
    assert whole.task.classes == ("tall trees", "water", "roads")
    one, two = whole.record["members"]
    assert one["test"] == pytest.approx(zoo.evaluate("unet_satellite.tall", DATA)["iou_tall trees"], abs=1e-6)
    scores = [zoo.evaluate("mask_ensemble.two", DATA)[f"iou_{name}"] for name in ("water", "roads")]
    assert two["test"] == pytest.approx(np.mean(scores), abs=1e-6)


def test_runs_and_artifacts_are_joined_by_the_ensemble_of_their_task(folder):
    run = "runs/unet_satellite.scenes-roads.all-0"
    for member in (run, zoo.load_run(run), "unet_satellite.water", Path("saved_models/mask_ensemble.two")):
        assert registered_name(member) == "mask_ensemble"
    assert registered_name("mlp_784_10.digits") == "ensemble"
    whole = zoo.create_ensemble([run, zoo.load_run("runs/unet_satellite.scenes-tall_trees.all-1")])
    assert [row["name"] for row in whole.record["members"]] == [
        "unet_satellite.scenes-roads.all-0",
        "unet_satellite.scenes-tall_trees.all-1",
    ]


# --- the command line -------------------------------------------------------------------------------------------


def test_the_command_line(folder, unverified, monkeypatch, tmp_path, command):
    shutil.copytree(folder / "saved_models", tmp_path / "saved_models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fine_tuning, "fit", untrained)
    line = "fine-tune unet_satellite.all --data scenes --only-class 'tall trees'"
    code, out, err = command(line)
    assert code == 0, err
    assert "exported to saved_models/unet_satellite.scenes-tall_trees-depth1-width2/1" in out
    line = "ensemble runs/unet_satellite.scenes-tall_trees.all-0 unet_satellite.water --data scenes"
    code, out, err = command(line)
    assert code == 0, err
    header, *rows, last = out.splitlines()
    assert header.split() == ["validation", "mean_iou", "test", "mean_iou"]
    record = json.loads(Path("saved_models/mask_ensemble.scenes/1", MANIFEST).read_text())["training"]
    shown = [(row["name"], row["validation"], row["test"]) for row in record["members"]]
    shown.append(("ensemble", *(record["metrics"][split]["mean_iou"] for split in ("validation", "test"))))
    assert [row.split() for row in rows] == [[name, f"{one:.4f}", f"{two:.4f}"] for name, one, two in shown]
    assert "exported to saved_models/mask_ensemble.scenes/1" in last
    code, out, _ = command("evaluate mask_ensemble.scenes --data scenes --json")
    assert json.loads(out)["mean_iou"] == pytest.approx(record["metrics"]["test"]["mean_iou"], abs=1e-6)


ONE = "fine-tune unet_satellite.all --data scenes --only-class"
WRONG = {
    f"{ONE} roda": "unknown class of unet_satellite.all 'roda': did you mean roads",
    f"{ONE} ''": "unknown class of unet_satellite.all ''",
    "fine-tune unet_satellite.water --data scenes --only-class roads": "unknown class of unet_satellite.water 'roads'",
    "fine-tune unet_satellite.all --data fewer.npz --only-class roads": "unknown class of fewer 'roads': known: 1, 2",
    "fine-tune unet_satellite.all --data exclusive.npz --only-class roads": "exclusive has no masks of overlapping",
    "fine-tune unet_tiny.exclusive --data scenes --only-class roads": "unet_tiny.exclusive has no overlapping classes",
    "fine-tune mlp_784_10.digits --data digits --only-class 3": "mlp_784_10.digits has no overlapping classes",
    "fine-tune mask_ensemble.two --data scenes --only-class roads": "mask_ensemble.two is an ensemble: fine-tune its",
    f"{ONE} roads --export saved_models/unet.x": "must be named unet_satellite.TAG",
    "evaluate unet_satellite.water --data fewer.npz": "fewer has the classes ('1', '2'), the network has ('water',)",
    "evaluate unet_satellite.water --data exclusive.npz": "the network has ('water',)",
    "evaluate unet_satellite.roads --data exclusive.npz": "unet_satellite takes masks of classes that overlap",
    "ensemble unet_satellite.water": "an ensemble needs two members or more, not 1",
    "ensemble unet_satellite.all unet_satellite.water": (
        "unet_satellite.water and unet_satellite.all both have the class water"
    ),
    "ensemble unet_satellite.water unet_satellite.water": "both have the class water",
    "ensemble unet_satellite.roads unet_satellite.brighter": (
        "unet_satellite.brighter and unet_satellite.roads do not fit: they scale the bands"
    ),
    "ensemble unet_satellite.roads unet_satellite.gray": "images of any x any x 1 and any x any x 20",
    "ensemble unet_satellite.roads unet_tiny.exclusive": "unet_tiny.exclusive has no masks of overlapping classes",
    "ensemble unet_satellite.roads mlp_784_10.digits": "mlp_784_10.digits has no masks of overlapping classes",
    "ensemble mlp_784_10.digits unet_satellite.roads": "unet_satellite.roads is not a classifier of images of one size",
    "ensemble unet_satellite.roads unet_satellite.water --method vote": "mask_ensemble has no method 'vote'",
    "ensemble unet_satellite.roads unet_satellite.water --name ensemble": "roads is not a classifier of images",
    "ensemble unet_satellite.roads unet_satellite.water --name unet": "unet is a network, not an ensemble: leave name=",
    "ensemble unet_satellite.roads unet_satellite.water --data fewer.npz": "fewer has the classes ('1', '2')",
    "ensemble unet_satellite.roads unet_satellite.water --export m/ensemble.x": "must be named mask_ensemble.TAG",
    "train mask_ensemble --data scenes": "mask_ensemble is an ensemble: train its members",
}


@pytest.mark.parametrize("line", WRONG)
def test_one_line_and_nothing_written(line, folder, refused):
    refused(line, WRONG[line])


def test_the_members_have_the_classes_of_the_ensemble():
    with pytest.raises(zoo.ZooError, match="the members of mask_ensemble have 2 classes, not 3"):
        zoo.create_model("mask_ensemble", classes=3)
