"""Files, folders, archives and arrays as people have them: each form with what comes of it, in training, prediction and
serving alike. An outcome is a picture, a note, or an error in one line."""

import base64
import dataclasses
import functools
import io
import itertools
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from PIL import Image

import zoo
from zoo import preprocessing
from zoo.artifacts import index
from zoo.data import load, rasters
from zoo.data.decoding import decode_bands, decode_image
from zoo.serving.limits import Limits
from zoo.serving.models import Catalog
from zoo.serving.server import create_app
from zoo.spec import Preprocessing

UPRIGHT = np.zeros((6, 8, 3), np.uint8)  # red at the top left, blue at the bottom: it looks different in each turn
UPRIGHT[:3, :4] = (200, 30, 10)
UPRIGHT[3:] = (10, 20, 220)
GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
ALPHA = np.where(GRAY > 99, 255, 0).astype(np.uint8)
NOTE = "note: "


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def turned(orientation, kind="PNG", image=UPRIGHT):
    """A file that is stored so that its EXIF orientation shows the image upright."""
    undo = {1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"]}
    undo |= {5: ["TRANSPOSE"], 6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"]}
    stored = Image.fromarray(image)
    for step in undo[orientation]:
        stored = stored.transpose(Image.Transpose[step])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, kind, exif=exif)


def on_white(color, alpha):
    share = alpha[..., None] / 255
    return np.rint(np.atleast_3d(color) * share + 255 * (1 - share)).astype(np.uint8)


def palette(mode="P"):
    return Image.fromarray(UPRIGHT).convert(mode, palette=Image.Palette.ADAPTIVE, colors=8)


DEEP = GRAY.astype(np.uint16) * 257
CMYK = Image.fromarray(UPRIGHT).convert("CMYK")
# By name: the bytes, the pixels that everybody sees, the note, and whether the graph of an encoded signature sees them.
FORMATS = {
    "PNG": (encoded(UPRIGHT), UPRIGHT, "", True),
    "gray PNG": (encoded(GRAY), GRAY, "", True),
    "1 bit": (encoded(Image.fromarray(GRAY > 99)), (GRAY > 99) * 255, "", True),
    "palette": (encoded(palette()), UPRIGHT, "", True),
    "gray palette": (encoded(Image.fromarray(GRAY).convert("P")), GRAY, "", False),
    "16 bits": (encoded(DEEP), GRAY, "the upper 8 of 16 bits", True),
    "16 bits, color": (
        tf.io.encode_png(UPRIGHT.astype(np.uint16) * 257).numpy(),
        UPRIGHT,
        "the upper 8 of 16 bits",
        True,
    ),
    "alpha": (encoded(np.dstack([UPRIGHT, ALPHA])), on_white(UPRIGHT, ALPHA), "transparency on a background", True),
    "gray and alpha": (
        encoded(Image.fromarray(np.dstack([GRAY, ALPHA]))),
        on_white(GRAY, ALPHA),
        "transparency on a background",
        True,
    ),
    "half transparent": (encoded(np.dstack([UPRIGHT, GRAY])), on_white(UPRIGHT, GRAY), "transparency on a", True),
    "opaque alpha": (encoded(np.dstack([UPRIGHT, ALPHA | 255])), UPRIGHT, "", True),
    "black on nothing": (
        encoded(np.dstack([UPRIGHT * 0, ALPHA])),
        on_white(UPRIGHT * 0, ALPHA),
        "transparency on a background",
        True,
    ),
    "transparent color": (
        encoded(Image.fromarray(GRAY), transparency=0),
        np.where(GRAY == 0, 255, GRAY),
        "transparency on a",
        False,
    ),
    **{
        f"orientation {number}": (turned(number), UPRIGHT, "turned upright" if number > 1 else "", number == 1)
        for number in range(1, 9)
    },
    "turned WebP": (turned(6, "WEBP", UPRIGHT[:, :, :1].repeat(3, 2)), None, "turned upright", False),
    "turned TIFF": (turned(3, "TIFF"), UPRIGHT, "turned upright", False),
    "JPEG": (encoded(np.full((6, 8, 3), 90, np.uint8), "JPEG"), np.full((6, 8, 3), 90), "", True),
    "gray JPEG": (encoded(np.full((6, 8), 90, np.uint8), "JPEG"), np.full((6, 8), 90), "", True),
    "CMYK JPEG": (encoded(CMYK, "JPEG", quality=100, subsampling=0), None, "", True),
    "CMYK TIFF": (encoded(CMYK, "TIFF"), UPRIGHT, "", False),
    "BMP": (encoded(UPRIGHT, "BMP"), UPRIGHT, "", True),
    "BMP of 32 bits": (encoded(np.dstack([UPRIGHT, ALPHA]), "BMP"), UPRIGHT, "", True),
    "1-bit BMP": (encoded(Image.fromarray(GRAY > 99), "BMP"), (GRAY > 99) * 255, "", False),
    "GIF": (encoded(palette(), "GIF"), UPRIGHT, "", True),
    "animated GIF": (
        encoded(palette(), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 6), (0, 90, 0))]),
        UPRIGHT,
        "the first of several frames",
        True,
    ),
    "animated PNG": (
        encoded(UPRIGHT, "PNG", save_all=True, append_images=[Image.fromarray(255 - UPRIGHT)]),
        UPRIGHT,
        "the first of several frames",
        True,
    ),
    "WebP": (encoded(UPRIGHT, "WEBP", lossless=True), UPRIGHT, "", True),
    "WebP with alpha": (
        encoded(np.dstack([UPRIGHT, ALPHA]), "WEBP", lossless=True, exact=True),
        on_white(UPRIGHT, ALPHA),
        "transparency on a background",
        True,
    ),
    "TIFF": (encoded(UPRIGHT, "TIFF"), UPRIGHT, "", False),
    "16-bit TIFF": (encoded(DEEP, "TIFF"), GRAY, "the upper 8 of 16 bits", False),
    "pages": (
        encoded(UPRIGHT, "TIFF", save_all=True, append_images=[Image.fromarray(255 - UPRIGHT)]),
        UPRIGHT,
        "the first of several frames",
        False,
    ),
    "PPM": (encoded(UPRIGHT, "PPM"), UPRIGHT, "", False),
    "PGM": (encoded(GRAY, "PPM"), GRAY, "", False),
}


