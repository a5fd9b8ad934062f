from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bmcli import raw_columns
from bmcli.raw_columns import RowFault


def text(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def test_text_is_read_as_numbers_with_nan_where_missing() -> None:
    values = raw_columns.to_numbers(text("1", " -2.5 ", "+3", ".5", "5.", "1e-3", None, ""))
    np.testing.assert_array_equal(values, [1, -2.5, 3, 0.5, 5, 1e-3, np.nan, np.nan])


@pytest.mark.parametrize(
    "cell",
    ["n", "1,5", "1_000", "0x10", "1 2", "5\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT ONE}", "--1", "1e"],
)
def test_text_that_is_no_number_is_a_fault_with_its_row(cell: str) -> None:
    with pytest.raises(RowFault, match="expected a number, received") as caught:
        raw_columns.to_numbers(text("1", None, cell, "2"))
    assert (caught.value.row, caught.value.cell) == (2, cell)


@pytest.mark.parametrize("rows", [text("1", "1e400"), np.array([1, -np.inf]), np.array([[1, 1], [1, np.inf]])])
def test_an_infinite_number_is_a_fault(rows: raw_columns.RawColumn) -> None:
    with pytest.raises(RowFault, match="expected a finite number") as caught:
        raw_columns.to_numbers(rows)
    assert caught.value.row == 1


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float16", "int64", "float64"])
def test_arrays_are_read_without_loss(dtype: str) -> None:
    rows = np.array([0, 1, 1], dtype)
    values = raw_columns.to_numbers(rows)
    assert values.dtype == (np.float64 if rows.dtype.itemsize == 8 else np.float32)
    np.testing.assert_array_equal(values, [0, 1, 1])


def test_indices_distinguish_unknown_from_missing() -> None:
    found = raw_columns.lookup_indices(text("b", "x", None, "", "a"), ("a", "b"))
    assert found.tolist() == [1, raw_columns.UNKNOWN, raw_columns.MISSING, raw_columns.MISSING, 0]


def test_the_vocabulary_has_every_text_once_and_sorted() -> None:
    assert raw_columns.build_vocabulary(text("b", "a", None, "B", "", "b")) == ("B", "a", "b")
    assert raw_columns.build_vocabulary(text("10", "9", "09")) == ("09", "9", "10")
    assert raw_columns.build_vocabulary(text("10", "9", "x")) == ("10", "9", "x")
    assert raw_columns.build_vocabulary(text(None, "")) == ()


def test_long_cells_are_cut_and_their_length_is_shown() -> None:
    assert raw_columns.format_cell(text("x" * 1000), 0) == f"'{'x' * 57}...' (1,000 characters)"


def test_every_text_once_with_the_rows_that_have_it() -> None:
    rows = pa.chunked_array([["b", None, "a"], ["a", "b"]], pa.string())
    texts, codes = raw_columns.factorize(rows)
    assert texts.to_pylist() == ["b", "a", None]
    assert codes.tolist() == [0, 2, 1, 1, 0]
    array, places = raw_columns.factorize(np.array([3, 3]))
    assert (array.tolist(), places.tolist()) == ([3, 3], [0, 1])
    assert len(raw_columns.factorize(pa.chunked_array([], pa.string()))[1]) == 0


def test_a_fault_of_a_text_is_that_of_the_first_row_that_has_it() -> None:
    with pytest.raises(RowFault, match="wrong") as caught, raw_columns.translate_fault_rows(np.array([0, 1, 2, 2, 1])):
        raise RowFault(2, "wrong")
    assert caught.value.row == 2


@pytest.mark.parametrize("indices", [[], [1], [1, 2, 3], [3, 1, 2], [0, 2], [2, 2], [3, 2, 1]])
def test_rows_are_taken_in_the_order_of_the_indices(indices: list[int]) -> None:
    values = np.arange(5) * 10
    selected = np.array(indices, "int64")
    texts = pa.chunked_array([["0", "1"], ["2", "3", "4"]], pa.string())
    assert raw_columns.take_rows(values, selected).tolist() == [10 * index for index in indices]
    assert raw_columns.take_rows(texts, selected).to_pylist() == [str(index) for index in indices]
