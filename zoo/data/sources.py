"""Data sets of every form as arrays in memory: named sets, picture folders, archives, tables and texts."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from etils import epy

from zoo.data import lookup
from zoo.data.dataset import IGNORED, SPLITS, Dataset, Parts, Split, complete
from zoo.data.decoding import PROGRESS_FROM, Size, resized, stack
from zoo.data.pictures import read_pictures
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow_datasets as tfds
    import tqdm
    from sklearn import datasets as sklearn_datasets

    from zoo.data import scenes


def load(
    name: str | os.PathLike | Dataset,
    *,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    ignored_class: str | None = None,
) -> Dataset:
    """A data set by its name or path; one that is loaded already is returned as it is.

    - `digits`: scikit-learn's 1,797 digits of 8 x 8, at hand without a download.
    - `mnist`: from ZOO_DATA_DIR, Keras' folder or the network; validation is the last 10,000 of train.
    - `scenes`: made-up satellite scenes, see `zoo.data.scenes`.
    - `tfds:NAME`: an image classification set of tensorflow-datasets.
    - a folder or `.zip`, perhaps with a folder for each of `train`, `validation` (`val`) and `test`, of either
        - picture files of 8 bits in one folder a class, or
        - images and their masks, see below.
    - `.npz`: `x_train`, `y_train` and, if given, `x_validation` (`x_val`) and `x_test` with their `y`, `classes`.
      Images [N, H, W] or [N, H, W, C], or texts [N]. Class ids [N]; masks [N, H, W] of class ids up to 254; or masks
      of K > 1 overlapping classes [N, H, W, K] of 0 and 1. In uint8 masks 255 is `IGNORED`.
    - `.tsv`: a header `label<TAB>text` and a line an example.
    - `.txt`: one text, its first 90 % for training, 5 % for validation, 5 % for test.
    - anything else is NAME, NAME.npz, NAME.zip, NAME.tsv or NAME.txt in ZOO_DATA_DIR.

    A split that the data set does not bring is 15 % of train, stratified by class where there are enough of each; for
    masks it is not stratified.

    **Images and masks** lie in two folders, `images` and `labels` (or `masks`), and an image and its mask have the same
    name but for the suffix. Images are PNG, JPEG, BMP or GIF pictures, TIFF files of any number of bands
    (`pip install 'zoo[geotiff]'`) or `.npy` arrays [H, W] or [H, W, C]. All are given as uint8 where all are, as uint16
    where all are of unsigned 8 or 16 bits, else as float32. Their masks are of

    - exclusive classes: one band of whole numbers, the label values. The values that occur, in order, are the classes
      0, 1, ..., at most 255 of them, and are their names: masks of 0 and 255 have the classes `0` and `255`. A picture
      with a palette counts by its indices (a GIF by its grey values), a colour picture with three equal bands as grey.
      Where validation or test are given, their values must occur in train.
    - overlapping classes: TIFF or `.npy` masks of several bands, one a class, 0 where a pixel is not of it. Their
      names are the TIFF's band descriptions if all bands have one, else `1`, `2`, ...
    - overlapping classes: in `labels` a folder a class, which gives it its name, with a mask of one band for each
      image, 0 where a pixel is not of it.

    Images of several sizes are padded at the bottom and on the right to the largest height and width: with zeros, and
    their masks with `IGNORED`, 255.

    Args:
        image_size: height and width in pixels to which picture files and TFDS' pictures of other sizes are brought
            (bilinear, antialiased; the nearest pixel for masks); `.npz` arrays stay as they are.
        seed: of the splits taken from train.
        ignored_class: name of one of exclusive classes of masks. Its pixels are `IGNORED`, and it is no class any more.

    Raises:
        ZooError: for an unknown name or class, and for data that cannot be read or used, with the files at fault.
    """
    if isinstance(name, Dataset):
        return name if ignored_class in (None, name.ignored_class) else name.without_class(ignored_class)
    name = os.fspath(name)
    if name in NAMED:
        splits, classes = NAMED[name]()
    elif name.startswith("tfds:"):
        splits, classes = _tfds(name, image_size)
        name = name.replace(":", "-").replace("/", "-")  # runs and artifacts are named after it
    else:
        path = lookup.find(name, tuple(NAMED), tuple(FORMS))
        form = read_pictures if path.is_dir() else FORMS.get(path.suffix.lower())
        if form is None:
            raise ZooError(f"{path} is of no known form: give a folder or a {', '.join(FORMS)} file")
        name = path.resolve().name if path.is_dir() else path.stem
        try:
            splits, classes = form(path, image_size)
        except OSError as error:
            raise ZooError(f"{path} cannot be read: {error}") from error
    dataset = Dataset(name, complete(splits, seed), classes)
    return dataset if ignored_class is None else dataset.without_class(ignored_class)


def _digits() -> Parts:
    digits = sklearn_datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    whole = Split(images, digits.target.astype(np.int64))
    return complete({"train": whole}, seed=0), tuple("0123456789")  # the same for every seed: figures compare


def _mnist() -> Parts:
    arrays = lookup.mnist_arrays()
    train, test = (Split(arrays[f"x_{s}"][..., None], arrays[f"y_{s}"].astype(np.int64)) for s in ("train", "test"))
    splits = {"train": train.head(50_000), "validation": train.take(slice(50_000, None)), "test": test}
    return splits, tuple("0123456789")


def _tfds(name: str, image_size: Size) -> Parts:
    builder = lookup.tfds_builder(name.removeprefix("tfds:"))
    features = builder.info.features
    # `supervised_keys` first: a set may have other pictures and labels besides
    keys = [key for key in (*(builder.info.supervised_keys or ()), *features) if isinstance(key, str)]
    image = next((key for key in keys if isinstance(features[key], tfds.features.Image)), None)
    label = next((key for key in keys if isinstance(features[key], tfds.features.ClassLabel)), None)
    if image is None or label is None or "train" not in builder.info.splits:
        raise ZooError(f"{name} has no train split of images with a class label: choose an image classification set")
    splits = {}
    for split in SPLITS:
        total = builder.info.splits[split].num_examples if split in builder.info.splits else 0
        if total:
            examples = tfds.as_numpy(builder.as_dataset(split=split))
            bar = tqdm.tqdm(examples, f"{name} {split}", total, unit=" images", disable=total <= PROGRESS_FROM)
            pairs = [(resized(example[image], image_size), example[label]) for example in bar]
            pictures, labels = zip(*pairs, strict=True)
            splits[split] = Split(stack(pictures, name), np.array(labels, np.int64))
    return splits, tuple(features[label].names)


def _npz(path: Path, image_size: Size) -> Parts:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {
                key.replace("_val", "_validation") if key.endswith("_val") else key: archive[key] for key in archive
            }
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ZooError(
            f"{path} cannot be read as plain arrays ({error}): write it by numpy.savez, no objects"
        ) from error
    if "x_train" not in arrays:
        raise ZooError(
            f"{path} has no x_train, only {', '.join(arrays) or 'nothing'}: name the arrays x_train, y_train"
        )
    splits = {
        name: _array_split(arrays[f"x_{name}"], arrays.get(f"y_{name}"), f"{path}: x_{name}, y_{name}")
        for name in SPLITS
        if f"x_{name}" in arrays
    }
    train = splits["train"]
    for name, split in splits.items():
        if _shapes(split) != _shapes(train):
            raise ZooError(f"{path}: x_{name}, y_{name} are of another kind or size than x_train, y_train")
    if train.targets is None:
        return splits, ()
    ignored = _ignored(train.targets)
    if ignored.any() and not train.targets.any(where=~ignored):
        raise ZooError(f"{path}: masks hold 0 and {IGNORED} alone, which stands for ignored pixels: give 0 and 1")
    overlapping = train.targets.ndim == 4
    count = train.targets.shape[3] if overlapping else max(_class_count(split.targets) for split in splits.values())
    classes = tuple(map(str, np.ravel(arrays.get("classes", np.arange(count) + overlapping))))
    if len(classes) < count or (overlapping and len(classes) > count):
        raise ZooError(f"{path} names {len(classes)} classes and has targets of {count}: name each of them")
    return splits, classes


def _shapes(split: Split) -> tuple:
    """Of one example."""
    return split.inputs.shape[1:], None if split.targets is None else split.targets.shape[1:]


def _class_count(targets: np.ndarray) -> int:
    """Class ids from 0 to the highest."""
    return 1 + int(targets.max(initial=0, where=~_ignored(targets)))


def _ignored(targets: np.ndarray) -> np.ndarray:
    """Pixels that are to be ignored."""
    return (targets == IGNORED) & (targets.dtype == np.uint8)


def _array_split(x: np.ndarray, y: np.ndarray | None, what: str) -> Split:
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ZooError(f"{what}: inputs hold NaN or infinite values: replace them")
    if x.ndim == 3:
        x = x[..., None]
    if not (x.ndim == 4 and x.dtype in (np.uint8, np.uint16, np.float32)) and not (x.ndim == 1 and x.dtype.kind == "U"):
        raise ZooError(f"{what}: inputs {x.dtype} {x.shape} must be uint8, uint16 or float [N, H, W, C], or texts [N]")
    if y is None:
        return Split(x)
    if y.ndim in (2, 4) and y.shape[-1] == 1:  # [N, 1], as Keras keeps CIFAR-10
        y = y[..., 0]
    if x.shape[:1] != y.shape[:1]:
        raise ZooError(f"{what}: inputs {x.shape} and targets {y.shape} differ in number: give one target an input")
    whole = y.dtype.kind in "iub" and y.min(initial=0) >= 0
    if not whole or not (y.ndim == 1 or (y.ndim in (3, 4) and y.shape[:3] == x.shape[:3])):
        raise ZooError(
            f"{what}: targets {y.dtype} {y.shape} must be class ids from 0 on, [N] or [N, H, W], or masks [N, H, W, K]"
        )
    if y.ndim == 1:
        return Split(x, y.astype(np.int64))
    highest = y.max(initial=0, where=~_ignored(y))
    if highest > (IGNORED - 1 if y.ndim == 3 else 1):
        allowed = f"class ids up to {IGNORED - 1}" if y.ndim == 3 else "0 and 1, as each of their classes may overlap"
        raise ZooError(f"{what}: masks hold {highest}: give {allowed}, and {IGNORED} as uint8 for pixels to ignore")
    return Split(x, y.astype(np.uint8))


def _tsv(path: Path, image_size: Size) -> Parts:
    header, *lines = _read_text(path).removesuffix("\n").split("\n")
    if header != "label\ttext":
        raise ZooError(f"{path}: line 1 must be the header 'label<TAB>text', not {header[:50]!r}")
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=2):
        if len(row) != 2:
            raise ZooError(f"{path}: line {number} has {len(row)} columns: give two, label<TAB>text")
    if not rows:
        raise ZooError(f"{path} has no line after its header: give one for each text")
    labels, texts = zip(*rows, strict=True)
    classes, targets = np.unique(labels, return_inverse=True)
    return {"train": Split(np.array(texts, object), targets.astype(np.int64))}, tuple(map(str, classes))


def _txt(path: Path, image_size: Size) -> Parts:
    text = _read_text(path)
    first, second = int(0.9 * len(text)), int(0.95 * len(text))
    parts = text[:first], text[first:second], text[second:]
    if not all(parts):
        raise ZooError(f"{path} holds {len(text)} characters: too few for a training, a validation and a test text")
    return {name: Split(np.array([part], object)) for name, part in zip(SPLITS, parts, strict=True)}, ()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


NAMED: dict[str, Callable[[], Parts]] = {"digits": _digits, "mnist": _mnist, "scenes": lambda: scenes.data()}
FORMS: dict[str, Callable[[Path, Size], Parts]] = {".npz": _npz, ".zip": read_pictures, ".tsv": _tsv, ".txt": _txt}
