"""Programs kept for later processes: sealed once they have worked, removed if they are damaged."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bmcli import disk
from bmcli.recipe.load import load_recipe
from bmcli.training import compilation_cache, environment_variables
from tests.trainers import WriteRecipe


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    assert compilation_cache.is_usable(tmp_path)  # as every process looks before TensorFlow does
    for name in ("a.pb", "b.pb"):
        (tmp_path / name).write_bytes(b"program " + name.encode())
    compilation_cache.seal_new_entries(tmp_path)
    return tmp_path


def test_a_process_sweeps_once(tmp_path: Path) -> None:
    assert compilation_cache.is_usable(tmp_path)
    (tmp_path / "damaged.pb").write_bytes(b"x")
    assert compilation_cache.is_usable(tmp_path)
    assert (tmp_path / "damaged.pb").exists()
    assert compilation_cache.remove_unsealed(tmp_path)
    assert not (tmp_path / "damaged.pb").exists()


def test_sealed_entries_stay(sealed: Path) -> None:
    before = kept(sealed)
    assert compilation_cache.remove_unsealed(sealed)
    assert kept(sealed) == before == ["a.pb", "a.pb.seal", "b.pb", "b.pb.seal"]


@pytest.mark.parametrize("content", [b"", b"program", b"program b.pX"])
def test_a_damaged_entry_goes_and_its_seal_with_it(sealed: Path, content: bytes) -> None:
    (sealed / "b.pb").write_bytes(content)
    compilation_cache.remove_unsealed(sealed)
    assert kept(sealed) == ["a.pb", "a.pb.seal"]


def test_an_entry_of_a_run_that_never_ended_goes(sealed: Path) -> None:
    (sealed / "c.pb").write_bytes(b"half a prog")
    compilation_cache.remove_unsealed(sealed)
    assert "c.pb" not in kept(sealed)


def test_only_the_newest_stay(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation_cache, "MAX_ENTRIES", 1)
    os.utime(sealed / "a.pb", (1, 1))
    compilation_cache.remove_unsealed(sealed)
    assert kept(sealed) == ["b.pb", "b.pb.seal"]


def test_a_folder_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    assert compilation_cache.remove_unsealed(tmp_path / "none")
    compilation_cache.seal_new_entries(tmp_path / "none")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("suffix", [".seal", ".sha256"])
def test_a_digest_is_no_seal(sealed: Path, suffix: str) -> None:
    (sealed / "forged.pb").write_bytes(b"program of somebody else")
    digest = hashlib.sha256(b"program of somebody else").hexdigest()
    (sealed / f"forged.pb{suffix}").write_text(digest)
    assert compilation_cache.remove_unsealed(sealed)
    assert "forged.pb" not in kept(sealed)


def test_a_seal_is_of_one_user_and_one_name(
    sealed: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".pb", ".pb.seal"):
        (sealed / f"c{suffix}").write_bytes((sealed / f"a{suffix}").read_bytes())
    assert compilation_cache.remove_unsealed(sealed)
    assert kept(sealed) == ["a.pb", "a.pb.seal", "b.pb", "b.pb.seal"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("of another user")))
    assert compilation_cache.remove_unsealed(sealed)
    assert kept(sealed) == []


def test_what_is_no_file_goes_and_does_not_keep_forged_entries_alive(
    sealed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "program"
    outside.write_bytes((sealed / "a.pb").read_bytes())
    (sealed / "a.pb").unlink()
    (sealed / "a.pb").symlink_to(outside)
    (sealed / "0.pb").symlink_to(sealed / "none")
    (sealed / "1.pb").mkdir()
    (sealed / "1.pb" / "inside").touch()
    os.mkfifo(sealed / "2.pb")
    (sealed / "forged.pb").write_bytes(b"program of somebody else")
    assert compilation_cache.remove_unsealed(sealed)
    assert kept(sealed) == ["b.pb", "b.pb.seal"]
    assert outside.exists()


def test_what_is_no_file_is_never_sealed(sealed: Path) -> None:
    (sealed / "link.pb").symlink_to(sealed / "a.pb")
    compilation_cache.seal_new_entries(sealed)
    assert "link.pb.seal" not in kept(sealed)


def test_a_folder_that_others_write_is_not_used_and_nothing_in_it_is_sealed(sealed: Path) -> None:
    sealed.chmod(0o777)
    (sealed / "forged.pb").write_bytes(b"program of somebody else")
    assert not compilation_cache.remove_unsealed(sealed)
    compilation_cache.is_usable.cache_clear()
    compilation_cache.seal_new_entries(sealed)
    sealed.chmod(0o700)
    compilation_cache.seal_new_entries(sealed)
    assert "forged.pb.seal" not in kept(sealed)


def test_without_a_key_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits").recipe
    assert "persistent_cache" in environment_variables(recipe, tmp_path / "first")["TF_XLA_FLAGS"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert "TF_XLA_FLAGS" not in environment_variables(recipe, tmp_path / "second")


def test_an_entry_that_cannot_be_removed_is_not_run(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(disk, "remove", refuse)
    assert compilation_cache.remove_unsealed(sealed)
    (sealed / "forged.pb").write_bytes(b"program of somebody else")
    assert not compilation_cache.remove_unsealed(sealed)


@pytest.mark.slow
def test_a_second_process_uses_what_the_first_compiled_and_survives_its_damage(
    write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = write_recipe()
    cache = tmp_path / "cache"
    environment = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}

    def train() -> dict[str, float]:
        command = [sys.executable, "-m", "bmcli", "train", str(recipe), "runtime.jit=true", "train.epochs=1", "-q"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**environment, "BMCLI_CACHE": str(cache)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {path.name: path.stat().st_mtime for path in compilation_cache.cache_folder(cache).glob("*.pb")}

    first = train()
    assert first
    assert train() == first
    for entry in compilation_cache.cache_folder(cache).glob("*.pb"):
        forged = entry.read_bytes()[:1000]
        entry.write_bytes(forged)
        for suffix in (".seal", ".sha256"):
            entry.with_name(entry.name + suffix).write_text(hashlib.sha256(forged).hexdigest())
    assert sorted(train()) == sorted(first)
