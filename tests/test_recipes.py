"""The built-in recipes: short, true in form, and all of them train."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from bmcli import parts
from bmcli.recipe import students
from bmcli.recipe.load import list_built_in, load_recipe
from bmcli.recipe.schema import Recipe
from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

FASHION = Path("/usr/share/datasets/fashion-mnist")
NAMES = sorted(list_built_in())
HEADER = re.compile(r"# bmcli (?:train|tune|distill) (\S+) · CPU, 2 cores: \d+(\.\d+)? (s|min) · test .*\d\.\d\d")

FOLDERS = ("compression", "distillation", "images", "sequences", "tables", "text")
SCRIPTS = {
    "pictures": ("make_pictures.py", "vars.folder", "pictures"),
    "shapes": ("make_shapes.py", "vars.folder", "shapes"),
    "vectors": ("make_vectors.py", "data.source.path", "vectors.npz"),
    "waves": ("make_waves.py", "data.source.path", "waves.npz"),
}
"""Of recipes whose data a script writes: the script, the key of the recipe that names what it wrote, and its name."""

IN_NO_RECIPE: Mapping[str, Mapping[str, str]] = {
    "data.sources": {"tfrecord": "a person who has such files has TensorFlow code that wrote them"},
    "models": {
        "application": "worth its size with learned weights alone, whose files are too large to ship",
        "convnext": "takes minutes on two cores; a recipe waits for its figure to be measured",
    },
}
"""Parts that no recipe shows, and why."""


def test_there_are_recipes() -> None:
    assert {"digits", "fashion-mlp", "fashion-cnn", "fashion-lstm", "fashion-transformer"} <= set(NAMES)


def test_every_recipe_lies_in_a_folder_and_has_a_name_of_its_own() -> None:
    root = list_built_in()["digits"].parent.parent
    files = sorted(root.rglob("*.yaml"))
    assert {file.parent for file in files} == {root / folder for folder in FOLDERS}
    twice = [name for name, times in Counter(file.stem for file in files).items() if times > 1]
    assert twice == [], "recipes of one name in two folders: the second would hide the first"
    assert sorted(file.stem for file in files) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_called_as_its_file(name: str) -> None:
    assert load_recipe(name).recipe.name == name


def _kinds(recipe: Recipe) -> dict[str, Iterable[str]]:
    """The kinds of parts that a recipe names or that follow from what it names, by room."""
    return {
        "models": [recipe.model.kind],
        "data.sources": [recipe.data.source.kind],
        "inputs": [options.kind for options in (recipe.data.inputs or {}).values()],
        "data.targets": [options.kind for options in recipe.targets().values()],
        "objectives": [options.kind for options in recipe.objectives().values()],
    }


@pytest.mark.parametrize("room", ["models", "data.sources", "inputs", "data.targets", "objectives"])
def test_every_part_is_shown_by_a_recipe(room: str) -> None:
    shown = {kind for name in NAMES for kind in _kinds(load_recipe(name).recipe)[room]}
    missing = set(parts.names(room)) - shown
    assert missing == set(IN_NO_RECIPE.get(room, {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_opens_with_command_time_and_result(name: str) -> None:
    first = list_built_in()[name].read_text(encoding="utf-8").splitlines()[0]
    match = HEADER.match(first)
    assert match, first
    assert match[1] == name


@pytest.mark.parametrize("name", [name for name in NAMES if load_recipe(name).recipe.distill is not None])
def test_a_recipe_that_distills_makes_a_student(name: str) -> None:
    loaded = load_recipe(name)
    assert list_built_in()[name].read_text(encoding="utf-8").startswith("# bmcli distill ")
    students.check_student(loaded)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_at_most_forty_lines_besides_comments_and_blanks(name: str) -> None:
    lines = list_built_in()[name].read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip() and not line.lstrip().startswith("#")]) <= 40


def test_the_smallest_recipe_has_under_ten_lines(tmp_path: Path) -> None:
    text = "name: small\ndata: {source: {kind: builtin, name: digits}}\nmodel: mlp\n"
    (tmp_path / "small.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "small.yaml")).recipe.model.kind == "mlp"


def _prepare(name: str, tmp_path: Path) -> list[str]:
    """What else a recipe needs to be trained here: overrides; data that a machine may lack skips the test."""
    if name.startswith("fashion") and not FASHION.is_dir():
        pytest.skip("needs the package dataset-fashion-mnist")
    if name not in SCRIPTS:
        return []
    script, key, written = SCRIPTS[name]
    subprocess.run([sys.executable, list_built_in()[name].with_name(script), tmp_path / written], check=True)
    return [f"{key}={tmp_path / written}"]


SLOW_TO_BUILD = {"abalone", "fashion-mobilenet", "fashion-transformer", "letter", "shakespeare", "sms-attention"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_TO_BUILD else []) for name in NAMES]
)
def test_a_recipe_trains_and_is_measured(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    settings = _prepare(name, tmp_path)
    done = bmcli("train", name, *settings, "train.epochs=1", "train.stop.steps=3", "evaluate.gates=", "--json")
    assert done.code == 0, done.err
    metrics = done.json()["metrics"]
    assert any(metric.startswith("test/") for metric in metrics)


SCORES = {
    "digits": ("test/accuracy", 0.97),
    "pictures": ("test/accuracy", 0.96),
    "fashion-mlp": ("test/accuracy", 0.88),
    "iris": ("test/accuracy", 0.93),
    "breast-cancer": ("test/accuracy", 0.93),
    "diabetes": ("test/r2", 0.35),
    "penguins": ("test/accuracy", 0.97),
    "cars": ("test/price/r2", 0.88),
    "concrete": ("test/r2", 0.85),
    "concrete-interval": ("test/coverage", 0.8),
    "bikes": ("test/r2", 0.88),
    "bikes-ahead": ("test/r2", 0.91),
    "bikes-later": ("test/r2", 0.65),
    "vectors": ("test/accuracy", 0.85),
    "sms-cnn": ("test/accuracy", 0.97),
    "waves": ("test/accuracy", 0.88),
    "letter": ("test/accuracy", 0.97),
    "abalone": ("test/r2", 0.53),
    "shapes": ("test/f1_micro", 0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_a_recipe_reaches_its_score(name: str, bmcli: Bmcli, tmp_path: Path) -> None:
    metric, score = SCORES[name]
    done = bmcli("train", name, *_prepare(name, tmp_path), "--json")
    assert done.code == 0, done.err
    assert done.json()["metrics"][metric] >= score
    assert "The network learns nothing." not in done.err
