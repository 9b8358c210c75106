"""Data sets of every format, their splits, and the errors for data that cannot be used."""

from __future__ import annotations

import functools
import gc
import gzip
import hashlib
import http.server
import io
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from zoo import preprocessing
from zoo.data import Dataset, Split, load, lookup
from zoo.data.dataset import IGNORED
from zoo.data.streamed import Streamed
from zoo.errors import ZooError

DATA = os.environ.get("ZOO_DATA_DIR")


def real(name: str):
    """Marks a test that reads a file of the real data."""
    missing = not DATA or not (Path(DATA) / name).exists()
    return lambda test: pytest.mark.real_data(pytest.mark.skipif(missing, reason=f"no {name} in ZOO_DATA_DIR")(test))


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without data and network: empty folders, and addresses of a closed port."""
    for variable in ("ZOO_DATA_DIR", "KERAS_HOME", "XDG_CACHE_HOME"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(lookup, "MNIST_URL", f"{address}/mnist.npz")
    monkeypatch.setattr(lookup, "PROBE_URL", address)
    return tmp_path


def png(color, size=(6, 5), mode="RGB", kind="PNG") -> bytes:
    """An image of one color; `size` is width and height."""
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind)
    return file.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Writes files below `root`, or into it if it ends in .zip; a name that ends in / is an empty folder."""
    if root.suffix == ".zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return root
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).write_bytes(data)
    return root


def flags(prefix: str = "", count: int = 8) -> dict[str, bytes]:
    """Two classes, red and green, with `count` images each, all of different shades."""
    shades = range(100, 100 + count)
    return {f"{prefix}red/{s}.png": png((s, 0, 0)) for s in shades} | {
        f"{prefix}green/{s}.png": png((0, s, 0)) for s in shades
    }


