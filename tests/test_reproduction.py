"""Reproduction: scores that a second training reaches or does not, and several runs in one artifact."""

import dataclasses
import json
import math
import statistics
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo import artifacts, testing
from zoo import data as zoo_data
from zoo.artifacts import index
from zoo.artifacts import manifest as manifest_file
from zoo.data import Dataset, Split
from zoo.metrics import ACCURACY, LOSS
from zoo.training import reproduction
from zoo.training.reproduction import recorded_range
from zoo.weights import named_weights

NAME = "mlp_784_30_10"
ARGUMENTS = {"hidden": (20,)}  # a manifest must keep them, or the second training is of another network


pytestmark = pytest.mark.usefixtures("unverified")  # which is tested elsewhere


@pytest.fixture(scope="module")
def made(making):
    """Three runs of one training on digits, and `m/NAME.one`, `m/NAME.three` exported from them."""
    with making as folder:
        recipe = zoo.get_spec(NAME).recipe().replace(epochs=4, batch_size=16, arguments={"initialization": "glorot"})
        runs = [
            zoo.train(NAME, "digits", recipe=recipe, seed=seed, arguments=ARGUMENTS, out=f"runs/{seed}")
            for seed in range(3)
        ]
        zoo.export(runs[1], f"m/{NAME}.one")
        zoo.export(runs, f"m/{NAME}.three")
    return types.SimpleNamespace(
        folder=folder, runs=runs, one=folder / f"m/{NAME}.one", three=folder / f"m/{NAME}.three"
    )


@pytest.fixture
def spy(monkeypatch):
    """What `train` is called with; it trains."""
    calls = []

    def train(name, data, **options):
        calls.append({"name": name, "data": data, **options})
        return zoo.train(name, data, **options)

    monkeypatch.setattr(reproduction, "train", train)
    return calls


def manifest_of(path):
    return json.loads((artifacts.find(path) / manifest_file.MANIFEST).read_text())


def doctored(run, *, directory="doctored", test=None, validation=None, best=None, **changes):
    """The run as it would be with other scores."""
    record = json.loads(json.dumps(run.record))
    for name, value in (("test", test), ("validation", validation)):
        if value is not None:
            record["metrics"][name]["accuracy"] = value
    if best is not None:
        record["history"][record["best_epoch"] - 1]["val_accuracy"] = best
    return dataclasses.replace(run, directory=Path(directory), record={**record, **changes})


# --- a whole training again -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_run_is_reproduced(made, spy):
    done = zoo.reproduce(made.one)
    scores = manifest_of(made.one)["scores"]
    assert (done.name, done.metric) == (f"{NAME}.one", "accuracy")
    assert done.measured == done.run.metrics["test"]["accuracy"]
    assert done.low <= done.measured <= done.high
    assert (done.low + done.high) / 2 == pytest.approx(scores["test"])
    assert done.high - done.low == pytest.approx(6 * math.sqrt(scores["test"] * (1 - scores["test"]) / 270))
    assert done.run.directory == Path("runs", f"{NAME}.one.reproduced-1")

    (call,) = spy
    assert (call["name"], call["seed"]) == (NAME, 1)
    assert call["recipe"] == made.runs[1].recipe
    assert done.run.task.arguments == {"hidden": [20], "initialization": "glorot"}
    assert done.run.record["data"] == made.runs[1].record["data"]
    assert len(done.run.history) == 4
    # trained anew, and by the same seed: the same up to rounding, whatever the number of threads
    assert done.run.record["finished"] != made.runs[1].record["finished"]
    np.testing.assert_allclose(
        [row["loss"] for row in done.run.history], [row["loss"] for row in made.runs[1].history], rtol=0.05
    )


@pytest.mark.slow
def test_several_runs_are_reproduced_by_another_seed(made, command):
    code, out, err = command(f"reproduce {made.three} --seed 7 --out again")
    assert code == 0, err
    out = out.splitlines()[-1]
    run = zoo.load_run("again")
    low, high = recorded_range(manifest_of(made.three)["scores"], 270)
    score = run.metrics["test"]["accuracy"]
    assert out == f"{NAME}.three is reproduced: test accuracy {score:.4f} is within {low:.4f} to {high:.4f}"
    assert run.record["seed"] == 7


