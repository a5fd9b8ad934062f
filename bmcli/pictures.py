"""Headers of encoded pictures: format, size and orientation, read without decoding."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")

# The orientation of the camera (Exif 2.32, section 4.6.4) is a field of the first directory of the Exif segment.
ORIENTATION = 0x0112
EXIF_SEARCH_BYTES = 2**17
"""Bytes at the beginning of a JPEG file that are searched for the Exif segment."""
EXIF = b"Exif\0\0"
EXIF_MARKER, COMMENT_MARKER, FIRST_MARKER, LAST_MARKER = 0xE1, 0xFE, 0xE0, 0xEF

_PNG_COLOURS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # channels by colour type, without transparency
_NOT_FRAME_MARKERS = {0xC4, 0xC8, 0xCC}  # in the range of JPEG's frame markers, but tables and extensions
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}

# Inside of a scan, FF 00 is a data byte and FF D0 to FF D7 are restart markers, neither of which begins a segment.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of a picture, as its header declares them.

    Args:
        height, width: Pixels of the upright picture, after its orientation is applied.
        channels: 1 for grey, 3 for colour; transparency does not count.
        frame_pixels: Pixels of all frames of a GIF together; the decoder holds every frame in memory.
        scans: Upper bound of the number of scans of a JPEG, each of which decodes all pixels.
    """

    format: str
    height: int
    width: int
    channels: int
    frame_pixels: int = 0
    scans: int = 1


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG, PNG, BMP or GIF picture; the format is recognised by its first bytes.

    Raises:
        ValueError: The data has none of these formats, or its header is damaged; with a message for the user.
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
        header = reader(data)
    except (struct.error, IndexError, KeyError):
        raise ValueError("the header of the picture is damaged or cut off.") from None
    if header.height < 1 or header.width < 1:
        raise ValueError(f"the header declares {header.height} x {header.width} pixels, expected at least 1 x 1.")
    return header


def _read_png_header(data: bytes) -> ImageHeader:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    return ImageHeader("png", height, width, _PNG_COLOURS[colour])


def _read_gif_header(data: bytes) -> ImageHeader:
    """Read the size of a GIF from its frames.

    TensorFlow's decoder makes the picture as wide as its widest frame and as high as its highest one, even when it
    returns only the first frame; it ignores the size of the logical screen.
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
            if place >= len(data):  # The file is cut off: the decoder refuses it later, with a clear error.
                return ImageHeader("gif", height, width, 3, pixels)
        place += 1
    return ImageHeader("gif", height, width, 3, pixels)


def _count_palette_bytes(flags: int) -> int:
    """Count the bytes of the colour table that a packed field of GIF declares."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_bmp_header(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    return ImageHeader("bmp", abs(height), width, 1 if bits == 8 else 3)  # A negative height means top-down rows.


def _count_scans(data: bytes, place: int) -> int:
    """Count the scans of a JPEG from the marker at `place` to its end marker.

    The count stops there because cameras append other data, such as films, which may contain further markers.
    """
    count = 0
    while marker := _MARKER.search(data, place):
        place = marker.start()
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
            # Orientations from 5 on are rotated by a quarter turn, so the upright picture has the sides swapped.
            sides = (width, height) if read_orientation(data) >= 5 else (height, width)
            return ImageHeader("jpeg", *sides, 1 if channels == 1 else 3, scans=_count_scans(data, place))
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]


def read_orientation(data: bytes) -> int:
    """Read the Exif orientation of a JPEG picture: 1 is upright, 2 to 8 are mirrored or rotated, from 5 on by 90°.

    The layer `PictureDecoder` finds the same value in the same way. Bytes beyond the end count as 0; without the field
    the orientation is 1.
    """
    data, place = data[:EXIF_SEARCH_BYTES], 2
    while _is_segment(data, place) and place + 4 <= len(data):
        if data[place + 1] == EXIF_MARKER and data[place + 4 : place + 10] == EXIF:
            return _parse_exif_orientation(data[place + 10 :])
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 1


def _is_segment(data: bytes, place: int) -> bool:
    """Whether an application or comment segment begins at `place`; they stand before the picture data."""
    marker = data[place + 1 : place + 2]
    is_metadata = marker == bytes([COMMENT_MARKER]) or bytes([FIRST_MARKER]) <= marker <= bytes([LAST_MARKER])
    return data[place : place + 1] == b"\xff" and is_metadata


def _parse_exif_orientation(exif: bytes) -> int:
    """Parse the orientation from a directory of fields of 12 bytes: tag, type, count, value."""
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"

    def read_number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size].ljust(size, b"\0"), order)

    first = read_number(4, 4) + 2
    for place in range(first, first + 12 * read_number(first - 2, 2), 12):
        if read_number(place, 2) == ORIENTATION:
            orientation = read_number(place + 8, 2)
            return orientation if 1 <= orientation <= 8 else 1
    return 1
