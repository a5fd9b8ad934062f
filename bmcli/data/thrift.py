"""Structures of Thrift's compact protocol, in which the parts of Parquet files are described.

Format: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import Any

_DEPTH = 8  # of structures in a structure
_TRUE, _FALSE, _BYTE, _DOUBLE, _TEXT, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)


def structure(data: bytes, place: int, depth: int = _DEPTH) -> tuple[dict[int, Any], int]:
    """The fields of a structure by their numbers, None for other values than integers and structures, and its end.

    Raises:
        IndexError: The data ends before the structure does.
        ValueError: It is damaged, with words for an error text.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := data[place]:
        number, place = (number + (head >> 4), place + 1) if head >> 4 else _integer(data, place + 1)
        kind = head & 15
        if kind not in (_TRUE, _FALSE):  # which have no bytes of their own
            fields[number], place = _value(data, place, kind, depth)
    return fields, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _integer(data, place)
    if kind in (_TRUE, _FALSE, _BYTE):
        return None, place + 1
    if kind == _DOUBLE:
        return None, place + 8
    if kind == _TEXT:
        size, place = _varint(data, place)
        return None, place + size
    if depth < 1:
        raise ValueError("a header is nested too deeply")
    if kind in (_LIST, _SET):
        return None, _after_list(data, place, depth)
    if kind == _STRUCT:
        return structure(data, place, depth - 1)
    raise ValueError(f"a header holds a field of the unknown type {kind}")


def _after_list(data: bytes, place: int, depth: int) -> int:
    """Where a list ends."""
    head, place = data[place], place + 1
    count = head >> 4
    if count == 15:
        count, place = _varint(data, place)
    for _ in range(count):
        _, place = _value(data, place, head & 15, depth - 1)
        if place > len(data):
            raise IndexError(place)
    return place


def _integer(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return value >> 1 ^ -(value & 1), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while data[place] & 0x80:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if shift > 63:
            raise ValueError("a header holds a number of more than 64 bits")
    return value | data[place] << shift, place + 1
