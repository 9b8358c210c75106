"""Segmentation: losses and metrics of masks, border weights, thresholds, bands of any type."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import metrics
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

import zoo
from zoo import tasks, testing
from zoo.data import Dataset, Split
from zoo.data.dataset import IGNORED
from zoo.options import Border
from zoo.recipe import ColorJitter
from zoo.tasks import mask_ops
from zoo.training import batches
from zoo.training.batches import evaluation_batches
from zoo.training.evaluation import predicted_class_ids

RNG = np.random.default_rng(7)
SHAPE = (2, 5, 4)
LOGITS = RNG.normal(size=(*SHAPE, 3)).astype(np.float32)
CLASS_IDS = RNG.integers(0, 3, SHAPE).astype(np.uint8)
OVERLAPPING = RNG.integers(0, 2, (*SHAPE, 3)).astype(np.uint8)
WEIGHTS = RNG.uniform(0.5, 3, SHAPE).astype(np.float32)
WEIGHTS[0, 1, 1:3] = 0  # ignored
KNOWN = WEIGHTS > 0
SHALLOW = {"depth": 1}  # unet_tiny of one level less, which is built faster


def target(overlapping, weights=WEIGHTS):
    masks = OVERLAPPING if overlapping else np.eye(3)[CLASS_IDS]
    return np.concatenate([masks, weights[..., None]], -1).astype(np.float32)


def probabilities(overlapping):
    exponents = np.exp(LOGITS)
    return exponents / (1 + exponents) if overlapping else exponents / exponents.sum(-1, keepdims=True)


def expected_loss(name, overlapping):
    masks, p = target(overlapping)[..., :-1], probabilities(overlapping)
    if name in ("cross_entropy", "focal"):
        right = np.where(masks == 1, p, 1 - p)
        loss = -np.log(right) * ((1 - right) ** 2 if name == "focal" else 1)
        a_pixel = loss.mean(-1) if overlapping else (loss * masks).sum(-1)
        return np.mean(WEIGHTS * a_pixel)
    both, total = ((part * KNOWN[..., None]).sum((0, 1, 2)) for part in (masks * p, masks + p))
    return np.mean(1 - 2 * both / total) if name == "dice" else np.mean(1 - both / (total - both))


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize(
    "names", ["cross_entropy", "focal", "dice", "jaccard", "cross_entropy+dice", "focal+jaccard+dice"]
)
def test_losses_weight_pixels_and_leave_out_ignored_ones(names, overlapping):
    loss = mask_ops.mask_loss(names, overlapping)
    expected = sum(expected_loss(name, overlapping) for name in names.split("+"))
    assert float(loss(target(overlapping), LOGITS)) == pytest.approx(expected, rel=1e-3)
    changed = np.where(KNOWN[..., None], LOGITS, 9.0).astype(np.float32)
    assert float(loss(target(overlapping), changed)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("overlapping", [False, True])
def test_losses_are_finite_where_no_pixel_has_a_class(overlapping):
    masks = np.zeros((1, 4, 4, 4), np.float32)
    masks[..., 0] = masks[..., -1] = 1  # all of the first class, all of weight 1
    for name in mask_ops.PIXEL_LOSSES | mask_ops.REGION_LOSSES:
        logits = tf.Variable(100 * masks[..., :-1] - 50)
        with tf.GradientTape() as tape:
            loss = mask_ops.mask_loss(name, overlapping)(masks, logits)
        assert np.isfinite(float(loss)), name
        assert np.isfinite(tape.gradient(loss, logits).numpy()).all(), name


@pytest.mark.parametrize("overlapping", [False, True])
def test_metrics_equal_those_of_scikit_learn(overlapping):
    classes = ("a", "b", "c")
    spec = zoo.get_spec("unet_satellite" if overlapping else "unet_tiny")
    task = tasks.get_task(spec.task)(spec, (None, None, 1), classes)
    scores = mask_ops.mask_scores(classes, overlapping, lambda x: task.layers(task.decide(task.probabilities(x))))
    for score in scores:
        for number in range(2):  # over batches
            score.update_state(target(overlapping)[number : number + 1], LOGITS[number : number + 1])
    measured = {score.name: float(score.result()) for score in scores}
    if overlapping:
        true, predicted = OVERLAPPING[KNOWN], LOGITS[KNOWN] > 0
        accuracy = accuracy_score(true.ravel(), predicted.ravel())
    else:
        true, predicted = np.eye(3)[CLASS_IDS[KNOWN]], np.eye(3)[LOGITS[KNOWN].argmax(-1)]
        accuracy = accuracy_score(true.argmax(-1), predicted.argmax(-1))
    ious, dices = (score(true, predicted, average=None) for score in (jaccard_score, f1_score))
    expected = {"pixel_accuracy": accuracy, "mean_iou": ious.mean(), "mean_dice": dices.mean()}
    for name, iou, dice in zip(classes, ious, dices, strict=True):
        expected |= {f"iou_{name}": iou, f"dice_{name}": dice}
    assert measured == pytest.approx(expected, abs=1e-6)


def test_a_mean_is_over_the_classes_that_occur():
    masks = np.zeros((1, 2, 2, 4), np.float32)
    masks[..., 0] = masks[..., -1] = 1
    scores = mask_ops.mask_scores(("a", "b", "c"), False, lambda logits: logits)
    for score in scores:
        score.update_state(masks, masks[..., :-1])
    assert {float(score.result()) for score in scores if score.name in ("mean_iou", "mean_dice")} == {1.0}


def blobs(seed, size=48):
    noise = np.random.default_rng(seed).random((size, size))
    return (ndimage.gaussian_filter(noise, 3) > 0.5).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_border_weights_follow_the_equation_of_the_paper(seed):
    border, ids = Border(weight=10.0, sigma=2.5), blobs(seed)
    objects, count = ndimage.label(ids)
    assert count > 2
    distances = np.sort([ndimage.distance_transform_edt(objects != one) for one in range(1, count + 1)], axis=0)
    expected = 1 + 10 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * 2.5**2)) * (objects == 0)
    np.testing.assert_allclose(mask_ops.border_weights(ids[None], border)[0], expected, atol=1e-5)


def test_ignored_pixels_have_weight_0_and_one_object_has_no_border():
    ids = np.zeros((1, 9, 9), np.uint8)
    ids[0, 2:4, 2:4], ids[0, 8] = 1, IGNORED
    weights = mask_ops.border_weights(ids, Border())
    assert set(np.unique(weights[0, :8])) == {1.0}
    assert not weights[0, 8].any()


def test_adapted_rand_error_is_that_of_the_objects():
    true = blobs(1)
    assert mask_ops.adapted_rand_error(true, true) == 0
    assert mask_ops.adapted_rand_error(true, np.ones_like(true)) > 0.1  # all cells merged
    assert mask_ops.adapted_rand_error(np.zeros_like(true), np.zeros_like(true)) == 0
    assert mask_ops.adapted_rand_error(np.zeros_like(true), true) == 1
    empty = mask_ops.adapted_rand_error(true, np.zeros_like(true))
    assert empty == mask_ops.adapted_rand_error(true, np.ones_like(true))  # as if all were one object
    other = blobs(2)
    expected = metrics.adapted_rand_error(ndimage.label(true)[0], ndimage.label(other)[0])[0]
    assert mask_ops.adapted_rand_error(true, other) == pytest.approx(expected)
    assert mask_ops.adapted_rand_error(np.eye(2), np.eye(2)) == 1  # single pixels have no pairs
    square = np.zeros((4, 4), np.uint8)
    square[:2, :2] = square[2:, 2:] = 1  # touch at a corner: two objects
    expected = metrics.adapted_rand_error(square * np.array([[1], [1], [2], [2]]), np.ones((4, 4), int))[0]
    assert mask_ops.adapted_rand_error(square, np.ones((4, 4))) == pytest.approx(expected)
    assert expected > 0


def scenes(dtype=np.uint16, bands=20, count=12, overlapping=True):
    """Images of this type and number of bands; each of the two classes is brighter in one band."""
    random = np.random.default_rng(0)
    images = random.normal(1000, 50, (count, 16, 16, bands))
    masks = random.integers(0, 2, (count, 4, 4, 2)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    images[..., 0] += 400.0 * masks[..., 0]
    images[..., -1] += 400.0 * masks[..., 1]
    if dtype == np.uint8:
        images /= 10
    targets = masks if overlapping else masks[..., 0]
    parts = {"train": slice(0, 8), "validation": slice(8, 10), "test": slice(10, 12)}
    splits = {name: Split(images[part].astype(dtype), targets[part]) for name, part in parts.items()}
    return Dataset("scenes", splits, ("yes", "no"), fingerprint=f"{np.dtype(dtype)} {bands} {overlapping}")


def task_of(name, data):
    spec = zoo.get_spec(name)
    return tasks.get_task(spec.task).from_data(spec, data)


def augmented(task, batch, augmentation, copy=0):
    return task.augment(batch, tf.constant([1, 2]), augmentation, tf.zeros(len(batch[0]), tf.int32) + copy, None)


@pytest.mark.parametrize(
    ("dtype", "bands", "served"),
    [(np.uint8, 3, "uint8"), (np.uint8, 5, "float32"), (np.uint16, 1, "float32"), (np.float32, 2, "float32")],
)
def test_bands_of_any_type_are_standardized(dtype, bands, served):
    data = scenes(dtype, bands, overlapping=False)
    task = task_of("unet_tiny", data)
    assert task.preprocessing.dtype == served
    inputs = task.network_batch(*map(tf.constant, task.examples(data.splits["train"])))[0].numpy()
    if served == "float32":
        np.testing.assert_allclose(inputs.mean((0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(inputs.std((0, 1, 2)), 1, atol=1e-3)
    else:
        assert inputs.min() >= 0
        assert inputs.max() <= 1


def test_ignored_pixels_do_not_count_in_the_statistics_of_bands():
    data = scenes(np.uint16, 1, overlapping=False)
    expected = task_of("unet_tiny", data).preprocessing
    split = data.splits["train"]
    padded = Split(
        np.pad(split.inputs, ((0, 0), (0, 9), (0, 5), (0, 0))),
        np.pad(split.targets, ((0, 0), (0, 9), (0, 5)), constant_values=IGNORED),
    )
    data = Dataset("padded", {**data.splits, "train": padded}, data.classes)
    assert task_of("unet_tiny", data).preprocessing == expected


@pytest.mark.slow
def test_many_bands_are_served_as_floats(tmp_path, unverified):
    data = scenes(np.uint16, 5, overlapping=False)
    run = zoo.train("unet_tiny", data, out=tmp_path / "run", epochs=1, batch_size=4, arguments=SHALLOW)
    path = zoo.export(run, tmp_path / "unet_tiny.bands")
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    images = data.splits["test"].inputs.astype(np.float32)
    expected = zoo.load(run)(images)
    for key, value in signature(images=tf.constant(images)).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5)
    assert zoo.evaluate(path, data) == pytest.approx(run.metrics["test"], abs=1e-5)


@pytest.mark.slow
def test_overlapping_classes_have_their_own_masks_and_thresholds(tmp_path, unverified):
    data = scenes()
    run = zoo.train(
        "unet_satellite", data, out=tmp_path / "run", epochs=6, batch_size=4, learning_rate=0.02,
        precision="float32", arguments={"width": 4, "depth": 1},
    )  # fmt: skip
    assert run.metrics["test"]["mean_iou"] > 0.8
    assert len(run.task.thresholds) == 2
    outputs = zoo.load(zoo.export(run, tmp_path / "unet_satellite.scenes"))(
        data.splits["test"].inputs.astype("float32")
    )
    assert outputs.keys() == {"probabilities", "masks"}
    np.testing.assert_array_equal(outputs["masks"], outputs["probabilities"] >= np.float32(run.task.thresholds))
    probabilities = outputs["probabilities"]
    thresholds = np.quantile(probabilities[..., 0], 0.9), np.quantile(probabilities[..., 1], 0.1)
    task = dataclasses.replace(run.task, thresholds=tuple(map(float, thresholds)))
    masks = task.signatures(run.model)["serving_default"](tf.constant(data.splits["test"].inputs, tf.float32))["masks"]
    np.testing.assert_array_equal(masks, probabilities >= np.float32(task.thresholds))
    np.testing.assert_allclose(masks.numpy().mean((0, 1, 2)), [0.1, 0.9], atol=0.05)
    both = outputs["masks"].sum(-1)
    assert (both == 2).any()
    assert (both == 0).any()


def trained(tmp_path, **changes):
    data = testing.example_data("segmentation")
    options = {"epochs": 2, "batch_size": 4, "arguments": SHALLOW} | changes
    return data, zoo.train("unet_tiny", data, out=tmp_path / "run", **options)


@pytest.mark.slow
def test_the_threshold_has_the_best_validation_score(tmp_path, unverified):
    data, run = trained(tmp_path, threshold_by="iou")
    split, candidates = data.splits["validation"], [tenth / 10 for tenth in range(1, 10)]
    p = zoo.load(run)(split.inputs)["probabilities"][..., 1]

    def error(threshold, by):
        pairs = list(zip(split.targets == 1, p >= np.float32(threshold), strict=True))
        if by == "adapted_rand_error":
            return np.mean([mask_ops.adapted_rand_error(*pair) for pair in pairs])
        true, predicted = (np.concatenate([side.ravel() for side in sides]) for sides in zip(*pairs, strict=True))
        return 1 - np.mean(jaccard_score(true, predicted, average=None, labels=[False, True]))

    validation = functools.partial(evaluation_batches, run.task, split)
    for by in ("iou", "adapted_rand_error"):
        options = zoo.SegmentationOptions(threshold_by=by)
        task = run.task.calibrated(run.model, validation, options)
        least = min(error(threshold, by) for threshold in candidates)
        assert error(task.thresholds[0], by) == pytest.approx(least, abs=1e-6)
        scores = task.dataset_metrics(run.model, validation, options)
        assert scores == ({} if by == "iou" else {by: pytest.approx(least, abs=1e-6)})
        if by == "iou":
            assert run.task.thresholds == task.thresholds
    again = zoo.load_run(run.directory)
    assert again.task.thresholds == run.task.thresholds
    ids = zoo.load(zoo.export(again, tmp_path / "unet_tiny.cells"))(split.inputs)["class_ids"]
    np.testing.assert_array_equal(ids, p >= np.float32(run.task.thresholds[0]))
    _, resumed = trained(tmp_path, threshold_by="iou")
    assert resumed.metrics == run.metrics


@pytest.mark.parametrize(("loss", "atol"), [("cross_entropy", 2e-3), ("cross_entropy+jaccard", 0.1)])
def test_a_loss_of_masks_on_two_devices_is_that_on_one(loss, atol, tmp_path):
    """Of the whole batch; that of regions is the mean over the devices' parts, which differs a little."""
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "arguments": {**SHALLOW, "normalization": False},
        "augmentation": {},
        "precision": "float32",
    }
    one, two = (
        zoo.train("unet_satellite", scenes(), out=tmp_path / name, devices=devices, loss=loss, **settings)
        for name, devices in (("one", "cpu"), ("two", "cpu:2"))
    )
    for key in ("loss", "val_loss"):
        assert two.history[0][key] == pytest.approx(one.history[0][key], abs=atol)


