"""Weights as plain arrays under readable keys: read, written and matched strictly, never executed."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from etils import epy

from zoo.errors import ZooError
from zoo.files import open_regular

with epy.lazy_imports():
    import keras

MOST_COMPRESSED = 100  # times that the arrays of a file may be larger than the file
UNNAMED = re.compile(r"/variable(_\d+)?$")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What happened to each key.

    Attributes:
        loaded: keys loaded from the source.
        reinitialized: keys that keep their initial values in the model, although the source may hold others.
        skipped: keys of the source that the model has no place for.
        converted: keys that were converted to another number of input channels, see `for_channels`.
    """

    loaded: tuple[str, ...]
    reinitialized: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} arrays loaded"]
        parts += [f"reinitialized: {', '.join(self.reinitialized)}"] if self.reinitialized else []
        parts += [f"skipped: {', '.join(self.skipped)}"] if self.skipped else []
        parts += [f"converted to other channels: {', '.join(self.converted)}"] if self.converted else []
        return "; ".join(parts)


def named_weights(model: keras.Model, prefix: str = "") -> dict[str, keras.Variable]:
    """The model's weights, without the state of random generators, keyed `layer/weight`; keys of a sub-model begin
    with its name. A weight without a name of its own, which Keras numbers through the process, is `variable`.

    Raises:
        ZooError: where two weights would share a key.
    """
    named: dict[str, keras.Variable] = {}
    for layer in model.layers:
        found: list[tuple[str, keras.Variable]]
        if isinstance(layer, keras.Model):
            found = list(named_weights(layer, f"{prefix}{layer.name}/").items())
        else:
            found = [(prefix + UNNAMED.sub("/variable", variable.path), variable) for variable in layer.weights]
        for key, variable in found:
            if key in named:
                raise ZooError(f"two weights of model {model.name} share the key {key!r}: give its layers other names")
            named[key] = variable
    return named


def is_within(key: str, patterns: Iterable[str]) -> bool:
    """Whether the layer of a weight's key, or the sub-model it is in, matches one of the wildcards."""
    return any(fnmatch.fnmatch(part, pattern) for part in key.split("/")[:-1] for pattern in patterns)


def assign(
    variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray], reinitialize: Iterable[str] = ()
) -> LoadReport:
    """Assign arrays to the variables of the same keys.

    Args:
        reinitialize: wildcards of layer names whose weights may keep their present values where the source has no
            array of that key and shape.

    Raises:
        ZooError: for any other missing or surplus key or shape; nothing is assigned then.
    """
    patterns = tuple(reinitialize)
    fits = {key for key in variables if key in arrays and tuple(variables[key].shape) == arrays[key].shape}
    fresh = [key for key in variables if key not in fits]
    skipped = [key for key in arrays if key not in fits]
    for key in [*fresh, *skipped]:
        if not is_within(key, patterns):
            has = f"of shape {tuple(variables[key].shape)}" if key in variables else "unknown"
            given = f"of shape {arrays[key].shape}" if key in arrays else "missing"
            raise ZooError(f"weights do not fit: {key} is {has} in the model and {given} in the source")
    for key in fits:
        variables[key].assign(arrays[key])
    return LoadReport(tuple(key for key in variables if key in fits), tuple(fresh), tuple(skipped))


def for_channels(
    arrays: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable], given: int, wanted: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Weights of a network of images of `given` channels for one of `wanted` channels, and the keys that differ.

    The kernels [height, width, channels, filters] of the first layers are summed over the channels where one is wanted;
    otherwise their channels are repeated and multiplied by given / wanted. Where one number divides the other, images
    whose channels are equal give the same outputs as before.
    """

    def converted(kernel: np.ndarray) -> np.ndarray:
        if wanted == 1:
            return kernel.sum(axis=2, keepdims=True)
        return (kernel[:, :, np.arange(wanted) % given] * (given / wanted)).astype(kernel.dtype)

    keys = tuple(
        key
        for key, array in arrays.items()
        if array.ndim == 4
        and array.shape[2] == given
        and key in variables
        and tuple(variables[key].shape) == (*array.shape[:2], wanted, array.shape[3])
    )
    return {key: converted(array) if key in keys else array for key, array in arrays.items()}, keys


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an `.npz` file, atomically."""
    temporary = path.with_suffix(".partial")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk has no room for half a file
        raise


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, without executing anything.

    Raises:
        ZooError: for a file that is missing, damaged or holds pickled objects.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            if size > MOST_COMPRESSED * os.fstat(file.fileno()).st_size:
                raise ValueError(f"its arrays have {size} bytes")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise ZooError(f"no weights file {path}") from None
    except (ValueError, OSError, EOFError, BadZipFile, KeyError, TypeError, MemoryError) as error:
        raise ZooError(f"{path} is not a readable .npz file: {error}") from None
