"""Quantities with units, and how values are shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bmcli.recipe.fields import Duration, Size
from bmcli.recipe.nodes import format_value

DURATION, SIZE = TypeAdapter[float](Duration), TypeAdapter[float](Size)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("1.5h", 5400.0), ("2 d", 172800.0), ("250ms", 0.25), ("1s", 1.0)]
)
def test_a_duration_is_in_seconds(text: str, seconds: float) -> None:
    assert DURATION.validate_python(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512MiB", 2**29), ("1KiB", 1024), ("7B", 7), ("0.5GiB", 2**29)])
def test_a_size_is_in_bytes(text: str, size: float) -> None:
    assert SIZE.validate_python(text) == size


WRONG = [
    "30",
    "m",
    "30 min",
    "-1s",
    "0s",
    "0.0h",
    "1e3s",
    "٣s",
    "1s ",
    " 1s",
    "1.s",
    "9" * 400 + "h",
    "9" * 20 + "s",
    30,
    30.0,
    True,
    None,
    [],
]


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="expected a duration like 30m"):
        DURATION.validate_python(value)


@given(st.floats(min_value=0, max_value=1e17, exclude_min=True))
def test_a_written_duration_reads_back_to_the_same_seconds(seconds: float) -> None:
    assert DURATION.validate_python(DURATION.dump_python(seconds)) == seconds


@given(st.integers(1, 2**59))
def test_a_written_size_reads_back_to_the_same_bytes(size: int) -> None:
    assert SIZE.validate_python(SIZE.dump_python(float(size))) == float(size)


@pytest.mark.parametrize(
    ("seconds", "text"), [(60.0, "1m"), (5400.0, "90m"), (0.25, "250ms"), (86400.0, "1d"), (1.5, "1500ms")]
)
def test_a_duration_is_written_in_the_largest_fitting_unit(seconds: float, text: str) -> None:
    assert DURATION.dump_python(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"), (True, "true"), (1.5, "1.5"), ("a", "'a'"), ((1, "b"), "[1, b]"), ({"a": 1}, "{a: 1}"),
        (tuple(range(9)), "a list"), ({"a": (1,)}, "a mapping"), ((), "[]"), 
            ("x" * 80, f"'{'x' * 57}...' (80 characters)"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_it_is_written_if_it_is_short(value: Any, text: str) -> None:
    assert format_value(value) == text
