from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.data.columns import join_columns
from bmcli.data.profiling.column_profile import ColumnProfile, profile_column
from bmcli.data.targets import get_source_columns, labels
from bmcli.errors import BmcliError
from bmcli.raw_columns import FileColumn, RowFault, take_rows


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Any:
    return labels.fit("tags", rows, labels.Options(**options))


ROWS = text("red;round", None, "red", " round ; small ", "", "small;;red")


def test_a_cell_has_any_number_of_labels() -> None:
    column = fit(ROWS)
    assert column.classes == ("red", "round", "small")
    assert (column.shape, column.dtype) == ((3,), "uint8")
    encoded = labels.encode(ROWS, column)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 1]]


def test_a_label_twice_in_a_cell_is_there_once() -> None:
    column = fit(ROWS)
    assert labels.encode(text("red;red"), column).tolist() == [[1, 0, 0]]


def test_rows_in_several_chunks_stay_in_order() -> None:
    rows = pa.chunked_array([["a;b", None], [], ["b"], ["", "a"]], pa.string())
    assert labels.encode(rows, fit(rows)).tolist() == [[1, 1], [0, 0], [0, 1], [0, 0], [1, 0]]


def test_no_rows_are_encoded_to_no_rows() -> None:
    column = fit(ROWS)
    assert labels.encode(pa.chunked_array([], pa.string()), column).shape == (0, 3)
    assert labels.encode(text(), column).shape == (0, 3)


def test_the_recipe_may_name_separator_and_order() -> None:
    rows = text("b | a", "a", None)
    column = fit(rows, separator="|", classes=("b", "a"))
    assert labels.encode(rows, column).tolist() == [[1, 1], [0, 1], [0, 0]]


def test_numbers_are_labels_sorted_by_size() -> None:
    assert fit(text("10;9", "1", "9")).classes == ("1", "9", "10")
    rows = np.array([7, 8, 7])
    assert labels.encode(rows, fit(rows)).tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32"])
def test_an_array_of_0_and_1_is_read_as_labels(dtype: str) -> None:
    rows = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype)
    assert fit(rows).classes == ("0", "1", "2")
    column = fit(rows, classes=("red", "round", "small"))
    encoded = labels.encode(rows, column)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == rows.astype(int).tolist()


def test_an_array_of_other_numbers_is_a_fault() -> None:
    with pytest.raises(RowFault, match=r"expected 0 or 1 for each label, received 0\.5") as caught:
        fit(np.array([[1, 0], [0, 0.5], [0, 1]]))
    assert caught.value.row == 1


def test_an_array_of_another_width_is_a_fault() -> None:
    with pytest.raises(RowFault, match="expected 2 labels a row, received 3"):
        labels.encode(np.eye(3), fit(np.eye(2)))


def test_names_must_be_as_many_as_an_array_has_columns() -> None:
    with pytest.raises(BmcliError, match="expected 2 names, one for each column of the array, received 3") as caught:
        fit(np.eye(2), classes=("a", "b", "c"))
    assert caught.value.faults[0].path == "data.targets.tags.classes"


def test_a_label_absent_from_training_names_the_nearest() -> None:
    with pytest.raises(RowFault, match="expected labels of the training rows, received 'smal'") as caught:
        labels.encode(text("red", None, "red;smal"), fit(ROWS))
    assert (caught.value.row, caught.value.suggestion) == (2, "Did you mean 'small'?")
    assert caught.value.advice == (
        "Did you mean 'small'? Or put a row with this label into the training rows, or list those to learn in "
        "`classes` and write `invalid: skip` to leave out the rows of others."
    )


@pytest.mark.parametrize("rows", [text("a;b", "a;b"), text("a", "a")])
def test_labels_that_every_row_has_are_a_fault(rows: Any) -> None:
    with pytest.raises(BmcliError, match="every label is in all training rows or in none"):
        fit(rows)


def test_one_label_is_enough() -> None:
    assert fit(text("a", None)).classes == ("a",)


@pytest.mark.parametrize("rows", [text(None, ""), text(" ; ", None)])
def test_rows_without_any_label_are_a_fault(rows: Any) -> None:
    with pytest.raises(BmcliError, match="no training row has a label"):
        fit(rows)