@pytest.mark.slow
def test_another_score_is_not_reproduced(made, command):
    """An artifact that claims more than its run reached: the run is right there, and is measured as it is."""
    run = made.runs[0]
    score = run.metrics["test"]["accuracy"]
    for claim in (score - 0.3, 1.0):
        path = zoo.export(doctored(run, test=claim), f"m/{NAME}.claim{claim:.2f}").parent
        low, high = recorded_range({"metric": "accuracy", "test": claim, "mean": None, "standard_deviation": None}, 270)
        with pytest.raises(zoo.ZooError) as told:
            zoo.reproduce(path, out=made.folder / run.directory)
        assert f"is not reproduced: test accuracy {score:.4f} is outside {low:.4f} to {high:.4f}" in str(told.value)
    code, _, err = command(f"reproduce {path} --out {made.folder / 'runs/0'}")
    assert code == 2
    (told,) = err.splitlines()
    assert told.startswith(f"error: {NAME}.claim1.00 is not reproduced")


@pytest.mark.slow
@pytest.mark.parametrize("smoke", [False, True])
def test_what_cannot_be_reproduced(smoke, made, monkeypatch):
    monkeypatch.setattr(reproduction, "train", lambda *arguments, **options: pytest.fail("it trains"))
    data = zoo_data.load("digits")
    fewer = Dataset("digits", {**data.splits, "test": data.splits["test"].head(269)}, data.classes)
    with pytest.raises(zoo.ZooError, match="digits is not the data set digits of the run: its fingerprint differs"):
        zoo.reproduce(made.one, data=fewer, smoke=smoke)

    spec, options = zoo.get_spec(NAME), {"classes": tuple("0123456789")}
    path = zoo.export(zoo.create_model(NAME), f"{NAME}.bare", spec=spec, **options)
    with pytest.raises(zoo.ZooError, match=rf"{NAME}\.bare was not trained from scratch by a recipe"):
        zoo.reproduce(path, smoke=smoke)
    tuned = doctored(made.runs[0], origin={"name": "other", "manifest_sha256": "0"}, stages=[])
    path = zoo.export(tuned, f"{NAME}.tuned")
    with pytest.raises(zoo.ZooError, match=rf"{NAME}\.tuned was not trained from scratch by a recipe"):
        zoo.reproduce(path, smoke=smoke)
    with pytest.raises(zoo.ZooError, match=r"unknown artifact 'lenet5\.nothing'"):
        zoo.reproduce("lenet5.nothing", smoke=smoke)


@pytest.mark.slow
def test_fine_tuned_weights_say_where_they_come_from(made):
    """The record of a real fine-tuning, which the refusal above relies on."""
    data = testing.example_data("classification", classes=3)
    run = zoo.fine_tune(made.one, data, out="tuned", epochs=1)
    path = zoo.export(run, f"{NAME}.tuned")
    with pytest.raises(zoo.ZooError, match="was not trained from scratch"):
        zoo.reproduce(path, data=data)


@pytest.mark.slow
def test_a_network_without_classes(made):
    """It has none that rounding could change: its weights stay float32. Its score is a distance."""
    data, arguments = testing.example_data("generation"), {"width": 4}
    run = zoo.train("gan_mlp", data, out="gan", epochs=1, batch_size=8, arguments=arguments)
    path = zoo.export(run, "gan_mlp.ex", storage="auto")
    assert manifest_of(path)["weights"]["storage"] == "float32"
    assert manifest_of(path)["scores"]["metric"] == "frechet_distance"


def test_a_network_without_a_score(made):
    model = zoo.create_model("gan_mlp", width=4)
    path = zoo.export(model, "gan_mlp.bare", spec=zoo.get_spec("gan_mlp"), arguments={"width": 4})
    with pytest.raises(zoo.ZooError, match=r"gan_mlp\.bare was not trained from scratch"):
        zoo.reproduce(path)


# --- a smoke test -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_smoke_takes_the_recipe_of_the_manifest(made, spy, monkeypatch):
    monkeypatch.setattr(reproduction, "SMOKE_EXAMPLES", 600)
    recipe = made.runs[0].recipe.replace(
        epochs=9, learning_rate=2.5, clip_norm=5.0, ema=0.9999, schedule={"kind": "cosine", "warmup_epochs": 3},
        augmentation={"affine": {"rotation": 3.0}}, optimizer_arguments={"momentum": 0.1},
    )  # fmt: skip
    plain = json.loads(json.dumps(dataclasses.asdict(recipe)))
    path = zoo.export(doctored(made.runs[1], recipe=plain), f"{NAME}.recipe")
    done = zoo.reproduce(path, smoke=True)
    (call,) = spy
    assert call["recipe"] == recipe.replace(epochs=2, ema=None, schedule={})
    assert (call["name"], call["seed"], call["arguments"]["hidden"]) == (NAME, 1, [20])
    assert {name: len(split) for name, split in call["data"].splits.items()} == {
        "train": 600, "validation": 270, "test": 270,
    }  # fmt: skip
    # measured are the stored weights, on all test examples
    assert done.measured == pytest.approx(made.runs[1].metrics["test"]["accuracy"], abs=1e-6)
    assert done.high - done.low == pytest.approx(2 * reproduction.SAME)
    assert [row["epoch"] for row in done.run.history] == [1, 2]
    assert done.run.directory == Path("runs", f"{NAME}.recipe.smoke-1")


