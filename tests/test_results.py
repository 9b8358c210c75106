"""The table of results: what stands in it is what the manifests say, for the folder beside the file it is put into."""

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
from zoo import artifacts, results, testing

PAGE = f"# Title\n\nbefore\n{results.BEGIN}\nold\n{results.END}\nafter\n"


@pytest.fixture(scope="module")
def made(making):
    """A folder `saved_models`: runs with figures set by hand, on data called mnist, and one on other data."""
    with making as folder:
        run = zoo.train("mlp_784_30_10", testing.example_data("classification"), out="run", epochs=1)

        def with_figures(seed, validation, test, name="mnist"):
            record = json.loads(json.dumps(run.record))
            record["data"] = {"name": name, "fingerprint": "0", "examples": {"test": 10_000}}
            record["metrics"] = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
            record["history"][0]["val_accuracy"] = validation
            return dataclasses.replace(run, record={**record, "seed": seed})

        figures = [(0, 0.95, 0.94), (1, 0.97, 0.96), (2, 0.96, 0.95)]
        zoo.export([with_figures(*row) for row in figures], "saved_models/mlp_784_30_10.mnist_three")
        zoo.export(with_figures(0, 0.91, 0.9), "saved_models/mlp_784_30_10.mnist_one", storage="float16")
        zoo.export(with_figures(0, 0.91, 0.9, "mine"), "saved_models/mlp_784_30_10.mine")
    return types.SimpleNamespace(folder=folder, saved=folder / "saved_models")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No weights but those of the test: neither the checkout's nor the cache's."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(artifacts, "package_folder", lambda: tmp_path / "package")


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
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and f.name != Path(artifacts.MANIFEST).name)


def test_columns_of_the_table(copied, unproven, command):
    code, out, err = command("results")
    assert code == 0, err
    table = lines_of(out.rstrip())
    assert table["mlp_784_30_10.mnist_three"] == {
        "model": "`mlp_784_30_10`",
        "year": "2015",
        "parameters": "23,860",
        "figure": "accuracy, mnist",
        "source says": "0.9542",
        "weights": "`mlp_784_30_10.mnist_three`",
        "validation": "0.9700",
        "test": "0.9600",  # of the run that is best on validation
        "all runs": "0.9500 ± 0.0100 (3)",
        "size": f"{sizes(copied / 'saved_models/mlp_784_30_10.mnist_three') / 1e6:.1f} MB",
        "latency": "",
    }
    assert table["mlp_784_30_10.mnist_one"]["all runs"] == "0.9000 ± 0.0030 (1)"  # binomial, of 10,000
    mine = table["mlp_784_30_10.mine"]
    assert (mine["figure"], mine["source says"]) == ("accuracy, mine", "")  # no source reports on these data
    spec, classes = zoo.get_spec("mlp_784_10"), tuple("0123456789")
    zoo.export(zoo.create_model("mlp_784_10"), "saved_models/mlp_784_10.bare", spec=spec, classes=classes)
    bare = lines_of(results.table())["mlp_784_10.bare"]  # measured on nothing
    assert (bare["figure"], bare["test"], bare["all runs"]) == ("", "", "")
    assert "mlp_784_30_10" not in table
    for name in zoo.list_models():
        if name != "mlp_784_30_10":
            assert (table[name]["weights"], table[name]["test"], table[name]["all runs"]) == ("", "", "")
    figure = zoo.get_spec("lenet5").published[0].value
    assert table["lenet5"]["source says"] == f"{figure:.4f}"
    assert table["lstm_char"]["source says"] == ""


def test_no_tensorflow_for_the_table(made):
    code = "import sys; from zoo import results; results.table(); sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=made.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_write(copied, monkeypatch, command):
    """From another place, at which other weights lie: those beside the page count, and are proven."""
    seen = []

    def proof(paths):
        seen[:] = paths
        return [{"milliseconds": 1.25 + number} for number, _ in enumerate(seen)]

    monkeypatch.setattr(artifacts, "prove_served", proof)
    Path("elsewhere").mkdir()
    shutil.copytree("saved_models/mlp_784_30_10.mnist_one", "elsewhere/saved_models/mlp_784_30_10.mnist_more")
    artifacts.write_index(Path("elsewhere/saved_models"))
    monkeypatch.chdir("elsewhere")
    code, _, err = command("results --write ../README.md")
    assert code == 0, err
    monkeypatch.chdir("..")

    names = ["mlp_784_30_10.mine", "mlp_784_30_10.mnist_one", "mlp_784_30_10.mnist_three"]
    assert [path.parent.name for path in seen] == names
    text = Path("README.md").read_text()
    before, after = PAGE.split("old\n")
    assert text.startswith(before)
    assert text.endswith(after)
    written = text.removeprefix(before).removesuffix(after).rstrip()
    assert written == results.table() == results.table(Path("saved_models"))
    table = lines_of(written)
    assert set(table) & {"mlp_784_30_10.mnist_more", *names} == set(names)
    assert [table[name]["latency"] for name in names] == ["1.2 ms", "2.2 ms", "3.2 ms"]

    with Path("saved_models", results.CSV).open(newline="") as file:
        reader = csv.DictReader(file)
        _, one, three = list(reader)
    assert tuple(reader.fieldnames) == results.COLUMNS
    assert three == {
        "name": "mlp_784_30_10", "tag": "mnist_three", "dataset": "mnist", "metric": "accuracy",
        "parameters": "23860", "year": "2015", "published": "0.9542", "validation": "0.97", "test": "0.96",
        "runs": "0.94 0.96 0.95", "mean": "0.95", "deviation": three["deviation"],
        "bytes": str(sizes(copied / "saved_models/mlp_784_30_10.mnist_three")), "milliseconds": "3.25",
    }  # fmt: skip
    assert float(three["deviation"]) == pytest.approx(0.01)
    assert (one["tag"], one["runs"], one["mean"], one["milliseconds"]) == ("mnist_one", "0.9", "0.9", "2.25")
    assert float(one["deviation"]) == pytest.approx(0.003)
    assert int(one["bytes"]) < int(three["bytes"])  # float16

    results.write(Path("README.md"))  # again, the same page
    assert Path("README.md").read_text() == text


def test_write_proves_the_weights(copied):
    """By the real proof: the time of one example is measured, and changed weights stop it."""
    shutil.rmtree("saved_models/mlp_784_30_10.mnist_three")
    shutil.rmtree("saved_models/mlp_784_30_10.mine")
    artifacts.write_index(Path("saved_models"))
    results.write(Path("README.md"))
    (milliseconds,) = results.latencies().values()
    assert 0 < milliseconds < 1000
    text, sheet = Path("README.md").read_text(), Path("saved_models", results.CSV).read_text()
    (data,) = Path("saved_models/mlp_784_30_10.mnist_one/1/variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(zoo.ZooError, match="is damaged"):
        results.write(Path("README.md"))
    assert (Path("README.md").read_text(), Path("saved_models", results.CSV).read_text()) == (text, sheet)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (None, "cannot read page.md: No such file or directory"),
        ("no marks", "page.md has no lines <!-- results --> and"),
        (results.BEGIN, "page.md has no lines"),
        (f"{results.END} {results.BEGIN}", "page.md has no lines"),
        (PAGE, "no published.json in saved_models"),  # a page without weights beside it
    ],
)
def test_pages_that_cannot_be_written(page, message, command):
    if page is not None:
        Path("page.md").write_text(page)
    code, _, err = command("results --write page.md")
    assert code == 2
    (told,) = err.splitlines()
    assert told.startswith(f"error: {message}")
    assert page is None or Path("page.md").read_text() == page
