"""Images with masks: every kind of file, exclusive and overlapping classes, and the errors for files without a pair."""

from __future__ import annotations

import io
import itertools
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from test_data import real, savez, sizes, write

from zoo.data import Dataset, load, scenes
from zoo.data.dataset import IGNORED
from zoo.errors import ZooError

GRAY = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
ODD = np.arange(30, dtype=np.uint8).reshape(5, 6) % 2
DEEP = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000
BANDS = np.stack([DEEP + band for band in range(7)], axis=-1)
COLOR = np.stack([GRAY, GRAY + 1, GRAY + 2], axis=-1)
HALF = np.array([[0, 255, 255]] * 4, np.uint8)


def encoded(values, kind="PNG", mode=None) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(file, kind)
    return file.getvalue()


def palette(indices, colors) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colors)
    image.save(file, "PNG")
    return file.getvalue()


def npy(values) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(values, names=(), overviews=(), **options) -> bytes:
    """[H, W] or [H, W, K]."""
    from rasterio.io import MemoryFile

    bands = np.atleast_3d(values)
    shape = dict(zip(("height", "width", "count"), bands.shape, strict=True))
    with MemoryFile() as file:
        with file.open(driver="GTiff", dtype=bands.dtype, **shape, **options) as image:
            image.write(np.moveaxis(bands, -1, 0))
            if names:
                image.descriptions = names
            if overviews:
                image.build_overviews(overviews)
        return file.read()


def animated(*frames) -> bytes:
    file = io.BytesIO()
    first, *rest = map(Image.fromarray, frames)
    first.save(file, "GIF", save_all=True, append_images=rest)
    return file.getvalue()


def pairs(images, masks, suffix="npy", prefix="") -> dict[str, bytes]:
    """Arrays, or encoded files, as the files of two folders, or of more if the masks are a mapping by class."""
    data = [value if isinstance(value, bytes) else npy(value) for value in images]
    files = {f"{prefix}images/{number}.{suffix}": value for number, value in enumerate(data)}
    for folder, values in masks.items() if isinstance(masks, dict) else [("", masks)]:
        place = f"{prefix}labels/{folder}/" if folder else f"{prefix}labels/"
        files |= {
            f"{place}{number}.x": value if isinstance(value, bytes) else npy(value)
            for number, value in enumerate(values)
        }
    return files


