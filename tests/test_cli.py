"""The command line: lists, model cards, flags and recipes, and the way from training to serving."""

import base64
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import typer

import zoo
from zoo import artifacts, cli, progress, tasks
from zoo.artifacts import verification
from zoo.artifacts.manifest import GOLDEN

ARGUMENTS = {
    "list": "pattern task dataset pretrained max-params min-metric sort origin json",
    "info": "name recipe json",
    "train": "name data text-column label-column recipe config epochs lr batch-size optimizer loss set arg devices "
    "workers worker readers seed deterministic input-shape out export folds strict",
    "read": "address",
    "fine-tune": "source data text-column label-column only-class epochs lr batch-size optimizer loss set devices "
    "seed deterministic input-shape stages freeze out export folds strict",
    "tune": "name data text-column label-column trials strategy set-range max-parameters folds recipe epochs set "
    "devices seed input-shape out export",
    "evaluate": "source data text-column label-column split tta errors json csv strict",
    "predict": "source inputs tta top json csv strict",
    "embed": "source inputs output layer strict",
    "attack": "source data epsilon steps split count picture json",
    "segment": "image output model tile overlap tta overlay",
    "sample": "source output count seed labels interpolate nearest",
    "generate": "source prompt length temperature top-k top-p seed",
    "score": "source texts picture json",
    "export": "sources path format storage tta features",
    "ensemble": "members data method name storage export",
    "reproduce": "source data smoke seed devices out",
    "verify": "sources",
    "serve": "sources host port cors allowed-host poll access-log max-body max-pixels max-batch max-count max-length "
    "max-queue max-connections timeout header-timeout shutdown-timeout",
    "report": "write",
}


@pytest.fixture
def run_line(command):
    """Runs a command line in this process; returns what it printed."""

    def run(line):
        code, out, err = command(line)
        assert not code, f"zoo {line}: {err}"
        return out

    return run


