"""From a scene to a file with the class of each pixel, and a picture that shows both."""

from __future__ import annotations

import colorsys
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from zoo import rasters
from zoo.errors import ZooError
from zoo.files import naming, written
from zoo.loading import Predictor
from zoo.rasters import PICTURES, TIFFS
from zoo.runs import Run
from zoo.tiling import Span, predicted_tiles

OVERLAY_SIDE = 2000  # pixels at most
TINT = 0.4  # share of a class's colour in the overlay


class Segmented(NamedTuple):
    """What `segment` wrote: the share of the scene's pixels by class, and the two files."""

    shares: dict[str, float]
    mask: Path
    overlay: Path


def segment(
    model: str | os.PathLike | Run | Predictor,
    image: str | os.PathLike,
    mask: str | os.PathLike,
    *,
    tile: int = 1024,
    overlap: int | None = None,
    tta: str | None = None,
    overlay: str | os.PathLike | None = None,
) -> Segmented:
    """Decide the class of each pixel of a scene, tile by tile, and write a mask and an overlay.

    Args:
        model, image, tile, overlap, tta: as for `predict_tiled`.
        mask: the file to write, .png, .tif (with `zoo[geotiff]`; where the image is one, with its coordinates) or
            .npy. It holds the label values that name the classes, or their numbers where the names are no such values;
            for classes that may overlap 0 and 1 in a band each, for which .png has no room.
        overlay: a picture of the image with each class in its colour, .png or .jpg, at most 2,000 pixels a side;
            beside the mask by default.

    Raises:
        ZooError: as `predict_tiled`, and for files that cannot be written; nothing is left of them then.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    task, scene = predictor.task, rasters.open_scene(image)
    tiles = predicted_tiles(predictor, scene, tile=tile, overlap=overlap, tta=tta)
    overlapping = task.overlapping
    mask = rasters.check_target(mask, (*(() if overlapping else (".png",)), *TIFFS, ".npy"), image)
    overlay = rasters.check_target(overlay or mask.with_name(f"{mask.stem}_overlay.png"), tuple(PICTURES), image)
    if overlay == mask:
        raise ZooError(f"the mask and the overlay cannot both be {mask}")
    values = np.array([0, 1], np.uint8) if overlapping else label_values(task.classes)
    bands = (len(task.classes),) if overlapping else ()

    factor = -(-max(scene.shape[:2]) // OVERLAY_SIDE)
    small = [-(-side // factor) for side in scene.shape[:2]]
    picture = np.zeros((*small, 3 if scene.shape[-1] >= 3 else 1), scene.dtype)
    shown = np.zeros((*small, *bands), np.uint16)  # class numbers, or 0 and 1
    counts = np.zeros(len(task.classes), np.int64)
    with contextlib.ExitStack() as files:
        picture_path = files.enter_context(written(overlay))
        picture_path.touch()  # what cannot be written is found out before anything is computed
        write = files.enter_context(
            rasters.new_raster(mask, (*scene.shape[:2], *bands), values.dtype, scene.georeference)
        )
        for rows, columns, pixels, probabilities in tiles:
            said = task.decide(probabilities[rows.inner, columns.inner]).numpy()
            write(rows.own, columns.own, values[said])
            counts += said.sum((0, 1), np.int64) if overlapping else np.bincount(said.ravel(), minlength=len(counts))
            (there, here), (across, along) = _sampled(rows, factor), _sampled(columns, factor)
            inner = pixels[rows.inner, columns.inner]
            picture[there, across] = inner[here, along, : picture.shape[-1]]
            shown[there, across] = said[here, along]
        tinted = Image.fromarray(_tinted(_shades(picture, scene), shown, len(counts)))
        with naming(overlay):
            tinted.save(picture_path, PICTURES[overlay.suffix.lower()])
    shares = counts / (scene.shape[0] * scene.shape[1])
    return Segmented(dict(zip(task.classes, shares.tolist(), strict=True)), mask, overlay)


def label_values(classes: Sequence[str]) -> np.ndarray:
    """The value in a mask of each class, [K]: what it is named by where all are named by label values, as `0` and
    `255` are, or its number. uint8 where that is enough, or uint16."""
    named = all(name.isdecimal() and int(name) < 2**16 for name in classes)
    values = np.array([int(name) for name in classes] if named else range(len(classes)))
    return values.astype(np.uint8 if values.max() < 2**8 else np.uint16)


def class_colour(number: int) -> np.ndarray:
    """The colour of a class in overlays, RGB from 0 to 255: hues by the golden ratio, so that all differ."""
    return 255 * np.array(colorsys.hsv_to_rgb((0.6 + number * 0.618034) % 1, 0.9, 1.0))


def _sampled(span: Span, factor: int) -> tuple[slice, slice]:
    """Every pixel of the scene whose number is a multiple of `factor` and which is the span's own: where they lie in
    the reduced scene, and where among the span's own pixels."""
    first, after = -(-span.own.start // factor), -(-span.own.stop // factor)
    return slice(first, after), slice(first * factor - span.own.start, None, factor)


def _shades(picture: np.ndarray, scene: rasters.Scene) -> np.ndarray:
    """An image as RGB from 0 to 255: as it is if it is a picture, else stretched between the percentiles 2 and 98."""
    if scene.dtype == np.uint8 and scene.shape[-1] in (1, 3):
        return picture.astype(np.float32)
    low, high = np.percentile(picture, (2, 98), axis=(0, 1))
    return 255 * np.clip((picture - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1)


def _tinted(shades: np.ndarray, shown: np.ndarray, classes: int) -> np.ndarray:
    """An image mixed with the colours of the classes of its pixels, uint8 [h, w, 3]."""
    tinted = np.repeat(shades, 3 // shades.shape[-1], axis=-1)
    for number in range(classes):
        pixels = shown == number if shown.ndim == 2 else shown[..., number] == 1
        tinted[pixels] = (1 - TINT) * tinted[pixels] + TINT * class_colour(number)
    return np.rint(tinted).astype(np.uint8)
