"""Recipes as data: what is refused, what is understood, and the learning rate that a schedule gives."""

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.errors import ZooError
from zoo.options import ClassificationOptions
from zoo.recipe import Affine, Augmentation, Elastic, FlipCrop, Recipe, Schedule, recipe_from_dict

RECIPES = [(name, key) for name in zoo.list_models() for key in zoo.get_spec(name).recipes]
BASE = Recipe(epochs=3, batch_size=8, learning_rate=0.1, options=ClassificationOptions())


def plain(recipe: Recipe) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


@pytest.mark.parametrize(("name", "key"), RECIPES)
def test_every_registered_recipe_survives_json(name, key):
    recipe = zoo.get_spec(name).recipe(key)
    assert recipe_from_dict(plain(recipe), type(recipe.options)) == recipe


finite = st.floats(-1e6, 1e6)
small = st.floats(0, 1)
schedules = st.builds(
    Schedule,
    kind=st.sampled_from(["constant", "cosine", "step", "table"]),
    warmup_epochs=st.integers(0, 5),
    decay=small,
    every=st.integers(1, 9),
    table=st.dictionaries(st.integers(1, 99), small, max_size=3).map(lambda rows: ((0, 1.0), *sorted(rows.items()))),
)
augmentations = st.builds(
    Augmentation,
    expand_shift=st.booleans(),
    affine=st.none() | st.builds(Affine, finite, finite, finite, finite),
    elastic=st.none() | st.builds(Elastic, finite, st.floats(0.1, 9)),
    flip_crop=st.none() | st.builds(FlipCrop, st.integers(0, 9), st.booleans()),
    dihedral=st.booleans(),
    fill=st.sampled_from(["constant", "reflect"]),
)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 99),
    batch_size=st.integers(1, 999),
    learning_rate=st.floats(1e-9, 1e9),
    optimizer_arguments=st.dictionaries(st.sampled_from(["momentum", "beta_1"]), small),
    schedule=schedules,
    options=st.builds(ClassificationOptions, label_smoothing=st.floats(0, 0.99)),
    ema=st.none() | st.floats(0, 0.99),
    ema_power=st.floats(0.1, 1),
    clip_norm=st.none() | st.floats(0.01, 10),
    augmentation=augmentations,
    patience=st.none() | st.integers(1, 9),
    arguments=st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    targets=st.dictionaries(st.text(max_size=5), small),
    deviations=st.lists(st.text(max_size=9)).map(tuple),
)


@given(recipes)
def test_any_recipe_survives_json(recipe):
    assert recipe_from_dict(plain(recipe), ClassificationOptions) == recipe
    assert recipe.replace() == recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rat": 0.1}, ["recipe key 'learning_rat'", "did you mean learning_rate?"]),
        ({"epoch": 5}, ["recipe key 'epoch'", "did you mean epochs?"]),
        ({"zzz": 1}, ["recipe key 'zzz'", "known: arguments, augmentation"]),
        ({"label_smothing": 0.1}, ["recipe key 'label_smothing'", "did you mean label_smoothing"]),
        ({"options": {"label_smothing": 0.1}}, ["key 'label_smothing'", "did you mean label_smoothing"]),
        ({"border": {}}, ["recipe key 'border'"]),
    ],
)
def test_an_unknown_key_names_the_nearest(changes, words):
    with pytest.raises(ZooError) as error:
        BASE.replace(**changes)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_nested_key_names_the_nearest():
    with pytest.raises(ZooError, match="affine"):
        BASE.replace(augmentation={"afine": {"rotation": 3}})
    with pytest.raises(ZooError, match="warmup_epochs"):
        BASE.replace(schedule={"warmup_epoch": 3})


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": "5"},
        {"epochs": 2.5},
        {"learning_rate": "fast"},
        {"optimizer": 3},
        {"schedule": "cosine"},
        {"schedule": {"kind": "linear"}},
        {"precision": "float64"},
        {"augmentation": {"affine": 3}},
        {"augmentation": {"fill": "zeros"}},
        {"patience": "soon"},
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
    ],
)
def test_a_value_of_another_kind_is_refused(changes):
    with pytest.raises(ZooError, match="recipe"):
        BASE.replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"patience": 0},  # the run is over before its first epoch
        {"schedule": {"kind": "step", "every": 0}},  # ZeroDivisionError
        {"schedule": {"warmup_epochs": -1}},  # ZeroDivisionError
        {"schedule": {"kind": "table"}},  # IndexError
        {"schedule": {"kind": "table", "table": [[2, 0.1]]}},  # IndexError in epoch 1
        {"augmentation": {"flip_crop": {"pad": -1}}},
        {"epochs": True},
        {"learning_rate": True},
    ],
)
def test_a_value_that_cannot_work_is_refused(changes):
    with pytest.raises(ZooError):
        BASE.replace(**changes)


