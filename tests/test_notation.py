"""How people write numbers and missing values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from bmcli.notation import NumberNotation, count_markers, guess_numbers, parse_numbers, write_number

ROWS = range(160)
AMOUNTS = [900 + 10.5 * row for row in ROWS]
NAN = float("nan")


def text(cells: Sequence[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


@pytest.mark.parametrize(
    ("notation", "written"),
    [
        (NumberNotation(), "1234.5"),
        (NumberNotation(".", ","), "1,234.5"),
        (NumberNotation(",", "."), "1.234,5"),
        (NumberNotation(",", " ", "EUR"), "1 234,5 EUR"),
        (NumberNotation(".", ",", "$"), "$1,234.5"),
        (NumberNotation(".", "", "%"), "1234.5%"),
    ],
    ids=str,
)
def test_a_number_is_written_as_it_is_read(notation: NumberNotation, written: str) -> None:
    assert write_number("1234.5", notation) == written
    assert parse_numbers(text([written]), notation)[0].tolist() == [1234.5]


def swap(number: str) -> str:
    """Write a number with points between groups and a comma before the fraction."""
    return number.translate({ord(","): ".", ord("."): ","})


@pytest.mark.parametrize(
    ("notation", "cell", "number"),
    [
        (NumberNotation(), "-1.5e3", -1500),
        (NumberNotation(), "\N{MINUS SIGN}5", -5),
        (NumberNotation(), "- 5", -5),
        (NumberNotation(), "(1.5)", -1.5),
        (NumberNotation(), "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}", 12),
        (NumberNotation(), '"5"', 5),
        (NumberNotation(), "'5", 5),
        (NumberNotation(".", ","), "1,234.50", 1234.5),
        (NumberNotation(".", ","), "(1,234.50)", -1234.5),
        (NumberNotation(".", ","), "12,34,567", 1234567),
        (NumberNotation(",", "."), "1.234.567,89", 1234567.89),
        (NumberNotation(",", "."), "950", 950),
        (NumberNotation(",", " "), "1\N{NARROW NO-BREAK SPACE}234,5", 1234.5),
        (NumberNotation(",", " "), "1\N{NO-BREAK SPACE}234,5", 1234.5),
        (NumberNotation(",", " "), "1\N{THIN SPACE}234,5", 1234.5),
        (NumberNotation(".", "'"), "1'234.5", 1234.5),
        (NumberNotation(".", "'"), "1\N{RIGHT SINGLE QUOTATION MARK}234.5", 1234.5),
        (NumberNotation(".", ",", "$"), "$1,234.50", 1234.5),
        (NumberNotation(".", ",", "$"), "-$5", -5),
        (NumberNotation(".", ",", "$"), "$-5", -5),
        (NumberNotation(".", ",", "$"), "$ (5)", -5),
        (NumberNotation(",", " ", "EUR"), "1 234,5 EUR", 1234.5),
        (NumberNotation(unit="%"), "45 %", 45),
        (NumberNotation(unit="%"), "45\N{FULLWIDTH PERCENT SIGN}", 45),
        (NumberNotation(unit="%"), "0", 0),
        (NumberNotation(unit="kg"), "45kg", 45),
        (NumberNotation(unit="kg"), "45", 45),
    ],
)
def test_a_number_of_a_notation_is_read(notation: NumberNotation, cell: str, number: float) -> None:
    values, foreign = parse_numbers(text([cell, None]), notation)
    assert values[0] == pytest.approx(number)
    assert not foreign.any()


@pytest.mark.parametrize(
    ("notation", "cell"),
    [
        (NumberNotation(), "1,5"),
        (NumberNotation(), "5\N{SUPERSCRIPT TWO}"),
        (NumberNotation(), "\N{VULGAR FRACTION ONE HALF}"),
        (NumberNotation(), "0x1F"),
        (NumberNotation(), "inf"),
        (NumberNotation(), "1e999"),
        (NumberNotation(".", ","), "1,5"),  # not 15
        (NumberNotation(".", ","), "0,123"),
        (NumberNotation(","), "1.5"),
        (NumberNotation(",", "."), "1.5"),
        (NumberNotation(unit="%"), "0.5"),  # beside 45 % it may mean 50 %
        (NumberNotation(unit="$"), "\N{EURO SIGN}5"),
    ],
)
def test_a_number_of_another_notation_is_foreign(notation: NumberNotation, cell: str) -> None:
    assert parse_numbers(text([cell]), notation)[1].tolist() == [True]


def test_markers_of_missing_cells_are_missing_in_any_case() -> None:
    cells = ["NULL", "n/a", "#DIV/0!", " - ", "Unknown", "", " ", "nan", "TBD", None, "5"]
    values, foreign = parse_numbers(text(cells), missing_cells=["tbd"])
    np.testing.assert_array_equal(values, [NAN] * 10 + [5])
    assert not foreign.any()
    assert count_markers(text(["NULL", "-", "NULL", "", None, "5"])) == {"NULL": 2, "-": 1}


NOTATIONS = {
    "plain": ([str(amount) for amount in AMOUNTS], NumberNotation()),
    "a comma": ([swap(f"{amount:.1f}") for amount in AMOUNTS], NumberNotation(",")),
    "points and a comma": ([swap(f"{amount:,.2f}") for amount in AMOUNTS], NumberNotation(",", ".")),
    "points alone, some cells without": ([swap(f"{50 * row:,}") for row in ROWS], NumberNotation(",", ".")),
    "commas alone, some cells without": ([f"{50 * row:,}" for row in ROWS], NumberNotation(".", ",")),
    "several points": ([swap(f"{50_000 * row:,}") for row in ROWS], NumberNotation(",", ".")),
    "three digits after a comma": ([swap(f"{row / 7:.3f}") for row in ROWS], NumberNotation(",")),
    "dollars": ([f"${amount:,.2f}" for amount in AMOUNTS], NumberNotation(".", ",", "$")),
    "euros": ([f"{swap(f'{amount:.2f}')} EUR" for amount in AMOUNTS], NumberNotation(",", "", "EUR")),
    "francs": ([f"CHF {amount:,.2f}".replace(",", "'") for amount in AMOUNTS], NumberNotation(".", "'", "CHF")),
    "per cent": ([f"{row} %" for row in ROWS], NumberNotation(unit="%")),
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_a_notation_is_guessed_from_the_whole_column(name: str) -> None:
    cells, notation = NOTATIONS[name]
    found = guess_numbers(text(cells))
    assert found is not None
    assert (found.notation, found.doubt, found.obstacle, found.foreign) == (notation, "", "", {})
    values, foreign = parse_numbers(text(cells), notation)
    assert not foreign.any()
    assert (np.diff(values) > 0).all()  # as the numbers that were written


@pytest.mark.parametrize(
    ("cells", "doubt"),
    [
        ([f"{row + 1}.{37 * row % 1000:03}" for row in ROWS],
         '1.000 is read as 1; if it means 1000, write `decimal: ",", thousands: "."`'),
        ([f"{row + 1},{37 * row % 1000:03}" for row in ROWS],
         '1,000 is read as 1000; if it means 1, write `decimal: ","`'),
    ],
)  # fmt: skip
def test_what_remains_ambiguous_is_read_plainly_with_the_doubt(cells: list[str], doubt: str) -> None:
    found = guess_numbers(text(cells))
    assert found is not None
    assert (found.notation.decimal, found.doubt) == (".", doubt)


def test_a_long_column_is_guessed_from_a_part_and_read_as_a_whole() -> None:
    cells = [f"{row},5" for row in range(50_001)]
    cells[1] = "NULL"
    found = guess_numbers(text(cells))
    assert found is not None
    assert (found.notation, found.markers) == (NumberNotation(","), {"NULL": 1})
    cells[3] = "see note"
    found = guess_numbers(text(cells))
    assert found is not None
    assert found.foreign == {"see note": 1}


def test_a_few_foreign_cells_are_counted() -> None:
    found = guess_numbers(text([*map(str, AMOUNTS), "see note", "tbd", "see note", "NULL"]))
    assert found is not None
    assert (found.foreign, found.markers) == ({"see note": 2, "tbd": 1}, {"NULL": 1})


def test_markers_leave_few_distinct_numbers_numbers() -> None:
    found = guess_numbers(text([*"0110" * 20, "NULL", "unknown"]))
    assert found is not None
    assert found.markers == {"NULL": 1, "unknown": 1}
    assert guess_numbers(text([*["none"] * 90, *"123" * 10])) is None  # more likely the name of a category


OTHERS = {
    "words": ["a", "b"] * 80,
    "postcodes": [f"{row:05}" for row in ROWS],
    "postcodes and unknown ones": [*(f"{row:05}" for row in ROWS), "unknown"],
    "days": [f"{row % 28 + 1:02}.01.2021" for row in ROWS],
    "ISO days": [f"2021-01-{row % 28 + 1:02}" for row in ROWS],
    "times": [f"{row % 24:02}:{row % 60:02}" for row in ROWS],
    "addresses": [f"10.0.{row}.{row % 7}" for row in ROWS],
    "phone numbers": [f"555 {row + 100} {row + 200}" for row in ROWS],
    "versions": [f"1.{row % 3}.{row % 5}" for row in ROWS],
    "items": [f"({row})" for row in ROWS],
    "categories, one of which is no number": [*"123" * 40, "3+"],
    "units": [f"{row} kg" for row in ROWS],
    "hexadecimal": [hex(row) for row in ROWS],
    "markers alone": ["-", "?", "unknown"],
    "prose": [f"this text is number {row}" for row in ROWS],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_numbers_is_none(name: str) -> None:
    assert guess_numbers(text(OTHERS[name])) is None


MIXTURES = {
    "points and commas": [f"{amount:.1f}" if row % 2 else swap(f"{amount:.1f}") for row, amount in enumerate(AMOUNTS)],
    "per cent and shares": [f"{row / 2}%" if row % 2 else f"{row / 200}" for row in ROWS],
    "two currencies": [f"${amount}" if row % 2 else f"\N{EURO SIGN}{amount}" for row, amount in enumerate(AMOUNTS)],
    "many foreign cells": [*map(str, range(1000)), *(f"note {row}" for row in range(31))],
}


@pytest.mark.parametrize("name", MIXTURES)
def test_what_cannot_be_told_apart_has_an_obstacle(name: str) -> None:
    found = guess_numbers(text(MIXTURES[name]))
    assert found is not None
    assert found.obstacle