def test_a_class_without_a_validation_pixel_keeps_the_threshold_of_one_half():
    data = scenes()
    spec = zoo.get_spec("unet_satellite")
    task = tasks.get_task(spec.task).from_data(spec, data, width=2, depth=1)
    split = data.splits["validation"]
    masks = np.zeros_like(split.targets)
    batches = functools.partial(evaluation_batches, task, dataclasses.replace(split, targets=masks))
    calibrated = task.calibrated(task.build(), batches, zoo.MultilabelOptions(threshold_by="iou"))
    assert calibrated.thresholds == (0.5, 0.5)


@pytest.mark.slow
def test_without_a_threshold_the_most_probable_class_is_predicted(tmp_path):
    data, run = trained(tmp_path, threshold_by=None, epochs=1)
    outputs = zoo.load(run)(data.splits["test"].inputs)
    np.testing.assert_array_equal(outputs["class_ids"], outputs["probabilities"].argmax(-1))


def test_border_weights_move_with_their_image():
    task = task_of("unet_tiny", testing.example_data("segmentation"))
    images = tf.cast(RNG.integers(0, 255, (6, 16, 16, 1)), tf.uint8)
    weights = tf.cast(images[..., 0], tf.float32) / 51
    masks = tf.cast(images[..., 0] > 100, tf.uint8)
    augmentation = zoo.Augmentation(dihedral=True)
    moved, moved_masks, moved_weights = augmented(task, (images, masks, weights), augmentation)
    assert not np.array_equal(moved, images)
    np.testing.assert_allclose(moved_weights, moved[..., 0] / 51, rtol=1e-5)
    np.testing.assert_array_equal(moved_masks, moved[..., 0] > 100)


