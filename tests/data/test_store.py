"""Entries of the cache: whole, or made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bmcli import disk, records
from bmcli.data import store

KEY = "0123abcd"


class Maker:
    """Fills an entry with the same arrays each time, and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def __call__(self, draft: Path) -> None:
        self.made += 1
        (draft / "train").mkdir()
        np.save(draft / "train" / "labels.npy", np.arange(50))
        np.save(draft / "inputs.npy", np.linspace(0, 1, 40, dtype="float32").reshape(8, 5))
        (draft / "spec.json").write_text('{"offset": 1.5}')

    def ensure(self) -> Path:
        store.ensure_entry(self.folder, self)
        return self.folder


@pytest.fixture
def entry(tmp_path: Path) -> Maker:
    maker = Maker(tmp_path / "kind" / KEY)
    maker.ensure()
    return maker


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_entry_is_not_made_again(entry: Maker, capfd: pytest.CaptureFixture[str]) -> None:
    entry.ensure()
    assert entry.made == 1
    assert capfd.readouterr().err == ""


def test_one_flipped_bit_of_any_byte_is_noticed(entry: Maker) -> None:
    files = [path for path in entry.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"labels.npy", "inputs.npy", "spec.json", "files.json"}
    for path in files:
        whole = path.read_bytes()
        # The last byte of a record is the end of its line, which a space may stand for.
        for place in range(0, len(whole) - 1, 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            harmless = path.name == "files.json" and whole[place : place + 1].isspace()
            assert store.find_damage(entry.folder) or harmless
        path.write_bytes(whole)
    assert store.find_damage(entry.folder) == ""


def flip(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def break_header(file: Path) -> None:
    file.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{" + file.read_bytes()[11:])


def link(file: Path) -> None:
    outside = file.parents[2] / "outside"
    file.rename(outside)
    file.symlink_to(outside)


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: tuple[Callable[[Path], None], ...] = (
    flip, cut, break_header, link, become_folder, Path.unlink, lambda file: file.write_bytes(b""),
    lambda file: file.write_text("[" * 100_000),
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["train/labels.npy", "spec.json", "files.json"])
def test_a_damaged_entry_is_made_again_with_a_word(
    entry: Maker, name: str, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    before = content(entry.folder)
    damage(entry.folder / name)
    assert Path(name).name in store.find_damage(entry.folder)
    assert content(entry.ensure()) == before
    assert entry.made == 2
    output = capfd.readouterr().err
    assert output.startswith(f"warning: {entry.folder} in the cache is damaged (")
    assert output.count("\n") == 1
    assert store.find_damage(entry.folder) == ""


@pytest.mark.parametrize("what", ["file", "link", "broken link", "entry of another key"])
def test_what_takes_the_place_of_an_entry_is_removed_and_no_more(entry: Maker, what: str, tmp_path: Path) -> None:
    before = content(entry.folder)
    moved = tmp_path / "moved"
    entry.folder.rename(moved)
    if what == "file":
        entry.folder.touch()
    elif what == "entry of another key":
        other = Maker(tmp_path / "other")
        other.ensure().rename(entry.folder)
    else:
        entry.folder.symlink_to(moved if what == "link" else tmp_path / "none")
    assert content(entry.ensure()) == before == content(moved)
    assert entry.made == 2


def test_what_cannot_be_made_leaves_the_damaged_entry_and_nothing_else(entry: Maker) -> None:
    flip(entry.folder / "spec.json")

    def fail(draft: Path) -> None:
        raise RuntimeError("no source")

    with pytest.raises(RuntimeError, match="no source"):
        store.ensure_entry(entry.folder, fail)
    assert sorted(path.name for path in entry.folder.parent.iterdir()) == [f".{KEY}.lock", KEY]
    assert store.find_damage(entry.folder)


def test_others_cannot_read_or_write_an_entry_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = Maker(tmp_path / "new" / "kind" / KEY).ensure()
    finally:
        os.umask(before)
    assert [place.stat().st_mode & 0o777 for place in (folder, folder.parent, folder.parents[1])] == [0o700] * 3


def unread(path: Path) -> str:
    raise AssertionError(f"{path} is read again")


def test_a_process_reads_an_entry_once_until_it_changes(entry: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(entry.folder / "spec.json", (1, 1))
    monkeypatch.setattr(store, "_SETTLED_NS", -(10**12))  # as if it were older
    assert store.find_damage(entry.folder) == ""
    with monkeypatch.context() as patched:
        patched.setattr(disk, "compute_sha256", unread)
        assert store.find_damage(entry.folder) == ""
    flip(entry.folder / "spec.json")
    assert "spec.json: changed" in store.find_damage(entry.folder)


def as_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_verified_entries", {})


def test_only_a_large_entry_is_read_once_by_all_processes_until_it_changes(
    entry: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(entry.folder / "spec.json", (1, 1))
    monkeypatch.setattr(store, "_SETTLED_NS", -(10**12))
    assert store.find_damage(entry.folder) == ""
    as_of_another_process(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(disk, "compute_sha256", unread)
        with pytest.raises(AssertionError, match="is read again"):
            store.find_damage(entry.folder)
    monkeypatch.setattr(store, "LARGE_BYTES", 10)
    assert store.find_damage(entry.folder) == ""
    as_of_another_process(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(disk, "compute_sha256", unread)
        assert store.find_damage(entry.folder) == ""
    flip(entry.folder / "spec.json")
    assert "spec.json: changed" in store.find_damage(entry.folder)


def test_a_large_entry_is_read_again_where_another_user_says_that_it_is_whole(
    entry: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(store, "_SETTLED_NS", -(10**12))
    monkeypatch.setattr(store, "LARGE_BYTES", 10)
    with monkeypatch.context() as patched:
        patched.setenv("XDG_CONFIG_HOME", str(tmp_path / "of another user"))
        flip(entry.folder / "spec.json")
        patched.setattr(disk, "compute_sha256", lambda path: records.read_record(entry.folder / "files.json")["files"][
            path.relative_to(entry.folder).as_posix()])  # fmt: skip
        assert store.find_damage(entry.folder) == ""
    assert (entry.folder / "checked").exists()
    as_of_another_process(monkeypatch)
    assert "spec.json: changed" in store.find_damage(entry.folder)


def test_a_change_right_after_a_look_is_noticed_though_clocks_are_coarse(entry: Maker) -> None:
    assert store.find_damage(entry.folder) == ""
    file = entry.folder / "spec.json"
    found = file.stat()
    flip(file)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert "spec.json: changed" in store.find_damage(entry.folder)
