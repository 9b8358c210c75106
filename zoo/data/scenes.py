"""Synthetic satellite scenes with 20 spectral bands and overlapping classes that only their surroundings distinguish.

Modeled on the Kaggle competition "DSTL Satellite Imagery Feature Detection" (2016): there is one mask for each class,
and a pixel may belong to several, such as a tree crown over a road or a road over water. The spectrum of a single pixel
is not enough. Roads, roofs, car parks and bare fields are mixtures of the same materials, and so are crowns, meadows
and crops; water, peat and shadows are equally dark. The classes differ in their shape and surroundings: a road is long,
a roof casts a shadow and may have a ridge, a crown is a shaded ball, water is smooth and has no rows.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import numpy as np
from etils import epy

from zoo.data.dataset import Split

with epy.lazy_imports():
    from scipy import ndimage

BANDS = 20
CLASSES = ("buildings", "roads", "trees", "water")
BUILDINGS, ROADS, TREES, WATER = range(len(CLASSES))
PARTS = {"train": (25, 1), "validation": (8, 2), "test": (8, 3)}  # scenes, seed

# Micrometers: visible and near infrared, then shortwave infrared, approximately the ranges of WorldView-3.
WAVELENGTHS = np.concatenate([np.linspace(0.40, 1.04, 8), np.linspace(1.2, 2.4, 12)]).astype(np.float32)
# Synthetic, not measured: reflectance at a few wavelengths. The curves follow the green peak, red edge and two leaf
# water bands of vegetation, the absorption of water, and the slow rise of soils and of building materials.
KNOTS = (0.40, 0.47, 0.55, 0.67, 0.76, 1.00, 1.20, 1.45, 1.65, 1.93, 2.20, 2.40)
CURVES = {
    name: np.interp(WAVELENGTHS, KNOTS, curve).astype(np.float32)
    for name, curve in {
        "leaf": (0.03, 0.04, 0.09, 0.05, 0.40, 0.46, 0.42, 0.18, 0.27, 0.08, 0.15, 0.08),
        "straw": (0.06, 0.09, 0.14, 0.18, 0.30, 0.38, 0.41, 0.33, 0.40, 0.22, 0.28, 0.20),
        "soil": (0.07, 0.10, 0.15, 0.21, 0.25, 0.31, 0.35, 0.34, 0.38, 0.31, 0.35, 0.31),
        "asphalt": (0.08, 0.09, 0.10, 0.12, 0.13, 0.15, 0.17, 0.18, 0.19, 0.18, 0.19, 0.18),
        "concrete": (0.17, 0.22, 0.26, 0.30, 0.32, 0.34, 0.35, 0.33, 0.36, 0.30, 0.33, 0.29),
        "peat": (0.03, 0.03, 0.04, 0.05, 0.06, 0.07, 0.07, 0.06, 0.07, 0.05, 0.06, 0.05),
        "water": (0.06, 0.07, 0.06, 0.04, 0.02, 0.01, 0.01, 0.00, 0.00, 0.00, 0.00, 0.00),
    }.items()
}
# Concentrations of the Dirichlet distributions from which surfaces are mixed: built and bare ground overlap widely,
# and so do water and peat; crowns, meadows and crops are the same.
ROAD = {"asphalt": 3, "concrete": 1, "soil": 1}
ROOF = {"asphalt": 1, "concrete": 3, "soil": 1}
CAR_PARK = {"asphalt": 1, "concrete": 1, "soil": 1}
BARE = {"asphalt": 1, "concrete": 1, "soil": 3}
GREEN = {"leaf": 3, "straw": 1}
PEAT = {"peat": 3, "asphalt": 1}
WET = {"water": 6, "peat": 1}
NOISE = np.linspace(0.004, 0.010, BANDS, dtype=np.float32)  # of the sensor, for each band
SKYLIGHT = np.interp(WAVELENGTHS, (0.4, 1.0, 2.4), (0.35, 0.18, 0.12)).astype(np.float32)  # share of light in a shadow


def data() -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits and class names of the data set `scenes`: 25 scenes for training, 8 for validation and 8 for test,
    each 256 x 256 pixels; see `scenes`.

    They are the same in each call. Other versions of NumPy and SciPy, or other processors, may round differently.
    """
    return {name: Split(*scenes(count, seed=seed)) for name, (count, seed) in PARTS.items()}, CLASSES