@functools.cache
def seen(name):
    """The pixels of an image of `FORMATS`."""
    return decode_image(FORMATS[name][0]).pixels


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_is_what_everybody_sees(name):
    data, expected, note, _ = FORMATS[name]
    found = decode_image(data)
    if expected is None:  # lossy
        assert found.pixels.shape == UPRIGHT.shape
    else:
        expected = np.atleast_3d(expected)
        assert found.pixels.dtype == np.uint8
        assert found.pixels.shape == expected.shape
        assert np.abs(found.pixels.astype(int) - expected).max() <= 1
    assert note in "; ".join(found.notes)
    assert bool(found.notes) == bool(note)


def test_cmyk_has_the_colors_of_the_original():
    assert np.abs(seen("CMYK JPEG").astype(int) - UPRIGHT).mean() < 12  # by JPEG; inverted it would be 100
    assert np.array_equal(seen("CMYK TIFF"), UPRIGHT)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_graph_of_an_encoded_signature_sees_the_same(channels):
    names = [name for name in FORMATS if FORMATS[name][3]]
    plain = Preprocessing(size=(6, 8), high=255.0)
    found = preprocessing.decode(tf.constant([FORMATS[name][0] for name in names]), plain, channels)
    for name, image in zip(names, found, strict=True):
        expected = preprocessing.apply(seen(name)[None], plain, channels)[0]
        assert np.abs(image - expected).max() <= (16 if "CMYK" in name else 0), name  # decoders of JPEG differ


def test_the_background_is_what_transparent_pixels_show():
    data = encoded(np.dstack([UPRIGHT * 0 + 255, ALPHA]))  # white ink on nothing
    with pytest.raises(ValueError, match="blank: its opaque pixels have the gray value 255 of the background"):
        decode_image(data)
    for background in (0, 100):
        expected = np.where(ALPHA > 0, 255, background)
        assert (decode_image(data, background).pixels == expected[..., None]).all()
        plain = Preprocessing(size=(6, 8), high=255.0, background=background)
        assert (preprocessing.decode(tf.constant([data]), plain, 1)[0, ..., 0] == expected).numpy().all()


