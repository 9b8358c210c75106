"""How bright the images of a data set are, so that images of another kind are noticed: dark ink on white paper, where
a network has learned white digits on black, is classified with confidence and wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.dataset import Split

FAR = 4  # standard deviations
LEAST = 8.0  # the smallest standard deviation that is assumed, in gray values


def of_images(split: Split) -> dict[str, float] | None:
    """Mean and standard deviation of the mean values of a split's images of 8 bits, 0 to 255; None for other inputs."""
    if split.inputs.dtype != np.uint8:
        return None
    levels = np.array([image.mean() for image in split.inputs])
    return {"mean": round(float(levels.mean()), 2), "standard_deviation": round(float(levels.std()), 2)}


def warning(training: Mapping[str, Any], levels: Sequence[float]) -> str:
    """One line where images are far from those of the data set that a manifest records; empty otherwise.

    Args:
        training: what the manifest records of the training.
        levels: the mean value of each image, 0 to 255.
    """
    known = training.get("brightness")
    if not known or not len(levels):
        return ""
    distance = (np.asarray(levels) - known["mean"]) / max(known["standard_deviation"], LEAST)
    far = np.abs(distance) > FAR
    if not far.any():
        return ""
    mean = float(np.asarray(levels)[far].mean())
    return (
        f"{int(far.sum())} of {len(levels)} images are much {'brighter' if mean > known['mean'] else 'darker'} (mean "
        f"{mean:.0f} of 255) than those that the network was trained on (mean {known['mean']:.0f}): its predictions "
        "mean little for them; is ink dark on white where it was white on black? Invert such images"
    )
