"""Images from a trained generator: as an array, and as a picture of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo.data import Split
from zoo.errors import ZooError
from zoo.loading import Predictor, Source
from zoo.recipe import plain
from zoo.tasks.generation import MOST_SAMPLES, Generation
from zoo.training.batches import evaluation_batches, load_for

with epy.lazy_imports():
    import tensorflow as tf

    from zoo.tasks import pictures, sample_metrics

STEPS = 12  # images on the way from one sample to the next


def sample(
    source: Source,
    count: int = 64,
    *,
    seed: int = 0,
    labels: Sequence[int | str] | None = None,
    interpolate: bool = False,
    nearest: Any = None,
    path: str | os.PathLike | None = None,
) -> np.ndarray:
    """Images of a trained generator; the same for the same seed, whatever the count.

    Args:
        source: `name.tag`, an exported directory, or a run.
        count: how many, 1 to 1,024.
        seed: seed of the latents, 0 .. 2**31 - 1.
        labels: for a generator that takes them, class names or numbers, repeated until there are `count`; all in turn
            by default.
        interpolate: the images on the way from each sample to the next, and from the last one back to the first. The
            latents move on a great circle about 0, so that they keep their length. Each way has one label.
        nearest: a data set's name or path, or a loaded one: its training image that is nearest to each sample by the
            pixels, so that a copy shows.
        path: a picture to write: a grid (.png, .webp, .jpg), with `interpolate` a row for each way; or, for a file
            .gif, an animation, with `interpolate` also for .webp. Each nearest training image is below its sample.

    Returns:
        uint8 [count, H, W, C]; with `interpolate` [count * 12, H, W, C]; with `nearest` [2, count, H, W, C], the
        samples and the nearest training images.

    Raises:
        ZooError: for a network that generates no images, labels that it does not have, a count out of range, or
            `nearest` with `interpolate`; before anything is written.
    """
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    task = predictor.task
    if not isinstance(task, Generation):
        raise ZooError(f"{task.spec.name} generates no images: choose a network of the task generation")
    count, seed = plain(count), plain(seed)  # of NumPy
    if not isinstance(count, int) or not 1 <= count <= MOST_SAMPLES:
        raise ZooError(f"count must be from 1 to {MOST_SAMPLES}, not {count}")
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ZooError(f"the seed must be from 0 to 2**31 - 1, not {seed}")
    if nearest is not None and interpolate:
        raise ZooError("the nearest training images are those of samples: leave the interpolation out")
    file = Path(path) if path is not None else None
    animated = file is not None and (file.suffix.lower() == ".gif" or (interpolate and file.suffix.lower() == ".webp"))
    if file is not None:
        pictures.check_suffix(file, animated)
    given = _label_ids(task, labels, count)
    data = None if nearest is None else load_for(task.spec, task.input_shape, predictor.recipe, nearest)
    signatures = task.signatures(predictor.model)
    if interpolate:
        latents = tf.random.stateless_normal([count, task.latents], [seed, 0]).numpy()
        ways = [_between(latents[number], latents[(number + 1) % count]) for number in range(count)]
        more = {"labels": tf.constant(np.repeat(given, STEPS))} if given is not None else {}
        images = _in_parts(signatures["serving_default"], {"latents": tf.constant(np.concatenate(ways)), **more})
    else:
        more = {"labels": tf.constant(given)} if given is not None else {}
        images = signatures["sample"](count=tf.constant(count), seed=tf.constant(seed), **more)["images"].numpy()
    if data is not None:
        split = task.select(data).splits["train"]
        images = np.stack([images, sample_metrics.nearest(images, _pixels(task, split))])
    if file is not None:
        cells = images if data is None else pictures.above(*images)
        frames = [cell[None] for cell in cells] if animated else [cells]
        columns = STEPS if interpolate and not animated else None
        pictures.write(file, [pictures.grid(frame, columns) for frame in frames])
    return images


def _pixels(task: Generation, split: Split) -> Iterator[np.ndarray]:
    """The images of a split as the generator draws them, uint8 [B, H, W, C], batch by batch."""
    for inputs, _ in evaluation_batches(task, split):
        yield task.pixels(inputs[0] if task.classes else inputs).numpy().astype(np.uint8)


def _label_ids(task: Generation, labels: Sequence[int | str] | None, count: int) -> np.ndarray | None:
    """The labels, int32 [count]; None for a generator that takes none."""
    if not task.categories:
        if labels is not None:
            raise ZooError(f"{task.spec.name} takes no labels: leave them out, or choose a conditional network")
        return None
    known = task.classes or tuple(map(str, range(task.categories)))
    names = [str(label) for label in labels] if labels is not None else known
    unknown = [repr(name) for name in names if name not in known]
    if unknown or not names:
        raise ZooError(f"{task.spec.name} has the labels {', '.join(known)}, not {', '.join(unknown) or 'none'}")
    return np.resize(np.array([known.index(name) for name in names], np.int32), count)


def _between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Points [STEPS, Z] on the great circle from `start` to just before `end`; the length changes linearly."""
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    units = start / lengths[0], end / lengths[1]
    angle = np.arccos(np.clip(units[0] @ units[1], -1, 1))
    at = np.linspace(0, 1, STEPS, endpoint=False)[:, None]
    if angle < 1e-3:  # the same point, where the ratio of sines is not known
        direction = (1 - at) * units[0] + at * units[1]
    else:
        direction = (np.sin((1 - at) * angle) * units[0] + np.sin(at * angle) * units[1]) / np.sin(angle)
    return (((1 - at) * lengths[0] + at * lengths[1]) * direction).astype(np.float32)


def _in_parts(signature: Any, inputs: dict[str, Any]) -> np.ndarray:
    """The signature's images for inputs of any number."""
    count = len(inputs["latents"])
    starts = range(0, count, MOST_SAMPLES)
    parts = ({key: value[start : start + MOST_SAMPLES] for key, value in inputs.items()} for start in starts)
    return np.concatenate([signature(**part)["images"].numpy() for part in parts])
