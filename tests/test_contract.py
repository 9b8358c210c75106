"""Every registered model keeps the contract; one of each kind of task goes through the whole workflow."""

import pytest

import zoo
from zoo import testing

ONE_OF_EACH_KIND = {
    "lenet5": {},
    "unet_tiny": {"depth": 1},
    "unet_satellite": {"width": 4, "depth": 1},
    "gan_mlp": {"width": 16, "maxout": 8},
    "ssgan": {"hidden": [8, 8, 8, 8, 8], "latents": 4, "width": 8},
    "lstm_text": {"vocabulary_size": 100, "embedding": 8, "width": 8},
    "lstm_char": {"embedding": 8, "width": 16},
}


def each_model():
    """Every registered name; those with many parameters are slow."""
    for name in zoo.list_models():
        yield pytest.param(name, marks=pytest.mark.slow if zoo.get_spec(name).params > 1_500_000 else ())


@pytest.mark.parametrize("name", each_model())
def test_spec_is_true(name):
    testing.check_spec(name)


@pytest.mark.slow
def test_workflow(making, subtests):
    """What they export is verified in one process for all."""
    with making as folder:
        for name, arguments in ONE_OF_EACH_KIND.items():
            with subtests.test(name):
                testing.check_workflow(name, folder / name, **arguments)
    paths = sorted(path for path in folder.glob("*/*.*") if path.is_dir())
    assert [path.name for path in paths] == sorted(
        f"{name}.{tag}" for name in ONE_OF_EACH_KIND for tag in ("example", "tuned")
    )
    zoo.verify(*paths)


def test_one_of_each_task_goes_through_the_whole_workflow():
    from zoo.tasks import TASKS

    assert {zoo.get_spec(name).task for name in ONE_OF_EACH_KIND} == set(TASKS)


@pytest.mark.slow
def test_a_text_without_a_word_has_probabilities(tmp_path):
    arguments = {"vocabulary_size": 50, "embedding": 4, "width": 4}
    data = testing.example_data("text_classification")
    run = zoo.train("lstm_text", data, out=tmp_path / "run", epochs=1, batch_size=8, arguments=arguments)
    assert zoo.load(run)(["", "?!"])["probabilities"].sum(-1).tolist() == pytest.approx([1.0, 1.0])
    (row,) = zoo.predict(run, "tasty")
    assert row["class"] in data.classes
    assert row["probability"] == max(row["probabilities"])