def test_smoke_takes_examples_of_all_classes(monkeypatch):
    """Those of a folder come class by class."""
    monkeypatch.setattr(reproduction, "SMOKE_EXAMPLES", 100)
    split = Split(np.zeros((300, 2, 2, 1), np.uint8), np.repeat(np.arange(3), 100))
    part = reproduction._slice(Dataset("folder", dict.fromkeys(("train", "validation", "test"), split), tuple("abc")))
    assert min(np.bincount(part.splits["train"].targets, minlength=3)) > 20


def test_logical_cpus_are_asked_for_before_tensorflow_starts(made, monkeypatch):
    def strategy(devices):
        raise zoo.ZooError(f"asked for {devices}")

    monkeypatch.setattr(reproduction, "strategy", strategy)
    monkeypatch.setattr(reproduction, "Predictor", lambda source: pytest.fail("it has started"))
    with pytest.raises(zoo.ZooError, match="asked for cpu:2"):
        zoo.reproduce(made.one, devices="cpu:2")


@pytest.mark.slow
def test_a_generator_is_reproduced(tmp_path, monkeypatch, unverified):
    monkeypatch.chdir(tmp_path)
    small = {"latents": 4, "widths": [32, 16], "dense": 32}
    run = zoo.train("dcgan_small", "digits", out="run", epochs=2, batch_size=32, ema=None, arguments=small, seed=3)
    path = zoo.export(run, "dcgan_small.digits").parent
    done = zoo.reproduce(path, out="again")
    score = run.metrics["test"]["frechet_distance"]
    assert done.metric == "frechet_distance"
    assert done.measured == pytest.approx(score, rel=0.01)
    assert (done.low, done.high) == pytest.approx((0.7 * score, 1.3 * score))
    done = zoo.reproduce(path, smoke=True, out="smoke")
    first, last = (row["val_frechet_distance"] for row in done.run.history)
    assert last < first


@pytest.mark.slow
def test_smoke_on_the_command_line(made, command):
    code, out, err = command(f"reproduce {made.one} --smoke --out smoke")
    assert code == 0, err
    assert f"{NAME}.one passes: test accuracy " in out
    assert len(zoo.load_run("smoke").history) == 2


@pytest.mark.slow
def test_smoke_fails_for_a_recipe_that_does_not_learn(made):
    recipe = json.loads(json.dumps(dataclasses.asdict(made.runs[0].recipe.replace(learning_rate=1e-9))))
    path = zoo.export(doctored(made.runs[0], recipe=recipe), f"{NAME}.idle")
    with pytest.raises(zoo.ZooError, match=rf"{NAME}\.idle does not learn: loss \d\.\d{{4}}, then \d\.\d{{4}}"):
        zoo.reproduce(path, smoke=True)


@pytest.mark.slow
def test_smoke_fails_for_weights_that_are_not_as_good_as_the_manifest_says(made):
    score = made.runs[0].metrics["test"]["accuracy"]
    for difference in (1 / 270, -0.001):
        path = zoo.export(doctored(made.runs[0], test=score + difference), f"m/{NAME}.claim")
        with pytest.raises(zoo.ZooError, match=rf"{NAME}\.claim is not reproduced: test accuracy {score:.4f} is out"):
            zoo.reproduce(path, smoke=True, out="smoke")  # the second goes on with the first one's training, done


