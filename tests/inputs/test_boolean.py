from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.inputs import boolean
from bmcli.raw_columns import ColumnCells, RowFault
from bmcli.specs import Column

NAN = float("nan")


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Column:
    return boolean.fit("x", rows, boolean.Options(**options))


@pytest.mark.parametrize(
    "words",
    [
        ("yes", "No"),
        ("TRUE", "false"),
        ("t", "F"),
        ("y ", " n"),
        ("on", "off"),
        ("1", "0"),
        ("Ja", "nein"),
        ("wahr", "falsch"),
        ("oui", "non"),
        ("SÍ", "no"),
        ("✔", "✗"),
    ],
)
def test_words_are_1_and_0(words: tuple[str, str]) -> None:
    rows = text(*words)
    assert boolean.encode(rows, fit(rows)).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("words", "is_boolean"),
    [
        ("yes y no n", True), ("yes no n", True), ("true t false f 1 0", True), ("on off yes no", True),
        ("sí si no", True), ("ja nein", True), ("si no", True), ("yes 0", True),
        ("t f n", False), ("yes no true", False), ("1 0 n", False), ("yes y", False), ("yes no maybe", False),
    ],
)  # fmt: skip
def test_several_spellings_are_a_boolean_if_each_has_its_opposite(words: str, is_boolean: bool) -> None:
    guess = boolean.guess(ColumnCells("x", text(*words.split() * 12)))
    assert (guess is not None) == is_boolean
    if guess is not None:
        assert bool(guess.doubt) == (len(words.split()) > 2)


def test_words_of_another_language() -> None:
    column = fit(text("Igen", "nem"), yes=("igen",), no=("nem",))
    assert boolean.encode(text("IGEN", "Nem"), column).tolist() == [[1], [0]]


@pytest.mark.parametrize("rows", [np.array([True, False]), np.array([1, 0], "uint8"), np.array([[1.0], [0.0]])])
def test_arrays_are_1_and_0(rows: np.ndarray) -> None:
    assert boolean.encode(rows, fit(rows)).tolist() == [[1], [0]]


def test_missing_cells_are_the_share_of_yes_and_flagged() -> None:
    rows = text("yes", "no", None, " ", "yes", "yes")
    assert boolean.encode(rows, fit(rows)).tolist() == [[1, 0], [0, 0], [0.75, 1], [0.75, 1], [1, 0], [1, 0]]
    assert boolean.encode(text(None), fit(text("yes", "no"))).tolist() == [[0.5]]


def test_words_for_missing_cells_are_missing_unless_they_mean_yes_or_no() -> None:
    rows = text("yes", "no", "NULL", "n/a", "See note", "no")
    assert boolean.encode(rows, fit(rows, missing_cells=("see note",)))[:, 1].tolist() == [0, 0, 1, 1, 1, 0]
    assert boolean.encode(text("some", "none"), fit(text("some", "none"), yes=("some",), no=("none",))).shape == (2, 1)


def test_vectors_have_a_flag_for_each_channel() -> None:
    rows = np.array([[1, NAN], [0, 1]])
    assert boolean.encode(rows, fit(rows))[0, [0, 2, 3]].tolist() == [1, 0, 1]


def test_another_word_is_a_fault() -> None:
    with pytest.raises(RowFault, match="expected yes or no, received 'maybe'") as caught:
        fit(text("yes", None, "maybe"))
    assert (caught.value.row, caught.value.option) == (2, "List the words as `yes: [...]` and `no: [...]`.")


@pytest.mark.parametrize("value", [2, -1, 0.5, float("inf")])
def test_another_number_is_a_fault(value: float) -> None:
    with pytest.raises(RowFault, match="expected 0 or 1") as caught:
        fit(np.array([0, value]))
    assert caught.value.row == 1


@pytest.mark.parametrize("rows", [text(None, ""), np.array([NAN])])
def test_a_column_without_values_is_a_fault(rows: Any) -> None:
    with pytest.raises(BmcliError, match="the training rows have no value"):
        fit(rows)


def test_words_differ_and_are_not_empty() -> None:
    with pytest.raises(ValidationError, match="'ja' means both"):
        boolean.Options(yes=("Ja",), no=("ja ",))
    with pytest.raises(ValidationError, match="'no' is a word for yes or no"):
        boolean.Options(missing_cells=("No",))
    with pytest.raises(ValidationError, match="an empty cell is always missing"):
        boolean.Options(yes=(" ",))
