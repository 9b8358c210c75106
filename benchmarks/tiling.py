"""Scenes in tiles: megapixels a second and peak memory of `zoo.predict_tiled`, by the side of a square scene.

    python benchmarks/tiling.py [--sides 1024 4096 16384]

Each scene is an .npy file of noise, its probabilities go to another, and each side has a process of its own, whose peak
is measured: that of a tile, not of the scene. The network has fresh weights, which cost what trained ones do.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from common import in_new_process, peak_bytes, write_results

import zoo

SEED = 0


def make_scene(path: Path, side: int) -> None:
    """A scene of noise, uint8 [side, side, 1], written strip by strip."""
    draw = np.random.default_rng(SEED)
    scene = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 1))
    for row in range(0, side, 256):
        scene[row : row + 256] = draw.integers(0, 256, scene[row : row + 256].shape, dtype=np.uint8)


def measure(artifact: str, scene: Path, tile: int, tta: str | None) -> dict[str, float]:
    """One scene in this process, after a tile that warms it up."""
    side = np.load(scene, mmap_mode="r").shape[0]
    predictor = zoo.load(artifact)
    before = peak_bytes() / 2**20
    zoo.predict_tiled(predictor, np.zeros((tile, tile, 1), np.uint8), tile=tile)
    start = time.perf_counter()
    zoo.predict_tiled(predictor, scene, tile=tile, tta=tta, out=scene.with_name("probabilities.npy"))
    seconds = time.perf_counter() - start
    speed = side**2 / 1e6 / seconds
    return {"seconds": seconds, "megapixels_a_second": speed, "peak_mb": peak_bytes() / 2**20, "loaded_mb": before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 4096, 16384], help="in pixels")
    parser.add_argument("--model", default="unet_small")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--tta", help="dihedral: eight times the work")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 300 and 600 pixels, nothing written")
    parser.add_argument("--one", nargs=2, metavar=("ARTIFACT", "SCENE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        artifact, scene = options.one
        print(json.dumps(measure(artifact, Path(scene), options.tile, options.tta)))
        return
    if options.quick:
        options.sides, options.model, options.tile = [300, 600], "unet_tiny", 256
    spec, rows = zoo.get_spec(options.model), {}
    given = ["--tile", str(options.tile), *["--tta", options.tta] * bool(options.tta)]
    print(f"{'side':>8}{'seconds':>10}{'megapixels/s':>14}{'peak MB':>10}{'of it loaded':>14}")
    with tempfile.TemporaryDirectory() as folder:
        scene, model = Path(folder, "scene.npy"), zoo.create_model(options.model)
        classes = [str(number) for number in range(spec.classes)]
        artifact = zoo.export(model, Path(folder, f"{options.model}.fresh"), spec=spec, classes=classes)
        for side in options.sides:
            make_scene(scene, side)
            row = rows[side] = in_new_process(*given, "--one", str(artifact), str(scene))
            results = f"{row['megapixels_a_second']:14.2f}{row['peak_mb']:10.0f}{row['loaded_mb']:14.0f}"
            print(f"{side:8}{row['seconds']:10.1f}{results}", flush=True)
    if not options.quick:
        about = {"model": options.model, "tile": options.tile, "tta": options.tta}
        path = write_results("tiling", {**about, "sides": rows})
        print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
