"""What the benchmarks share: timing that treats all candidates alike, and result files that say how they arose."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(
    functions: Mapping[str, Callable[[], float]], repeats: int, *, warm_up: bool = True
) -> dict[str, dict[str, Any]]:
    """Calls every function once a round, so that a busy moment of the machine does not fall on one of them alone.

    Args:
        functions: each measures once and returns its value.
        repeats: how many rounds count.
        warm_up: whether a round before them, which does not count, warms everything up.

    Returns:
        By name, `median` and all `values` in the order of the rounds.
    """
    values: dict[str, list[float]] = {name: [] for name in functions}
    if warm_up:
        for function in functions.values():
            function()
    for _ in range(repeats):
        for name, function in functions.items():
            values[name].append(function())
    return {name: {"median": statistics.median(each), "values": each} for name, each in values.items()}


def ratios(measured: Mapping[str, Mapping[str, Any]], ours: str, theirs: str) -> dict[str, float]:
    """Ours divided by theirs within each round, where both met the same load: `median`, `smallest`, `largest`."""
    pairs = zip(measured[ours]["values"], measured[theirs]["values"], strict=True)
    each = sorted(our / their for our, their in pairs)
    return {"median": statistics.median(each), "smallest": each[0], "largest": each[-1]}


def in_new_process(*arguments: str, **environment: str) -> dict[str, Any]:
    """Runs the script again with other arguments, and gives what the JSON in its last line says.

    Raises:
        SystemExit: with what it wrote to standard error, where it fails.
    """
    command, given = [sys.executable, sys.argv[0], *arguments], {**os.environ, **environment}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def free_addresses(count: int) -> tuple[str, ...]:
    """Addresses of this machine, `127.0.0.1:PORT`, that nobody listens at."""
    with contextlib.ExitStack() as opened:
        free = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in free)


def peak_bytes() -> int:
    """What this process held at most, mapped pages among them. Linux alone tells it of the program itself: `getrusage`
    counts what the process held before it became this program."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def write_between(page: Path, mark: str, text: str) -> None:
    """Puts a text between the lines `<!-- MARK -->` and `<!-- end of MARK -->` of a page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def write_results(name: str, results: Mapping[str, Any]) -> Path:
    """Writes `results/NAME.json`: the results, and the date, command line, processors and versions they belong to."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": {"processor": platform.machine(), "cpu_count": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("tensorflow", "keras", "numpy")},
        },
        **results,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path
