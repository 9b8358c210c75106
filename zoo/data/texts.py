"""Texts: tables with a text and a label in each row, folders of text files, and plain texts."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from etils import epy

from zoo.data.dataset import SPLITS, Parts, Split, by_split
from zoo.errors import ZooError, unknown

with epy.lazy_imports():
    from sklearn import datasets as sklearn_datasets

DELIMITERS = {".tsv": "\t", ".csv": ","}
HELD_OUT = 0.1  # share of a plain text for validation: the usual split of the texts that language models are held to


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of a table's columns; where none is given, a column is found by the name of its field here, in upper or
    lower case."""

    text: str | None = None
    label: str | None = None


def read_columns(path: Path) -> dict[str, list[str]]:
    """The columns of a `.tsv` or `.csv` file by the names in its first line.

    Quoted fields may contain delimiters, line breaks and doubled quotes. A `.tsv` file whose quotes do not fit that
    form has none: they are part of its texts. Empty lines are left out.

    Raises:
        ZooError: for a file that is not UTF-8 or has no row, two columns of a name, or a row of another length.
    """
    text = decoded(path.read_bytes(), path)
    delimiter = DELIMITERS[path.suffix.lower()]
    try:
        rows = _rows(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        if delimiter == ",":
            raise ZooError(
                f"{path} has misplaced quotes ({error}): write a quote within a quoted field twice"
            ) from None
        rows = _rows(text, delimiter, csv.QUOTE_NONE)
    if len(rows) < 2:
        raise ZooError(f"{path} needs a line of column names and a line for each text")
    (_, header), *lines = rows
    if len(set(header)) < len(header):
        raise ZooError(f"{path} has two columns of one name ({', '.join(header)}): rename one")
    for number, row in lines:
        if len(row) != len(header):
            raise ZooError(f"{path}: line {number} has {len(row)} columns, the first line has {len(header)}")
    return {name: [row[place] for _, row in lines] for place, name in enumerate(header)}


def _rows(text: str, delimiter: str, quoting: int) -> list[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its last line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    return [(reader.line_num, row) for row in reader if row]


def read_table(path: Path, columns: Columns) -> Parts:
    """The texts of a table and their labels, whose values in ascending order are the classes.

    Raises:
        ZooError: for a table that `read_columns` refuses, and for columns that it does not have.
    """
    table = read_columns(path)
    found = {}
    for field, given in dataclasses.asdict(columns).items():
        names = [name for name in table if name == given or (given is None and name.strip().lower() == field)]
        if given is not None and not names:
            raise unknown(f"column of {path.name}", given, table)
        if len(names) != 1:
            raise ZooError(f"{path} has the columns {', '.join(table)}: name that of each {field} by --{field}-column")
        found[field] = table[names[0]]
    classes, targets = np.unique(found["label"], return_inverse=True)
    whole = Split(np.array(found["text"], object), targets.astype(np.int64))
    return {"train": whole}, tuple(map(str, classes))


def is_text_folder(path: Path) -> bool:
    """Whether a folder contains `.txt` files, in itself or in its folders, and nothing else."""
    files = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return bool(files) and all(file.suffix.lower() == ".txt" for file in files)


def read_text_folder(path: Path) -> Parts:
    """A folder of `.txt` files: one folder for each class, optionally within one for each split; or the files of a
    plain text, either `train.txt` with perhaps `validation.txt` and `test.txt`, or in order of their names.

    Raises:
        ZooError: for files that are not UTF-8, folders beside files, and a class that train lacks.
    """
    files = {entry.stem.lower(): entry for entry in sorted(path.iterdir()) if entry.is_file()}
    found = {entry.name.lower(): entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    if files and found:
        raise ZooError(f"{path} contains both text files and folders: put the files into one folder for each class")
    texts = {stem: decoded(file.read_bytes(), file) for stem, file in files.items()}
    if texts:
        splits_of_text = by_split(texts, path)
        return _plain(splits_of_text if "train" in splits_of_text else {"train": "".join(texts.values())}, path)
    groups = by_split(found, path)
    if "train" not in groups:
        groups = {"train": path}
    read = {split: sklearn_datasets.load_files(folder, shuffle=False) for split, folder in groups.items()}
    classes = tuple(read["train"].target_names)
    splits = {}
    for split in (split for split in SPLITS if split in read):
        names = read[split].target_names
        if others := sorted(set(names) - set(classes)):
            raise ZooError(f"{path}: class folder {split}/{others[0]} has no counterpart in train: add it")
        inputs = [decoded(*pair) for pair in zip(read[split].data, read[split].filenames, strict=True)]
        labels = [classes.index(names[target]) for target in read[split].target]
        splits[split] = Split(np.array(inputs, object), np.array(labels, np.int64))
    return splits, classes


def read_plain_text(path: Path) -> Parts:
    """One text as `_plain` splits it."""
    return _plain({"train": decoded(path.read_bytes(), path)}, path)


def _plain(texts: Mapping[str, str], path: Path) -> Parts:
    """A text for a language model. Without a validation text it is the last 10 % of train, and without a test text it
    is the validation text: that is how the scores of other language models on such texts are measured."""
    train, rest = texts["train"], texts.get("validation", "")
    if not rest:
        end = int((1 - HELD_OUT) * len(train))
        train, rest = train[:end], train[end:]
    if not train or not rest:
        raise ZooError(f"{path} contains {len(train) + len(rest)} characters: too few to train and to validate on")
    parts = {"train": train, "validation": rest, "test": texts.get("test", rest)}
    return {name: Split(np.array([part], object)) for name, part in parts.items()}, ()


def decoded(data: bytes, where: str | Path) -> str:
    """UTF-8 text without its byte order mark, with `\\n` at the end of each line; raises ZooError for other bytes."""
    try:
        return "\n".join(data.decode("utf-8-sig").replace("\r\n", "\n").split("\r"))
    except UnicodeDecodeError as error:
        raise ZooError(f"{where} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
