"""Augmentation against NumPy and SciPy, and its promises: repeatable, stateless, one geometry for image and mask."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.augmentation import (
    affine_map,
    augment,
    color_jitter,
    color_pca,
    displacement,
    expansion,
    fitted,
    shift_expansion,
    vary_inputs,
    warp,
)
from zoo.errors import ZooError
from zoo.recipe import Affine, Augmentation, ColorJitter, ColorPca, Elastic, FlipCrop, ResizedCrop

AFFINE = Affine(rotation=15, translation=0.1, scale=0.15, skew=10)
PARTS = {
    "affine": Augmentation(affine=AFFINE),
    "elastic": Augmentation(elastic=Elastic()),
    "flip_crop": Augmentation(flip_crop=FlipCrop()),
    "dihedral": Augmentation(dihedral=True),
    "resized_crop": Augmentation(resized_crop=ResizedCrop()),
    "all": Augmentation(affine=AFFINE, elastic=Elastic(), flip_crop=FlipCrop(), dihedral=True, fill="reflect"),
}
each_part = pytest.mark.parametrize("augmentation", PARTS.values(), ids=PARTS)
each_fill = pytest.mark.parametrize("fill", ["constant", "reflect"])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def smooth(*shape: int) -> np.ndarray:
    """Smooth noise, positive and negative in about equal parts."""
    return scipy.ndimage.gaussian_filter(noise(*shape) - 127.5, (0, 5, 5, 0), mode="reflect")


def coordinates(batch: int, height: int, width: int) -> np.ndarray:
    """Images of their own coordinates (x, y): after warping, each pixel is the place where it was read."""
    image = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    return np.repeat(image[None], batch, axis=0)


def read_points(height: int, width: int, batch: int, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """The linear maps [batch, 2, 2] and shifts [batch, 2] drawn, solved for from three pixels around the center."""
    points, _ = augment(coordinates(batch, height, width), None, [1, 2], augmentation)
    points, row, column = points.numpy(), height // 2, width // 2
    origin = points[:, row, column]
    linear = np.stack([points[:, row, column + 1] - origin, points[:, row + 1, column] - origin], axis=-1)
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    return linear, origin - center - linear @ (np.array([column, row]) - center)


@each_part
def test_only_the_seed_decides(augmentation: Augmentation) -> None:
    images, masks = noise(8, 20, 20, 3), noise(8, 20, 20).astype(np.int32)
    first, again, other = (augment(images, masks, seed, augmentation) for seed in ([1, 2], [1, 2], [1, 3]))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@each_part
def test_each_image_of_a_batch_has_its_own_draw(augmentation: Augmentation) -> None:
    images = np.repeat(noise(1, 20, 20, 1), 32, axis=0)
    result = augment(images, None, [1, 2], augmentation)[0].numpy()
    different = len({image.tobytes() for image in result})
    assert different >= (6 if augmentation == PARTS["dihedral"] else 28)  # of 8 symmetries, or of many


@pytest.mark.slow_but_one
@each_part
def test_threads_change_nothing_and_shapes_stay(augmentation: Augmentation) -> None:
    def run(parallel: int | None) -> list[bytes]:
        data = tf.data.Dataset.from_tensor_slices((noise(50, 20, 20, 1), noise(50, 20, 20).astype(np.uint8)))
        data = tf.data.Dataset.zip(data.batch(8), tf.data.Dataset.counter(dtype=tf.int32))
        data = data.map(lambda xy, i: augment(*xy, tf.stack([7, i]), augmentation), num_parallel_calls=parallel)
        assert [tuple(spec.shape) for spec in data.element_spec] == [(None, 20, 20, 1), (None, 20, 20)]
        assert [spec.dtype for spec in data.element_spec] == [tf.float32, tf.uint8]
        return [array.tobytes() for pair in data.as_numpy_iterator() for array in pair]

    serial = run(None)
    assert len(serial) == 14  # the last batch has two images
    assert len(set(serial)) == 14
    for parallel in (1, 4, tf.data.AUTOTUNE):
        assert run(parallel) == serial


@each_fill
@pytest.mark.parametrize("elastic", [None, Elastic(alpha=0)])
def test_magnitude_zero_is_the_identity(fill: str, elastic: Elastic | None) -> None:
    images, masks = noise(4, 12, 17, 3), noise(4, 12, 17).astype(np.int64)
    zero = Augmentation(affine=Affine(), flip_crop=FlipCrop(pad=0, flip=False), elastic=elastic, fill=fill)
    result, mask = augment(images, masks, [1, 2], zero)
    np.testing.assert_allclose(result, images, atol=1e-4)
    np.testing.assert_array_equal(mask, masks)


def test_nothing_set_changes_nothing() -> None:
    images = tf.constant(noise(2, 5, 5, 1))
    assert augment(images, None, [1, 2], Augmentation(expand_shift=True)) == (images, None)


@each_fill
@each_part
def test_image_and_mask_move_together(augmentation: Augmentation, fill: str) -> None:
    masks = (smooth(16, 64, 64, 1) > 0).astype(np.int32)[..., 0]
    augmentation = Augmentation(**{**vars(augmentation), "fill": fill})
    result, moved = augment(masks[..., None].astype(np.float32), masks, [3, 4], augmentation)
    assert np.mean((result.numpy()[..., 0] > 0.5) == moved.numpy()) > 0.99
    assert np.mean(moved.numpy() == masks) < 0.95


def test_dihedral_draws_exactly_the_eight_symmetries() -> None:
    image = noise(1, 9, 9, 2)[0]
    known = [np.rot90(form, turns) for form in (image, image[:, ::-1]) for turns in range(4)]
    result, masks = augment(
        np.repeat(image[None], 400, axis=0),
        np.repeat(image[None, ..., 0].astype(int), 400, axis=0),
        [1, 2],
        PARTS["dihedral"],
    )
    counts = np.zeros(8)
    for drawn, mask in zip(result.numpy(), masks.numpy(), strict=True):
        which = int(np.argmin([np.abs(drawn - form).max() for form in known]))
        np.testing.assert_allclose(drawn, known[which], atol=1e-4)
        np.testing.assert_array_equal(mask, known[which][..., 0].astype(int))
        counts[which] += 1
    assert counts.min() > 25  # 50 expected of each, standard deviation 7


def test_dihedral_keeps_the_shape_of_a_rectangle() -> None:
    image = noise(1, 6, 9, 1)[0]
    result = augment(np.repeat(image[None], 60, axis=0), None, [1, 2], PARTS["dihedral"])[0].numpy()
    known = {form.tobytes() for form in (image, image[:, ::-1], image[::-1], image[::-1, ::-1])}
    assert {form.tobytes() for form in result} == known


@pytest.mark.parametrize("flip", [True, False])
def test_flip_crop_is_a_whole_shift_and_a_flip(flip: bool) -> None:
    image, pad = noise(1, 8, 10, 1)[0], 2
    padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])
    crops = {(y, x): padded[y : y + 8, x : x + 10] for y in range(5) for x in range(5)}
    known = {crop.tobytes(): (*where, False) for where, crop in crops.items()}
    known |= {crop[:, ::-1].tobytes(): (*where, True) for where, crop in crops.items()} if flip else {}
    result = augment(np.repeat(image[None], 600, axis=0), None, [1, 2], Augmentation(flip_crop=FlipCrop(pad, flip)))
    drawn = [known[form.tobytes()] for form in result[0].numpy()]
    assert set(drawn) == set(known.values())
    assert np.mean([flipped for *_, flipped in drawn]) == pytest.approx(0.5 if flip else 0, abs=0.1)


def test_elastic_field_is_simards() -> None:
    uniform = np.random.default_rng(0).uniform(-1, 1, (8, 2, 60, 72)).astype(np.float32)
    field = displacement(tf.constant(uniform), Elastic(alpha=34, sigma=4)).numpy()
    expected = 34 * scipy.ndimage.gaussian_filter(uniform, (0, 0, 4, 4), mode="constant", truncate=8)
    np.testing.assert_allclose(field, expected, atol=1e-4)
    kernel = np.exp(-0.5 * (np.arange(-30, 31) / 4) ** 2)
    spread = np.sqrt(1 / 3) * 34 * np.sum((kernel / kernel.sum()) ** 2)  # about 1.4 pixels
    assert field[..., 15:-15, 15:-15].std() == pytest.approx(spread, rel=0.15)


def test_elastic_reads_where_its_field_says() -> None:
    where = augment(coordinates(64, 60, 72), None, [1, 2], PARTS["elastic"])[0] - coordinates(64, 60, 72)
    inside = where.numpy()[:, 15:-15, 15:-15]
    assert inside.std(axis=(0, 1, 2)) == pytest.approx([1.38, 1.38], rel=0.1)
    assert abs(np.corrcoef(inside[..., 0].ravel(), inside[..., 1].ravel())[0, 1]) < 0.2


def test_shift_expansion_is_nielsens() -> None:
    images, masks = noise(5, 6, 7, 2), noise(5, 6, 7).astype(np.uint8)
    result, moved = shift_expansion(images, masks, np.arange(5))
    for before, after in ((images, result.numpy()), (masks, moved.numpy())):
        expected = np.zeros_like(before)
        expected[0] = before[0]
        expected[1][:-1] = before[1][1:]
        expected[2][1:] = before[2][:-1]
        expected[3][:, :-1] = before[3][:, 1:]
        expected[4][:, 1:] = before[4][:, :-1]
        np.testing.assert_array_equal(after, expected)
    assert expansion(Augmentation(expand_shift=True)) == 5
    assert expansion(PARTS["all"]) == 1


@each_fill
@pytest.mark.parametrize("through_gather", [False, True])
@pytest.mark.parametrize(("rotation", "scale", "skew"), [(90, 1, 0), (25, 1, 0), (-140, 1.3, 12)])
def test_affine_against_scipy(rotation: float, scale: float, skew: float, through_gather: bool, fill: str) -> None:
    height, width = 24, 31
    image, labels = smooth(1, height, width, 1), noise(1, height, width).astype(np.int32)
    turn, lean = np.deg2rad(rotation), np.tan(np.deg2rad(skew))
    # Rows and columns in SciPy's order (y, x); counterclockwise as the image is displayed.
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ [[1, 0], [lean, 1]] / scale
    center = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = center + np.array([1.25, -2.5]) - matrix @ center
    linear = affine_map(*(tf.constant([value], tf.float32) for value in (rotation, scale, skew)))
    field = tf.zeros([1, 2, height, width]) if through_gather else None
    result, mask = warp(image, labels, linear, tf.constant([[-2.5, 1.25]]), field, fill)
    mode = {"constant": "grid-constant", "reflect": "reflect"}[fill]
    expected = scipy.ndimage.affine_transform(image[0, ..., 0], matrix, offset, order=1, mode=mode)
    np.testing.assert_allclose(result[0, ..., 0], expected, atol=0.02)
    expected = scipy.ndimage.affine_transform(labels[0], matrix, offset, order=0, mode=mode)
    assert np.mean(mask[0].numpy() == expected) > 0.99  # ties may fall to either side


def test_rotation_by_a_quarter_is_rot90() -> None:
    image = noise(1, 9, 9, 1)
    linear = affine_map(*(tf.constant([value], tf.float32) for value in (90, 1, 0)))
    result = warp(image, None, linear, tf.zeros([1, 2]))[0]
    np.testing.assert_allclose(result[0], np.rot90(image[0]), atol=0.01)


def test_affine_ranges() -> None:
    def uniform(drawn: np.ndarray, most: float) -> None:
        assert np.abs(drawn).max() <= most * 1.001
        assert drawn.std() == pytest.approx(most / np.sqrt(3), rel=0.1)
        assert abs(drawn.mean()) < 0.15 * most

    linear, shift = read_points(40, 60, 400, Augmentation(affine=Affine(rotation=30)))
    uniform(np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0])), 30)
    np.testing.assert_allclose(np.linalg.det(linear), 1, atol=1e-3)
    np.testing.assert_allclose(shift, 0, atol=1e-3)
    _, shift = read_points(40, 60, 400, Augmentation(affine=Affine(translation=0.1)))
    uniform(shift[:, 0], 6)
    uniform(shift[:, 1], 4)
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.15
    linear, _ = read_points(40, 60, 400, Augmentation(affine=Affine(scale=0.2)))
    uniform(1 / linear[:, 0, 0] - 1, 0.2)
    np.testing.assert_allclose(linear[:, 1, 1], linear[:, 0, 0], atol=1e-3)
    linear, _ = read_points(40, 60, 400, Augmentation(affine=Affine(skew=20)))
    uniform(np.rad2deg(np.arctan(linear[:, 0, 1])), 20)
    np.testing.assert_allclose(linear[:, 1], np.broadcast_to([0, 1], (400, 2)), atol=1e-3)


def test_affine_draws_are_independent() -> None:
    linear, shift = read_points(60, 60, 600, Augmentation(affine=Affine(20, 0.05, 0.2, 20)))
    turn, scale = np.arctan2(linear[:, 1, 0], linear[:, 0, 0]), 1 / np.hypot(linear[:, 0, 0], linear[:, 1, 0])
    lean = scale * (np.cos(turn) * linear[:, 0, 1] + np.sin(turn) * linear[:, 1, 1])
    correlation = np.corrcoef([turn, scale, lean, *shift.T])
    np.testing.assert_allclose(correlation, np.eye(5), atol=0.15)  # standard deviation 0.04


@pytest.mark.parametrize("elastic", [None, Elastic(alpha=0)])
def test_all_parts_are_composed(elastic: Elastic | None) -> None:
    parts = {"affine": Affine(rotation=20, scale=0.2), "elastic": elastic, "flip_crop": FlipCrop(3), "dihedral": True}
    linear, shift = read_points(40, 40, 800, Augmentation(**parts))
    symmetry = np.round(linear)
    assert np.unique(symmetry, axis=0, return_counts=True)[1] == pytest.approx([100] * 8, abs=35)
    rest = linear @ np.linalg.inv(symmetry)
    assert np.rad2deg(np.arctan2(rest[:, 1, 0], rest[:, 0, 0])).std() == pytest.approx(20 / np.sqrt(3), rel=0.1)
    assert (1 / np.sqrt(np.linalg.det(rest))).std() == pytest.approx(0.2 / np.sqrt(3), rel=0.1)
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-3)
    assert set(np.unique(np.round(shift))) == set(range(-3, 4))


@pytest.mark.parametrize("field", [None, np.zeros((1, 2, 4, 6), np.float32)])
def test_fill(field: np.ndarray | None) -> None:
    image, shift = noise(1, 4, 6, 1), tf.constant([[3.0, -1.0]])
    padded = {"constant": np.pad(image[0, ..., 0], 3), "reflect": np.pad(image[0, ..., 0], 3, mode="symmetric")}
    for fill, around in padded.items():
        result, mask = warp(image, image[..., 0].astype(int), tf.eye(2)[None], shift, field, fill)
        np.testing.assert_allclose(result[0, ..., 0], around[2:6, 6:12], atol=1e-4)
        np.testing.assert_array_equal(mask[0], around[2:6, 6:12].astype(int))


@pytest.mark.parametrize(
    "parts", [{"affine": AFFINE}, {"elastic": Elastic()}, {"affine": AFFINE, "elastic": Elastic()}]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_that_is_warped(share: float, parts: dict) -> None:
    """The others keep every gray value, also those that a symmetry moves."""
    images = noise(300, 12, 12, 1)
    masks = images[..., 0].astype(np.int32)
    result, moved = augment(images, masks, [1, 2], Augmentation(**parts, dihedral=True, fill="reflect", warped=share))
    before, after = (np.sort(np.reshape(each, (300, -1))) for each in (images, result))
    kept = (before == after).all(axis=1)
    assert 1 - kept.mean() == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)
    np.testing.assert_array_equal(np.asarray(result)[kept, ..., 0].astype(np.int32), np.asarray(moved)[kept])


@pytest.mark.parametrize(("contrast", "brightness"), [(0.4, 0.0), (0.0, 0.5), (0.4, 0.5)])
def test_color_jitter_draws_contrast_and_brightness_of_each_image(contrast: float, brightness: float) -> None:
    images = noise(400, 6, 7, 2) * [1, 3]  # two channels of their own range
    result = color_jitter(tf.constant(images, tf.float32), [1, 2], ColorJitter(contrast, brightness)).numpy()
    (mean, std), (new_mean, new_std) = ((each.mean((1, 2)), each.std((1, 2))) for each in (images, result))
    factor, moved = new_std / std - 1, (new_mean - mean) / std
    for drawn, most in ((factor, contrast), (moved, brightness)):
        np.testing.assert_allclose(drawn[:, 0], drawn[:, 1], atol=1e-4)  # one draw for all channels
        assert np.abs(drawn).max() <= most + 1e-4
        assert drawn.std() == pytest.approx(most / np.sqrt(3), rel=0.1, abs=1e-4)
    expected = (images - mean[:, None, None]) * (1 + factor)[:, None, None] + new_mean[:, None, None]
    np.testing.assert_allclose(result, expected, atol=1e-2)
    if contrast and brightness:
        assert abs(np.corrcoef(factor[:, 0], moved[:, 0])[0, 1]) < 0.2


@settings(max_examples=30, deadline=None)
@given(
    seed=st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2),
    affine=st.builds(Affine, *[st.floats(0, high) for high in (180, 1, 0.9, 60)]) | st.none(),
    elastic=st.builds(Elastic, st.floats(0, 200), st.floats(0.2, 30)) | st.none(),
    flip_crop=st.builds(FlipCrop, st.integers(0, 12), st.booleans()) | st.none(),
    dihedral=st.booleans(),
    fill=st.sampled_from(["constant", "reflect"]),
    size=st.sampled_from([(8, 8), (5, 11)]),
)
def test_no_new_values_and_no_new_labels(seed: tuple[int, int], size: tuple[int, int], **parts: object) -> None:
    images, masks = noise(3, *size, 2) + 10, np.random.default_rng(0).choice([3, 7, 255], (3, *size))
    result, labels = augment(images, masks, tf.constant(seed, tf.int32), Augmentation(**parts))
    beyond = {0} if parts["fill"] == "constant" else set()
    assert result.shape == images.shape
    assert np.min(result) >= (0 if beyond else images.min()) - 1e-3
    assert np.max(result) <= images.max() + 1e-3
    assert labels.shape == masks.shape
    assert set(np.unique(labels)) <= {3, 7, 255} | beyond


def test_a_resized_crop_fills_the_window_with_a_part_of_the_image() -> None:
    height, width, window = 40, 60, (20, 30)
    images = coordinates(2000, height, width)
    crop = Augmentation(resized_crop=ResizedCrop(least_area=0.3, ratio=1.5), fill="reflect")
    moved, _ = augment(images, None, (1, 2), crop, window=window)
    x, y = np.moveaxis(moved.numpy()[:, 10:30, 15:45], -1, 0)
    across, down = (x[:, 0, -1] - x[:, 0, 0]) * 30 / 29, (y[:, -1, 0] - y[:, 0, 0]) * 20 / 19  # whole pixels
    area = across * down / (height * width)
    assert 0.29 < area.min() < 0.32
    assert area.max() <= 1.001
    uncut = (across < width - 0.1) & (down < height - 0.1)
    assert area[uncut].mean() == pytest.approx(0.6, abs=0.1)
    ratio = np.log((across / down)[uncut])
    assert np.abs(ratio).max() <= np.log(1.5) + 1e-3
    assert x.min() >= -0.5
    assert x.max() <= width - 0.5
    assert y.min() >= -0.5
    assert y.max() <= height - 0.5
    assert x[:, 0, 0].std() > 3  # from different places


def test_color_pca_moves_colors_along_their_principal_components() -> None:
    spread = np.array([[40.0, 30.0, 20.0], [5.0, -5.0, 0.0], [1.0, 1.0, -3.0]])
    colors = 128 + np.random.default_rng(0).normal(size=(20_000, 3)) @ spread
    pca = fitted(ColorPca(), colors.reshape(20, 100, 10, 3))
    images = noise(3000, 2, 2, 3)
    added = color_pca(images, (3, 4), pca).numpy() - images
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-3)
    values, vectors = np.linalg.eigh(np.cov(colors, rowvar=False) / 255**2)
    shares = added[:, 0, 0] / 255 @ vectors / values
    np.testing.assert_allclose(shares.std(axis=0), 0.1, rtol=0.1)
    np.testing.assert_allclose(shares.mean(axis=0), 0, atol=0.01)
    np.testing.assert_array_equal(color_pca(images, (3, 4), pca), color_pca(images, (3, 4), pca))


def test_cutout_sets_a_square_to_zero() -> None:
    images = 1 + noise(500, 12, 10, 2)
    cut, targets = vary_inputs((tf.constant(images), tf.zeros([500, 2])), (0, 1), Augmentation(cutout=4))
    holes = (cut.numpy() == 0).all(axis=3)
    assert holes.sum(axis=(1, 2)).max() == 16
    assert (holes.sum(axis=(1, 2)) >= 4).all()  # a corner
    assert holes.any(axis=0).all()
    np.testing.assert_array_equal(cut.numpy()[~holes], images[~holes])
    assert not targets.numpy().any()


def test_mixup_mixes_inputs_and_targets_by_the_same_share() -> None:
    inputs = tf.reshape(tf.range(1000, dtype=tf.float32), [-1, 1, 1, 1])
    targets = tf.reshape(inputs, [-1, 1])
    mixed, labels = vary_inputs((inputs, targets), (0, 1), Augmentation(mixup=0.2))
    np.testing.assert_allclose(mixed[:, 0, 0], labels, rtol=1e-5)
    share = np.arange(1, 1000) - labels.numpy()[1:, 0]  # of the one before
    assert 0 <= share.min() < 0.001
    assert 0.999 < share.max() <= 1.001
    assert np.var(share) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.1)  # of the beta distribution


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ZooError, match="sigma above 0"):
        Elastic(sigma=0)
    with pytest.raises(ZooError, match="contrast from 0 to below 1, not 1"):
        ColorJitter(contrast=1)
    with pytest.raises(ZooError, match="warped share from 0 to 1, not 2"):
        Augmentation(warped=2)
    any_size = tf.TensorSpec([None, None, None, 1])
    graph = tf.function(lambda x: augment(x, None, [1, 2], PARTS["affine"])[0], [any_size], autograph=False)
    with pytest.raises(ZooError, match="resize them first"):
        graph.get_concrete_function()
