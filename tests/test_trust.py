"""The user's key, seals, and folders that others could write."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from bmcli import trust


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_seal_fits_its_content_and_purpose_alone() -> None:
    made = trust.seal(b"content", "card")
    assert trust.is_sealed(b"content", "card", made)
    assert not trust.is_sealed(b"other", "card", made)
    assert not trust.is_sealed(b"content", "cache", made)
    assert not trust.is_sealed(b"content", "card", None)


def test_a_seal_of_another_user_is_none_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = trust.seal(b"content", "card")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of another user"))
    assert not trust.is_sealed(b"content", "card", made)
    assert trust.seal(b"content", "card") != made


def test_only_the_user_can_read_the_key() -> None:
    trust.seal(b"", "card")
    assert trust.locate_key().stat().st_mode & 0o777 == 0o600
    assert trust.locate_key().stat().st_size == 32


@pytest.mark.parametrize("damage", ["readable by others", "empty", "a link", "a folder"])
def test_a_key_that_others_may_know_is_not_used(damage: str, tmp_path: Path) -> None:
    made = trust.seal(b"", "card")
    key = trust.locate_key()
    content = key.read_bytes()
    if damage == "readable by others":
        key.chmod(0o644)
    else:
        key.unlink()
        if damage == "empty":
            key.touch(mode=0o600)
        elif damage == "a folder":
            key.mkdir()
        else:
            (tmp_path / "elsewhere").write_bytes(content)
            (tmp_path / "elsewhere").chmod(0o600)
            key.symlink_to(tmp_path / "elsewhere")
    assert trust.seal(b"", "card") is None
    assert not trust.is_sealed(b"", "card", made)


def test_a_folder_of_the_user_is_safe(tmp_path: Path) -> None:
    assert trust.explain_foreign_write_access(tmp_path) == ""


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777])
def test_a_folder_that_others_write_is_not(mode: int, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    assert "is writable by other users" in trust.explain_foreign_write_access(folder)


def test_nor_one_below_it_or_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "open" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "below")
    (tmp_path / "open").chmod(0o777)
    assert "open is writable by other users" in trust.explain_foreign_write_access(tmp_path / "open" / "below")
    assert "open is writable by other users" in trust.explain_foreign_write_access(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_nor_one_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    assert "belongs to another user (uid 12345)" in trust.explain_foreign_write_access(tmp_path)


def test_a_folder_that_is_not_there_yet_is_as_safe_as_those_above_it(tmp_path: Path) -> None:
    assert trust.explain_foreign_write_access(tmp_path / "none" / "below") == ""
    tmp_path.chmod(0o777)
    assert "is writable by other users" in trust.explain_foreign_write_access(tmp_path / "none" / "below")


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        trust.explain_foreign_write_access(tmp_path / "loop")


@pytest.mark.parametrize(
    ("uid", "name", "members", "access_list", "safe"),
    [
        (1000, "ann", [], False, True),
        (1000, "ann", ["ann"], False, True),
        (1000, "ann", ["bob"], False, False),
        (1000, "staff", [], False, False),
        (1000, "ann", [], True, False),
        (0, "ann", [], False, False),
    ],
)
def test_the_group_of_the_user_alone_may_write(
    uid: int, name: str, members: list[str], access_list: bool, safe: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o775)
    gid = folder.stat().st_gid
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("ann", "x", uid, gid, "", "/", "")))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, members)))
    monkeypatch.setattr(trust, "_has_access_list", lambda place: access_list)
    assert (trust.explain_foreign_write_access(folder) == "") is safe
    folder.chmod(0o777)
    assert trust.explain_foreign_write_access(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_root_outside_of_a_user_namespace_may_own_the_folders_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path, int(Path("/proc/sys/kernel/overflowuid").read_text()), -1)
    assert "belongs to another user" in trust.explain_foreign_write_access(tmp_path / "mine")
    monkeypatch.setattr(trust, "_ALL_USERS", ["another map"])
    assert trust.explain_foreign_write_access(tmp_path / "mine") == ""
    assert "belongs to another user" in trust.explain_foreign_write_access(tmp_path)
