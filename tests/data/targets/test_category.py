from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.data.targets import category
from bmcli.errors import BmcliError
from bmcli.raw_columns import RawColumn, RowFault


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Any:
    return category.fit("y", rows, category.Options(**options))


def test_classes_are_those_of_the_training_rows_in_alphabetical_order() -> None:
    column = fit(text("ham", "spam", "eggs", "ham"))
    assert column.classes == ("eggs", "ham", "spam")
    encoded = category.encode(text("spam", "eggs"), column)
    assert encoded.tolist() == [2, 0]
    assert encoded.dtype == np.int32


def test_whole_numbers_are_sorted_by_size() -> None:
    assert fit(text("10", "9", "1")).classes == ("1", "9", "10")
    assert fit(np.array([10, -9, 1])).classes == ("-9", "1", "10")


def test_the_recipe_may_order_the_classes() -> None:
    column = fit(np.array([0, 1, 1]), classes=(1, 0))
    assert category.encode(np.array([0, 1]), column).tolist() == [1, 0]


@pytest.mark.parametrize("rows", [np.array([[1], [0]], "uint8"), np.array([1.0, 0.0]), np.array([True, False])])
def test_arrays_of_whole_numbers_are_classes(rows: np.ndarray) -> None:
    column = fit(rows)
    assert column.classes == ("0", "1")
    assert category.encode(rows, column).tolist() == [1, 0]


def test_one_class_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="every training row has the class 'ham'"):
        fit(text("ham", "ham"))


def test_a_class_absent_from_training_is_a_fault() -> None:
    with pytest.raises(RowFault, match="expected a class of the training rows, received 'spa'") as caught:
        category.encode(text("ham", "spa"), fit(text("ham", "spam")))
    assert (caught.value.row, caught.value.suggestion) == (1, "Did you mean 'spam'?")


@pytest.mark.parametrize("cell", [None, ""])
def test_a_missing_class_is_a_fault(cell: str | None) -> None:
    with pytest.raises(RowFault, match="expected a class, received nothing") as caught:
        fit(text("ham", "spam", cell))
    assert caught.value.row == 2


@pytest.mark.parametrize("rows", [np.array([10.5, 1.0, 0.5]), text("10.5", "1", "0.5")], ids=["array", "text"])
def test_classes_may_be_fractions_sorted_by_size(rows: RawColumn) -> None:
    column = fit(rows)
    assert column.classes == ("0.5", "1", "10.5")
    assert category.encode(rows, column).tolist() == [2, 1, 0]


def test_several_values_a_row_are_no_class() -> None:
    with pytest.raises(RowFault, match=r"expected one value a row, received an array of shape \(2,\)"):
        fit(np.eye(2))


def test_a_listed_class_without_training_rows_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="no training row has the class 'eggs'"):
        fit(text("ham", "spam"), classes=("ham", "spam", "eggs"))


def test_a_training_class_that_is_not_listed_is_a_fault() -> None:
    with pytest.raises(RowFault, match="expected a class of the training rows, received 'eggs'"):
        fit(text("ham", "spam", "eggs"), classes=("ham", "spam"))


@pytest.mark.parametrize(("classes", "message"), [(("a", "a"), "received 'a' twice"), (("a",), "at least two classes")])
def test_listed_classes_are_at_least_two_different_ones(classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        category.Options(classes=classes)


def test_a_class_for_nearly_every_row_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="nearly every training row has a different class, such as 'c0'"):
        fit(text(*(f"c{n}" for n in range(60))))
    assert len(fit(text(*(f"c{n}" for n in range(60)), *(f"c{n}" for n in range(60)))).classes) == 60
