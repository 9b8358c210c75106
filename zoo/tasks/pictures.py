"""Pictures of generated images: grids, and animations of grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.errors import ZooError
from zoo.files import written

STILL, ANIMATED = (".png", ".webp", ".jpg", ".jpeg", ".gif"), (".gif", ".webp")
MARGIN = 2  # pixels between images


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images uint8 [N, H, W, C] in rows, uint8 [H', W', C], in a square by default; gaps and empty places are white."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = height + MARGIN, width + MARGIN
    canvas = np.full((rows * height + MARGIN, columns * width + MARGIN, channels), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (
            MARGIN + place * side for place, side in zip(divmod(number, columns), (height, width), strict=True)
        )
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def above(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairs of images uint8 [N, H, W, C], one above the other and a white line between, uint8 [N, 2 H + 1, W, C]."""
    line = np.full_like(images[:, :1], 255)
    return np.concatenate([images, line, others], axis=1)


def as_image(pixels: np.ndarray) -> Image.Image:
    """A picture uint8 [H, W, C], gray or color."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def check_suffix(path: Path, animated: bool) -> None:
    """Raises ZooError for a file whose format cannot hold the picture."""
    known = ANIMATED if animated else STILL
    if path.suffix.lower() not in known:
        raise ZooError(f"{path} has an unknown format: give a {', '.join(known)} file")


def write(path: Path, frames: Sequence[np.ndarray], *, milliseconds: int = 100) -> None:
    """Write one picture, uint8 [H, W, C], or an endless animation of several.

    Args:
        milliseconds: how long a frame is shown.
    """
    check_suffix(path, animated=len(frames) > 1)
    first, *others = map(as_image, frames)
    animation = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0} if others else {}
    exact = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    with written(path) as temporary:
        kind = {".jpg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
        first.save(temporary, kind, **animation, **exact)
