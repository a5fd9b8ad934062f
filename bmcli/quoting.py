"""Foreign text in messages: short, on one line, and without control characters.

Cells, names of columns and classes, recipe keys and messages of libraries are not under our control: a megabyte of text
hides the rest of a message, and a line break or an escape sequence can forge one.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_SHOWN = 60
"""Maximum number of characters shown of a value."""

_MAX_LIST_CHARACTERS = 600


def quoted(value: object, most: int = MAX_SHOWN) -> str:
    """Format a value as a Python literal on one line, such as `'cat'`; cut a long one and append its length.

    Args:
        most: Maximum number of characters shown; larger for text that a reader has to find or copy, such as a path.
    """
    text = str(value)
    if len(text) <= most:
        return repr(text)
    return f"{text[: most - 3] + '...'!r} ({len(text):,} characters)"


def brief(text: str, most: int = 200) -> str:
    """Format a text without quotes, such as the message of a library: cut, and on one line."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:most])
    return shown if len(text) <= most else f"{shown[: most - 3]}... ({len(text):,} characters)"


def shortened(text: str, most: int) -> str:
    """Cut a long text and append its length; do not escape any character."""
    return text if len(text) <= most else f"{text[: most - 3]}... ({len(text):,} characters)"


def listed(texts: Iterable[str], most: int = 8) -> str:
    """Join texts with commas, with `, ...` at the end if some are left out."""
    shown: list[str] = []
    length = 0
    for text in texts:
        shown.append(brief(text, MAX_SHOWN))
        length += len(shown[-1])
        if len(shown) > most or length > _MAX_LIST_CHARACTERS:
            shown[-1] = "..."
            break
    return ", ".join(shown)