def savez(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def small_npz(path: Path, count: int = 40, **arrays) -> Path:
    """Images whose values are all their number, and labels 0 and 1 in turn."""
    numbers = np.arange(count)
    images = np.broadcast_to(numbers[:, None, None], (count, 4, 3)).astype(np.uint8)
    return savez(path, **{"x_train": images, "y_train": numbers % 2} | arrays)


def sizes(data: Dataset) -> list[int]:
    return [len(data.splits[name]) for name in ("train", "validation", "test")]


def same(first: Dataset, second: Dataset) -> bool:
    return all(np.array_equal(first.splits[name].inputs, second.splits[name].inputs) for name in first.splits)


def test_importing_does_not_import_tensorflow():
    code = "import sys, zoo.data; print([m for m in ('tensorflow', 'sklearn', 'keras') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_digits_use_the_whole_range_and_one_split_for_all_seeds():
    digits = load("digits")
    assert digits.name == "digits"
    assert digits.shape == (8, 8, 1)
    assert digits.classes == tuple("0123456789")
    assert sizes(digits) == [1257, 270, 270]
    train = digits.splits["train"]
    assert train.inputs.dtype == np.uint8
    assert train.inputs.min() == 0
    assert train.inputs.max() == 255
    assert np.ptp(np.bincount(digits.splits["test"].targets)) <= 2  # stratified: 26 to 28 of each digit
    assert load("digits", seed=7).fingerprint == digits.fingerprint
    assert load(digits) is digits


def test_splits_as_tf_data(tmp_path):
    data = load(small_npz(tmp_path / "small.npz"))
    image, label = next(iter(data.train))
    first = data.splits["train"].head(1)
    assert len(first) == 1
    assert image.shape == data.shape == (4, 3, 1)
    assert label.dtype == "int64"
    assert (int(image[0, 0, 0]), int(label)) == (first.inputs[0, 0, 0, 0], first.targets[0])
    assert [len(part) for part in (data.train, data.validation, data.test)] == [28, 6, 6]
    (text,) = next(iter(Split(np.array(["a text"], object)).as_tf()))
    assert text.numpy() == b"a text"


def test_held_out_splits_share_nothing_are_stratified_and_follow_the_seed(tmp_path):
    path = small_npz(tmp_path / "small.npz")
    data = load(path, seed=1)
    numbers = [split.inputs[:, 0, 0, 0].tolist() for split in data.splits.values()]
    assert sorted(itertools.chain(*numbers)) == list(range(40))
    assert [np.bincount(split.targets).tolist() for split in data.splits.values()] == [[14, 14], [3, 3], [3, 3]]
    assert all((split.inputs[:, 0, 0, 0] % 2 == split.targets).all() for split in data.splits.values())
    assert same(load(path, seed=1), data)
    assert not same(load(path, seed=2), data)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_examples_leave_one_for_each_split(tmp_path, count):
    data = load(small_npz(tmp_path / "few.npz", count, y_train=np.arange(count)))
    assert sum(sizes(data)) == count


def test_own_splits_of_an_npz_are_kept(tmp_path):
    x, y = np.zeros((5, 4, 3), np.float64), np.array([[0], [1], [0], [1], [0]])
    data = load(
        small_npz(
            tmp_path / "own.npz", x_train=x, y_train=y, x_val=x + 1, y_val=y, x_test=x + 2, y_test=y, classes=["a", "b"]
        )
    )
    assert [split.inputs.max() for split in data.splits.values()] == [0, 1, 2]
    assert data.splits["train"].inputs.dtype == np.uint8
    assert data.classes == ("a", "b")
    assert data.splits["train"].targets.tolist() == [0, 1, 0, 1, 0]


def test_an_npz_of_texts_or_without_targets(tmp_path):
    texts = load(savez(tmp_path / "texts.npz", x_train=np.array(["yes", "no"] * 5), y_train=np.array([1, 0] * 5)))
    assert texts.shape == ()
    assert set(texts.splits["train"].inputs) == {"yes", "no"}
    plain = load(savez(tmp_path / "plain.npz", x_train=np.zeros((9, 4, 3), np.uint16)))
    assert plain.splits["train"].inputs.dtype == np.uint8
    assert plain.splits["test"].targets is None
    assert plain.classes == ()


def test_the_fingerprint_follows_content_alone(tmp_path):
    first = load(small_npz(tmp_path / "first.npz"))
    assert load(small_npz(tmp_path / "copy.npz")).fingerprint == first.fingerprint
    x = np.load(tmp_path / "first.npz")["x_train"]
    changed = x.copy()
    changed[0, 0, 0] += 1
    others = [{"x_train": changed}, {"x_train": x - 1.0}, {"classes": ["a", "b"]}]
    others += [{"x_train": x.reshape(40, 3, 4)}, {"y_train": 1 - np.arange(40) % 2}]
    prints = {load(small_npz(tmp_path / "other.npz", **other)).fingerprint for other in others}
    assert len(prints | {first.fingerprint}) == 6
    texts = [load(write(tmp_path, {"t.txt": text * 20}) / "t.txt").fingerprint for text in (b"ab", b"ba", b"ab")]
    assert texts[0] == texts[2] != texts[1]
    # the same inputs in the same splits, and one label changed
    labels = np.zeros((2, 4), np.int64)
    labels[1, 3] = 1
    splits = [dict.fromkeys(("train", "validation", "test"), Split(x[:4, ..., None], targets)) for targets in labels]
    assert Dataset("a", splits[0]).fingerprint != Dataset("a", splits[1]).fingerprint


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_class_folders_wrapped_and_beside_hidden_files(tmp_path, suffix):
    files = flags("flags/") | {"flags/red/.hidden": b"x", "__MACOSX/flags/red/._1.png": b"x", "flags/README": b"x"}
    data = load(write(tmp_path / f"set{suffix}", files))
    assert data.name == "set"
    assert data.classes == ("green", "red")
    assert data.shape == (5, 6, 3)
    assert sum(sizes(data)) == 16
    for split in data.splits.values():  # channel 0 is red, whose id is 1
        assert (split.inputs[:, 0, 0].argmax(axis=1) == 1 - split.targets).all()


def test_a_folder_and_its_zip_hold_the_same_data(tmp_path):
    folder, archive = write(tmp_path / "set", flags()), write(tmp_path / "set.zip", flags())
    assert load(folder).fingerprint == load(str(archive)).fingerprint


def test_split_folders(tmp_path):
    files = flags("train/", 5) | flags("val/", 3) | {"test/red/1.png": png((1, 0, 0))}
    data = load(write(tmp_path / "set", files))
    assert sizes(data) == [10, 6, 1]
    assert data.splits["test"].targets.tolist() == [1]
    assert data.splits["test"].inputs[0, 0, 0].tolist() == [1, 0, 0]


def test_gray_and_color_images_of_all_formats(tmp_path):
    gray = {
        f"{name}/{i}.{kind.lower()}": png(i, mode="L", kind=kind)
        for name in "ab"
        for i, kind in enumerate(["PNG", "BMP", "GIF", "JPEG"])
    }
    assert load(write(tmp_path / "gray", gray)).shape == (5, 6, 1)
    mixed = load(write(tmp_path / "mixed", gray | {"a/9.png": png((9, 0, 0))}))
    assert mixed.shape == (5, 6, 3)
    assert sum(sizes(mixed)) == 9


def test_images_are_resized_as_in_serving(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    data = load(write(tmp_path / "set", flags() | {"noise/1.png": file.getvalue()}), image_size=(5, 6))
    found = next(s.inputs[s.targets == 1] for s in data.splits.values() if 1 in s.targets)
    assert data.classes[1] == "noise"
    assert np.array_equal(found[0], np.rint(preprocessing.resize(noise[None], (5, 6))[0]).astype(np.uint8))
    assert np.abs(found[0] - tf.image.resize(noise, (5, 6), antialias=True)).max() < 0.501


def test_many_files_show_their_progress(tmp_path, capsys):
    path = write(tmp_path / "set.zip", flags(count=100))
    load(path)
    assert "files" not in capsys.readouterr().err
    many = {f"{name}/{i}.png": png(0, (1, 1), "L") for name in "ab" for i in range(1001)}
    load(write(tmp_path / "many.zip", many))
    assert "2002/2002" in capsys.readouterr().err


def test_tables_and_texts(tmp_path):
    rows = "".join(f'{"neg" if i % 2 else "pos"}\tsentence {i}, "quoted"\n' for i in range(20))
    table = load(write(tmp_path, {"table.tsv": f"label\ttext\n{rows}".encode()}) / "table.tsv")
    assert table.classes == ("neg", "pos")
    assert sizes(table) == [14, 3, 3]
    train = table.splits["train"]
    assert (train.inputs[0], train.targets[0]) == ('sentence 0, "quoted"', 1)
    text = "".join(map(chr, range(200, 400)))
    prose = load(write(tmp_path, {"prose.txt": text.encode()}) / "prose.txt")
    assert [split.inputs.tolist() for split in prose.splits.values()] == [[text[:180]], [text[180:]], [text[180:]]]
    assert prose.splits["train"].targets is None
    assert prose.classes == ()


def test_bare_names_are_looked_up_in_the_data_folder(bare):
    small_npz(bare / "ZOO_DATA_DIR" / "counts.npz")
    write(bare / "ZOO_DATA_DIR" / "banners", flags())
    assert load("counts").name == "counts"
    assert load("banners").classes == ("green", "red")
    with pytest.raises(ZooError, match=r"'cuonts': did you mean counts\?.*ZOO_DATA_DIR"):
        load("cuonts")


def folder(files: dict[str, bytes]):
    return lambda tmp_path: write(tmp_path / "set", files)


def file(name: str, data: bytes):
    return lambda tmp_path: write(tmp_path, {name: data}) / name


def npz(**arrays):
    return lambda tmp_path: small_npz(tmp_path / "set.npz", **arrays)


BAD = {
    "unknown": (lambda tmp_path: "digit", r"unknown data set 'digit': did you mean digits\?.*ZOO_DATA_DIR"),
    "missing path": (lambda tmp_path: tmp_path / "none.npz", r"unknown data set '.*none\.npz'"),
    "empty name": (lambda tmp_path: "", "unknown data set ''"),
    "other form": (file("set.xls", b"1,2"), r"set\.xls has an unknown format: .*\.tsv"),
    "unknown tfds": (lambda tmp_path: "tfds:mnits", r"unknown tensorflow-datasets set 'mnits': did you mean .*mnist"),
    "tfds config": (lambda tmp_path: "tfds:mnist/none", r"tfds:mnist/none is not available: .*none not found"),
    "empty class": (folder(flags() | {"blue/": b""}), "class folder 'blue' is empty"),
    "nested class": (folder(flags() | {"blue/dark/1.png": png(0)}), "class folder 'blue' contains further folders"),
    "no classes": (folder({"1.png": png(0)}), "set has no class folders"),
    "test alone": (folder(flags("train/") | {"test/blue/1.png": png(0)}), "'test/blue' has no counterpart in train"),
    "too many to name": (
        folder({f"a/{i}.png": b"" for i in range(27)}),
        r"27 of 27 .*: (a/\d+\.png \(an empty file\), ){20}and 7 more$",
    ),
    "32 bits": (
        folder(flags() | {"blue/deep.tif": png(0.5, mode="F", kind="TIFF")}),
        r"1 of 17 .*blue/deep\.tif \(32 bits",
    ),
    "sizes": (folder(flags() | {"red/9.png": png(0, (7, 9))}), r"2 sizes \(5 x 6, 9 x 7.*image_size"),
    "not a zip": (file("set.zip", b"PK not at all"), r"set\.zip is not a zip archive or is truncated"),
    "cut zip": (
        lambda tmp_path: cut(write(tmp_path / "set.zip", flags())),
        r"set\.zip is not a zip archive or is truncated",
    ),
    "not an npz": (file("set.npz", b"nothing"), r"set\.npz cannot be read as plain arrays"),
    "cut npz": (lambda tmp_path: cut(small_npz(tmp_path / "set.npz")), r"set\.npz cannot be read as plain arrays"),
    "pickled": (npz(y_train=np.array([{}] * 40, object)), "cannot be read as plain arrays .*[Oo]bject"),
    "no x_train": (lambda tmp_path: savez(tmp_path / "a.npz", pictures=np.ones(3)), "has no x_train, only pictures"),
    "lengths": (npz(y_train=np.arange(39)), r"train inputs \(40, 4, 3, 1\) and targets \(39,\) differ in number"),
    "wide images": (npz(x_train=np.ones((40, 9), np.uint8)), r"inputs uint8 \(40, 9\) must be"),
    "real labels": (npz(y_train=np.ones(40) / 2), r"targets float64 \(40,\) must be class ids"),
    "negative label": (npz(y_train=np.arange(40) - 1), "must be class ids from 0"),
    "mask shape": (npz(y_train=np.ones((40, 3, 4), int)), r"targets int64 \(40, 3, 4\) must be"),
    "not finite": (npz(x_train=np.full((40, 4, 3), np.nan)), "train inputs contain NaN or infinite values"),
    "other test": (
        npz(x_test=np.ones((9, 9, 9), np.uint8), y_test=np.ones(9, int)),
        "examples of test differ in kind or size from those of train",
    ),
    "unlabeled test": (
        npz(x_test=np.ones((9, 4, 3), np.uint8)),
        "examples of test differ in kind or size from those of train",
    ),
    "few classes": (npz(classes=["one"]), "names 1 classes, its targets have 2"),
    "two examples": (npz(x_train=np.ones((2, 4, 3), np.uint8), y_train=np.arange(2)), "no example in train"),
    "empty test": (npz(x_test=np.ones((0, 4, 3), np.uint8), y_test=np.ones(0, int)), "no example in test"),
    "not utf-8": (file("set.txt", b"caf\xe9" * 50), r"set\.txt is not UTF-8 text \(byte 3\)"),
    "short text": (file("set.txt", b"a"), r"contains 1 characters: too few"),
}


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-60])
    return path


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_one_line_error(case, tmp_path, bare):
    make, message = BAD[case]
    with pytest.raises(ZooError, match=message) as caught:
        load(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_dataset_object_needs_its_three_splits():
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64))
    assert len(Dataset("mine", dict.fromkeys(["train", "validation", "test"], split), ("a",)).fingerprint) == 64
    with pytest.raises(ZooError, match="mine has splits train; it needs"):
        Dataset("mine", {"train": split})