REFUSED = {
    "empty": (b"", "an empty file"),
    "text": (b"no image", "unreadable or truncated"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable or truncated"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC image, save it as JPEG or PNG"),
    "AVIF": (b"\0\0\0\x18ftypavif" + bytes(50), "AVIF image, save it as JPEG or PNG"),
    "floats": (encoded(GRAY / np.float32(9), "TIFF"), "32 bits a channel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_told(name):
    data, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        decode_image(data)


def jpegs():
    noise = np.random.default_rng(0).integers(0, 256, (22, 31, 3), dtype=np.uint8)
    for number, endian in itertools.product(range(10), "<>"):
        exif = Image.Exif()
        exif.endian = endian
        exif[0x010F], exif[0x0112], exif[0x0132] = "maker", number, "2012:12:21 00:00:00"
        given = {"exif": exif.tobytes(), "icc_profile": bytes(3000)}
        yield f"orientation {number}, {endian}", encoded(noise, "JPEG", **given)
    yield "damaged metadata", encoded(noise, "JPEG", exif=exif.tobytes()[:20])
    yield "comment", encoded(noise, "JPEG", comment=b"Exif" * 1000)
    yield "progressive, small colors", encoded(noise, "JPEG", progressive=True, quality=30, subsampling=2)
    yield "gray", encoded(noise[..., 0], "JPEG")
    yield "CMYK", encoded(Image.fromarray(noise).convert("CMYK"), "JPEG")


@functools.cache
def graph_of_jpeg():
    """One graph for all examples: pixels of a file, as stored in 0..255."""
    pixels_as_they_are = Preprocessing(low=0.0, high=255.0)
    return tf.function(lambda files: preprocessing.decode(files, pixels_as_they_are, 3))


def test_the_graph_decodes_jpeg_files_to_the_same_pixels():
    """Within TensorFlow Serving as in training, orientation included."""
    for name, data in jpegs():
        expected = decode_image(data).pixels
        expected = np.broadcast_to(expected, (*expected.shape[:2], 3))
        assert (expected.shape[0] > expected.shape[1]) == (re.search("[5678], ", name) is not None), name
        np.testing.assert_array_equal(graph_of_jpeg()(tf.constant([data]))[0], expected, err_msg=name)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_the_graph_decodes_jpeg_files_whatever_their_metadata(metadata, header):
    data = encoded(UPRIGHT, "JPEG", exif=b"Exif\0\0" + header + metadata)
    assert tuple(graph_of_jpeg()(tf.constant([data])).shape) in ((1, 6, 8, 3), (1, 8, 6, 3))


def test_the_reader_of_bands_turns_and_composites_too():
    """Images with masks, and scenes."""
    for name in ("orientation 6", "alpha", "turned TIFF", "animated GIF", "palette"):
        assert np.array_equal(decode_bands(FORMATS[name][0]).pixels, seen(name)), name
    Path("turned.tif").write_bytes(FORMATS["turned TIFF"][0])
    Path("turned.png").write_bytes(FORMATS["orientation 8"][0])
    for path in ("turned.tif", "turned.png"):
        scene = rasters.open_scene(path)
        assert np.array_equal(scene.read(slice(0, 6), slice(0, 8)), UPRIGHT)


# --- a network that is trained, predicts and serves on all of them ------------------------------------------------


@pytest.fixture(scope="module")
def trained(making):
    """A folder in which the class is the color of the lower half, with one file of every format, and a network."""
    with making as folder:
        random = np.random.default_rng(0)
        for number in range(24):
            for name, color in (("blue", (10, 20, 220)), ("green", (10, 200, 20))):
                image = UPRIGHT.copy()
                image[3:] = color
                image[:3] = random.integers(0, 256, 3)
                place = Path("colors", name, f"{number}.png")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(encoded(image))
        changes = {"epochs": 30, "batch_size": 4, "learning_rate": 1.0}
        run = zoo.train("mlp_784_30_10", "colors", input_shape=(6, 8, 3), out="runs/colors", **changes)
        path = zoo.export(run, "saved_models/mlp_784_30_10.colors")
        yield folder, zoo.load(path), folder / path


def in_color():
    return [name for name in FORMATS if np.array_equal(seen(name), UPRIGHT) or "CMYK" in name]


def serving(path):
    return TestClient(create_app(Catalog([str(path)], Limits()), Limits()))


def test_every_format_is_read_alike_in_training_prediction_and_serving(trained, capsys):
    _, predictor, path = trained
    Path("all/blue").mkdir(parents=True)
    Path("all/green").mkdir()
    names = {name: f"all/blue/{number:02d}.img" for number, name in enumerate(FORMATS)}
    for name, file in names.items():
        Path(file).write_bytes(FORMATS[name][0])
    Path("all/green/0.png").write_bytes(encoded(UPRIGHT))
    data = load("all", hold_out=False, image_size=(6, 8)).splits["train"]
    for image, file in zip(data.inputs, data.names, strict=True):
        name = next((name for name, place in names.items() if place == f"all/{file}"), "PNG")
        assert np.array_equal(image, np.broadcast_to(seen(name), image.shape)), name
    told = capsys.readouterr().err
    assert told.count(NOTE) == 4  # turned, composited, upper bits, first frames: one line each
    predicted = zoo.predict(predictor, list(names.values()))
    assert capsys.readouterr().err.count(NOTE) >= 4
    in_memory = zoo.predict(predictor, [FORMATS[name][0] for name in names])
    expected = [predictor(np.broadcast_to(seen(name), (1, 6, 8, 3)))["probabilities"][0] for name in names]
    request = [{"b64": base64.b64encode(FORMATS[name][0]).decode()} for name in names]
    with serving(path) as client:
        body = {"signature_name": "encoded_images", "instances": request}
        answer = client.post("/v1/models/mlp_784_30_10.colors:predict", json=body)
    for number, name in enumerate(names):
        for found in (predicted[number], in_memory[number], answer.json()["predictions"][number]):
            np.testing.assert_allclose(found["probabilities"], expected[number], atol=1e-5, err_msg=name)
    for name in in_color():
        assert predicted[[*names].index(name)]["class"] == "blue", name


def test_the_server_names_classes_and_formats_and_refuses_files_by_number(trained):
    _, _, path = trained
    b64 = [{"b64": "AAAA"}, {"b64": base64.b64encode(encoded(UPRIGHT)).decode()}, {"b64": "AAAA"}]
    with serving(path) as client:
        metadata = client.get("/v1/models/mlp_784_30_10.colors/metadata").json()["metadata"]
        body = {"signature_name": "encoded_images", "instances": b64}
        answer = client.post("/v1/models/mlp_784_30_10.colors:predict", json=body)
        for signature in ("serving_default", "encoded_images"):
            body = {"signature_name": signature, "instances": []}
            assert client.post("/v1/models/mlp_784_30_10.colors:predict", json=body).json() == {"predictions": []}
    assert metadata["class_names"] == ["blue", "green"]
    assert "TIFF" in metadata["encoded_images"]["formats"]
    manifest = json.loads((path / "assets.extra/manifest.json").read_text())
    assert manifest["encoded_images"]["exif_orientation"] == "applied to JPEG"
    assert manifest["encoded_images"]["transparency"] == "composited on white"
    assert answer.status_code == 400
    assert "image 0 (unreadable or truncated), image 2 (unreadable or truncated)" in answer.json()["error"]


# --- prediction ----------------------------------------------------------------------------------------------------


def inputs_of_every_kind(folder):
    blue = folder / "colors/blue"
    files = sorted(str(file) for file in blue.iterdir())
    array = np.stack([np.asarray(Image.open(file)) for file in files])
    return {
        "a file": (files[0], 1),
        "a path": (Path(files[0]), 1),
        "files": (files[:3], 3),
        "a folder": (blue, 24),
        "a folder of folders": (folder / "colors", 48),
        "wildcards": (str(blue / "1*.png"), 11),
        "bytes": (Path(files[0]).read_bytes(), 1),
        "Pillow": (Image.open(files[0]), 1),
        "transparent Pillow": (Image.open(files[0]).convert("RGBA"), 1),
        "an array": (array[0], 1),
        "a batch": (array, 24),
        "floats from 0 to 1": (array / 255, 24),
        "floats from 0 to 255": (array.astype(np.float32), 24),
        "integers": (array.astype(np.int64), 24),
        "channels first": (np.moveaxis(array, 3, 1), 24),
        "with alpha": (np.dstack([array[0], np.full((6, 8), 255, np.uint8)]), 1),
        "a tensor": (tf.constant(array), 24),
        "a list of all": ([files[0], Path(files[1]), array[2], Image.open(files[3]), [files[4]]], 5),
        "nothing": ([], 0),
        "an empty batch": (array[:0], 0),
        "gray": (array[..., 2], 24),
    }


def test_predict_takes_inputs_of_every_kind(trained):
    folder, predictor, _ = trained
    for kind, (given, count) in inputs_of_every_kind(folder).items():
        rows = zoo.predict(predictor, given)
        assert len(rows) == count, kind
        assert all(row["classes"] == ["blue", "green"] for row in rows)
        if kind not in ("a folder of folders", "gray"):
            assert {row["class"] for row in rows} <= {"blue"}, kind


def test_all_inputs_that_cannot_be_read_are_named(trained):
    folder, predictor, _ = trained
    Path("cut.png").write_bytes(encoded(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8))[:900])
    Path("none.jpg").write_bytes(b"")
    good = str(folder / "colors/blue/0.png")
    with pytest.raises(
        zoo.ZooError, match=r"2 of 3 inputs .*: cut.png \(unreadable or truncated\), none.jpg \(an empty"
    ):
        zoo.predict(predictor, ["cut.png", good, "none.jpg"])
    with pytest.raises(zoo.ZooError, match=r"no file absent.png, x\*.png"):
        zoo.predict(predictor, ["absent.png", good, "x*.png"])
    for wrong, message in ((5, "is no image"), (np.zeros((2, 6, 8, 7), np.uint8), "7 channels, the network takes 3")):
        with pytest.raises(zoo.ZooError, match=message):
            zoo.predict(predictor, wrong)


def test_the_command_predicts_folders_lists_and_top_classes(trained, command, monkeypatch):
    folder, _, path = trained
    blue = folder / "colors/blue"
    code, out, err = command(f"predict {path} '{blue}/1*.png' --csv --top 2")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "input,class,probability,class_2,probability_2"
    assert len(lines) == 12
    assert lines[1].startswith(f"{blue}/1.png,blue,0.")
    assert ",green," in lines[1]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{blue}/1.png\n\n{blue}/2.png\n"))
    code, out, _ = command(f"predict {path} - --json --top 2")
    rows = json.loads(out)
    assert [row["input"] for row in rows] == [f"{blue}/1.png", f"{blue}/2.png"]
    assert rows[0]["classes"] == ["blue", "green"]
    assert [one["class"] for one in rows[0]["top"]] == ["blue", "green"]
    assert rows[0]["top"][0]["probability"] == max(rows[0]["probabilities"])


def test_images_far_from_the_training_images_are_told(trained, capsys):
    _, predictor, _ = trained
    zoo.predict(predictor, UPRIGHT)
    assert "much" not in capsys.readouterr().err
    zoo.predict(predictor, np.stack([UPRIGHT, np.full_like(UPRIGHT, 255)]))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "much brighter" in line]
    assert line.startswith("note: 1 of 2 images are much brighter (mean 255 of 255)")
    digits = zoo.load("lenet5.mnist")  # published: its manifest may be older than the statistics
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 12:16] = 255
    zoo.predict(digits, image)
    assert "much" not in capsys.readouterr().err
    zoo.predict(digits, 255 - image)
    assert "Invert such images" in capsys.readouterr().err


