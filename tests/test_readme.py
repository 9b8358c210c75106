"""README and the guide to segmentation are run: every block of Python and shell, in order, in one folder, as a
newcomer would."""

import concurrent.futures
import json
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import zoo
from zoo import artifacts, cli, report
from zoo.artifacts import index
from zoo.data.dataset import HELD_OUT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SEGMENTATION = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", README + SEGMENTATION, re.MULTILINE | re.DOTALL)


@pytest.fixture
def session(tmp_path):
    """A fresh interpreter in the folder, which stays open while the shell works beside it."""
    start = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, start, initializer=os.chdir, initargs=(tmp_path,)) as executor:
        yield executor


def run_zoo(lines):
    """Commands of zoo alone in one process: each of its own would first load TensorFlow."""
    printed = ""
    for line in lines:
        done = CliRunner().invoke(cli.app, shlex.split(line, comments=True)[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        printed += done.stdout
    return printed


@pytest.mark.slow
def test_examples_run(tmp_path, session):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = ""
    for language, code in BLOCKS:
        if "pytest" in code:
            continue
        if "import zoo" in code:
            session.submit(exec, code, {}).result()
            continue
        lines = code.replace("\\\n", "").splitlines()
        if all(line.startswith("zoo ") for line in lines):
            printed += session.submit(run_zoo, lines).result()
            continue
        code = code.replace("pip install -e . && ", "").replace("8501", "8591")
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    accuracy = float(re.search(r"test at epoch \d+: accuracy (\S+)", printed)[1])
    assert accuracy >= 0.97, "the first command promises LeNet-5 with 97 % on the digits"
    tuned = printed.partition("from lenet5.mnist_")[2]
    assert float(re.search(r"test at epoch \d+: accuracy (\S+)", tuned)[1]) >= 0.9, "fine-tuned on odd and even digits"
    assert re.search(r"odd/1\.png +odd .*\n.*even/2\.png +even ", printed), "the fine-tuned network errs"
    assert '"predictions"' in printed, "curl got no answer"


def test_scores_of_segmentation_are_those_measured():
    """The membranes' from the manifest, the scenes' from what the benchmark wrote."""
    written = SEGMENTATION.partition("<!-- segmentation -->")[2].partition("<!-- end of segmentation -->")[0]
    training = artifacts.read_manifest(ROOT / "saved_models/unet_small.isbi/1")["training"]
    assert f"{training['data']['examples']['train']} slices to train on" in SEGMENTATION
    larger = zoo.get_spec("unet").params / zoo.get_spec("unet_small").params
    assert f"a network {larger:.0f} times larger" in " ".join(SEGMENTATION.split())
    measured = training["metrics"].values()
    reported = {score.metric: score.value for score in zoo.get_spec("unet_small").reported}
    rows = [
        ["pixel error", *(f"{1 - split['pixel_accuracy']:.4f}" for split in measured)],
        ["adapted Rand error", *(f"{split['adapted_rand_error']:.4f}" for split in measured)],
    ]
    rows[0].append(f"{1 - reported['pixel_accuracy']:.4f}")
    rows[1].append(f"{reported['adapted_rand_error']:.4f}")
    found = json.loads((ROOT / "benchmarks/results/scenes.json").read_text(encoding="utf-8"))["iou"]
    assert found["U-Net"]["mean"] - found["by pixel"]["mean"] > 0.15, "only context tells the classes apart"
    order = ("mean", "buildings", "roads", "trees", "water")
    rows += [[title, *(f"{ious[name]:.3f}" for name in order)] for title, ious in found.items()]
    lines = [line for line in written.strip().splitlines() if line[:2] != "|-" and line]
    headers = ["| `unet_small.isbi` | validation | test | paper |", f"| IoU on test scenes | {' | '.join(order)} |"]
    tables = [f"| {' | '.join(row)} |" for row in rows]
    assert lines == [headers[0], *tables[:2], headers[1], *tables[2:]], "\n".join([*headers, *tables])


def test_a_network_for_photographs():
    """The line for which README has no folder: a network of that size is built."""
    name, shape = re.search(r"zoo fine-tune (\w+)\S* --data FOLDER --input-shape ([\d,]+)", README).groups()
    shape = tuple(map(int, shape.split(",")))
    assert zoo.create_model(name, input_shape=shape, classes=3).input_shape == (None, *shape)
    assert f"{HELD_OUT:.0%}".replace("%", " %") + " each are held out" in README


def test_published_index_is_that_of_the_manifests(tmp_path):
    """Exports of a user's own in the checkout are not published."""
    committed = (ROOT / "saved_models" / index.INDEX).read_text()
    for name, entry in json.loads(committed)["models"].items():
        for tag in entry["tags"]:
            shutil.copytree(ROOT / "saved_models" / f"{name}.{tag}", tmp_path / f"{name}.{tag}")
    index.write_index(tmp_path)
    assert (tmp_path / index.INDEX).read_text() == committed


def test_scores_of_the_eight_models_are_those_of_the_manifests():
    """`zoo report --write README.md` writes them."""
    _, begin, rest = README.partition(report.SHORT_BEGIN)
    assert begin
    assert rest.partition(report.SHORT_END)[0].strip() == report.short_table(ROOT / "saved_models")
