"""The model families: each registered network is the one that its references describe."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import math
import pkgutil
import re
import statistics
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from zoo import models, registry, testing
from zoo.errors import ZooError
from zoo.models import lenet5

# Counted by hand from the references, layer by layer.
PARAMS = {
    "mlp_784_10": 7_850,
    "mlp_784_30_10": 23_550 + 310,
    "mlp_784_100_10": 78_500 + 1_010,
    "network3_shallow": 78_500 + 1_010,
    "network3_conv_only": 520 + 28_810,
    "network3_conv": 520 + 288_100 + 1_010,
    "network3_sigmoid": 520 + 20_040 + 64_100 + 1_010,
    "network3_tanh": 520 + 20_040 + 64_100 + 1_010,
    "network3_relu": 520 + 20_040 + 64_100 + 1_010,
    "network3_relu_300": 520 + 20_040 + 192_300 + 3_010,
    "network3_relu_1000": 520 + 20_040 + 641_000 + 10_010,
    "network3_relu_100_100": 520 + 20_040 + 64_100 + 10_100 + 1_010,
    "network3_relu_300_300": 520 + 20_040 + 192_300 + 90_300 + 3_010,
    "network3_relu_1000_1000": 520 + 20_040 + 641_000 + 1_001_000 + 10_010,
    "network3_dropout": 520 + 20_040 + 641_000 + 1_001_000 + 10_010,
    "lenet5": 156 + 12 + 1_516 + 32 + 48_120 + 10_164,
    "lenet5_modern": 156 + 2_416 + 48_120 + 10_164 + 850,
    "simard_conv": 130 + 6_300 + 125_100 + 1_010,
    "ciresan_mlp": 2_105_000 + 5_002_000 + 3_001_500 + 1_501_000 + 500_500 + 5_010,
}

each_model = pytest.mark.parametrize("name", PARAMS)


@functools.cache
def built(name: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    return registry.get_spec(name).build()


@each_model
def test_parameters_are_those_of_the_references(name):
    trainable = sum(math.prod(weight.shape) for weight in built(name).trainable_weights)
    assert trainable == registry.get_spec(name).params == PARAMS[name]


@each_model
def test_outputs_one_number_per_class(name):
    model, spec = built(name), registry.get_spec(name)
    scores = model(np.zeros((2, *spec.input_shape), "float32"))
    assert scores.shape == (2, spec.classes)
    assert np.isfinite(scores).all()


@each_model
def test_every_stage_trains_something(name):
    model = built(name)
    for stage in registry.get_spec(name).stages:
        trained = [layer for layer in model.layers if any(fnmatch.fnmatch(layer.name, p) for p in stage.layers)]
        assert any(layer.trainable_weights for layer in trained), stage.name


@each_model
def test_only_the_head_depends_on_the_classes(name):
    if name == "ciresan_mlp":
        pytest.skip("one network of 12 million weights is enough; simard_conv has the same form of head")
    spec = registry.get_spec(name)
    other = spec.build(classes=7)
    for layer, twin in zip(built(name).layers, other.layers, strict=True):
        same = [weight.shape for weight in layer.weights] == [weight.shape for weight in twin.weights]
        assert same != any(fnmatch.fnmatch(layer.name, pattern) for pattern in spec.head), layer.name


@each_model
def test_the_loss_of_a_recipe_fits_the_outputs(name):
    spec = registry.get_spec(name)
    assert next(iter(spec.recipes)) in ("paper", "modern")
    for score in spec.reported:
        assert 0.9 < score.value < 1
    for recipe in spec.recipes.values():
        assert recipe.loss in {
            "logits": ("cross_entropy",), "sigmoid": ("quadratic", "binary_cross_entropy"), "distances": ("rbf_map",)
        }[spec.outputs]  # fmt: skip


def weights(name: str, layer: str) -> list[np.ndarray]:
    return [weight.numpy() for weight in built(name).get_layer(layer).weights]


@pytest.mark.parametrize(
    ("name", "layer", "std"),
    [
        ("mlp_784_30_10", "hidden1", 1.0),
        ("network3_relu", "conv1", 1 / math.sqrt(20 * 25 / 4)),
        ("network3_relu", "conv2", 1 / math.sqrt(40 * 25 / 4)),
        ("network3_relu", "hidden1", 1 / math.sqrt(100)),
        ("network3_dropout", "hidden2", 1 / math.sqrt(1000)),
        ("simard_conv", "conv2", 0.05),
    ],
)
def test_normal_initial_weights(name, layer, std):
    kernel = weights(name, layer)[0]
    assert kernel.std() == pytest.approx(std, rel=4 / math.sqrt(2 * kernel.size))


@pytest.mark.parametrize(
    ("name", "layer", "bound"),
    [("lenet5", "c1", 2.4 / 25), ("lenet5", "c5", 2.4 / 400), ("lenet5", "s2", 0.6), ("ciresan_mlp", "hidden2", 0.05)],
)
def test_uniform_initial_weights(name, layer, bound):
    highest = max(abs(weight).max() for weight in weights(name, layer))
    assert 0.5 * bound < highest <= bound


def test_initial_biases_of_network3_are_standard_normal_and_its_output_is_zero():
    assert weights("network3_dropout", "hidden1")[1].std() == pytest.approx(1, rel=0.1)
    assert not any(weight.any() for weight in weights("network3_dropout", "output"))


def test_network3_initialization_by_fan_in():
    model = registry.get_spec("network3_relu").build(initialization="n_in")
    assert model.get_layer("hidden1").kernel.numpy().std() == pytest.approx(1 / math.sqrt(640), rel=0.03)
    with pytest.raises(ZooError, match="n_in"):
        registry.get_spec("network3_relu").build(initialization="n_inn")


def test_network3_initialization_by_hes_rule():
    layer = registry.get_spec("network3_relu").build(initialization="he").get_layer("hidden1")
    assert layer.kernel.numpy().std() == pytest.approx(math.sqrt(2 / 640), rel=0.03)
    assert not layer.bias.numpy().any()


def test_mlp_initialization_by_glorots_rule():
    layer = registry.get_spec("mlp_784_100_10").build(initialization="glorot").get_layer("hidden1")
    assert abs(layer.kernel.numpy()).max() == pytest.approx(math.sqrt(6 / 884), rel=0.01)
    assert not layer.bias.numpy().any()
    with pytest.raises(ZooError, match="glorot"):
        registry.get_spec("mlp_784_100_10").build(initialization="gloro")


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "expected"), [({}, "glorot"), ({"initialization": "normal"}, "normal")])
def test_a_recipe_sets_builder_arguments_unless_the_call_does(arguments, expected, tmp_path):
    data = testing.example_data("classification")
    run = zoo.train("mlp_784_100_10", data, recipe="modern", out=tmp_path / "run", epochs=1, arguments=arguments)
    assert run.task.arguments["initialization"] == expected


def test_mlp_has_sigmoid_hidden_units_and_outputs_logits():
    model = registry.get_spec("mlp_784_30_10").build()
    hidden, output = model.get_layer("hidden1"), model.get_layer("output")
    hidden.set_weights([np.zeros((784, 30)), np.full(30, math.log(3))])  # the sigmoid of log 3 is 3 / 4
    output.set_weights([np.full((30, 10), 2.0), np.arange(10.0)])
    logits = model(np.ones((1, 28, 28, 1), "float32"))
    np.testing.assert_allclose(logits[0], 30 * 2 * 0.75 + np.arange(10.0), rtol=1e-6)


def test_dropout_masks_without_scaling_and_halves_in_evaluation():
    x = built("network3_dropout").get_layer("flatten").output
    model = keras.Model(x, built("network3_dropout").get_layer("dropout1_scale").output)
    ones = np.ones((4, 640), "float32")
    np.testing.assert_array_equal(model(ones, training=False), 0.5 * ones)
    assert set(np.unique(model(ones, training=True))) == {0.0, 1.0}


def test_lenet5_connections_are_table_1():
    assert sum(len(maps) for maps in lenet5.TABLE) == 60
    # every map of S2 feeds ten maps of C3, and no two maps of C3 have the same inputs
    assert [sum(source in maps for maps in lenet5.TABLE) for source in range(6)] == [10] * 6
    assert len({frozenset(maps) for maps in lenet5.TABLE}) == 16


def test_lenet5_initial_weights_follow_the_fan_in_of_each_map():
    kernel, _ = weights("lenet5", "c3")
    first = np.cumsum([0, *(len(maps) for maps in lenet5.TABLE)])
    for output, maps in enumerate(lenet5.TABLE):
        bound = 2.4 / (25 * len(maps))
        assert 0.9 * bound < abs(kernel[..., first[output] : first[output + 1]]).max() <= bound


def test_lenet5_feature_maps_are_those_of_figure_2():
    shapes = [tuple(built("lenet5").get_layer(name).output.shape[1:]) for name in ("c1", "s2", "c3", "s4", "c5", "f6")]
    assert shapes == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120), (84,)]


def test_lenet5_refuses_other_sizes_in_one_line():
    with pytest.raises(ZooError, match="32 x 32, not 28 x 28"):
        registry.get_spec("lenet5").build((28, 28, 1))


@pytest.mark.parametrize("codes", [lenet5.bitmap_codes(), lenet5.random_codes(26)], ids=["digits", "random"])
def test_codes_are_signs_far_from_each_other(codes):
    codes = np.array(codes)
    assert codes.shape[1] == 84
    assert set(np.unique(codes)) == {-1.0, 1.0}
    different = (codes[:, None] != codes[None]).sum(-1)
    assert different[~np.eye(len(codes), dtype=bool)].min() >= 10


def test_lenet5_has_the_digits_for_ten_classes_and_the_same_random_codes_for_others():
    np.testing.assert_array_equal(weights("lenet5", "output")[0], lenet5.bitmap_codes())
    other = registry.get_spec("lenet5").build(classes=3)
    np.testing.assert_array_equal(other.get_layer("output").codes.numpy(), lenet5.random_codes(3))


# --- the files of the families --------------------------------------------------------------------------------------

FAMILIES = {
    info.name: importlib.import_module(f"zoo.models.{info.name}") for info in pkgutil.iter_modules(models.__path__)
}
SAVED_MODELS = Path(__file__).parent.parent / "saved_models"
COMMAND = re.compile(
    r"zoo train (?P<name>\w+) --data (?P<data>\w+)(?: --recipe (?P<recipe>\w+))?[^#\n]*# (?P<time>\d+) "
    r"(?P<unit>second|minute)s?(?:, (?P<score>\d\.\d{4}))?(?: \(mean of (?P<runs>\d+) runs (?P<mean>0\.\d{4})\))?\n"
)
COMMANDS = [match.groupdict() for module in FAMILIES.values() for match in COMMAND.finditer(module.__doc__)]


@functools.cache
def manifests() -> dict[tuple, dict]:
    """The manifests of the published weights by network, data set and recipe (of an ensemble its method)."""
    found = [json.loads(file.read_text("utf-8")) for file in SAVED_MODELS.glob("*/1/assets.extra/manifest.json")]
    return {(m["model"]["spec"], m["scores"]["dataset"], m["training"]["recipe_name"]): m for m in found}


def test_a_name_is_found_in_the_source_as_it_is_typed():
    for name, spec in registry.all_specs().items():
        if spec.builder.__module__.startswith("zoo.models."):
            source = Path(importlib.import_module(spec.builder.__module__).__file__).read_text(encoding="utf-8")
            assert f'"{name}"' in source


def test_every_family_opens_with_its_commands():
    for name, module in FAMILIES.items():
        assert "    zoo " in module.__doc__ or name == "recipes"
    assert sum(module.__doc__.count("    zoo train ") for module in FAMILIES.values()) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command['name']}-{command['recipe']}")
def test_a_command_states_the_score_and_the_time_of_the_published_weights(command):
    spec = registry.get_spec(command["name"])
    recipe = command["recipe"] or next(iter(spec.recipes))
    manifest = manifests().get((spec.name, command["data"], recipe))
    if manifest is None:
        assert command["score"] is None, "no weights are published"
        return
    scores, runs = manifest["scores"], manifest["runs"]
    seconds = int(command["time"]) * {"second": 1, "minute": 60}[command["unit"]]
    assert seconds == pytest.approx(statistics.median(run["seconds"] for run in runs), rel=0.2)
    if command["score"]:
        assert command["score"] == f"{scores['test']:.4f}"
        assert int(command["runs"] or 1) == len(runs)
    if command["mean"]:
        assert command["mean"] == f"{scores['mean']:.4f}"


def test_the_ensemble_states_the_score_of_the_published_weights():
    score = manifests()["network3_dropout_ensemble", "mnist", "vote"]["scores"]["test"]
    assert f"--name network3_dropout_ensemble               # {score:.4f}" in FAMILIES["ensemble"].__doc__
