"""Encoded pictures: what their first bytes tell, without decoding them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")

_PNG_COLOURS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour types, transparency left aside
_NO_SIZES = {0xC4, 0xC8, 0xCC}  # markers among those of JPEG frames that are something else
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


@dataclass(frozen=True)
class Header:
    """What a picture announces.

    Args:
        height, width: In pixels.
        channels: 1 for grey, 3 for colour; transparency does not count.
    """

    format: str
    height: int
    width: int
    channels: int


def header(data: bytes) -> Header:
    """The header of a JPEG, PNG, BMP or GIF picture, told by its content.

    Raises:
        ValueError: It is none of them, or its header is damaged; with words for an error text.
    """
    readers = {b"\xff\xd8\xff": _jpeg, b"\x89PNG\r\n\x1a\n": _png, b"BM": _bmp, b"GIF8": _gif}
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


def _png(data: bytes) -> Header:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    return Header("png", height, width, _PNG_COLOURS[colour])


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", height, width, 3)


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    return Header("bmp", abs(height), width, 1 if bits == 8 else 3)  # rows from the top have a negative height


def _jpeg(data: bytes) -> Header:
    place = 2
    while True:
        if data[place] != 0xFF:
            raise KeyError(place)
        marker = data[place + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZES:
            height, width, channels = struct.unpack_from(">HHB", data, place + 5)
            return Header("jpeg", height, width, 1 if channels == 1 else 3)
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
