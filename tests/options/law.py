"""The law: another value of an option changes something, or is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe
from tests.options.options import is_section, list_owners, list_values

Observe = Callable[[Any], str]
"""Computes a digest of what a recipe or a part does; for equal ones it is equal."""


def load(values: Mapping[str, Any], folder: Path) -> Recipe:
    """Load a recipe from plain values."""
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(values, ensure_ascii=False).replace("$", "$$"), encoding="utf-8")
    return load_recipe(str(file)).recipe


@dataclass(frozen=True)
class Change:
    """Another value of an option, for which it needs others beside it.

    Args:
        beside: Values of other options by dotted path, in both recipes.
    """

    value: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """Options of one owner of the schema, and where their effect is seen.

    Args:
        owner: A key of `list_owners()`.
        place: Dotted path of the owner in the recipe; empty if the values are the owner's own.
        recipe: A recipe with the owner, as plain values.
        sights: Digests of what the recipe does; one that differs is enough.
        changes: Values to try, by option; without an entry those that the schema suggests.
        load: Reads the values.
        elsewhere: Tests that show an effect which needs more than a small recipe, by option: `tests/FILE.py::test`.
    """

    owner: str
    place: str
    recipe: Mapping[str, Any]
    sights: tuple[Observe, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    load: Callable[[Mapping[str, Any], Path], Any] = load

    def list_options(self) -> list[str]:
        return [name for name, option in list_owners()[self.owner].items() if not is_section(option)]


def find_idle_options(subject: Subject, folder: Path) -> list[str]:
    """Find the options of which no value has an effect, each with what was tried."""
    seen: dict[tuple[Observe, str], str] = {}

    def observe(sight: Observe, recipe: Mapping[str, Any]) -> str:
        text = json.dumps(recipe)
        if (sight, text) not in seen:
            try:
                seen[sight, text] = sight(subject.load(recipe, folder))
            except (BmcliError, ValidationError, PydanticCustomError) as error:
                seen[sight, text] = f"{_REFUSED}{error}"
        return seen[sight, text]

    idle = []
    for name in subject.list_options():
        if name in subject.elsewhere:
            continue
        tried = []
        for change in _list_changes(subject, name):
            before = _make_recipe(subject, change.beside)
            after = copy.deepcopy(before)
            _insert(after, f"{subject.place}.{name}".lstrip("."), change.value)
            if after == before:
                continue
            results = [(observe(sight, before), observe(sight, after)) for sight in subject.sights[:1]]
            for sight in subject.sights[1:]:
                if results[-1][0] == results[-1][1]:
                    results.append((observe(sight, before), observe(sight, after)))
            first, second = results[-1]
            assert not first.startswith(_REFUSED), f"{subject.owner}.{name}: {first}"
            is_refused = second.startswith(_REFUSED)
            tried.append((change.value, second if is_refused else "no effect"))
            if not is_refused and second != first:
                break
        else:
            # A value that is refused proves nothing about one that is accepted and has no effect.
            if not tried or not all(result.startswith(_REFUSED) for _, result in tried):
                idle.append(f"{subject.owner}.{name}: {tried}")
    return idle


_REFUSED = "refused: "


def _list_changes(subject: Subject, name: str) -> Iterator[Change]:
    if name in subject.changes:
        change = subject.changes[name]
        yield change if isinstance(change, Change) else Change(change)
        return
    option = list_owners()[subject.owner][name]
    inside: Any = subject.recipe
    for step in subject.place.split(".") if subject.place else ():
        inside = inside[int(step)] if isinstance(inside, list) else inside.get(step, {})
    # The default is another value only where the recipe has one of its own.
    current = inside.get(name, option.get("default"))
    yield from (Change(value) for value in list_values(option)[:8] if value != current)


def _make_recipe(subject: Subject, beside: Mapping[str, Any]) -> dict[str, Any]:
    recipe = copy.deepcopy(dict(subject.recipe))
    for path, value in beside.items():
        _insert(recipe, path, value)
    return recipe


def _insert(recipe: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    inside: Any = recipe
    for step in above:
        inside = inside[int(step)] if isinstance(inside, list) else inside.setdefault(step, {})
    if isinstance(inside, list):
        inside[int(last)] = value
    else:
        inside[last] = value