def scenes(count: int, *, size: int = 256, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scenes and their masks. A scene depends on the seed and its position, not on the count.

    Args:
        count: number of scenes.
        size: height and width in pixels of about one meter, at least 64.
        seed: seed of all of them.

    Returns:
        Images uint16 [count, size, size, 20], reflectance times 10,000, and masks uint8 [count, size, size, 4] of 0
        and 1 in the order of CLASSES. A pixel that a crown or a bridge hides still belongs to its own class too.
    """
    images = np.empty((count, size, size, BANDS), np.uint16)
    masks = np.empty((count, size, size, len(CLASSES)), np.uint8)
    for index in range(count):
        images[index], masks[index] = _Scene(size, np.random.default_rng([seed, index])).render()
    return images, masks


class _Scene:
    """A scene painted from the ground up: later layers cover earlier ones. Points and directions are complex, x+iy."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        y, x = np.mgrid[:size, :size].astype(np.float32)
        self.place = (x + 1j * y).astype(np.complex64)
        self.sun = cmath.rect(1, rng.uniform(0, math.tau))  # the direction towards it
        self.spectra = np.zeros((0, BANDS), np.float32)
        self.surface = np.zeros((size, size), np.int32)  # index of the topmost spectrum
        self.light = np.ones((size, size), np.float32)  # factor of texture and slope
        self.height = np.zeros((size, size), np.float32)  # pixels above the ground
        self.masks = np.zeros((len(CLASSES), size, size), bool)
        self.grain = 1 + 0.04 * self._noise(1)

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        self._fields()
        self._water()
        self._roads()
        self._trees()
        return self._photograph(), np.moveaxis(self.masks, 0, -1)

    def _fields(self) -> None:
        """A patchwork of meadows, crops in rows, bare ground, and peat plowed in rows."""
        kinds = ((GREEN, 0.0), (GREEN, 0.25), (BARE, 0.0), (PEAT, 0.35))  # with the contrast of the rows
        count = max(2, self.size**2 // 5000)
        field, _ = self._nearest(self.rng.choice(self.size**2, count, replace=False))
        rough = self.grain + 0.1 * self._noise(12)
        for number, kind in enumerate(self.rng.choice(len(kinds), count, p=[0.4, 0.2, 0.2, 0.2])):
            mixture, depth = kinds[kind]
            across = cmath.rect(math.tau / self.rng.uniform(4, 7), self.rng.uniform(0, math.pi))
            self._paint(field == number, self._mixed(mixture), rough * (1 + depth * np.sin((self.place * across).real)))

    def _water(self) -> None:
        """A winding river or a lake."""
        river = self.rng.random() < 0.6
        way, _ = self._course(self._near_center(0.2), self.rng.uniform(0, math.pi), bend=20)
        half_width = self.size * (self.rng.uniform(0.05, 0.08) if river else self.rng.uniform(0.14, 0.2))
        self.masks[WATER] = np.abs(way.imag if river else way) + 3 * self._noise(10) < half_width
        self._paint(self.masks[WATER], self._mixed(WET), 1 + 0.03 * self._noise(1.5))

    def _roads(self) -> None:
        """Roads that cross at about right angles, over water as bridges, then the plots along them."""
        angle, roads = self.rng.uniform(0, math.pi), []
        for turn, aside in ((0, -0.25), (0, 0.25), (math.pi / 2, 0)):
            center = self._near_center(0.08) + cmath.rect(aside * self.size, angle + math.pi / 2)
            way, point = self._course(center, angle + turn + self.rng.normal(0, 0.1), bend=self.rng.uniform(2, 8))
            half_width = self.rng.uniform(3.5, 5.5)
            road = np.abs(way.imag) < half_width
            self._paint(road, self._mixed(ROAD), self.grain)
            self.masks[ROADS] |= road
            roads.append((point, half_width))
        self.height[self.masks[ROADS] & self.masks[WATER]] = 2
        taken = self.masks[ROADS] | self.masks[WATER]
        for point, half_width in roads:
            for along in np.arange(-0.7 * self.size, 0.7 * self.size, 12):
                for edge in (-half_width, half_width):
                    if self.rng.random() < 0.75:
                        self._plot(point, along, edge, taken)

    def _plot(self, point: Callable[[float, float], complex], along: float, edge: float, taken: np.ndarray) -> None:
        """A building, or a car park that looks similar but is flat, at the edge of a road if there is room for it."""
        half_length, half_depth = self.rng.uniform(6, 13), self.rng.uniform(6, 9)
        across = edge + math.copysign(half_depth + self.rng.uniform(3, 9), edge)
        center = point(along, across)
        direction = point(along + 1, across) - center
        direction /= abs(direction)
        place = (self.place - center) * direction.conjugate()
        outside = np.maximum(np.abs(place.real) - half_length, np.abs(place.imag) - half_depth)
        plot, room = outside < 0, outside < 3
        if not plot.any() or (room & taken).any():
            return
        taken |= room
        if self.rng.random() < 0.25:
            cars = (np.abs(place.real) % 4 < 2) & (np.abs(place.imag) % 7 < 4) & (self._noise(2) > 0)
            self._paint(plot, self._mixed(CAR_PARK), self.grain - 0.3 * cars)
        else:
            slope = self.rng.choice([0, 0.3]) * (1j * direction * self.sun.conjugate()).real  # flat, or with a ridge
            self._paint(plot, self._mixed(ROOF), self.grain + slope * np.sign(place.imag))
            self.height[plot] = self.rng.uniform(6, 14)
            self.masks[BUILDINGS] |= plot

    def _trees(self) -> None:
        """Woods and single trees, most of them at the edges of roads, buildings and water, which they overhang."""
        solid = self.masks.any(0)
        out, into = ndimage.distance_transform_edt(~solid), ndimage.distance_transform_edt(solid)
        weights = np.where(solid, 0.3 * (into < 3), 1 + 3 * (out < 5) + 12 * (self._noise(14) > 1.2))
        count = max(1, self.size**2 // 600)
        stems = self.rng.choice(self.size**2, count, replace=False, p=(weights / weights.sum()).ravel())
        tree, way = self._nearest(stems)
        radius = self.rng.uniform(5, 9, count).astype(np.float32)[tree]
        distance = np.abs(way) / radius
        self.masks[TREES] = distance + 0.08 * self._noise(1) < 1
        shade = 1 + 0.45 * (way * self.sun.conjugate()).real / radius + 0.1 * self._noise(0.7)
        self._paint(self.masks[TREES], np.stack([self._mixed(GREEN) for _ in range(count)]), shade, tree)
        self.height = np.where(self.masks[TREES], radius * (1.6 - distance), self.height)

    def _photograph(self) -> np.ndarray:
        """The scene as uint16 [H, W, 20], with light and shadow, blur of the optics, haze, and noise of the sensor."""
        shadow = np.zeros((self.size, self.size), np.float32)
        for step in range(1, 15):  # the sun is at 45 degrees: one pixel farther is one pixel lower
            way = -step * self.sun
            above = ndimage.shift(self.height, (way.imag, way.real), order=0) - step - self.height
            shadow = np.maximum(shadow, np.clip(above, 0, 1))
        image = self.spectra[self.surface] * self.light[..., None] * (1 - shadow[..., None] * (1 - SKYLIGHT))
        image = ndimage.gaussian_filter(image, (0.6, 0.6, 0), truncate=2)
        gain = self.rng.uniform(0.8, 1.2) * self.rng.uniform(0.8, 1.2) ** (WAVELENGTHS - 1)
        haze = self.rng.uniform(0, 0.06) * np.exp(-3 * (WAVELENGTHS - 0.4))
        image = image * gain + haze
        image += self.rng.standard_normal(image.shape, np.float32) * (NOISE + 0.02 * image)
        return np.rint(10_000 * image.clip(0, 1)).astype(np.uint16)

    def _mixed(self, mixture: dict[str, int]) -> np.ndarray:
        """A spectrum [20] of this mixture, with a random brightness."""
        curves = np.stack([CURVES[name] for name in mixture])
        return (self.rng.uniform(0.8, 1.2) * self.rng.dirichlet([*mixture.values()]) @ curves).astype(np.float32)

    def _noise(self, sigma: float) -> np.ndarray:
        """Noise [size, size] of variance 1, smooth over about `sigma` pixels."""
        noise = ndimage.gaussian_filter(self.rng.standard_normal((self.size, self.size), np.float32), sigma)
        return (noise - noise.mean()) / noise.std()

    def _near_center(self, spread: float) -> complex:
        """A place at most this share of the scene from its center, in x and in y."""
        return self.size * complex(*self.rng.uniform(0.5 - spread, 0.5 + spread, 2))

    def _course(
        self, center: complex, angle: float, bend: float
    ) -> tuple[np.ndarray, Callable[[float, float], complex]]:
        """A winding line: the coordinates of each pixel along and across it, and a function from two such coordinates
        to a place."""
        direction = cmath.rect(1, angle)
        phase, length = self.rng.uniform(0, math.tau), self.rng.uniform(120, 240)

        def curve(along: np.ndarray | float) -> np.ndarray | float:
            return bend * (np.sin(math.tau * along / length + phase) - math.sin(phase))

        way = (self.place - center) * direction.conjugate()
        way -= 1j * curve(way.real)
        return way, lambda along, across: center + complex(along, across + curve(along)) * direction

    def _nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each pixel the number of the nearest of the points (flat indices), and the way from that point."""
        flat = np.full(self.size**2, -1)
        flat[points] = np.arange(len(points))
        number = flat.reshape(self.size, self.size)
        at = tuple(ndimage.distance_transform_edt(number < 0, return_distances=False, return_indices=True))
        return number[at], self.place - self.place[at]

    def _paint(
        self, mask: np.ndarray, spectra: np.ndarray, light: np.ndarray, number: np.ndarray | None = None
    ) -> None:
        """Paints the mask with one spectrum [20], or with the spectra [N, 20] that `number` selects for each pixel."""
        self.surface[mask] = len(self.spectra) + (0 if number is None else number[mask])
        self.spectra = np.concatenate([self.spectra, np.atleast_2d(spectra)])
        self.light[mask] = light[mask]
