"""Foreign text in messages: short, on one line, and without what could rewrite a terminal.

Cells, names of columns and classes, keys of recipes and the words of libraries come from anywhere: a megabyte of them
hides the rest of a message, and a line break or an escape sequence forges one.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 60
"""Characters of a value that are shown."""

_LONGEST_LIST = 600


def quoted(value: object, most: int = LONGEST) -> str:
    """A value as a Python literal of one line: `'cat'`; a long one is cut, and followed by its length.

    Args:
        most: Characters that are shown; more for what a reader has to find or copy, as a path or the right word.
    """
    text = str(value)
    if len(text) <= most:
        return repr(text)
    return f"{text[: most - 3] + '...'!r} ({len(text):,} characters)"


def brief(text: str, most: int = 200) -> str:
    """A text without quotes around it, as the reason that a library gives: cut, and on one line."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:most])
    return shown if len(text) <= most else f"{shown[: most - 3]}... ({len(text):,} characters)"


def shortened(text: str, most: int) -> str:
    """A text that is cut, and followed by its length, if it is long; its characters stay as they are."""
    return text if len(text) <= most else f"{text[: most - 3]}... ({len(text):,} characters)"


def listed(texts: Iterable[str], most: int = 8) -> str:
    """Some texts with commas between them, `, ...` at the end if there are more."""
    shown: list[str] = []
    length = 0
    for text in texts:
        shown.append(brief(text, LONGEST))
        length += len(shown[-1])
        if len(shown) > most or length > _LONGEST_LIST:
            shown[-1] = "..."
            break
    return ", ".join(shown)
