"""The arrays of a TensorFlow checkpoint, read in Python: TensorFlow's own reader ends the process at a hostile one.

The index is a sorted table of blocks (the format of LevelDB's tables, github.com/google/leveldb/doc/table_format.md),
whose values are the messages of tensorflow/core/protobuf/tensor_bundle.proto. All of it is checked against the sizes of
the two files before a number is read. The checksums within are not: whoever calls this has compared the files' sha256.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from zoo.errors import ZooError
from zoo.files import read_regular

with epy.lazy_imports():
    from google.protobuf import message
    from tensorflow.core.protobuf import tensor_bundle_pb2

MAGIC = 0xDB4775248B80FB57  # the last eight bytes of a table
FOOTER = 48
MOST_INDEX_BYTES = 2**22
MOST_AXES = 8
DTYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 19: np.dtype("<f2")}  # DT_FLOAT, DT_HALF: what export stores
HEAD, TAIL = "weights/", "/.ATTRIBUTES/VARIABLE_VALUE"


class Entry(NamedTuple):
    """Where an array is in the data file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    size: int


def checkpoint_arrays(prefix: Path) -> dict[str, np.ndarray]:
    """The `weights` of a SavedModel's variables as float32 arrays by key, read as data: no graph is loaded.

    Raises:
        ZooError: for files that are missing or damaged, and arrays of other types than float32 and float16.
    """
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    try:
        entries = checkpoint_entries(prefix)
        content = read_regular(data)
        return {
            key: np.frombuffer(content, entry.dtype, math.prod(entry.shape), entry.offset)
            .reshape(entry.shape)
            .astype(np.float32)
            for key, entry in sorted(entries.items())
        }
    except (ValueError, OSError) as error:
        raise ZooError(f"{prefix} cannot be read: {error}") from None


def checkpoint_entries(prefix: Path) -> dict[str, Entry]:
    """The entries of the `weights` by key: disjoint parts of the data file.

    Raises:
        ZooError: for an index that is missing or damaged, or does not fit the data file.
    """
    index, data = (prefix.with_name(prefix.name + end) for end in (".index", ".data-00000-of-00001"))
    try:
        found = dict(_entries(read_regular(index, MOST_INDEX_BYTES), data.stat().st_size))
    except (ValueError, IndexError, OSError, message.DecodeError) as error:
        raise ZooError(f"{prefix} cannot be read: {error}") from None
    end = 0
    for key, entry in sorted(found.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset < end:
            raise ZooError(f"{prefix} cannot be read: {key} shares its bytes with another array")
        end = entry.offset + entry.size
    return found


def _entries(table: bytes, data_bytes: int) -> Iterator[tuple[str, Entry]]:
    """The weights that the table lists."""
    for number, (key, value) in enumerate(_rows(table)):
        if number == 0:
            header = tensor_bundle_pb2.BundleHeaderProto.FromString(value)
            if key or header.num_shards != 1 or header.endianness != header.LITTLE:
                raise ValueError("it is no checkpoint of one file in little-endian order")
            continue
        name = key.decode()
        if not (name.startswith(HEAD) and name.endswith(TAIL)):
            continue
        # TensorFlow writes "/" within a name as ".S" and "." as ".."
        name = re.sub(r"\.(.)", lambda m: "/" if m[1] == "S" else m[1], name[len(HEAD) : -len(TAIL)])
        yield name, _entry(name, tensor_bundle_pb2.BundleEntryProto.FromString(value), data_bytes)


def _entry(name: str, found: Any, data_bytes: int) -> Entry:
    """One entry, its numbers checked."""
    shape = tuple(axis.size for axis in found.shape.dim)
    if found.dtype not in DTYPES or found.slices or found.shape.unknown_rank or found.shard_id:
        raise ValueError(f"{name} is no whole array of float32 or float16")
    dtype = DTYPES[found.dtype]
    if len(shape) > MOST_AXES or min(shape, default=1) < 1:
        raise ValueError(f"{name} has the shape {shape[:MOST_AXES]}")
    if math.prod(shape) * dtype.itemsize != found.size:  # of whole numbers without bound: nothing overflows
        raise ValueError(f"{name} of shape {shape} has {found.size} bytes")
    if found.offset < 0 or found.offset + found.size > data_bytes:
        raise ValueError(f"{name} lies outside of the data file")
    return Entry(dtype, shape, found.offset, found.size)


def _rows(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table, whose keys must rise."""
    if len(table) < FOOTER or int.from_bytes(table[-8:], "little") != MAGIC:
        raise ValueError("it is no index of a checkpoint")
    footer = table[-FOOTER:]
    *_, place = _handle(footer, 0)  # of a block that is not used
    start, size, _ = _handle(footer, place)
    before, end = None, 0
    for _, handle in _block(table, start, size):
        first, length, _ = _handle(handle, 0)
        if first < end:
            raise ValueError("blocks of the index overlap")
        end = first + length
        for key, value in _block(table, first, length):
            if before is not None and key <= before:
                raise ValueError("keys of the index are not in order")
            before = key
            yield key, value


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block, which is followed by a byte for its compression (none) and a checksum."""
    block = table[start : start + size]
    if len(block) != size or size < 4 or table[start + size : start + size + 1] != b"\0":
        raise ValueError("a block of the index is cut off or compressed")
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # where the places of whole keys begin
    if end < 0:
        raise ValueError("a block of the index is damaged")
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        rest, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + rest + length > end:
            raise ValueError("a block of the index is damaged")
        key = key[:shared] + block[place : place + rest]
        place += rest
        yield key, block[place : place + length]
        place += length


def _handle(data: bytes, place: int) -> tuple[int, int, int]:
    """The start and the size of a block, and the place after them."""
    start, place = _varint(data, place)
    size, place = _varint(data, place)
    return start, size, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A whole number in pieces of seven bits, and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of the index is too long")
