"""From a scene to a file with the class of each pixel, and an overlay that shows both."""

from __future__ import annotations

import colorsys
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from zoo.data import rasters
from zoo.errors import ZooError
from zoo.files import naming, written
from zoo.loading import Predictor, Source
from zoo.tasks.segmentation import MaskTask
from zoo.tiling.tiles import Span, predicted_tiles

OVERLAY_SIDE = 2000  # pixels at most
TINT = 0.4  # share of a class's color in the overlay


class Segmented(NamedTuple):
    """What `segment` wrote.

    Attributes:
        shares: by class name the share of the scene's pixels that have the class.
    """

    shares: dict[str, float]
    mask: Path
    overlay: Path


def segment(
    source: Source,
    image: str | os.PathLike,
    mask: str | os.PathLike,
    *,
    tile: int = 1024,
    overlap: int | None = None,
    tta: str | None = None,
    overlay: str | os.PathLike | None = None,
) -> Segmented:
    """Predict the class of each pixel of a scene, tile by tile, and write a mask and an overlay.

    Args:
        source, tile, overlap, tta: as for `predict_tiled`.
        image: the path of a .npy, GeoTIFF (with `zoo[geotiff]`), PNG or JPEG file.
        mask: the file to write, .png, .tif (with `zoo[geotiff]`; it keeps the coordinates of a GeoTIFF) or .npy. It
            contains label values where the class names are such values, as `0` and `255` are, else class numbers; for
            overlapping classes one band a class with the values 0 and 1, which .png cannot hold.
        overlay: the file to write with each class of the image in a color of its own, .png or .jpg, at most 2,000
            pixels a side; `MASK_overlay.png` by default.

    Raises:
        ZooError: as `predict_tiled`, and for files that cannot be written. Neither file is left behind then.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    task, scene = predictor.task, rasters.open_scene(image, predictor.task.preprocessing.background)
    tiles = predicted_tiles(predictor, scene, tile=tile, overlap=overlap, tta=tta)
    assert isinstance(task, MaskTask), "only such a task has tiles"
    suffixes = (*(() if task.overlapping else (".png",)), *rasters.TIFFS, ".npy")
    mask = rasters.check_target(mask, suffixes, image)
    overlay = rasters.check_target(
        overlay or mask.with_name(f"{mask.stem}_overlay.png"), tuple(rasters.PILLOW_FORMATS), image
    )
    if overlay == mask:
        raise ZooError(f"the mask and the overlay cannot both be {mask}")
    values = np.array([0, 1], np.uint8) if task.overlapping else label_values(task.classes)
    bands = (len(task.classes),) if task.overlapping else ()

    factor = -(-max(scene.shape[:2]) // OVERLAY_SIDE)
    height, width = (-(-side // factor) for side in scene.shape[:2])
    reduced = np.zeros((height, width, 3 if scene.shape[-1] >= 3 else 1), scene.dtype)
    labels = np.zeros((height, width, *bands), np.uint16)  # class numbers, or 0 and 1
    counts = np.zeros(len(task.classes), np.int64)
    with contextlib.ExitStack() as files:
        overlay_file = files.enter_context(written(overlay))
        overlay_file.touch()  # a path that cannot be written raises before anything is computed
        write = files.enter_context(
            rasters.new_raster(mask, (*scene.shape[:2], *bands), values.dtype, scene.georeference)
        )
        for rows, columns, pixels, probabilities in tiles:
            decided = task.decide(probabilities[rows.inner, columns.inner]).numpy()
            write(rows.own, columns.own, values[decided])
            if task.overlapping:
                counts += decided.sum((0, 1), np.int64)
            else:
                counts += np.bincount(decided.ravel(), minlength=len(counts))
            (there, here), (across, along) = _sampled(rows, factor), _sampled(columns, factor)
            reduced[there, across] = pixels[rows.inner, columns.inner][here, along, : reduced.shape[-1]]
            labels[there, across] = decided[here, along]
        tinted = Image.fromarray(_tinted(_shades(reduced, scene), labels, len(counts)))
        with naming(overlay):
            tinted.save(overlay_file, rasters.PILLOW_FORMATS[overlay.suffix.lower()])
    shares = counts / (scene.shape[0] * scene.shape[1])
    return Segmented(dict(zip(task.classes, shares.tolist(), strict=True)), mask, overlay)


def label_values(classes: Sequence[str]) -> np.ndarray:
    """The value of each class in a mask, [K]: the number that names it where all classes are named by numbers from 0 to
    65535, as `0` and `255` are, else its position. uint8 where all values fit, else uint16."""
    named = all(name.isdecimal() and int(name) < 2**16 for name in classes)
    values = np.array([int(name) for name in classes] if named else range(len(classes)))
    return values.astype(np.uint8 if values.max() < 2**8 else np.uint16)


def class_color(number: int) -> np.ndarray:
    """The color of a class in overlays, RGB from 0 to 255: hues spaced by the golden ratio, so that all differ."""
    return 255 * np.array(colorsys.hsv_to_rgb((0.6 + number * 0.618034) % 1, 0.9, 1.0))


def _sampled(span: Span, factor: int) -> tuple[slice, slice]:
    """Those of the span's own pixels whose position in the scene is a multiple of `factor`: as a slice of the reduced
    scene, and as a slice of the span's own pixels."""
    first, after = -(-span.own.start // factor), -(-span.own.stop // factor)
    return slice(first, after), slice(first * factor - span.own.start, None, factor)


def _shades(image: np.ndarray, scene: rasters.Scene) -> np.ndarray:
    """An image as float from 0 to 255: unchanged where the scene is 8-bit gray or RGB, else each band stretched between
    its percentiles 2 and 98."""
    if scene.dtype == np.uint8 and scene.shape[-1] in (1, 3):
        return image.astype(np.float32)
    low, high = np.percentile(image, (2, 98), axis=(0, 1))
    return 255 * np.clip((image - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1)


def _tinted(shades: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """An image blended with the colors of the classes of its pixels, uint8 [h, w, 3]."""
    tinted = np.repeat(shades, 3 // shades.shape[-1], axis=-1)
    for number in range(classes):
        pixels = labels == number if labels.ndim == 2 else labels[..., number] == 1
        tinted[pixels] = (1 - TINT) * tinted[pixels] + TINT * class_color(number)
    return np.rint(tinted).astype(np.uint8)
