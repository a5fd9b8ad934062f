"""Parts: a model family, source format, input kind or objective is one module, and its file name is its `kind`.

The folder is the registry. Listing it imports nothing, so names, suggestions and completion cost no time.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def names(room: str) -> tuple[str, ...]:
    """Kinds of a room in alphabetical order, for instance `names("models")`."""
    folder = Path(__file__).parent.joinpath(*room.split("."))
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(folder)])))


def load(room: str, kind: str) -> ModuleType:
    """The module of one kind; `kind` must be one of `names(room)`."""
    if kind not in names(room):
        raise KeyError(f"{room} has no kind {kind!r}")
    return importlib.import_module(f"bmcli.{room}.{kind}")


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The candidate a typist most likely meant, or None if none is near."""
    candidates = list(words)
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if not matches:
        by_lower = {candidate.lower().replace("_", ""): candidate for candidate in candidates}
        folded = difflib.get_close_matches(word.lower().replace("_", ""), list(by_lower), n=1, cutoff=0.7)
        return by_lower[folded[0]] if folded else None
    return matches[0]


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A suggestion: the nearest right word, or the list of all when it is short."""
    candidates = sorted(words)
    near = nearest(word, candidates)
    if near:
        return f"Did you mean '{near}'?"
    if 0 < len(candidates) <= 24:
        return "Known: " + ", ".join(candidates) + "."
    return ""
