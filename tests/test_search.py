"""Searches: what they try, choose, refuse and remember. The trainer is exchanged where only the search is looked at."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
from PIL import Image

import zoo
from zoo import metrics
from zoo.search_space import read_range
from zoo.training import search, tuner
from zoo.training.runs import directory_of

NAME = "mlp_784_30_10"
SPACE = {"hidden": zoo.Choice(((10,), (20,), (40,))), "learning_rate": zoo.LogRange(0.1, 10.0)}


@pytest.fixture
def trained(monkeypatch):
    """The values of the trainings of a search, which take no time and are the better the lower the rate and the more
    units: `trained.fails` makes one fail."""
    calls = SimpleNamespace(values=[], folders=[], fails=lambda values: None)

    def train(name, data, *, recipe, out, arguments, fold=None, **given):
        values = {"learning_rate": recipe.learning_rate, "epochs": recipe.epochs, **arguments}
        calls.values.append(values)
        folder = directory_of(out, "", fold)
        calls.folders.append(folder)
        if error := calls.fails(values):
            raise error
        score = 0.5 + (arguments or {"hidden": (30,)})["hidden"][0] / 100 - recipe.learning_rate / 100
        folder.mkdir(parents=True, exist_ok=True)
        scores = {"validation": {"accuracy": score}, "test": {"accuracy": score - 0.1 - (fold or (0,))[0] / 1000}}
        return SimpleNamespace(
            directory=folder, record={}, metrics=scores, task=SimpleNamespace(monitor=metrics.ACCURACY)
        )

    monkeypatch.setattr(search, "train", train)
    return calls


def test_a_terminal_shows_the_trials_so_far(trained, command, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes any output for a terminal
    monkeypatch.setattr("zoo.cli.search.conclude", lambda run, export_to: None)
    code, out, err = command(f"tune {NAME} --trials 2 --set-range hidden=[10],[20] --out found")
    assert code == 0, err
    shown = re.findall(r"trials: (\d)", out)
    assert sorted(set(shown)) == ["0", "1", "2"]
    assert shown == sorted(shown)


def test_the_best_trial_by_validation_is_trained_and_remembered(trained, tmp_path):
    seen = []
    found = zoo.tune(NAME, ranges=SPACE, trials=6, out=tmp_path, progress=lambda one: seen.append(len(one.trials)))
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    scores = [trial.score for trial in found.trials]
    assert scores == sorted(scores, reverse=True)
    assert len({json.dumps(trial.values) for trial in found.trials}) == 6
    for values in trained.values:
        assert values["hidden"] in SPACE["hidden"].values
        assert 0.1 <= values["learning_rate"] <= 10
    best = max(trained.values[:6], key=lambda values: values["hidden"][0] - values["learning_rate"])
    assert {**trained.values[6]} == best
    assert trained.folders[6] == tmp_path / f"best-{found.trials[0].number}"
    record = json.loads((trained.folders[6] / "run.json").read_text())["search"]
    assert record["strategy"] == "random"
    assert [trial["score"] for trial in record["trials"]] == scores
    assert record["space"]["learning_rate"] == {"LogRange": {"low": 0.1, "high": 10.0}}
    assert Image.open(tmp_path / "search.png").size[0] > 100


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped(trained, tmp_path):
    def stopped(values):
        return KeyboardInterrupt() if len(trained.values) == 3 else None

    trained.fails = stopped
    with pytest.raises(KeyboardInterrupt):
        zoo.tune(NAME, ranges=SPACE, trials=5, out=tmp_path, seed=4)
    before = trained.values[:]
    trained.fails = lambda values: None
    found = zoo.tune(NAME, ranges=SPACE, trials=5, out=tmp_path, seed=4)
    assert trained.values[3] == before[2]  # the interrupted one is trained again, in the same folder
    assert trained.folders[3] == trained.folders[2]
    assert len(trained.values) == 3 + 3 + 1
    assert len(found.trials) == 5
    whole = zoo.tune(NAME, ranges=SPACE, trials=5, out=tmp_path / "whole", seed=4)
    assert whole.trials == found.trials


def test_with_folds_the_mean_of_the_parts_left_out_decides(trained, tmp_path):
    found = zoo.tune(NAME, ranges=SPACE, trials=2, folds=3, out=tmp_path)
    folders = [tmp_path / "trials" / f"trial_{number}" / "run" / f"fold{fold}" for number in "01" for fold in (1, 2, 3)]
    assert trained.folders == [*folders, tmp_path / f"best-{found.done[0].number}"]
    for trial in found.trials:
        alone = 0.5 + trial.values["hidden"][0] / 100 - trial.values["learning_rate"] / 100
        assert trial.score == pytest.approx(alone - (1 + 2 + 3) / 3 / 1000 - 0.1)


@pytest.mark.slow
def test_failed_trials_are_counted_and_not_chosen(trained, tmp_path, capfd):
    trained.fails = lambda values: zoo.ZooError("the loss is nan") if values["hidden"] == (40,) else None
    found = zoo.tune(NAME, ranges=SPACE, trials=8, out=tmp_path)
    failed = [trial for trial in found.trials if trial.score is None]
    assert len(found.trials) == 8
    assert failed
    assert found.trials[-len(failed) :] == failed
    for trial in failed:
        assert trial.values["hidden"] == (40,)
        assert trial.message == "the loss is nan"
    assert found.done[0].values["hidden"] != (40,)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_networks_over_the_budget_are_not_trained(trained, tmp_path):
    found = zoo.tune(NAME, ranges=SPACE, trials=8, max_parameters=20 * 785 + 210, out=tmp_path)
    assert {values["hidden"] for values in trained.values} == {(10,), (20,)}
    (message,) = {trial.message for trial in found.trials if trial.score is None}
    assert message == "31,810 parameters are more than 15,910"


def test_an_error_of_the_code_is_no_failed_trial(trained, tmp_path):
    trained.fails = lambda values: RuntimeError("a bug")
    with pytest.raises(Exception, match="a bug"):
        zoo.tune(NAME, ranges=SPACE, trials=3, out=tmp_path)
    assert len(trained.values) == 1


@pytest.mark.slow
def test_hyperband_trains_few_for_long(trained, tmp_path):
    zoo.tune(NAME, ranges=SPACE, strategy="hyperband", epochs=9, out=tmp_path)
    epochs = [values["epochs"] for values in trained.values]
    assert min(epochs) < 9
    assert epochs.count(1) + epochs.count(2) + epochs.count(3) > epochs.count(9) - 1 > 0
    assert epochs[-1] == 9


def test_a_key_that_is_set_is_not_searched_for(trained, tmp_path):
    zoo.tune("network3_relu", trials=1, out=tmp_path, learning_rate=0.05)
    assert "learning_rate" not in json.loads((tmp_path / "search.json").read_text())["space"]
    assert [values["learning_rate"] for values in trained.values] == [0.05, 0.05]


def test_the_directory_of_a_run_is_not_that_of_a_search(trained, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(zoo.ZooError, match="contains a run"):
        zoo.tune(NAME, ranges=SPACE, trials=1, out=tmp_path)
    (tmp_path / "run.json").rename(tmp_path / "search.json")
    with pytest.raises(zoo.ZooError, match="contains a search"):
        zoo.train(NAME, out=tmp_path, epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [4, 30])  # one pass has 23
def test_hyperband_ends_after_as_many_trials_as_were_asked_for(trained, tmp_path, trials):
    found = zoo.tune(NAME, ranges=SPACE, strategy="hyperband", epochs=9, trials=trials, out=tmp_path)
    assert len(found.trials) == trials
    assert len(trained.values) == trials + 1
    more = zoo.tune(NAME, ranges=SPACE, strategy="hyperband", epochs=9, trials=trials + 2, out=tmp_path)
    assert len(more.trials) == trials + 2


def test_limits_at_which_the_best_trials_lie():
    space = {
        "width": zoo.IntRange(8, 64),
        "rate": zoo.LogRange(1e-4, 1e-2),
        "kind": zoo.Choice(("a", "b")),
        "filters": zoo.Choice(((8, 16), (20, 40))),
        "hidden": zoo.Choice(((300,), (100, 100))),
        "dropout": zoo.Choice((0.0, 0.5)),
        "bias": zoo.Choice((False, True)),
    }
    common = {"kind": "b", "filters": (8, 16), "hidden": (100, 100), "bias": True}
    values = [
        {"width": 64, "rate": 3e-3, "dropout": 0.0, **common},
        {"width": 63, "rate": 1e-4, "dropout": 0.5, **common},
        *[{"width": 8, "rate": 1e-4, "dropout": 0.0, **common}] * 18,
    ]
    trials = [tuner.Trial(number, one, 1 - number / 100) for number, one in enumerate(values)]
    found = search.Search(Path(), space, metrics.ACCURACY, trials)
    assert found.remarks() == [
        "best trials sit at the upper limit of width: widen it with --set-range",
        "best trials sit at the lower limit of filters: widen it with --set-range",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "8..64": zoo.IntRange(8, 64),
        "1e-4..1e-2": zoo.LogRange(1e-4, 1e-2),
        "adam,sgd": zoo.Choice(("adam", "sgd")),
        "[20,40],[32]": zoo.Choice(((20, 40), (32,))),
        "true,false": zoo.Choice((True, False)),
        "64..8": "a range from 64 to 8 is empty",
        "0.0..1.0": "not above 0",
        "a..b": "two numbers, such as 8..64",
        "": "at least one value",
    }.items(),
)
def test_ranges_as_words(text, expected):
    if isinstance(expected, str):
        with pytest.raises(zoo.ZooError, match=expected):
            read_range(text)
    else:
        assert read_range(text) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ranges": {"hiden": zoo.Choice((1,))}}, "unknown argument of mlp_784_30_10 or recipe key 'hiden'.*hidden"),
        ({"ranges": {"hidden": zoo.Choice(((5,), (-3,)))}}, r"the range of hidden contains \(-3,\)"),
        ({"ranges": {"batch_size": zoo.IntRange(0, 8)}}, "the range of batch_size contains 0"),
        ({}, "mlp_784_30_10 declares no space to search"),
        (
            {"ranges": {**SPACE, "epochs": zoo.IntRange(1, 3)}, "strategy": "hyperband"},
            "hyperband chooses the epochs of its trials",
        ),
        ({"ranges": SPACE, "strategy": "grid"}, "unknown strategy 'grid'"),
        ({"ranges": SPACE, "trials": 0}, "at least 1 trial, not 0"),
        (
            {"ranges": {"learning_rate": "1e-3..1e-2"}},
            "range of learning_rate must be a zoo.IntRange, LogRange or Choice",
        ),
        ({"ranges": {"optimizer": zoo.Choice(("adam", "sdg"))}}, "the range of optimizer contains 'sdg'"),
        ({"ranges": {"epochs": zoo.IntRange(1, 3)}, "epochs": 2}, "epochs has both a value and a range"),
        ({"ranges": SPACE, "devices": "gpu:7"}, "no GPU:7 on this machine"),
        ({"ranges": SPACE, "seed": -1}, "the seed must be from 0"),
        ({"ranges": SPACE, "folds": 5_000}, "1527 examples to fold"),
    ],
)
def test_what_a_search_refuses(trained, tmp_path, given, message):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.tune(NAME, out=tmp_path / "new", **given)
    assert not trained.values
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("killed", ["between its two files", "in the middle of a file"])
def test_a_search_killed_while_it_writes_is_resumed(trained, tmp_path, monkeypatch, killed):
    whole = zoo.tune(NAME, ranges=SPACE, trials=4, out=tmp_path / "whole")
    write = tuner.write_json

    def write_and_die(path, content):
        if path.match("trial_2/trial.json"):
            if killed == "between its two files":
                write(path, content)
            monkeypatch.setattr(tuner, "write_json", write)
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(tuner, "write_json", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        zoo.tune(NAME, ranges=SPACE, trials=4, out=tmp_path / "killed")
    again = zoo.tune(NAME, ranges=SPACE, trials=4, out=tmp_path / "killed")
    assert [trial.score for trial in again.trials] == [trial.score for trial in whole.trials]


def test_a_trial_out_of_memory_has_failed(trained, tmp_path):
    full = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
    trained.fails = lambda values: full if len(trained.values) == 1 else None
    found = zoo.tune(NAME, ranges=SPACE, trials=3, out=tmp_path)
    assert [trial.score is None for trial in found.trials] == [False, False, True]
    assert "OOM when allocating" in found.trials[-1].message


def test_a_trial_that_ends_the_process_is_given_up(trained, tmp_path):
    trained.fails = lambda values: KeyboardInterrupt()
    for _ in range(tuner.MOST_STARTS):
        with pytest.raises(KeyboardInterrupt):
            zoo.tune(NAME, ranges={"hidden": zoo.Choice(((10,),))}, trials=1, out=tmp_path)
    with pytest.raises(zoo.ZooError, match="it ended the process 2 times before its first epoch"):
        zoo.tune(NAME, ranges={"hidden": zoo.Choice(((10,),))}, trials=1, out=tmp_path)
    assert len(trained.values) == tuner.MOST_STARTS


def test_tensorboard_shows_the_values_and_the_score(trained, tmp_path):
    found = zoo.tune(NAME, ranges=SPACE, trials=1, out=tmp_path)
    (file,) = (tmp_path / "trials/trial_0/run/tensorboard").glob("events*")
    written = [value for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value]
    (score,) = (tf.make_ndarray(value.tensor) for value in written if value.tag == "accuracy")
    assert score == pytest.approx(found.done[0].score)
    assert b"learning_rate" in b"".join(value.metadata.plugin_data.content for value in written)


def test_the_folder_of_another_search_is_refused(trained, tmp_path):
    zoo.tune(NAME, ranges=SPACE, trials=2, out=tmp_path)
    with pytest.raises(zoo.ZooError, match=r"contains another search \(different space\)"):
        zoo.tune(NAME, ranges={"hidden": SPACE["hidden"]}, trials=2, out=tmp_path)
    more = zoo.tune(NAME, ranges=SPACE, trials=12, out=tmp_path)  # of the same: no other search
    assert len(more.trials) == 12
    assert trained.folders[-1] == tmp_path / f"best-{more.trials[0].number}"


def test_all_trials_fail(trained, tmp_path):
    trained.fails = lambda values: zoo.ZooError("no luck")
    with pytest.raises(zoo.ZooError, match="all 2 trials failed, the last one because: no luck"):
        zoo.tune(NAME, ranges=SPACE, trials=2, out=tmp_path)


def test_spaces_of_the_registry_can_be_built():
    searched = [name for name in zoo.list_models() if zoo.get_spec(name).search]
    assert "unet_satellite" in searched
    for name in ("unet_satellite", "network3_relu"):
        spec = zoo.get_spec(name)
        recipe = spec.recipe()
        search._check_space(spec, search.tasks.with_options(recipe, search.tasks.get_task(spec.task), spec.task),
                            spec.search, None)  # fmt: skip


def test_a_worker_without_a_chief_ends_in_one_line(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    with pytest.raises(zoo.ZooError, match="without KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT: set all three"):
        zoo.tune(NAME, ranges=SPACE, out=tmp_path)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "9")
    monkeypatch.setattr(tuner, "CHIEF_SECONDS", 0.5)
    with pytest.raises(zoo.ZooError, match="the chief of the search does not answer at 127"):
        zoo.tune(NAME, ranges=SPACE, out=tmp_path)
    assert not trained.values


@pytest.mark.slow
def test_a_chief_without_its_address_ends_in_one_line(trained, monkeypatch, tmp_path):
    for key, value in (("TUNER_ID", "chief"), ("ORACLE_IP", "10.255.255.1"), ("ORACLE_PORT", "18766")):
        monkeypatch.setenv(f"KERASTUNER_{key}", value)
    with pytest.raises(zoo.ZooError, match=r"the chief cannot listen at 10.255.255.1:18766: Failed to bind"):
        zoo.tune(NAME, ranges=SPACE, out=tmp_path)


SEARCH = ["tune", NAME, "--trials", "3", "--set-range", "hidden=[8],[16],[32]", "--set-range", "learning_rate=0.5..5.0",
          "--epochs", "2", "--out", "search"]  # fmt: skip
OF_UNET = ["tune", "unet_satellite", "--data", "scenes", "--trials", "3", "--set-range", "width=2..4",
           "--set-range", "depth=1..2", "--epochs", "1", "--out", "search"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", [SEARCH, OF_UNET], ids=["mlp", "unet"])
def test_a_killed_search_is_resumed_by_the_same_command(words, tmp_path):
    command = [sys.executable, "-m", "zoo", *words]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    started = tmp_path / "search" / "trials" / "trial_1" / "run" / "run.json"
    while not started.exists():
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "trials: 3" in again.stdout
    run = zoo.load_run(*(tmp_path / "search").glob("best-*"))
    trials = run.record["search"]["trials"]
    assert len(trials) == 3
    assert run.metrics["validation"][run.task.monitor.name] == pytest.approx(trials[0]["score"])
    assert zoo.load(tmp_path / "saved_models" / f"{words[1]}.{run.tag}").artifact is not None


@pytest.mark.slow
def test_two_workers_share_the_trials_of_a_chief(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERASTUNER_ORACLE_IP": "127.0.0.1"}
    environment["KERASTUNER_ORACLE_PORT"] = "18765"
    processes = [
        subprocess.Popen([sys.executable, "-m", "zoo", *SEARCH], cwd=tmp_path,
                         env={**environment, "KERASTUNER_TUNER_ID": role})
        for role in ("chief", "worker0", "worker1")
    ]  # fmt: skip
    assert [process.wait(timeout=600) for process in processes] == [0, 0, 0]
    alone = tmp_path / "alone"
    alone.mkdir()
    subprocess.run([sys.executable, "-m", "zoo", *SEARCH], cwd=alone, check=True)

    def scores(folder):
        trials = zoo.load_run(*(folder / "search").glob("best-*")).record["search"]["trials"]
        return {json.dumps(trial["values"]): trial["score"] for trial in trials}

    assert scores(tmp_path) == pytest.approx(scores(alone))
