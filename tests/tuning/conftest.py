"""Fixtures for searches over a small recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bmcli.recipe.load import load_recipe
from bmcli.trials import SearchObjective
from bmcli.tuning.study import Study, create_study
from tests.conftest import TINY, WriteRecipe

SEARCH = TINY + "tune: {space: {model.dropout: {float: [0, 0.5]}, model.hidden: {choice: [[8], [4, 4]]}}}\n"
ACCURACY = SearchObjective("validation/accuracy", "max")

MakeStudy = Callable[..., Study]


@pytest.fixture
def make_study(tmp_path: Path, write_recipe: WriteRecipe) -> MakeStudy:
    """Create a study of the tiny recipe with overrides."""

    def make(*overrides: str, objectives: tuple[SearchObjective, ...] = (ACCURACY,), text: str = SEARCH) -> Study:
        return create_study(
            tmp_path / "runs", load_recipe(str(write_recipe(text)), overrides), objectives, "fingerprint"
        )

    return make


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study()


def until(there: Callable[[], object], patience_s: float = 120.0) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + patience_s
    while not there():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