# --- folders and archives ------------------------------------------------------------------------------------------


def picture(value):
    return encoded(np.full((5, 5), value, np.uint8))


def classes(prefix="", names=("cat", "dog"), count=8, suffix="png"):
    return {
        f"{prefix}{name}/{n}.{suffix}": picture(60 * index + n)
        for index, name in enumerate(names)
        for n in range(count)
    }


def masks(prefix="", images="images", labels="masks", count=6, mask="{}.png", image="{}.png"):
    files = {}
    for n in range(count):
        files[f"{prefix}{images}/{image.format(n)}"] = encoded(GRAY + np.uint8(n))
        files[f"{prefix}{labels}/{mask.format(n)}"] = encoded((GRAY > 100).astype(np.uint8))
    return files


def write(files, place="set"):
    for name, data in files.items():
        Path(place, name).parent.mkdir(parents=True, exist_ok=True)
        Path(place, name).write_bytes(data)
    return place


def zipped(files, change=lambda name: name, place="set.zip"):
    with zipfile.ZipFile(place, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.filename = change(name)  # as it is written: the constructor changes separators
            archive.writestr(entry, data)
    return place


def tarred(files, place="set.tar.gz", prefix="./"):
    kind = place.rpartition(".")[2]
    with tarfile.open(place, f"w:{'gz' if kind == 'tgz' else kind}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return place


def encrypted(files):
    place = zipped(files)
    data = bytearray(Path(place).read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags of each entry, APPNOTE.TXT 4.3
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 1)
    Path(place).write_bytes(bytes(data))
    return place


THREE = {"train": 16, "validation": 4, "test": 4}


def splits(train, validation, test):
    return {
        **classes(f"{train}/"),
        **classes(f"{validation}/", count=2),
        **classes(f"{test}/", count=2),
    }


JUNK = {
    "cat/Thumbs.db": b"x",
    "dog/desktop.ini": b"x",
    "cat/0.txt": b"a cat",
    "cat/0.json": b"{}",
    "dog/1.xml": b"<a/>",
}
OUTCOMES = {  # what is given, the class names, the sizes of the splits if they are the source's, and a note
    "plain": (lambda: write(classes()), ("cat", "dog"), None, ""),
    **{
        f"splits {names}": (
            functools.partial(lambda names: write(splits(*names.split())), names),
            ("cat", "dog"),
            THREE,
            "",
        )
        for names in (
            "train val test",
            "train valid test",
            "train dev test",
            "Train Val Test",
            "training validation testing",
            "TRAIN VALID TEST",
            "training_set validation_set test_set",
        )
    },
    "junk": (
        lambda: write(classes() | JUNK),
        ("cat", "dog"),
        None,
        "left out 5 files (1 .db, 1 .ini, 1 .json, 1 .txt, 1 .xml)",
    ),
    "hidden file": (
        lambda: write(classes() | {"cat/.DS_Store": b"x"}),
        ("cat", "dog"),
        None,
        "left out 1 files (1 .DS_Store)",
    ),
    "hidden class": (
        lambda: write(classes() | {".c/1.png": picture(1), ".c/2.png": picture(2)}),
        ("cat", "dog"),
        None,
        "the folder '.c' with 2 files",
    ),
    "copies of an editor": (
        lambda: write(classes() | {"cat/.ipynb_checkpoints/1.png": picture(1)}),
        ("cat", "dog"),
        None,
        "the folder '.ipynb_checkpoints' with 1 files",
    ),
    "beside the classes": (
        lambda: write(classes() | {"5.png": picture(1), "6.png": picture(1)}),
        ("cat", "dog"),
        None,
        "2 files (2 .png)",
    ),
    "numbers": (lambda: write(classes(names=("10", "9", "1", "2"))), ("1", "2", "9", "10"), None, ""),
    "a class called train": (lambda: write(classes(names=("bus", "car", "train"))), ("bus", "car", "train"), None, ""),
    "wrapped": (lambda: write(classes("a/b/")), ("cat", "dog"), None, ""),
    "accents": (
        lambda: write(classes("train/", ("cafe\u0301", "x")) | classes("val/", ("caf\u00e9", "x"))),
        ("caf\u00e9", "x"),
        None,
        "",
    ),
    "zip": (lambda: zipped(classes()), ("cat", "dog"), None, ""),
    "zip of Windows": (lambda: zipped(classes(), lambda n: n.replace("/", "\\")), ("cat", "dog"), None, ""),
    "zip with leading slash": (lambda: zipped(classes(), lambda n: "/" + n), ("cat", "dog"), None, ""),
    "zip with leading dot": (lambda: zipped(classes(), lambda n: "./" + n), ("cat", "dog"), None, ""),
    "zip of macOS": (
        lambda: zipped(classes() | {"__MACOSX/cat/._0.png": b"x"}),
        ("cat", "dog"),
        None,
        "the folder '__MACOSX' with 1 files",
    ),
    **{
        place: (functools.partial(tarred, classes(), place), ("cat", "dog"), None, "")
        for place in ("set.tar.gz", "set.tgz", "set.tar.bz2", "set.tar.xz")
    },
    "tar of splits": (lambda: tarred(splits("train", "val", "test"), prefix=""), ("cat", "dog"), THREE, ""),
    "classes whose names begin as those of splits": (
        lambda: write(classes(names=("trains", "valves"))),
        ("trains", "valves"),
        None,
        "",
    ),
    "a rare class": (
        lambda: write(classes() | {"owl/0.png": picture(9)}),
        ("cat", "dog", "owl"),
        None,
        "validation has no example of owl",
    ),
    **{
        f"{images}+{labels}": (
            functools.partial(lambda i, m: write(masks(images=i, labels=m)), images, labels),
            ("0", "1"),
            None,
            "",
        )
        for images, labels in (
            ("images", "labels"),
            ("image", "mask"),
            ("img", "gt"),
            ("Images", "Masks"),
            ("JPEGImages", "SegmentationClass"),
        )
    },
    "masks by suffix": (
        lambda: write(masks(mask="{}_mask.png")),
        ("0", "1"),
        None,
        "6 masks are paired by a part of their names",
    ),
    "masks by prefix": (
        lambda: write(masks(mask="mask_{}.png", image="img_{}.png")),
        ("0", "1"),
        None,
        "6 masks are paired by a part of their names",
    ),
    "masks in the same folder": (lambda: write(masks("", ".", ".", mask="{}_mask.png")), ("0", "1"), None, "paired"),
    "splits below images": (
        lambda: write(
            {
                name.replace("images/", "images/train/").replace("masks/", "masks/train/"): data
                for name, data in masks().items()
            }
            | {
                name.replace("images/", "images/val/").replace("masks/", "masks/val/"): data
                for name, data in masks(count=2).items()
            }
        ),
        ("0", "1"),
        None,
        "",
    ),
    "a third folder": (
        lambda: write(masks() | {"previews/1.png": picture(1)}),
        ("0", "1"),
        None,
        "the folder 'previews' with 1 files",
    ),
    "sidecars of masks": (lambda: write(masks() | {"masks/1.json": b"{}"}), ("0", "1"), None, "1 files (1 .json)"),
    "turned images with masks": (
        lambda: write(
            {f"images/{n}.png": turned(3, image=np.dstack([GRAY + np.uint8(n)] * 3)) for n in range(6)}
            | {name: data for name, data in masks().items() if "masks" in name}
        ),
        ("0", "1"),
        None,
        "6 of 6 files, such as images/0.png: turned upright",
    ),
}


@pytest.mark.parametrize("form", OUTCOMES)
def test_folders_and_archives_as_people_have_them(form, capsys):
    make, names, sizes, note = OUTCOMES[form]
    data = load(make())
    told = capsys.readouterr().err
    assert data.name == "set"
    assert data.classes == names
    if sizes:
        assert {name: len(split) for name, split in data.splits.items()} == sizes
    assert note in told
    assert note or NOTE not in told, "nothing to tell"
    for split in data.splits.values():
        if split.targets.ndim == 1 and names == ("cat", "dog"):
            assert (split.inputs[:, 0, 0, 0] // 60 == split.targets).all()
        elif split.targets.ndim == 3:
            shade = split.inputs[..., 0] - split.inputs[:, :1, :1, 0]
            assert ((shade > 100) == split.targets).all(), "images and masks do not lie upon one another"


FAULTS = {
    "a class alone": (lambda: write(classes(names=("cat",))), "has one class alone, 'cat'"),
    "no classes": (lambda: write({f"{n}.png": picture(n) for n in range(5)}), "set has no class folders"),
    "an empty class": (lambda: write(classes() | {"owl/notes.txt": b"x"}), "class folder 'owl' is empty of images"),
    "a new class": (lambda: write(classes("train/") | classes("test/", ("cats",))), "did you mean cat"),
    "two validations": (lambda: write(classes("train/") | classes("val/") | classes("valid/")), "both mean validation"),
    "a folder beside splits": (lambda: write(classes("train/") | classes("test/") | classes("more/")), "more are not"),
    "no train": (lambda: write(classes("val/") | classes("test/")), "no split to train on, only validation, test"),
    "flat test": (lambda: write(classes("train/") | {"test/1.png": picture(1)}), "test has no class folders"),
    "masks among images": (
        lambda: write(classes() | {f"cat/{n}_mask.png": picture(n) for n in range(8)}),
        "images beside their masks, such as 0_mask",
    ),
    "encrypted": (lambda: encrypted(classes()), "set.zip is encrypted: unpack it with its password"),
    "twice": (lambda: zipped(classes() | {"cat//0.png": picture(1)}), "contains cat/0.png twice"),
    "no tar": (lambda: write({"set.tar.gz": b"nothing"}, ".") and "set.tar.gz", "is not a tar archive or is truncated"),
    "no mask": (
        lambda: write({n: d for n, d in masks().items() if n != "masks/2.png"}),
        "no mask in masks, such as masks/2.png",
    ),
    "transparent mask": (
        lambda: write(masks() | {"masks/2.png": encoded(np.dstack([GRAY, ALPHA | 255]))}),
        "an alpha channel, which masks cannot",
    ),
    "constant masks": (
        lambda: write(masks() | {f"masks/{n}.png": encoded(GRAY * 0) for n in range(6)}),
        "the value 0 alone",
    ),
}


@pytest.mark.parametrize("form", FAULTS)
def test_folders_that_cannot_be_used_are_told_in_one_line(form):
    make, message = FAULTS[form]
    place = make()
    network = "unet_tiny" if "mask" in form and "among" not in form else "mlp_784_30_10"
    with pytest.raises(zoo.ZooError) as caught:
        zoo.train(network, place, epochs=1, recipe=None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_strict_refuses_what_is_left_out():
    write(classes() | JUNK)
    with pytest.raises(zoo.ZooError, match=r"contains what is not read: 5 files \(1 .db"):
        load("set", strict=True)
    with pytest.raises(zoo.ZooError, match="what is not read"):
        zoo.train("mlp_784_30_10", "set", strict=True)


def test_files_keep_their_names_in_every_split():
    data = load(write(classes()))
    for split in data.splits.values():
        for image, name in zip(split.inputs, split.names, strict=True):
            folder, file = name.split("/")
            assert image[0, 0, 0] == 60 * (folder == "dog") + int(file.split(".")[0])


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "mnist", "scenes"])
def test_a_folder_with_the_name_of_a_data_set_is_ambiguous(name, refused):
    write(classes(), name)
    refused(f"train mlp_784_30_10 --data {name}", f"'{name}' is ambiguous: write ./{name} for the one in this folder")


def test_a_path_and_a_name_are_told_apart(monkeypatch):
    write(classes(), "digits")
    assert load("./digits").classes == load(Path("digits")).classes == ("cat", "dog")
    assert load("zoo:digits").classes == tuple("0123456789")
    assert load("zoo:digits").name == "digits"
    write(classes(), "folder/birds")
    write(classes(names=("a", "b")), "birds")
    monkeypatch.setenv("ZOO_DATA_DIR", str(Path("folder").absolute()))
    with pytest.raises(zoo.ZooError, match="'birds' is ambiguous"):
        load("birds")
    assert load("./birds").classes == ("a", "b")
    assert load("zoo:birds").classes == ("cat", "dog")


@pytest.mark.slow
def test_scores_on_a_folder_of_ones_own_do_not_stand_beside_published_ones(unverified):
    write(classes(count=20), "mnist")
    run = zoo.train("mlp_784_30_10", "./mnist", epochs=1)
    path = zoo.export(run, "saved_models/mlp_784_30_10.try")
    assert run.tag == "mnist-own"
    scores = json.loads((path / "assets.extra/manifest.json").read_text())["scores"]
    assert scores["dataset"] == "mnist-own"
    assert scores["reported"] is None


# --- arrays --------------------------------------------------------------------------------------------------------

IMAGES = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None] * 6, (40, 8, 8)).copy()
LABELS = np.arange(40) % 4
ARRAYS = {  # arrays, the classes, and a note
    "Keras": ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}, "0123", ""),
    "MedMNIST": (
        {f"{s}_{k}": a for s in ("train", "val", "test") for k, a in (("images", IMAGES), ("labels", LABELS[:, None]))},
        "0123",
        "",
    ),
    "images and labels": ({"images": IMAGES, "labels": LABELS}, "0123", ""),
    "X and y": ({"X": IMAGES, "y": LABELS}, "0123", ""),
    "X_train": ({"X_train": IMAGES, "Y_train": LABELS}, "0123", ""),
    "train_x": ({"train_x": IMAGES, "train_y": LABELS}, "0123", ""),
    "trainImages": ({"trainImages": IMAGES, "trainLabels": LABELS}, "0123", ""),
    "data and target": ({"data": IMAGES, "target": LABELS}, "0123", ""),
    "without names": ({"arr_0": IMAGES, "arr_1": LABELS}, "0123", "arr_0 is taken for the inputs"),
    "further arrays": ({"x_train": IMAGES, "y_train": LABELS, "ids": LABELS}, "0123", "left out the arrays ids"),
    "1 to 4": ({"x": IMAGES, "y": LABELS + 1}, "1234", "the classes are the values that occur, 1, 2, 3, 4"),
    "gaps": ({"x": IMAGES, "y": LABELS * 3}, ["0", "3", "6", "9"], "the values that occur, 0, 3, 6, 9"),
    "up to 255": (
        {"x": IMAGES, "y": (LABELS * 85).astype(np.uint8)},
        ["0", "85", "170", "255"],
        "the values that occur",
    ),
    "named 1 to 4": (
        {"x": IMAGES, "y": LABELS + 1, "class_names": list("abcd")},
        "abcd",
        "1 is a, 2 is b, 3 is c, 4 is d",
    ),
    "named": ({"x": IMAGES, "y": LABELS, "classes": list("abcd")}, "abcd", ""),
    "column": ({"x": IMAGES, "y": LABELS[:, None]}, "0123", ""),
    "one-hot": ({"x": IMAGES, "y": np.eye(4)[LABELS]}, "0123", ""),
    "named one-hot": ({"x": IMAGES, "y": np.eye(4, dtype=int)[LABELS], "classes": list("abcd")}, "abcd", ""),
    "whole floats": ({"x": IMAGES, "y": LABELS.astype(float)}, "0123", ""),
    "words": ({"x": IMAGES, "y": np.array(list("dcba"))[LABELS]}, "abcd", ""),
    "numbers as words": ({"x": IMAGES, "y": np.array(["10", "9", "2", "1"])[LABELS]}, ["1", "2", "9", "10"], ""),
    "floats from 0 to 1": ({"x": IMAGES / 255, "y": LABELS}, "0123", "multiplied by 255"),
    "floats from 0 to 255": ({"x": IMAGES.astype(np.float32), "y": LABELS}, "0123", ""),
    "integers": ({"x": IMAGES.astype(np.int64), "y": LABELS}, "0123", ""),
    "16 bits": ({"x": IMAGES.astype(np.uint16) * 257, "y": LABELS}, "0123", "read as the upper 8 of 16 bits"),
    "channels first": ({"x": np.stack([IMAGES] * 3, 1), "y": LABELS}, "0123", "have the channels first"),
    "one channel first": ({"x": IMAGES[:, None], "y": LABELS}, "0123", "have the channels first"),
}


