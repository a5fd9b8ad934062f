"""Records: JSON objects that notice every change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bmcli import disk

VALUE = {"accuracy": 0.1 + 0.2, "names": ["ä", "b"], "nested": {"none": None, "truth": True, "big": 2**60}}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    disk.write_record(tmp_path / "a.json", VALUE)
    assert disk.read_record(tmp_path / "a.json") == VALUE


def test_every_changed_digit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    disk.write_record(file, VALUE)
    content = file.read_bytes()
    places = [place for place, byte in enumerate(content) if chr(byte).isalnum()]
    assert places
    for place in places:
        other = b"1" if content[place : place + 1] != b"1" else b"2"
        file.write_bytes(content[:place] + other + content[place + 1 :])
        with pytest.raises(disk.Damaged):
            disk.read_record(file)


@pytest.mark.parametrize(
    ("content", "said"),
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
def test_what_is_no_record_is_told(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(disk.Damaged, match=said):
        disk.read_record(tmp_path / "a.json")


def test_numbers_that_json_does_not_know_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        disk.write_record(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    disk.write_record(tmp_path / "a.json", VALUE, disk.PRIVATE)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "a.json").read_text())["names"] == ["ä", "b"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "a.json").symlink_to(outside)
    disk.write_record(tmp_path / "a.json", VALUE)
    with pytest.raises(OSError, match="symbolic links"):
        disk.write_through(_link(tmp_path / "b.json", outside), b"theirs")
    assert outside.read_text() == "mine"


def _link(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


def test_json_is_strict_whatever_was_measured(tmp_path: Path) -> None:
    disk.write_json(tmp_path / "found.json", {"r2": float("nan"), "all": (1.5, [float("inf")], True), "of": {"x": 1}})
    found = disk.parse_json((tmp_path / "found.json").read_bytes())
    assert found == {"r2": None, "all": [1.5, [None], True], "of": {"x": 1}}