def test_border_weights_move_where_the_data_are_expanded():
    task = task_of("unet_tiny", testing.example_data("segmentation"))
    images = tf.cast(RNG.integers(1, 255, (5, 8, 8, 1)), tf.uint8)
    weights, masks = tf.cast(images[..., 0], tf.float32), tf.cast(images[..., 0] > 100, tf.uint8)
    augmentation = zoo.Augmentation(expand_shift=True)
    moved, moved_masks, moved_weights = augmented(task, (images, masks, weights), augmentation, tf.range(5))
    np.testing.assert_array_equal(moved[1, :-1], images[1, 1:])  # up
    np.testing.assert_array_equal(moved_weights, moved[..., 0])
    np.testing.assert_array_equal(moved_masks, moved[..., 0] > 100)


def test_color_of_16_bits_for_a_gray_network():
    data, spec = scenes(np.uint16, 3, overlapping=False), zoo.get_spec("unet_tiny")
    task = tasks.get_task(spec.task).from_data(spec, data, (None, None, 1))
    inputs, _ = task.network_batch(*map(tf.constant, task.examples(data.splits["train"])))
    assert inputs.shape[-1] == 1
    assert abs(np.mean(inputs)) < 1e-3


def test_predictions_for_ignored_pixels_join_no_objects():
    """Predicted in an ignored margin, a class would join all objects that touch it."""
    task = task_of("unet_tiny", testing.example_data("segmentation"))
    predicted = np.zeros((1, 12, 10), np.float32)
    predicted[:, :, [1, 4, 7]] = 1.0
    targets = np.stack([1 - predicted, predicted, np.ones_like(predicted)], axis=-1)
    predicted[:, 8:] = 1.0
    targets[:, 8:] = 0.0  # of weight 0
    network = keras.Sequential([keras.layers.Rescaling(20.0, -10.0)])  # logits from 0 and 1
    batch = tf.stack([1 - predicted, predicted], axis=-1), tf.constant(targets)
    options = zoo.SegmentationOptions(threshold_by="adapted_rand_error")
    assert task.dataset_metrics(network, lambda: [batch], options) == {"adapted_rand_error": 0.0}