def test_mnist_without_a_network_fails_soon_and_names_the_places_searched(bare):
    start = time.monotonic()
    with pytest.raises(ZooError) as caught:
        load("mnist")
    message = str(caught.value)
    assert time.monotonic() - start < 10
    assert "\n" not in message
    for part in ("mnist.npz", lookup.MNIST_SHA256, "ZOO_DATA_DIR", "KERAS_HOME", "XDG_CACHE_HOME", "127.0.0.1"):
        assert part in message


def test_a_silent_server_times_out(bare, monkeypatch):
    monkeypatch.setattr(lookup, "TIMEOUT", 0.2)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(lookup, "MNIST_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/mnist.npz")
        with pytest.raises(ZooError, match="timed out"):
            load("mnist")
    assert time.monotonic() - start < 10


@pytest.fixture
def imitation(bare, monkeypatch):
    """A small file that passes for MNIST: its checksums replace the published ones."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (50_020, 2, 2), np.uint8), random.integers(0, 10, 50_020, np.uint8)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:30], "y_test": y[:30]}
    (bare / "site").mkdir()
    path = savez(bare / "site" / "mnist.npz", **arrays)
    monkeypatch.setattr(lookup, "MNIST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(
        lookup, "MNIST_MD5", {key: hashlib.md5(idx(array)).hexdigest() for key, array in arrays.items()}
    )
    return path


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def site(bare, monkeypatch):
    """Serves the folder `site` and counts the requests."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=bare / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(lookup, "MNIST_URL", f"http://127.0.0.1:{server.server_port}/mnist.npz")
    yield requests
    server.shutdown()
    server.server_close()


