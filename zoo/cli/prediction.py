"""Commands that apply trained weights to a user's own inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import zoo
from zoo.cli.options import Json, Trained


def predict(
    source: Trained,
    inputs: Annotated[list[str], typer.Argument(help="Image files (PNG, JPEG), or texts for a text model.")],
    as_json: Json = False,
) -> None:
    """Predict the classes of images or texts."""
    rows = zoo.predict(source, inputs)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        values = [value for value in row.values() if not isinstance(value, list)]
        print("  ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in values))


def segment(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, GeoTIFF or .npy file of any size.")],
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
        print(f"{name}  {share:.4f}")
    print(f"mask: {done.mask}; overlay: {done.overlay}")


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
            "--interpolate", help="The images between each sample and the next: rows, or a .gif or .webp film."
        ),
    ] = False,
) -> None:
    """Draw images from a trained generator as a grid or an animation."""
    names = None if labels is None else labels.split(",")
    images = zoo.sample(source, count, seed=seed, labels=names, interpolate=interpolate, path=output)
    print(f"{len(images)} images of {images.shape[1]} x {images.shape[2]}: {output}")
