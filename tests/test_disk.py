"""Files, folders, and what a file system refuses."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from bmcli import disk
from bmcli.data import files


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


def test_a_path_is_relative_below_the_working_directory_and_absolute_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs" / "digits"
    monkeypatch.chdir(tmp_path)
    assert disk.format_path(file) == "runs/digits"
    monkeypatch.chdir(tmp_path.parent.parent)
    assert disk.format_path(tmp_path.parent.parent.parent / "other") == str(tmp_path.parent.parent.parent / "other")
    monkeypatch.chdir("/")
    assert (disk.format_path(file), files.format_path(file)) == (str(file), str(file))
    assert disk.format_path(Path("data.csv")) == "/data.csv"


def test_links_are_removed_and_what_they_lead_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    for name in ("folder", "link", "none"):
        disk.remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "outside"]


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


def test_a_refused_write_names_the_bytes_it_needs_and_leaves_nothing(tmp_path: Path, small_files: Any) -> None:
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