def everything(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All images and all targets, ordered by the first value of each image."""
    inputs = np.concatenate([split.inputs for split in data.splits.values()])
    targets = np.concatenate([split.targets for split in data.splits.values()])
    order = np.argsort(inputs[:, 0, 0, 0], kind="stable")
    return inputs[order], targets[order]


def refused(path, **options) -> str:
    with pytest.raises(ZooError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def on_white(layers, opaque) -> np.ndarray:
    """[H, W, C + 1] in front of white."""
    share = layers[..., -1:] / opaque
    return np.rint(layers[..., :-1] * share + opaque * (1 - share)).astype(layers.dtype)


IMAGES = {
    "gray PNG": (encoded(GRAY), GRAY),
    "color PNG": (encoded(COLOR), COLOR),
    "16-bit PNG": (encoded(DEEP), DEEP),
    "16-bit color PNG": (tf.io.encode_png(BANDS[..., :3]).numpy(), BANDS[..., :3]),
    "16-bit transparent PNG": (tf.io.encode_png(BANDS[..., :4]).numpy(), on_white(BANDS[..., :4], 2**16 - 1)),
    "transparent PNG": (encoded(np.dstack([COLOR, GRAY])), on_white(np.dstack([COLOR, GRAY]), 255)),
    "JPEG": (encoded(np.full((5, 6), 9, np.uint8), "JPEG"), np.full((5, 6), 9, np.uint8)),
    "BMP": (encoded(COLOR, "BMP"), COLOR),
    "GIF": (encoded(GRAY, "GIF"), GRAY),
    "1-bit PNG": (encoded(GRAY > 99), (GRAY > 99) * np.uint8(255)),
    "TIFF": (tiff(GRAY), GRAY),
    "bands": (tiff(BANDS, compress="deflate"), BANDS),
    "big-endian TIFF": (tiff(BANDS, ENDIANNESS="BIG"), BANDS),
    "BigTIFF": (tiff(BANDS, BIGTIFF="YES"), BANDS),
    "float TIFF": (tiff(BANDS / np.float32(7)), BANDS / np.float32(7)),
    "double TIFF": (tiff(BANDS / 7), (BANDS / 7).astype(np.float32)),
    "signed TIFF": (tiff(DEEP.astype(np.int16)), DEEP.astype(np.int16).astype(np.float32)),
    "npy": (npy(GRAY), GRAY),
    "16-bit npy": (npy(BANDS), BANDS),
    "bool npy": (npy(GRAY > 9), (GRAY > 9).astype(np.uint8)),
    "32-bit npy": (npy(DEEP.astype(np.uint32)), DEEP.astype(np.float32)),
    "half npy": (npy(GRAY.astype(np.float16)), GRAY.astype(np.float32)),
    "Fortran npy": (npy(np.asfortranarray(COLOR)), COLOR),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_kind(kind, tmp_path):
    data, expected = IMAGES[kind]
    loaded = load(write(tmp_path / "set", pairs([data] * 3, [ODD] * 3, suffix="anything")))
    inputs, targets = everything(loaded)
    assert inputs.dtype == expected.dtype
    assert np.array_equal(inputs, np.stack([np.atleast_3d(expected)] * 3))
    assert targets.dtype == np.uint8
    assert np.array_equal(targets, [ODD] * 3)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("uint8", "uint8"), "uint8"),
        (("uint8", "uint16"), "uint16"),
        (("uint16", "uint16"), "uint16"),
        (("uint16", "int16"), "float32"),
        (("uint8", "float64"), "float32"),
    ],
)
def test_one_type_for_the_whole_data_set(types, expected, tmp_path):
    images = [GRAY.astype(types[number % 2]) for number in range(4)]
    inputs, _ = everything(load(write(tmp_path / "set", pairs(images, [ODD] * 4))))
    assert inputs.dtype == expected
    assert (inputs == GRAY[..., None]).all()


MASKS = {
    "0 and 255": (encoded(HALF), HALF),
    "other gray values": (encoded(HALF // 5), HALF // 5),
    "palette": (palette(HALF // 85, [9, 9, 9] * 3 + [200, 0, 0]), HALF // 85),
    "equal bands": (encoded(HALF, mode="RGB"), HALF),
    "1 bit": (encoded(HALF > 0), HALF),
    "GIF": (encoded(HALF, "GIF"), HALF),
    "16 bits": (encoded(HALF.astype(np.uint16) * 100), HALF.astype(int) * 100),
    "TIFF": (tiff(HALF), HALF),
    "named TIFF": (tiff(HALF, ["the mask"]), HALF),
    "float TIFF": (tiff(HALF / np.float32(5)), HALF // 5),
    "negative": (npy(HALF.astype(np.int64) - 7), HALF.astype(int) - 7),
    "one band": (npy(HALF[..., None]), HALF),
    "bool": (npy(HALF > 0), HALF // 255),
    "flat JPEG": (encoded(np.full((16, 16), 255, np.uint8), "JPEG"), np.full((16, 16), 255)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind_name_their_classes_by_label_value(kind, tmp_path):
    data, values = MASKS[kind]
    image = np.zeros(values.shape, np.uint8)
    loaded = load(write(tmp_path / "set", pairs([image] * 4, [data] * 4)))
    labels, ids = np.unique(values, return_inverse=True)
    assert loaded.classes == tuple(map(str, labels))
    assert np.array_equal(everything(loaded)[1], [ids.reshape(values.shape)] * 4)


@settings(max_examples=30, deadline=None)
@given(
    arrays(st.sampled_from(["u1", "u2", "i2", "i4", "f4"]), (4, 5, 6), elements=st.integers(0, 99), fill=st.nothing())
)
def test_labels_map_to_classes_one_to_one_and_in_order(tmp_path_factory, masks):
    path = tmp_path_factory.mktemp("masks") / "set.zip"
    images = [np.full((5, 6), number, np.uint8) for number in range(4)]
    data = load(write(path, pairs(images, list(masks))))
    names = [int(name) for name in data.classes]
    assert names == sorted(set(masks.ravel().tolist()))
    assert np.array_equal(np.array(names)[everything(data)[1]], masks)


def test_as_many_classes_as_there_are_ids(tmp_path):
    values = np.arange(256).reshape(16, 16)
    most = np.minimum(values, 254) * 3
    data = load(write(tmp_path / "most", pairs([values.astype(np.uint8)] * 3, [most] * 3)))
    assert len(data.classes) == 255
    assert data.classes[-1] == str(254 * 3)
    assert everything(data)[1].max() == 254
    message = refused(write(tmp_path / "more", pairs([values.astype(np.uint8)] * 3, [values] * 3)))
    assert "256 label values, more than 255: are these images, not masks?" in message
    assert "JPEG" in message


LAYERS = (np.arange(60).reshape(5, 6, 2) % np.array([2, 3])).astype(np.uint8)


def test_one_folder_for_each_class(tmp_path):
    masks = {"road": [encoded(LAYERS[..., 1] * 100)] * 4, "building": [tiff(LAYERS[..., 0])] * 4}
    data = load(write(tmp_path / "set", pairs([GRAY] * 4, masks)))
    assert data.classes == ("building", "road")
    _, targets = everything(data)
    assert targets.dtype == np.uint8
    assert np.array_equal(targets, [LAYERS != 0] * 4)


@pytest.mark.parametrize(
    ("mask", "classes"),
    [
        (npy(LAYERS), ("1", "2")),
        (npy(LAYERS.astype(np.float64)), ("1", "2")),
        (tiff(LAYERS), ("1", "2")),
        (tiff(LAYERS, ["road", "building"]), ("road", "building")),
        (tiff(LAYERS, ["road", ""]), ("1", "2")),
        (tiff(LAYERS, ["road", "road"]), ("1", "2")),
    ],
)
def test_one_band_for_each_class(mask, classes, tmp_path):
    data = load(write(tmp_path / "set", pairs([BANDS] * 4, [mask] * 4)))
    assert data.classes == classes
    inputs, targets = everything(data)
    assert inputs.shape[1:] == data.shape == (5, 6, 7)
    assert np.array_equal(targets, [LAYERS != 0] * 4)


@pytest.mark.parametrize("overlapping", [False, True])
def test_images_of_several_sizes_are_padded_and_the_margin_is_ignored(overlapping, tmp_path):
    shapes = [(5, 6), (3, 9), (8, 2), (8, 9)]
    images = [np.full(shape, number + 1, np.uint8) for number, shape in enumerate(shapes)]
    masks = [np.stack([image % 2, image // 2], -1) if overlapping else image for image in images]
    data = load(write(tmp_path / "set", pairs(images, masks)))
    inputs, targets = everything(data)
    assert data.shape == (8, 9, 1)
    for number, (height, width) in enumerate(shapes):
        inside = np.zeros((8, 9), bool)
        inside[:height, :width] = True
        assert (inputs[number, inside] == number + 1).all()
        assert (inputs[number, ~inside] == 0).all()
        expected = [(number + 1) % 2, number > 0] if overlapping else number
        assert (targets[number, inside] == expected).all()
        assert (targets[number, ~inside] == IGNORED).all()


def test_a_given_size_is_for_images_and_masks(tmp_path):
    images = [GRAY, GRAY[:4], DEEP, DEEP]
    masks = [np.eye(*image.shape, dtype=np.uint8) * 255 for image in images]
    data = load(write(tmp_path / "set", pairs(images, masks)), image_size=(7, 9))
    inputs, targets = everything(data)
    assert data.shape == (7, 9, 1)
    assert data.classes == ("0", "255")
    assert set(targets.ravel()) == {0, 1}  # resizing leaves no value in between
    expected = tf.image.resize(np.eye(5, 6, dtype=np.uint8)[..., None], (7, 9), "nearest")[..., 0]
    assert np.array_equal(targets[0], expected)
    assert inputs.dtype == np.uint16
    overlapping = pairs(images, [np.stack([mask, 255 - mask], -1) for mask in masks])
    _, targets = everything(load(write(tmp_path / "layers", overlapping), image_size=(7, 9)))
    assert (targets.sum(-1) == 1).all()


def split_files(prefix="") -> dict[str, bytes]:
    """Images of the values 1 to 3, 4 and 5 for the three splits; labels are 0 and the value's remainder by 3."""
    counts = {"train": (1, 2, 3), "val": (4,), "test": (5,)}
    files = {}
    for split, values in counts.items():
        images = [np.full((4, 5), value, np.uint8) for value in values]
        masks = [np.full((4, 5), value % 3, np.uint8) for value in values]
        files |= pairs(images, masks, prefix=f"{prefix}{split}/")
    return files


@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_folders_of_splits(prefix, tmp_path):
    data = load(write(tmp_path / "set", split_files(prefix)))
    assert data.classes == ("0", "1", "2")
    assert [split.inputs[:, 0, 0, 0].tolist() for split in data.splits.values()] == [[1, 2, 3], [4], [5]]
    assert [split.targets[:, 0, 0].tolist() for split in data.splits.values()] == [[1, 2, 0], [1], [2]]


def test_sizes_types_and_names_hold_for_all_splits(tmp_path):
    layers = tiff(LAYERS, ["road", "building"])
    files = pairs([GRAY] * 3, [layers] * 3, prefix="train/") | pairs([DEEP], [layers], prefix="validation/")
    wide = np.zeros((5, 9), np.float32)
    files |= pairs([wide], [tiff(np.ones((5, 9, 2), np.uint8), ["road", "building"])], prefix="test/")
    data = load(write(tmp_path / "set", files))
    assert data.classes == ("road", "building")
    assert {split.inputs.dtype.name for split in data.splits.values()} == {"float32"}
    assert {split.inputs.shape[1:] for split in data.splits.values()} == {(5, 9, 1)}
    assert {split.targets.shape[1:] for split in data.splits.values()} == {(5, 9, 2)}


def test_held_out_splits_share_nothing_and_follow_the_seed(tmp_path):
    images = [np.full((4, 5), number, np.uint8) for number in range(20)]
    for masks in ([image % 4 for image in images], [np.stack([image % 2, image % 3], -1) for image in images]):
        path = write(tmp_path / f"{masks[0].ndim}.zip", pairs(images, masks))
        data = load(path, seed=1)
        assert sizes(data) == [14, 3, 3]
        numbers = [split.inputs[:, 0, 0, 0].tolist() for split in data.splits.values()]
        assert sorted(itertools.chain(*numbers)) == list(range(20))
        assert load(path, seed=1).fingerprint == data.fingerprint != load(path, seed=2).fingerprint


FILES = {
    "exclusive": pairs([DEEP] * 4, [ODD] * 4),
    "folders": pairs([tiff(BANDS)] * 4, {"a": [GRAY] * 4, "b": [ODD] * 4}),
    "bands": pairs([GRAY] * 4, [tiff(LAYERS)] * 4),
    "splits": split_files(),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_folder_and_its_zip_hold_the_same_data(kind, tmp_path):
    folder, archive = write(tmp_path / "set", FILES[kind]), write(tmp_path / "set.zip", FILES[kind])
    data = load(folder)
    assert load(archive).fingerprint == data.fingerprint
    assert load(archive).classes == data.classes


def test_other_files_beside_them_are_skipped(tmp_path):
    files = FILES["bands"] | {"images/0.tif.aux.xml": b"<PAMDataset/>", "labels/.hidden": b"x", "README": b"x"}
    assert (
        load(write(tmp_path / "set", files)).fingerprint == load(write(tmp_path / "bare", FILES["bands"])).fingerprint
    )


def test_a_tiff_with_overviews_is_of_one_page(tmp_path):
    large = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    data = tiff(large, overviews=[2, 4])
    inputs, _ = everything(load(write(tmp_path / "set", pairs([data] * 3, [large % 2] * 3))))
    assert np.array_equal(inputs[0, ..., 0], large)


GOOD = pairs([GRAY] * 4, [ODD] * 4)
CLASSES = pairs([GRAY] * 4, {"a": [GRAY] * 4, "b": [GRAY] * 4})
NAMED = pairs([GRAY] * 4, [tiff(LAYERS, ["a", "b"])] * 4)


def without(files, *names):
    return {name: data for name, data in files.items() if name not in names}


def pages(*values) -> bytes:
    file = io.BytesIO()
    first, *others = map(Image.fromarray, values)
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def image(data) -> dict[str, bytes]:
    return GOOD | {"images/1.npy": data}


def mask(data) -> dict[str, bytes]:
    return GOOD | {"labels/1.x": data}


CUT = "unreadable or truncated"
WHOLE = "label values must be whole numbers of at most 32 bits"
VRT = b'<VRTDataset rasterXSize="6" rasterYSize="5"/>'
FAULTS = {
    "no mask": (without(GOOD, "labels/2.x"), "images/2.npy (no mask in labels, such as labels/2.png)"),
    "no image": (without(GOOD, "images/2.npy"), "labels/2.x (no image)"),
    "like an image": (GOOD | {"images/1.png": b""}, "images/1.png (same name as images/1.npy)"),
    "like a mask": (GOOD | {"labels/1.y": b""}, "labels/1.y (same name as labels/1.x)"),
    "folder": (GOOD | {"images/deep/1.png": encoded(GRAY)}, "images/deep (a folder)"),
    "cut PNG": (image(encoded(GRAY)[:-40]), f"images/1.npy ({CUT})"),
    "cut 16-bit PNG": (image(encoded(DEEP)[:-9]), f"images/1.npy ({CUT})"),
    "cut TIFF": (image(pages(GRAY)[:-20]), f"images/1.npy ({CUT})"),
    "cut npy": (mask(npy(GRAY)[:-1]), f"labels/1.x ({CUT})"),
    "empty file": (mask(b""), "labels/1.x (an empty file)"),
    "transparent": (
        mask(encoded(HALF, mode="RGBA")),
        "labels/1.x (an alpha channel, which masks cannot have: save it without transparency)",
    ),
    "animated": (mask(animated(GRAY, ODD)), "labels/1.x (several frames: save a mask as an image of one)"),
    "PPM": (
        mask(encoded(GRAY, "PPM")),
        "labels/1.x (a PPM file, whose values depend on its header: save masks as PNG)",
    ),
    "pickle": (image(npy(np.array([{}], object))), f"images/1.npy ({CUT})"),
    "file of addresses": (image(VRT), f"images/1.npy ({CUT})"),
    "pages": (image(pages(GRAY, GRAY)), "images/1.npy (2 pages: write each to its own file)"),
    "one axis": (image(npy(GRAY[0])), "images/1.npy (shape (6,), neither [H, W] nor [H, W, C])"),
    "four axes": (mask(npy(GRAY[..., None, None])), "labels/1.x (shape (5, 6, 1, 1), neither [H, W] nor [H, W, C])"),
    "no pixels": (image(npy(GRAY[:0])), "images/1.npy (shape (0, 6, 1), neither [H, W] nor [H, W, C])"),
    "complex": (image(npy(GRAY * 1j)), "images/1.npy (complex128 values, not real numbers)"),
    "NaN": (image(npy(np.where(GRAY, GRAY, np.nan))), "images/1.npy (NaN or infinite values)"),
    "infinite": (image(npy(GRAY * 1e300)), "images/1.npy (NaN or infinite values)"),
    "NaN label": (mask(npy(np.where(GRAY, GRAY, np.nan))), f"labels/1.x ({WHOLE})"),
    "half a label": (mask(npy(GRAY / 16)), f"labels/1.x ({WHOLE})"),
    "huge label": (mask(npy(GRAY.astype(np.uint32) + 2**31)), f"labels/1.x ({WHOLE})"),
    "colors": (
        mask(encoded(COLOR)),
        "labels/1.x (a color mask: store label values in a gray or palette image)",
    ),
    "mask size": (mask(npy(GRAY.T)), "labels/1.x (6 x 5 pixels, its image 5 x 6)"),
    "bands": (image(npy(COLOR)), "images/1.npy (3 bands, images/0.npy has 1)"),
    "bands of a split": (
        pairs([GRAY] * 3, [ODD] * 3, prefix="train/") | pairs([COLOR], [ODD], prefix="test/"),
        "test/images/0.npy (3 bands, train/images/0.npy has 1)",
    ),
    "mask bands": (mask(npy(LAYERS)), "labels/1.x (2 bands, not 1 as labels/0.x)"),
    "fewer bands": (NAMED | {"labels/1.x": npy(GRAY)}, "labels/1.x (1 bands, not 2 as labels/0.x)"),
    "other names": (
        NAMED | {"labels/1.x": tiff(LAYERS, ["b", "a"])},
        "labels/1.x (band names differ from those of labels/0.x)",
    ),
    "no mask of a class": (
        without(CLASSES, "labels/b/2.x"),
        "images/2.npy (no mask in labels/b, such as labels/b/2.png)",
    ),
    "no image of a class": (without(CLASSES, "images/2.npy"), "labels/a/2.x (no image), labels/b/2.x (no image)"),
    "beside classes": (CLASSES | {"labels/1.x": npy(GRAY)}, "labels/1.x (beside the class folders)"),
    "bands of a class": (CLASSES | {"labels/a/1.x": npy(LAYERS)}, "labels/a/1.x (2 bands, not 1)"),
    "nested class": (CLASSES | {"labels/a/b/1.x": npy(GRAY)}, "labels/a/b (a folder)"),
    "all at once": (
        without(GOOD, "images/0.npy") | {"images/1.npy": b"", "labels/2.x": npy(GRAY.T), "images/7.png": b""},
        "images/1.npy (an empty file), images/7.png (no mask in labels, such as labels/7.png), labels/0.x (no image), "
        "labels/2.x (6 x 5 pixels, its image 5 x 6)",
    ),
    "many": (
        pairs([b""] * 13, [GRAY] * 13),
        ", ".join(f"images/{number}.npy (an empty file)" for number in (0, 1, 10, 11, 12, 2, 3, 4, 5, 6))
        + ", and 3 more",
    ),
    "unknown label": (
        split_files() | pairs([GRAY[:4, :5]], [GRAY[:4, :5] // 80 + 1], prefix="test/"),
        "test/labels/0.x (unknown label value 3, not in train)",
    ),
    "unknown labels": (
        split_files() | pairs([GRAY[:4, :5]], [GRAY[:4, :5] // 40], prefix="val/"),
        "validation/labels/0.x (unknown label value 3, 4, not in train)",
    ),
    "unknown class": (
        pairs([GRAY] * 3, {"a": [GRAY] * 3}, prefix="train/") | pairs([GRAY], {"b": [GRAY]}, prefix="test/"),
        ", ".join(
            ["test/images/0.npy (no mask in test/labels/a, such as test/labels/a/0.png)"]
            + [
                f"train/images/{number}.npy (no mask in train/labels/b, such as train/labels/b/{number}.png)"
                for number in range(3)
            ]
        ),
    ),
    # the image in val has the label of train's first mask: it may be known
    "unknown train": (split_files() | {"train/labels/0.x": b""}, "train/labels/0.x (an empty file)"),
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_all_files_without_a_pair_are_reported(case, suffix, tmp_path):
    files, faults = FAULTS[case]
    message = refused(write(tmp_path / f"set{suffix}", files))
    assert message == f"{tmp_path / 'set'}{suffix}: files that do not form a pair of an image and its mask: {faults}"


def test_a_mask_that_was_saved_as_jpeg(tmp_path):
    sharp = np.kron(np.random.default_rng(0).integers(0, 2, (5, 6)), np.ones((7, 5))).astype(np.uint8) * 255
    message = refused(write(tmp_path / "set", pairs([sharp] * 3, [sharp, sharp, encoded(sharp, "JPEG")])))
    assert "labels/2.x (a JPEG, which blurs label values" in message
    assert "save masks as PNG" in message


EMPTY = {"images/": b"", "labels/": b""}
OTHER = {
    "nothing": (EMPTY, "no images to train on"),
    "no training": (
        pairs([GRAY], [GRAY], prefix="test/") | {f"train/{name}": b"" for name in EMPTY},
        "no images to train on",
    ),
    "empty test": (
        pairs([GRAY] * 4, [GRAY] * 4, prefix="train/") | {f"test/{name}": b"" for name in EMPTY},
        "no example in test",
    ),
    "another split": (
        {name: data for name, data in split_files().items() if name[:4] != "test"} | {"test/cats/1.png": encoded(GRAY)},
        "train contains images and masks, test does not",
    ),
    "only validated": (
        pairs([GRAY] * 4, [GRAY] * 4, prefix="val/") | {"train/cats/1.png": encoded(GRAY)},
        "validation contains images and masks, train does not",
    ),
}


@pytest.mark.parametrize("case", OTHER)
def test_folders_that_are_not_a_data_set(case, tmp_path):
    files, message = OTHER[case]
    assert message in refused(write(tmp_path / "set.zip", files))


def test_a_tiff_without_rasterio(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert load(write(tmp_path / "arrays", GOOD)).classes == ("0", "1")
    message = refused(write(tmp_path / "set", image(tiff(GRAY))))
    assert "TIFF files need rasterio" in message
    assert "pip install 'zoo[geotiff]'" in message


def test_class_folders_take_only_8_bit_images(tmp_path, capsys):
    files = {f"{name}/{n}.png": encoded(GRAY) for name in "ab" for n in range(4)}
    for data in (tiff(BANDS), tiff(GRAY / 7), npy(GRAY)):
        path = write(tmp_path / "set.zip", files | {"b/9.png": data})
        message = "1 of 9 files are not images (PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM) of 8 bits"
        assert sum(map(len, load(path).splits.values())) == 8
        assert f"{message} and are left out: b/9.png" in capsys.readouterr().err
        with pytest.raises(ZooError, match=re.escape(f"{message}: b/9.png")):
            load(path, strict=True)


# Changes of classes


@pytest.fixture
def bands(tmp_path):
    """Four classes, 0, 10, 20 and 30, and an ignored margin."""
    images = [GRAY, GRAY, GRAY, GRAY[:4]]
    return write(tmp_path / "bands.zip", pairs(images, [image // 8 % 4 * 10 for image in images]))


@pytest.mark.parametrize("name", ["0", "10", "20", "30"])
def test_an_ignored_class(name, bands):
    whole, data = load(bands), load(bands, ignored_class=name)
    left = [other for other in whole.classes if other != name]
    assert whole.classes == ("0", "10", "20", "30")
    assert list(data.classes) == left
    assert data.fingerprint != whole.fingerprint
    for split, part in whole.splits.items():
        assert np.array_equal(data.splits[split].inputs, part.inputs)
        assert data.splits[split].targets.dtype == np.uint8
        for before, after in zip(part.targets.ravel(), data.splits[split].targets.ravel(), strict=True):
            if before == IGNORED or whole.classes[before] == name:
                assert after == IGNORED
            else:
                assert data.classes[after] == whole.classes[before]
    assert load(whole, ignored_class=name).fingerprint == data.fingerprint == load(data).fingerprint


def test_one_of_overlapping_classes(tmp_path):
    whole = load(write(tmp_path / "set", NAMED))
    for number, name in enumerate("ab"):
        data = whole.only_classes(name)
        assert data.classes == (name,)
        assert data.shape == whole.shape
        for split, part in whole.splits.items():
            assert np.array_equal(data.splits[split].targets, part.targets[..., [number]])
    assert len({whole.fingerprint, whole.only_classes("a").fingerprint, whole.only_classes("b").fingerprint}) == 3


def test_classes_that_cannot_be_selected_or_ignored(bands, tmp_path):
    exclusive, overlapping = load(bands), load(write(tmp_path / "set", NAMED))
    assert "unknown class of bands '300': did you mean 30" in refused(bands, ignored_class="300")
    with pytest.raises(ZooError, match="unknown class of set 'c': known: a, b"):
        overlapping.only_classes("c")
    assert "data set digits has no masks of exclusive classes" in refused("digits", ignored_class="0")
    with pytest.raises(ZooError, match="set has no masks of exclusive classes"):
        overlapping.without_class("a")
    with pytest.raises(ZooError, match="bands has no masks of overlapping classes"):
        exclusive.only_classes("10")
    plain = load(savez(tmp_path / "plain.npz", x_train=np.stack([GRAY] * 9)))
    with pytest.raises(ZooError, match="plain has no masks of exclusive"):
        plain.without_class("10")


# Arrays


def test_masks_of_an_npz(tmp_path):
    x, ids = np.zeros((9, 4, 3), np.uint16), np.arange(108).reshape(9, 4, 3) % 3
    for y in (ids, ids[..., None]):
        data = load(savez(tmp_path / "ids.npz", x_train=x, y_train=y))
        assert data.classes == ("0", "1", "2")
        assert data.splits["train"].targets.shape[1:] == (4, 3)
        assert data.splits["train"].targets.dtype == np.uint8
        assert data.splits["train"].inputs.dtype == np.uint16
    assert load(savez(tmp_path / "one.npz", x_train=x, y_train=ids * 0)).classes == ("0",)
    highest = np.where(ids == 2, 254, ids)
    assert load(savez(tmp_path / "many.npz", x_train=x, y_train=highest)).classes == ("0", "1", "254")
    ignored = np.where(ids == 2, IGNORED, ids).astype(np.uint8)
    data = load(savez(tmp_path / "some.npz", x_train=x, y_train=ignored, classes=["no", "yes"]))
    assert data.classes == ("no", "yes")
    assert (everything(data)[1] == IGNORED).mean() == 1 / 3
    nothing = np.where(ids == 2, IGNORED, 0).astype(np.uint8)  # nothing but background in the test images
    data = load(savez(tmp_path / "own.npz", x_train=x, y_train=ignored, x_test=x, y_test=nothing))
    assert data.classes == ("0", "1")


def test_overlapping_masks_of_an_npz(tmp_path):
    x, y = np.zeros((9, 4, 3), np.uint8), np.arange(216).reshape(9, 4, 3, 2) % 2
    y[0, 0, 0] = 1
    for values in (y, y.astype(bool), y.astype(np.uint8)):
        data = load(savez(tmp_path / "set.npz", x_train=x, y_train=values))
        assert data.classes == ("1", "2")
        _, targets = everything(data)
        assert targets.dtype == np.uint8
        assert targets.shape == (9, 4, 3, 2)
        assert targets.sum() == y.sum()
    y[0] = IGNORED
    data = load(savez(tmp_path / "set.npz", x_train=x, y_train=y.astype(np.uint8), classes=["a", "b"]))
    assert data.classes == ("a", "b")
    assert (everything(data)[1] == IGNORED).mean() == 1 / 9


X, IDS = np.zeros((9, 4, 3), np.uint8), np.arange(108).reshape(9, 4, 3) % 2
LAYERED = np.stack([IDS, IDS], axis=-1)
ARRAYS = {
    "255 as int64": ({"y_train": IDS * 255}, "masks contain 255: use class ids up to 254, and 255 as uint8 for pixels"),
    "1000": ({"y_train": IDS * 1000}, "masks contain 1000: use class ids up to 254"),
    "0 and 255": ({"y_train": (IDS * 255).astype(np.uint8)}, "masks contain only 0 and 255"),
    "layers of 0 and 255": ({"y_train": (LAYERED * 255).astype(np.uint8)}, "masks contain only 0 and 255"),
    "layers of ids": ({"y_train": LAYERED * 2}, "masks contain 2: use 0 and 1, since"),
    "negative": ({"y_train": -IDS}, "must be class ids from 0 on"),
    "floats": ({"y_train": IDS / 2}, "must be class ids from 0 on"),
    "size": ({"y_train": IDS[:, 1:]}, "must be class ids from 0 on"),
    "size of layers": ({"y_train": LAYERED[:, 1:]}, "must be class ids from 0 on"),
    "too few names": ({"y_train": LAYERED, "classes": ["a"]}, "names 1 classes, its targets have 2"),
    "too many names": ({"y_train": LAYERED, "classes": ["a", "b", "c"]}, "names 3 classes, its targets have 2"),
    "labels and masks": (
        {"y_train": IDS, "x_test": X, "y_test": IDS[:, 0, 0]},
        "the examples of test differ in kind or size from those of train",
    ),
    "masks and layers": (
        {"y_train": IDS, "x_test": X, "y_test": LAYERED},
        "the examples of test differ in kind or size from those of train",
    ),
    "no masks": ({"y_train": IDS, "x_test": X}, "the examples of test differ in kind or size from those of train"),
    "texts": ({"x_train": np.array(["a"] * 9), "y_train": LAYERED}, "must be class ids"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_not_masks(case, tmp_path):
    changes, message = ARRAYS[case]
    assert message in refused(savez(tmp_path / "set.npz", **{"x_train": X} | changes))


# Named sets


def test_the_scenes_are_loaded_by_name(monkeypatch, bands):
    data = load(bands)
    monkeypatch.setattr(scenes, "data", lambda: (dict(data.splits), data.classes))
    assert load("scenes").fingerprint == data.fingerprint
    assert load("scenes").name == "scenes"


@real("isbi_membrane.zip")
def test_real_microscopy():
    data = load("isbi_membrane")
    assert data.shape == (512, 512, 1)
    assert sum(sizes(data)) == 25
    assert data.classes == ("0", "255")
    for split in data.splits.values():
        assert split.inputs.dtype == split.targets.dtype == np.uint8
        assert split.targets.shape == (len(split), 512, 512)
        assert set(np.unique(split.targets)) == {0, 1}
    assert 0.7 < data.splits["train"].targets.mean() < 0.85  # cells are 255, membranes 0
    (alone,) = load("isbi_membrane", ignored_class="0").classes
    assert alone == "255"
