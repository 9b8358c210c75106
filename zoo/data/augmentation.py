"""Random shifts, affine maps, elastic distortions, symmetries and contrast of whole batches, drawn by the seed alone.

Everything runs in the graph with stateless random numbers, so that a batch depends on its content and its seed, never
on the order or the number of threads in which a `tf.data` map computes it. All geometry is composed into one map
from the points of the result to the points of the picture, and each picture is interpolated once.

Coordinates are (x, y) in pixels: x along the width, y down along the height, both from 0 at the first pixel's middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from etils import epy

from zoo.data.dataset import IGNORED
from zoo.errors import ZooError
from zoo.recipe import Augmentation, ColorJitter, Elastic, Patches

with epy.lazy_imports():
    import tensorflow as tf

Fill = Literal["constant", "reflect"]

# What each symmetry of the square does to (x, y) about the centre; the first four also keep a rectangle's shape.
_SYMMETRIES = np.array(
    [
        [[1, 0], [0, 1]],
        [[-1, 0], [0, 1]],
        [[1, 0], [0, -1]],
        [[-1, 0], [0, -1]],
        [[0, 1], [1, 0]],
        [[0, -1], [1, 0]],
        [[0, 1], [-1, 0]],
        [[0, -1], [-1, 0]],
    ],
    np.float32,
)

# Nielsen's expand_mnist: as is, then one pixel up, down, left and right. A result's pixel is read at (x, y) plus this.
_SHIFTS = np.array([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]], np.float32)


def augment(
    images: tf.Tensor, masks: tf.Tensor | None, seed: tf.Tensor, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Images and their masks under one random map for each: bilinear for images, nearest neighbour for masks.

    `expand_shift`, `patches` and `color_jitter` come before it: `shift_expansion`, `random_patches`, `color_jitter`.

    Args:
        images: float32 [batch, height, width, channel] in any range; only the batch may be of unknown size.
        masks: any integers [batch, height, width] or [batch, height, width, class], or None.
        seed: int32 [2]; the same seed gives the same maps, so give each batch of each epoch its own.
        augmentation: what is drawn, and from which ranges.

    Returns:
        Images and masks of the same shapes, types and ranges; where the map leaves the picture, `fill` decides.
    """
    affine, elastic, flip_crop = augmentation.affine, augmentation.elastic, augmentation.flip_crop
    if not (affine or elastic or flip_crop or augmentation.dihedral):
        return images, masks
    batch, (height, width) = tf.shape(images)[0], _size(images)
    affine_seed, crop_seed, flip_seed, dihedral_seed, elastic_seed = tf.unstack(tf.random.split(seed, 5))
    linear, shift, field = tf.eye(2, batch_shape=[batch]), tf.zeros([batch, 2]), None
    warped = tf.random.stateless_uniform([batch, 1], tf.random.fold_in(seed, 1)) < augmentation.warped
    warped = tf.cast(warped, tf.float32)
    if affine:
        draw = warped * tf.random.stateless_uniform([batch, 5], affine_seed, -1.0, 1.0)
        rotation, scale, skew, across, down = tf.unstack(draw, axis=1)
        linear = affine_map(affine.rotation * rotation, 1 + affine.scale * scale, affine.skew * skew)
        shift = affine.translation * tf.stack([across * width, down * height], axis=1)
    if augmentation.dihedral:
        kinds = 8 if height == width else 4
        kind = tf.random.stateless_uniform([batch], dihedral_seed, 0, kinds, tf.int32)
        linear = linear @ tf.gather(tf.constant(_SYMMETRIES), kind)
    if flip_crop:
        pad = flip_crop.pad
        crop = tf.random.stateless_uniform([batch, 2], crop_seed, -pad, pad + 1, tf.int32)
        shift += tf.cast(crop, tf.float32)
        if flip_crop.flip:
            flipped = tf.random.stateless_uniform([batch, 1, 1], flip_seed) < 0.5
            linear = linear @ tf.where(flipped, _SYMMETRIES[1], _SYMMETRIES[0])
    if elastic:
        noise = tf.random.stateless_uniform([batch, 2, height, width], elastic_seed, -1.0, 1.0)
        field = warped[:, :, None, None] * displacement(noise, elastic)
    return warp(images, masks, linear, shift, field, augmentation.fill)


def expansion(augmentation: Augmentation) -> int:
    """How many examples of each image an epoch has: 5 with `expand_shift`, `per_image` with `patches`, else 1."""
    if augmentation.patches:
        return augmentation.patches.per_image
    return len(_SHIFTS) if augmentation.expand_shift else 1


