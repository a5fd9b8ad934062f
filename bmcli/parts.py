"""Parts: a model family, source format, input kind or objective is one module, and its file name is its `kind`.

The folder is the registry. It is listed without importing modules, so that names, suggestions and shell completion
take no time.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bmcli.quoting import listed, quoted

_MAX_LENGTH = 200  # characters of a word
_MAX_LISTED = 24
_MAX_COMPARISONS = 20_000  # words; this takes some seconds


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
        return kind in list_built_in(self._room) or kind in self._list_added()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted((*list_built_in(self._room), *self._list_added())))

    def __len__(self) -> int:
        return len(list_built_in(self._room)) + len(self._list_added())

    def _list_added(self) -> tuple[str, ...]:
        from bmcli import plugins  # not at the top: most commands start without it

        return plugins.list_kinds(self._room)


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
    from bmcli import plugins

    return plugins.load_part(f"{room}.{kind}")


class _Comparisons:
    """Number of words compared since `reset_suggestions`."""

    words = 0


def reset_suggestions() -> None:
    """Allow suggestions again, for another recipe or table.

    Of thousands of faults in one recipe or table only the first get suggestions, because each takes time.
    """
    _Comparisons.words = 0


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Find the word that a user most likely meant; None if none is similar, or after too many comparisons."""
    import difflib  # not at the top: most commands start without it

    # Comparing takes time proportional to the product of both lengths, so long words are left out.
    candidates = [each for each in words if len(each) <= _MAX_LENGTH] if len(word) <= _MAX_LENGTH else []
    if _Comparisons.words > _MAX_COMPARISONS:
        return None
    _Comparisons.words += len(candidates)
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if not matches:
        by_lower = {candidate.lower().replace("_", ""): candidate for candidate in candidates}
        folded = difflib.get_close_matches(word.lower().replace("_", ""), list(by_lower), n=1, cutoff=0.7)
        return by_lower[folded[0]] if folded else None
    return matches[0]


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Suggest the most similar word, or list all words if there are few; empty if there are many."""
    candidates = sorted(words)
    near = nearest(word, candidates)
    if near:
        return f"Did you mean {quoted(near, _MAX_LENGTH)}?"
    if 0 < len(candidates) <= _MAX_LISTED:
        return f"Known: {listed(candidates, _MAX_LISTED)}."
    return ""
