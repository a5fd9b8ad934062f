"""The canonical form of categories and classes."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bmcli.canonical import Spelling, canonicalize, choose_spelling, find_case_variants, find_spellings

DECOMPOSED = "Zu\u0308rich"


def convert(spelling: Spelling, *cells: str | None) -> list[str | None]:
    converted: list[str | None] = canonicalize(pa.chunked_array([pa.array(cells, pa.string())]), spelling).to_pylist()
    return converted


@pytest.mark.parametrize("cell", ["3", "3.0", " 3", "3\u00a0", "003", "3.00", "+3", "3.", "\ufeff3\n", "+03.0"])
def test_a_number_has_one_form(cell: str) -> None:
    assert convert("numbers", cell) == ["3"]


@pytest.mark.parametrize(
    ("cell", "form"),
    [("-3.0", "-3"), ("0.50", "0.5"), (".5", "0.5"), ("-.50", "-0.5"), ("-0", "0"), ("-0.0", "0"), (".0", "0"),
     ("100", "100"), ("10.0", "10"), ("1e5", "1e5"), ("+-3", "+-3"), (".", "."), ("3.1.0", "3.1.0")],
)  # fmt: skip
def test_other_numbers_keep_their_value_and_other_texts_their_form(cell: str, form: str) -> None:
    assert convert("numbers", cell) == [form]
    assert convert("codes", cell) == [form]


def test_a_canonical_form_is_its_own() -> None:
    cells = ("3", "-3", "0.5", "0", "100", "Boots", "Zürich", "Ångström 2.0", "New  York")
    assert convert("numbers", *cells) == [*cells]


def test_blanks_around_a_text_and_its_normal_form_do_not_count() -> None:
    assert convert("text", "Boots ", "\u00a0Boots", "\u200bBoots\u3000", DECOMPOSED) == [*["Boots"] * 3, "Zürich"]
    assert convert("text", "boots", "New York", "New\u00a0York") == ["boots", "New York", "New\u00a0York"]


def test_a_text_of_blanks_is_missing() -> None:
    assert convert("text", "  ", "", None, "\u00a0") == [None] * 4


def test_raw_cells_are_unchanged() -> None:
    assert convert("raw", " 3.0", "", DECOMPOSED) == [" 3.0", "", DECOMPOSED]


def test_codes_keep_the_zeros_at_their_beginning() -> None:
    assert convert("codes", "01234", " 01234 ", "10115.0") == ["01234", "01234", "10115"]


@pytest.mark.parametrize(
    ("cells", "spelling"),
    [
        (["1", "2", None], "numbers"),
        (["1.50", "2.25", "3"], "numbers"),
        (["01234", "10115"], "codes"),
        (["1", "A7"], "codes"),
        (["Bern", "Rom"], "text"),
        (["3.9", "3.10"], "text"),
        (["1.10", "1.10.2"], "text"),
        ([None, ""], "text"),
    ],
)
def test_training_rows_decide_what_their_numbers_are(cells: list[str | None], spelling: str) -> None:
    assert choose_spelling(pa.chunked_array([pa.array(cells, pa.string())]), normalize=True) == spelling


def test_nothing_is_converted_without_normalize() -> None:
    assert choose_spelling(pa.array(["1", "2"]), normalize=False) == "raw"


def test_spellings_of_one_category_are_found() -> None:
    cells = pa.array(["Boots", "Boots ", "Rom", "Zürich", DECOMPOSED, "", None])
    assert find_spellings(cells, "text") == {"Boots": ["Boots", "Boots "], "Zürich": [DECOMPOSED, "Zürich"]}


def test_names_that_differ_by_case_are_found() -> None:
    assert find_case_variants(["Boots", "Rom", "boots"]) == [["Boots", "boots"]]