@pytest.mark.parametrize("form", ARRAYS)
def test_arrays_as_people_have_them(form, capsys):
    arrays, names, note = ARRAYS[form]
    np.savez("set.npz", **arrays)
    data = load("set.npz")
    told = capsys.readouterr().err
    assert data.classes == tuple(names)
    assert data.shape == (8, 8, 3 if form == "channels first" else 1)
    labels = 3 - LABELS if "words" in form else LABELS
    for split in data.splits.values():
        assert split.inputs.dtype == np.uint8
        assert (split.targets == labels[split.inputs[:, 0, 0, 0] // 6]).all()
    assert note in told
    assert note or NOTE not in told


BAD_ARRAYS = {
    "two of one kind": (
        {"x_train": IMAGES, "train_images": IMAGES},
        "x_train and train_images are both the inputs train",
    ),
    "new class": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
        "test has the labels 4",
    ),
    "several labels": ({"x": IMAGES, "y": np.ones((40, 3), int)}, "are not one-hot"),
    "flat": ({"x": IMAGES.reshape(40, -1), "y": LABELS}, "must be uint8, uint16 or float [N, H, W, C]"),
    "unlabeled -1": ({"x": IMAGES, "y": LABELS - 1}, "must be class ids from 0 on"),
}


@pytest.mark.parametrize("form", BAD_ARRAYS)
def test_arrays_that_cannot_be_used(form):
    arrays, message = BAD_ARRAYS[form]
    np.savez("set.npz", **arrays)
    with pytest.raises(zoo.ZooError) as caught:
        load("set.npz")
    assert message in str(caught.value)


def test_nearly_black_images_are_told(capsys):
    np.savez("set.npz", x=IMAGES // 100, y=LABELS)
    load("set.npz")
    assert "the brightest pixel is 2 of 255" in capsys.readouterr().err


# --- small data ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_short_run_with_a_moving_average_learns():
    """Two steps an epoch: with a constant momentum of 0.999 the average would hardly leave its first weights."""
    run = zoo.train(
        "mlp_784_100_10", "digits", recipe="modern", epochs=30, batch_size=500, out="runs/short", augmentation={}
    )
    assert run.recipe.ema == 0.999
    assert run.metrics["validation"]["accuracy"] > 0.6
    assert not run.record["remarks"]


@pytest.mark.parametrize("power", [2 / 3, 1.0])
def test_the_momentum_of_the_average_is_that_of_timm(power):
    from zoo.training.optimizers import with_rising_average

    optimizer = with_rising_average(keras.optimizers.SGD, power)(learning_rate=1.0, use_ema=True, ema_momentum=0.6)
    variable, average, values = keras.Variable([0.0]), 0.0, []
    optimizer.build([variable])
    for step in range(8):
        optimizer.apply([tf.constant([-1.0])])  # the variable is step + 1
        momentum = min(0.6, 1 - (1 + step) ** -power)
        average = momentum * average + (1 - momentum) * (step + 1)
        values.append((float(optimizer._model_variables_moving_average[0][0]), average))
    np.testing.assert_allclose(*zip(*values, strict=True), rtol=1e-5)
    assert optimizer.get_config()["ema_momentum"] == 0.6


def rows(*scores):
    return [{"epoch": n, "accuracy": train, "val_accuracy": val} for n, (train, val) in enumerate(scores, start=1)]


REMARKS = {
    "chance": (
        rows((0.5, 0.5), (0.55, 0.52)),
        2,
        ["is no better than chance: always predicting the largest class has 0.5"],
    ),
    "overfitting": (rows((0.9, 0.8), (0.99, 0.86)), 2, ["training accuracy 0.9900 is far above validation 0.8600"]),
    "first epoch": (rows((0.9, 0.9), (0.9, 0.8)), 1, ["is that of epoch 1 of 2"]),
    "good": (rows((0.9, 0.9), (0.95, 0.93)), 2, []),
    "one epoch": (rows((0.9, 0.9)), 1, []),
}


@pytest.mark.parametrize("case", REMARKS)
def test_what_a_run_ends_with_is_told(case):
    from zoo import tasks
    from zoo.training import remarks

    history, best, expected = REMARKS[case]
    np.savez("set.npz", x=np.repeat(IMAGES, 5, 0), y=np.arange(200) % 2)
    data = load("set.npz")
    task = tasks.get_task("classification").from_data(zoo.get_spec("mlp_784_30_10"), data)
    few = data.splits["validation"].targets.copy()
    few[::2] = -1  # without a label: they do not count
    few = {**data.splits, "validation": dataclasses.replace(data.splits["validation"], targets=few)}
    data = dataclasses.replace(data, splits=few)
    found = remarks.of_run(task, data, history, best)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))
    assert remarks.class_counts(data) == "set: 140 train, 30 validation, 30 test; classes in train: 0 70, 1 70"


