"""Records: JSON objects that notice every change."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        with pytest.raises(disk.DamagedFile):
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
    with pytest.raises(disk.DamagedFile, match=said):
        disk.read_record(tmp_path / "a.json")


def test_numbers_that_json_does_not_know_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        disk.write_record(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    disk.write_record(tmp_path / "a.json", VALUE, disk.PRIVATE_MODE)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "a.json").read_text())["names"] == ["ä", "b"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "a.json").symlink_to(outside)
    disk.write_record(tmp_path / "a.json", VALUE)
    with pytest.raises(OSError, match="symbolic links"):
        disk.write_and_flush(_link(tmp_path / "b.json", outside), b"theirs")
    assert outside.read_text() == "mine"


def test_folders_are_made_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    before = os.umask(0o002)
    try:
        disk.make_private_folder(tmp_path / "there" / "new" / "below")
        disk.make_private_folder(tmp_path / "there" / "new" / "below")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "there", *sorted((tmp_path / "there").rglob("*")))]
    assert modes == [0o755, 0o700, 0o700]


def test_links_are_removed_and_what_they_lead_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    for name in ("folder", "link", "none"):
        disk.remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "outside"]


def _link(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert disk.to_json_value({"a": [float("nan"), 1.5, ("ä", float("-inf"))], "b\udcff": {"c": 2}}) == {
        "a": [None, 1.5, ["ä", None]], "b?": {"c": 2},
    }  # fmt: skip


def test_a_number_too_large_to_be_finite_is_no_json() -> None:
    with pytest.raises(disk.DamagedFile, match="too large a number"):
        disk.parse_json('{"a": 1e999}')


def test_keys_and_names_that_json_writes_otherwise_are_read_as_they_are_written(tmp_path: Path) -> None:
    disk.write_record(tmp_path / "a.json", {"classes": {9: 1, 10: 2}, "file": "a\udcff.csv"})
    assert disk.read_record(tmp_path / "a.json") == {"classes": {"9": 1, "10": 2}, "file": "a\udcff.csv"}


def test_a_record_is_not_looked_for_behind_a_link_or_in_a_pipe(tmp_path: Path) -> None:
    disk.write_record(tmp_path / "a.json", VALUE)
    (tmp_path / "link.json").symlink_to("a.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name, said in (("link.json", "symbolic link"), ("pipe.json", "not a regular file")):
        with pytest.raises(disk.DamagedFile, match=said):
            disk.read_record(tmp_path / name)
    with pytest.raises(OSError, match="symbolic links"):
        disk.write_record_line(tmp_path / "link.json", VALUE)


def test_what_is_neither_file_nor_folder_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").touch()
    assert disk.find_irregular_entry(folder) is None
    os.mkfifo(folder / "pipe")
    assert disk.find_irregular_entry(folder) == (folder / "pipe", "no regular file")
    (folder / "inner" / "link").symlink_to(tmp_path)
    assert disk.find_irregular_entry(folder) == (folder / "inner" / "link", "a symbolic link")


def test_what_can_be_removed_is_not_what_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "marker").touch()
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").symlink_to(tmp_path / "outside")
    for name in ("link", "folder", "nothing"):
        disk.try_to_remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside" / "marker").exists()


@dataclass(frozen=True)
class Point:
    name: str
    places: tuple[float, ...]
    inner: Point | None = None


def test_a_value_is_read_as_what_its_type_describes() -> None:
    value = {"name": "a", "places": [1, 2.5], "inner": {"name": "b", "places": []}, "unknown": 3}
    assert disk.validate_as(Point, value) == Point("a", (1.0, 2.5), Point("b", ()))


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
def test_a_value_of_another_type_is_told_with_its_place(value: object, place: str) -> None:
    with pytest.raises(disk.DamagedFile, match=place):
        disk.validate_as(Point, value)


def test_a_refused_write_tells_the_bytes_it_needs_and_leaves_nothing(tmp_path: Path, small_files: Any) -> None:
    small_files(1000)
    with pytest.raises(disk.WriteFailure) as caught:
        disk.write_new(tmp_path / "new", bytes(5000))
    small_files(resource.RLIM_INFINITY)
    assert f"{tmp_path / 'new'}: file too large; 5,000 bytes were to be written, " in str(caught.value)
    assert str(caught.value).endswith("are free there.")
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_not_known_are_estimated(tmp_path: Path) -> None:
    with (
        pytest.raises(disk.WriteFailure, match=r"new: no space left on device; about 7,000 bytes were to be written"),
        disk.convert_write_errors(tmp_path / "new", estimate=lambda: 7000),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_temporary_files_on_another_disk_are_named_themselves(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk here")
    with pytest.raises(disk.WriteFailure) as caught, disk.convert_write_errors(tmp_path / "new", 10):
        raise OSError(errno.ENOSPC, "No space left on device", str(elsewhere / "scratch"))
    assert caught.value.filename == str(elsewhere / "scratch")


def test_words_of_a_library_are_no_path(tmp_path: Path) -> None:
    with pytest.raises(disk.WriteFailure) as caught, disk.convert_write_errors(tmp_path / "new"):
        raise OSError(errno.ENOSPC, "No space left on device", "while/it was/saved")
    assert caught.value.filename == str(tmp_path / "new")
    assert caught.value.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