def test_mnist_is_downloaded_once(imitation, site):
    data = load("mnist")
    assert sizes(data) == [50_000, 20, 30]
    assert np.array_equal(data.splits["validation"].inputs[..., 0], np.load(imitation)["x_train"][50_000:])
    requests = len(site)
    assert requests
    assert load("mnist").fingerprint == data.fingerprint
    assert len(site) == requests


def test_a_download_with_another_sha256_is_refused(imitation, site, monkeypatch, bare):
    monkeypatch.setattr(lookup, "MNIST_SHA256", "0" * 64)
    with pytest.raises(ZooError, match=r"sha256 0000.*could not be downloaded.*does not match"):
        load("mnist")
    assert not [path for path in (bare / "XDG_CACHE_HOME").rglob("*") if path.is_file()]


def test_offline_nothing_is_fetched(imitation, site, monkeypatch):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(ZooError, match=r"could not be downloaded.*ZOO_OFFLINE"):
        load("mnist")
    assert not site


@pytest.mark.parametrize("separator", "-.")
@pytest.mark.parametrize("pack", [None, gzip.compress])
def test_mnist_from_idx_files(imitation, bare, separator, pack):
    (bare / "KERAS_HOME" / "datasets").mkdir()
    for key, name in lookup.MNIST_IDX.items():
        data, name = idx(np.load(imitation)[key]), name.replace("-idx", f"{separator}idx") + (".gz" if pack else "")
        (bare / "KERAS_HOME" / "datasets" / name).write_bytes(pack(data) if pack else data)
    assert sizes(load("mnist")) == [50_000, 20, 30]


