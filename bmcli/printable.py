"""Foreign text that is safe to show."""

from __future__ import annotations

import re

# Beside control characters, those that turn the direction of writing: with them "exe.png" is shown as "gnp.exe".
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Replace control characters, which could rewrite a terminal, and lone surrogates, which cannot be encoded."""
    return _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text).encode("utf-8", "replace").decode("utf-8")