def random_patches(
    arrays: Sequence[tf.Tensor], index: tf.Tensor, seed: tf.Tensor, patches: Patches, classes: int
) -> tuple[tf.Tensor, ...]:
    """A random window of each of some images, the same in every array.

    Where some pixels are ignored, its middle lies on one that is not, as near as the image's edges let it; with
    `patches.balanced` on one of a class that is drawn first, or on any where the image has none of that class.

    Args:
        arrays: images [N, H, W, C], masks of integers [N, H, W] or [N, H, W, K], and what else has these axes; the
            tensors themselves, not a graph's.
        index: int32 [batch], the images' numbers.
        seed: int32 [2].

    Returns:
        Each array's windows, [batch, min(size, H), min(size, W), ...].
    """
    masks = arrays[1]
    whole = np.array(masks.shape[1:3], np.int32)
    sides = np.minimum(whole, patches.size)
    by_middle = patches.balanced or bool((masks.numpy() == IGNORED).any())

    def middle(mask: tf.Tensor, place_seed: tf.Tensor, class_seed: tf.Tensor) -> tf.Tensor:
        known = (mask if mask.shape.rank == 2 else mask[..., 0]) != IGNORED
        if patches.balanced:
            drawn = tf.random.stateless_uniform([], class_seed, 0, classes, tf.int32)
            of_class = (
                mask == tf.cast(drawn, mask.dtype) if mask.shape.rank == 2 else tf.gather(mask, drawn, axis=2) == 1
            )
            known = tf.where(tf.reduce_any(of_class), of_class, known)
        known |= ~tf.reduce_any(known)  # anywhere on an image of which nothing is known
        places = tf.cast(tf.where(known), tf.int32)
        return places[tf.random.stateless_uniform([], place_seed, 0, tf.shape(places)[0], tf.int32)]

    def cut(drawn: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        number, key = drawn
        place_seed, class_seed = tf.unstack(tf.random.split(key, 2))
        if by_middle:
            corner = tf.clip_by_value(middle(masks[number], place_seed, class_seed) - sides // 2, 0, whole - sides)
        else:
            corner = tf.cast(tf.random.stateless_uniform([2], place_seed) * (whole - sides + 1), tf.int32)
        (top, left), (bottom, right) = tf.unstack(corner), tf.unstack(corner + sides)
        return tuple(array[number, top:bottom, left:right] for array in arrays)

    shapes = tuple(tf.TensorSpec([*sides, *array.shape[3:]], array.dtype) for array in arrays)
    keys = tf.map_fn(
        lambda number: tf.random.fold_in(seed, number), tf.range(tf.shape(index)[0]), fn_output_signature=tf.int32
    )
    windows = tf.map_fn(cut, (index, keys), fn_output_signature=shapes)
    return tuple(tf.ensure_shape(window, [None, *shape.shape]) for window, shape in zip(windows, shapes, strict=True))


def shift_expansion(images: tf.Tensor, masks: tf.Tensor | None, shift: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Each image and its mask moved by one pixel, zeros moving in (Nielsen, chapter 6, `expand_mnist.py`).

    Args:
        images: float32 [batch, height, width, channel].
        masks: any integers [batch, height, width], or None.
        shift: integers [batch]: 0 for none, 1 to 4 for one pixel up, down, left and right.

    Returns:
        Images and masks of the same shapes and types.
    """
    linear = tf.eye(2, batch_shape=[tf.shape(images)[0]])
    return warp(images, masks, linear, tf.gather(tf.constant(_SHIFTS), shift))


def color_jitter(images: tf.Tensor, seed: tf.Tensor, jitter: ColorJitter) -> tf.Tensor:
    """Images of another contrast and brightness each, the same for all of its channels; nothing is clipped.

    Args:
        images: float32 [batch, height, width, channel] in any range.
        seed: int32 [2], of which a map of the same images may be drawn too.
    """
    draw = tf.random.stateless_uniform([2, tf.shape(images)[0], 1, 1, 1], tf.random.fold_in(seed, 0), -1.0, 1.0)
    contrast, brightness = tf.unstack(draw)
    mean, variance = tf.nn.moments(images, axes=[1, 2], keepdims=True)
    moved = mean + jitter.brightness * brightness * tf.sqrt(variance)
    return moved + (1 + jitter.contrast * contrast) * (images - mean)


def affine_map(rotation: tf.Tensor, scale: tf.Tensor, skew: tf.Tensor) -> tf.Tensor:
    """Matrices for `warp` that turn, enlarge and skew pictures.

    Args:
        rotation: float32 [batch], degrees counter-clockwise.
        scale: float32 [batch], the factor by which the picture grows.
        skew: float32 [batch], degrees by which vertical lines lean (the horizontal shearing of LeCun et al. 1998).

    Returns:
        float32 [batch, 2, 2], from points of the result to points of the picture.
    """
    angle, lean = rotation * (np.pi / 180), tf.tan(skew * (np.pi / 180))
    sin, cos = tf.sin(angle), tf.cos(angle)
    rows = [[cos, lean * cos - sin], [sin, lean * sin + cos]]  # rotation matrix times [[1, lean], [0, 1]]
    return tf.stack([tf.stack(row, axis=1) for row in rows], axis=1) / scale[:, None, None]


def displacement(noise: tf.Tensor, elastic: Elastic) -> tf.Tensor:
    """Simard's elastic field: noise smoothed by a Gaussian and multiplied by `alpha`, not normalised again.

    Two dense products smooth exactly, and here faster than a convolution. Noise counts as zero beyond the edges.

    Args:
        noise: float32 [batch, 2, height, width], uniform in [-1, 1].

    Returns:
        float32 [batch, 2, height, width]: the displacement along x and along y in pixels, of standard deviation
        sqrt(1/3) * alpha / (2 * sqrt(pi) * sigma) away from the edges: 1.4 pixels for the paper's best, 34 and 4.
    """
    down, along = (_gaussian(side, elastic.sigma) for side in noise.shape[2:])
    return elastic.alpha * (down @ noise @ along)


def warp(
    images: tf.Tensor,
    masks: tf.Tensor | None,
    linear: tf.Tensor,
    shift: tf.Tensor,
    field: tf.Tensor | None = None,
    fill: Fill = "constant",
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Reads the result's pixel p = (x, y) at `linear` (p - centre) + centre + `shift` + `field`(p) of the picture.

    Args:
        images: float32 [batch, height, width, channel], interpolated bilinearly.
        masks: any integers [batch, height, width] or [batch, height, width, class], of which the nearest is taken,
            or None.
        linear: float32 [batch, 2, 2].
        shift: float32 [batch, 2] in pixels.
        field: float32 [batch, 2, height, width] in pixels, or None.
        fill: beyond the edge lie zeros (`constant`), or the picture mirrored at it, edge pixel first (`reflect`).

    Returns:
        Images and masks of the same shapes and types.
    """
    height, width = _size(images)
    centre = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    offset = centre + shift - tf.reduce_sum(linear * centre, axis=2)
    if field is None:
        rows = tf.reshape(tf.concat([linear, offset[:, :, None]], axis=2), [-1, 6])
        points = tf.pad(rows, [[0, 0], [0, 2]])  # the last two of the eight numbers: no perspective
        sample = _project
    else:
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        affine = linear[:, :, 0, None, None] * x + linear[:, :, 1, None, None] * y + offset[:, :, None, None]
        points = affine + field
        sample = _gather
    images = sample(images, points, fill, False)
    if masks is not None:
        layers = tf.cast(masks if len(masks.shape) == 4 else masks[..., None], tf.int32)
        masks = tf.cast(tf.reshape(sample(layers, points, fill, True), tf.shape(masks)), masks.dtype)
    return images, masks


def _project(pictures: tf.Tensor, transforms: tf.Tensor, fill: Fill, nearest: bool) -> tf.Tensor:
    """[batch, height, width, channel] read through projective transforms, float32 [batch, 8]."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=transforms,
        output_shape=_size(pictures),
        fill_value=0.0,
        interpolation="NEAREST" if nearest else "BILINEAR",
        fill_mode=fill.upper(),
    )


def _gather(pictures: tf.Tensor, points: tf.Tensor, fill: Fill, nearest: bool) -> tf.Tensor:
    """[batch, height, width, channel] read at points, float32 [batch, 2, height, width]; edges as in `_project`."""
    height, width = _size(pictures)
    # A border holds what lies beyond the edge, so that no corner needs a case of its own: one pixel, and one more on
    # the far sides for the neighbours of its last pixels, which have weight 0.
    pictures = tf.pad(pictures, [[0, 0], [1, 2], [1, 2], [0, 0]], "SYMMETRIC" if fill == "reflect" else "CONSTANT")
    first, fraction = [], []
    for axis, side in enumerate((width, height)):
        point = points[:, axis]
        if fill == "reflect":
            point = tf.math.floormod(point + 0.5, 2 * side)
            point = tf.minimum(point, 2 * side - point) - 0.5
        if nearest:
            point = tf.round(point)
        point = tf.clip_by_value(point, -1, side) + 1
        first.append(tf.cast(point, tf.int32))
        fraction.append((point - tf.floor(point))[..., None])
    # One gather from all pixels of the batch in a row is faster than `batch_dims=1` and than `gather_nd`.
    row, pixels = width + 3, tf.reshape(pictures, [-1, pictures.shape[3]])
    start = tf.range(tf.shape(pictures)[0])[:, None, None] * ((height + 3) * row)
    corner = start + first[1] * row + first[0]
    if nearest:
        return tf.gather(pixels, corner)
    upper_left, upper_right = tf.gather(pixels, corner), tf.gather(pixels, corner + 1)
    lower_left, lower_right = tf.gather(pixels, corner + row), tf.gather(pixels, corner + row + 1)
    upper = upper_left + fraction[0] * (upper_right - upper_left)
    lower = lower_left + fraction[0] * (lower_right - lower_left)
    return upper + fraction[1] * (lower - upper)


def _gaussian(side: int, sigma: float) -> tf.Tensor:
    """[side, side], whose product with a column smooths it by a Gaussian of `sigma` pixels (its weights sum to 1)."""
    reach = np.arange(-np.ceil(8 * sigma), np.ceil(8 * sigma) + 1)
    distance = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (distance / sigma) ** 2) / np.exp(-0.5 * (reach / sigma) ** 2).sum()
    return tf.constant(weights, tf.float32)


def _size(pictures: tf.Tensor) -> tuple[int, int]:
    """Height and width in pixels, which the graph must know."""
    height, width = pictures.shape[1:3]
    if height is None or width is None:
        raise ZooError(f"augmentation needs pictures of one known size, not {pictures.shape}: resize them first")
    return height, width