def words_of(text):
    """The words of a page on one line, without colors and frames."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╰╮╯─]", " ", text).split())


def zoo_process(*words, without="", **environment):
    """A finished process of the command, in which some modules cannot be imported."""
    code = f"import sys; sys.modules.update(dict.fromkeys({without.split()})); from zoo import __main__"
    command = [sys.executable, "-c", code, *words] if without else [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


# --- help and version -------------------------------------------------------------------------------------------


def test_every_command_is_in_the_help(run_line):
    assert set(ARGUMENTS) == set(typer.main.get_command(cli.app).commands)
    text = run_line("--help")
    for name in ARGUMENTS:
        assert re.search(rf"\b{name}\b", text)
    assert "--debug" in words_of(text)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_help_of_each_command_names_its_arguments(name, run_line):
    text = words_of(run_line(f"{name} --help"))
    parameters = [one for one in typer.main.get_command(cli.app).commands[name].params if one.name != "help"]
    assert [parameter.opts[0].lstrip("-") for parameter in parameters] == ARGUMENTS[name].split()
    for parameter in parameters:
        shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name
        assert shown.lower() in text.lower(), f"{name} --help does not name {shown}"
        assert parameter.help, f"{name} does not describe {shown}"
        assert parameter.help.split()[0].strip("`.,") in text


def test_version(run_line):
    assert run_line("--version") == f"zoo {zoo.__version__}\n"
    assert zoo_process("--version").stdout == f"zoo {zoo.__version__}\n"  # python -m zoo


def complete(*words):
    """What the shell suggests for the last of the words."""
    variables = {"_ZOO_COMPLETE": "complete_bash", "COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - 1)}
    done = zoo_process(without="tensorflow keras numpy", **variables)
    assert not done.stderr
    return done.stdout.split()


def test_shell_completion():
    script = zoo_process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    assert "_ZOO_COMPLETE=complete_bash" in script
    assert complete("zoo", "fine") == ["fine-tune"]
    assert complete("zoo", "train", "network3_c") == ["network3_conv", "network3_conv_only"]
    assert complete("zoo", "predict", "network3_c") == [
        "network3_conv.mnist_modern", "network3_conv.mnist_paper",
    ]  # fmt: skip


# --- lists ------------------------------------------------------------------------------------------------------


def test_list(run_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert json.loads(run_line("list --json")) == zoo.list_models()
    assert json.loads(run_line("list 'mlp_*' --max-params 30000 --json")) == ["mlp_784_10", "mlp_784_30_10"]
    lines = run_line("list 'mlp_*'").splitlines()
    assert lines[0].split() == ["name", "task", "parameters", "data", "reported", "test", "weights"]
    assert [line.split()[0] for line in lines[1:]] == ["mlp_784_10", "mlp_784_30_10", "mlp_784_100_10"]
    row = lines[2].split()
    assert row[:5] == ["mlp_784_30_10", "classification", "23,860", "mnist", "0.9542"]
    assert "0.9389" not in run_line("list unet_small")  # the paper's pixel accuracy beside a mean IoU measured here
    measured = artifacts.published_index()["lenet5_modern"]["tags"]["mnist_modern"]["test"]
    assert f"{measured:.4f}" in run_line("list lenet5_modern").splitlines()[1]  # although no paper reports a score


def test_list_by_reference(run_line):
    found = json.loads(run_line("list '*nielsen*' --json"))
    assert {"mlp_784_10", "network3_relu"} <= set(found)
    assert not {"lenet5", "unet", "simard_conv"} & set(found)


def test_list_sorted(run_line, refused):
    def listed(order):
        return json.loads(run_line(f"list 'mlp_*' --pretrained --sort {order} --json"))

    scores = {name: artifacts.read_manifest(artifacts.find(name))["scores"]["test"] for name in listed("name")}
    assert listed("score") == sorted(scores, key=scores.get, reverse=True)
    assert listed("params")[0] == "mlp_784_10.mnist_paper"  # 7,850
    assert listed("params")[-1].startswith("mlp_784_100_10.")  # 79,510
    refused("list --sort scor", "unknown order 'scor': did you mean score")


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("width", [40, 80])
def test_list_fits_the_terminal(width, pretrained, run_line, monkeypatch):
    """No line is longer, no name is cut or wrapped, and the score is there where the longest name leaves room."""
    if width == 80:  # also where nothing says how wide the terminal is
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    header, *lines = run_line(f"list{' --pretrained' if pretrained else ''}").splitlines()
    names = zoo.list_models(pretrained=pretrained)
    assert [line.split()[0] for line in lines] == names
    assert max(map(len, [header, *lines])) <= width
    columns = header.split()
    if max(map(len, names)) + len("  0.9999") <= width:
        assert "test" in columns
    if width == 80:
        assert "parameters" in columns
    elif not pretrained:
        assert columns == ["name", "test"]
        (row,) = [line for line in lines if line.startswith("network3_dropout_ensemble")]
        assert re.fullmatch(r"network3_dropout_ensemble  0\.99\d\d *", row)


def test_a_name_longer_than_the_terminal_is_whole(run_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    names = [line.strip() for line in run_line("list 'network3_dropout*'").splitlines()[1:]]
    assert names == ["network3_dropout", "network3_dropout_ensemble"]


# --- models and model cards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.list_models())
def test_info_of_every_model(name, run_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # a line has room for the longest address
    spec, text = zoo.get_spec(name), words_of(run_line(f"info {name}"))
    assert text.startswith(f"{name} {' '.join(spec.summary.split())} ({spec.year})")
    assert f"{spec.params:,}" in text
    for score in spec.reported:
        assert f"{score.metric} {score.value:.4f} on {score.dataset}" in text
    for weights in zoo.list_models(f"{name}.*", pretrained=True):
        manifest = artifacts.open_artifact(weights).manifest
        metric, test, dataset = (manifest["scores"][key] for key in ("metric", "test", "dataset"))
        runs = " ".join(f"{run['metrics']['test'][metric]:.4f}" for run in manifest["runs"])
        assert not runs or f"{metric} {test:.4f} on {dataset} ({weights}; all runs: {runs})" in text
    for words in (*spec.recipes, *(stage.name for stage in spec.stages)):
        assert words in text
    wanted = [*spec.references, *spec.notes, *(d for recipe in spec.recipes.values() for d in recipe.deviations)]
    for sentence in wanted:
        assert words_of(sentence) in text


def test_info_as_json(run_line):
    found = json.loads(run_line("info mlp_784_30_10 --json"))
    assert (found["name"], found["params"], found["year"]) == ("mlp_784_30_10", 23_860, 2015)
    assert found["reported"][0]["value"] == 0.9542
    assert found["recipes"]["paper"]["batch_size"] == 10
    assert found["weights"]["mnist_paper"]["test"] == pytest.approx(0.9525, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in zoo.list_models() if not zoo.get_spec(name).ensemble])
def test_info_prints_recipes_that_can_be_read_again(name, run_line):
    spec = zoo.get_spec(name)
    for key, recipe in spec.recipes.items():
        printed = json.loads(run_line(f"info {name} --recipe {key} --json"))
        kind = tasks.get_task(spec.task)
        assert tasks.read_recipe(printed, spec.task) == tasks.with_options(recipe, kind, spec.task)
    assert f"batch_size {recipe.batch_size}" in words_of(run_line(f"info {name} --recipe {key}"))


@pytest.mark.parametrize("name", zoo.list_models(pretrained=True))
def test_card_of_all_published_weights(name, run_line):
    """The card, as text and as JSON, has what the manifest records."""
    spec, artifact = zoo.get_spec(name), artifacts.open_artifact(name)
    manifest = artifact.manifest
    training, scores = manifest["training"], manifest["scores"]
    text, card = words_of(run_line(f"info {name}")), json.loads(run_line(f"info {name} --json"))
    assert (card["name"], card["model"]) == (name, spec.name)
    assert card["parameters"] == manifest["weights"]["parameters"]
    files = [file for file in artifact.path.rglob("*") if file.is_file() and file.name != "manifest.json"]
    assert card["bytes"] == sum(file.stat().st_size for file in files)
    assert f"{card['bytes']:,} bytes, {card['parameters']:,} parameters" in text
    assert card["data"]["fingerprint"] == training["data"]["fingerprint"]
    assert card["data"]["fingerprint"] in text.replace(" ", "")
    assert f"{training['data']['examples']['test']:,} test" in text
    metric = scores["metric"]
    assert f"{metric}: test {scores['test']:.4f}, validation {scores['validation']:.4f}" in text
    runs = [run["metrics"]["test"][metric] for run in manifest["runs"]]
    assert card["score"]["test_of_all_runs"] == runs
    spread = f" ± {np.std(runs, ddof=1):.4f}" if len(runs) > 1 else ""
    assert f"test {' '.join(f'{run:.4f}' for run in runs)}; mean {np.mean(runs):.4f}{spread} ({len(runs)})" in text
    if scores["reported"]:
        assert words_of(f"{metric} {scores['reported']:.4f} ({scores['reference']})") in text
    if spec.ensemble:
        for member in training["members"]:
            assert member["name"] in text
        assert not card["training"]["recipe"]
        assert "fine-tuning" not in text
    else:
        recipe = training["recipe"]
        assert card["training"]["recipe"] == recipe
        assert f"batch {recipe['batch_size']}, {recipe['epochs']} epochs, {recipe['loss']}, " in text
        assert f"seed {training['seed']}" in text
        assert all(key in text for key in recipe["optimizer_arguments"])
        for deviation in recipe["deviations"]:
            assert words_of(deviation) in text
    assert "weights: Apache-2.0" in text
    license = {
        "mnist": "CC BY-SA 3.0",
        "isbi_membrane": "non-commercial",
        "scenes": "Apache-2.0",
        "tinyshakespeare": "public domain",
        "cifar10": "Krizhevsky 2009",
        "cats_dogs": "Sachan 2017",
        "rt_polarity": "Pang and Lee 2005",
    }
    assert license[training["data"]["name"]] in card["data"]["license"]
    with np.load(artifact.path / GOLDEN) as golden:
        signatures = {key.split("/")[0] for key in golden.files}
    assert set(card["signatures"]) == signatures
    for line in (f"zoo.create_model('{name}')", f"zoo.load('{name}')", f"zoo serve {name}"):
        assert line in text


def test_card_of_lenet5(run_line):
    text = words_of(run_line("info lenet5.mnist_paper"))
    for words in (
        "data mnist (50,000 train, 10,000 validation, 10,000 test)",
        "reported accuracy 0.9905 (LeCun et al. 1998",
        "recipe paper adam 0.001, batch 16, 20 epochs, rbf_map, schedule (kind table, table [[0, 1.0],",
        "takes gray images, resized to 28 x 28 pixels",
        "knows 10 classes and has no output for an input that belongs to none of them",
        "signature serving_default images (uint8, 4 axes) -> ",
        "class_ids (int64, 1 axis)",
        "signature encoded_images encoded (string, 1 axis) -> ",
    ):
        assert words in text
    assert "measured in one run" not in text  # of three
    card = json.loads(run_line("info unet_satellite.scenes --json"))
    assert card["limits"][0] == "takes 20-band images of any size"
    assert any("measured in one run" in limit for limit in card["limits"])
    limits = json.loads(run_line("info dcgan_conditional.mnist --json"))["limits"]
    assert limits[:2] == [
        "makes gray images of 28 x 28 pixels",
        "trained on mnist alone: it makes images of no other kind",
    ]
    assert not any("has no output for an input" in limit for limit in limits)


def test_cards_say_where_weights_were_trained_and_what_they_come_from(run_line):
    card = json.loads(run_line("info airbench94.cats_dogs --json"))
    assert any("trained on cifar10: airplane, automobile, bird, cat, deer, dog" in limit for limit in card["limits"])
    assert "trained by Keras' JAX backend on NVIDIA H100" in words_of(run_line("info airbench94.cifar10"))


def test_card_of_a_character_model_shows_the_characters_that_cannot_be_seen(run_line):
    assert r"classes '\n', ' ', !, $, &" in words_of(run_line("info lstm_char.shakespeare"))


def test_card_by_alias_and_by_path(run_line):
    best = json.loads(run_line("info lenet5.mnist --json"))["name"]
    assert best == artifacts.find("lenet5.mnist").parent.name
    path = artifacts.find("lenet5.mnist_paper").parent
    card = json.loads(run_line(f"info {path} --json"))
    assert card["name"] == "lenet5.mnist_paper"
    assert card["usage"][0] == f"zoo.create_model('lenet5', weights='{path}')"


def test_card_of_weights_without_a_training(run_line, unverified):
    spec = zoo.get_spec("mlp_784_10")
    zoo.export(zoo.create_model("mlp_784_10"), "mlp_784_10.bare", spec=spec, classes=tuple("0123456789"))
    text = words_of(run_line("info ./mlp_784_10.bare"))
    assert "data not recorded" in text
    assert "its quality was not measured" in text
    assert "recipe" not in text


def test_unknown_tags_are_errors(refused):
    refused("info lenet5.mnist_papr", "unknown artifact 'lenet5.mnist_papr': did you mean lenet5.mnist_paper")
    refused("info lenet5.mnist --recipe paper", "--recipe shows a recipe of a model: give its name without a tag")
    refused("info lenet5 --recipe papr", "unknown recipe of lenet5 'papr': did you mean paper")


@pytest.mark.parametrize(
    ("line", "without"),
    [
        ("list", "tensorflow keras numpy"),
        ("info lenet5", "tensorflow keras numpy"),
        ("info lenet5 --recipe paper --json", "tensorflow keras numpy"),
        ("info lenet5.mnist_paper", "tensorflow keras"),
        ("report", "tensorflow keras"),
    ],
)
def test_what_listing_does_not_import(line, without):
    done = zoo_process(*line.split(), without=without)
    assert done.returncode == 0, done.stderr
    assert done.stdout


# --- flags and recipes ------------------------------------------------------------------------------------------


@pytest.fixture
def unexported(monkeypatch):
    """Trainings whose result is not exported, where something else is tested."""
    monkeypatch.setattr(zoo, "export", lambda run, path: Path(path, "1"))


TRAIN = "train mlp_784_30_10 --data digits --epochs 1 --out run"


def record_of(directory="run"):
    return json.loads(Path(directory, "run.json").read_text())


def test_short_flags_are_recipe_keys(run_line, unexported):
    run_line(f"{TRAIN} --lr 0.002 --batch-size 64 --optimizer adam --loss cross_entropy --set label_smoothing=0.1")
    recipe = record_of()["recipe"]
    keys = ("learning_rate", "batch_size", "optimizer", "loss", "options")
    assert [recipe[key] for key in keys[:4]] == [0.002, 64, "adam", "cross_entropy"]
    assert recipe["options"] == {
        "label_smoothing": 0.1,
        "loss_weights": [1.0],
        "class_weight": None,
        "perturbation": 0.0,
        "labels_per_class": None,
        "labels_seed": 0,
    }
    assert "given_in_python" not in record_of(), "names are a part of the recipe, which reproduce repeats"
    # the same by --set: the same run, which is finished
    run_line(
        f"{TRAIN} --set learning_rate=0.002 --set batch_size=64 --set optimizer=adam --set loss=cross_entropy "
        "--set label_smoothing=0.1 --batch-size 64"
    )
    assert record_of()["recipe"] == recipe


@pytest.mark.slow
def test_short_flags_of_fine_tune(run_line, unverified):
    run_line(f"{TRAIN} --export mlp_784_30_10.first")
    run_line(
        "fine-tune ./mlp_784_30_10.first --data digits --epochs 1 --lr 0.5 --batch-size 100 --optimizer adam "
        "--loss quadratic --out tuned --export mlp_784_30_10.second"
    )
    recipe = record_of("tuned")["recipe"]
    keys = ("learning_rate", "batch_size", "optimizer", "loss")
    assert [recipe[key] for key in keys] == [0.5, 100, "adam", "quadratic"]
    assert {row["learning_rate"] for row in record_of("tuned")["history"]} == {0.5}


@pytest.mark.slow
def test_builder_arguments(run_line, unverified):
    run_line(f"{TRAIN} --arg hidden=[7] --arg initialization=glorot")
    assert record_of()["model"]["arguments"] == {"hidden": [7], "initialization": "glorot"}
    assert zoo.load_run("run").model.get_layer("hidden1").units == 7
    exported = "saved_models/mlp_784_30_10.digits-hidden7-initializationglorot"  # its name tells it from the spec
    assert zoo.create_model("mlp_784_30_10", weights=Path(exported)).layers[2].units == 7


@pytest.mark.slow
def test_config_is_a_recipe_that_info_printed(run_line, unexported):
    recipe = json.loads(run_line("info mlp_784_100_10 --recipe modern --json"))
    Path("mine.json").write_text(json.dumps({**recipe, "epochs": 7, "batch_size": 90, "learning_rate": 0.01}))
    run_line("train mlp_784_100_10 --data digits --config mine.json --epochs 1 --set batch_size=80 --lr 0.02 --out run")
    record = record_of()
    # the file, then --set, then the flags; what none of them changes is the recipe's
    assert [record["recipe"][key] for key in ("epochs", "batch_size", "learning_rate")] == [1, 80, 0.02]
    assert record["recipe"]["optimizer"] == recipe["optimizer"] == "adamw"
    assert record["recipe"]["augmentation"] == recipe["augmentation"]
    assert record["recipe_name"] == "own"


@pytest.mark.slow
def test_config_is_a_run(run_line, unexported):
    run_line(f"{TRAIN} --batch-size 77 --arg hidden=[7] --arg initialization=glorot")
    run_line("train mlp_784_30_10 --data digits --config run/run.json --arg hidden=[8] --out again")
    assert record_of("again")["recipe"] == record_of("run")["recipe"]
    assert record_of("again")["model"]["arguments"] == {"hidden": [8], "initialization": "glorot"}
    # for another model the recipe alone
    run_line("train mlp_784_100_10 --data digits --config run/run.json --out other")
    assert record_of("other")["recipe"]["batch_size"] == 77
    assert record_of("other")["model"]["arguments"] == {}


@pytest.mark.slow
def test_more_epochs_extend_a_run(run_line, unexported):
    line = "train mlp_784_30_10 --data digits --out run --epochs"
    run_line(f"{line} 2")
    before = record_of()["history"]
    text = run_line(f"{line} 3")
    after = record_of()
    assert after["history"][:2] == before, "the first two epochs are not trained again"
    assert [row["epoch"] for row in after["history"]] == [1, 2, 3]
    assert after["recipe"]["epochs"] == 3
    assert after["history"][2]["val_accuracy"] > before[1]["val_accuracy"]  # of 10 classes, after 250 steps
    assert f"test at epoch 3: accuracy {after['metrics']['test']['accuracy']:.4f}" in text
    run_line("train mlp_784_30_10 --data digits --out whole --epochs 3")
    losses = [[row["loss"] for row in record_of(name)["history"]] for name in ("run", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3), "as if it had been three from the beginning"


# --- one story --------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(server, url, body=None):
    """The server's answer, once it listens."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, None if body is None else json.dumps(body).encode()) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert server.poll() is None, server.stdout.read()
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


