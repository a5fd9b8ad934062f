"""Each presenter prints the text and the JSON object of its golden files."""

from __future__ import annotations

import json
import pkgutil

import pytest

from bmcli.terminal import presenters
from tests.terminal.results import GOLDEN, RESULTS, print_golden
from tests.test_words import find_faults

NAMES = sorted(module.name for module in pkgutil.iter_modules(presenters.__path__))


def test_every_presenter_has_a_result() -> None:
    assert len(NAMES) > 15
    assert sorted(RESULTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_result_as_text(name: str) -> None:
    assert print_golden(name, as_json=False) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_in_standard_words(name: str) -> None:
    assert find_faults(iter((GOLDEN / f"{name}.txt").read_text().splitlines())) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_result_as_json(name: str) -> None:
    expected = json.dumps(json.loads((GOLDEN / f"{name}.json").read_text()))
    assert print_golden(name, as_json=True) == f"{expected}\n"
