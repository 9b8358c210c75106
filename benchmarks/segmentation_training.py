"""Training throughput of U-Net: the trainer of this package against plain Keras and plain PyTorch.

    pip install torch
    python benchmarks/segmentation_training.py      (isbi_membrane in ZOO_DATA_DIR, or images of noise)

All train `unet_small` on as many patches of 256 x 256 pixels, four a batch, by cross-entropy and Adam in float32, and
validate on the same four. zoo draws its patches anew in each epoch, from the whole images; the others have theirs cut
before, in memory. Two more trainings show what the recipe's own augmentation and mixed_bfloat16 do to the speed. What
counts, and how the contenders take turns, is as in training.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
from common import interleaved, ratios, write_results
from fits import float_arrays, keras_fit, torch_training, zoo_fit
from torch import nn
from torch.nn import functional as F

import zoo
from zoo import data, tasks
from zoo.data import Dataset, Split
from zoo.recipe import Augmentation, Patches

MODEL = "unet_small"
DATA = "isbi_membrane"
SIDE = 256  # pixels of a patch
BATCH_SIZE = 4
PER_IMAGE = 8  # patches
TRIAL = 2 * BATCH_SIZE  # patches by which PyTorch chooses its number of threads
RATIOS = ("zoo / keras", "zoo / pytorch", "zoo augmented / zoo", "zoo bfloat16 / zoo")


class TorchUNet(nn.Module):
    """U-Net of one channel as the Keras network has it: padded, with batch normalization."""

    def __init__(self, classes: int, width: int, depth: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(block(a, b) for a, b in itertools.pairwise([1, *channels]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, b, 2, 2) for b in channels[-2::-1])
        self.decoder = nn.ModuleList(block(2 * b, b) for b in channels[-2::-1])
        self.output = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in self.encoder:
            x = level(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, level, encoded in zip(self.up, self.decoder, skips[-2::-1], strict=True):
            x = level(torch.cat([encoded, up(x)], 1))
        return self.output(x)


def block(before: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
    )  # fmt: skip


def gray_images(count: int) -> Dataset:
    """Images of 512 x 512 with one of two classes a pixel; noise where the membranes are not at hand. Held out are
    the corners of four, a batch."""
    try:
        found = data.load(DATA)
    except zoo.ZooError as error:
        print(f"images of noise instead of {DATA}: {error}")
        noise = np.random.default_rng(0).integers(0, 256, (count + 4, 512, 512, 1), np.uint8)
        both = Split(noise, noise[..., 0] // 128)
        found = Dataset("noise", {"train": both, "validation": both, "test": both}, ("0", "1"))
    train, held_out = found.splits["train"].head(count), found.splits["validation"].head(4)
    corners = Split(held_out.inputs[:, :SIDE, :SIDE], held_out.targets[:, :SIDE, :SIDE])
    return Dataset(found.name, {"train": train, "validation": corners, "test": corners}, found.classes)


def cut(images: Split, per_image: int) -> Split:
    """Random patches, `per_image` of each image."""
    rng = np.random.default_rng(0)
    pairs = []
    for image, mask in zip(images.inputs, images.targets, strict=True):
        for top, left in rng.integers(0, np.array(mask.shape) - SIDE + 1, (per_image, 2)):
            pairs.append([array[top : top + SIDE, left : left + SIDE] for array in (image, mask)])
    return Split(*(np.stack(arrays) for arrays in zip(*pairs, strict=True)))


def measure(dataset: Dataset, per_image: int, repeats: int) -> dict[str, dict]:
    """Patches a second of each contender, and the ratios."""
    spec = zoo.get_spec(MODEL)
    task = tasks.get_task(spec.task).from_data(spec, dataset)
    named = task.with_options(spec.recipe("paper"))
    patches = Patches(SIDE, per_image)
    plain = named.replace(
        epochs=2, batch_size=BATCH_SIZE, border=None, precision="float32",
        augmentation=dataclasses.asdict(Augmentation(patches=patches)),
    )  # fmt: skip
    augmentation = dataclasses.replace(named.augmentation, patches=patches)
    augmented = plain.replace(augmentation=dataclasses.asdict(augmentation))
    bfloat16 = plain.replace(precision="mixed_bfloat16")
    count = len(dataset.splits["train"]) * per_image
    arrays = [
        float_arrays(task, split) for split in (cut(dataset.splits["train"], per_image), dataset.splits["validation"])
    ]
    network = TorchUNet(len(task.classes), spec.arguments["width"], spec.arguments["depth"])
    assert sum(parameter.numel() for parameter in network.parameters()) == spec.params
    torch_epoch = torch_training(network, *arrays, plain, F.cross_entropy, trial=TRIAL)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def iou() -> keras.metrics.Metric:
        return keras.metrics.MeanIoU(len(task.classes), sparse_y_pred=False)

    measured = interleaved(
        {
            "zoo": lambda: count / zoo_fit(task, dataset, plain).seconds,
            "keras": lambda: count / keras_fit(task, *arrays, plain, loss, iou()).seconds,
            "pytorch": lambda: count / torch_epoch(),
            "zoo augmented": lambda: count / zoo_fit(task, dataset, augmented).seconds,
            "zoo bfloat16": lambda: count / zoo_fit(task, dataset, bfloat16).seconds,
        },
        repeats,
        warm_up=False,  # each training leaves out its first epoch, and PyTorch has had its trial
    )
    compared = {pair: ratios(measured, *pair.split(" / ")) for pair in RATIOS}
    return {"patches_per_second": measured, "ratios": compared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8, help=f"of which an epoch takes {PER_IMAGE} patches each")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each contender")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few patches, nothing written")
    options = parser.parse_args()
    images, per_image, repeats = (2, 4, 1) if options.quick else (options.images, PER_IMAGE, options.repeats)
    dataset = gray_images(images)
    results = measure(dataset, per_image, repeats)
    for name, measured in results["patches_per_second"].items():
        print(f"{name:20}{measured['median']:8.2f} patches/s")
    for pair, ratio in results["ratios"].items():
        print(f"{pair:20}{ratio['median']:8.2f} ({ratio['smallest']:.2f} to {ratio['largest']:.2f})")
    if not options.quick:
        record = {"data": dataset.name, "patches_an_epoch": len(dataset.splits["train"]) * per_image}
        path = write_results("segmentation_training", {**record, "torch": torch.__version__, **results})
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
