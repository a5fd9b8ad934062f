"""Custom operators of a LiteRT model, read from its file without loading it.

The file is a FlatBuffer of tensorflow/compiler/mlir/lite/schema/schema.fbs: the second field of `Model` is the list
of its `OperatorCode`.
"""

from __future__ import annotations

import struct

_CUSTOM, _DELEGATE = 32, 51
"""Built-in codes of operators by name, and of operators that a delegate created."""


def find_custom_operators(content: bytes) -> list[str]:
    """Find operators that are not built into LiteRT, such as TensorFlow's `FlexWriteFile`.

    Raises:
        ValueError: It is not a LiteRT model.
    """
    try:
        return [
            name for code in _find_operator_codes(content) if (name := _read_custom_name(content, code)) is not None
        ]
    except struct.error:
        raise ValueError("not a LiteRT model") from None


def _find_operator_codes(content: bytes) -> list[int]:
    """Find the offset of each `OperatorCode`."""
    field = _find_field(content, _follow_offset(content, 0), 1)
    if field is None:
        return []
    vector = _follow_offset(content, field)
    (count,) = _unpack("<I", content, vector)
    return [_follow_offset(content, vector + 4 + 4 * index) for index in range(min(count, len(content) // 4 + 1))]


def _read_custom_name(content: bytes, code: int) -> str | None:
    """Read the name of a custom operator; None for a built-in one."""
    old, new = _find_field(content, code, 0), _find_field(content, code, 3)
    number = max(
        0 if old is None else _unpack("<b", content, old)[0], 0 if new is None else _unpack("<i", content, new)[0]
    )
    name = ""
    if (field := _find_field(content, code, 1)) is not None:
        start = _follow_offset(content, field)
        (size,) = _unpack("<I", content, start)
        name = content[start + 4 : start + 4 + min(size, 100)].decode("utf-8", "replace")
    return name or (f"code {number}" if number in (_CUSTOM, _DELEGATE) else None)


def _find_field(content: bytes, table: int, number: int) -> int | None:
    """Find the offset of a field of a table; None if it has its default."""
    vtable = table - _unpack("<i", content, table)[0]
    entry = 4 + 2 * number
    if entry + 2 > _unpack("<H", content, vtable)[0]:
        return None
    (offset,) = _unpack("<H", content, vtable + entry)
    return table + offset if offset else None


def _follow_offset(content: bytes, at: int) -> int:
    """Read an offset, and return the position that it points to."""
    return int(at + _unpack("<I", content, at)[0])


def _unpack(layout: str, content: bytes, at: int) -> tuple[int, ...]:
    if at < 0:
        raise struct.error("before the file")  # struct would count a negative offset from the end
    return struct.unpack_from(layout, content, at)
