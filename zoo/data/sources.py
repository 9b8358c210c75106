"""Data sets by name or path, or as Python objects, as arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from etils import epy

from zoo.data import lookup, scenes, texts
from zoo.data.arrays import read_npz
from zoo.data.dataset import SPLITS, Dataset, Parts, Split, complete
from zoo.data.decoding import PROGRESS_FROM, Size, resized, stack
from zoo.data.given import GIVEN, read_given
from zoo.data.images import read_images
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf
    import tensorflow_datasets as tfds
    import tqdm
    from sklearn import datasets as sklearn_datasets


def load(
    data: str | os.PathLike[str] | Dataset | tf.data.Dataset | Mapping[str, tf.data.Dataset | Split],
    *,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    ignored_class: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """A data set by its name or path, or from Python objects; a loaded one is returned unchanged.

    - `digits`: scikit-learn's 1,797 digits of 8 x 8 pixels, which need no download.
    - `mnist`: from ZOO_DATA_DIR, Keras' folder or the network; the last 10,000 images of train are for validation.
    - `scenes`: synthetic satellite scenes, see `zoo.data.scenes`.
    - `tfds:NAME`: an image or text classification data set of tensorflow-datasets, or one of texts alone.
    - a folder or `.zip` file, optionally with one folder for each of `train`, `validation` (`val`) and `test`, of
        - 8-bit image files in one folder for each class, or
        - images and their masks, see below.
    - `.npz`: `x_train`, `y_train` and optionally `x_validation` (`x_val`) and `x_test` with their `y`, and `classes`.
      Images [N, H, W] or [N, H, W, C] of uint8, uint16 or float, or texts [N]. Class ids [N]; masks [N, H, W] of class
      ids up to 254; or masks [N, H, W, K] of K > 1 overlapping classes, of 0 and 1. In uint8 masks 255 is `IGNORED`.
    - `.tsv`, `.csv`: a line of column names and one line for each text, with the columns `text` and `label`, or those
      that `text_column` and `label_column` name, in any order; see `zoo.data.texts.read_columns`. The values of the
      labels in ascending order are the classes.
    - a folder of `.txt` files, one folder for each class, optionally in one folder for each split.
    - `.txt`, or a folder of `.txt` files without further folders: a text for a language model. The first 90 % are for
      training, the last 10 % both for validation and for test, as other language models on such texts are measured.
      `train.txt`, `validation.txt` and `test.txt` in the folder are the splits.
    - any other name is NAME, NAME.npz, NAME.zip, NAME.tsv, NAME.csv or NAME.txt in ZOO_DATA_DIR.
    - a finite `tf.data.Dataset`, or a mapping of `train`, `validation` and `test` to such data sets or to `Split`s, see
      below.

    A missing split is 15 % of train, stratified by class if there are enough examples of each class, and not stratified
    for masks.

    **Images and masks** are in two folders, `images` and `labels` (or `masks`). An image and its mask have the same
    name except for the suffix. Images are PNG, JPEG, BMP or GIF files, TIFF files with any number of bands
    (`pip install 'zoo[geotiff]'`) or `.npy` arrays [H, W] or [H, W, C]. They are loaded as uint8 if all are uint8, as
    uint16 if all are unsigned with 8 or 16 bits, otherwise as float32. Their masks have

    - exclusive classes: one band of whole numbers, the label values. The values that occur, in ascending order, are the
      classes 0, 1, ..., at most 255 of them, and their names: masks of 0 and 255 have the classes `0` and `255`. A
      palette image counts by its indices (a GIF by its gray values), a color image with three equal bands as gray. In
      validation and test only values that occur in train are allowed.
    - overlapping classes: TIFF or `.npy` masks with several bands, one for each class, 0 for pixels outside the class.
      The class names are the band descriptions of the TIFF files if all bands have one, otherwise `1`, `2`, ...
    - overlapping classes: one folder for each class in `labels`, with the name of the class and a mask with one band
      for each image, 0 for pixels outside the class.

    Images of several sizes are padded at the bottom and on the right to the largest height and width: images with
    zeros, masks with `IGNORED`, 255.

    **A `tf.data.Dataset`** contains pairs (input, target), or inputs alone, single or in batches, such as
    `keras.utils.image_dataset_from_directory` returns; its attribute `class_names` is used if it has one. It is read
    once, to its end and in its own order: if it shuffles, its fingerprint differs each time. Inputs and targets are
    those of `.npz` files. In addition, labels may be one-hot [K], and whole floating-point targets become integers.
    Floating-point images with a range of 0 to 255 become uint8 if all their values are whole numbers, or if there are
    no masks, rounded. The data set is named `given`.

    Args:
        data: the name, path or objects.
        image_size: height and width in pixels to which image files and TFDS images are resized (bilinear with
            antialiasing; masks by the nearest pixel). `.npz` arrays and Python objects keep their size.
        seed: seed of the splits that are taken from train.
        ignored_class: name of one of the exclusive classes of masks. Its pixels become `IGNORED`, and it is no longer
            one of the classes.
        text_column: name of the column of texts in a table.
        label_column: name of the column of labels in a table.

    Raises:
        ZooError: for an unknown name or class, and for data that cannot be read or used, with the names of the files.
    """
    if isinstance(data, Dataset):
        dataset = data
    elif isinstance(data, str | os.PathLike):
        columns = texts.Columns(text_column, label_column)
        name, (splits, classes) = _read_named(os.fspath(data), image_size, columns)
        dataset = Dataset(name, complete(splits, seed), classes)
    else:
        splits, classes = read_given(data)
        dataset = Dataset(GIVEN, complete(splits, seed), classes, given=True)
    return dataset if ignored_class in (None, dataset.ignored_class) else dataset.without_class(ignored_class)


def _read_named(name: str, image_size: Size, columns: texts.Columns) -> tuple[str, Parts]:
    """A data set by its name or path, and its name for runs and artifacts."""
    if name in NAMED:
        return name, NAMED[name]()
    if name.startswith("tfds:"):
        return name.replace(":", "-").replace("/", "-"), _tfds(name, image_size)
    path = lookup.find(name, tuple(NAMED), (*FORMATS, *texts.DELIMITERS))
    if (columns.text or columns.label) and path.suffix.lower() not in texts.DELIMITERS:
        raise ZooError(f"{path} has no columns: --text-column and --label-column are for .tsv and .csv files")
    formats = {**FORMATS, **dict.fromkeys(texts.DELIMITERS, lambda path, _: texts.read_table(path, columns))}
    read = _read_folder if path.is_dir() else formats.get(path.suffix.lower())
    if read is None:
        raise ZooError(f"{path} has an unknown format: give a folder or a {', '.join(formats)} file")
    try:
        return path.resolve().name if path.is_dir() else path.stem, read(path, image_size)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error}") from error


def _digits() -> Parts:
    digits = sklearn_datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    whole = Split(images, digits.target.astype(np.int64))
    return complete({"train": whole}, seed=0), tuple("0123456789")  # the same for every seed: scores are comparable


def _mnist() -> Parts:
    arrays = lookup.mnist_arrays()
    train, test = (Split(arrays[f"x_{s}"][..., None], arrays[f"y_{s}"].astype(np.int64)) for s in ("train", "test"))
    splits = {"train": train.head(50_000), "validation": train.take(slice(50_000, None)), "test": test}
    return splits, tuple("0123456789")


def _tfds(name: str, image_size: Size) -> Parts:
    builder = lookup.tfds_builder(name.removeprefix("tfds:"))
    features = builder.info.features
    # `supervised_keys` first: a data set may have other images, texts and labels too
    keys = [key for key in (*(builder.info.supervised_keys or ()), *features) if isinstance(key, str)]
    kinds = tfds.features.Image, tfds.features.Text, tfds.features.ClassLabel
    image, text, label = (next((key for key in keys if isinstance(features[key], kind)), None) for kind in kinds)
    if ((label is None or image is None) and text is None) or "train" not in builder.info.splits:
        raise ZooError(f"{name} has no train split of images with class labels or of texts: choose another set")
    splits = {}
    for split in SPLITS:
        total = builder.info.splits[split].num_examples if split in builder.info.splits else 0
        if total:
            examples = tfds.as_numpy(builder.as_dataset(split=split))
            bar = tqdm.tqdm(examples, f"{name} {split}", total, unit=" examples", disable=total <= PROGRESS_FROM)
            if image is not None and label is not None:
                pairs = [(resized(example[image], image_size), example[label]) for example in bar]
                inputs = stack((pair[0] for pair in pairs), name)
            else:
                pairs = [(example[text].decode(), label and example[label]) for example in bar]
                inputs = np.array([pair[0] for pair in pairs], object)
            splits[split] = Split(inputs, None if label is None else np.array([pair[1] for pair in pairs], np.int64))
    return splits, () if label is None else tuple(features[label].names)


def _read_folder(path: Path, image_size: Size) -> Parts:
    return texts.read_text_folder(path) if texts.is_text_folder(path) else read_images(path, image_size)


NAMED: dict[str, Callable[[], Parts]] = {"digits": _digits, "mnist": _mnist, "scenes": lambda: scenes.data()}
FORMATS: dict[str, Callable[[Path, Size], Parts]] = {
    ".npz": read_npz,
    ".zip": read_images,
    ".txt": lambda path, _: texts.read_plain_text(path),
}
