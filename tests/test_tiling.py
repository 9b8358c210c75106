"""Tiled predictions equal those of the whole scene; files of scenes and masks; the command `zoo segment`."""

import errno
import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zoo
from zoo import layers, tasks
from zoo import preprocessing as pre
from zoo.data import rasters
from zoo.tiling import segmenting, tiles
from zoo.training.runs import Run

RNG = np.random.default_rng(0)
SMALL = {"width": 2, "depth": 2, "dropout": 0.0}
RADIUS, STRIDE = 23, 4  # of the networks of two levels
LEAST = 2 * RADIUS + 2 * STRIDE
PLACE = rasterio.transform.from_origin(500_000, 5_800_000, 0.5, 0.5)


def predictor_of(name="unet_tiny", *, channels=1, classes=("0", "255"), model=None, arguments=None, **options):
    """A predictor with random weights and offsets, so that every pixel counts and each class occurs."""
    spec, arguments = zoo.get_spec(name), arguments or {}
    task = tasks.get_task(spec.task)(spec, (None, None, channels), tuple(classes), arguments=arguments, **options)
    keras.utils.set_random_seed(1)
    model = model or task.build()
    for variable in model.weights:
        if variable.path.endswith(("bias", "beta", "moving_mean")):
            variable.assign(RNG.normal(0, 0.3, variable.shape))
    noise = task.golden_images(1)
    offsets = model.weights[-1]
    offsets.assign(offsets - np.mean(model(pre.apply(noise, task.preprocessing, channels)), axis=(0, 1, 2)))
    return zoo.load(Run(Path(), task, model, task.with_options(spec.recipe()), {}))


def overlapping():
    """A network with masks of three overlapping classes, for 5 bands of more than 8 bits."""
    preprocessing = zoo.Preprocessing(mean=(500.0,) * 5, std=(300.0,) * 5, dtype="float32")
    classes, arguments = ("road", "tree", "water"), {"width": 4, "depth": 2}
    return predictor_of("unet_satellite", channels=5, classes=classes, arguments=arguments, preprocessing=preprocessing)


@pytest.fixture(scope="module")
def predictor():
    return predictor_of()


def image_of(height, width, channels=1):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def whole(predictor, image):
    return predictor(image[None])["probabilities"][0]


# spans


@st.composite
def cuts(draw):
    radius, stride = draw(st.integers(0, 40)), draw(st.sampled_from([1, 2, 3, 4, 6, 16]))
    tile = 2 * radius + 2 * stride + draw(st.integers(0, 60))
    overlap = draw(st.integers(2 * radius, tile - 2 * stride))
    return draw(st.integers(1, 600)), tile, overlap, radius, stride


@given(cuts())
def test_spans(cut):
    length, tile, overlap, radius, stride = cut
    spans = tiles.spans(*cut)
    total, owners = np.zeros(length), np.zeros(length, int)
    for span in spans:
        begin, end = span.pixels.start, span.pixels.stop
        assert 0 <= begin < end <= length
        assert end - begin == len(span.weights) <= tile
        assert begin % stride == 0
        assert (length - end) % stride == 0
        assert begin <= span.own.start <= span.own.stop <= end
        sound = slice(0 if begin == 0 else begin + radius, length if end == length else end - radius)
        assert sound.start <= span.own.start
        assert span.own.stop <= sound.stop
        weights = np.zeros(length)
        weights[span.pixels] = span.weights
        assert (weights >= 0).all()
        assert weights[: sound.start].sum() + weights[sound.stop :].sum() == 0
        total += weights
        owners[span.own] += 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (owners == 1).all()
    for span, after in itertools.pairwise(spans):
        assert span.pixels.stop - after.pixels.start >= overlap
    # the last starts at the first multiple of the stride from which a tile reaches the end
    assert spans[-1].pixels.start == -(-max(length - tile, 0) // stride) * stride


def test_weights_rise_smoothly():
    middle = tiles.spans(2000, 400, 200, 50, 4)[3]
    ramp = 400 - 200 - 2 * 50
    assert np.abs(np.diff(middle.weights)).max() < 1.1 * np.pi / 2 / ramp
    assert middle.weights.max() == 1


# equality


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 150), width=st.integers(1, 150), tile=st.integers(LEAST, 110), more=st.integers(-1, 30),
    tta=st.sampled_from([None, None, "dihedral"]),
)  # fmt: skip
def test_tiles_equal_the_whole(predictor, height, width, tile, more, tta):
    image = image_of(height, width)
    overlap = None if more < 0 else min(2 * RADIUS + more, tile - 2 * STRIDE)
    tiled = zoo.predict_tiled(predictor, image, tile=tile, overlap=overlap, tta=tta)
    assert tiled.dtype == np.float32
    expected = mean_of_eight(predictor, image) if tta else whole(predictor, image)
    np.testing.assert_allclose(tiled, expected, atol=1e-5)


