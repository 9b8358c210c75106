"""Data sets of every form as arrays in memory: named sets, picture folders, archives, tables and texts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from etils import epy

from zoo.data import lookup
from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf
    import tensorflow_datasets as tfds
    import tqdm
    from PIL import Image
    from sklearn import datasets as sklearn_datasets
    from sklearn import model_selection

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.15  # share of train for each split that a data set does not bring
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
PROGRESS_FROM = 2000  # a progress bar for more files than this


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    Args:
        inputs: images [N, H, W, C] of uint8, uint16 or float32, or texts [N].
        targets: class ids int64 [N], class ids of pixels int64 [N, H, W], or None.
    """

    inputs: np.ndarray
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def head(self, count: int) -> Split:
        """The first `count` examples, all where there are fewer."""
        return self.take(slice(count))

    def take(self, index: slice | np.ndarray) -> Split:
        return Split(self.inputs[index], None if self.targets is None else self.targets[index])

    def as_tf(self) -> tf.data.Dataset:
        """Single examples as pairs (input, target), as (input,) where there are no targets."""
        arrays = (self.inputs,) if self.targets is None else (self.inputs, self.targets)
        return tf.data.Dataset.from_tensor_slices(arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Args:
        name: as the user typed it, for a path its stem.
        splits: `train`, `validation` and `test`, each of at least one example.
        classes: their names in order of the class ids; empty where there are no targets.
        fingerprint: sha256 of the arrays (dtype, shape, bytes) of each split in order and of the class names;
            computed where none is given.

    Raises:
        ZooError: for other splits, or one without examples.
    """

    name: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ZooError(f"data set {self.name} has splits {', '.join(self.splits)}; it needs {', '.join(SPLITS)}")
        empty = [name for name in SPLITS if not len(self.splits[name])]
        if empty:
            raise ZooError(f"data set {self.name} has no example in {', '.join(empty)}: each split needs one at least")
        object.__setattr__(self, "fingerprint", self.fingerprint or _fingerprint(self.splits, self.classes))

    @property
    def train(self) -> tf.data.Dataset:
        return self.splits["train"].as_tf()

    @property
    def validation(self) -> tf.data.Dataset:
        return self.splits["validation"].as_tf()

    @property
    def test(self) -> tf.data.Dataset:
        return self.splits["test"].as_tf()

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image; () for texts."""
        return self.splits["train"].inputs.shape[1:]


def load(name: str | os.PathLike | Dataset, *, image_size: tuple[int, int] | None = None, seed: int = 0) -> Dataset:
    """A data set by its name or path; one that is loaded already is returned as it is.

    - `digits`: scikit-learn's 1,797 digits of 8 x 8, at hand without a download.
    - `mnist`: from ZOO_DATA_DIR, Keras' folder or the network; validation is the last 10,000 of train.
    - `tfds:NAME`: an image classification set of tensorflow-datasets.
    - a folder or `.zip`: picture files in one folder a class, or such folders within `train`, `validation` (`val`)
      and `test`; or two folders `images` and `labels` (`masks`) with files of the same names.
    - `.npz`: `x_train`, `y_train` and, if given, `x_validation` (`x_val`) and `x_test` with their `y`, `classes`.
      Images [N, H, W] or [N, H, W, C], or texts [N]; class ids [N] or [N, H, W].
    - `.tsv`: a header `label<TAB>text` and a line an example.
    - `.txt`: one text, its first 90 % for training, 5 % for validation, 5 % for test.
    - anything else is NAME, NAME.npz, NAME.zip, NAME.tsv or NAME.txt in ZOO_DATA_DIR.

    A split that the data set does not bring is 15 % of train, stratified by class where there are enough of each.

    Args:
        image_size: height and width in pixels to which picture files and TFDS' pictures of other sizes are brought
            (bilinear, antialiased); arrays stay as they are.
        seed: of the splits taken from train.

    Raises:
        ZooError: for an unknown name, and for data that cannot be read or used, with the files at fault.
    """
    if isinstance(name, Dataset):
        return name
    name = os.fspath(name)
    if name in NAMED:
        splits, classes = NAMED[name]()
    elif name.startswith("tfds:"):
        splits, classes = _tfds(name, image_size)
    else:
        path = lookup.find(name, tuple(NAMED), tuple(FORMS))
        form = _folder if path.is_dir() else FORMS.get(path.suffix.lower())
        if form is None:
            raise ZooError(f"{path} is of no known form: give a folder or a {', '.join(FORMS)} file")
        name = path.resolve().name if path.is_dir() else path.stem
        try:
            splits, classes = form(path, image_size)
        except OSError as error:
            raise ZooError(f"{path} cannot be read: {error}") from error
    return Dataset(name, _complete(splits, seed), classes)


Parts = tuple[dict[str, Split], tuple[str, ...]]  # the splits that a source brings, and its class names
Size = tuple[int, int] | None


def _fingerprint(splits: Mapping[str, Split], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in SPLITS:
        for array in (splits[name].inputs, splits[name].targets):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            texts = array.dtype.kind in "OU"  # their bytes in memory are addresses, or depend on the longest
            digest.update(json.dumps(array.tolist()).encode() if texts else np.ascontiguousarray(array).data)
    digest.update(json.dumps(classes).encode())
    return digest.hexdigest()


def _complete(splits: dict[str, Split], seed: int) -> dict[str, Split]:
    """The splits with those that are missing taken from train."""
    train = splits["train"]
    count = max(1, round(HELD_OUT * len(train)))
    for name in ("test", "validation"):
        if name not in splits:
            rest, held = _held_out(train, min(count, len(train)), seed)
            splits, train = {**splits, name: train.take(held)}, train.take(rest)
    return {"train": train, "validation": splits["validation"], "test": splits["test"]}


def _held_out(split: Split, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices that stay and `count` that are held out, both in their old order."""
    labels, rest = split.targets, len(split) - count
    if rest <= 0:
        return np.arange(0), np.arange(len(split))
    if labels is not None:
        sizes = np.unique(labels, return_counts=True)[1]
        if labels.ndim > 1 or min(sizes) < 2 or min(count, rest) < len(sizes):  # masks; not one of each class a side
            labels = None
    parts = model_selection.train_test_split(np.arange(len(split)), test_size=count, random_state=seed, stratify=labels)
    return np.sort(parts[0]), np.sort(parts[1])


def _digits() -> Parts:
    digits = sklearn_datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    whole = Split(images, digits.target.astype(np.int64))
    return _complete({"train": whole}, seed=0), tuple("0123456789")  # the same for every seed: figures compare


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
            pairs = [(_resized(example[image], image_size), example[label]) for example in bar]
            pictures, labels = zip(*pairs, strict=True)
            splits[split] = Split(_stack(pictures, name), np.array(labels, np.int64))
    return splits, tuple(features[label].names)


# Folders and archives of pictures are both read into a tree of dictionaries by name; a leaf gives the file's bytes.
Read = Callable[[], bytes]
Tree = dict[str, "Tree | Read"]


def _folder(path: Path, image_size: Size) -> Parts:
    def tree(folder: Path) -> Tree:
        entries = sorted(entry for entry in folder.iterdir() if not _ignored(entry.name))
        return {entry.name: tree(entry) if entry.is_dir() else entry.read_bytes for entry in entries}

    return _pictures(tree(path), path, image_size)


def _zip(path: Path, image_size: Size) -> Parts:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ZooError(f"{path} is no zip archive or is cut short ({error}): fetch it again") from error
    lock = threading.Lock()  # the archive is one open file

    def read(entry: zipfile.ZipInfo) -> bytes:
        with lock:
            return archive.read(entry)

    root: Tree = {}
    with archive:
        for entry in archive.infolist():
            *folders, name = entry.filename.removesuffix("/").split("/")
            if any(map(_ignored, (*folders, name))):
                continue
            node = root
            for folder in folders:
                node = node.setdefault(folder, {})
                if not isinstance(node, dict):
                    raise ZooError(f"{path} holds {folder!r} both as a file and as a folder: write it anew")
            node.setdefault(name, {} if entry.is_dir() else functools.partial(read, entry))
        return _pictures(root, path, image_size)


def _ignored(name: str) -> bool:
    return name in ("", "__MACOSX") or name.startswith(".")


def _folders(tree: Tree) -> dict[str, Tree]:
    return {name: entry for name, entry in sorted(tree.items()) if isinstance(entry, dict)}


def _pictures(tree: Tree, path: Path, image_size: Size) -> Parts:
    """Pictures in one folder a class, perhaps within a folder a split; or images and their masks."""
    folders = _folders(tree)
    while len(folders) == 1 and _folders(*folders.values()):  # a folder that only wraps the others
        folders = _folders(*folders.values())
    masks = {"labels", "masks"} & set(folders)
    if len(folders) == 2 and "images" in folders and masks:
        return _masked_pictures(folders["images"], folders[masks.pop()], path, image_size)
    groups = {"train": folders}
    if "train" in folders and set(folders) <= set(SPLIT_FOLDERS):
        groups = {SPLIT_FOLDERS[name]: _folders(folder) for name, folder in folders.items()}
    classes = tuple(groups["train"])
    if not classes:
        raise ZooError(f"{path} has no class folders: put the pictures into one folder a class")
    files, splits, labels = {}, [], []
    for split, group in groups.items():
        for name, folder in group.items():
            place = name if len(groups) == 1 else f"{split}/{name}"
            if name not in classes:
                raise ZooError(f"{path}: class folder {place!r} has no counterpart in train: add it or remove this one")
            if not folder or _folders(folder):
                what = "holds further folders" if folder else "is empty"
                raise ZooError(
                    f"{path}: class folder {place!r} {what}: it must hold picture files alone, or be removed"
                )
            files |= {f"{place}/{file}": read for file, read in folder.items()}
            splits += [split] * len(folder)
            labels += [classes.index(name)] * len(folder)
    whole = Split(_read_pictures(files, path, image_size), np.array(labels, np.int64))
    return {split: whole.take(np.array(splits) == split) for split in groups}, classes


def _masked_pictures(images: Tree, masks: Tree, path: Path, image_size: Size) -> Parts:
    """Images and grey masks of the same names; the values that occur in the masks are the classes, in order."""
    by_stem = [{Path(name).stem: read for name, read in sorted(tree.items())} for tree in (images, masks)]
    single = sorted(set(by_stem[0]) ^ set(by_stem[1]))
    if single or not images or len(images) != len(masks):
        named = f" ({', '.join(single[:5])})" if single else ""
        raise ZooError(f"{path}: images and masks must be pairs of files of one name; some are not{named}")
    inputs = _read_pictures(by_stem[0], path, image_size)
    values = _read_pictures(by_stem[1], path, image_size, "nearest")
    if values.shape != (*inputs.shape[:3], 1):
        raise ZooError(f"{path}: masks {values.shape[1:]} must be grey and as large as the images {inputs.shape[1:]}")
    classes, targets = np.unique(values[..., 0], return_inverse=True)
    return {"train": Split(inputs, targets.reshape(values.shape[:3]))}, tuple(map(str, classes))


def _read_pictures(files: Mapping[str, Read], path: Path, image_size: Size, method: str = "bilinear") -> np.ndarray:
    """Files by name to uint8 [N, H, W, C]; all that are no pictures are reported together."""

    def decode(read: Read) -> np.ndarray | None:
        try:
            picture = _decode(read())
        except Exception:  # a broken file makes Pillow and zipfile raise errors of a dozen kinds
            return None
        return _resized(picture, image_size, method)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decode, files.values())
        bar = tqdm.tqdm(decoded, path.name, len(files), unit=" files", disable=len(files) <= PROGRESS_FROM)
        pictures = dict(zip(files, bar, strict=True))
    broken = [name for name, picture in pictures.items() if picture is None]
    if broken:
        named = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        formats = ", ".join(IMAGE_FORMATS)
        raise ZooError(f"{path}: {len(broken)} of {len(files)} files are no 8-bit pictures ({formats}): {named}")
    return _stack(pictures.values(), path)


def _decode(data: bytes) -> np.ndarray:
    """The first frame as uint8 [H, W, 1] or [H, W, 3], as it is stored: not turned by EXIF, without transparency."""
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would cut the values off at 255
            raise ValueError("more than 8 bits a channel")
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))[..., None]
        picture = np.asarray(image.convert("RGB"))
        grey = image.mode == "P" and (picture == picture[..., :1]).all()  # a palette is the only mode of many GIFs
        return picture[..., :1] if grey else picture


def _resized(picture: np.ndarray, size: Size, method: str = "bilinear") -> np.ndarray:
    if size is None or picture.shape[:2] == tuple(size):
        return picture
    resized = tf.image.resize(picture, size, method, antialias=True).numpy()  # the operation that the served graph uses
    return (np.rint(resized) if picture.dtype.kind == "u" else resized).astype(picture.dtype)


def _stack(pictures: Iterable[np.ndarray], where: str | Path) -> np.ndarray:
    """Pictures [H, W, C] to one array [N, H, W, C]: grey if all are, else the grey ones made RGB."""
    pictures = list(pictures)
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        named = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        raise ZooError(f"{where}: pictures are of {len(sizes)} sizes ({named}, ...): give image_size=(height, width)")
    channels = max(picture.shape[2] for picture in pictures)
    return np.stack([np.broadcast_to(picture, (*sizes[0], channels)) for picture in pictures])


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
        if split.inputs.shape[1:] != train.inputs.shape[1:] or (split.targets is None) != (train.targets is None):
            raise ZooError(f"{path}: x_{name}, y_{name} are of another kind or size than x_train, y_train")
    if train.targets is None:
        return splits, ()
    count = 1 + max(int(split.targets.max(initial=-1)) for split in splits.values())
    classes = tuple(map(str, np.ravel(arrays.get("classes", range(count)))))
    if len(classes) < count:
        raise ZooError(f"{path} names {len(classes)} classes and has labels up to {count - 1}: name all of them")
    return splits, classes


def _array_split(x: np.ndarray, y: np.ndarray | None, what: str) -> Split:
    if x.dtype.kind == "f":
        x = x.astype(np.float32)
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
    if y.dtype.kind not in "iub" or y.shape not in (x.shape[:1], x.shape[:3]) or y.min(initial=0) < 0:
        raise ZooError(f"{what}: targets {y.dtype} {y.shape} must be class ids from 0 on, [N] or [N, H, W]")
    return Split(x, y.astype(np.int64))


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


SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
NAMED: dict[str, Callable[[], Parts]] = {"digits": _digits, "mnist": _mnist}
FORMS: dict[str, Callable[[Path, Size], Parts]] = {".npz": _npz, ".zip": _zip, ".tsv": _tsv, ".txt": _txt}
