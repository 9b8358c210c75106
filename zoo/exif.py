"""The EXIF orientation of photographs: what its values mean, and how a graph reads it from the bytes of a JPEG file.

Exif 2.32: sections 4.5.2 for the order of the bytes, 4.6.2 for the tables of tags, 4.6.4 for the tag 0x0112, 4.7.2 for
the segment of a JPEG file.
"""

from __future__ import annotations

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

ORIENTATION = 0x0112
# By orientation: whether rows and columns are exchanged, then the steps along both.
TURNS = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
EXIF_SEGMENT, START_OF_SCAN = 0xE1, 0xDA  # second bytes of markers
NAME = b"Exif\0\0"
MOST_BYTES = 2**18  # of a file, that are looked at: a segment has at most 2**16 bytes
ENTRY = 12  # bytes of a tag with its value


def upright(pixels: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Pixels [H, W, C] of a JPEG file with these bytes, string [], as its EXIF orientation says that they are to be
    seen. Files without one, or with damaged metadata, stay as they are."""
    steps = tf.constant([[int(value) for value in TURNS.get(number, (False, 1, 1))] for number in range(9)])
    transposed, down, across = tf.unstack(tf.gather(steps, _orientation(data)))
    pixels = tf.cond(transposed > 0, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    return pixels[::down, ::across]


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """The orientation by a JPEG file's header, int32 from 1 to 8; 1 where it has none."""
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, MOST_BYTES), tf.uint8), tf.int32)
    count = tf.size(values)

    def at(index: tf.Tensor, number_of_bytes: int, little_endian: tf.Tensor | bool = False) -> tf.Tensor:
        """Numbers of one or more bytes; beyond the file's end it repeats its last byte."""
        places = tf.clip_by_value(tf.expand_dims(index, -1) + tf.range(number_of_bytes), 0, count - 1)
        powers = 256 ** tf.range(number_of_bytes)
        return tf.reduce_sum(tf.gather(values, places) * tf.where(little_endian, powers, powers[::-1]), axis=-1)

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        named = tf.equal(tf.strings.substr(data, segment + 4, len(NAME)), NAME)
        return tf.equal(at(segment + 1, 1), EXIF_SEGMENT) & named

    def is_other(segment: tf.Tensor) -> tf.Tensor:
        is_marker = tf.equal(at(segment, 1), 0xFF) & tf.not_equal(at(segment + 1, 1), START_OF_SCAN)
        return (segment + 10 < count) & is_marker & ~is_exif(segment)

    segment = tf.while_loop(is_other, lambda segment: [segment + 2 + at(segment + 2, 2)], [tf.constant(2)])[0]
    header = segment + 4 + len(NAME)

    def by_table() -> tf.Tensor:
        little_endian = tf.equal(at(header, 2), 0x4949)  # "II"
        table = header + tf.clip_by_value(at(header + 4, 4, little_endian), 0, MOST_BYTES)
        entries = table + 2 + ENTRY * tf.range(at(table, 2, little_endian))
        found = tf.boolean_mask(entries, tf.equal(at(entries, 2, little_endian), ORIENTATION))
        return at(tf.concat([found, [0]], 0)[0] + 8, 2, little_endian) * tf.minimum(tf.size(found), 1)

    within = segment + 10 < count  # substr fails beyond the end
    value = tf.cond(within, lambda: tf.cond(is_exif(segment), by_table, lambda: 1), lambda: 1)
    return tf.where((value >= 1) & (value <= 8), value, 1)
