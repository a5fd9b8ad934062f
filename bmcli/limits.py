"""How much foreign data may take: what goes beyond was made to exhaust memory or time, or is damaged."""

from __future__ import annotations

NESTING = 60
"""Levels of lists and objects in JSON. Arrow's own files hold 64, of which some go to the table itself."""

SCANS = 100
"""Of a JPEG picture, each of which goes over all of its pixels. Progressive ones have about ten."""

FRAMES = 4
"""How many times the pixels allowed for a picture all frames of a GIF may have: each is held in memory."""

COLUMNS = 100_000
"""Of a table, or arrays of an archive. Genomes are measured in 20,000 to 60,000; each column costs milliseconds."""

PICTURES = 5_000_000
"""In the folders of a source, whose names are all in memory: some 2 GB of them."""

_OPENING, _CLOSING = b"[{", b"]}"


def nesting(brackets: bytes) -> tuple[int, int]:
    """The deepest level of some brackets, and the level at their end, which is 0 where all are closed."""
    level = deepest = 0
    for bracket in brackets:
        if bracket in _OPENING:
            level += 1
            deepest = max(deepest, level)
        elif bracket in _CLOSING:
            level -= 1
    return deepest, level
