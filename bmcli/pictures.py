"""Encoded pictures: what their first bytes tell, without decoding them."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")

# How a camera was held (Exif 2.32, section 4.6.4): a field of the first directory of a segment near the beginning.
ORIENTATION = 0x0112
EXIF_SEARCH_BYTES = 2**17
"""Bytes at the beginning of a JPEG file, in which such a segment is looked for."""
EXIF = b"Exif\0\0"
EXIF_MARKER, COMMENT_MARKER, FIRST_MARKER, LAST_MARKER = 0xE1, 0xFE, 0xE0, 0xEF

_PNG_COLOURS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour types, transparency left aside
_NOT_FRAME_MARKERS = {0xC4, 0xC8, 0xCC}  # markers among those of JPEG frames that are something else
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the others stand inside of a scan


@dataclass(frozen=True)
class ImageHeader:
    """What a picture announces.

    Args:
        height, width: In pixels, of the picture as it is looked at: upright.
        channels: 1 for grey, 3 for colour; transparency does not count.
        frame_pixels: Of all frames of a GIF together, each of which is decoded and held in memory.
        scans: Of a JPEG at most, each of which goes over all pixels.
    """

    format: str
    height: int
    width: int
    channels: int
    frame_pixels: int = 0
    scans: int = 1


def read_header(data: bytes) -> ImageHeader:
    """The header of a JPEG, PNG, BMP or GIF picture, told by its content.

    Raises:
        ValueError: It is none of them, or its header is damaged; with words for an error text.
    """
    readers = {
        b"\xff\xd8\xff": _read_jpeg_header,
        b"\x89PNG\r\n\x1a\n": _read_png_header,
        b"BM": _read_bmp_header,
        b"GIF8": _read_gif_header,
    }
    reader = next((reader for magic, reader in readers.items() if data.startswith(magic)), None)
    if reader is None:
        received = f"begins with {data[:12]!r}" if data else "is empty"
        raise ValueError(f"expected a JPEG, PNG, BMP or GIF picture; the file {received}.")
    try:
        found = reader(data)
    except (struct.error, IndexError, KeyError):
        raise ValueError("the header of the picture is damaged or cut off.") from None
    if found.height < 1 or found.width < 1:
        raise ValueError(f"the picture announces {found.height} x {found.width} pixels.")
    return found


def _read_png_header(data: bytes) -> ImageHeader:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    return ImageHeader("png", height, width, _PNG_COLOURS[colour])


def _read_gif_header(data: bytes) -> ImageHeader:
    """The decoder makes the picture as wide as its widest frame and as high as its highest one, even when it keeps the
    first alone; the screen that is announced does not matter to it.
    """
    place = 13 + _count_palette_bytes(data[10])
    width = height = pixels = 0
    while data[place : place + 1] in (b"!", b","):
        if data[place] == ord(","):
            across, down, flags = struct.unpack_from("<HHB", data, place + 5)
            width, height, pixels = max(width, across), max(height, down), pixels + across * down
            place += 11 + _count_palette_bytes(flags)
        else:
            place += 2
        while size := data[place]:
            place += 1 + size
            if place >= len(data):  # cut off, as the decoder will tell
                return ImageHeader("gif", height, width, 3, pixels)
        place += 1
    return ImageHeader("gif", height, width, 3, pixels)


def _count_palette_bytes(flags: int) -> int:
    """Bytes of the table of colours that some flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_bmp_header(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    return ImageHeader("bmp", abs(height), width, 1 if bits == 8 else 3)  # rows from the top have a negative height


def _count_scans(data: bytes, place: int) -> int:
    """Scans of a JPEG from one of its markers on to its end, after which cameras put other things, as films."""
    count = 0
    while found := _MARKER.search(data, place):
        place = found.start()
        if data[place + 1] == 0xD9 or place + 4 > len(data):
            break
        count += data[place + 1] == 0xDA
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return count


def _read_jpeg_header(data: bytes) -> ImageHeader:
    place = 2
    while True:
        if data[place] != 0xFF:
            raise KeyError(place)
        marker = data[place + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_MARKERS:
            height, width, channels = struct.unpack_from(">HHB", data, place + 5)
            sides = (width, height) if read_orientation(data) >= 5 else (height, width)
            return ImageHeader("jpeg", *sides, 1 if channels == 1 else 3, scans=_count_scans(data, place))
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]


def read_orientation(data: bytes) -> int:
    """How a JPEG picture lies by what its camera noted: 1 is upright, 2 to 8 mirrored or turned, from 5 on sideways.

    The layer that decodes finds the same in the same way. What is not there counts as 0, and no note as 1.
    """
    data, place = data[:EXIF_SEARCH_BYTES], 2
    while _is_segment(data, place) and place + 4 <= len(data):
        if data[place + 1] == EXIF_MARKER and data[place + 4 : place + 10] == EXIF:
            return _parse_exif_orientation(data[place + 10 :])
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 1


def _is_segment(data: bytes, place: int) -> bool:
    """Whether a segment of notes begins there, which are those before the picture itself."""
    marker = data[place + 1 : place + 2]
    is_note = marker == bytes([COMMENT_MARKER]) or bytes([FIRST_MARKER]) <= marker <= bytes([LAST_MARKER])
    return data[place : place + 1] == b"\xff" and is_note


def _parse_exif_orientation(notes: bytes) -> int:
    """The orientation in a directory of fields of 12 bytes: tag, type, count, value."""
    order: Literal["little", "big"] = "little" if notes.startswith(b"II") else "big"

    def number(place: int, size: int) -> int:
        return int.from_bytes(notes[place : place + size].ljust(size, b"\0"), order)

    first = number(4, 4) + 2
    for place in range(first, first + 12 * number(first - 2, 2), 12):
        if number(place, 2) == ORIENTATION:
            found = number(place + 8, 2)
            return found if 1 <= found <= 8 else 1
    return 1