def test_missing_keys_are_named():
    with pytest.raises(ZooError, match="batch_size"):
        recipe_from_dict({"epochs": 3, "learning_rate": 0.1}, ClassificationOptions)


def test_whole_numbers_are_rates_too():
    recipe = BASE.replace(
        learning_rate=1, weight_decay=0, ema=0, augmentation={"affine": {"rotation": 10}}, schedule={"decay": 1}
    )
    assert type(recipe.learning_rate) is float
    assert recipe.augmentation.affine == Affine(rotation=10.0)
    assert type(recipe.augmentation.affine.rotation) is float
    assert type(recipe.ema) is float
    assert BASE.replace(schedule={"kind": "table", "table": [[0, 1], [2, 0.5]]}).schedule.table[1] == (2, 0.5)


def test_replace_keeps_the_rest_and_changes_no_original():
    changed = zoo.get_spec("lenet5").recipe().replace(epochs=2)
    assert changed == dataclasses.replace(zoo.get_spec("lenet5").recipe(), epochs=2)
    assert zoo.get_spec("lenet5").recipe().epochs == 20
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.epochs = 3


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(), [1, 1, 1, 1]),
        (Schedule(warmup_epochs=3), [0.25, 0.5, 0.75, 1, 1]),
        (Schedule("step", decay=0.5, every=2), [1, 1, 0.5, 0.5, 0.25]),
        (Schedule("cosine"), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        (Schedule("cosine", warmup_epochs=1), [0.5, 0.75, 0.25]),
        (Schedule("table", table=((0, 1.0), (2, 0.4), (3, 0.1))), [1, 1, 0.4, 0.1, 0.1]),
        (Schedule("table", table=((0, 2.0),), warmup_epochs=1), [1, 2, 2]),
    ],
)
def test_factors_by_hand(schedule, factors):
    assert [schedule.factor(epoch, len(factors)) for epoch in range(len(factors))] == pytest.approx(factors)


@pytest.mark.parametrize("table", [(), ((1, 1.0),), ((0, 1.0), (9, 0.1), (5, 0.5)), ((0, 1.0), (5, 0.1), (5, 0.5))])
def test_a_table_has_ascending_epochs_from_0_on(table):
    with pytest.raises(ZooError, match="pairs of ascending epochs, the first for epoch 0"):
        Schedule("table", table=table)


@given(schedules.filter(lambda schedule: schedule.kind != "table"), st.integers(1, 50))
def test_factors_stay_within_0_and_1_and_fall_after_warmup(schedule, epochs):
    factors = [schedule.factor(epoch, epochs) for epoch in range(epochs)]
    assert all(0 <= factor <= 1 for factor in factors)
    rest = factors[schedule.warmup_epochs :]
    assert all(a >= b for a, b in itertools.pairwise(rest))


@pytest.mark.parametrize("name", sorted({name for name, _ in RECIPES}))
def test_schedules_of_the_zoo_reach_their_last_epoch(name):
    for recipe in zoo.get_spec(name).recipes.values():
        assert all(recipe.schedule.factor(epoch, recipe.epochs) > 0 for epoch in range(recipe.epochs))
