"""Artifacts as an attacker would make them: exported, changed, and sealed again with right sizes and checksums."""

import contextlib
import json
import struct
from pathlib import Path
from unittest import mock

import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

import zoo
from zoo import checkpoint
from zoo.artifacts.manifest import MANIFEST, file_entries
from zoo.exporting import saved_model
from zoo.tasks.base import Signatures, graph_function, named
from zoo.tasks.classification import Classification


def export(path, name="mlp_784_10", classes=("a", "b", "c")):
    """The version directory of a network with initial weights."""
    model = zoo.create_model(name, classes=len(classes))
    return zoo.export(model, path, spec=zoo.get_spec(name), classes=classes).absolute()


def manifest_of(version):
    return json.loads((version / MANIFEST).read_text())


def write_manifest(version, manifest):
    (version / MANIFEST).write_text(json.dumps(manifest))


def reseal(version):
    """Bring the manifest's sizes and sha256 up to date, where it is still one."""
    write_manifest(version, {**manifest_of(version), "files": file_entries(version)})


# --- graphs -----------------------------------------------------------------------------------------------------


def forged(folder, change, golden=True):
    """An export whose graph returns what `change(outputs, input, variable)` makes of the outputs, and so do its golden
    examples, or there are none."""
    honest_ones = Classification.signatures

    def signatures(self, model, network=None):
        made, kept = {}, tf.Variable(0.0, trainable=False)
        for name, function in honest_ones(self, model, network).items():
            (spec,) = function.input_signature

            def call(function=function, spec=spec, **inputs):
                return change(dict(function.python_function(inputs[spec.name])), inputs[spec.name], kept)

            made[name] = graph_function(named(call, spec.name), spec)
        return Signatures(made, (kept,))

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(Classification, "signatures", signatures))
        patches.enter_context(mock.patch.object(saved_model, "verify", return_value=None))
        if not golden:
            patches.enter_context(mock.patch.object(saved_model, "golden_examples", return_value={}))
        return export(folder / "mlp_784_10.forged")


def remember(outputs, value, kept):
    """Right for 60 calls."""
    seen = tf.cast(kept.assign(kept + 1.0) > 60.0, tf.float32)
    return {**outputs, "probabilities": outputs["probabilities"] * (1.0 - seen)}


def endless(outputs, value, kept):
    never = tf.while_loop(lambda number: number >= 0.0, lambda number: [number + 1e-30], [tf.constant(1.0)])[0]
    return {**outputs, "probabilities": outputs["probabilities"] + 0.0 * never}


def greedy(outputs, value, kept):
    """Gigabytes in one request."""
    many = tf.fill([tf.shape(outputs["class_ids"])[0] * 2**14, 2**17], outputs["probabilities"][0, 0])
    return {**outputs, "probabilities": outputs["probabilities"] + 0.0 * tf.reduce_max(tf.cumsum(many))}


# --- the index of a checkpoint ----------------------------------------------------------------------------------


def varint(value):
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def rows_of(table):
    """The keys and values of a table."""
    return list(checkpoint._rows(table))


def crc32c(data):
    """The masked checksum of a block, as TensorFlow compares it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 if value & 1 else value >> 1
        yield value


TABLE = list(_table())


def block_of(rows):
    body = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in rows)
    return body + struct.pack("<II", 0, 1)


def sealed(block):
    return block + b"\0" + struct.pack("<I", crc32c(block + b"\0"))


def table_of(rows):
    """A table of one block with right checksums."""
    data = block_of(rows)
    content = sealed(data)
    empty = struct.pack("<II", 0, 1)
    places = [varint(len(content)) + varint(len(empty))]
    content += sealed(empty)
    listing = block_of([(rows[-1][0] + b"z", varint(0) + varint(len(data)))])
    places.append(varint(len(content)) + varint(len(listing)))
    content += sealed(listing)
    return content + b"".join(places).ljust(40, b"\0") + struct.pack("<Q", checkpoint.MAGIC)


def changed(entry, shape=None, **fields):
    """An entry with other numbers."""
    if shape is not None:
        del entry.shape.dim[:]
        for size in shape:
            entry.shape.dim.add(size=size)
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry


def change_entries(version, change):
    """Write the index anew with `change(key, entry)` for each entry but the header."""
    index = Path(version, "variables", "variables.index")
    rows = rows_of(index.read_bytes())
    parse = tensor_bundle_pb2.BundleEntryProto.FromString
    made = [(key, change(key, parse(value)).SerializeToString() if key else value) for key, value in rows]
    index.write_bytes(table_of(made))
