"""Normalisation of texts before they are split into tokens; `bmcli.layers.token_encoder` does the same in a graph."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Literal

Accents = Literal["keep", "strip"]
Spaces = Literal["collapse", "keep"]
Punctuation = Literal["split", "drop", "keep"]

# Scripts in which marks are accents; in others a mark distinguishes letters.
ACCENTED = (range(0xC0, 0x250), range(0x370, 0x530), range(0x1E00, 0x2000))
MARKS = range(0x300, 0x370)
"""Marks that are removed with the accents."""


@dataclass(frozen=True)
class Normalization:
    """How texts are changed before they are split.

    The character 0, at which some operations of TensorFlow end a text, becomes the replacement character.

    Args:
        composed: Convert to Unicode's normal form C.
        lowercase: Convert to lower case.
        accents: `keep`, or `strip` those of Latin, Greek and Cyrillic letters.
    """

    composed: bool = True
    lowercase: bool = False
    accents: Accents = "keep"

    def apply(self, text: str) -> str:
        """Normalise a text."""
        text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        text = unicodedata.normalize("NFC", text) if self.composed else text
        text = text.lower() if self.lowercase else text
        return text.translate(_accent_table()) if self.accents == "strip" else text


def find_plain_letter(code: int) -> int:
    """Return the letter of the scripts with accents without them, other code points as they are."""
    if any(code in script for script in ACCENTED):
        base, *marks = list(unicodedata.normalize("NFD", chr(code)))
        if all(unicodedata.combining(mark) for mark in marks):
            return ord(base)
    return code


def collapse_spaces(text: str) -> str:
    """Replace spaces and control characters in a row by one space, and remove those around the text."""
    return " ".join(word for word in text.translate(_space_table()).split(" ") if word)


def drop_punctuation(text: str) -> str:
    """Replace all but letters, marks, digits and the underscore by spaces."""
    return text.translate(_sign_table())


@cache
def _accent_table() -> dict[int, int | None]:
    letters = {code: find_plain_letter(code) for script in ACCENTED for code in script}
    changed = {code: plain for code, plain in letters.items() if plain != code}
    return {**changed, **dict.fromkeys(MARKS)}


@cache
def _space_table() -> dict[int, str]:
    categories = ((code, unicodedata.category(chr(code))) for code in range(sys.maxunicode + 1))
    return {code: " " for code, category in categories if category[0] == "Z" or category == "Cc"}


@cache
def _sign_table() -> dict[int, str]:
    codes = range(sys.maxunicode + 1)
    return {code: " " for code in codes if code != ord("_") and unicodedata.category(chr(code))[0] not in "LMN"}


def split_words(text: str | None) -> list[str]:
    """Split a text at blanks, as the tokens `words` do with `punctuation: keep`; a missing text has no words."""
    return collapse_spaces(text or "").split()