def test_a_listed_label_without_training_rows_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="no training row has the label 'blue'") as caught:
        fit(ROWS, classes=("red", "round", "small", "blue"))
    assert caught.value.faults[0].path == "data.targets.tags.classes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": ""}, "expected a character"),
        ({"separator": " "}, "other than a space"),
        ({"classes": ("a", "a")}, "twice"),
    ],
)
def test_a_wrong_option_is_a_fault(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        labels.Options(**options)


def records(**columns: Any) -> pa.ChunkedArray:
    return join_columns(columns, tuple(columns))


TOPICS = {"columns": ("sport", "art")}


@pytest.mark.parametrize(
    ("sport", "art"),
    [
        (text("yes", "No", " T "), text("0", "1", "0")),
        (np.array([1, 0, 1]), np.array([0.0, 1.0, 0.0])),
        (np.array([True, False, True]), pa.chunked_array([["off"], ["on", "FALSE"]], pa.string())),
    ],
)
def test_columns_of_yes_and_no_are_labels(sport: Any, art: Any) -> None:
    rows = records(sport=sport, art=art)
    column = fit(rows, **TOPICS)
    assert (column.classes, column.shape, column.dtype) == (("sport", "art"), (2,), "uint8")
    assert labels.encode(rows, column).tolist() == [[1, 0], [0, 1], [1, 0]]
    assert labels.encode(take_rows(rows, np.array([1, 2])), column).tolist() == [[0, 1], [1, 0]]
    assert get_source_columns(column) == ("sport", "art")
    labels.check(rows, labels.Options(**TOPICS))


@pytest.mark.parametrize(
    ("art", "received"),
    [
        (text("0", "maybe"), "'maybe'"),
        (text("0", None), "nothing"),
        (text("0", ""), "nothing"),
        (np.array([0.0, 0.5]), r"0\.5"),
        (np.array([0.0, np.nan]), "nothing"),
        (np.array([0, 2]), "2"),
    ],
)
def test_a_cell_that_is_neither_yes_nor_no_names_its_column(art: Any, received: str) -> None:
    rows = records(sport=np.array([1, 0]), art=art)
    for read in (lambda: fit(rows, **TOPICS), lambda: labels.check(rows, labels.Options(**TOPICS))):
        with pytest.raises(RowFault, match=f"expected yes or no for 'art', received {received}") as caught:
            read()
        assert caught.value.row == 1


def test_a_label_that_no_training_row_has_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="no training row has the label 'art'"):
        fit(records(sport=np.array([1, 0]), art=np.array([0, 0])), **TOPICS)


@pytest.mark.parametrize("column", [np.zeros((2, 3)), FileColumn(np.arange(2), lambda row: b"")])
def test_columns_of_several_values_are_no_labels(column: Any) -> None:
    with pytest.raises(BmcliError, match="column 'art': expected one value a row, received"):
        records(sport=np.array([1, 0]), art=column)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"columns": ("a",)}, "at least 2"), ({"columns": ("a", "b"), "classes": ("a", "b")}, "`classes` has no effect")],
)
def test_columns_are_several_and_stand_alone(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        labels.Options(**options)


@pytest.mark.parametrize(
    "cells",
    [
        ("['red', 'round']", "[]", "['it\\'s, old']"),
        ('["red", "round"]', "[]", '["it\'s, old"]'),
        ("['red' 'round']", "[ ]", '["it\'s, old"]'),
        ("[red, round]", " [] ", '["it\'s, old"]'),
        ('["r\\u0065d","round"]', None, '[ "it\'s, old" ]'),
    ],
    ids=["Python", "JSON", "NumPy", "bare", "escaped"],
)
def test_a_cell_may_be_a_list(cells: tuple[str | None, ...]) -> None:
    column = fit(text(*cells, "red"))
    assert column.classes == ("it's, old", "red", "round")
    assert labels.encode(text(*cells), column).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_other_brackets_are_parts_of_labels() -> None:
    assert fit(text("[a];[b]", "[a]x", "c [d]", "[e")).classes == ("[a]", "[a]x", "[b]", "[e", "c [d]")


def test_a_list_that_never_ends_is_read_in_linear_time() -> None:
    cell = "[" + "'a' " * 20_000 + "'" + "\\" * 20_001 + "]"
    assert len(fit(text(cell, "b")).classes) == 2


def profile(*cells: str) -> ColumnProfile:
    return profile_column("tags", text(*cells))


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        (("['a', 'b']", "[]", "['c']"), {}),
        (("a;b", "b", "c; a", "c"), {}),
        (("a|b", "b", "c | a", "c"), {"separator": "|"}),
    ],
)
def test_labels_are_recognised(cells: tuple[str, ...], options: dict[str, Any]) -> None:
    found = labels.guess(profile(*cells), {})
    assert found is not None
    assert found.options == options


@pytest.mark.parametrize(
    "cells",
    [
        ("a", "b"),
        ("Action|Comedy", "Drama", "Horror"),
        ("Main St 1; Bern", "Rue 3; Genf", "Via 9; Rom"),
        ("the day was long; the night was cold", "the night was cold; the day was long", "the day was long"),
        ("1", "2"),
    ],
)
def test_classes_are_no_labels(cells: tuple[str, ...]) -> None:
    assert labels.guess(profile(*cells), {}) is None
