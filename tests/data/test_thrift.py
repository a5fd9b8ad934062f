from __future__ import annotations

import numpy as np
import pytest

from bmcli.data.thrift import parse_struct

NUMBER, TRUE, LIST, TEXT, STRUCT = b"\x15", b"\x11", b"\x19", b"\x18", b"\x1c"
"""Heads of fields whose numbers are 1 more than those before."""


def test_numbers_and_structures_are_read_and_others_passed() -> None:
    inner = NUMBER + b"\x06" + b"\0"
    data = (
        NUMBER
        + b"\xd8\x04"
        + TRUE
        + LIST
        + b"\x25\x02\x04"
        + TEXT
        + b"\x02ab"
        + STRUCT
        + inner
        + NUMBER
        + b"\x03"
        + b"\0"
    )
    assert parse_struct(b"x" + data + b"rest", 1) == ({1: 300, 3: None, 4: None, 5: {1: 3}, 6: -2}, 1 + len(data))


def test_fields_may_have_numbers_far_apart() -> None:
    assert parse_struct(b"\x05\x28\x02" + b"\0", 0) == ({20: 1}, 4)


@pytest.mark.parametrize("size", range(8))
def test_data_that_ends_too_early_is_distinguished_from_damage(size: int) -> None:
    with pytest.raises(IndexError):
        parse_struct((NUMBER + b"\x02" + TEXT + b"\x05abc")[:size], 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (STRUCT * 100_000, "nested too deeply"),
        (LIST + b"\x19" * 100_000, "nested too deeply"),
        (b"\x1f", "unknown type 15"),
        (NUMBER + b"\xff" * 100_000, "more than 64 bits"),
    ],
)
def test_damage_is_described(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_struct(data, 0)


def test_random_bytes_end_in_words() -> None:
    draw = np.random.default_rng(0)
    for _ in range(3000):
        data = draw.integers(0, 256, 60, dtype="uint8").tobytes()
        try:
            found, end = parse_struct(data, 0)
        except (IndexError, ValueError):
            continue
        assert end > 0
        assert isinstance(found, dict)