@pytest.mark.slow
def test_a_training_prints_counts_and_remarks(command):
    random = np.random.default_rng(0)
    np.savez("noise.npz", x=random.integers(0, 256, (80, 8, 8), np.uint8), y=np.arange(80) % 2)
    code, out, err = command(
        "train mlp_784_30_10 --data noise.npz --epochs 3 --lr 0.0001 --export saved_models/mlp_784_30_10.noise"
    )
    assert code == 0, err
    assert "noise: 56 train, 12 validation, 12 test; classes in train: 0 28, 1 28" in out
    assert "is no better than chance" in err
    assert "is no better than chance" in json.loads(next(Path("runs").glob("*/run.json")).read_text())["remarks"][0]


def test_numbers_of_numpy_are_numbers():
    np.savez("set.npz", x=IMAGES, y=LABELS)
    run = zoo.train(
        "mlp_784_30_10", "set.npz", epochs=np.int64(1), batch_size=np.int32(8), learning_rate=np.float32(0.5),
        seed=np.int64(3), input_shape=(np.int64(8), np.int64(8), np.int64(1)), arguments={"hidden": np.array([20])},
    )  # fmt: skip
    assert (run.recipe.epochs, run.recipe.batch_size, run.record["seed"]) == (1, 8, 3)
    assert zoo.get_spec("lenet5").recipe().replace(epochs=5.0, batch_size=16.0).epochs == 5
    with pytest.raises(zoo.ZooError, match="epochs"):
        zoo.get_spec("lenet5").recipe().replace(epochs=5.5)