@pytest.mark.parametrize(
    ("classes", "losses", "accuracy", "learns"),
    [
        (10, (2.0, 1.0), 0.21, True),
        (10, (2.0, 1.0), 0.19, False),  # chance is 0.1
        (10, (2.0, 2.0), 0.9, False),
        (10, (2.0, 2.1), 0.9, False),
        (10, (2.0, math.nan), 0.9, False),
        (10, (2.0, 1.0), math.nan, False),
        (2, (0.7, 0.4), 0.8, True),  # twice as often as chance would be more than always
        (2, (0.7, 0.69), 0.7, False),
        (3, (1.0, 0.9), 0.68, True),
        (3, (1.0, 0.9), 0.65, False),
    ],
)
def test_what_counts_as_learning(classes, losses, accuracy, learns):
    task = types.SimpleNamespace(monitor=ACCURACY, classes=tuple("abcdefghij"[:classes]))
    rows = [{"loss": losses[0], "val_accuracy": 0.0}, {"loss": losses[1], "val_accuracy": accuracy}]
    run = types.SimpleNamespace(task=task, history=rows, directory="runs/x")
    if learns:
        reproduction._check_learning("name", run)
    else:
        with pytest.raises(zoo.ZooError, match="name does not learn"):
            reproduction._check_learning("name", run)


def test_a_task_without_accuracy_needs_a_falling_validation_loss_alone():
    task = types.SimpleNamespace(monitor=LOSS, classes=())
    rows = [{"loss": 2.0, "val_loss": 2.0}, {"loss": 2.1, "val_loss": 1.9}]
    reproduction._check_learning("name", types.SimpleNamespace(task=task, history=rows, directory="runs/x"))
    with pytest.raises(zoo.ZooError, match="name does not learn"):
        reproduction._check_learning("name", types.SimpleNamespace(task=task, history=rows[::-1], directory="runs/x"))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mlp_784_30_10.mnist_paper", "network3_relu.mnist_modern", "lenet5.mnist_paper"])
def test_smoke_of_published_weights(name):
    done = zoo.reproduce(index.package_folder() / name, smoke=True)
    assert done.measured == pytest.approx(manifest_of(index.package_folder() / name)["scores"]["test"], abs=1e-4)
    assert done.run.record["data"]["examples"]["train"] == 10_000


# --- the range --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "examples", "low", "high"),
    [
        ({"test": 0.9}, 10_000, 0.891, 0.909),  # binomial: 0.3 / 100
        ({"test": 0.5}, 100, 0.35, 0.65),
        (
            {"test": 0.95, "mean": 0.9, "standard_deviation": 0.001},
            10_000,
            0.891,
            0.909,
        ),  # about the mean; binomial is larger
        ({"metric": "mean_iou", "test": 0.8}, 4, 0.77, 0.83),  # no share of examples
        ({"test": 0.95, "mean": 0.9, "standard_deviation": 0.01}, 10_000, 0.87, 0.93),  # that of the runs is larger
        ({"test": 0.9, "mean": 0.9, "standard_deviation": 0.0}, 10_000, 0.891, 0.909),
        ({"test": 1.0}, 100, 1.0, 1.0),
        ({"test": 2.5, "mean": 2.4, "standard_deviation": 0.1}, 100, 2.1, 2.7),  # a loss is no share
    ],
)
def test_the_recorded_range(scores, examples, low, high):
    scores = {"metric": "accuracy", "mean": None, "standard_deviation": None, **scores}  # None: of one run
    assert recorded_range(scores, examples) == pytest.approx((low, high))


@given(
    mean=st.floats(0.01, 0.99), deviation=st.floats(0, 0.5), examples=st.integers(1, 100_000), more=st.floats(0, 0.5)
)
def test_the_range_holds_three_deviations_of_either_kind(mean, deviation, examples, more):
    scores = {"metric": "accuracy", "test": 0.0, "mean": mean, "standard_deviation": deviation}
    low, high = recorded_range(scores, examples)
    binomial = math.sqrt(mean * (1 - mean) / examples)
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 6 == pytest.approx(max(deviation, binomial))
    wider = recorded_range({**scores, "standard_deviation": deviation + more}, examples)
    narrower = recorded_range(scores, 2 * examples)
    assert wider[0] <= low <= narrower[0] <= narrower[1] <= high <= wider[1]


# --- several runs in one artifact -------------------------------------------------------------------------------


def weights_of(source):
    return {key: variable.numpy() for key, variable in named_weights(source.model).items()}


