"""Texts from tables, folders, plain files and tensorflow-datasets."""

import numpy as np
import pytest

from zoo.data import load
from zoo.errors import ZooError


def write(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def examples(data):
    """All pairs of text and class name."""
    return sorted(
        (text, data.classes[target])
        for split in data.splits.values()
        for text, target in zip(split.inputs, split.targets, strict=True)
    )


ROWS = [(f'Fine "{number}", twice', "good") for number in range(10)] + [(f"dull {n}\nindeed", "bad") for n in range(10)]


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("beginning", ["", "\ufeff"])
@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_quoted_tables(tmp_path, suffix, delimiter, beginning, end):
    """With columns in any order and further ones, empty lines, a byte order mark, and either end of lines."""
    lines = [delimiter.join([quoted(text), str(number), label]) for number, (text, label) in enumerate(ROWS)]
    table = beginning + end.join([delimiter.join(["Text", "id", "label"]), *lines, "", ""])
    path = write(tmp_path, {f"set{suffix}": table.replace("\nindeed", f"{end}indeed")}) / f"set{suffix}"
    data = load(path)
    assert data.classes == ("bad", "good")
    assert examples(data) == sorted(ROWS)
    renamed = write(tmp_path, {f"own{suffix}": table.replace("Text", "review").replace("label", "text", 1)})
    own = load(renamed / f"own{suffix}", text_column="review", label_column="text")
    assert own.fingerprint == data.fingerprint


def test_quotes_of_a_table_without_quoted_fields(tmp_path):
    rows = [('" a film " is a film', "1"), ('"so', "0"), ("it's", "1"), ('say "no"', "0")]
    table = "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in rows)
    assert examples(load(write(tmp_path, {"set.tsv": table}) / "set.tsv")) == sorted(rows)


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "label\ttext\n1\tgood\n0 bad\n", {}, r"a\.tsv: line 3 has 1 columns, the first line has 2"),
        ("a.tsv", "1\tgood\n0\tbad\n", {}, "has the columns 1, good: name that of each text by --text-column"),
        ("a.csv", "text,stars\na,1\n", {}, "has the columns text, stars: name that of each label by --label-column"),
        ("a.csv", "text,stars\na,1\n", {"label_column": "star"}, "unknown column of a.csv 'star': did you mean stars"),
        ("a.csv", "text,text\na,1\n", {}, "two columns of one name"),
        ("a.csv", "label,text\n", {}, "needs a line of column names and a line for each text"),
        ("a.csv", "", {}, "needs a line of column names and a line for each text"),
        ("a.csv", 'label,text\n1,"a"b\n', {}, "misplaced quotes"),
        ("a.csv", b"label,text\n1,caf\xe9\n", {}, r"is not UTF-8 text \(byte 16\)"),
        ("a.txt", "words", {"text_column": "b"}, "has no columns: --text-column and --label-column are for"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, columns, message):
    with pytest.raises(ZooError, match=message):
        load(write(tmp_path, {name: content}) / name, **columns)


def test_a_folder_of_text_files(tmp_path):
    files = {f"{label}/{number}.txt": text for number, (text, label) in enumerate(ROWS)}
    data = load(write(tmp_path / "set", files))
    assert (data.name, data.classes) == ("set", ("bad", "good"))
    assert examples(data) == sorted(ROWS)
    split = {f"{split}/{name}": text for split in ("train", "val", "test") for name, text in files.items()}
    data = load(write(tmp_path / "split", split))
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [20] * 3
    assert [examples(data).count(row) for row in ROWS] == [3] * 20
    with pytest.raises(ZooError, match="class folder test/other has no counterpart in train"):
        load(write(tmp_path / "split", {"test/other/1.txt": "a"}))


def test_plain_texts(tmp_path):
    text = "".join(map(chr, range(200, 400)))
    data = load(write(tmp_path, {"prose.txt": "\ufeff" + text}) / "prose.txt")
    assert [split.inputs.tolist() for split in data.splits.values()] == [[text[:180]], [text[180:]], [text[180:]]]
    halves = load(write(tmp_path / "parts", {"1.txt": text[:100], "2.txt": text[100:]}))
    assert halves.fingerprint == data.fingerprint
    own = load(write(tmp_path / "own", {"train.txt": "abc\r\n", "validation.txt": "de", "test.txt": "f"}))
    assert [split.inputs.tolist() for split in own.splits.values()] == [["abc\n"], ["de"], ["f"]]
    with pytest.raises(ZooError, match="both text files and folders"):
        load(write(tmp_path / "own", {"more/1.txt": "g"}))


@pytest.mark.parametrize("labeled", [True, False])
def test_texts_of_tensorflow_datasets(tmp_path, monkeypatch, labeled):
    import tensorflow_datasets as tfds

    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    features = {"text": tfds.features.Text()}
    if labeled:
        features["label"] = tfds.features.ClassLabel(names=["bad", "good"])
    rows = [{"text": text, **({"label": label} if labeled else {})} for text, label in ROWS]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="opinions", version="1.0.0", features=tfds.features.FeaturesDict(features),
        split_datasets={"train": list(enumerate(rows))}, data_dir=tmp_path,
    )  # fmt: skip
    data = load("tfds:opinions")
    if labeled:
        assert examples(data) == sorted(ROWS)
    else:
        assert data.classes == ()
        texts = np.concatenate([split.inputs for split in data.splits.values()])
        assert sorted(texts) == sorted(text for text, _ in ROWS)
