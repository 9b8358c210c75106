"""Draws docs/augmentation.png: each augmentation of MNIST digits, and an image moving together with its mask.

ZOO_DATA_DIR=... python benchmarks/augmentation_plots.py
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from PIL import Image

from zoo.data.augmentation import augment, color_jitter, shift_expansion
from zoo.recipe import Affine, Augmentation, ColorJitter, Elastic, FlipCrop

COLUMNS = 10
AFFINE = Affine(rotation=15, translation=0.1, scale=0.15, skew=10)
ROWS = {
    "affine": Augmentation(affine=AFFINE),
    "elastic": Augmentation(elastic=Elastic()),
    "affine\n+ elastic": Augmentation(affine=AFFINE, elastic=Elastic()),
    "flip_crop": Augmentation(flip_crop=FlipCrop()),
    "dihedral": Augmentation(dihedral=True),
}


def membranes(folder: Path, side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """The corner of the first training slice: float32 [side, side, 1] in 0..255, and its mask, 1 for membrane."""
    with zipfile.ZipFile(folder / "isbi_membrane.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        first = [next(name for name in names if f"/{kind}/" in name) for kind in ("images", "labels")]
        image, label = (np.asarray(Image.open(io.BytesIO(archive.read(name))))[:side, :side] for name in first)
    return image[..., None].astype(np.float32), (label == 0).astype(np.int32)


def main() -> None:
    folder = Path(os.environ["ZOO_DATA_DIR"])
    with np.load(folder / "mnist.npz") as archive:
        # Three digits, several draws of each, so that the draws of one digit can be compared.
        digits = np.repeat(archive["x_train"][[0, 2, 7]], [4, 3, 3], axis=0)[..., None].astype(np.float32)
    shift = tf.constant([0, 1, 2, 3, 0, 3, 4, 0, 1, 4])
    rows = {"original": digits, "expand_shift": shift_expansion(digits, None, shift)[0]}
    rows |= {name: augment(digits, None, [1, row], part)[0] for row, (name, part) in enumerate(ROWS.items())}
    image, mask = (np.repeat(each[None], COLUMNS, axis=0) for each in membranes(folder))
    both = Augmentation(dihedral=True, elastic=Elastic(alpha=160, sigma=8), fill="reflect")
    moved, moved_mask = (np.array(each) for each in augment(image, mask, [1, 8], both))
    moved[0], moved_mask[0] = image[0], mask[0]
    jittered = np.clip(color_jitter(image, [1, 9], ColorJitter(contrast=0.3, brightness=0.3)), 0, 255)
    jittered[0] = image[0]
    rows |= {"color_jitter": jittered, "dihedral\n+ elastic": moved, "its mask": moved_mask}

    figure, axes = plt.subplots(len(rows), COLUMNS, figsize=(COLUMNS * 0.8 + 1, len(rows) * 0.82))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for cell, image in zip(line, np.asarray(images), strict=True):
            cell.imshow(image, cmap="gray", vmin=0, vmax=1 if name == "its mask" else 255)
            cell.set_xticks([])
            cell.set_yticks([])
    for cell in axes[-3:, 0]:
        plt.setp(cell.spines.values(), color="tab:orange", linewidth=2)
    axes[-1, 0].set_xlabel("before", fontsize=8, color="tab:orange")
    figure.tight_layout(pad=0.4, w_pad=0.1, h_pad=0.3)
    path = Path(__file__).parents[1] / "docs" / "augmentation.png"
    # 80 colors are enough for grays and the frame, and keep the file small.
    figure.savefig(path, dpi=110)
    Image.open(path).convert("RGB").quantize(80).save(path, optimize=True)
    print(f"docs/{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