@pytest.mark.slow
def test_large_images_are_predicted_a_few_at_once(tmp_path, monkeypatch):
    data, run = trained(tmp_path, epochs=1)
    predictor, counts = zoo.load(run), []
    call = zoo.Predictor.__call__

    def spy(self, images):
        counts.append(len(images))
        return call(self, images)

    monkeypatch.setattr(zoo.Predictor, "__call__", spy)
    expected = predicted_class_ids(predictor, data.splits["train"])
    monkeypatch.setattr(batches, "LARGEST_BATCH", 12 * 12 * 5)
    np.testing.assert_array_equal(predicted_class_ids(predictor, data.splits["train"]), expected)
    assert counts == [16, 5, 5, 5, 1]


def test_color_jitter_changes_the_image_alone():
    task = task_of("unet_tiny", testing.example_data("segmentation"))
    images = tf.cast(RNG.integers(0, 255, (6, 16, 16, 1)), tf.uint8)
    masks, weights = tf.cast(images[..., 0] > 100, tf.uint8), tf.cast(images[..., 0], tf.float32)
    augmentation = zoo.Augmentation(color_jitter=ColorJitter(0.3, 0.3), dihedral=True)
    jittered, *rest = augmented(task, (images, masks, weights), augmentation)
    moved, *unchanged = augmented(task, (images, masks, weights), zoo.Augmentation(dihedral=True))
    assert not np.allclose(jittered, moved, atol=5)
    for one, other in zip(rest, unchanged, strict=True):
        np.testing.assert_array_equal(one, other)
    ratio = np.std(jittered, axis=(1, 2, 3)) / np.std(moved, axis=(1, 2, 3))
    assert ratio.min() < 0.95
    assert ratio.max() > 1.05


