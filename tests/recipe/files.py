"""Recipes as files, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bmcli.errors import BmcliError, Fault
from bmcli.recipe.load import load_recipe

SMALLEST = """\
name: smallest
data:
  source: {kind: builtin, name: digits}
model: mlp
"""


def write(folder: Path, text: str, name: str = "recipe.yaml") -> str:
    """The path of a new file with this text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


def faults(target: str, overrides: Sequence[str] = ()) -> tuple[Fault, ...]:
    with pytest.raises(BmcliError) as caught:
        load_recipe(target, overrides)
    return caught.value.faults


def only_fault(target: str, overrides: Sequence[str] = ()) -> Fault:
    found = faults(target, overrides)
    assert len(found) == 1, found
    return found[0]


def where(fault: Fault) -> tuple[str, int, int]:
    assert fault.place is not None, fault
    return Path(fault.place.file).name, fault.place.line, fault.place.column
