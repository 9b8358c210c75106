"""The synthetic scenes: their contents, that they are reproducible, and that single pixels do not determine classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

import zoo
from zoo import artifacts
from zoo.data import Dataset, Split, scenes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> Dataset:
    splits, classes = scenes.data()
    return Dataset("scenes", splits, classes)


def test_the_data_set(data):
    assert data.classes == ("buildings", "roads", "trees", "water")
    assert data.shape == (256, 256, 20)
    assert [len(split) for split in data.splits.values()] == [25, 8, 8]
    for split in data.splits.values():
        assert split.inputs.dtype == np.uint16
        assert 5_000 < split.inputs.max() <= 10_000
        assert split.targets.dtype == np.uint8
        assert split.targets.shape == (len(split), 256, 256, 4)
        assert set(np.unique(split.targets)) == {0, 1}


def test_every_class_is_in_every_scene_and_none_dominates(data):
    for split in data.splits.values():
        shares = split.targets.mean(axis=(1, 2))
        assert shares.min() > 0.02
        assert 0.05 < shares.mean(axis=0).min() < shares.mean(axis=0).max() < 0.25


@pytest.mark.parametrize("pair", ["trees buildings", "trees roads", "trees water", "roads water"])
def test_classes_overlap(data, pair):
    first, second = (data.splits["train"].targets[..., data.classes.index(name)] for name in pair.split())
    assert np.mean(first & second) > 0.003


def test_scenes_differ_and_do_not_depend_on_the_count(data):
    images, masks = scenes.scenes(2, seed=scenes.PARTS["test"][1])
    test = data.splits["test"]
    assert np.array_equal(images, test.inputs[:2])
    assert np.array_equal(masks, test.targets[:2])
    firsts = [split.inputs[0] for split in data.splits.values()]
    assert len({image.tobytes() for image in (*firsts, *images)}) == 4  # the first of test is in both


def test_another_size():
    images, masks = scenes.scenes(1, size=64)
    assert images.shape == (1, 64, 64, 20)
    assert masks.shape == (1, 64, 64, 4)


def test_single_pixels_do_not_determine_their_classes(data):
    """`benchmarks/scenes.py` does this for all pixels, with a threshold for each class."""
    rng = np.random.default_rng(0)

    def sample(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
        some = rng.choice(split.targets[..., 0].size, count, replace=False)
        return split.inputs.reshape(-1, 20)[some], split.targets.reshape(-1, 4)[some].astype(bool)

    (x, y), (x_test, y_test) = sample(data.splits["train"], 20_000), sample(data.splits["test"], 40_000)
    ious = []
    for number in range(4):
        model = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(x, y[:, number])
        found = model.predict_proba(x_test)[:, 1] > 0.3
        ious.append(np.sum(found & y_test[:, number]) / np.sum(found | y_test[:, number]))
    assert 0.35 < np.mean(ious) < 0.55


def test_the_published_network_reaches_the_scores_in_its_manifest(data):
    scores = artifacts.open_artifact("unet_satellite.scenes").manifest["scores"]
    assert zoo.evaluate("unet_satellite.scenes", data)[scores["metric"]] == pytest.approx(scores["test"], abs=1e-4)