@pytest.mark.slow
def test_the_training_loss_includes_border_weights(tmp_path):
    images = np.zeros((12, 12, 12, 1), np.uint8)
    images[:, :, :5] = images[:, :, 6:] = 200  # two objects, one pixel apart
    split = Split(images, (images[..., 0] > 0).astype(np.uint8))
    data = Dataset("gap", {"train": split, "validation": split, "test": split}, ("gap", "object"))
    rows = {}
    for name, border in {"none": None, "much": {"weight": 10_000.0}}.items():
        run = zoo.train(
            "unet_tiny", data, out=tmp_path / name, epochs=1, batch_size=12, border=border, learning_rate=1e-9,
            arguments=SHALLOW,
        )  # fmt: skip
        rows[name] = run.history[0]
    assert rows["much"]["loss"] > 20 * rows["none"]["loss"]
    assert rows["much"]["val_loss"] == pytest.approx(rows["none"]["val_loss"], rel=1e-3)  # measured without


@pytest.mark.slow
def test_an_ignored_class_is_left_out_of_training_and_metrics(tmp_path, unverified):
    data = testing.example_data("segmentation", classes=3)
    np.savez(tmp_path / "bars.npz", **{
        f"{axis}_{name}": value
        for name, split in data.splits.items() for axis, value in (("x", split.inputs), ("y", split.targets))
    })  # fmt: skip
    run = zoo.train(
        "unet_tiny", tmp_path / "bars.npz", out=tmp_path / "run", epochs=1, batch_size=8, ignored_class="2",
        arguments=SHALLOW,
    )  # fmt: skip
    assert run.task.classes == ("0", "1")
    path = zoo.export(run, tmp_path / "unet_tiny.bars")
    manifest = json.loads((path / "assets.extra/manifest.json").read_text())
    assert manifest["training"]["recipe"]["options"]["ignored_class"] == "2"
    assert zoo.evaluate(path, tmp_path / "bars.npz") == pytest.approx(run.metrics["test"], abs=1e-5)
    again = zoo.reproduce(path, data=tmp_path / "bars.npz", out=tmp_path / "again")
    assert again.measured == pytest.approx(run.metrics["test"]["mean_iou"], abs=1e-3)
    assert zoo.evaluate(again.run, tmp_path / "bars.npz") == pytest.approx(again.run.metrics["test"], abs=1e-5)


