"""Data sets by name or path, or as Python objects, as arrays in memory."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import progress
from zoo.data import lookup, scenes, texts, trees
from zoo.data.arrays import read_npz
from zoo.data.dataset import SPLITS, Dataset, Parts, Split, complete
from zoo.data.decoding import PROGRESS_FROM, WHITE, Size, decode_image, resized, stack
from zoo.data.given import GIVEN, read_given
from zoo.data.images import read_images
from zoo.data.streamed import Streamed, exceeds_budget
from zoo.errors import ZooError, listed, note

with epy.lazy_imports():
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from sklearn import datasets as sklearn_datasets


def load(
    data: str | os.PathLike[str] | Dataset | tf.data.Dataset | Mapping[str, tf.data.Dataset | Split],
    *,
    image_size: tuple[int, int] | None = None,
    crop: bool = False,
    seed: int = 0,
    ignored_class: str | None = None,
    background: int = WHITE,
    strict: bool = False,
    hold_out: bool = True,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: bool = True,
) -> Dataset:
    """A data set by its name or path, or from Python objects; a loaded one is returned unchanged.

    - `digits`: scikit-learn's 1,797 digits of 8 x 8 pixels, which need no download.
    - `mnist`: from ZOO_DATA_DIR, Keras' folder or the network; the last 10,000 images of train are for validation.
    - `scenes`: synthetic satellite scenes, see `zoo.data.scenes`.
    - `tfds:NAME`: an image or text classification data set of tensorflow-datasets, or one of texts alone.
    - a folder, `.zip` or `.tar` file (also `.tar.gz` and others), optionally with one folder for each of `train`,
      `validation` and `test`, also called `val`, `valid`, `dev`, `training`, `testing`, `training_set` and so on, of
        - image files in one folder for each class, see `zoo.data.decoding.decode_image`, or
        - images and their masks, see below.
    - `.npz`: arrays of inputs and labels by the names of Keras (`x_train`, `y_train`, `x_val`, ...), of MedMNIST
      (`train_images`, `train_labels`, ...) and the like, and optionally `classes`; see `zoo.data.arrays`.
    - `.tsv`, `.csv`: a line of column names and one line for each text, with the columns `text` and `label`, or those
      that `text_column` and `label_column` name, in any order; see `zoo.data.texts.read_columns`. The values of the
      labels in ascending order are the classes.
    - a folder of `.txt` files, one folder for each class, optionally in one folder for each split.
    - `.txt`, or a folder of `.txt` files without further folders: a text for a language model. The first 90 % are for
      training, the last 10 % both for validation and for test, as other language models on such texts are measured.
      `train.txt`, `validation.txt` and `test.txt` in the folder are the splits.
    - any other name is NAME, NAME.npz, NAME.zip, NAME.tsv, NAME.csv or NAME.txt in ZOO_DATA_DIR.
    - `zoo:NAME`: the data set of that name, also where a folder or file of the same name is in the working directory.
    - a finite `tf.data.Dataset`, or a mapping of `train`, `validation` and `test` to such data sets or to `Split`s, see
      below.

    A missing split is 15% of train, stratified by class; of a class with too few examples all stay in train. Masks are
    not stratified.

    What is done to the user's data beside reading it is printed on standard error, a line for each kind: files that are
    left out, images that are turned or composited, labels that are converted, classes that a split lacks.

    **Images and masks** are in two folders, `images` and `labels` (or `masks`, `gt` and the like). An image and its
    mask have the same name except for the suffix and words such as `_mask`. Images are image files, TIFF files with any
    number of bands (`pip install 'zoo[geotiff]'`) or `.npy` arrays [H, W] or [H, W, C]. They are loaded as uint8 if all
    are uint8, as uint16 if all are unsigned with 8 or 16 bits, otherwise as float32. Their masks have

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
        crop: crop images with labels to the proportions of `image_size` first, which otherwise stretches them.
        seed: seed of the splits that are taken from train.
        ignored_class: name of one of the exclusive classes of masks. Its pixels become `IGNORED`, and it is no longer
            one of the classes.
        background: gray value from 0 to 255 that transparent pixels of image files show; white by default.
        strict: raise for files in a folder or archive that are not read, such as notes beside the images.
        hold_out: take the splits that are missing from train; otherwise the data set has those of the source.
        text_column: name of the column of texts in a table.
        label_column: name of the column of labels in a table.
        labels: whether images must be in folders of classes. If not, they may also lie in one folder without further
            ones, and have no labels.

    Raises:
        ZooError: for an unknown name or class, and for data that cannot be read or used, with the names of the files.
    """
    if isinstance(data, Dataset):
        dataset = data
    else:
        if isinstance(data, str | os.PathLike):
            given: dict[str, Any] = {"background": background}
            words = data if isinstance(data, str) or not Path(data).exists() else str(Path(data).absolute())
            name, own, (splits, classes) = _read_named(
                os.fspath(words),
                image_size,
                crop,
                background,
                strict,
                texts.Columns(text_column, label_column),
                labels,
            )
            given["own"] = own
        else:
            name, given = GIVEN, {"given": True}
            splits, classes = read_given(data)
        if hold_out:
            if "train" not in splits:
                raise ZooError(f"{data} has no split to train on, only {', '.join(splits)}: add a folder train")
            splits = complete(splits, seed)
        dataset = Dataset(name, splits, classes, whole=not hold_out, **given)
        _report(dataset)
    return dataset if ignored_class in (None, dataset.ignored_class) else dataset.without_class(ignored_class)


def _report(dataset: Dataset) -> None:
    """Notes on what will surprise whoever trains on the data set."""
    for name, split in dataset.splits.items():
        labels = split.labeled().targets
        if dataset.whole or labels is None or labels.ndim != 1 or not dataset.classes:
            continue
        counts = np.bincount(labels, minlength=len(dataset.classes))
        if (counts == 0).any():
            lacking = listed(dataset.classes[number] for number in np.flatnonzero(counts == 0))
            note(f"{dataset.name}: {name} has no example of {lacking}")
    inputs = dataset.first.inputs
    if isinstance(inputs, Streamed):
        inputs = np.asarray(inputs[:1])  # reading all would take as long as an epoch
    if inputs.dtype.name in ("uint8", "uint16") and inputs.size and (brightest := int(inputs.max())) < 32:
        full = np.iinfo(inputs.dtype).max
        note(
            f"{dataset.name}: the brightest pixel is {brightest} of {full}: images are nearly black as they are stored"
        )


def _read_named(
    name: str, image_size: Size, crop: bool, background: int, strict: bool, columns: texts.Columns, labels: bool
) -> tuple[str, bool, Parts]:
    """A data set by its name or path, its name for runs and artifacts, and whether it is the user's own."""
    plain = name.removeprefix(lookup.OF_ZOO)
    if plain in NAMED:
        if plain == name and Path(name).exists():
            raise lookup.ambiguous(name, f"the data set {name}")
        return plain, False, NAMED[plain]()
    if name.startswith("tfds:"):
        return name.replace(":", "-").replace("/", "-"), False, _tfds(name, image_size, crop, background)
    path, own = lookup.find(name, tuple(NAMED), (".npz", *ARCHIVES, *FORMATS, *texts.DELIMITERS))
    suffix = next((end for end in (*trees.TARS, path.suffix.lower()) if path.name.lower().endswith(end)), "")
    if (columns.text or columns.label) and suffix not in texts.DELIMITERS:
        raise ZooError(f"{path} has no columns: --text-column and --label-column are for .tsv and .csv files")
    images_of = functools.partial(
        read_images, image_size=image_size, crop=crop, background=background, strict=strict, labels=labels
    )
    try:
        if path.is_dir() and texts.is_text_folder(path):
            return path.resolve().name, own, texts.read_text_folder(path)
        if path.is_dir():
            return path.resolve().name, own, images_of(path)
        if suffix in ARCHIVES:
            parts = images_of(path)
        elif suffix in FORMATS:
            parts = FORMATS[suffix](path, image_size)
        elif suffix in texts.DELIMITERS:
            parts = texts.read_table(path, columns)
        else:
            known = ", ".join((*ARCHIVES, *FORMATS, *texts.DELIMITERS))
            raise ZooError(f"{path} has an unknown format: give a folder or a {known} file")
        return path.name[: len(path.name) - len(suffix)], own, parts
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


