"""Random augmentation of batches of images: shifts, affine maps, elastic distortions, symmetries, patches, contrast.

Everything runs in the graph with stateless random numbers: a batch depends on its content and its seed, not on the
order or the number of threads in which a `tf.data` map computes it. All geometry is composed into one map from the
points of the output to the points of the input image, so each image is interpolated once.

Coordinates are (x, y) in pixels: x along the width, y down along the height, both 0 at the center of the first pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from etils import epy

from zoo.data.dataset import IGNORED
from zoo.errors import ZooError
from zoo.recipe import Augmentation, ColorJitter, ColorPca, Elastic, Patches, ResizedCrop

with epy.lazy_imports():
    import tensorflow as tf

Fill = Literal["constant", "reflect"]
Sample = Callable[[tf.Tensor, tf.Tensor, Fill, bool], tf.Tensor]

# The symmetries of the square as matrices for (x, y) about the center; the first four also keep a rectangle's shape.
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

# Nielsen's expand_mnist.py: unchanged, then one pixel up, down, left and right. An output pixel is read at its place
# plus this shift (x, y).
_SHIFTS = np.array([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]], np.float32)


def augment(
    images: tf.Tensor,
    masks: tf.Tensor | None,
    seed: tf.Tensor,
    augmentation: Augmentation,
    turn: tf.Tensor | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Moves each image and its mask by one random map: bilinear for images, nearest neighbor for masks.

    `shift_expansion`, `random_patches`, `color_jitter` and `color_pca`, if the augmentation has them, come before it.

    Args:
        images: float32 [batch, height, width, channels] in any range; only the batch axis may have an unknown size.
        masks: any integers [batch, height, width] or [batch, height, width, classes], or None.
        seed: int32 [2]; the same seed draws the same maps, so each batch of each epoch needs its own.
        turn: int32 [batch], of which images are flipped where it is odd; needed for alternating flips alone.
        window: height and width that the middle of the images is cut to afterwards, in their pixels; None for all of
            them.
        augmentation: the kinds of maps and their ranges; its `fill` sets the values of pixels from outside the image.

    Returns:
        Images and masks of the same shapes, types and ranges.

    Raises:
        ZooError: for images whose height or width the graph does not know.
    """
    affine, elastic, flip_crop = augmentation.affine, augmentation.elastic, augmentation.flip_crop
    if not (affine or elastic or flip_crop or augmentation.dihedral or augmentation.resized_crop):
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
            if flip_crop.alternating:
                flipped = tf.reshape(turn, [batch, 1, 1]) % 2 == 1
            linear = linear @ tf.where(flipped, _SYMMETRIES[1], _SYMMETRIES[0])
    if augmentation.resized_crop:
        zoom, moved = resized_crop(augmentation.resized_crop, seed, batch, (height, width), window or (height, width))
        linear, shift = zoom @ linear, shift + moved
    if elastic:
        noise = tf.random.stateless_uniform([batch, 2, height, width], elastic_seed, -1.0, 1.0)
        field = warped[:, :, None, None] * displacement(noise, elastic)
    return warp(images, masks, linear, shift, field, augmentation.fill)


