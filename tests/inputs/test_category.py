from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.inputs import category, to_serving_array
from bmcli.raw_columns import RowFault
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


def test_fractions_are_no_categories() -> None:
    with pytest.raises(RowFault, match="expected a whole number") as caught:
        fit(np.array([1.0, 0.5]))
    assert caught.value.option == "Read it as `kind: number`."


def test_a_number_that_is_missing_is_no_category() -> None:
    column = fit(np.array([1.0, float("nan"), 7.0]))
    assert column.classes == ("1", "7")
    assert category.encode(np.array([7.0, float("nan"), 2.0]), column).tolist() == [1, 2, 3]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "one_hot", "dimension": 3}, "`dimension` has no effect with"),
        ({"buckets": 3}, "`buckets` has no effect without"),
        ({"encoding": "hash", "min_count": 2}, "which counts no categories"),
        ({"encoding": "hash", "max_categories": 2}, "which counts no categories"),
    ],
)
def test_options_that_do_not_fit_are_a_fault(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        category.Options(**options)


def opened(rows: Any, column: Column) -> np.ndarray:
    return np.asarray(category.build_feature(column, category.encode(rows, column)).tensor)


def test_rare_categories_are_one_together_with_unknown_ones() -> None:
    column = fit(text("a", "b", "a", "c", "b", "d"), min_count=2)
    assert column.classes == ("a", "b")
    assert category.encode(text("a", "c", "z", None), column).tolist() == [0, 3, 3, 2]
    assert opened(text("b", "c", "z", None), column).tolist() == [
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 1, 0],
    ]


def test_the_most_frequent_categories_are_kept_and_in_a_tie_the_first() -> None:
    assert fit(text("d", "c", "b", "c", "a"), max_categories=2).classes == ("a", "c")
    assert fit(np.array([7, 10, 10, 9]), max_categories=2).classes == ("7", "10")
    assert "pooled" not in fit(text("a", "b"), max_categories=2).state


def test_a_column_of_rare_categories_alone_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="no category occurs in 2 training rows"):
        fit(text("a", "b"), min_count=2)


def test_hashed_categories_need_no_list() -> None:
    column = fit(text("a", "b", None), encoding="hash", buckets=50)
    assert column.classes == ()
    array = category.encode(text("a", "never seen", None, "a"), column)
    assert array[2] == 50
    assert array[0] == array[3]
    assert set(array.tolist()) <= set(range(51))
    assert category.build_feature(column, array).tensor.shape == (4, column.state["dimension"])
    assert opened(text("a", None), fit(text("a", None), encoding="hash", buckets=3)).shape == (2, 4)


def test_whole_numbers_hash_as_their_text_does() -> None:
    column = fit(np.array([7, 8]), encoding="hash", buckets=10**6)
    assert category.encode(np.array([12345]), column) == category.encode(text("12345"), column)


def test_several_categories_of_a_cell() -> None:
    column = fit(text("red; blue", "blue", "green;blue"), separator=";")
    assert column.classes == ("blue", "green", "red")
    rows = text(" green;red;green", "pink; blue;", None, ";", "red;green;blue")
    array = category.encode(rows, column)
    assert array.tolist() == [[1, 2], [4, 0], [3, 5], [3, 5], [2, 1]]
    np.testing.assert_array_equal(opened(rows, column), [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]])


def test_the_embeddings_of_several_categories_are_averaged() -> None:
    column = fit(text("1;2", "10"), separator=";", dimension=4)
    assert column.classes == ("1", "2", "10")
    feature = category.build_feature
    import keras

    inputs = keras.Input(column.shape, dtype="int32")
    model = keras.Model(inputs, feature(column, inputs).tensor)
    one, two, both = model(category.encode(text("1", "2", "2;1"), column)).numpy()
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)


def test_rare_ones_of_several_are_pooled() -> None:
    column = fit(text("a|b", "a|c"), separator="|", min_count=2)
    assert column.classes == ("a",)
    np.testing.assert_array_equal(opened(text("a|b", "c|z"), column), [[1, 0, 1], [0, 0, 1]])


def test_a_separator_is_for_text() -> None:
    with pytest.raises(BmcliError, match="expected text, because `separator` is set; received numbers"):
        fit(np.array([1, 2]), separator=";")


@pytest.mark.parametrize("options", [{}, {"encoding": "hash"}, {"separator": ";"}])
def test_ten_thousand_categories(options: dict[str, Any]) -> None:
    names = [f"item {number}" for number in range(10_000)]
    column = fit(text(*names), **options)
    assert category.encode(text(*reversed(names)), column).shape == (10_000, *column.shape)


def test_a_served_model_reads_missing_and_other_spellings_of_whole_numbers() -> None:
    column = fit(np.array([1.0, float("nan"), 7.0]))
    for options in ({}, {"encoding": "hash", "buckets": 50}):
        column = fit(np.array([1.0, float("nan"), 7.0]), **options)
        for rows in (np.array([7.0, float("nan"), 2.0]), text("7.0", None, " 2"), text("+7", "  ", "2")):
            served = to_serving_array(rows, column)
            assert served.dtype == np.int64
            found = category.build_encoder(column)(served).numpy().tolist()
            assert found == category.encode(rows, column).tolist()
    assert category.encode(text("seven"), fit(np.array([1, 7]))).tolist() == [3]
    assert category.build_encoder(fit(np.array([1, 7])))(
        to_serving_array(text("seven"), fit(np.array([1, 7])))
    ).numpy().tolist() == [3]