def test_an_mnist_file_of_other_content_is_refused(imitation, bare):
    arrays = dict(np.load(imitation))
    savez(bare / "ZOO_DATA_DIR" / "mnist.npz", **arrays | {"y_test": arrays["y_test"][::-1]})
    with pytest.raises(ZooError, match=r"mnist\.npz is not the published MNIST \(different y_test\)"):
        load("mnist")
    (bare / "ZOO_DATA_DIR" / "mnist.npz").write_bytes(b"rubbish")
    with pytest.raises(ZooError, match="cannot be read as MNIST"):
        load("mnist")


def test_images_without_classes(bare):
    path = folder({f"{number}.png": png(number) for number in range(20)})(bare)
    data = load(path, labels=False)
    assert data.classes == ()
    assert sizes(data) == [14, 3, 3]
    assert all(split.targets is None for split in data.splits.values())
    shown = {name: split.inputs[row, 0, 0, 0] for split in data.splits.values() for row, name in enumerate(split.names)}
    assert shown == {f"{number}.png": number for number in range(20)}


def test_a_tfds_set_in_the_data_folder(bare, monkeypatch):
    import tensorflow_datasets as tfds

    def examples(start: int, count: int) -> list:
        numbers = range(start, start + count)
        return [
            (f"{i}", {"image": np.full((4, 3, 1), i, np.uint8), "label": ["odd", "even"][i % 2 == 0]}) for i in numbers
        ]

    tfds.dataset_builders.store_as_tfds_dataset(
        name="parity",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(4, 3, 1)), "label": tfds.features.ClassLabel(names=["odd", "even"])}
        ),
        split_datasets={"train": examples(0, 40), "test": examples(40, 6)},
        data_dir=bare / "ZOO_DATA_DIR",
    )
    data = load("tfds:parity")
    assert data.name == "tfds-parity"  # valid as a folder name
    assert data.classes == ("odd", "even")
    assert data.shape == (4, 3, 1)
    assert sizes(data) == [34, 6, 6]
    assert sorted(data.splits["test"].inputs[:, 0, 0, 0]) == list(range(40, 46))
    assert all((split.inputs[:, 0, 0, 0] % 2 == 1 - split.targets).all() for split in data.splits.values())
    small = load("tfds:parity:1.0.0", image_size=(2, 2))
    assert small.shape == (2, 2, 1)
    monkeypatch.setenv("ZOO_CACHE_GB", "0")
    streamed = load("tfds:parity:1.0.0", image_size=(2, 2))
    gc.collect()  # the images stay readable
    assert isinstance(streamed.splits["train"].inputs, Streamed)
    assert streamed.fingerprint == small.fingerprint