ERRORS = {
    "unet_tiny": (scenes(), "unet_tiny takes one class a pixel, the data set has masks of classes that overlap"),
    "unet_satellite": (scenes(overlapping=False), "takes masks of classes that overlap, the data set has one class"),
    "lenet5": (scenes(), "has uint16 images, the network takes uint8"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_masks_of_another_kind_are_refused(tmp_path, name):
    data, message = ERRORS[name]
    with pytest.raises(zoo.ZooError, match=message):
        zoo.train(name, data, out=tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_data_of_other_bands_or_type_than_the_network_are_refused(tmp_path):
    data = scenes(np.uint8, 3, overlapping=False)
    run = zoo.train("unet_tiny", data, out=tmp_path / "run", epochs=1, arguments=SHALLOW)
    with pytest.raises(zoo.ZooError, match="images have 2 channels, the network takes 3"):
        zoo.evaluate(run, scenes(np.uint8, 2, overlapping=False))
    with pytest.raises(zoo.ZooError, match="has uint16 images, the network was trained on uint8"):
        zoo.evaluate(run, scenes(np.uint16, 3, overlapping=False))


def test_an_unknown_loss_is_named(tmp_path):
    with pytest.raises(zoo.ZooError, match=r"unknown loss of segmentation 'dicee'.*dice"):
        trained(tmp_path, loss="cross_entropy+dicee")


@pytest.mark.parametrize(
    "changes",
    [{"border": {"sigma": 0.0}}, {"border": {"weight": -1.0}}, {"augmentation": {"patches": {"size": 0}}},
     {"augmentation": {"patches": {}, "expand_shift": True}}, {"threshold_by": "best"}],
)  # fmt: skip
def test_impossible_recipes_are_refused(tmp_path, changes):
    with pytest.raises(zoo.ZooError):
        trained(tmp_path, **changes)


def windows(images, masks, seed=0, count=40, classes=2, **patches):
    from zoo.data import augmentation
    from zoo.recipe import Patches

    index = np.arange(count, dtype=np.int32) % len(images)
    arrays = [tf.constant(images), tf.constant(masks)]
    cut = tf.function(lambda: augmentation.random_patches(arrays, index, [seed, 0], Patches(**patches), classes))
    return index, *(array.numpy() for array in cut())


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(height=st.integers(3, 20), width=st.integers(3, 20), size=st.integers(1, 24), seed=st.integers(0, 99))
def test_a_patch_is_one_window_of_image_and_mask(height, width, size, seed):
    images = np.arange(2 * height * width, dtype=np.int32).reshape(2, height, width, 1)
    index, cut, masks = windows(images, images[..., 0] % 200, seed, count=8, size=size)
    assert cut.shape == (8, min(size, height), min(size, width), 1)
    np.testing.assert_array_equal(cut[..., 0] % 200, masks)
    for number, window in zip(index, cut[..., 0], strict=True):
        top, left = divmod(window[0, 0] - number * height * width, width)
        whole = images[number, ..., 0]
        np.testing.assert_array_equal(window, whole[top : top + window.shape[0], left : left + window.shape[1]])


def test_patches_lie_anywhere_and_depend_on_the_seed_alone():
    images = np.arange(100, dtype=np.int32).reshape(1, 10, 10, 1)
    first, again, other = (windows(images, np.zeros((1, 10, 10), np.uint8), seed, 400, size=4)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    corners = first[:, 0, 0, 0]
    assert set(corners) == {10 * top + left for top in range(7) for left in range(7)}


@pytest.mark.parametrize("overlapping", [False, True])
def test_balanced_patches_contain_a_rare_class_as_often(overlapping):
    masks = np.zeros((1, 40, 40), np.uint8)
    masks[0, 20, 20] = 1
    images = masks[..., None]
    if overlapping:
        masks = np.stack([1 - masks, masks], axis=-1)
    shares = [
        windows(images, masks, count=200, size=5, balanced=balanced)[1].any(axis=(1, 2, 3)).mean()
        for balanced in (False, True)
    ]
    assert shares[0] < 0.1
    assert 0.4 < shares[1] < 0.6


@pytest.mark.parametrize("overlapping", [False, True])
def test_patches_are_centered_on_known_pixels(overlapping):
    masks = np.full((1, 30, 50), IGNORED, np.uint8)
    masks[0, :10, :10] = 0
    images = np.where(masks == IGNORED, 0, 1).astype(np.uint8)[..., None]
    _, cut, _ = windows(images, np.stack([masks] * 2, -1) if overlapping else masks, size=3)
    assert cut[:, 1, 1].all()
    unknown = np.full_like(masks, IGNORED)  # all ignored: any window, rather than an error
    assert windows(images, unknown, size=3, count=2)[1].shape == (2, 3, 3, 1)
