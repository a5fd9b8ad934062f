"""Searches over a small recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bmcli.recipe.load import load
from bmcli.trials import Objective
from bmcli.tuning import study as studies
from bmcli.tuning.study import Study
from tests.conftest import TINY, WriteRecipe

SEARCH = TINY + "tune: {space: {model.dropout: {float: [0, 0.5]}, model.hidden: {choice: [[8], [4, 4]]}}}\n"
ACCURACY = Objective("validation/accuracy", "max")

MakeStudy = Callable[..., Study]


@pytest.fixture
def make_study(tmp_path: Path, write_recipe: WriteRecipe) -> MakeStudy:
    """Begins a search over the tiny recipe with overrides."""

    def make(*overrides: str, objectives: tuple[Objective, ...] = (ACCURACY,), text: str = SEARCH) -> Study:
        return studies.create(tmp_path / "runs", load(str(write_recipe(text)), overrides), objectives, "fingerprint")

    return make


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study()


def until(there: Callable[[], object], patience_s: float = 120.0) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + patience_s
    while not there():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
