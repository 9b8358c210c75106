"""Scenes of any size, segmented tile by tile: the result is that of the whole at once, the memory that of a tile."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epy

from zoo import preprocessing as pre
from zoo import rasters
from zoo.errors import ZooError, unknown
from zoo.files import written
from zoo.loading import Predictor
from zoo.rasters import Scene
from zoo.receptive_field import receptive_field
from zoo.runs import Run

with epy.lazy_imports():
    import tqdm

TTA = ("dihedral",)


@dataclasses.dataclass(frozen=True)
class Span:
    """What a tile covers along one axis of the scene.

    Attributes:
        pixels: all that it covers.
        own: those of them for which it decides where each pixel is to come from one tile; they are none of the next's.
        weights: of `pixels`, float32; those of all spans add up to 1 at each pixel of the scene.
    """

    pixels: slice
    own: slice
    weights: np.ndarray

    @property
    def inner(self) -> slice:
        """`own`, counted from the tile's first pixel."""
        return slice(self.own.start - self.pixels.start, self.own.stop - self.pixels.start)


def predict_tiled(
    model: str | os.PathLike | Run | Predictor,
    scene: Any,
    *,
    tile: int = 1024,
    overlap: int | None = None,
    tta: str | None = None,
    out: str | os.PathLike | None = None,
) -> np.ndarray:
    """The probabilities of each pixel of a scene, equal to those of the whole scene at once within 1e-5.

    Tiles overlap by at least twice the network's receptive field, and what they see amiss at their edges counts for
    nothing: it fades out before. Memory is that of a tile where the scene is an .npy file or a GeoTIFF and `out` is
    given, however large they are.

    Args:
        model: a network for segmentation: `name.tag`, directory, run or predictor.
        scene: an array [H, W, C] or [H, W], or the path of a .npy, GeoTIFF (with `zoo[geotiff]`), PNG or JPEG file.
        tile: the greatest height and width of a tile, in pixels.
        overlap: the least overlap of neighbouring tiles, in pixels; the least that blends by default.
        tta: `dihedral` for the mean over the eight symmetries of each tile, eight times the work.
        out: an .npy file to write; it is there at the end, or not at all.

    Returns:
        Probabilities, float32 [H, W, K]; mapped from `out`, to be read only, where that is given.

    Raises:
        ZooError: for a network of another task or of one size only, a scene that it does not take, a file that is
            missing or cut short, a tile or an overlap too small for the network, an `out` that cannot be written.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    opened = rasters.open_scene(scene)
    path = None if out is None else rasters.check_target(out, (".npy",), scene)
    tiles = predicted_tiles(predictor, opened, tile=tile, overlap=overlap, tta=tta)
    shape = (*opened.shape[:2], len(predictor.task.classes))
    if path is None:
        whole = np.zeros(shape, np.float32)
        _add_up(tiles, lambda: whole)
        return whole
    with written(path) as temporary:
        rasters.reserve_npy(temporary, shape, np.float32)
        # mapped anew for each tile: what a mapping has touched counts as the process's memory until it is closed
        _add_up(tiles, lambda: np.load(temporary, mmap_mode="r+"))
    return np.load(path, mmap_mode="r")


def _add_up(tiles: Iterator, result: Callable[[], np.ndarray]) -> None:
    for rows, columns, _, probabilities in tiles:
        weights = rows.weights[:, None, None] * columns.weights[:, None]
        result()[rows.pixels, columns.pixels] += weights * probabilities


def predicted_tiles(
    predictor: Predictor, scene: Scene, *, tile: int, overlap: int | None, tta: str | None
) -> Iterator[tuple[Span, Span, np.ndarray, np.ndarray]]:
    """All tiles of a scene, with a progress bar: rows, columns, the image [h, w, C] as the scene holds it, and
    probabilities [h, w, K].

    Raises:
        ZooError: as `predict_tiled`, before the first tile.
    """
    task = predictor.task
    if not task.masked:
        raise ZooError(f"{task.spec.name} is for {task.spec.task}: only networks for segmentation take tiles")
    if task.input_shape[:2] != (None, None) or task.preprocessing.size is not None:
        size = task.preprocessing.size or task.input_shape[:2]
        raise ZooError(f"this {task.spec.name} takes images of {size[0]} x {size[1]} only: tiles need one of any size")
    if tta is not None and tta not in TTA:
        raise unknown("tta", tta, TTA)
    dtype = predictor.function.input_signature[0].dtype.as_numpy_dtype
    if scene.dtype.kind not in "uif" or (dtype == np.uint8 != scene.dtype):
        raise ZooError(f"{scene.name} holds {scene.dtype} values, the network takes {np.dtype(dtype)}")
    pre.check_channels(scene.shape[-1], task.channels)
    radius, stride = receptive_field(task.numeric_network(predictor.model))
    overlap = _overlap(tile, overlap, radius, stride)
    rows, columns = (spans(length, tile, overlap, radius, stride) for length in scene.shape[:2])

    def predict(image: np.ndarray) -> np.ndarray:
        return predictor(image[None])["probabilities"][0]

    def run() -> Iterator[tuple[Span, Span, np.ndarray, np.ndarray]]:
        with tqdm.tqdm(total=len(rows) * len(columns), unit=" tiles", disable=len(rows) * len(columns) == 1) as bar:
            for row in rows:
                for column in columns:
                    image = scene.read(row.pixels, column.pixels)
                    pixels = np.asarray(pre.to_channels(image.astype(dtype)[None], task.channels))[0]
                    if not np.isfinite(pixels).all():
                        raise ZooError(f"{scene.name} holds NaN or infinite values: replace them first")
                    yield row, column, image, (_dihedral_mean(predict, pixels) if tta else predict(pixels))
                    bar.update()

    return run()


def _overlap(tile: int, overlap: int | None, radius: int, stride: int) -> int:
    """The least overlap of neighbouring tiles; raises ZooError for a tile or an overlap that is too small."""
    sees = f"the network sees {radius} pixels around each, on a grid of {stride}"
    least, most = 2 * radius, tile - 2 * stride
    if most < least:
        raise ZooError(f"tile {tile} is too small, {sees}: give at least {least + 2 * stride}")
    if overlap is None:
        return min(least + stride, most)
    if not least <= overlap <= most:
        raise ZooError(f"overlap {overlap} does not fit tile {tile}, {sees}: give {least} to {most}")
    return overlap


def spans(length: int, tile: int, overlap: int, radius: int, stride: int) -> list[Span]:
    """Cut `length` pixels into spans of one size, at most `tile`, which overlap by at least `overlap`.

    They begin at multiples of `stride`, where the grids of the network's poolings are those of the whole. They also end
    at such places counted from the end, so that the same is true of the mirrored scene. The weights of a span rise and
    fall as a raised cosine between the `radius` outermost pixels, which lack what lies around the span and count for
    nothing, and the middle; not so at the ends of the whole.
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
    cuts = [0, *((starts[1:] + starts[:-1] + size) // 2), length]  # in the middle of each overlap
    return [
        Span(slice(start, start + size), slice(cut, next_cut), window[start : start + size].astype(np.float32))
        for start, cut, next_cut, window in zip(starts.tolist(), cuts[:-1], cuts[1:], windows, strict=True)
    ]


def _dihedral_mean(predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """The mean of what is predicted for the eight symmetries of an image [h, w, C], each turned back."""
    total = 0.0
    for flipped in ((), (0,), (1,), (0, 1)):
        seen = np.flip(image, flipped)
        total = total + np.flip(predict(seen) + predict(seen.swapaxes(0, 1)).swapaxes(0, 1), flipped)
    return total / 8
