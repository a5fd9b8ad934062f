"""Which source reads what."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from bmcli.data.profiling.discovery import detect_source
from bmcli.data.sources import map_endings_to_kinds
from bmcli.errors import BmcliError
from bmcli.workflows import prediction_table


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("a.CSV.gz", "csv"), ("a.tsv", "csv"), ("a.parquet", "parquet"), ("a.ndjson", "jsonl"),
     ("a.npz", "npz")],
)  # fmt: skip
def test_files_are_recognised_by_their_endings(tmp_path: Path, name: str, kind: str) -> None:
    found = detect_source(touched(tmp_path, name) / name)
    assert (found.kind, found.path) == (kind, tmp_path / name)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"), "idx"),
        (("cats/1.jpg", "dogs/2.png"), "image_folder"),
        (("train/cats/1.jpg", "test/cats/2.jpg"), "image_folder"),
        (("part-0.parquet", "part-1.parquet"), "parquet"),
    ],
)
def test_folders_are_recognised_by_their_content(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    found = detect_source(touched(tmp_path, *names, "README.md", ".hidden.csv"))
    assert (found.kind, found.path) == (kind, tmp_path)


def test_a_folder_with_one_table_is_that_table(tmp_path: Path) -> None:
    assert detect_source(touched(tmp_path, "only.csv", "README.md")).path == tmp_path / "only.csv"


@pytest.mark.parametrize("names", [("test.csv", "train.csv"), ("mail_test.csv.gz", "mail-train.csv", "mail_val.csv")])
def test_tables_named_after_splits_keep_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = detect_source(touched(tmp_path, *names)).path
    assert isinstance(path, dict)
    assert list(path) == [split for split in ("train", "validation", "test") if split in path]
    assert sorted(each.name for each in path.values()) == sorted(names)


@pytest.mark.parametrize("names", [("a.txt",), ("people.csv", "houses.jsonl"), ("train.csv", "people.csv")])
def test_other_folders_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(BmcliError):
        detect_source(touched(tmp_path, *names))


def test_what_parts_say_that_they_read_is_what_is_found(tmp_path: Path) -> None:
    assert map_endings_to_kinds()[".tsv"] == map_endings_to_kinds()[".tab"] == "csv"
    assert set(map_endings_to_kinds().values()) == {"csv", "jsonl", "npz", "parquet", "tfrecord"}
    assert prediction_table.list_formats() == {
        ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"
    }  # fmt: skip


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), stream)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=[1])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", b"a;b\n1;2\n", "csv"),
        ("adult.data", b"39, Private\n", "csv"),
        ("a.dat", b"1 2\n", "csv"),
        ("a.psv", b"a|b\n1|2\n", "csv"),
        ("table", b"a,b\n1,2\n", "csv"),
        ("table", parquet(), "parquet"),
        ("a.csv", parquet(), "parquet"),
        ("a.csv.gz", gzip.compress(parquet()), "parquet"),
        ("a.dat", archive(), "npz"),
        ("a.txt", b'{"a": 1}\n', "jsonl"),
        ("a.csv", b' {"a": 1}\n', "jsonl"),
        ("a.json", b'[\n  {"a": 1}\n]\n', "jsonl"),
        ("a.json", b'{"a": 1}\n', "jsonl"),
        ("a.csv", b'"{""a"": 1}",b\n1,2\n', "csv"),
    ],
)
def test_files_are_recognised_by_their_content(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect_source(tmp_path / name).kind == kind


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"PK\x03\x04" + b"." * 26 + b"[Content_Types].xml", "is an Excel file"),
        ("a.csv", b"\n<!DOCTYPE html><html>", "is a page of HTML or XML"),
        ("a.csv", b"SQLite format 3\0", "is an SQLite database"),
        ("a.jpg", b"\xff\xd8", "no source reads files ending in '.jpg'"),
        ("program", b"\x7fELF\0\0", "no source reads files without an ending"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BmcliError, match=message):
        detect_source(tmp_path / name)
