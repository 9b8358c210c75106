"""The weights in `saved_models/`: verified, loadable by name offline, with the scores that their manifests record."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import artifacts, report, tasks
from zoo.artifacts import index
from zoo.artifacts import manifest as manifest_file
from zoo.metrics import ACCURACY, get_metric
from zoo.recipe import from_dict
from zoo.spec import Stage

ROOT = Path(__file__).parent.parent
with (ROOT / "saved_models" / report.CSV).open(encoding="utf-8", newline="") as file:
    SHEET = {f"{row['name']}.{row['tag']}": row for row in csv.DictReader(file)}
PUBLISHED = sorted(SHEET)  # not what somebody has exported beside them


def test_all_that_is_committed_is_published():
    """And nothing else, although `zoo train` exports into the same folder."""
    command = ["git", "ls-files", "saved_models"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no checkout")
    committed = {Path(line).parts[1] for line in done.stdout.splitlines()} - {index.INDEX, report.CSV}
    assert sorted(committed) == PUBLISHED


@pytest.mark.parametrize(
    "names",
    [
        ["lenet5.mnist_paper", "network3_dropout_ensemble.mnist_modern", "lstm_mnist.mnist", "unet_small.isbi"],
        pytest.param(PUBLISHED, marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_they_are_verified_in_one_process(names):
    results = zoo.verify(*(ROOT / "saved_models" / name for name in names))
    assert [Path(result["path"]).parent.name for result in results] == names


@pytest.mark.parametrize("name", PUBLISHED)
def test_golden_outputs_of_the_keras_network(name):
    artifact = artifacts.open_artifact(name)
    predictor = zoo.load(name)
    with np.load(artifact.path / manifest_file.GOLDEN) as golden:
        inputs = [golden[key] for key in golden.files if key.startswith("serving_default/7/inputs/")]
        outputs = predictor(*inputs)
        for key, value in outputs.items():
            expected = golden[f"serving_default/7/outputs/{key}"]
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(value, expected, atol=1e-5)
            else:
                assert np.array_equal(value.astype(expected.dtype), expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_manifest_says_how_it_came_about(name):
    manifest = artifacts.open_artifact(name).manifest
    training, scores = manifest["training"], manifest["scores"]
    assert training["data"]["fingerprint"]
    assert scores["test"] == training["metrics"]["test"][scores["metric"]]
    assert manifest["provenance"]["versions"]["tensorflow"]
    if "members" in training:  # an ensemble has no epochs of its own
        assert all(0 < row["test"] <= 1 for row in training["members"])
        return
    assert len(training["history"]) >= training["best_epoch"] >= 1
    best = max((row[f"val_{scores['metric']}"] for row in training["history"]), key=get_metric(scores["metric"]).rank)
    assert training["history"][training["best_epoch"] - 1][f"val_{scores['metric']}"] == best


@pytest.mark.parametrize("name", [name for name in PUBLISHED if zoo.get_spec(name).recipes])
def test_weights_were_trained_by_the_recipe_that_info_shows(name):
    manifest, spec = artifacts.open_artifact(name).manifest, zoo.get_spec(name)
    trained = tasks.read_recipe(manifest["training"]["recipe"], spec.task)
    if "origin" in manifest["training"]:  # fine-tuned
        assert [from_dict(Stage, stage) for stage in manifest["training"]["stages"]] == [*spec.stages]
        return
    shown = tasks.with_options(spec.recipe(manifest["training"]["recipe_name"]), tasks.get_task(spec.task), spec.task)
    assert dataclasses.replace(trained, targets=shown.targets) == shown
    assert manifest["scores"]["reference"] in (None, *(score.reference for score in spec.reported))


def test_a_data_sets_name_is_the_tag_that_is_best_on_validation():
    entry = artifacts.published_index()["lenet5"]
    tags = {tag: scores["validation"] for tag, scores in entry["tags"].items() if scores["dataset"] == "mnist"}
    assert entry["aliases"]["mnist"] == max(tags, key=tags.get)
    assert artifacts.find("lenet5.mnist") == artifacts.find(f"lenet5.{entry['aliases']['mnist']}")


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.endswith(".scenes")])  # see test_scenes.py
def test_measured_score_is_measured_again(name):
    scores = artifacts.open_artifact(name).manifest["scores"]
    measured = zoo.evaluate(name, scores["dataset"], split="test")[scores["metric"]]
    # one image of 10,000 is 1e-4; a distance is that of the run, before its weights were rounded to float16
    tolerance = {"rel": 5e-3} if scores["metric"] == "frechet_distance" else {"abs": 1e-4}
    assert measured == pytest.approx(scores["test"], **tolerance)


def test_the_table_of_models_is_that_of_the_manifests(tmp_path):
    """`zoo report --write docs/models.md` writes both anew."""
    for name in [*PUBLISHED, report.CSV]:
        (tmp_path / name).symlink_to(ROOT / "saved_models" / name)
    index.write_index(tmp_path)
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.partition(f"{report.BEGIN}\n")[2].partition(f"\n{report.END}")[0]
    assert table == report.table(tmp_path)
    for name, row in SHEET.items():
        artifact = artifacts.open_artifact(ROOT / "saved_models" / name)
        scores, spec = artifact.manifest["scores"], zoo.get_spec(name)
        assert (row["dataset"], row["metric"]) == (scores["dataset"], scores["metric"])
        assert (float(row["validation"]), float(row["test"])) == (scores["validation"], scores["test"])
        assert row["reported"] == ("" if scores["reported"] is None else str(scores["reported"]))
        assert (int(row["parameters"]), int(row["year"]), int(row["bytes"])) == (spec.params, spec.year, artifact.size)
        tested = [run["metrics"]["test"][scores["metric"]] for run in artifact.manifest["runs"]]
        examples = artifact.manifest["training"]["data"]["examples"]["test"]
        assert [float(score) for score in row["runs"].split()] == tested
        assert float(row["mean"]) == pytest.approx(np.mean(tested), abs=1e-9)
        if len(tested) > 1:
            assert float(row["standard_deviation"]) == pytest.approx(np.std(tested, ddof=1), abs=1e-9)
        elif scores["metric"] == "accuracy":
            assert float(row["standard_deviation"]) == pytest.approx(
                ACCURACY.standard_deviation(scores["test"], examples), abs=1e-9
            )
        else:  # no share of examples
            assert row["standard_deviation"] == ""
        assert 0 < float(row["milliseconds"]) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "gan", "text", "photographs", "search"])
def test_notebook_runs(name, tmp_path):
    """Its cells, in order, as one script."""
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code = "\n".join(["import matplotlib", "matplotlib.use('Agg')", *cells])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
