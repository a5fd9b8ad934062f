"""Parts: a model family, source format, input kind or objective is one module, and its file name is its `kind`.

The folder is the registry. Listing it imports nothing, so names, suggestions and completion cost no time.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bmcli import plugins
from bmcli.quoting import listed, quoted

_LONGEST = 200  # characters of a word
_MOST_KNOWN = 24
_MOST_COMPARED = 20_000  # words, which takes some seconds


@cache
def list_built_in(room: str) -> tuple[str, ...]:
    """List the kinds of a room that are modules of its folder, in alphabetical order."""
    folder = Path(__file__).parent.joinpath(*room.split("."))
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(folder)])))


class Kinds(Collection[str]):
    """The kinds of a room in alphabetical order, those of plug-ins included.

    Plug-ins are looked for only if a kind is not built in, or if all kinds are listed.
    """

    def __init__(self, room: str) -> None:
        self._room = room

    def __contains__(self, kind: object) -> bool:
        return kind in list_built_in(self._room) or kind in plugins.list_kinds(self._room)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted((*list_built_in(self._room), *plugins.list_kinds(self._room))))

    def __len__(self) -> int:
        return len(list_built_in(self._room)) + len(plugins.list_kinds(self._room))


def names(room: str) -> Kinds:
    """Return the kinds of a room, for instance `names("models")`."""
    return Kinds(room)


def load(room: str, kind: str) -> Any:
    """Load the part of one kind: a module of the room's folder, or the part of a plug-in.

    Raises:
        KeyError: `kind` is not one of `names(room)`.
        BmcliError: A plug-in cannot be loaded.
    """
    if kind in list_built_in(room):
        return importlib.import_module(f"bmcli.{room}.{kind}")
    return plugins.load_part(f"{room}.{kind}")


class _Compared:
    words = 0


def suggest_anew() -> None:
    """Begins another recipe or table: of thousands of faults in one only the first are worth a suggestion each."""
    _Compared.words = 0


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The candidate a typist most likely meant, or None if none is near, or none is looked for any more.

    Comparing takes the product of the lengths, so a long word is near to none, and none to a long one.
    """
    candidates = [each for each in words if len(each) <= _LONGEST] if len(word) <= _LONGEST else []
    if _Compared.words > _MOST_COMPARED:
        return None
    _Compared.words += len(candidates)
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
