"""Prediction of scenes of any size tile by tile: equal to that of the whole scene, in the memory of one tile."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from zoo import preprocessing as pre
from zoo import progress
from zoo.data import rasters
from zoo.errors import ZooError, unknown
from zoo.files import written
from zoo.loading import Predictor, Source
from zoo.tasks import ImageTask
from zoo.tiling.receptive_field import receptive_field

TTA = ("dihedral",)


@dataclasses.dataclass(frozen=True)
class Span:
    """What a tile covers along one axis of the scene.

    Attributes:
        pixels: all pixels that it covers.
        own: the part of `pixels` that only this span decides, where each pixel must come from one tile: the `own` of
            all spans are disjoint and cover the scene.
        weights: of `pixels`, float32; those of all spans add up to 1 at each pixel of the scene.
    """

    pixels: slice
    own: slice
    weights: np.ndarray

    @property
    def inner(self) -> slice:
        """`own`, counted from the tile's first pixel."""
        return slice(self.own.start - self.pixels.start, self.own.stop - self.pixels.start)


Tile = tuple[Span, Span, np.ndarray, np.ndarray]  # rows, columns, the image [h, w, C], probabilities [h, w, K]


def predict_tiled(
    source: Source,
    scene: Any,
    *,
    tile: int = 1024,
    overlap: int | None = None,
    tta: str | None = None,
    out: str | os.PathLike | None = None,
) -> np.ndarray:
    """The probabilities of each pixel of a scene, equal to those of the whole scene at once within 1e-5.

    Tiles overlap by at least twice the radius of the network's receptive field, and predictions that depend on pixels
    outside a tile have weight 0. Where the scene is a .npy file or a GeoTIFF and `out` is given, the memory needed does
    not depend on the scene's size.

    Args:
        source: a network for segmentation: `name.tag`, an exported directory, a run or a predictor.
        scene: an array [H, W, C] or [H, W], or the path of a .npy, GeoTIFF (with `zoo[geotiff]`), PNG or JPEG file.
        tile: the largest height and width of a tile, in pixels.
        overlap: the smallest overlap of neighboring tiles, in pixels; by default the smallest at which tiles blend.
        tta: `dihedral` for the mean over the eight symmetries of each tile, which takes eight times as long.
        out: a .npy file to write, completely or not at all.

    Returns:
        Probabilities, float32 [H, W, K]; a read-only memory map of `out` where it is given.

    Raises:
        ZooError: for a network of another task or for images of one size, a scene that the network does not take, a
            file that is missing or truncated, a tile or an overlap too small for the network, an `out` that cannot be
            written.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    opened = rasters.open_scene(scene, predictor.task.preprocessing.background)
    path = None if out is None else rasters.check_target(out, (".npy",), scene)
    tiles = predicted_tiles(predictor, opened, tile=tile, overlap=overlap, tta=tta)
    shape = (*opened.shape[:2], len(predictor.task.classes))
    if path is None:
        whole = np.zeros(shape, np.float32)
        _add_up(tiles, lambda: whole)
        return whole
    with written(path) as temporary:
        rasters.reserve_npy(temporary, shape, np.float32)
        # mapped anew for each tile: pages that were touched count as the process's memory until a map is closed
        _add_up(tiles, lambda: np.load(temporary, mmap_mode="r+"))
    return np.load(path, mmap_mode="r")


def _add_up(tiles: Iterator[Tile], result: Callable[[], np.ndarray]) -> None:
    for rows, columns, _, probabilities in tiles:
        weights = rows.weights[:, None, None] * columns.weights[:, None]
        result()[rows.pixels, columns.pixels] += weights * probabilities


def predicted_tiles(
    predictor: Predictor, scene: rasters.Scene, *, tile: int, overlap: int | None, tta: str | None
) -> Iterator[Tile]:
    """All tiles of a scene, with a progress bar: rows, columns, the image [h, w, C] as it is stored, and probabilities
    [h, w, K].

    Raises:
        ZooError: as `predict_tiled`, before the first tile.
    """
    task = predictor.task
    if not (isinstance(task, ImageTask) and task.has_masks):
        raise ZooError(f"{task.spec.name} is for {task.spec.task}: only networks for segmentation predict tiles")
    if task.input_shape[:2] != (None, None) or task.preprocessing.size is not None:
        height, width = task.preprocessing.size or task.input_shape[:2]
        raise ZooError(f"this {task.spec.name} takes images of {height} x {width} only: tiles need one for any size")
    if tta is not None and tta not in TTA:
        raise unknown("tta", tta, TTA)
    dtype, channels = np.dtype(task.preprocessing.dtype), task.channels
    if scene.dtype.kind not in "uif" or (dtype == np.uint8 != scene.dtype):
        raise ZooError(f"{scene.name} has {scene.dtype} values, the network takes {dtype}")
    pre.check_channels(scene.shape[-1], channels)
    radius, stride = receptive_field(task.served(predictor.model))
    overlap = _overlap(tile, overlap, radius, stride)
    rows, columns = (spans(length, tile, overlap, radius, stride) for length in scene.shape[:2])

    def predict(image: np.ndarray) -> np.ndarray:
        return predictor(image[None])["probabilities"][0]

    def run() -> Iterator[Tile]:
        with progress.bar(len(rows) * len(columns), "tiles") as bar:
            for row in rows:
                for column in columns:
                    image = scene.read(row.pixels, column.pixels)
                    pixels = np.asarray(pre.to_channels(image.astype(dtype)[None], channels))[0]
                    if not np.isfinite(pixels).all():
                        raise ZooError(f"{scene.name} has NaN or infinite values: replace them first")
                    yield row, column, image, (_dihedral_mean(predict, pixels) if tta else predict(pixels))
                    bar.update()

    return run()


def _overlap(tile: int, overlap: int | None, radius: int, stride: int) -> int:
    """The smallest overlap of neighboring tiles; raises ZooError for a tile or an overlap that is too small."""
    field = f"the network's receptive field has a radius of {radius} pixels and a stride of {stride}"
    least, most = 2 * radius, tile - 2 * stride
    if most < least:
        raise ZooError(f"tile {tile} is too small, {field}: choose at least {least + 2 * stride}")
    if overlap is None:
        return min(least + stride, most)
    if not least <= overlap <= most:
        raise ZooError(f"overlap {overlap} does not fit tile {tile}, {field}: choose {least} to {most}")
    return overlap


def spans(length: int, tile: int, overlap: int, radius: int, stride: int) -> list[Span]:
    """Cut `length` pixels into spans of one size, at most `tile`, which overlap by at least `overlap`.

    Spans start at multiples of `stride`, so that the network's poolings and strides group the same pixels as in the
    whole scene. They end at multiples of `stride` from the scene's end, so that this also holds for the mirrored scene.
    The weights of a span follow a raised cosine from its middle to `radius` pixels before its ends, and are 0 in these
    last `radius` pixels, whose receptive field reaches beyond the span. At the ends of the scene nothing is cut off,
    and the weights do not fall.
    """
    size = tile - (tile - length) % stride if length > tile else length
    step = max((size - overlap) // stride * stride, stride)
    starts = np.array([*range(0, length - size, step), length - size])
    ramp = max(size - step - 2 * radius, 1)
    pixels = np.arange(length) + 0.5
    rise = (pixels - (starts[:, None] + radius)) / ramp
    fall = (starts[:, None] + size - radius - pixels) / ramp
    rise[0], fall[-1] = 1, 1
    windows = np.sin(np.pi / 2 * np.clip(np.minimum(rise, fall), 0, 1)) ** 2
    windows /= windows.sum(axis=0)
    cuts = [0, *((starts[1:] + starts[:-1] + size) // 2).tolist(), length]  # in the middle of each overlap
    return [
        Span(slice(start, start + size), slice(cut, next_cut), window[start : start + size].astype(np.float32))
        for start, cut, next_cut, window in zip(starts.tolist(), cuts[:-1], cuts[1:], windows, strict=True)
    ]


def _dihedral_mean(predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """The mean of the predictions for the eight symmetries of an image [h, w, C], each transformed back."""
    total: Any = 0.0
    for axes in ((), (0,), (1,), (0, 1)):
        flipped = np.flip(image, axes)
        total = total + np.flip(predict(flipped) + predict(flipped.swapaxes(0, 1)).swapaxes(0, 1), axes)
    return total / 8