def mean_of_eight(predictor, image):
    turned = [np.rot90(image, k) for k in range(4)]
    back = [np.rot90(whole(predictor, image), -k) for k, image in enumerate(turned)]
    mirrored = [whole(predictor, image[:, ::-1])[:, ::-1] for image in turned]
    return np.mean(back + [np.rot90(image, -k) for k, image in enumerate(mirrored)], axis=0)


def strided():
    """A network whose windows have other positions in images of odd size."""
    x = inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2DTranspose(2, 6, strides=4, padding="same")(x)
    return keras.Model(inputs, layers.CropLike()([x, inputs]))


def of_unet(**arguments):
    return zoo.get_spec("unet").build(**{**SMALL, **arguments})


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    "build",
    [of_unet, lambda: of_unet(padded=True, normalization=True), lambda: of_unet(depth=1, skip="add"), strided],
)
@pytest.mark.parametrize("tta", [None, "dihedral"])
def test_tiles_of_other_networks_equal_the_whole(build, tta):
    predictor = predictor_of("unet", model=build(), arguments=SMALL)
    for size in ((130, 61), (59, 177), (8, 131)):
        image = image_of(*size)
        tiled = zoo.predict_tiled(predictor, image, tile=64, tta=tta)
        expected = mean_of_eight(predictor, image) if tta else whole(predictor, image)
        np.testing.assert_allclose(tiled, expected, atol=1e-5)


def test_no_seam_where_tiles_meet(predictor):
    """In a uniform image only the edges of the whole differ."""
    tiled = zoo.predict_tiled(predictor, np.full((300, 300), 128, np.uint8), tile=80)
    inner = tiled[RADIUS + 1 : -RADIUS - 1, RADIUS + 1 : -RADIUS - 1]
    steps = [np.abs(inner[STRIDE:] - inner[:-STRIDE]).max(), np.abs(inner[:, STRIDE:] - inner[:, :-STRIDE]).max()]
    assert max(steps) < 1e-5


def test_nothing_is_traced_again(predictor):
    function = predictor.signatures["serving_default"]
    before = function.experimental_get_tracing_count()
    zoo.predict_tiled(predictor, image_of(150, 99), tile=64, tta="dihedral")
    zoo.predict_tiled(predictor, image_of(50, 149), tile=71)
    assert before <= function.experimental_get_tracing_count() <= 1


# scenes


