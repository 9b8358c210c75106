"""The table of results: it contains what the manifests record, for the weights beside the file that it is put into."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import zoo
from zoo import report, testing
from zoo.artifacts import index, verification
from zoo.artifacts.manifest import MANIFEST

PAGE = f"# Title\n\nbefore\n{report.BEGIN}\nold\n{report.END}\nafter\n"


@pytest.fixture(scope="module")
def made(making):
    """A folder `saved_models`: runs with scores set by hand, on data called mnist, and one on other data."""
    with making as folder:
        run = zoo.train("mlp_784_30_10", testing.example_data("classification"), out="run", epochs=1)

        def with_scores(seed, validation, test, name="mnist"):
            record = json.loads(json.dumps(run.record))
            record["data"] = {"name": name, "fingerprint": "0", "examples": {"test": 10_000}}
            record["metrics"] = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
            record["history"][0]["val_accuracy"] = validation
            return dataclasses.replace(run, record={**record, "seed": seed})

        scores = [(0, 0.95, 0.94), (1, 0.97, 0.96), (2, 0.96, 0.95)]
        zoo.export([with_scores(*row) for row in scores], "saved_models/mlp_784_30_10.mnist_three")
        zoo.export(with_scores(0, 0.91, 0.9), "saved_models/mlp_784_30_10.mnist_one", storage="float16")
        zoo.export(with_scores(0, 0.91, 0.9, "mine"), "saved_models/mlp_784_30_10.mine")
    return types.SimpleNamespace(folder=folder, saved=folder / "saved_models")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No weights but those of the test: neither the checkout's nor the cache's."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "package_folder", lambda: tmp_path / "package")


@pytest.fixture
def copied(made, tmp_path):
    """The folder, in the working directory, beside a page."""
    shutil.copytree(made.saved, "saved_models")
    Path("README.md").write_text(PAGE)
    return tmp_path


def lines_of(table):
    """By weights, or the model's name without any, the cells of each line."""
    header, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert set("".join(rule)) == {"-"}
    assert all(len(row) == len(header) for row in [rule, *rows])
    return {(row[5] or row[0]).strip("`"): dict(zip(header, row, strict=True)) for row in rows}


def sizes(path):
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and f.name != Path(MANIFEST).name)


def test_columns_of_the_table(copied, unverified, command):
    code, out, err = command("report")
    assert code == 0, err
    table = lines_of(out.rstrip())
    assert table["mlp_784_30_10.mnist_three"] == {
        "model": "`mlp_784_30_10`",
        "year": "2015",
        "parameters": "23,860",
        "metric, data": "accuracy, mnist",
        "reported": "0.9542",
        "weights": "`mlp_784_30_10.mnist_three`",
        "validation": "0.9700",
        "test": "0.9600",  # of the run that is best on validation
        "all runs": "0.9500 ± 0.0100 (3)",
        "size": f"{sizes(copied / 'saved_models/mlp_784_30_10.mnist_three') / 1e6:.1f} MB",
        "latency": "",
    }
    assert table["mlp_784_30_10.mnist_one"]["all runs"] == "0.9000 ± 0.0030 (1)"  # binomial, of 10,000
    mine = table["mlp_784_30_10.mine"]
    assert (mine["metric, data"], mine["reported"]) == ("accuracy, mine", "")  # no paper reports on these data
    spec, classes = zoo.get_spec("mlp_784_10"), tuple("0123456789")
    zoo.export(zoo.create_model("mlp_784_10"), "saved_models/mlp_784_10.bare", spec=spec, classes=classes)
    bare = lines_of(report.table())["mlp_784_10.bare"]  # measured on nothing
    assert (bare["metric, data"], bare["test"], bare["all runs"]) == ("", "", "")
    assert "mlp_784_30_10" not in table
    for name in zoo.list_models():
        if name != "mlp_784_30_10":
            assert (table[name]["weights"], table[name]["test"], table[name]["all runs"]) == ("", "", "")
    assert table["lenet5"]["reported"] == f"{zoo.get_spec('lenet5').reported[0].value:.4f}"
    assert table["lstm_char"]["reported"] == ""