def write_images(folder):
    """Two classes of images: dark ones and light ones."""
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 180)):
        Path(folder, name).mkdir(parents=True)
        for number in range(12):
            image = random.integers(low, low + 60, (20, 24, 1), dtype=np.uint8)
            Path(folder, name, f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())


def test_from_training_to_serving(run_line, monkeypatch):
    first = "train mlp_784_30_10 --data digits --epochs 1 --set batch_size=50 --export made/mlp_784_30_10.first"
    text = run_line(first)
    assert "exported to made/mlp_784_30_10.first/1" in text
    assert re.search(r"validation at epoch 1: .*accuracy \d\.\d{4}", text)
    run = Path("runs/mlp_784_30_10.digits.paper-0")
    example = run / "example.png"
    assert f"predict: zoo predict made/mlp_784_30_10.first {example}" in text
    record = json.loads((run / "run.json").read_text())
    assert (record["recipe"]["batch_size"], record["recipe"]["epochs"]) == (50, 1)
    assert {"curves.png", "history.csv", "weights.npz"} <= {file.name for file in run.iterdir()}

    # what it printed is what evaluate measures again
    scores = json.loads(run_line("evaluate made/mlp_784_30_10.first --data digits --json"))
    assert scores["accuracy"] == pytest.approx(record["metrics"]["test"]["accuracy"], abs=1e-6)
    table = run_line("evaluate made/mlp_784_30_10.first --data digits --split validation")
    assert f"accuracy {record['metrics']['validation']['accuracy']:.4f}" in table

    (row,) = json.loads(run_line(f"predict made/mlp_784_30_10.first {example} --json"))
    assert row["input"] == str(example)
    assert row["class"] in "0123456789"
    assert len(row["probabilities"]) == 10
    assert row["probability"] == max(row["probabilities"])
    lines = run_line(f"predict made/mlp_784_30_10.first {example} {example}").splitlines()
    assert [line.split() for line in lines] == [[str(example), row["class"], f"{row['probability']:.4f}"]] * 2

    # the same command again finds the finished run, and exports a second version
    with monkeypatch.context() as patch:
        patch.setattr(verification, "serve_golden_examples", lambda paths: [])  # which has run above
        assert "exported to made/mlp_784_30_10.first/2" in run_line(first)

    write_images("shades")
    text = run_line(
        "fine-tune made/mlp_784_30_10.first --data shades --epochs 2 --set learning_rate=2 "
        "--export made/mlp_784_30_10.shades"
    )
    assert "reinitialized: output/kernel, output/bias" in text
    assert "exported to made/mlp_784_30_10.shades/1" in text
    tuned = json.loads(Path("runs/mlp_784_30_10.shades.first-0/run.json").read_text())
    assert [row["stage"] for row in tuned["history"]] == ["head", "head", "all", "all"]
    assert {row["learning_rate"] for row in tuned["history"]} == {2.0}, "what is set holds in each stage"
    assert tuned["origin"]["name"] == "mlp_784_30_10.first"
    rows = json.loads(run_line("predict made/mlp_784_30_10.shades shades/dark/1.png shades/light/1.png --json"))
    assert [row["class"] for row in rows] == ["dark", "light"]

    line = run_line("verify made/mlp_784_30_10.shades")
    assert re.fullmatch(
        r"\S*mlp_784_30_10\.shades/1: verified, largest difference \S+; signatures: encoded_images, serving_default\n",
        line,
    )
    index = json.loads(Path("made/published.json").read_text())
    assert set(index["models"]["mlp_784_30_10"]["tags"]) == {"first", "shades"}

    port = free_port()
    server = subprocess.Popen(
        [Path(sys.executable).with_name("zoo"), "serve", "made/mlp_784_30_10.shades", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}/v1/models/mlp_784_30_10.shades"
        assert answer(server, url)["model_version_status"][0]["state"] == "AVAILABLE"
        png = base64.b64encode(Path("shades/light/1.png").read_bytes()).decode()
        body = {"signature_name": "encoded_images", "instances": [{"b64": png}]}
        (prediction,) = answer(server, f"{url}:predict", body)["predictions"]
        assert prediction["class_names"] == rows[1]["class"]
        assert prediction["probabilities"] == pytest.approx(rows[1]["probabilities"], abs=1e-5)
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_an_artifact_is_exported_in_another_format(run_line, unverified):
    spec = zoo.get_spec("mlp_784_10")
    zoo.export(zoo.create_model("mlp_784_10"), "mlp_784_10.ex", spec=spec, classes=tuple("0123456789"))
    assert run_line("export mlp_784_10.ex m.onnx --format onnx").split() == ["m.onnx"]
    assert Path("m.onnx").stat().st_size > 30_000


@pytest.mark.parametrize(("is_terminal", "fewest", "most"), [(False, 2, 10), (True, 50, 1_000)])
def test_progress_is_redrawn_in_a_terminal_and_takes_few_lines_in_a_log(is_terminal, fewest, most, capsys, monkeypatch):
    monkeypatch.setattr("tqdm.std.time", itertools.count(step=0.01).__next__)  # a clock: the loop takes a minute
    monkeypatch.setattr(progress, "is_interactive", lambda stream: is_terminal)
    for _ in progress.bar(5_000, "files", over=range(5_000), title="photos"):
        pass
    lines = capsys.readouterr().err.replace("\r", "\n").split()
    assert fewest <= lines.count("photos:") <= most
    assert "5000/5000" in lines
    for _ in progress.bar(10, "files", over=range(10), least=10):
        pass
    assert not capsys.readouterr().err