def test_a_tfds_set_that_is_not_here_fails_soon_without_a_network(bare):
    start = time.monotonic()
    with pytest.raises(ZooError, match=r"tfds:mnist is neither in ZOO_DATA_DIR .* no network"):
        load("tfds:mnist")
    assert time.monotonic() - start < 15


@real("mnist.npz")
def test_real_mnist_in_its_published_order():
    data = load("mnist")
    assert sizes(data) == [50_000, 10_000, 10_000]
    assert [split.targets[:5].tolist() for split in data.splits.values()] == [
        [5, 0, 4, 1, 9],
        [3, 8, 6, 9, 6],
        [7, 2, 1, 0, 4],
    ]


@real("cats_dogs.zip")
def test_real_photographs():
    with pytest.raises(ZooError, match="image_size"):
        load("cats_dogs")
    data = load("cats_dogs", image_size=(32, 32))
    assert data.shape == (32, 32, 3)
    assert sizes(data) == [700, 150, 150]


@real("rt_polarity.tsv")
def test_real_reviews():
    assert sizes(load("rt_polarity")) == [6718, 1439, 1439]


# Python objects

NUMBERS = np.arange(40)
IMAGES = np.broadcast_to(NUMBERS[:, None, None, None], (40, 4, 3, 1)).astype(np.uint8)  # those of `small_npz`
LABELS = NUMBERS % 2


def pairs(inputs=IMAGES, targets=LABELS) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((inputs, targets))


def generated() -> tf.data.Dataset:
    specs = (tf.TensorSpec((None, None, 1), tf.uint8), tf.TensorSpec((), tf.int32))
    return tf.data.Dataset.from_generator(lambda: zip(IMAGES, LABELS, strict=True), output_signature=specs)


