"""How much foreign data may take: what goes beyond was made to exhaust memory or time, or is damaged."""

from __future__ import annotations

from bmcli.errors import BmcliError

MAX_NESTING = 60
"""Levels of lists and objects in JSON and in columns. Arrow's own files hold 64, of which some go to the table."""

MAX_GROWTH = 200
"""How many times the bytes of a file its data may have: real arrays and tables have up to a hundred times as many,
what was made to exhaust memory thousands."""

FREE_BYTES = 2**28
"""To which any file may grow, however small it is."""

BATCH_BYTES = 2**27
"""Of rows that are decoded at a time, where their texts may be long."""

RECORD_BYTES = 2**26
"""Of a line of JSON, which is held and parsed as a whole. A photo written as text takes a tenth."""

MAX_JPEG_SCANS = 100
"""Of a JPEG picture, each of which goes over all of its pixels. Progressive ones have about ten."""

SCANNED = 20
"""How many times the pixels allowed for a picture all scans of a JPEG may go over: two seconds at 50 megapixels."""

MAX_GIF_SIZE_FACTOR = 4
"""How many times the pixels allowed for a picture all frames of a GIF may have: each is held in memory."""

COLUMNS = 100_000
"""Of a table, or arrays of an archive. Genomes are measured in 20,000 to 60,000; each column costs milliseconds."""

PICTURES = 5_000_000
"""In the folders of a source, whose names are all in memory: some 2 GB of them."""

_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
"""What each byte adds to the level, as 8 bits with a sign."""


def check_growth(place: str, packed_bytes: int, unpacked_bytes: int) -> None:
    """Refuses data that unpacks to far more than honest data does.

    Args:
        place: The file, and what in it.
        packed_bytes: Of the file, or of the part of it.
        unpacked_bytes: As announced before the work, or as unpacked so far.

    Raises:
        BmcliError: It grows beyond reason.
    """
    if unpacked_bytes > max(FREE_BYTES, MAX_GROWTH * packed_bytes):
        raise BmcliError(
            f"{place}: {packed_bytes} bytes unpack to {unpacked_bytes} or more, over {MAX_GROWTH} times as many.",
            path="data.source.path",
            suggestion="It may be made to exhaust memory. If you trust it, save it unpacked, or leave out the columns "
            "that hold one value.",
        )


def measure_nesting(brackets: bytes) -> tuple[int, int]:
    """The deepest level of some brackets, and the level at their end, which is 0 where all are closed."""
    import numpy as np

    levels = np.cumsum(np.frombuffer(brackets.translate(_STEPS), "int8"), dtype="int32")
    return int(levels.max(initial=0)), int(levels[-1]) if len(levels) else 0
