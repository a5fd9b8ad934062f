"""Headers of encoded pictures: format, size, depth and orientation, read without decoding."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".pdf", ".dng", ".cr2", ".nef")
"""Endings of pictures whose formats are not read."""
FORMATS = "JPEG, PNG, BMP, GIF, WebP or TIFF"
SERVED_FORMATS = "JPEG, PNG, BMP or GIF"
"""Formats of the files that a served model decodes by itself."""

# The orientation of the camera (Exif 2.32, section 4.6.4) is a field of the first directory of the Exif segment.
ORIENTATION = 0x0112
EXIF_SEARCH_BYTES = 2**17
"""Bytes at the beginning of a JPEG file that are searched for the Exif segment."""
EXIF = b"Exif\0\0"
EXIF_MARKER, COMMENT_MARKER, FIRST_MARKER, LAST_MARKER = 0xE1, 0xFE, 0xE0, 0xEF

PNG_SEARCH_BYTES = 2**17
"""Bytes at the beginning of a PNG file that are searched for the colour that stands for transparency."""
GIF_SEARCH_BYTES = 2**10
"""Bytes at the beginning of a GIF file that are searched for the colour that stands for transparency."""

_PNG_COLOURS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # channels by colour type, without transparency
_PNG_WITH_ALPHA = (4, 6)
_GIF_TRANSPARENCY = re.compile(rb"!\xf9\x04[\x01\x03\x05\x07\x09\x0b\x0d\x0f\x11\x13\x15\x17\x19\x1b\x1d\x1f]")
_NOT_FRAME_MARKERS = {0xC4, 0xC8, 0xCC}  # in the range of JPEG's frame markers, but tables and extensions
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}

_ISO_FORMATS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
_TIFF_SIZES = {1: (1, "B"), 3: (2, "H"), 4: (4, "I")}  # bytes and format of a value by type of field
# Width, height, bits, colours, orientation, channels, kinds of further channels.
_TIFF_FIELDS = (256, 257, 258, 262, ORIENTATION, 277, 338)
_MAX_TIFF_CHANNELS = 16

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
        bits: Bits of a channel that count: 16 for a file with more than 8.
        has_alpha: Whether pixels may be transparent.
        is_native: Whether TensorFlow decodes the file, and decodes it as people see it. Others are converted first.
    """

    format: str
    height: int
    width: int
    channels: int
    frame_pixels: int = 0
    scans: int = 1
    bits: Literal[8, 16] = 8
    has_alpha: bool = False
    is_native: bool = True


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a picture; the format is recognised by its first bytes.

    Raises:
        ValueError: The data has no known format, or its header is damaged; with a message for the user.
    """
    readers = {
        b"\xff\xd8\xff": _read_jpeg_header,
        b"\x89PNG\r\n\x1a\n": _read_png_header,
        b"BM": _read_bmp_header,
        b"GIF8": _read_gif_header,
        b"RIFF": _read_webp_header,
        b"II*\0": _read_tiff_header,
        b"MM\0*": _read_tiff_header,
    }
    reader = next((reader for magic, reader in readers.items() if data.startswith(magic)), None)
    if reader is None:
        raise ValueError(_describe_other_format(data))
    try:
        header = reader(data)
    except (struct.error, IndexError, KeyError):
        raise ValueError("the header of the picture is damaged or cut off.") from None
    if header.height < 1 or header.width < 1:
        raise ValueError(f"the header declares {header.height} x {header.width} pixels, expected at least 1 x 1.")
    return header


def looks_like_picture(start: bytes) -> bool:
    """Whether a file is a picture by its first 16 bytes, also one of a format that is not read."""
    return (
        start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))
        or (start.startswith(b"BM") and start[6:10] == bytes(4))  # the next bytes of a text are letters
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:12] in _ISO_FORMATS)
    )


def _describe_other_format(data: bytes) -> str:
    """Describe a file that is no picture of a known format, with the next step where the format is a usual one."""
    if not data:
        return f"expected a {FORMATS} picture; the file is empty."
    if data[4:8] == b"ftyp" and data[8:12] in _ISO_FORMATS:
        return f"{_ISO_FORMATS[data[8:12]]} pictures are not read. Convert them to JPEG first, with any image viewer."
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return f"expected a {FORMATS} picture; the file is a web page, probably of a download that failed."
    if start.startswith((b"<svg", b"<?xml")):
        return "drawings in SVG have no pixels. Convert them to PNG first."
    return f"expected a {FORMATS} picture; the file begins with {data[:12]!r}."


def _read_png_header(data: bytes) -> ImageHeader:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    return ImageHeader(
        "png",
        height,
        width,
        _PNG_COLOURS[colour],
        bits=16 if bits == 16 else 8,
        has_alpha=colour in _PNG_WITH_ALPHA or _has_transparent_colour(data[:PNG_SEARCH_BYTES]),
    )


def _has_transparent_colour(data: bytes) -> bool:
    """Whether a chunk before the pixels of a PNG declares transparent colours.

    The layer `PictureDecoder` finds it in the same way.
    """
    place = 8
    while place + 8 <= len(data) and (name := data[place + 4 : place + 8]) != b"IDAT":
        if name == b"tRNS":
            return True
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return False


def _read_gif_header(data: bytes) -> ImageHeader:
    """Read the size of a GIF from its frames.

    TensorFlow's decoder makes the picture as wide as its widest frame and as high as its highest one, even when it
    returns only the first frame; it ignores the size of the logical screen.
    """
    place = 13 + _count_palette_bytes(data[10])
    # TensorFlow paints transparent pixels black. The layer `PictureDecoder` refuses them by the same search.
    has_alpha = _GIF_TRANSPARENCY.search(data[:GIF_SEARCH_BYTES]) is not None
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
                break
        place += 1
    return ImageHeader("gif", height, width, 3, pixels, has_alpha=has_alpha, is_native=not has_alpha)


def _count_palette_bytes(flags: int) -> int:
    """Count the bytes of the colour table that a packed field of GIF declares."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_bmp_header(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        (width, height, _, bits), compression, used, entry = struct.unpack_from("<HHHH", data, 18), 0, 0, 3
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (used,), entry = struct.unpack_from("<I", data, 46), 4
    is_grey = False
    if bits <= 8:
        palette = data[14 + size : 14 + size + entry * min(used or 1 << bits, 1 << bits)]
        is_grey = palette[::entry] == palette[1::entry] == palette[2::entry]
    # TensorFlow ignores palettes, and knows neither compression nor the header of 12 bytes.
    is_native = bits in (24, 32) and compression == 0 and size > 12
    # A negative height means top-down rows.
    return ImageHeader(
        "bmp", abs(height), width, 1 if is_grey else 3, has_alpha=compression in (3, 6), is_native=is_native
    )


