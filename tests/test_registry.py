"""Names: what is listed, in which order, without TensorFlow, with other people's packages and in spite of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo import registry
from zoo.artifacts import index
from zoo.errors import ZooError

HEAVY = ("tensorflow", "keras", "numpy")


def fresh(code, *paths):
    """Run code in a process of its own, with `paths` in front of its import path."""
    lines = [f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}", code]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def specs(monkeypatch):
    """The registry, put back as it was after the test."""
    zoo.list_models()
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An index in `saved_models` of the working directory, of two tags of one network and one of another."""

    def entry(dataset, value):
        scores = {"dataset": dataset, "metric": "accuracy", "test": value, "validation": value, "reported": None}
        spread = {"runs": [], "mean": value, "standard_deviation": None}
        return {**scores, **spread, "parameters": 1, "bytes": 1, "version": "1"}

    models = {
        "simard_conv": {
            "tags": {"digits": entry("digits", 0.91), "untested": entry("bars", None)},
            "aliases": {"default": "digits"},
        },
        "mlp_784_10": {"tags": {"ex9": entry("bars", 0.7), "ex10": entry("bars", 0.5)}, "aliases": {"default": "ex9"}},
    }
    folder = tmp_path / "saved_models"
    folder.mkdir()
    (folder / index.INDEX).write_text(json.dumps({"models": models, "sha256": {}}))
    monkeypatch.setattr(index, "roots", lambda: [folder])  # without what the package publishes
    index.index_of.cache_clear()


# --- without TensorFlow -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import zoo",
        "import zoo; zoo.list_models(task='classification', max_params=10**6)",
        "import zoo; zoo.list_models(pretrained=True)",
        "import zoo; zoo.get_spec('lenet5').recipe()",
        "sys.argv = ['zoo', 'list']\nfrom zoo.cli import app; app(standalone_mode=False)",
        "sys.argv = ['zoo', 'info', 'lenet5']\nfrom zoo.cli import app; app(standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported(code):
    assert fresh(f"{code}\nprint('#', [m for m in {HEAVY} if m in sys.modules])").stdout.splitlines()[-1] == "# []"


def test_the_console_script_lists():
    done = subprocess.run([Path(sys.executable).with_name("zoo"), "list", "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout) == zoo.list_models()


# --- listing ----------------------------------------------------------------------------------------------------


def test_order_is_natural():
    names = zoo.list_models()
    for first, second in [
        ("network3_relu_300", "network3_relu_1000"),
        ("mlp_784_30_10", "mlp_784_100_10"),
        ("lenet5", "lenet5_modern"),
    ]:
        assert names.index(first) < names.index(second)
    assert sorted(["a_10", "a_9", "a", "b_1", "a_9_2"], key=registry.natural_order) == [
        "a", "a_9", "a_9_2", "a_10", "b_1",
    ]  # fmt: skip


def test_wildcards():
    assert zoo.list_models("mlp_*") == ["mlp_784_10", "mlp_784_30_10", "mlp_784_100_10"]
    assert zoo.list_models("*relu_?00") == ["network3_relu_300"]
    assert zoo.list_models("lenet") == []


def test_the_command_finds_a_model_by_a_part_of_its_name(command):
    _, out, _ = command("list relu_300")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["network3_relu_300", "network3_relu_300_300"]
    code, out, err = command("list nothing")
    assert (code, out, err) == (0, "", "note: no model matches: `zoo list` shows all\n")


def test_by_task():
    assert "unet_tiny" in zoo.list_models(task="segmentation")
    assert "lenet5" not in zoo.list_models(task="segmentation")
    from zoo.tasks import TASKS

    assert sorted(name for task in TASKS for name in zoo.list_models(task=task)) == sorted(zoo.list_models())


def test_by_parameters():
    assert zoo.list_models("mlp_*", max_params=7_850) == ["mlp_784_10"]
    assert zoo.list_models("mlp_*", max_params=7_849) == []


def test_by_dataset(published):
    on_mnist = zoo.list_models(dataset="mnist")
    assert "lenet5" in on_mnist  # a reported score
    assert "unet_tiny" not in on_mnist
    assert zoo.list_models(dataset="bars") == ["mlp_784_10", "simard_conv"]  # scores measured here


def test_pretrained_names_tags(published):
    assert zoo.list_models("mlp_784_10*", pretrained=True) == ["mlp_784_10.ex9", "mlp_784_10.ex10"]
    assert zoo.list_models("simard*.digits", pretrained=True) == ["simard_conv.digits"]
    assert zoo.list_models("simard*", pretrained=True, dataset="bars") == ["simard_conv.untested"]
    assert zoo.list_models("gan*", pretrained=True, dataset="bars") == []


def test_by_score_measured_here(published):
    assert zoo.list_models("mlp_784_10.*", min_metric=0.7) == ["mlp_784_10.ex9"]  # implies pretrained
    assert zoo.list_models("mlp_784_10.*", min_metric=0.71) == []
    assert zoo.list_models("simard*", min_metric=0.5) == ["simard_conv.digits"]  # one without a score is not enough


@pytest.mark.parametrize("text", ["{", "[]", '{"models": 5, "sha256": {}}', '{"sha256": {}}'])
def test_a_damaged_index_is_told_of(text, tmp_path):
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / index.INDEX).write_text(text)
    with pytest.raises(ZooError, match=r"published\.json is damaged"):
        zoo.list_models()


# --- names ------------------------------------------------------------------------------------------------------


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ZooError, match="unknown model 'lenet_5': did you mean lenet5"):
        zoo.get_spec("lenet_5")
    with pytest.raises(ZooError, match="unknown recipe of lenet5 'papper': did you mean paper"):
        zoo.get_spec("lenet5").recipe("papper")


