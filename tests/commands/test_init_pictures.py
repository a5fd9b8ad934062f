"""What `bmcli init` writes for folders of pictures: it learns without a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.recipe.load import load_recipe
from tests.drawings import write_drawings
from tests.pictures import save

from .conftest import Bmcli


def _draft(bmcli: Bmcli, folder: Path) -> Any:
    done = bmcli("init", folder, "--json")
    assert done.code == 0, done.err
    return done.json()


def _write_noise(folder: Path, count: int, side: int) -> Path:
    random = np.random.default_rng(0)
    for number in range(count):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(save(random.integers(0, 256, (side, side), "uint8"), "PNG"))
    return folder


@pytest.mark.parametrize(
    ("side", "filters", "pooling"),
    [(2, [16], None), (8, [16], None), (28, [16, 32], None), (64, [16, 32, 64, 64], "max")],
)
def test_a_network_fits_the_size_of_the_pictures(
    bmcli: Bmcli, tmp_path: Path, side: int, filters: list[int], pooling: str | None
) -> None:
    options = _draft(bmcli, _write_noise(tmp_path / "noise", 40, side))["model"]["options"]
    assert (options["kind"], options["filters"], options["normalization"]) == ("cnn", filters, "batch")
    assert options.get("pooling") == pooling


def test_few_pictures_are_augmented_and_a_recipe_says_how(bmcli: Bmcli, tmp_path: Path) -> None:
    _draft(bmcli, _write_noise(tmp_path / "noise", 40, 8))
    text = (tmp_path / "recipe.yaml").read_text()
    assert "add flip if a mirrored picture has the same class" in text
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert [each.kind for each in recipe.data.augment["image"]] == ["translate", "zoom", "rotate"]


def test_pictures_that_look_the_same_are_noted(bmcli: Bmcli, tmp_path: Path) -> None:
    for number in range(12):
        file = tmp_path / "black" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(save(np.zeros((8, 8), "uint8"), "PNG"))
    assert "'image': all of 12 pictures look the same." in _draft(bmcli, tmp_path / "black")["notes"]


def _measure(bmcli: Bmcli, folder: Path, epochs: int) -> float:
    """Return the test accuracy after some epochs of the recipe that `init` writes."""
    _draft(bmcli, folder)
    done = bmcli("train", "recipe.yaml", f"train.epochs={epochs}", "train.tensorboard=false", "--json")
    assert done.code == 0, done.err
    accuracy: float = done.json()["metrics"]["test/accuracy"]
    return accuracy


def test_drawings_are_learned_in_a_few_epochs(bmcli: Bmcli, tmp_path: Path) -> None:
    """Five kinds of shapes, 180 for training: chance is 0.2."""
    assert _measure(bmcli, write_drawings(tmp_path / "drawings", 300, 48), epochs=20) > 0.45


@pytest.mark.slow
def test_large_drawings_are_learned(bmcli: Bmcli, tmp_path: Path) -> None:
    assert _measure(bmcli, write_drawings(tmp_path / "drawings", 300, 96), epochs=60) > 0.5
