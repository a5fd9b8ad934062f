from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.data.targets import ordered
from bmcli.errors import BmcliError
from bmcli.raw_columns import RowFault


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Any:
    return ordered.fit("grade", rows, ordered.Options(**options))


GRADES = ("poor", "fair", "good")


def test_text_is_put_into_the_order_of_the_recipe() -> None:
    rows = text("good", "poor", "good", "fair")
    encoded = ordered.encode(rows, fit(rows, classes=GRADES))
    assert (encoded.tolist(), encoded.dtype) == ([2, 0, 2, 1], np.int32)


def test_text_without_an_order_is_a_fault_that_shows_how_to_write_it() -> None:
    with pytest.raises(BmcliError, match="the order of its 3 categories is not known") as caught:
        fit(text("good", "poor", "fair"))
    (fault,) = caught.value.faults
    assert (fault.path, "classes: [fair, good, poor]" in fault.suggestion) == ("data.targets.grade", True)


@pytest.mark.parametrize("rows", [text("10", "9", "-1"), np.array([10, 9, -1])])
def test_whole_numbers_are_ordered_by_size(rows: Any) -> None:
    column = fit(rows)
    assert column.classes == ("-1", "9", "10")
    assert ordered.encode(rows, column).tolist() == [2, 1, 0]


def test_a_category_may_have_no_training_row() -> None:
    column = fit(np.array([1, 3, 3]), classes=(1, 2, 3))
    assert ordered.encode(np.array([2]), column).tolist() == [1]


@pytest.mark.parametrize(
    ("cell", "message"), [("god", "expected a class of the training rows, received 'god'"), (None, "received nothing")]
)
def test_an_unknown_or_missing_category_is_a_fault(cell: str | None, message: str) -> None:
    with pytest.raises(RowFault, match=message) as caught:
        fit(text("good", "poor", cell), classes=GRADES)
    assert caught.value.row == 2


def test_one_category_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="every training row has the class 'good'"):
        fit(text("good", "good"), classes=GRADES)


@pytest.mark.parametrize("classes", [("a", "a"), ("a",), ()])
def test_categories_are_two_or_more_that_differ(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="classes"):
        ordered.Options(classes=classes)