def test_channels_first_is_refused(monkeypatch):
    keras.config.set_image_data_format("channels_first")
    try:
        for call in (lambda: zoo.create_model("lenet5"), lambda: zoo.train("lenet5"), lambda: zoo.load("lenet5.mnist")):
            with pytest.raises(zoo.ZooError, match="Keras is set to channels_first"):
                call()
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("line", ["train lenet5", "predict lenet5.mnist x.png", "evaluate lenet5.mnist --data digits"])
def test_another_backend_is_refused(line, refused, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    refused(line, "zoo runs on Keras' TensorFlow backend, not on torch: unset KERAS_BACKEND")


# --- names of exports ----------------------------------------------------------------------------------------------


def test_an_export_into_the_packages_folder_publishes_nothing(unverified, monkeypatch, capfd):
    """In a checkout the folder of exports is that of the published weights; `mnist` is an alias of `mnist_modern`."""
    package = Path("saved_models").resolve()
    source = zoo.load("mlp_784_30_10.mnist").artifact.path.parent
    shutil.copytree(source, package / source.name)
    index.write_index(package)
    before = (package / "published.json").read_bytes()
    monkeypatch.setattr(index, "package_folder", lambda: package)
    spec, classes = zoo.get_spec("mlp_784_30_10"), tuple("0123456789")
    local = zoo.export(
        zoo.create_model("mlp_784_30_10"), "saved_models/mlp_784_30_10.mnist", spec=spec, classes=classes
    )
    assert (package / "published.json").read_bytes() == before
    capfd.readouterr()
    assert zoo.load("mlp_784_30_10.mnist").artifact.path.parent == package / source.name
    assert "mlp_784_30_10.mnist is published; the one in saved_models is used where" in capfd.readouterr().err
    assert zoo.load(local).artifact.path == local.resolve()
    index.write_index(package)  # as `zoo report --write` does
    assert zoo.load("mlp_784_30_10.mnist").artifact.path == local.resolve()


@pytest.mark.slow
def test_a_published_name_is_not_taken_by_an_export(unverified, command, capfd):
    published = zoo.load("mlp_784_30_10.mnist").artifact.path
    run = zoo.train("mlp_784_30_10", "digits", arguments={"hidden": [50]}, epochs=1)
    assert run.tag == "digits-hidden50"
    local = zoo.export(run, "saved_models/mlp_784_30_10.mnist")
    capfd.readouterr()
    assert zoo.load("mlp_784_30_10.mnist").artifact.path == published
    assert (
        "mlp_784_30_10.mnist is published; the one in saved_models is used where its path is given"
        in capfd.readouterr().err
    )
    assert zoo.load("saved_models/mlp_784_30_10.mnist").artifact.path == local.absolute()
    assert zoo.load("mlp_784_30_10").artifact.path.parent.parent != local.parent.parent
    zoo.export(run, "saved_models/mlp_784_30_10.digits-hidden50")
    assert zoo.load("mlp_784_30_10.digits-hidden50").task.arguments == {"hidden": [50]}
    _, out, _ = command("info mlp_784_30_10")
    assert "hidden [50]" in " ".join(out.split())
    with pytest.raises(zoo.ZooError, match="unknown artifact"):
        zoo.load("mlp_784_30_10.digits")  # a variant is not what the data set's name means


OTHERS = {
    "network": {"arguments": {"hidden": [50]}},
    "input shape": {"input_shape": (9, 9, 1)},
    "data set": {"data": "other"},
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OTHERS)
def test_a_second_export_of_another_kind_is_refused(what, unverified):
    np.savez("other.npz", x=IMAGES, y=LABELS)
    first = zoo.train("mlp_784_30_10", "digits", epochs=1, input_shape=(8, 8, 1), out="runs/1")
    path = zoo.export(first, "saved_models/mlp_784_30_10.mine")
    given = {"data": "digits", "input_shape": (8, 8, 1), **OTHERS[what]}
    given["data"] = given["data"].replace("other", "other.npz")
    second = zoo.train("mlp_784_30_10", epochs=1, out="runs/2", **given)
    with pytest.raises(zoo.ZooError, match=r"contains other weights .*export under another tag"):
        zoo.export(second, "saved_models/mlp_784_30_10.mine")
    assert [child.name for child in path.parent.iterdir()] == ["1"]
    longer = zoo.train("mlp_784_30_10", "digits", epochs=2, input_shape=(8, 8, 1), seed=1, out="runs/3")
    assert zoo.export(longer, "saved_models/mlp_784_30_10.mine").name == "2"


@pytest.mark.slow
def test_data_that_have_grown_make_a_new_version_and_other_classes_do_not(unverified):
    for number, (images, labels) in enumerate([(IMAGES, LABELS), (IMAGES[:-1], LABELS[:-1]), (IMAGES, LABELS % 2)]):
        np.savez("mine.npz", x=images, y=labels)
        run = zoo.train("mlp_784_30_10", "mine.npz", epochs=1, input_shape=(8, 8, 1), out=f"runs/{number}")
        if number < 2:
            assert zoo.export(run, "mlp_784_30_10.mine").name == str(number + 1)
    with pytest.raises(zoo.ZooError, match=r"contains other weights .*classes of the data"):
        zoo.export(run, "mlp_784_30_10.mine")


def test_a_model_is_served_under_the_name_that_was_typed():
    catalog = Catalog(["lenet5.mnist", "mlp_784_30_10.mnist_paper"], Limits())
    assert [*catalog] == ["lenet5.mnist", "mlp_784_30_10.mnist_paper"]


# --- evaluation ----------------------------------------------------------------------------------------------------


def test_all_of_a_folder_without_splits_is_measured(trained, command):
    folder, predictor, path = trained
    code, out, err = command(f"evaluate {path} --data {folder}/colors --json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["split"], found["examples"]) == ("all", 48)
    assert "was trained on colors, on 34 of these examples" in err
    code, out, err = command(f"evaluate {path} --data {folder}/colors --split test --json")
    assert json.loads(out)["examples"] == 7
    assert "no test split of its own" in err
    assert zoo.evaluate(predictor, folder / "colors", split="test") == predictor_scores(folder, "test")


def predictor_scores(folder, split):
    record = json.loads((folder / "runs/colors/run.json").read_text())
    return pytest.approx(record["metrics"][split], abs=1e-6)


def test_a_folder_may_lack_classes_and_have_splits(trained, capsys):
    folder, predictor, _ = trained
    write({f"green/{n}.png": (folder / f"colors/green/{n}.png").read_bytes() for n in range(5)}, "some")
    assert zoo.evaluate(predictor, "some")["accuracy"] == 1.0
    assert "some has no example of blue, which the network knows" in capsys.readouterr().err
    write({f"{part}/green/0.png": (folder / "colors/green/0.png").read_bytes() for part in ("train", "val")}, "parts")
    with pytest.raises(zoo.ZooError, match="has the splits train, validation, and no test: choose one"):
        zoo.evaluate(predictor, "parts")
    write({"gray/0.png": picture(1), "blue/0.png": picture(2)}, "others")
    with pytest.raises(zoo.ZooError, match=r"has the classes .*gray"):
        zoo.evaluate(predictor, "others")


def test_errors_are_counted_and_written(trained, command):
    folder, _, path = trained
    swapped = {f"green/{n}.png": (folder / f"colors/blue/{n}.png").read_bytes() for n in range(3)}
    right = {f"blue/b{n}.png": (folder / f"colors/blue/{n}.png").read_bytes() for n in range(6)}
    write(swapped | right, "mixed")
    code, out, err = command(f"evaluate {path} --data mixed --errors wrong --json")
    assert code == 0, err
    found = json.loads(out)
    assert found["accuracy"] == pytest.approx(6 / 9)
    assert found["classes"] == ["blue", "green"]
    assert found["confusion"] == [[6, 0], [3, 0]]
    assert found["per_class"] == [
        {"class": "blue", "examples": 6, "precision": pytest.approx(6 / 9), "recall": 1.0},
        {"class": "green", "examples": 3, "precision": None, "recall": 0.0},
    ]
    table = Path("wrong/errors.csv").read_text().splitlines()
    assert table[0] == "input,file,true,predicted,probability"
    assert len(table) == 4
    assert {line.split(",")[0] for line in table[1:]} == set(swapped)
    image = np.asarray(Image.open(Path("wrong") / table[1].split(",")[1]))
    assert np.array_equal(image, np.asarray(Image.open(Path("mixed") / table[1].split(",")[0])))
    code, out, _ = command(f"evaluate {path} --data mixed --csv")
    assert out.splitlines()[0] == "class,examples,precision,recall,predicted blue,predicted green"
    assert out.splitlines()[2] == "green,3,,0.0,3,0"
    code, out, _ = command(f"evaluate {path} --data mixed")
    assert out.startswith("all, 9 examples: ")
    assert "calibration error 0." in out
    code, _, err = command(f"evaluate {path} --data mixed --errors wrong")
    assert "wrong exists and is not empty" in err


def test_the_calibration_error_of_known_predictions():
    from zoo.training.classified import Classified

    sure = np.array([[0.9, 0.1]] * 10)
    half_right = Classified(("a", "b"), np.arange(10) % 2, sure)
    assert half_right.calibration_error() == pytest.approx(0.4)
    assert Classified(("a", "b"), np.array([0] * 9 + [1]), sure).calibration_error() == pytest.approx(0.0, abs=1e-6)
    assert half_right.errors().tolist() == [1, 3, 5, 7, 9]
