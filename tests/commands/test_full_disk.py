"""A disk that is full at any moment gives a message, harms no written file, and leaves runs that can be resumed.

The disk is a small tmpfs in a mount namespace of a process of its own, in which all commands of a test run.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
bmcli: 1
name: full
seed: 3
data: {source: {kind: builtin, name: iris}}
model: {kind: mlp, hidden: [64, 64]}
train: {epochs: 2, batch_size: 64, tensorboard: false, checkpoint: {steps: 1}}
runtime: {jit: false}
"""

# Fills the disk up to some bytes, calls bmcli, makes room, calls it again; prints what happened as JSON lines.
DRIVER = """\
import contextlib, hashlib, io, json, os, pathlib, subprocess, sys, shutil
disk, free, again, levels, kept = pathlib.Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
from bmcli.__main__ import main

def call(arguments):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["bmcli", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code
        except BaseException as error:
            code = f"Traceback: {error!r}"
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

def files():
    return {str(each.relative_to(disk)): hashlib.sha256(each.read_bytes()).hexdigest()
            for each in disk.rglob("*") if each.is_file() and not each.is_symlink() and each.name != ".lock"}

for level in levels:
    for arguments in kept:
        assert call(arguments)["code"] == 0
    before = files()
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        for _ in range(max(0, shutil.disk_usage(disk).free - level) // 4096):
            file.write(bytes(4096))
    first = call(free)
    found = files()
    ballast.unlink(missing_ok=True)
    status = call(["runs", "--runs", str(disk / "runs"), "--json"])
    going = again if any(disk.glob("runs/full/*/checkpoints/step-*")) and first["code"] else free
    second = call(going) if first["code"] else first
    changed = [name for name, digest in before.items() if found.get(name) != digest]
    outcome = {"level": level, "first": first, "second": second, "changed": changed, "runs": status}
    print(json.dumps(outcome), flush=True)
    for each in disk.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
"""


@functools.cache
def _reason_not_to() -> str:
    """Return the reason why no small disk can be mounted here."""
    try:
        done = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip()


class Disk:
    """Commands on a small disk that is filled to a level before each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.disk.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE)

    def at(self, levels: list[int], command: list[str], again: list[str], kept: list[list[str]]) -> list[Any]:
        """Run a command at several levels of free bytes.

        Args:
            again: Resumes if there is a checkpoint; otherwise the command is repeated.
            kept: Commands that are called before the disk is filled, whose files have to stay whole.
        """
        if reason := _reason_not_to():
            pytest.skip(f"no disk can be mounted: {reason}")
        arguments = [str(self.disk), *map(json.dumps, (command, again, levels, kept))]
        done = subprocess.run(
            ["unshare", "-rm", sys.executable, "-c", DRIVER, *arguments], cwd=self.folder, env=dict(os.environ),
            capture_output=True, text=True, check=False, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(found) == len(levels)
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def assert_told(found: dict[str, Any], *codes: int) -> None:
    """A refused write is one fault with a path and both sizes; nothing older is harmed, and the command works later."""
    level, first = found["level"], found["first"]
    assert first["code"] in (0, *codes), (level, first)
    assert "Traceback" not in first["err"], (level, first)
    if first["code"]:
        assert "no space left on device" in first["err"], (level, first)
        assert "disk/" in first["err"].split("no space left")[0], (level, first)
        assert "are free there" in first["err"], (level, first)
    assert found["changed"] == [], level
    assert found["second"]["code"] == 0, (level, found["second"])


TRAIN = ["train", "recipe.yaml", "--runs", "disk/runs", "-q"]
RESUME = ["train", "--resume", "full", "--runs", "disk/runs", "-q"]
# From a run directory that cannot be made up to one with all but its page.
LEVELS = [0, 4096, 8192, 16384, 32768, 65536, *range(98304, 600000, 36864)]


def assert_training_told(found: dict[str, Any]) -> None:
    listed = json.loads(found["runs"]["out"])
    states = [run["state"] for run in (listed["runs"] if isinstance(listed, dict) else listed)]
    assert "running" not in states, found
    if found["first"]["code"] and "The run is done and kept." in found["first"]["err"]:
        assert states == ["done"]
        found["second"]["code"] = 0  # only the page is left to write
    assert_told(found, 1)


def test_a_training_on_a_full_disk_is_told_and_goes_on(disk: Disk) -> None:
    for found in disk.at([8192, 131072], TRAIN, RESUME, []):
        assert_training_told(found)


@pytest.mark.slow
def test_a_training_at_twenty_levels_of_a_full_disk_is_told_and_goes_on(disk: Disk) -> None:
    for found in disk.at(LEVELS, TRAIN, RESUME, []):
        assert_training_told(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["export", "full", "--formats", "saved_model", "--runs", "disk/runs"],
        ["export", "full", "--formats", "litert", "--runs", "disk/runs"],
        ["predict", "full", "rows.csv", "--output", "disk/predicted.csv", "--runs", "disk/runs"],
        ["report", "full", "--runs", "disk/runs"],
        ["evaluate", "full", "--split", "train", "--runs", "disk/runs"],
        ["explain", "full", "--runs", "disk/runs"],
    ],
    ids=lambda command: " ".join(command[:4:3] if command[0] == "export" else command[:1]),
)
def test_other_commands_on_a_full_disk_are_told_and_harm_nothing(disk: Disk, command: list[str]) -> None:
    (disk.folder / "rows.csv").write_text(
        ",".join(f"{part} {side} (cm)" for part in ("sepal", "petal") for side in ("length", "width"))
        + "\n5.1,3.5,1.4,0.2" * 4000
    )
    for found in disk.at([0, 8192, 65536], command, command, [TRAIN]):
        if command[0] in ("evaluate", "explain"):  # what fits is brought up to date
            up_to_date = ("evaluation.json", "explanation.json")
            found["changed"] = [name for name in found["changed"] if not name.endswith(up_to_date)]
        if found["first"]["code"] and command[0] in ("export", "predict"):
            assert "bytes were to be written" in found["first"]["err"]
        assert_told(found, 1)
