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

from bmcli.quoting import listed, quoted

_LONGEST = 200  # characters of a word
_MOST_KNOWN = 24
_MOST_COMPARED = 20_000  # words, which takes some seconds


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


class _Comparisons:
    words = 0


def reset_suggestions() -> None:
    """Begins another recipe or table: of thousands of faults in one only the first are worth a suggestion each."""
    _Comparisons.words = 0


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The candidate a typist most likely meant, or None if none is near, or none is looked for any more.

    Comparing takes the product of the lengths, so a long word is near to none, and none to a long one.
    """
    candidates = [each for each in words if len(each) <= _LONGEST] if len(word) <= _LONGEST else []
    if _Comparisons.words > _MOST_COMPARED:
        return None
    _Comparisons.words += len(candidates)
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
        return f"Did you mean {quoted(near, _LONGEST)}?"
    if 0 < len(candidates) <= _MOST_KNOWN:
        return f"Known: {listed(candidates, _MOST_KNOWN)}."
    return ""