def test_the_best_on_validation_is_written_with_the_scores_of_all(made):
    best = max(made.runs, key=lambda run: run.metrics["validation"]["accuracy"])
    stored = artifacts.open_artifact(made.three).arrays()
    for key, value in weights_of(best).items():
        np.testing.assert_array_equal(stored[key], value)
    manifest = manifest_of(made.three)
    tested = [run.metrics["test"]["accuracy"] for run in made.runs]
    scores = manifest["scores"]
    assert (scores["test"], scores["validation"]) == tuple(
        best.metrics[split]["accuracy"] for split in ("test", "validation")
    )
    assert scores["runs"] == 3
    assert scores["mean"] == pytest.approx(np.mean(tested))
    assert scores["standard_deviation"] == pytest.approx(np.std(tested, ddof=1))
    assert manifest["training"]["seed"] == best.record["seed"]
    for run, outcome in zip(made.runs, manifest["runs"], strict=True):
        assert (outcome["seed"], outcome["best_epoch"]) == (run.record["seed"], run.best_epoch)
        assert outcome["metrics"] == run.metrics
        assert outcome["seconds"] == pytest.approx(sum(row["seconds"] for row in run.history), abs=0.06)
        assert outcome["provenance"]["versions"]["tensorflow"]
    entry = json.loads((made.three.parent / index.INDEX).read_text())["models"][NAME]["tags"]["three"]
    assert [entry[key] for key in ("test", "mean", "standard_deviation")] == [
        scores[k] for k in ("test", "mean", "standard_deviation")
    ]
    assert entry["runs"] == tested


def test_one_run_has_no_deviation_of_its_own(made):
    scores = manifest_of(made.one)["scores"]
    assert (scores["runs"], scores["mean"], scores["standard_deviation"]) == (1, scores["test"], None)
    entry = json.loads((made.one.parent / index.INDEX).read_text())["models"][NAME]["tags"]["one"]
    assert entry["standard_deviation"] == pytest.approx(math.sqrt(scores["test"] * (1 - scores["test"]) / 270))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("validation", "chosen"), [((0.5, 0.7, 0.6), 1), ((0.7, 0.5, 0.7), 0), ((0.6, 0.7, 0.7), 1), ((0.5, 0.5, 0.5), 0)]
)
def test_which_run_is_the_best(validation, chosen, made):
    """By validation, whatever the test scores are; of equals the first."""
    test = (0.9, 0.1, 0.5)
    runs = [
        doctored(run, best=score, validation=score, test=tested)
        for run, score, tested in zip(made.runs, validation, test, strict=True)
    ]
    path = zoo.export(runs, f"{NAME}.best")
    np.testing.assert_array_equal(zoo.load(path).model.get_weights()[0], runs[chosen].model.get_weights()[0])
    scores = manifest_of(path)["scores"]
    assert (scores["validation"], scores["test"]) == (validation[chosen], test[chosen])
    assert (scores["mean"], scores["standard_deviation"]) == pytest.approx((0.5, statistics.stdev(test)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "digits", "fingerprint": "other"}}, "are not runs of one training: different data"),
        ({"recipe": {"epochs": 5}}, "are not runs of one training: different recipe"),
        ({"model": {"arguments": {}}, "backend": "jax"}, "are not runs of one training: different model, backend"),
        ({"origin": {"name": "lenet5.other"}}, "are not runs of one training: different origin"),
        ({"stages": []}, "are not runs of one training: different stages"),
        ({"seed": 2}, "the runs have the seeds 0, 2, 2: each must have another"),
    ],
)
def test_runs_of_other_trainings_are_refused(changes, message, made):
    runs = [made.runs[0], doctored(made.runs[1], **changes), made.runs[2]]
    with pytest.raises(zoo.ZooError, match=message):
        zoo.export(runs, f"m/{NAME}.mixed")
    assert not Path("m").exists()


def test_several_runs_on_the_command_line(made, command):
    folders = [str(made.folder / f"runs/{seed}") for seed in range(3)]
    code, out, err = command(f"export {' '.join(folders)} m/{NAME}.three --storage float16")
    assert (code, out.split()) == (0, [f"m/{NAME}.three/1"]), err
    assert {**manifest_of(f"m/{NAME}.three")["scores"]} == manifest_of(made.three)["scores"]
    code, _, err = command(f"export {folders[0]} {folders[0]} m/{NAME}.three")
    assert (code, "seeds 0, 0: each must have another" in err) == (2, True)
    code, _, err = command(f"export {folders[0]} {made.one} m/{NAME}.three")
    assert (code, f"{made.one} is not a run: several sources must be runs" in err) == (2, True)


# --- float16 where it changes no class --------------------------------------------------------------------------


