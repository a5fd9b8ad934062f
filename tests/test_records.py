"""Records: JSON objects that notice every change."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from bmcli import disk, records

VALUE = {"accuracy": 0.1 + 0.2, "names": ["ä", "b"], "nested": {"none": None, "truth": True, "big": 2**60}}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    records.write_record(tmp_path / "a.json", VALUE)
    assert records.read_record(tmp_path / "a.json") == VALUE


def test_every_changed_digit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    records.write_record(file, VALUE)
    content = file.read_bytes()
    places = [place for place, byte in enumerate(content) if chr(byte).isalnum()]
    assert places
    for place in places:
        other = b"1" if content[place : place + 1] != b"1" else b"2"
        file.write_bytes(content[:place] + other + content[place + 1 :])
        with pytest.raises(disk.DamagedFile):
            records.read_record(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "without its SHA-256"),
        (b'{"a": NaN}', "no number of JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "no JSON"),
    ],
)
def test_a_file_that_is_no_record_is_damaged(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(disk.DamagedFile, match=message):
        records.read_record(tmp_path / "a.json")


def test_numbers_that_json_does_not_know_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write_record(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    records.write_record(tmp_path / "a.json", VALUE, disk.PRIVATE_MODE)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "a.json").read_text())["names"] == ["ä", "b"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "a.json").symlink_to(outside)
    records.write_record(tmp_path / "a.json", VALUE)
    with pytest.raises(OSError, match="symbolic links"):
        disk.write_and_flush(_link(tmp_path / "b.json", outside), b"theirs")
    assert outside.read_text() == "mine"


def _link(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert records.to_json_value({"a": [float("nan"), 1.5, ("ä", float("-inf"))], "b\udcff": {"c": 2}}) == {
        "a": [None, 1.5, ["ä", None]], "b?": {"c": 2},
    }  # fmt: skip


def test_a_number_too_large_to_be_finite_is_no_json() -> None:
    with pytest.raises(disk.DamagedFile, match="too large a number"):
        records.parse_json('{"a": 1e999}')


def test_keys_and_names_that_json_writes_otherwise_are_read_as_they_are_written(tmp_path: Path) -> None:
    records.write_record(tmp_path / "a.json", {"classes": {9: 1, 10: 2}, "file": "a\udcff.csv"})
    assert records.read_record(tmp_path / "a.json") == {"classes": {"9": 1, "10": 2}, "file": "a\udcff.csv"}


def test_a_record_is_not_looked_for_behind_a_link_or_in_a_pipe(tmp_path: Path) -> None:
    records.write_record(tmp_path / "a.json", VALUE)
    (tmp_path / "link.json").symlink_to("a.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name, message in (("link.json", "symbolic link"), ("pipe.json", "not a regular file")):
        with pytest.raises(disk.DamagedFile, match=message):
            records.read_record(tmp_path / name)
    with pytest.raises(OSError, match="symbolic links"):
        records.write_record_line(tmp_path / "link.json", VALUE)


@dataclass(frozen=True)
class Point:
    name: str
    places: tuple[float, ...]
    inner: Point | None = None


def test_a_value_is_read_as_what_its_type_describes() -> None:
    value = {"name": "a", "places": [1, 2.5], "inner": {"name": "b", "places": []}, "unknown": 3}
    assert records.validate_as(Point, value) == Point("a", (1.0, 2.5), Point("b", ()))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "object"),
        ({"name": "a"}, "places: "),
        ({"name": "a", "places": ["1"]}, r"places\.0: "),
        ({"name": None, "places": []}, "name: "),
        ({"name": "a", "places": [], "inner": {"name": 1, "places": []}}, r"inner\.name: "),
    ],
)
def test_a_value_of_another_type_is_damaged_with_its_place(value: object, place: str) -> None:
    with pytest.raises(disk.DamagedFile, match=place):
        records.validate_as(Point, value)
