"""Limits on foreign data. Files beyond them are damaged, or were made to exhaust memory or time."""

from __future__ import annotations

from bmcli.errors import BmcliError

MAX_NESTING = 60
"""Maximum depth of lists and objects in JSON and in columns. Arrow's own files allow 64, of which the table itself
takes some."""

MAX_GROWTH = 200
"""Maximum ratio of unpacked to packed bytes: real arrays and tables reach a hundred, decompression bombs thousands."""

MIN_UNPACKED_BYTES = 2**28
"""Unpacked bytes that are allowed for any file, however small it is."""

BATCH_BYTES = 2**27
"""Maximum bytes of a batch of rows that is decoded at once, where its texts may be long."""

MAX_RECORD_BYTES = 2**26
"""Maximum bytes of a line of JSON, which is held and parsed as a whole. A photo in base64 takes a tenth of this."""

MAX_JPEG_SCANS = 100
"""Maximum number of scans of a JPEG picture, each of which decodes all pixels. Progressive pictures have about ten."""

MAX_SCANNED_FACTOR = 20
"""Maximum pixels that all scans of a JPEG decode together, as a multiple of the pixels allowed for a picture: about two
seconds at 50 megapixels."""

MAX_GIF_SIZE_FACTOR = 4
"""Maximum pixels of all frames of a GIF together, as a multiple of the pixels allowed for a picture: the decoder holds
every frame in memory."""

MAX_COLUMNS = 100_000
"""Maximum number of columns of a table, or of arrays of an archive. Gene expression data has 20,000 to 60,000; each
column costs milliseconds."""

MAX_PICTURES = 5_000_000
"""Maximum number of files of an image folder. All names are held in memory, about 2 GB at this limit."""

_LEVEL_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
"""Change of the nesting level by byte, as signed 8-bit numbers: 1 for an opening bracket, -1 for a closing one."""


def check_growth(place: str, packed_bytes: int, unpacked_bytes: int) -> None:
    """Refuse data whose unpacked size is out of proportion to its packed size.

    Args:
        place: The file, and the part of it that is unpacked, for the message.
        packed_bytes: Size of the file, or of its part.
        unpacked_bytes: Size declared in a header, or size unpacked so far.

    Raises:
        BmcliError: The data has more than `MIN_UNPACKED_BYTES` and exceeds `MAX_GROWTH`.
    """
    if unpacked_bytes > max(MIN_UNPACKED_BYTES, MAX_GROWTH * packed_bytes):
        raise BmcliError(
            f"{place}: {packed_bytes} bytes unpack to {unpacked_bytes} or more, over {MAX_GROWTH} times as many.",
            path="data.source.path",
            suggestion="The file may be a decompression bomb. If you trust it, save it uncompressed, or leave out the "
            "columns that hold a single value.",
        )


def measure_nesting(brackets: bytes) -> tuple[int, int]:
    """Return the deepest nesting level of some brackets, and the level at their end: 0 if all are closed."""
    import numpy as np

    levels = np.cumsum(np.frombuffer(brackets.translate(_LEVEL_STEPS), "int8"), dtype="int32")
    return int(levels.max(initial=0)), int(levels[-1]) if len(levels) else 0