@pytest.fixture
def told(made):
    """A run of the perceptron without hidden layers that says class 1 of each image, by a bias larger than that of
    class 0 by `margin`."""

    def with_margin(margin, **scores):
        run = zoo.train("mlp_784_10", "digits", out=made.folder / "runs/flat", epochs=1, batch_size=200)
        bias = np.full(10, -1.0)
        bias[:2] = 1.0, 1.0 + margin
        zoo.load_weights(run.model, {"output/kernel": np.zeros((784, 10)), "output/bias": bias})
        return doctored(run, **scores)

    return with_margin


@pytest.mark.slow
def test_auto_takes_float16_where_no_class_changes(told):
    run = told(0.01, test=0.123, validation=0.321)  # scores that the rounded weights do not have
    path = zoo.export(run, "mlp_784_10.auto", storage="auto")
    manifest = manifest_of(path)
    assert manifest["weights"]["storage"] == "float16"
    bias = artifacts.open_artifact(path).arrays()["output/bias"]
    assert bias[1] == np.float16(1.01) != np.float32(1.01)
    for split in ("validation", "test"):
        share = np.mean(zoo_data.load("digits").splits[split].targets == 1)
        assert manifest["scores"][split] == pytest.approx(share, abs=1e-6)
        assert manifest["training"]["metrics"][split]["accuracy"] == manifest["scores"][split]
        assert zoo.evaluate(path, "digits", split=split)["accuracy"] == pytest.approx(share, abs=1e-6)
    assert run.metrics["test"]["accuracy"] == 0.123  # the run itself stays as it was
    assert run.model.get_weights()[1][1] == np.float32(1.01)


@pytest.mark.slow
def test_auto_takes_float32_where_a_class_changes(told):
    """Both biases are 1 in float16, and of equals the first class is said."""
    run = told(1e-4, test=0.123)
    path = zoo.export(run, "mlp_784_10.auto", storage="auto")
    manifest = manifest_of(path)
    assert manifest["weights"]["storage"] == "float32"
    assert artifacts.open_artifact(path).arrays()["output/bias"][1] == np.float32(1.0001)
    assert manifest["scores"]["test"] == 0.123
    assert zoo.load(path)(np.zeros((1, 8, 8, 1), np.uint8))["class_ids"] == [1]


@pytest.mark.slow
def test_auto_of_several_runs_asks_the_best_alone(told):
    runs = [told(1e-4, best=0.9), told(0.01, best=0.8, seed=1)]
    assert manifest_of(zoo.export(runs, "mlp_784_10.auto", storage="auto"))["weights"]["storage"] == "float32"
    runs = [told(1e-4, best=0.8), told(0.01, best=0.9, seed=1)]
    manifest = manifest_of(zoo.export(runs, "mlp_784_10.auto", storage="auto"))
    assert (manifest["weights"]["storage"], manifest["scores"]["runs"]) == ("float16", 2)


@pytest.mark.slow
def test_auto_where_images_are_converted_to_gray(monkeypatch):
    data = testing.example_data("classification")
    splits = {name: dataclasses.replace(s, inputs=s.inputs.repeat(3, -1)) for name, s in data.splits.items()}
    data = dataclasses.replace(data, splits=splits, fingerprint="")
    run = zoo.train(NAME, data, out="color", epochs=1, batch_size=8)
    monkeypatch.setattr("zoo.exporting.saved_model.data_of", lambda *_: data)
    assert manifest_of(zoo.export(run, f"{NAME}.auto", storage="auto"))["weights"]["storage"] == "float16"


@pytest.mark.slow
def test_auto_without_data():
    spec, classes = zoo.get_spec("mlp_784_10"), tuple("0123456789")
    path = zoo.export(zoo.create_model(spec.name), "mlp_784_10.bare", spec=spec, classes=classes, storage="auto")
    assert manifest_of(path)["weights"]["storage"] == "float32"


def test_auto_tells_where_the_data_are_gone(made, monkeypatch):
    """Rather than to say what was not checked."""
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    gone = {**made.runs[0].record["data"], "name": "gone"}
    with pytest.raises(zoo.ZooError, match="unknown data set 'gone'"):
        zoo.export(doctored(made.runs[0], data=gone), f"m/{NAME}.auto", storage="auto")
    other = {**made.runs[0].record["data"], "fingerprint": "0"}
    with pytest.raises(zoo.ZooError, match="its fingerprint differs"):
        zoo.export(doctored(made.runs[0], data=other), f"m/{NAME}.auto", storage="auto")
    assert not Path("m").exists()