def write_tiff(path, image, **options):
    about = {"height": image.shape[0], "width": image.shape[1], "count": image.shape[2], "dtype": image.dtype}
    place = {"crs": "EPSG:32633", "transform": PLACE}
    with rasterio.open(path, "w", driver="GTiff", **about, **place, **options) as file:
        file.write(np.moveaxis(image, -1, 0))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("suffix", ["npy", "tif", "TIF", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_predict_as_arrays(predictor, suffix, channels):
    image = image_of(90, 120, channels)
    path = Path(f"scene.{suffix}")
    if suffix == "npy":
        np.save(path, image[..., 0] if channels == 1 else np.asfortranarray(image))
    elif suffix == "png":
        Image.fromarray(image.squeeze()).save(path)
    else:
        write_tiff(path, image, tiled=True, blockxsize=16, blockysize=32, compress="deflate")
    scene = rasters.open_scene(path)
    assert scene.shape == image.shape
    np.testing.assert_array_equal(scene.read(slice(3, 50), slice(40, 118)), image[3:50, 40:118])
    np.testing.assert_array_equal(
        zoo.predict_tiled(predictor, path, tile=64), zoo.predict_tiled(predictor, image, tile=64)
    )


@pytest.mark.slow_but_one
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "float32", "float64"])
def test_networks_of_more_than_8_bits_take_all_number_types(dtype):
    image = RNG.integers(0, 200, (70, 80, 5)).astype(dtype)
    predictor = overlapping()
    tiled = zoo.predict_tiled(predictor, image, tile=64)
    np.testing.assert_allclose(tiled, whole(predictor, image.astype(np.float32)), atol=1e-5)


def test_out_is_mapped_and_equal(predictor):
    image = image_of(200, 170)
    mapped = zoo.predict_tiled(predictor, image, tile=64, out="out.npy")
    assert isinstance(mapped, np.memmap)
    assert mapped.mode == "r"
    np.testing.assert_array_equal(mapped, zoo.predict_tiled(predictor, image, tile=64))
    np.testing.assert_array_equal(mapped, np.load("out.npy"))
    assert os.listdir() == ["out.npy"]  # noqa: PTH208


