"""The built-in recipes: short, true in form, and all of them train."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bmcli.recipe.load import built_in, load
from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

FASHION = Path("/usr/share/datasets/fashion-mnist")
NAMES = sorted(built_in())
HEADER = re.compile(r"# bmcli train (\S+) · CPU, 2 cores: \d+(\.\d+)? (s|min) · test .*\d\.\d\d")


def test_there_are_recipes() -> None:
    assert {"digits", "fashion-mlp", "fashion-cnn", "fashion-lstm", "fashion-transformer"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_opens_with_command_time_and_result(name: str) -> None:
    first = built_in()[name].read_text(encoding="utf-8").splitlines()[0]
    match = HEADER.match(first)
    assert match, first
    assert match[1] == name


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_at_most_forty_lines_that_say_something(name: str) -> None:
    lines = built_in()[name].read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip() and not line.lstrip().startswith("#")]) <= 40


def test_the_smallest_recipe_has_under_ten_lines(tmp_path: Path) -> None:
    text = "name: small\ndata: {source: {kind: builtin, name: digits}}\nmodel: mlp\n"
    (tmp_path / "small.yaml").write_text(text)
    assert load(str(tmp_path / "small.yaml")).recipe.model.kind == "mlp"


def _prepare(name: str, tmp_path: Path) -> list[str]:
    """What else a recipe needs to be trained here: overrides; data that a machine may lack skips the test."""
    if name.startswith("fashion") and not FASHION.is_dir():
        pytest.skip("needs the package dataset-fashion-mnist")
    if name == "vectors":
        path = tmp_path / "vectors.npz"
        subprocess.run([sys.executable, built_in()[name].with_name("make_vectors.py"), path], check=True)
        return [f"data.source.path={path}"]
    return []


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_and_is_measured(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    settings = _prepare(name, tmp_path)
    done = bmcli("train", name, *settings, "train.epochs=1", "train.stop.steps=3", "evaluate.gates=", "--json")
    assert done.code == 0, done.err
    metrics = done.json()["metrics"]
    assert any(metric.startswith("test/") for metric in metrics)


SCORES = {
    "digits": ("test/accuracy", 0.97),
    "breast-cancer": ("test/accuracy", 0.93),
    "diabetes": ("test/r2", 0.35),
    "penguins": ("test/accuracy", 0.97),
    "vectors": ("test/accuracy", 0.85),
    "fashion-mlp": ("test/accuracy", 0.88),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_a_recipe_reaches_its_score(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    metric, score = SCORES[name]
    done = bmcli("train", name, *_prepare(name, tmp_path), "--json")
    assert done.code == 0, done.err
    assert done.json()["metrics"][metric] >= score