def resized_crop(
    crop: ResizedCrop, seed: tf.Tensor, batch: tf.Tensor, size: tuple[int, int], window: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """The maps, `linear` float32 [batch, 2, 2] and `shift` float32 [batch, 2] of `warp`, that read a random part of
    images of (height, width) `size` into the window in their middle."""
    draw = tf.random.stateless_uniform([4, batch], tf.random.fold_in(seed, 3))
    sides = np.array(size[::-1], np.float32)  # (x, y)
    area = (crop.least_area + (1 - crop.least_area) * draw[0]) * float(np.prod(sides))
    ratio = tf.exp((2 * draw[1] - 1) * np.log(crop.ratio).astype(np.float32))
    part = tf.minimum(tf.sqrt(tf.stack([area * ratio, area / ratio], axis=1)), sides)
    shift = (tf.transpose(draw[2:]) - 0.5) * (sides - part)
    return tf.linalg.diag(part / np.array(window[::-1], np.float32)), shift


def expansion(augmentation: Augmentation) -> int:
    """The number of examples of each image in an epoch: 5 with `expand_shift`, `per_image` with `patches`, else 1."""
    if augmentation.patches:
        return augmentation.patches.per_image
    return len(_SHIFTS) if augmentation.expand_shift else 1


def random_patches(
    arrays: Sequence[tf.Tensor], index: tf.Tensor, seed: tf.Tensor, patches: Patches, classes: int
) -> tuple[tf.Tensor, ...]:
    """A random window of each selected image, at the same place in every array.

    If any pixel of the masks is `IGNORED`, windows are centered on pixels that are not, as far as the image's edges
    allow. With `patches.balanced` they are centered on a pixel of a class that is drawn first, or on any known pixel of
    an image without that class.

    Args:
        arrays: images [N, H, W, C], masks of integers [N, H, W] or [N, H, W, K], and any further arrays with the axes
            [N, H, W, ...]; eager tensors, not symbolic ones.
        index: int32 [batch], positions of the images on axis N.
        seed: int32 [2].
        patches: size of the windows in pixels, and how they are drawn.
        classes: number of classes of the masks.

    Returns:
        The windows of each array, [batch, min(size, H), min(size, W), ...].
    """
    masks = arrays[1]
    whole = np.array(masks.shape[1:3], np.int32)
    sides = np.minimum(whole, patches.size)
    centered = patches.balanced or bool((masks.numpy() == IGNORED).any())

    def center_of(mask: tf.Tensor, place_seed: tf.Tensor, class_seed: tf.Tensor) -> tf.Tensor:
        known = (mask if mask.shape.rank == 2 else mask[..., 0]) != IGNORED
        if patches.balanced:
            drawn = tf.random.stateless_uniform([], class_seed, 0, classes, tf.int32)
            of_class = (
                mask == tf.cast(drawn, mask.dtype) if mask.shape.rank == 2 else tf.gather(mask, drawn, axis=2) == 1
            )
            known = tf.where(tf.reduce_any(of_class), of_class, known)
        known |= ~tf.reduce_any(known)  # anywhere in an image without known pixels
        places = tf.cast(tf.where(known), tf.int32)
        return places[tf.random.stateless_uniform([], place_seed, 0, tf.shape(places)[0], tf.int32)]

    def cut(drawn: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        number, key = drawn
        place_seed, class_seed = tf.unstack(tf.random.split(key, 2))
        if centered:
            corner = tf.clip_by_value(center_of(masks[number], place_seed, class_seed) - sides // 2, 0, whole - sides)
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
    """Shifts each image and its mask by one pixel; the free row or column is zero (Nielsen, Neural Networks and Deep
    Learning, chapter 6, `expand_mnist.py`).

    Args:
        images: float32 [batch, height, width, channels].
        masks: any integers [batch, height, width], or None.
        shift: integers [batch]: 0 for none, 1 to 4 for one pixel up, down, left and right.

    Returns:
        Images and masks of the same shapes and types.
    """
    linear = tf.eye(2, batch_shape=[tf.shape(images)[0]])
    return warp(images, masks, linear, tf.gather(tf.constant(_SHIFTS), shift))


def color_jitter(images: tf.Tensor, seed: tf.Tensor, jitter: ColorJitter) -> tf.Tensor:
    """Changes the contrast and brightness of each image at random, equally for all of its channels.

    Args:
        images: float32 [batch, height, width, channels] in any range.
        seed: int32 [2]; `augment` may use the same seed for the same images.
        jitter: the ranges of contrast and brightness.

    Returns:
        Images of the same shape; their values are not clipped.
    """
    draw = tf.random.stateless_uniform([2, tf.shape(images)[0], 1, 1, 1], tf.random.fold_in(seed, 0), -1.0, 1.0)
    contrast, brightness = tf.unstack(draw)
    mean, variance = tf.nn.moments(images, axes=[1, 2], keepdims=True)
    moved = mean + jitter.brightness * brightness * tf.sqrt(variance)
    return moved + (1 + jitter.contrast * contrast) * (images - mean)


def fitted(pca: ColorPca, images: np.ndarray) -> ColorPca:
    """`pca` with the principal components of the colors of images, numbers [N, H, W, C] from 0 to 255, where it has
    none."""
    if pca.values:
        return pca
    pixels = np.asarray(images).reshape(-1, images.shape[-1]) / 255.0
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(pixels, rowvar=False)))
    return dataclasses.replace(pca, values=tuple(values.tolist()), vectors=tuple(map(tuple, vectors.T.tolist())))


def color_pca(images: tf.Tensor, seed: tf.Tensor, pca: ColorPca) -> tf.Tensor:
    """Adds random multiples of the principal components to the colors of each image, see `zoo.recipe.ColorPca`.

    Args:
        images: float32 [batch, height, width, channels] from 0 to 255.
        seed: int32 [2]; `augment` may use the same seed for the same images.
        pca: with its components, see `fitted`.

    Returns:
        Images of the same shape; their values are not clipped.
    """
    components = np.array(pca.values)[:, None] * np.array(pca.vectors)  # [components, channels]
    draw = tf.random.stateless_normal([tf.shape(images)[0], len(components)], tf.random.fold_in(seed, 2))
    added = 255 * pca.standard_deviation * draw @ tf.constant(components, tf.float32)
    return images + added[:, None, None, :]


def vary_inputs(batch: tuple, seed: tf.Tensor, augmentation: Augmentation) -> tuple:
    """`cutout` and `mixup` of a batch of network inputs [batch, height, width, channels], targets [batch, classes] and
    perhaps weights [batch]; `augment` may use the same seed for the same images."""
    if not (augmentation.cutout or augmentation.mixup):
        return batch  # of whatever kind
    inputs, *rest = batch
    count = tf.shape(inputs)[0]
    if augmentation.cutout:
        height, width = _size(inputs)
        draw = tf.random.stateless_uniform([2, count, 1], tf.random.fold_in(seed, 4))
        first = [tf.floor(draw[axis] * side) - augmentation.cutout // 2 for axis, side in enumerate((height, width))]
        down, across = (
            (tf.range(side, dtype=tf.float32) >= start)
            & (tf.range(side, dtype=tf.float32) < start + augmentation.cutout)
            for side, start in zip((height, width), first, strict=True)
        )
        inputs = tf.where((down[:, :, None] & across[:, None, :])[..., None], 0.0, inputs)
    if augmentation.mixup is None:
        return (inputs, *rest)
    gammas = tf.random.stateless_gamma([2, count], tf.random.fold_in(seed, 5), augmentation.mixup)
    share = gammas[0] / tf.maximum(tf.reduce_sum(gammas, axis=0), 1e-30)

    def mixed(values: tf.Tensor) -> tf.Tensor:
        own = tf.reshape(share, [-1] + [1] * (len(values.shape) - 1))
        return own * values + (1 - own) * tf.roll(values, 1, 0)

    return tuple(mixed(values) for values in (inputs, *rest))


def affine_map(rotation: tf.Tensor, scale: tf.Tensor, skew: tf.Tensor) -> tf.Tensor:
    """Matrices for `warp` that rotate, scale and skew images.

    Args:
        rotation: float32 [batch], degrees counterclockwise.
        scale: float32 [batch], the factor by which the image is enlarged.
        skew: float32 [batch], degrees by which vertical lines lean (horizontal shearing in LeCun et al. 1998).

    Returns:
        float32 [batch, 2, 2], from points of the output to points of the input image.
    """
    angle, lean = rotation * (np.pi / 180), tf.tan(skew * (np.pi / 180))
    sin, cos = tf.sin(angle), tf.cos(angle)
    rows = [[cos, lean * cos - sin], [sin, lean * sin + cos]]  # rotation matrix times [[1, lean], [0, 1]]
    return tf.stack([tf.stack(row, axis=1) for row in rows], axis=1) / scale[:, None, None]


def displacement(noise: tf.Tensor, elastic: Elastic) -> tf.Tensor:
    """The elastic displacement field of Simard et al. 2003, section 2: noise smoothed by a Gaussian and multiplied by
    `alpha`, without normalization. Outside the image the noise counts as zero.

    Args:
        noise: float32 [batch, 2, height, width], uniform in [-1, 1].
        elastic: `sigma` of the Gaussian and `alpha`, both in pixels.

    Returns:
        float32 [batch, 2, height, width]: the displacement along x and along y in pixels. Away from the edges its
        standard deviation is sqrt(1/3) * alpha / (2 * sqrt(pi) * sigma): 1.4 pixels for the paper's best values,
        alpha = 34 and sigma = 4.
    """
    # two dense matrix products are exact, and faster than a convolution at these sizes
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
    """Reads the output pixel p = (x, y) at `linear` (p - center) + center + `shift` + `field`(p) of the input image.

    Args:
        images: float32 [batch, height, width, channels], interpolated bilinearly.
        masks: any integers [batch, height, width] or [batch, height, width, classes], read at the nearest pixel; or
            None.
        linear: float32 [batch, 2, 2].
        shift: float32 [batch, 2] in pixels.
        field: float32 [batch, 2, height, width] in pixels, or None.
        fill: outside the image are zeros (`constant`), or its mirror image, edge pixel first (`reflect`).

    Returns:
        Images and masks of the same shapes and types.

    Raises:
        ZooError: for images whose height or width the graph does not know.
    """
    height, width = _size(images)
    center = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    offset = center + shift - tf.reduce_sum(linear * center, axis=2)
    if field is None:
        rows = tf.reshape(tf.concat([linear, offset[:, :, None]], axis=2), [-1, 6])
        points = tf.pad(rows, [[0, 0], [0, 2]])  # the last two of the eight numbers: no perspective
        sample: Sample = _project
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


def _project(images: tf.Tensor, transforms: tf.Tensor, fill: Fill, nearest: bool) -> tf.Tensor:
    """Images [batch, height, width, channels] read through projective transforms, float32 [batch, 8]."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=_size(images),
        fill_value=0.0,
        interpolation="NEAREST" if nearest else "BILINEAR",
        fill_mode=fill.upper(),
    )


def _gather(images: tf.Tensor, points: tf.Tensor, fill: Fill, nearest: bool) -> tf.Tensor:
    """Images [batch, height, width, channels] read at points, float32 [batch, 2, height, width]; edges as in
    `_project`."""
    height, width = _size(images)
    # A border contains the values outside the image, so that corners need no special case: one pixel, and one more at
    # the bottom and on the right for the neighbors of the border's last pixels, which have weight 0.
    images = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]], "SYMMETRIC" if fill == "reflect" else "CONSTANT")
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
    row, pixels = width + 3, tf.reshape(images, [-1, images.shape[3]])
    start = tf.range(tf.shape(images)[0])[:, None, None] * ((height + 3) * row)
    corner = start + first[1] * row + first[0]
    if nearest:
        return tf.gather(pixels, corner)
    upper_left, upper_right = tf.gather(pixels, corner), tf.gather(pixels, corner + 1)
    lower_left, lower_right = tf.gather(pixels, corner + row), tf.gather(pixels, corner + row + 1)
    upper = upper_left + fraction[0] * (upper_right - upper_left)
    lower = lower_left + fraction[0] * (lower_right - lower_left)
    return upper + fraction[1] * (lower - upper)


def _gaussian(side: int, sigma: float) -> tf.Tensor:
    """A matrix [side, side] that smooths a column by a Gaussian of `sigma` pixels, whose weights sum to 1."""
    reach = np.arange(-np.ceil(8 * sigma), np.ceil(8 * sigma) + 1)
    distance = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (distance / sigma) ** 2) / np.exp(-0.5 * (reach / sigma) ** 2).sum()
    return tf.constant(weights, tf.float32)


def _size(images: tf.Tensor) -> tuple[int, int]:
    """Height and width in pixels; raises ZooError if the graph does not know them."""
    height, width = images.shape[1:3]
    if height is None or width is None:
        raise ZooError(f"augmentation needs images of one known size, not {images.shape}: resize them first")
    return height, width
