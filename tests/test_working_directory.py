"""The working directory may hold a foreign recipe: nothing that lies beside it is code for a process of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bmcli

RECIPE = """\
name: NAME
data: {source: {kind: builtin, name: iris}}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1}
"""
TUNE = "tune: {space: {model.hidden: {choice: [[4], [8]]}}, trials: 2, workers: 1, confirm: none}\n"
DISTILL = """\
tune: {space: {train.optimizer.learning_rate: {log: [1e-3, 1e-1]}}, trials: 2, workers: 1, confirm: none}
distill: {student: {model: {hidden: [2]}}, losses: [{kind: soft}]}
"""


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        (RECIPE + TUNE, ("tune", "recipe.yaml")),
        (RECIPE, ("train", "recipe.yaml", "--workers", "2")),
        (RECIPE + "evaluate: {folds: 2}\n", ("evaluate", "recipe.yaml", "--workers", "1")),
        (RECIPE + DISTILL, ("tune", "recipe.yaml")),
    ],
    ids=["trials", "workers", "folds", "teachers"],
)
def test_modules_beside_a_recipe_are_not_imported(tmp_path: Path, recipe: str, command: tuple[str, ...]) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe.replace("NAME", "beside"))
    for module in ("keras", "numpy", "multiprocessing"):
        (tmp_path / f"{module}.py").write_text("import pathlib; pathlib.Path('imported').touch()\n")
    own = {name: str(tmp_path / name) for name in ("BMCLI_CACHE", "BMCLI_RUNS", "XDG_CONFIG_HOME")}
    # -P stands for the installed script, which does not look into the working directory itself.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bmcli", *command],
        env={**os.environ, **own}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not (tmp_path / "imported").exists()
    assert done.returncode == 0, done.stderr


def test_every_process_is_started_without_the_working_directory() -> None:
    sources = {path: path.read_text() for path in Path(bmcli.__file__).parent.rglob("*.py")}
    starts = [path.name for path, text in sources.items() if "sys.executable" in text]
    assert len(starts) >= 3
    assert [path.name for path, text in sources.items() if '[sys.executable, "-m"' in text] == []