SAME = {
    "single": pairs,
    "batches": lambda: pairs().batch(7),
    "batches of one size": lambda: pairs().batch(8, drop_remainder=True),
    "no channel axis": lambda: pairs(IMAGES[..., 0]),
    "batches without channel axis": lambda: pairs(IMAGES[..., 0]).batch(7),
    "whole floats": lambda: pairs(IMAGES.astype(np.float32)),
    "whole doubles": lambda: pairs(IMAGES.astype(np.float64)).batch(7),
    "one-hot": lambda: pairs(targets=np.eye(2, dtype=np.float32)[LABELS]),
    "one-hot integers": lambda: pairs(targets=np.eye(2, dtype=np.int32)[LABELS]).batch(7),
    "labels of shape [1]": lambda: pairs(targets=LABELS[:, None].astype(np.float32)).batch(7),
    "bytes": lambda: pairs(targets=LABELS.astype(np.uint8)),
    "unknown cardinality": lambda: pairs().filter(lambda image, label: True),
    "generator": generated,
    "mapping": lambda: {"train": pairs()},
    "split": lambda: {"train": Split(IMAGES, LABELS)},
    "split of floats": lambda: {"train": Split(IMAGES.astype(np.float32), np.eye(2)[LABELS])},
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_examples_in_every_form(form, tmp_path):
    expected, data = load(small_npz(tmp_path / "small.npz"), seed=3), load(SAME[form](), seed=3)
    assert data.fingerprint == expected.fingerprint  # of types, shapes, values, their order and the class names
    assert same(data, expected)
    assert (data.name, data.given, expected.given) == ("given", True, False)
    assert load(data) is data


@pytest.mark.parametrize("mode", ["int", "binary", "categorical"])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_image_folders_read_by_keras(mode, batch_size, tmp_path):
    folder = write(tmp_path / "set", flags())
    found = keras.utils.image_dataset_from_directory(
        folder, label_mode=mode, batch_size=batch_size, image_size=(5, 6), verbose=False
    )
    data, expected = load(found), load(folder)
    assert data.classes == expected.classes == ("green", "red")
    assert data.splits["train"].inputs.dtype == np.uint8
    assert examples(data) == examples(expected)


def examples(data: Dataset) -> list[tuple[bytes, int]]:
    """All pairs of all splits, ordered by their values."""
    parts = data.splits.values()
    return sorted((x.tobytes(), int(y)) for part in parts for x, y in zip(part.inputs, part.targets, strict=True))


def test_splits_given_one_by_one_keep_their_order():
    train, test = pairs(), pairs(IMAGES[::-1] + 100, LABELS).batch(3)
    data = load({"test": test, "train": train})
    assert list(data.splits) == ["train", "validation", "test"]
    assert sizes(data) == [34, 6, 40]
    assert data.splits["test"].inputs[:, 0, 0, 0].tolist() == list(range(139, 99, -1))
    assert data.splits["test"].targets.tolist() == LABELS.tolist()
    held_out = np.concatenate([data.splits[name].inputs[:, 0, 0, 0] for name in ("train", "validation")])
    assert sorted(held_out) == NUMBERS.tolist()
    whole = load({"train": train, "validation": Split(IMAGES, LABELS), "test": test})
    assert sizes(whole) == [40, 40, 40]


def test_given_texts_and_inputs_alone():
    texts = load(pairs([f"caf\xe9 {number}" for number in NUMBERS]).batch(7))
    assert texts.shape == ()
    train = texts.splits["train"]
    assert all(text == f"caf\xe9 {text.split()[1]}" for text in train.inputs)
    assert [int(text.split()[1]) % 2 for text in train.inputs] == train.targets.tolist()
    for alone in (tf.data.Dataset.from_tensor_slices(IMAGES), load(pairs()).train.map(lambda image, label: (image,))):
        images = load(alone.batch(7))
        assert images.classes == ()
        assert images.shape == (4, 3, 1)
        assert images.splits["test"].targets is None


def test_given_class_names():
    named, one_hot = pairs(), pairs(targets=np.eye(3)[LABELS])
    named.class_names = ["even", "odd"]
    assert load(named).classes == ("even", "odd")
    assert load({"train": pairs(), "test": named}).classes == ("even", "odd")
    assert load(pairs()).classes == ("0", "1")
    assert load(one_hot).classes == ("0", "1", "2")  # also the class without an example
    one_hot.class_names = ["a", "b", "c"]
    assert load(one_hot).classes == ("a", "b", "c")


def test_given_masks():
    ids = (IMAGES[..., 0] // 8 % 3).astype(np.float32)
    whole = load(pairs(targets=ids[..., None]).batch(7))
    assert whole.classes == ("0", "1", "2")
    for part in whole.splits.values():
        assert part.targets.dtype == np.uint8
        assert np.array_equal(part.targets, part.inputs[..., 0] // 8 % 3)
    unknown = tf.TensorSpec((None, None, 1), tf.uint8), tf.TensorSpec((None, None), tf.float32)
    one_by_one = tf.data.Dataset.from_generator(lambda: zip(IMAGES, ids, strict=True), output_signature=unknown)
    assert load(one_by_one).fingerprint == whole.fingerprint
    ignored = load(pairs(targets=ids), ignored_class="1")
    assert ignored.classes == ("0", "2")
    assert ignored.given
    assert {*np.unique(ignored.splits["train"].targets)} == {0, 1, IGNORED}
    layers = load(pairs(targets=np.stack([ids == 1, ids == 2], -1)))
    assert layers.classes == ("1", "2")
    assert layers.only_classes("2").given
    part = layers.splits["train"]
    assert np.array_equal(part.targets[..., 1], part.inputs[..., 0] // 8 % 3 == 2)


def test_types_of_given_images():
    def dtype(images, targets=LABELS):
        return load(pairs(images, targets)).splits["train"].inputs.dtype

    masks, fractions = IMAGES[..., 0] % 2, IMAGES.astype(np.float32)
    fractions[0] = 0.7
    assert dtype(IMAGES.astype(np.uint16)) == np.uint8
    assert dtype(IMAGES.astype(np.uint16), masks) == np.uint16
    assert dtype(IMAGES.astype(np.int64), masks) == np.uint8
    assert dtype(IMAGES / 40) == np.uint8  # the range 0 to 1
    assert dtype(IMAGES / 40, masks) == np.float32
    assert dtype(IMAGES - 1.0) == np.float32
    assert dtype(IMAGES * 7.0) == np.float32
    assert dtype(fractions, masks) == np.float32
    assert dtype(np.rint(fractions), masks) == np.uint8
    for targets, expected in ((LABELS, np.uint8), (masks, np.float32)):  # whole in train, not in test
        data = load({"train": pairs(targets=targets), "test": pairs(fractions, targets)})
        assert {part.inputs.dtype for part in data.splits.values()} == {np.dtype(expected)}
        assert data.splits["test"].inputs[0].max() == pytest.approx(1 if expected is np.uint8 else 0.7)  # rounded


def named(*names: str) -> tf.data.Dataset:
    data = pairs()
    data.class_names = names
    return data


def failing() -> tf.data.Dataset:
    return pairs().map(
        lambda image, label: (tf.debugging.check_numerics(tf.cast(image, tf.float32) / 0.0, "bad"), label)
    )


BAD_OBJECTS = {
    "list": (lambda: [1, 2], "train is a list: give the name or path"),
    "none": (lambda: None, "train is a NoneType"),
    "list of a split": (lambda: {"train": pairs(), "test": [1]}, "test is a list"),
    "split name": (lambda: {"train": pairs(), "valid": pairs()}, "unknown split 'valid': did you mean validation"),
    "no train": (lambda: {"test": pairs()}, "has no train split, only test"),
    "no splits": (dict, "has no train split, only nothing"),
    "infinite": (lambda: pairs().repeat(), r"train has no end: leave out repeat\(\)"),
    "empty": (lambda: pairs().take(0), "train has no example"),
    "empty split": (lambda: {"train": Split(IMAGES[:0], LABELS[:0])}, "no example in train"),
    "empty test split": (lambda: {"train": pairs(), "test": Split(IMAGES[:0], LABELS[:0])}, "no example in test"),
    "filtered": (lambda: pairs().filter(lambda image, label: False), "train has no example"),
    "triples": (lambda: tf.data.Dataset.zip(pairs(), pairs()), r"has elements \(\(.*give pairs"),
    "weights": (lambda: pairs().map(lambda x, y: (x, y, 1.0)), "give pairs"),
    "mappings": (lambda: tf.data.Dataset.from_tensor_slices({"image": IMAGES}), "has elements {'image'.*give pairs"),
    "ragged": (lambda: pairs().ragged_batch(7).map(lambda x, y: (tf.RaggedTensor.from_tensor(x), y)), "dense tensors"),
    "unknown rank": (lambda: tf.data.Dataset.from_generator(list, tf.uint8), "unknown rank: set their shapes"),
    "one label for a batch": (lambda: pairs().batch(7).map(lambda x, y: (x, y[0])), "batches of inputs with single"),
    "sizes": (
        lambda: generated().map(lambda x, y: (x[: 3 + y % 2], y)),
        r"examples of 2 shapes \(\(3, 3, 1\), \(4, 3, 1\), ...\): bring all",
    ),
    "two labels": (lambda: pairs(targets=np.ones((40, 2))), r"train targets int64 \(40, 2\) .* are not one-hot"),
    "soft labels": (lambda: pairs(targets=np.full((40, 2), 0.5)), r"train targets float64 \(40, 2\) .* not one-hot"),
    "real labels": (lambda: pairs(targets=LABELS + 0.5), r"train targets float64 \(40,\) must be class ids"),
    "negative": (lambda: pairs(targets=LABELS - 1), "must be class ids from 0"),
    "wide images": (lambda: pairs(IMAGES.astype(np.int32) - 1), r"train inputs int32 \(40, 4, 3, 1\) must be uint8"),
    "vectors": (lambda: pairs(np.ones((40, 9))), r"train inputs float32 \(40, 9\) must be"),
    "not finite": (lambda: pairs(np.full((40, 4, 3, 1), np.nan)), "train inputs contain NaN"),
    "other size": (lambda: {"train": pairs(), "test": pairs(IMAGES[:, 1:])}, "examples of test differ in kind or size"),
    "few names": (lambda: named("even"), "names 1 classes, its targets have 2"),
    "other names": (lambda: {"train": named("a", "b"), "test": named("b", "a")}, "different class_names"),
    "one-hot names": (lambda: {"train": pairs(targets=np.eye(3)[LABELS]), "test": named("a", "b")}, "3 classes, not 2"),
    "not utf-8": (lambda: pairs([b"\xe9"] * 40), "train has a text that is not UTF-8"),
    "failing": (failing, "train cannot be read: bad : Tensor had"),
}


@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_bad_objects_are_a_one_line_error(case):
    make, message = BAD_OBJECTS[case]
    with pytest.raises(ZooError, match=message) as caught:
        load(make())
    assert "\n" not in str(caught.value)