def test_no_tensorflow_for_the_table(made):
    code = "import sys; from zoo import report; report.table(); sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=made.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_write(page, copied, monkeypatch, command):
    """From a folder with other weights: those beside the page count, and are verified."""
    seen = []

    def verified(paths):
        seen[:] = paths
        return [{"milliseconds": 1.25 + number} for number, _ in enumerate(seen)]

    monkeypatch.setattr(verification, "serve_golden_examples", verified)
    Path(page).parent.mkdir(exist_ok=True)
    Path(page).write_text(PAGE)
    Path("elsewhere").mkdir()
    shutil.copytree("saved_models/mlp_784_30_10.mnist_one", "elsewhere/saved_models/mlp_784_30_10.mnist_more")
    index.write_index(Path("elsewhere/saved_models"))
    monkeypatch.chdir("elsewhere")
    code, _, err = command(f"report --write ../{page}")
    assert code == 0, err
    monkeypatch.chdir("..")

    names = ["mlp_784_30_10.mine", "mlp_784_30_10.mnist_one", "mlp_784_30_10.mnist_three"]
    assert [path.parent.name for path in seen] == names
    text = Path(page).read_text()
    before, after = PAGE.split("old\n")
    assert text.startswith(before)
    assert text.endswith(after)
    written = text.removeprefix(before).removesuffix(after).rstrip()
    assert written == report.table() == report.table(Path("saved_models"))
    table = lines_of(written)
    assert set(table) & {"mlp_784_30_10.mnist_more", *names} == set(names)
    assert [table[name]["latency"] for name in names] == ["1.2 ms", "2.2 ms", "3.2 ms"]

    with Path("saved_models", report.CSV).open(newline="") as file:
        reader = csv.DictReader(file)
        _, one, three = list(reader)
    assert tuple(reader.fieldnames) == report.COLUMNS
    assert three == {
        "name": "mlp_784_30_10", "tag": "mnist_three", "dataset": "mnist", "metric": "accuracy",
        "parameters": "23860", "year": "2015", "reported": "0.9542", "validation": "0.97", "test": "0.96",
        "runs": "0.94 0.96 0.95", "mean": "0.95", "standard_deviation": three["standard_deviation"],
        "bytes": str(sizes(copied / "saved_models/mlp_784_30_10.mnist_three")), "milliseconds": "3.25",
    }  # fmt: skip
    assert float(three["standard_deviation"]) == pytest.approx(0.01)
    assert (one["tag"], one["runs"], one["mean"], one["milliseconds"]) == ("mnist_one", "0.9", "0.9", "2.25")
    assert float(one["standard_deviation"]) == pytest.approx(0.003)
    assert int(one["bytes"]) < int(three["bytes"])  # float16

    report.write(Path(page))  # again, the same page
    assert Path(page).read_text() == text


@pytest.mark.slow
def test_write_verifies_the_weights(copied):
    """The latency of one example is measured, and changed weights are an error that leaves both files as they were."""
    shutil.rmtree("saved_models/mlp_784_30_10.mnist_three")
    shutil.rmtree("saved_models/mlp_784_30_10.mine")
    index.write_index(Path("saved_models"))
    report.write(Path("README.md"))
    (milliseconds,) = report.latencies().values()
    assert 0 < milliseconds < 1000
    text, sheet = Path("README.md").read_text(), Path("saved_models", report.CSV).read_text()
    (data,) = Path("saved_models/mlp_784_30_10.mnist_one/1/variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(zoo.ZooError, match="is damaged"):
        report.write(Path("README.md"))
    assert (Path("README.md").read_text(), Path("saved_models", report.CSV).read_text()) == (text, sheet)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (None, "cannot read page.md: No such file or directory"),
        ("no marks", "page.md has no lines <!-- results --> and"),
        (report.BEGIN, "page.md has no lines"),
        (f"{report.END} {report.BEGIN}", "page.md has no lines"),
        (PAGE, "no saved_models/published.json beside page.md or beside its folder"),
    ],
)
def test_pages_that_cannot_be_written(page, message, command):
    if page is not None:
        Path("page.md").write_text(page)
    code, _, err = command("report --write page.md")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {message}")
    assert page is None or Path("page.md").read_text() == page