def _tfds(name: str, image_size: Size, crop: bool, background: int) -> Parts:
    builder = lookup.tfds_builder(name.removeprefix("tfds:"))
    features = builder.info.features
    # `supervised_keys` first: a data set may have other images, texts and labels too
    keys = [key for key in (*(builder.info.supervised_keys or ()), *features) if isinstance(key, str)]
    kinds = tfds.features.Image, tfds.features.Text, tfds.features.ClassLabel
    image, text, label = (next((key for key in keys if isinstance(features[key], kind)), None) for kind in kinds)
    sizes = {split: builder.info.splits[split].num_examples for split in SPLITS if split in builder.info.splits}
    counts = {split: size for split, size in sizes.items() if size}
    if ((label is None or image is None) and text is None) or "train" not in counts:
        raise ZooError(f"{name} has no train split of images with class labels or of texts: choose another set")
    has_images = image is not None and label is not None
    streams = has_images and image_size is not None and exceeds_budget(sum(counts.values()), image_size, name)
    folder = tempfile.TemporaryDirectory() if streams else None  # TFDS' own files can only be read from their beginning

    def kept(place: str, data: bytes) -> Any:
        if not has_images:
            return data.decode()
        if folder is not None:
            return place, trees.write_file(folder, place, data)
        return resized(decode_image(data, background).pixels, image_size, crop=crop)

    def joined(inputs: list[Any]) -> Any:
        if not has_images:
            return np.array(inputs, object)
        if folder is not None and image_size is not None:
            return Streamed(inputs, image_size, features[image].shape[-1] or 3, crop=crop, background=background)
        return stack(inputs, name)

    splits = {}
    for split, count in counts.items():
        decoders = {image: tfds.decode.SkipDecoding()} if has_images else None
        examples = tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))
        bar = progress.bar(count, "examples", over=examples, title=f"{name} {split}", least=PROGRESS_FROM)
        inputs, labels = [], []
        for number, example in enumerate(bar):
            inputs.append(kept(f"{split}-{number}", example[image if has_images else text]))
            labels.append(label and example[label])
        splits[split] = Split(joined(inputs), None if label is None else np.array(labels, np.int64))
    return splits, () if label is None else tuple(features[label].names)


NAMED: dict[str, Callable[[], Parts]] = {"digits": _digits, "mnist": _mnist, "scenes": lambda: scenes.data()}
FORMATS: dict[str, Callable[[Path, Size], Parts]] = {
    ".npz": read_npz,
    ".txt": lambda path, _: texts.read_plain_text(path),
}
ARCHIVES = (".zip", *trees.TARS)  # of images
