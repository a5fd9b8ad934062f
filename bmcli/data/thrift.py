"""Parser of Thrift's compact protocol, the format of the headers in Parquet files.

Arrow reads these headers, but does not expose those of single pages.
Format: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import Any

_MAX_DEPTH = 8  # levels of nested structs
_TRUE, _FALSE, _BYTE, _DOUBLE, _TEXT, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)


def parse_struct(data: bytes, place: int, depth: int = _MAX_DEPTH) -> tuple[dict[int, Any], int]:
    """Parse a struct at `place`.

    Returns:
        Its fields by number, None for values other than integers and structs; and the place after it.

    Raises:
        IndexError: The data ends before the struct does.
        ValueError: The struct is damaged; with a message for the user.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := data[place]:
        number, place = (number + (head >> 4), place + 1) if head >> 4 else _parse_integer(data, place + 1)
        kind = head & 15
        if kind not in (_TRUE, _FALSE):  # The type of a boolean field is its value; no bytes follow.
            fields[number], place = _parse_value(data, place, kind, depth)
    return fields, place + 1


def _parse_value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _parse_integer(data, place)
    if kind in (_TRUE, _FALSE, _BYTE):
        return None, place + 1
    if kind == _DOUBLE:
        return None, place + 8
    if kind == _TEXT:
        size, place = _parse_varint(data, place)
        return None, place + size
    if depth < 1:
        raise ValueError("a header is nested too deeply")
    if kind in (_LIST, _SET):
        return None, _skip_list(data, place, depth)
    if kind == _STRUCT:
        return parse_struct(data, place, depth - 1)
    raise ValueError(f"a header holds a field of the unknown type {kind}")


def _skip_list(data: bytes, place: int, depth: int) -> int:
    """Return the place after a list."""
    head, place = data[place], place + 1
    count = head >> 4
    if count == 15:  # Larger counts follow the head.
        count, place = _parse_varint(data, place)
    for _ in range(count):
        _, place = _parse_value(data, place, head & 15, depth - 1)
        # Text is skipped without reading it: a forged count could otherwise run on beyond the end of the data.
        if place > len(data):
            raise IndexError(place)
    return place


def _parse_integer(data: bytes, place: int) -> tuple[int, int]:
    value, place = _parse_varint(data, place)
    return value >> 1 ^ -(value & 1), place  # zigzag encoding


def _parse_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while data[place] & 0x80:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if shift > 63:
            raise ValueError("a header holds a number of more than 64 bits")
    return value | data[place] << shift, place + 1