@pytest.mark.parametrize("problem", [KeyboardInterrupt, MemoryError, "NaN", "disk"])
def test_a_failure_leaves_the_old_file_unchanged(problem, monkeypatch):
    network, image = overlapping(), np.ones((150, 150, 5), np.float32)
    Path("out.npy").write_text("old")
    kind, message = problem, None
    if problem == "NaN":
        image[140, 140, 0] = np.nan
        kind, message = zoo.ZooError, "has NaN or infinite values"
    elif problem == "disk":

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
        kind, message = zoo.ZooError, "cannot write out.npy: No space left on device"
    else:
        calls = []

        def failing(self, inputs):
            calls.append(1)
            if len(calls) == 3:
                raise problem
            return {"probabilities": np.zeros((*inputs.shape[:3], 3), np.float32)}

        monkeypatch.setattr(zoo.Predictor, "__call__", failing)
    with pytest.raises(kind, match=message):
        zoo.predict_tiled(network, image, tile=64, out="out.npy")
    assert os.listdir() == ["out.npy"]  # noqa: PTH208
    assert Path("out.npy").read_text() == "old"


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["shown.png", "mask.png", "mask.tif", "mask.npy"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_full_disk(predictor, name, share, monkeypatch):
    """Wherever in a file the disk is full, nothing is left, and the error names the file."""
    np.save("scene.npy", image_of(300, 600))
    monkeypatch.setattr(segmenting, "OVERLAY_SIDE", 600 if name == "shown.png" else 10)
    mask = "mask.tif" if name == "shown.png" else name

    def segment():
        return zoo.segment(predictor, "scene.npy", mask, overlay="shown.png")

    segment()
    size, limits = Path(name).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    if name != "shown.png":
        assert size > 10 * Path("shown.png").stat().st_size
    for path in (mask, "shown.png"):
        Path(path).unlink()
    room = max(int(share * size), 500)  # EFBIG beyond it, as ENOSPC on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(zoo.ZooError, match=f"cannot write {name}: "):
            segment()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir() == ["scene.npy"]  # noqa: PTH208


MEMORY = """
import sys, numpy as np, zoo
sys.path.insert(0, sys.argv[1])
from test_tiling import predictor_of, write_big_tiff
from zoo.data import rasters
from zoo.tiling import segmenting
predictor = predictor_of()
rasters.GDAL_CACHE = 2**20
segmenting.OVERLAY_SIDE = 100

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

for side in (500, 500, 2000):  # twice, because the first one also fills the allocator's pools
    array = np.lib.format.open_memmap("scene.npy", "w+", np.uint8, (side, side))
    array[::7] = 200
    del array
    write_big_tiff("scene.tif", side)
    zoo.predict_tiled(predictor, "scene.npy", tile=256, out="out.npy")
    zoo.segment(predictor, "scene.tif", "mask.tif", tile=256)
    zoo.segment(predictor, "scene.npy", "mask.npy", tile=256)
    print(peak())
"""


def write_big_tiff(path, side):
    about = {"height": side, "width": side, "count": 1, "dtype": "uint8", "crs": "EPSG:32633", "transform": PLACE}
    with rasterio.open(path, "w", driver="GTiff", **about) as file:
        for row in range(0, side, 100):
            file.write(RNG.integers(0, 256, (1, 100, side), dtype=np.uint8), window=((row, row + 100), (0, side)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory, which needs Linux")
def test_memory_is_that_of_a_tile():
    """16 times the pixels: the probabilities alone take 30 MB more."""
    command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, small, large = map(float, done.stdout.split())
    assert large - small < 15


# masks


def decided(predictor, image):
    return predictor.task.decide(whole(predictor, image)).numpy()


def read_mask(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1).squeeze()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_masks_contain_the_label_values(predictor, suffix):
    image = image_of(150, 170)
    np.save("scene.npy", image)
    done = zoo.segment(predictor, "scene.npy", f"mask{suffix}", tile=64)
    mask = read_mask(done.mask)
    assert mask.dtype == np.uint8
    expected = np.array([0, 255])[decided(predictor, image)]
    assert np.mean(mask != expected) < 1e-3  # where both classes are equally probable
    assert done.shares == pytest.approx({"0": np.mean(mask == 0), "255": np.mean(mask == 255)})
    assert min(done.shares.values()) > 0
    assert done.overlay == Path("mask_overlay.png")
    assert Image.open(done.overlay).size == (170, 150)
    assert sorted(os.listdir()) == sorted(["scene.npy", f"mask{suffix}", "mask_overlay.png"])  # noqa: PTH208


@pytest.mark.parametrize(
    ("classes", "dtype", "values"),
    [
        (("0", "255"), "uint8", [0, 255]),
        (("7", "1000"), "uint16", [7, 1000]),
        (("cell", "1"), "uint8", [0, 1]),
        (("-1", "1"), "uint8", [0, 1]),
        (("0", "65536"), "uint8", [0, 1]),
        (tuple(f"class{number}" for number in range(300)), "uint16", list(range(300))),
    ],
)
def test_label_values(classes, dtype, values):
    found = segmenting.label_values(classes)
    assert found.dtype == dtype
    assert found.tolist() == values


def test_masks_of_16_bits_and_coordinates():
    predictor = predictor_of(classes=("3", "700"))
    image = image_of(99, 120)
    write_tiff("scene.tif", image)
    for name in ("mask.png", "mask.tif"):
        mask = read_mask(zoo.segment(predictor, "scene.tif", name, tile=64).mask)
        assert mask.dtype == np.uint16
        assert set(np.unique(mask)) == {3, 700}
    with rasterio.open("mask.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == PLACE


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_overlapping_classes_get_a_band_each(suffix):
    predictor = overlapping()
    image = RNG.integers(0, 1000, (90, 130, 5), dtype=np.uint16)
    write_tiff("scene.tif", image)
    done = zoo.segment(predictor, "scene.tif", f"mask{suffix}", tile=64)
    mask = read_mask(done.mask)
    assert mask.shape == (90, 130, 3)
    assert np.mean(mask != decided(predictor, image.astype(np.float32))) < 1e-3
    assert done.shares == pytest.approx(dict(zip(predictor.task.classes, mask.mean((0, 1)), strict=True)))
    with pytest.raises(zoo.ZooError, match=r"cannot write mask.png: its name must end with .tif or .tiff or .npy"):
        zoo.segment(predictor, "scene.tif", "mask.png")


@pytest.mark.parametrize("side", [40, 150, 2000])
def test_overlays(predictor, side, monkeypatch):
    """Each class in its color, on an image of every n-th pixel."""
    monkeypatch.setattr(segmenting, "OVERLAY_SIDE", side)
    image = image_of(150, 131, 3)
    Image.fromarray(image).save("scene.png")
    done = zoo.segment(predictor, "scene.png", "mask.png", tile=64, overlay="shown.png")
    factor = -(-150 // side)
    shown, mask = np.asarray(Image.open(done.overlay)), read_mask(done.mask)[::factor, ::factor]
    assert shown.shape == (*mask.shape, 3)
    for number, value in enumerate((0, 255)):
        color = segmenting.class_color(number)
        expected = 0.6 * image[::factor, ::factor][mask == value] + 0.4 * color
        np.testing.assert_allclose(shown[mask == value], expected, atol=0.51)


def test_overlays_of_many_bands_are_stretched():
    image = RNG.normal(5000, 10, (60, 60, 5)).astype(np.float32)
    np.save("scene.npy", image)
    shown = np.asarray(Image.open(zoo.segment(overlapping(), "scene.npy", "mask.npy").overlay))
    assert np.ptp(shown, axis=(0, 1)).min() > 150


# errors


@pytest.fixture(scope="module")
def made(making):
    """A folder with exported networks, scenes, and broken files."""
    with making as folder:
        for name in ("unet_tiny", "mlp_784_10"):
            spec = zoo.get_spec(name)
            names = tuple(map(str, range(spec.classes)))
            zoo.export(spec.build(), f"saved_models/{name}.ex", spec=spec, classes=names)
        spec = zoo.get_spec("unet_tiny")
        fixed = {"spec": spec, "classes": ("a", "b"), "input_shape": (64, 64, 1)}
        zoo.export(spec.build((64, 64, 1)), "saved_models/unet_tiny.fixed", **fixed)
        image = image_of(70, 90)
        np.save("scene.npy", image)
        np.save("floats.npy", image.astype(np.float32))
        np.save("bands.npy", image.repeat(4, -1))
        np.save("flat.npy", image.ravel())
        np.save("none.npy", image[:0])
        np.save("objects.npy", np.array([[None]]), allow_pickle=True)
        write_tiff("scene.tif", image)
        write_tiff("deflated.tif", image, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
        for name in ("scene.png", "scene.jpg"):
            Image.fromarray(image[..., 0]).save(name)
        for name in ("scene.npy", "scene.tif", "deflated.tif", "scene.png", "scene.jpg"):
            content = Path(name).read_bytes()
            for share in (5, 60, 95):
                Path(f"cut{share}.{name}").write_bytes(content[: len(content) * share // 100])
        for suffix in ("npy", "tif", "png"):
            Path(f"text.{suffix}").write_text("not an image")
        Path("scene.txt").write_text("not an image")
        Path("file").write_text("a file")
        Path("folder.png").mkdir()
    return folder


CUT = [
    f"cut{share}.{name}"
    for share in (5, 60, 95)
    for name in ("scene.npy", "scene.tif", "deflated.tif", "scene.png", "scene.jpg")
]
WRONG = {
    **{f"{name} -o mask.npy": "truncated" for name in CUT},
    **{f"text.{suffix} -o mask.npy": "is not a " for suffix in ("npy", "tif", "png")},
    "nowhere.png -o mask.png": "no file nowhere.png",
    "folder.png -o mask.png": "no file folder.png",
    "scene.txt -o mask.png": "scene.txt is not a usable image (unreadable or truncated): give one of npy, GeoTIFF, PNG",
    "flat.npy -o mask.png": "must be an image [H, W, C] or [H, W], not an array of shape (6300,)",
    "none.npy -o mask.png": "none.npy",
    "objects.npy -o mask.png": "objects.npy is not a readable .npy file",
    "floats.npy -o mask.png": "floats.npy has float32 values, the network takes uint8",
    "bands.npy -o mask.png": "images have 4 channels, the network takes 1",
    "scene.png -o mask.bmp": "cannot write mask.bmp: its name must end with .png or .tif or .tiff or .npy",
    "scene.png -o mask": "cannot write mask: its name must end with",
    "scene.png -o nowhere/mask.png": "cannot write nowhere/mask.png: no folder nowhere",
    "scene.png -o file/mask.png": "cannot write file/mask.png: no folder file",
    "scene.png -o folder.png": "cannot write folder.png: it is a folder",
    "scene.png -o scene.png": "cannot write scene.png: it is the image itself",
    "scene.png -o mask.png --overlay ./scene.png": "cannot write scene.png: it is the image itself",
    "scene.png -o mask.png --overlay mask.tif": "its name must end with .png or .jpg or .jpeg",
    "scene.png -o mask.png --overlay mask.png": "cannot both be mask.png",
    "scene.png -o mask.png --tile 53": "tile 53 is too small, the network's receptive field has a radius of 23 pixels "
    "and a stride of 4: choose at least 54",
    "scene.png -o mask.png --tile 0": "choose at least 54",
    "scene.png -o mask.png --tile 100 --overlap 45": "overlap 45 does not fit tile 100",
    "scene.png -o mask.png --tile 100 --overlap 93": "choose 46 to 92",
    "scene.png -o mask.png --overlap -1": "choose 46 to 1016",
    "scene.png -o mask.png --tta flips": "unknown tta 'flips': known: dihedral",
    "scene.png -o mask.png --tta diheral": "did you mean dihedral",
    "scene.png -o mask.png --model unet_tiny.exx": "unknown artifact 'unet_tiny.exx': did you mean unet_tiny.ex",
    "scene.png -o mask.png --model mlp_784_10.ex": "mlp_784_10 is for classification: only networks for segmentation",
    "scene.png -o mask.png --model unet_tiny.fixed": "takes images of 64 x 64 only",
}


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=pytest.mark.slow if line.startswith(("cut5.", "cut95.")) else ()) for line in WRONG],
)
def test_one_line_and_nothing_written(line, made, monkeypatch, refused):
    monkeypatch.chdir(made)
    refused(f"segment {line} {'' if '--model' in line else '--model unet_tiny.ex'}", WRONG[line])


@pytest.mark.slow
def test_a_tiff_that_is_damaged_inside_leaves_nothing(predictor):
    """Blocks that are complete but cannot be decoded raise only when they are read."""
    write_tiff("scene.tif", image_of(300, 300), compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    content = bytearray(Path("scene.tif").read_bytes())
    content[-20_000:-10_000] = bytes(10_000)
    Path("scene.tif").write_bytes(content)
    with pytest.raises(zoo.ZooError, match=r"scene.tif cannot be read"):
        zoo.segment(predictor, "scene.tif", "mask.tif", tile=64)
    assert os.listdir() == ["scene.tif"]  # noqa: PTH208


def test_without_rasterio(predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    Path("scene.tif").touch()
    np.save("scene.npy", image_of(60, 60))
    for image, mask in (("scene.tif", "mask.npy"), ("scene.npy", "mask.tif")):
        with pytest.raises(zoo.ZooError, match=r"pip install 'zoo\[geotiff\]'"):
            zoo.segment(predictor, image, mask)
    assert sorted(os.listdir()) == ["scene.npy", "scene.tif"]  # noqa: PTH208


def test_the_command(made, monkeypatch, tmp_path, command):
    monkeypatch.chdir(made)
    line = f"segment scene.tif -o {tmp_path}/mask.tif --model unet_tiny.ex --tile 64 --overlap 50 --tta dihedral"
    code, out, err = command(f"{line} --overlay {tmp_path}/shown.jpg")
    assert code == 0, err
    *shares, files = out.splitlines()
    assert sum(float(share.split()[1]) for share in shares) == pytest.approx(1, abs=1e-3)
    assert files == f"mask: {tmp_path}/mask.tif; overlay: {tmp_path}/shown.jpg"
    with rasterio.open(tmp_path / "mask.tif") as file:
        assert file.crs.to_epsg() == 32633
    assert Image.open(tmp_path / "shown.jpg").size == (90, 70)