def _read_webp_header(data: bytes) -> ImageHeader:
    """Read the size of a WebP picture from its first chunk.

    The files are not decoded by TensorFlow, whose decoder damages the memory of the process on animated ones.
    """
    if data[8:12] != b"WEBP":
        raise KeyError(data[8:12])
    name, orientation = data[12:16], 1
    if name == b"VP8X":
        flags = data[20]
        width, height = (1 + int.from_bytes(data[place : place + 3], "little") for place in (24, 27))
        has_alpha = bool(flags & 0x10)
        orientation = _find_webp_orientation(data) if flags & 0x08 else 1
    elif name == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height, has_alpha = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    elif name == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        has_alpha = False
    else:
        raise KeyError(name)
    sides = (width, height) if orientation >= 5 else (height, width)
    return ImageHeader("webp", *sides, 3, has_alpha=has_alpha, is_native=False)


def _find_webp_orientation(data: bytes) -> int:
    place = 12
    while place + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        if data[place : place + 4] == b"EXIF":
            return _parse_exif_orientation(data[place + 8 : place + 8 + size].removeprefix(EXIF))
        place += 8 + size + size % 2
    return 1


def _read_tiff_header(data: bytes) -> ImageHeader:
    """Read the fields of the first picture of a TIFF file (TIFF 6.0, section 2)."""
    order = "<" if data.startswith(b"II") else ">"

    def read_values(kind: int, count: int, place: int) -> tuple[int, ...]:
        if kind not in _TIFF_SIZES:
            return ()
        count = min(count, _MAX_TIFF_CHANNELS)
        if count * _TIFF_SIZES[kind][0] > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        return struct.unpack_from(f"{order}{count}{_TIFF_SIZES[kind][1]}", data, place)

    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    fields: dict[int, tuple[int, ...]] = {}
    for place in range(first + 2, first + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, place)
        if tag in _TIFF_FIELDS:
            fields[tag] = read_values(kind, values, place + 8)
    width, height = fields[256][0], fields[257][0]
    orientation = fields.get(ORIENTATION, (1,))[0]
    samples = fields.get(277, (1,))[0]
    sides = (width, height) if 5 <= orientation <= 8 else (height, width)
    return ImageHeader(
        "tiff",
        *sides,
        channels=1 if fields.get(262, (1,))[0] in (0, 1) else 3,
        # Pillow, which decodes these files, keeps more than 8 bits of grey only.
        bits=16 if samples == 1 and fields.get(258, (1,))[0] > 8 else 8,
        has_alpha=bool({1, 2} & set(fields.get(338, ()))),
        is_native=False,
    )


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