def test_a_tag_is_left_aside():
    assert zoo.get_spec("lenet5.mnist") is zoo.get_spec("lenet5")
    assert zoo.get_spec("lenet5.a.b").name == "lenet5"
    with pytest.raises(ZooError, match="unknown model 'lenet'"):
        zoo.get_spec("lenet.5")


def test_a_name_is_registered_once(specs):
    spec = zoo.get_spec("lenet5")
    with pytest.raises(ZooError, match=r"'lenet5' is already registered by zoo\.models\.lenet5"):
        zoo.register(spec)(lambda input_shape, classes: None)
    assert zoo.get_spec("lenet5") is spec


def test_a_name_has_no_dot(specs):
    import dataclasses

    spec = dataclasses.replace(zoo.get_spec("lenet5"), name="lenet5.big")
    with pytest.raises(ZooError, match="contains a dot"):
        zoo.register(spec)(lambda input_shape, classes: None)
    assert "lenet5.big" not in zoo.list_models()


# --- other people's packages ------------------------------------------------------------------------------------

PLUGIN = """
import zoo
from etils import epy

with epy.lazy_imports():
    import keras


@zoo.register(
    zoo.ModelSpec(
        name="twolayer", task="classification", summary="two layers", year=2020, references=("here",),
        input_shape=(4, 4, 1), classes=3, params=16 * 5 + 5 + 5 * 3 + 3, head=("output",), features=("hidden",),
        preprocessing=zoo.Preprocessing(size=(4, 4)), recipes={"own": zoo.Recipe(epochs=1, batch_size=4,
        learning_rate=0.1)}, stages=(zoo.Stage("all", ("*",), 0.1, 1),),
    )
)
def twolayer(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Dense(5, name="hidden")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, name="output")(x))
"""


def plugin(folder, name, code):
    """A package as pip leaves it behind: a module and its metadata."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.models]\n{name} = {name}\n")


@pytest.mark.slow
def test_a_plugin_adds_a_model_that_keeps_the_contract(tmp_path):
    plugin(tmp_path / "site", "plugged", PLUGIN)
    code = (
        "import zoo\n"
        "assert 'twolayer' in zoo.list_models(max_params=103) and 'lenet5' in zoo.list_models()\n"
        "assert 'tensorflow' not in sys.modules\n"
        "from zoo import testing\n"
        "print('#', testing.check_spec('twolayer').count_params())"
    )
    assert fresh(code, tmp_path / "site").stdout.splitlines()[-1] == "# 103"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_package_that_is_nowhere", "No module named 'a_package_that_is_nowhere'"),
        ("1 / 0", "division by zero"),
        (PLUGIN.replace('"twolayer"', '"lenet5"'), "'lenet5' is already registered"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_rest_works(code, reason, tmp_path):
    plugin(tmp_path / "site", "broken", code)
    plugin(tmp_path / "site", "plugged", PLUGIN)
    done = fresh("import zoo; print('#', *zoo.list_models())", tmp_path / "site")
    assert {"twolayer", "lenet5"} <= set(done.stdout.splitlines()[-1].split())
    assert "zoo.models plugin 'broken' was left out" in done.stderr
    assert reason in done.stderr
