"""Commands that apply trained weights to a user's own inputs."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from etils import epy

import zoo
from zoo.cli.options import Averaged, Csv, Json, Readable, Trained, words
from zoo.errors import say
from zoo.files import written

with epy.lazy_imports():
    import numpy as np


def predict(
    source: Trained,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders of them, or wildcards in quotes; texts for a text model; - for a list of these "
            "on standard input, one a line."
        ),
    ],
    tta: Averaged = "",
    top: Annotated[int, typer.Option(help="The number of most probable classes to print.", min=1)] = 1,
    as_json: Json = False,
    as_csv: Csv = False,
    strict: Readable = False,
) -> None:
    """Predict the classes of images or texts."""
    given = [line for one in inputs for line in (_lines(sys.stdin) if one == "-" else [one])]
    rows = [_with_top(row, top) for row in zoo.predict(source, given, tta=words(tta), strict=strict)]
    if as_json:
        say(json.dumps(rows, indent=1))
    elif as_csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        for number, row in enumerate(rows):
            cells = _cells(row)
            if number == 0:
                table.writerow(cells)
            table.writerow(cells.values())
    else:
        for row in rows:
            values = _cells(row).values()
            printed = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in values)
            say("  ".join(printed).replace("\n", "\\n"))  # a line for each input


def embed(
    source: Trained,
    inputs: Annotated[list[str], typer.Argument(help="Image files, folders of them, or wildcards in quotes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    layer: Annotated[
        str | None, typer.Option(help="The layer whose outputs are written; by default the last one of its features.")
    ] = None,
    strict: Readable = False,
) -> None:
    """Write a vector for each image: the outputs of a layer, with the names of the files."""
    names, vectors = zoo.embed(source, inputs, layer, strict=strict)
    with written(output) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, names=np.array(names), vectors=vectors)
    say(f"{vectors.shape[0]} vectors of {vectors.shape[1]} numbers, with names: {output}")


def _lines(file: TextIO) -> list[str]:
    return [line for line in file.read().splitlines() if line.strip()]


def _with_top(row: dict[str, Any], count: int) -> dict[str, Any]:
    """The prediction with its most probable classes, in order, where more than one is wanted and it has classes."""
    if count == 1 or "probabilities" not in row:
        return row
    pairs = zip(row["classes"], row["probabilities"], strict=True)
    best = sorted(pairs, key=lambda pair: -pair[1])[:count]
    return {**row, "top": [{"class": name, "probability": value} for name, value in best]}


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A prediction as the cells of a line, by the names of their columns."""
    cells = {key: value for key, value in row.items() if not isinstance(value, list | dict)}
    for value in row.values():
        if isinstance(value, dict):
            cells |= value
    for number, one in enumerate(row.get("top", [])[1:], start=2):
        cells |= {f"{key}_{number}": value for key, value in one.items()}
    return cells


def segment(
    image: Annotated[Path, typer.Argument(help="An image, GeoTIFF or .npy file of any size.")],
    mask: Annotated[Path, typer.Option("--output", "-o", help="The mask to write: .png, .tif or .npy.")],
    model: Annotated[str, typer.Option(help="NAME.TAG, or an exported directory.")] = "unet_small",
    tile: Annotated[int, typer.Option(help="Largest side of a tile, in pixels.")] = 1024,
    overlap: Annotated[
        int | None, typer.Option(help="Smallest overlap of two tiles, in pixels; chosen by default.")
    ] = None,
    tta: Annotated[
        str | None, typer.Option(help="Test-time augmentation: dihedral, the mean over eight symmetries of each tile.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="The image with the classes in color; MASK_overlay.png by default.")
    ] = None,
) -> None:
    """Predict the class of each pixel of a large image, tile by tile; write the mask and a picture of it."""
    done = zoo.segment(model, image, mask, tile=tile, overlap=overlap, tta=tta, overlay=overlay)
    for name, share in done.shares.items():
        say(f"{name}  {share:.4f}")
    say(f"mask: {done.mask}; overlay: {done.overlay}")


def sample(
    source: Trained,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture: .png, .jpg, .webp or .gif.")],
    count: Annotated[int, typer.Option(help="How many images, 1 to 1024.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the latents.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(help="Class names with commas, such as 3,1,4, repeated until there are enough; all by default."),
    ] = None,
    interpolate: Annotated[
        bool,
        typer.Option(
            "--interpolate", help="The images between each sample and the next: rows, or a .gif or .webp animation."
        ),
    ] = False,
    nearest: Annotated[
        str | None,
        typer.Option(help="The data set it was trained on: the nearest training image is shown below each sample."),
    ] = None,
) -> None:
    """Draw images from a trained generator as a grid or an animation."""
    names = None if labels is None else words(labels)
    images = zoo.sample(source, count, seed=seed, labels=names, interpolate=interpolate, nearest=nearest, path=output)
    *_, drawn, height, width, _ = images.shape
    beside = "" if nearest is None else f", each above the nearest of {nearest}"
    say(f"{drawn} images of {height} x {width}{beside}: {output}")
