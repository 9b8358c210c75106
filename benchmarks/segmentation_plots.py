"""Draws docs/segmentation.png: predictions of the published weights for test images, and their errors.

ZOO_DATA_DIR=... python benchmarks/segmentation_plots.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch
from PIL import Image

import zoo
from zoo import data
from zoo.data.scenes import WAVELENGTHS
from zoo.tasks.mask_ops import adapted_rand_error
from zoo.training.evaluation import predicted_class_ids

OUT = Path(__file__).parents[1] / "docs" / "segmentation.png"
FALSE_COLORS = (0.85, 0.66, 0.56)  # micrometres shown as red, green and blue: plants, bright in near infrared, are red
COLORS = {"buildings": "magenta", "roads": "yellow", "trees": "lime", "water": "deepskyblue"}
ERRORS = {"false positive": "tab:orange", "false negative": "tab:blue", "one class for another": "black"}
DPI = 140  # 1,400 pixels wide: sharp where a page shows them as 1,000
TINT = 0.25  # share of a class's color within its outline


class Row(NamedTuple):
    """An image as it is shown, [H, W] or [H, W, 3] of 0 to 1, its true and its predicted masks, bool [H, W, K], and the
    colors of the K classes; none where a single mask is shown in black on white."""

    title: str
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    colors: tuple[str, ...] = ()


def membranes(name: str, index: int) -> Row:
    dataset = data.load("isbi_membrane")
    split = dataset.splits["test"].take([index])
    cells, found = split.targets[0] == 1, predicted_class_ids(zoo.load(name), split)[0] == 1
    scores = f"IoU of membranes {iou(~cells, ~found):.2f}, adapted Rand error {adapted_rand_error(cells, found):.3f}"
    title = f"{name}, test slice {index + 1}: {scores}"
    return Row(title, split.inputs[0, ..., 0] / 255, ~cells[..., None], ~found[..., None])


def scene(name: str, index: int) -> Row:
    dataset = data.load("scenes")
    split = dataset.splits["test"].take([index])
    predictor = zoo.load(name)
    predicted = predictor(predictor.task.serving_inputs(split))["masks"][0] == 1
    truth = split.targets[0] == 1
    ious = ", ".join(f"{c} {iou(truth[..., k], predicted[..., k]):.2f}" for k, c in enumerate(dataset.classes))
    bands = [np.abs(WAVELENGTHS - wavelength).argmin() for wavelength in FALSE_COLORS]
    image = split.inputs[0][..., bands]
    low, high = np.percentile(image, (1, 99), axis=(0, 1))
    shown = np.clip((image - low) / (high - low), 0, 1)
    title = f"{name}, test scene {index + 1}: IoU of {ious}"
    return Row(title, shown, truth, predicted, tuple(COLORS[c] for c in dataset.classes))


def iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    return np.count_nonzero(truth & predicted) / np.count_nonzero(truth | predicted)


def draw(figure: SubFigure, row: Row, headings: Sequence[str]) -> None:
    """The row's four panels."""
    figure.suptitle(row.title, fontsize=10)
    grid = figure.subplots(1, 4)
    show(grid[0], row.image)
    for axes, masks in zip(grid[1:], (row.truth, row.predicted), strict=False):
        if not row.colors:
            show(axes, ~masks[..., 0])
            continue
        show(axes, row.image)
        for number, color in enumerate(row.colors):
            overlay(axes, masks[..., number], color, TINT)
            axes.contour(masks[..., number], [0.5], colors=color, linewidths=0.9)
    gray = row.image if row.image.ndim == 2 else row.image.mean(-1)
    show(grid[3], 0.6 + 0.4 * gray)
    wrong = (row.predicted & ~row.truth).any(-1), (row.truth & ~row.predicted).any(-1)
    for mask, color in zip((*wrong, wrong[0] & wrong[1]), ERRORS.values(), strict=True):
        overlay(grid[3], mask, color, 1)
    for axes, heading in zip(grid, headings, strict=False):
        axes.set_title(heading, fontsize=9)


def show(axes: plt.Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def overlay(axes: plt.Axes, mask: np.ndarray, color: str, alpha: float) -> None:
    axes.imshow(np.ones(mask.shape), cmap=plt.matplotlib.colors.ListedColormap([color]), alpha=alpha * mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--membranes", default="unet_small.isbi", help="weights for isbi_membrane")
    parser.add_argument("--scenes", default="unet_satellite.scenes", help="weights for the synthetic scenes")
    parser.add_argument("--slices", type=int, nargs="*", default=[0], help="numbers of test slices")
    parser.add_argument("--test-scenes", type=int, nargs="*", default=[0, 1], help="numbers of test scenes")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = [membranes(options.membranes, index) for index in options.slices]
    rows += [scene(options.scenes, index) for index in options.test_scenes]

    figure = plt.figure(figsize=(10, 2.78 * len(rows) + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.05, wspace=0.01)
    parts = figure.subfigures(len(rows), squeeze=False, height_ratios=[1.06] + [1] * (len(rows) - 1))[:, 0]
    for number, (part, row) in enumerate(zip(parts, rows, strict=True)):
        draw(part, row, ("input", "truth", "prediction", "errors") if number == 0 else ())
    legend = [Patch(color=color, label=label) for label, color in (COLORS | ERRORS).items()]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), fontsize=9)
    figure.savefig(options.out, dpi=DPI)
    Image.open(options.out).convert("RGB").quantize(256).save(options.out, optimize=True)
    print(f"{options.out.name}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
