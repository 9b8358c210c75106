"""Seeded attacks on what reads files from outside: `python tests/attack/sweep.py [--attempts 1000] [--first 0]`.

Each attempt makes something hostile and gives it to commands of `zoo`, in a worker process that is watched: its time,
its memory, how it ends. The counts of what must not happen are printed at the end, with the seed of each; the exit code
is 1 where there is one.
"""

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import pickle
import resource
import select
import shutil
import string
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

HANG = 30  # seconds that an attempt may take
MEMORY = 2 * 10**9  # bytes that a process may take
BAD = ("tracebacks", "aborts", "hangs", "over 2 GB", "code run", "wrong weights", "wrong answers", "control characters")
FOREVER = 600  # seconds after which a worker is ended
ODD = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, 1e308, "", "x", "../../up", "\x1b[31m", "[bold]", "<b>",
    "a" * 10**5, [], {}, [[]], [None], {"a": {}}, [1] * 10**5, ["x"] * 1000, [10**6] * 3,
)  # fmt: skip
IMAGE = "image.png"


# --- what is attacked: each kind changes a copy of an honest artifact, and returns commands ----------------------


def places(value, path=()):
    """All places within JSON."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(content, random):
    """JSON with one to three values replaced, removed or doubled."""
    content = copy.deepcopy(content)
    for _ in range(random.integers(1, 4)):
        every = [path for path in places(content) if path]
        if not every:
            break
        *parents, key = every[random.integers(len(every))]
        parent = content
        for one in parents:
            parent = parent[one]
        if random.random() < 0.15:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(ODD[random.integers(len(ODD))])
    return content


READING = (f"predict hostile/1 {IMAGE}", "info hostile/1")


def manifest(random, version):
    found = forging.manifest_of(version)
    part = random.choice(["model", "scores", "training", "files", "weights", ""])
    if part:
        found[part] = mutated({"x": found[part]}, random).get("x")
    else:
        found = mutated(found, random)
    forging.write_manifest(version, found)
    return READING


def text_of_manifest(random, version):
    file = version / "assets.extra" / "manifest.json"
    data = bytearray(file.read_bytes())
    for place in random.integers(0, len(data), random.integers(1, 20)):
        data[place] = random.integers(256)
    depth = int(random.integers(10, 10**5))
    file.write_bytes(random.choice([bytes(data), bytes(data[: len(data) // 2]), b"[" * depth, b'{"a":' * depth]))
    return READING


def sizes(random, version):
    """Arguments and shapes of any network of the registry."""
    from zoo import registry

    found = forging.manifest_of(version)
    specs = registry.all_specs()
    spec = specs[random.choice(sorted(specs))]
    large = [int(10 ** random.uniform(0, 12)) for _ in range(6)]
    keys = [*spec.arguments, "hidden", "width", "depth", "vocabulary_size", "embedding"]
    arguments = {str(random.choice(keys)): [large[0], large[:3], [8] * min(large[1], 10**5)][random.integers(3)]}
    name = spec.name if random.random() < 0.7 else "mlp_784_10"
    shape = found["model"]["input_shape"] if random.random() < 0.5 else [*large[3:5], 1]
    found["model"] |= {"spec": name, "arguments": arguments if random.random() < 0.7 else {}, "input_shape": shape}
    if random.random() < 0.3:
        found["model"]["preprocessing"] |= {str(random.choice(["size", "pad_to", "crop_to"])): large[:2]}
    forging.write_manifest(version, found)
    return READING[:1]


def entries(random, version):
    """Entries of the checkpoint with other numbers and right checksums."""

    def change(key, entry):
        if b"weights" in key and random.random() < 0.7:
            field = str(random.choice(["dtype", "offset", "size", "shard_id", "shape"]))
            value = int(random.choice([-1, 0, 1, 7, 99, 2**20, 2**31 - 1]))
            if field == "shape":
                value = [int(random.choice([-1, 0, 1, 3, 784, 2**31, 2**62])) for _ in range(random.integers(0, 9))]
            with contextlib.suppress(ValueError):  # out of the field's range
                forging.changed(entry, **{field: value})
        return entry

    forging.change_entries(version, change)
    forging.reseal(version)
    return READING[:1]


def blocks(random, version):
    """Random bytes in the index, and arrays that share theirs."""
    index = version / "variables" / "variables.index"
    rows = forging.rows_of(index.read_bytes())
    if random.random() < 0.2:
        many = [
            (b"weights/x%06d/.ATTRIBUTES/VARIABLE_VALUE" % n, rows[-1][1]) for n in range(random.integers(1, 20_000))
        ]
        index.write_bytes(forging.table_of([*rows, *many]))
    else:
        data = bytearray(forging.table_of(rows))
        for place in random.integers(0, len(data), random.integers(1, 30)):
            data[place] = random.integers(256)
        index.write_bytes(bytes(data))
    forging.reseal(version)
    return READING[:1]


def files(random, version):
    """FIFOs, devices, links, sparse files, missing and cut ones."""
    every = sorted(file for file in version.rglob("*") if file.is_file())
    file = every[random.integers(len(every))]
    found, size = forging.manifest_of(version), file.stat().st_size
    how = random.choice(["fifo", "device", "link", "sparse", "cut", "folder"])
    if how == "cut":
        os.truncate(file, random.integers(size))
    else:
        file.unlink()
    if how == "fifo":
        os.mkfifo(file)
    elif how in ("device", "link"):
        file.symlink_to("/dev/zero" if how == "device" else "/etc/hostname")
    elif how == "sparse":
        with file.open("wb") as opened:
            opened.truncate(2**40)
    elif how == "folder":
        file.mkdir()
    name = file.relative_to(version).as_posix()
    if name in found["files"]:
        found["files"][name]["size"] = file.lstat().st_size
        with contextlib.suppress(OSError):
            forging.write_manifest(version, found)
    return READING


def index(random, version):
    from zoo.artifacts import index as indexes

    Path("saved_models").mkdir()
    shutil.copytree(version.parent, "saved_models/mlp_784_10.made")
    indexes.write_index(Path("saved_models"))
    file = Path("saved_models", indexes.INDEX)
    file.write_text(json.dumps(mutated(json.loads(file.read_text()), random)))
    return "list --pretrained", "info mlp_784_10", f"predict mlp_784_10.made {IMAGE}", "report"


def images(random, version):
    """Bytes that are no image, or hardly one, and programs for Ghostscript."""
    from PIL import Image

    data = io.BytesIO()
    kind = str(random.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "EPS", "WEBP"]))
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(data, kind)
    changed = bytearray(data.getvalue())
    for place in random.integers(0, len(changed), random.integers(0, 12)):
        changed[place] = random.integers(256)
    Path(IMAGE).write_bytes(changed[: random.integers(1, len(changed) + 1)] if random.random() < 0.3 else changed)
    return READING[:1]


def texts(random, version):
    """Names of classes with control characters and markup."""
    letters = [*string.ascii_letters, "\x1b", "\r", "\b", "\x9b", "\u202e", "[", "]", "/", "<", ">", "\n", "\0", "|"]
    names = ["".join(random.choice(letters, random.integers(1, 40))) for _ in range(3)]
    found = forging.manifest_of(version)
    found["model"]["classes"], found["scores"]["dataset"] = names, names[0]
    forging.write_manifest(version, found)
    return READING


class Touch:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return Path.touch, (Path("code-was-run").resolve(),)


def pickles(random, version):
    golden = version / "assets.extra" / "golden.npz"
    how = random.integers(3)
    if how == 0:
        np.savez(golden, **{"serving_default/1/inputs/images": np.array([Touch()], dtype=object)})
    elif how == 1:
        golden.write_bytes(pickle.dumps(Touch()))
    else:
        (version / "saved_model.pb").write_bytes(pickle.dumps(Touch()))
    forging.reseal(version)
    return "info hostile/1", f"predict hostile/1 {IMAGE}", *(["verify hostile/1"] if random.random() < 0.1 else [])


def graphs(random, version):
    """Graphs that lie, remember, never end, take all memory or act; and random bytes in one."""
    how = str(random.choice(["lie", "remember", "endless", "greedy", "bytes"]))
    graph = version / "saved_model.pb"
    if how in GRAPHS:
        shutil.copytree(GRAPHS[how], version, dirs_exist_ok=True)
    else:
        data = bytearray(graph.read_bytes())
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.integers(256)
        graph.write_bytes(bytes(data))
    forging.reseal(version)
    return ("verify hostile/1",)


KINDS = (
    [manifest] * 24 + [text_of_manifest] * 8 + [sizes] * 14 + [entries] * 12 + [blocks] * 12 + [files] * 8 + [index] * 8
    + [images] * 6 + [texts] * 4 + [pickles] * 3 + [graphs]
)  # fmt: skip
LIES = ("lie", "remember", "endless", "greedy")
GRAPHS: dict = {}


# --- a worker: makes attempts and says how each command ended, one line of JSON each ------------------------------


def work(first, last, folder):
    from PIL import Image

    from zoo import cli
    from zoo.artifacts import index as indexes
    from zoo.artifacts.lookup import open_artifact
    from zoo.artifacts.rebuilding import rebuild
    from zoo.errors import CONTROL
    from zoo.weights import named_weights

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    honest = Path(folder, "honest", "1")
    expected = {key: value.numpy() for key, value in named_weights(rebuild(open_artifact(honest)).model).items()}
    GRAPHS.update({name: Path(folder, name) for name in LIES})
    os.environ["PATH"] = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"  # with a Ghostscript that leaves a mark
    for seed in range(first, last):
        random = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        with tempfile.TemporaryDirectory(dir=folder) as own, contextlib.chdir(own):
            os.environ["ZOO_CACHE"] = f"{own}/cache"
            version = Path(shutil.copytree(honest, Path(own, "hostile", "1")))
            Image.new("L", (28, 28)).save(IMAGE)
            commands = kind(random, version)
            indexes.index_of.cache_clear()
            for command in commands:
                print(json.dumps({"seed": seed, "kind": kind.__name__, "command": command}), file=answers)
                out, bad = io.StringIO(), []
                sys.argv = ["zoo", *command.split()]
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                    try:
                        code = 0
                        cli.main()
                    except SystemExit as stop:
                        code = stop.code or 0
                    except BaseException:
                        bad.append("tracebacks")
                        traceback.print_exc()
                if code not in (0, 2) or "Traceback" in out.getvalue():
                    bad.append("tracebacks")
                if CONTROL.search(out.getvalue()) and "tracebacks" not in bad:
                    bad.append("control characters")
                if Path("code-was-run").exists() or Path(folder, "started").exists():
                    bad.append("code run")
                if code == 0 and command.startswith("verify") and kind is graphs and is_forged(version):
                    bad.append("wrong answers")
                if code == 0 and command.startswith("predict") and kind in (manifest, texts, files, index):
                    arrays = open_artifact(version).arrays() if kind is not index else expected
                    if any(not np.array_equal(arrays.get(key), value) for key, value in expected.items()):
                        bad.append("wrong weights")
                if resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 > MEMORY:
                    bad.append("over 2 GB")
                print(json.dumps({"code": code, "bad": sorted(set(bad)), "said": out.getvalue()[-2000:]}), file=answers)


def is_forged(version):
    """Whether its graph is one of those that lie; one with other bytes may be honest."""
    return any(same(path, version) for path in GRAPHS.values())


def same(one, other):
    return (one / "saved_model.pb").read_bytes() == (other / "saved_model.pb").read_bytes()


# --- the sweep ----------------------------------------------------------------------------------------------------


def prepare(folder):
    """The honest artifact, the forged ones, and the mark of a Ghostscript."""
    from zoo.artifacts import verification

    def lie(outputs, *_):
        return {**outputs, "class_ids": outputs["class_ids"] + 1}

    verification.serve_golden_examples = lambda networks: []
    shutil.copytree(forging.export(folder / "made" / "mlp_784_10.made"), folder / "honest" / "1")
    for name in LIES:
        made = forging.forged(folder / name / "made", getattr(forging, name, lie), golden=name in ("lie", "remember"))
        for file in ("saved_model.pb", "variables", "assets.extra"):
            shutil.move(made / file, folder / name / file)
        shutil.rmtree(folder / name / "made")
    (folder / "bin").mkdir()
    (folder / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {folder}/started\n")
    (folder / "bin" / "gs").chmod(0o755)


def sweep(first, last, folder):
    """How often each bad thing happened, and where; and how often attempts of each kind were refused."""
    bad: dict = collections.defaultdict(list)
    refused: collections.Counter = collections.Counter()
    made: collections.Counter = collections.Counter()
    while first < last:
        command = [sys.executable, __file__, "--worker", str(first), str(last), str(folder)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        now, lines = {"seed": first, "kind": "start", "command": ""}, iter(worker.stdout.readline, "")
        started, memory = time.monotonic(), 0
        for line in watched(worker, lines):
            if line is None:  # it hangs
                worker.kill()
                break
            answer = json.loads(line)
            if "seed" in answer:
                now, started = answer, time.monotonic()
                continue
            took = time.monotonic() - started
            made[now["kind"]] += 1
            refused[now["kind"]] += answer["code"] == 2
            if took > HANG:
                bad["hangs"].append((now["seed"], now["kind"], now["command"], f"{took:.0f} s"))
            peak = peak_of(worker.pid)
            if peak > MEMORY >= memory:
                answer["bad"].append("over 2 GB")
            memory = max(memory, peak)
            for what in answer["bad"]:
                bad[what].append((now["seed"], now["kind"], now["command"], answer["said"][-300:]))
        code = worker.wait()
        if code == 0:
            break
        bad["hangs" if code == -9 else "aborts"].append((now["seed"], now["kind"], now["command"], f"exit {code}"))
        first = now["seed"] + 1
    return bad, made, refused


def watched(worker, lines):
    """The worker's lines; None where the next one does not come."""
    while True:
        ready, _, _ = select.select([worker.stdout], [], [], FOREVER)
        if not ready:
            yield None
            return
        line = next(lines, "")
        if not line:
            return
        yield line


def peak_of(process):
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(int(options.worker[0]), int(options.worker[1]), options.worker[2])
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        started = time.monotonic()
        bad, made, refused = sweep(options.first, options.first + options.attempts, folder)
    for kind, count in sorted(made.items()):
        print(f"{kind}: {count} commands, {refused[kind]} refused in one line")
    for what in BAD:
        for case in bad[what]:
            print(f"{what}: seed {case[0]}, {case[1]}, zoo {case[2]}: {case[3]}")
    counts = ", ".join(f"{len(bad[what])} {what}" for what in BAD)
    print(f"{options.attempts} attempts, {sum(made.values())} commands in {time.monotonic() - started:.0f} s: {counts}")
    return int(any(bad[what] for what in BAD))


if __name__ == "__main__":
    from attack import forging

    sys.exit(main())
