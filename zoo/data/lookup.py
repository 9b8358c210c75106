"""Where data sets are stored on this machine, and how missing ones are downloaded."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import os
import re
import struct
import textwrap
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from etils import epy

from zoo.errors import ZooError, unknown
from zoo.files import cache_folder, is_offline

with epy.lazy_imports():
    import pooch
    import tensorflow_datasets as tfds

MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
# MD5 of the four uncompressed files that LeCun, Cortes and Burges published. It identifies the arrays in any container.
MNIST_MD5 = {
    "x_train": "6bbc9ace898e44ae57da46a324031adb",
    "y_train": "a25bea736e30d166cdddb491f175f624",
    "x_test": "2646ac647ad5339dbf082846283269ea",
    "y_test": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
PROBE_URL = "https://storage.googleapis.com"  # any answer from it means that there is a network
OF_ZOO = "zoo:"  # before a name: not a path
TIMEOUT = 5  # seconds to connect, and between two parts of an answer


def data_folder() -> Path | None:
    """The folder that ZOO_DATA_DIR names, or None if it is not set."""
    folder = os.environ.get("ZOO_DATA_DIR")
    return Path(folder).expanduser() if folder else None


def find(name: str, named: Sequence[str], suffixes: Sequence[str]) -> tuple[Path, bool]:
    """The file or folder at a path, or of that name in ZOO_DATA_DIR; and whether it is outside of ZOO_DATA_DIR.

    Args:
        name: a path, or a name that is looked up in ZOO_DATA_DIR; with `OF_ZOO` before it, it is no path.
        named: data sets that need no file, suggested for a misspelled `name`.
        suffixes: those of readable files, in the order in which they are tried after the bare name.

    Raises:
        ZooError: if there is no such file or folder, or a bare name is that of two.
    """
    path, folder = Path(name).expanduser(), data_folder()
    plain = name.removeprefix(OF_ZOO)
    places = (folder / f"{plain}{suffix}" for suffix in ("", *suffixes)) if plain and folder else ()
    of_zoo = next((place for place in places if place.exists()), None)
    if name and plain == name and path.exists():
        inside = folder is not None and path.resolve().is_relative_to(folder.resolve())
        if os.sep not in name and of_zoo and not inside:
            raise ambiguous(name, str(of_zoo))
        return path, not inside
    if of_zoo:
        return of_zoo, False
    there = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    readable = {entry.stem for entry in there if entry.suffix in suffixes}
    folders = {entry.name for entry in there if entry.is_dir() and not entry.name.startswith(".")}
    where = f"ZOO_DATA_DIR ({folder or 'not set'})"
    hint = f"It is not a file or folder; bare names are looked up in {where}, tfds:NAME in tensorflow-datasets."
    raise unknown("data set", name, {*named, *readable, *folders}, hint)


def ambiguous(name: str, other: str) -> ZooError:
    """The error for a bare name that is that of something in the working directory and of another data set."""
    return ZooError(f"{name!r} is ambiguous: write ./{name} for the one in this folder, {OF_ZOO}{name} for {other}")


def mnist_arrays() -> dict[str, np.ndarray]:
    """MNIST in its published order: `x_train` uint8 [60000, 28, 28], `y_train` uint8 [60000], `x_test` uint8
    [10000, 28, 28] and `y_test` uint8 [10000].

    Raises:
        ZooError: if it is not on this machine and cannot be downloaded, or if the file found is not MNIST.
    """
    keras_folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    folders = {"ZOO_DATA_DIR": data_folder(), "Keras' folder": keras_folder}
    for folder in filter(None, folders.values()):
        if (folder / "mnist.npz").is_file():
            return _verified(folder / "mnist.npz")
        if _idx_files(folder):
            return _verified(folder)
    cache = cache_folder()
    try:
        if is_offline() and not (cache / "mnist.npz").exists():
            raise OSError("ZOO_OFFLINE forbids downloads")
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT, chunk_size=2**16)
        path = pooch.retrieve(MNIST_URL, f"sha256:{MNIST_SHA256}", "mnist.npz", cache, downloader=downloader)
    except (OSError, ValueError) as error:  # no network or no such address; another sha256
        places = ", ".join(
            f"{name} ({folder or 'not set'})" for name, folder in {**folders, "the cache": cache}.items()
        )
        raise ZooError(
            f"mnist.npz (sha256 {MNIST_SHA256}) is in none of {places} and could not be downloaded from {MNIST_URL}: "
            f"{_one_line(error)}; put it, or the four IDX files, into one of these folders"
        ) from error
    return _verified(Path(path))


def _idx_files(folder: Path) -> dict[str, Path]:
    """The four IDX files of a folder by array name; empty if one is missing."""
    found = {}
    for key, name in MNIST_IDX.items():
        spellings = [spelling + end for spelling in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
        paths = [folder / spelling for spelling in spellings if (folder / spelling).is_file()]
        if not paths:
            return {}
        found[key] = paths[0]
    return found


def _verified(path: Path) -> dict[str, np.ndarray]:
    """The four arrays of an .npz file or of a folder of IDX files; raises ZooError if they are not those of MNIST."""
    try:
        if path.is_file():
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in MNIST_MD5}
        else:
            arrays = {key: _read_idx(file) for key, file in _idx_files(path).items()}
    except (OSError, EOFError, ValueError, TypeError, LookupError, BadZipFile, zlib.error, struct.error) as error:
        raise ZooError(f"{path} cannot be read as MNIST: {_one_line(error)}; remove or replace it") from error
    wrong = [key for key, array in arrays.items() if _md5(array) != MNIST_MD5[key]]
    if wrong:
        raise ZooError(f"{path} is not the published MNIST (different {', '.join(wrong)}): remove or replace it")
    return arrays


def _read_idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dims = data[3]
    shape = struct.unpack_from(f">{dims}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def _md5(array: np.ndarray) -> str:
    """MD5 of a uint8 array as an IDX file: two zeros, type 8, number of axes, their lengths (big-endian), values."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def tfds_builder(name: str) -> tfds.core.DatasetBuilder:
    """A prepared data set of tensorflow-datasets, from ZOO_DATA_DIR or from TFDS' own folder, or else downloaded.

    Args:
        name: as TFDS writes it, `name`, `name/config` or `name/config:version`.

    Raises:
        ZooError: for an unknown name, and for a data set that is not on this machine and cannot be downloaded.
    """
    builder: tfds.core.DatasetBuilder | None = None
    problem: Exception = LookupError(name)
    for folder in dict.fromkeys((data_folder(), None)):  # None is TFDS' own; last, so that a download goes there
        try:
            builder = tfds.builder(name, data_dir=folder)
        except Exception as error:  # TFDS raises many kinds for a wrong name, config, version or missing package
            problem = error
            continue
        if builder.is_prepared():
            return builder
    if builder is None and isinstance(problem, tfds.core.DatasetNotFoundError):
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(re.split("[/:]", name)[0], known)  # all of them would fill screens
        advice = f"did you mean {' or '.join(near)}?" if near else "see https://www.tensorflow.org/datasets"
        raise ZooError(f"unknown tensorflow-datasets set {name!r}: {advice}") from problem
    if builder is None:
        raise ZooError(f"tfds:{name} is not available: {_one_line(problem)}") from problem
    if not _online():  # TFDS itself would retry for minutes
        raise ZooError(
            f"tfds:{name} is neither in ZOO_DATA_DIR ({data_folder() or 'not set'}) nor at {builder.data_path}, "
            "and there is no network to download it: prepare it elsewhere and copy it there"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # any error of the data set's own script
        raise ZooError(f"tfds:{name} could not be downloaded and prepared: {_one_line(error)}") from error
    return builder


def _online() -> bool:
    if is_offline():
        return False
    try:
        with urllib.request.urlopen(PROBE_URL, timeout=TIMEOUT):
            return True
    except urllib.error.HTTPError:  # also an answer
        return True
    except OSError:
        return False


def _one_line(error: BaseException) -> str:
    """The beginning of an error's text in one line: some of TFDS' and Pooch's have many lines."""
    return textwrap.shorten(str(error), 300) or type(error).__name__
