"""Classes and labels that are written in several ways are one, as the names of a recipe are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data import targets
from bmcli.data.targets import category, labels, ordered
from bmcli.errors import BmcliError
from bmcli.objectives import order_class_weights
from bmcli.raw_columns import RowFault


def text(*cells: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def test_spellings_of_a_class_are_one() -> None:
    column = category.fit("y", text("Boots", "Boots ", "Zürich", "Zu\u0308rich"), category.Options())
    assert column.classes == ("Boots", "Zürich")
    assert category.encode(text("\u00a0Boots", "Zu\u0308rich "), column).tolist() == [0, 1]
    assert targets.describe_spellings(column)[0] == "'Boots', 'Boots ' are read as one, 'Boots'."


def test_numbers_are_one_class_in_text_and_in_arrays() -> None:
    column = category.fit("y", text("3", "12.0", "3.00"), category.Options())
    assert column.classes == ("3", "12")
    assert category.encode(text("+3", "012"), column).tolist() == [0, 1]
    assert category.encode(np.array([12.0, 3.0]), column).tolist() == [1, 0]


def test_case_makes_another_class_which_is_told() -> None:
    column = category.fit("y", text("Boots", "boots"), category.Options())
    assert column.classes == ("Boots", "boots")
    assert "differ only by upper and lower case" in targets.describe_spellings(column)[0]


def test_raw_classes_are_kept_apart() -> None:
    column = category.fit("y", text("Boots", "Boots ", "3.0"), category.Options(normalize=False))
    assert column.classes == ("3.0", "Boots", "Boots ")
    with pytest.raises(RowFault, match="received '3'"):
        category.encode(text("3"), column)


def test_the_names_of_a_recipe_decide_how_classes_are_read() -> None:
    options = category.Options(classes=("Boots ", "01"))
    category.check(text("Boots", "01"), options)
    column = category.fit("y", text("Boots", "01\u00a0"), options)
    assert column.classes == ("Boots", "01")
    with pytest.raises(RowFault, match="received '1'"):
        category.encode(text("1"), column)


def test_two_names_of_one_class_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="two names are spellings of the class 'Boots'") as caught:
        category.fit("y", text("Boots", "Rom"), category.Options(classes=("Boots", "Boots ", "Rom")))
    assert caught.value.faults[0].path == "data.targets.y.classes"


def test_ordered_levels_are_read_alike() -> None:
    column = ordered.fit("y", text("1.0", "2", "3 "), ordered.Options())
    assert column.classes == ("1", "2", "3")
    named = ordered.fit("y", text("low ", "high"), ordered.Options(classes=("low", "high\u00a0")))
    assert ordered.encode(text("high", "low"), named).tolist() == [1, 0]


def test_labels_are_read_alike() -> None:
    column = labels.fit("y", text("red; Zu\u0308rich", "3.0", "Zürich\u00a0;3"), labels.Options())
    assert column.classes == ("3", "Zürich", "red")
    assert labels.encode(text("3.00;red", ""), column).tolist() == [[1, 0, 1], [0, 0, 0]]
    raw = labels.fit("y", text("3.0", "3;a"), labels.Options(normalize=False))
    assert raw.classes == ("3", "3.0", "a")


def test_class_weights_name_classes_in_any_spelling() -> None:
    column = category.fit("y", text("3", "4"), category.Options())
    assert order_class_weights({"4.0": 2.5}, column).tolist() == [1.0, 2.5]
