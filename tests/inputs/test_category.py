from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.cells import RowFault
from bmcli.errors import BmcliError
from bmcli.inputs import category
from bmcli.specs import Column


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Column:
    return category.fit("x", rows, category.Options(**options))


def test_categories_are_encoded_in_alphabetical_order() -> None:
    column = fit(text("b", "a", "b", "c"))
    assert column.classes == ("a", "b", "c")
    assert category.encode(text("c", "a"), column).tolist() == [2, 0]


def test_missing_and_unknown_cells_have_positions_of_their_own() -> None:
    array = category.encode(text("b", None, "", "zebra"), fit(text("b", "a")))
    assert array.tolist() == [1, 2, 2, 3]
    assert array.dtype == np.int32


def test_whole_numbers_are_categories() -> None:
    column = fit(np.array([[10], [2]], "uint8"))
    assert (column.classes, column.raw_dtype, column.raw_shape) == (("2", "10"), "int64", (1,))
    assert category.encode(np.array([[2], [3], [10]]), column).tolist() == [0, 3, 1]


def test_a_column_fitted_on_text_takes_whole_numbers() -> None:
    assert category.encode(np.array([7, 8]), fit(text("7", "9"))).tolist() == [0, 3]


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_fractions_are_no_categories(value: float) -> None:
    with pytest.raises(RowFault, match="expected a whole number") as caught:
        fit(np.array([1.0, value]))
    assert caught.value.suggestion == "Read it as `kind: number`."


def test_a_column_without_values_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="column 'x': the training rows have no value"):
        fit(text(None, ""))


@pytest.mark.parametrize(
    ("count", "options", "dimension"),
    [
        (16, {}, 0),
        (17, {}, 8),
        (10_000, {}, 64),
        (3, {"encoding": "embedding"}, 3),
        (3, {"dimension": 5}, 5),
        (99, {"encoding": "one_hot"}, 0),
    ],
)
def test_many_categories_are_embedded(count: int, options: dict[str, Any], dimension: int) -> None:
    assert fit(np.arange(count), **options).state["dimension"] == dimension


def test_one_hot_has_no_dimension() -> None:
    with pytest.raises(ValidationError, match="`dimension` goes with"):
        category.Options(encoding="one_hot", dimension=3)
