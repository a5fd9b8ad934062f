"""Numbers are written as people write them, in one way everywhere."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bmcli
from bmcli.number_texts import (
    align_decimals,
    is_year,
    write_column,
    write_measure,
    write_number,
    write_signed,
    write_ticks,
    write_values,
)


@pytest.mark.parametrize(
    ("value", "number", "measure"),
    [
        (260_000.0, "260,000", "260,000"),
        (98_000.0, "98,000", "98,000"),
        (183_230.4, "183,230", "183,230"),
        (13_108_200.25, "13,108,200", "13,108,200"),
        (1234.56, "1,234.6", "1,234.6"),
        (58.474, "58.474", "58.474"),
        (9.99996, "10", "10.000"),
        (1.0, "1", "1.0000"),
        (0.9, "0.9", "0.9000"),
        (0.81234, "0.8123", "0.8123"),
        (0.0, "0", "0.0000"),
        (-0.5, "-0.5", "-0.5000"),
        (0.00123, "0.00123", "0.00123"),
        (1e-5, "1e-05", "1.00e-05"),
        (1e30, "1e+30", "1.00e+30"),
        (7, "7", "7"),
        (1_000_000, "1,000,000", "1,000,000"),
        (None, "-", "-"),
        (math.nan, "-", "-"),
        (-math.inf, "-∞", "-∞"),
    ],
)
def test_a_number_has_the_digits_that_count(value: float | None, number: str, measure: str) -> None:
    assert (write_number(value), write_measure(value)) == (number, measure)


@given(st.floats(min_value=-1e14, max_value=1e14).filter(lambda value: value == 0 or abs(value) >= 1e-4))
def test_a_written_number_is_close_and_has_no_exponent(value: float) -> None:
    for written in (write_number(value), write_measure(value)):
        assert "e" not in written
        assert float(written.replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=1e-7)


def test_differences_have_a_sign() -> None:
    assert [write_signed(value) for value in (0.0123, -0.5, 0.0, 12_345.6)] == [
        "+0.0123", "-0.5000", "0.0000", "+12,346",
    ]  # fmt: skip


def test_a_column_of_one_unit_has_one_number_of_decimals() -> None:
    assert write_column([17_286.04, 9.5, -120.0]) == ["17,286", "10", "-120"]
    assert write_column([0.31, 0.001, -0.004, None]) == ["0.3100", "0.0010", "-0.0040", "-"]
    assert write_column([3, 12_345]) == ["3", "12,345"]


def test_decimal_points_stand_below_each_other() -> None:
    assert align_decimals(["0.8123", "32,403", "1.234", "-", "< 0.001", "4.6 MiB"]) == [
        "     0.8123 ", "32,403      ", "     1.234  ", "           -", "   < 0.001  ", "     4.6 MiB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "low", "high", "whole", "expected"),
    [
        *(
            (name, 1872.0, 2010.0, True, True)
            for name in ("Year_Built", "YearBuilt", "Garage_Yr_Blt", "yr_built", "Jahr")
        ),
        ("Lot_Area", 1872.0, 2010.0, True, False),
        ("years", 1.0, 40.0, True, False),
        ("year_share", 1872.5, 2010.0, False, False),
        ("Yearly_Income", 1872.0, 2010.0, True, False),
    ],
)
def test_years_are_known_by_name_and_digits(name: str, low: float, high: float, whole: bool, expected: bool) -> None:
    assert is_year(name, low, high, whole) is expected


def test_years_have_no_separators_and_other_numbers_have() -> None:
    assert write_values("Year_Sold", [2006.0, 2010.0]) == ["2006", "2010"]
    assert write_values("Sale_Price", [2006.0, 755_000.0]) == ["2,006", "755,000"]


@pytest.mark.parametrize(
    ("ticks", "written"),
    [
        ([0, 100_000, 200_000], ["0", "100,000", "200,000"]),
        ([0, 2_000_000], ["0", "2,000,000"]),
        ([1900, 1950, 2000], ["1900", "1950", "2000"]),
        ([0, 0.2, 0.4, 1.0], ["0.0", "0.2", "0.4", "1.0"]),
        ([0, 2.5, 5], ["0.0", "2.5", "5.0"]),
        ([-0.0, 1], ["0", "1"]),
        ([-20_000, 0, 20_000], ["-20,000", "0", "20,000"]),
    ],
)
def test_ticks_have_the_decimals_that_tell_them_apart(ticks: list[float], written: list[str]) -> None:
    assert write_ticks(ticks) == written


SHOWN = ("answers", "evaluation", "reports", "terminal")
BOUNDED = {
    "answers/classes.py": 1,  # a threshold, from 0 to 1
    "evaluation/gates.py": 1,  # the limit of a recipe, with all its digits
    "evaluation/intervals.py": 1,  # a p-value
    "terminal/formats.py": 1,  # milliseconds
    "terminal/presenters/artefacts.py": 1,  # a difference that is small or an error
    "terminal/presenters/benchmark.py": 1,  # milliseconds
    "terminal/presenters/evaluation.py": 1,  # a confidence level
    "terminal/presenters/training_plan.py": 4,  # learning rates
}
"""Formats in which an exponent is no surprise, by module."""


def test_no_room_that_shows_metrics_writes_numbers_with_an_exponent_of_its_own() -> None:
    package = Path(bmcli.__file__).parent
    files = sorted(file for room in SHOWN for file in (package / room).rglob("*.py"))
    assert len(files) > 50
    found = {}
    for file in files:
        specs = [
            part.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr)
            for part in node.format_spec.values
            if isinstance(part, ast.Constant)
        ]
        count = sum(re.search(r"\.[0-9]+[eg]$", spec) is not None for spec in specs)
        if count:
            found[str(file.relative_to(package))] = count
    assert found == BOUNDED
