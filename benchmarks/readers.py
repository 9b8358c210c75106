"""Readers, `zoo train --readers`: training images a second where decoding is slow, by the number of readers.

    python benchmarks/readers.py            writes results/readers.json and a table in docs/scaling.md, 7 minutes
    python benchmarks/readers.py --quick    a smoke run that writes nothing

A network that takes little time trains on JPEG files that are decoded again in each epoch. Decoding is slowed down:
each image waits for some milliseconds, as for a distant disk. All processes share this machine. The last epochs count,
when what was read ahead is used up, with their validation, whose images the trainer decodes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import RESULTS, in_new_process, write_between, write_results
from streaming import make

import zoo
from zoo.data import streamed
from zoo.training import readers

COUNTS = (0, 1, 2, 4)
WAITS = (0, 20)  # milliseconds of each image
MODEL = "network3_shallow"
IMAGES, BATCH, COUNTED = 600, 20, 5
PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"


def slow_down(milliseconds: float) -> None:
    """Lets each image that this process decodes wait."""
    decode_image = streamed.decode_image

    def slow(*arguments: object) -> object:
        time.sleep(milliseconds / 1000)
        return decode_image(*arguments)

    streamed.decode_image = slow


def train(folder: str, addresses: list[str]) -> None:
    """Train, and print the training images a second of the last epochs."""
    with tempfile.TemporaryDirectory() as out:
        run = zoo.train(
            MODEL,
            folder,
            out=out,
            epochs=2 * COUNTED,
            batch_size=BATCH,
            readers=addresses,
            augmentation={"expand_shift": False},
        )
    images = run.record["data"]["examples"]["train"] // BATCH * BATCH
    seconds = sum(row["seconds"] for row in run.history[-COUNTED:])
    print(json.dumps({"images_per_second": COUNTED * images / seconds, "loss": run.history[-1]["loss"]}))


def measured(folder: str, count: int, wait: int) -> dict[str, float]:
    """A training with so many readers, in processes of their own."""
    addresses = [f"127.0.0.1:{21_000 + 10 * number}" for number in range(count)]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--wait", str(wait), "--read", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for address in addresses
    ]
    try:
        return in_new_process("--wait", str(wait), "--train", folder, *addresses, ZOO_CACHE_GB="0")
    finally:
        for process in started:
            process.kill()


def draw() -> None:
    """Writes the table into docs/scaling.md."""
    rows = json.loads((RESULTS / "readers.json").read_text(encoding="utf-8"))["images_per_second"]
    counts = [f"{count} reader{'s' * (count != 1)}" for count in COUNTS]
    lines = [f"| images/s of training | {' | '.join(counts)} |", f"|---|{'---|' * len(COUNTS)}"]
    for wait, by_count in rows.items():
        rates = " | ".join(f"{by_count[str(count)]:,.0f}" for count in COUNTS)
        lines.append(f"| {f'{wait} ms longer for each image' if wait != '0' else 'as fast as it is'} | {rates} |")
    write_between(PAGE, "readers", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument("--wait", type=float, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--train", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    slow_down(options.wait)
    if options.read:
        readers.read(options.read)
    elif options.train:
        train(options.train[0], options.train[1:])
    else:
        found: dict[str, dict[str, float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), IMAGES)
            for wait in WAITS[1:2] if options.quick else WAITS:
                for count in COUNTS[:2] if options.quick else COUNTS:
                    row = measured(folder, count, wait)
                    found.setdefault(str(wait), {})[str(count)] = row["images_per_second"]
                    print(f"{wait} ms, {count} readers: {row}", flush=True)
        if not options.quick:
            write_results("readers", {"images": IMAGES, "images_per_second": found})
            draw()


if __name__ == "__main__":
    main()
