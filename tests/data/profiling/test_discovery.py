"""Which source reads what."""

from __future__ import annotations

from pathlib import Path

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
