"""Programs kept for later processes: sealed once they worked, swept away if they are damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bmcli.training import compiled

from ..conftest import WriteRecipe


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    for name in ("a.pb", "b.pb"):
        (tmp_path / name).write_bytes(b"program " + name.encode())
    compiled.seal(tmp_path)
    return tmp_path


def test_a_process_sweeps_once(tmp_path: Path) -> None:
    compiled.sweep_once(tmp_path)
    (tmp_path / "damaged.pb").write_bytes(b"x")
    compiled.sweep_once(tmp_path)
    assert (tmp_path / "damaged.pb").exists()
    compiled.sweep(tmp_path)
    assert not (tmp_path / "damaged.pb").exists()


def test_sealed_entries_stay(sealed: Path) -> None:
    before = kept(sealed)
    compiled.sweep(sealed)
    assert kept(sealed) == before == ["a.pb", "a.pb.sha256", "b.pb", "b.pb.sha256"]


@pytest.mark.parametrize("content", [b"", b"program", b"program b.pX"])
def test_a_damaged_entry_goes_and_its_seal_with_it(sealed: Path, content: bytes) -> None:
    (sealed / "b.pb").write_bytes(content)
    compiled.sweep(sealed)
    assert kept(sealed) == ["a.pb", "a.pb.sha256"]


def test_an_entry_of_a_run_that_never_ended_goes(sealed: Path) -> None:
    (sealed / "c.pb").write_bytes(b"half a prog")
    compiled.sweep(sealed)
    assert "c.pb" not in kept(sealed)


def test_only_the_newest_stay(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "KEPT", 1)
    os.utime(sealed / "a.pb", (1, 1))
    compiled.sweep(sealed)
    assert kept(sealed) == ["b.pb", "b.pb.sha256"]


def test_a_folder_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    compiled.sweep(tmp_path / "none")
    compiled.seal(tmp_path / "none")


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
        return {path.name: path.stat().st_mtime for path in compiled.folder(cache).glob("*.pb")}

    first = train()
    assert first
    assert train() == first
    for entry in compiled.folder(cache).glob("*.pb"):
        entry.write_bytes(entry.read_bytes()[:1000])
    assert sorted(train()) == sorted(first)
