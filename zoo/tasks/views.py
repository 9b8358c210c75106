"""Test-time augmentation: the mean of a network's probabilities over several views of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from etils import epy

from zoo.errors import ZooError, unknown

with epy.lazy_imports():
    import tensorflow as tf

Views = list[tuple[float, Any]]  # pairs of a weight, and images [B, H, W, C]; the weights sum to 1
Window = tuple[int, int] | None  # height and width that the preprocessing cuts images to


def check(names: Iterable[str], crop_to: Window) -> tuple[str, ...]:
    """The names of views as a tuple.

    Args:
        crop_to: the window of the preprocessing, None for none.

    Raises:
        ZooError: for an unknown name, and for crops without a preprocessing that crops.
    """
    names = tuple(names)
    for name in names:
        if name not in VIEWS:
            raise unknown("test-time augmentation", name, VIEWS)
    if "crops" in names and crop_to is None:
        raise ZooError(
            "test-time augmentation by crops needs a network whose preprocessing crops: take mirror or shift"
        )
    return names


def averaged(
    probabilities: Callable[[tf.Tensor], tf.Tensor],
    images: tf.Tensor,
    names: Iterable[str],
    crop_to: Window,
) -> tf.Tensor:
    """The weighted mean of probabilities [B, K] over the views.

    Args:
        probabilities: from network inputs [B, h, w, C].
        images: float32 [B, H, W, C], scaled as the network takes them, before `crop_to` cuts them.
        names: `mirror`, left and right exchanged; `shift`, one pixel up and left, and down and right, which weigh a
            quarter each (Jordan 2024, section 3.5); `crops`, the four corners and the center (Krizhevsky et al. 2012,
            section 4.1).
    """
    views: Views = [(1.0, images)]
    if "crops" not in names and crop_to is not None:
        views = [(1.0, _windows(images, crop_to)[-1])]
    for name in names:
        views = [(weight * part, view) for weight, image in views for part, view in VIEWS[name](image, crop_to)]
    return tf.add_n([weight * probabilities(view) for weight, view in views])


def _mirror(images: tf.Tensor, crop_to: Window) -> Views:
    return [(0.5, images), (0.5, tf.reverse(images, [2]))]


def _shift(images: tf.Tensor, crop_to: Window) -> Views:
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    return [(0.5, images), (0.25, padded[:, :-2, :-2]), (0.25, padded[:, 2:, 2:])]


def _crops(images: tf.Tensor, crop_to: Window) -> Views:
    assert crop_to is not None, "checked by `check`"
    return [(0.2, window) for window in _windows(images, crop_to)]


def _windows(images: tf.Tensor, size: tuple[int, int]) -> list[tf.Tensor]:
    """The four corners and the center of images."""
    height, width = size
    down, right = images.shape[1] - height, images.shape[2] - width
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    return [images[:, top : top + height, left : left + width] for top, left in places]


VIEWS: dict[str, Callable[[Any, Window], Views]] = {
    "crops": _crops,
    "mirror": _mirror,
    "shift": _shift,
}
