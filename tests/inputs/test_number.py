from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.inputs import number
from bmcli.raw_columns import RowFault
from bmcli.specs import Column

NAN = float("nan")


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Column:
    return number.fit("x", rows, number.Options(**options))


def encoded(rows: Any, **options: Any) -> np.ndarray:
    return number.encode(rows, fit(rows, **options))


def test_a_scaled_column_has_mean_0_and_deviation_1() -> None:
    array = encoded(text("1", "2", "3", "4"))
    assert array.shape == (4, 1)
    assert array.dtype == np.float32
    assert array.mean() == pytest.approx(0, abs=1e-6)
    assert array.std() == pytest.approx(1, abs=1e-6)


def test_minmax_goes_from_0_to_1() -> None:
    assert encoded(text("10", "30", "20"), scale="minmax")[:, 0].tolist() == [0, 1, 0.5]


@pytest.mark.parametrize(("missing", "filled"), [("mean", 3.0), ("median", 2.0), ("zero", 0.0)])
def test_missing_numbers_are_filled(missing: str, filled: float) -> None:
    array = encoded(text("1", "2", "6", None), scale="none", missing=missing)
    assert array[:, 0].tolist() == [1, 2, 6, filled]


def test_missing_numbers_may_be_a_fault() -> None:
    with pytest.raises(RowFault, match="expected a number, received nothing") as caught:
        fit(text("1", None), missing="fault")
    assert caught.value.row == 1


def test_a_flag_marks_missing_values() -> None:
    array = encoded(np.array([1.0, NAN, 3.0]), scale="none", flag=True)
    assert array.tolist() == [[1, 0], [2, 1], [3, 0]]


@pytest.mark.parametrize("scale", ["standard", "minmax", "none"])
@pytest.mark.parametrize("value", [0.1, 0.0, 1e30])
def test_a_constant_column_stays_finite(scale: str, value: float) -> None:
    rows = np.full(1000, value)
    assert np.isfinite(encoded(rows, scale=scale)).all()
    if scale == "minmax":
        assert not encoded(rows, scale=scale).any()


def test_vectors_are_scaled_per_feature() -> None:
    rows = np.array([[1, 100.0], [3, 300.0]])
    assert encoded(rows).tolist() == [[-1, -1], [1, 1]]


def test_sequences_are_scaled_per_channel() -> None:
    rows = np.random.default_rng(0).normal([5, -50], [2, 20], (30, 10, 2))
    array = encoded(rows)
    assert array.shape == (30, 10, 2)
    np.testing.assert_allclose(array.mean(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(array.std(axis=(0, 1)), 1, atol=1e-6)


def test_steps_without_any_value_are_padding() -> None:
    rows = np.array([[[1.0, 4], [3, NAN]], [[2, 8], [NAN, NAN]]])
    column = fit(rows, scale="none")
    array = number.encode(rows, column)
    assert column.state["padded"]
    assert column.state["fill"] == [2, 6]
    np.testing.assert_array_equal(array, [[[1, 4], [3, 6]], [[2, 8], [NAN, NAN]]])


def test_missing_is_a_fault_but_padding_is_not() -> None:
    rows = np.array([[[1.0, 4], [3, 5]], [[2, 8], [NAN, NAN]]])
    column = fit(rows, missing="fault")
    rows[0, 1, 0] = NAN
    with pytest.raises(RowFault) as caught:
        number.encode(rows, column)
    assert caught.value.row == 0


def test_without_padding_in_training_an_empty_step_is_filled() -> None:
    column = fit(np.ones((2, 3, 1)))
    assert np.isfinite(number.encode(np.full((1, 3, 1), NAN), column)).all()


@pytest.mark.parametrize("rows", [text(None, ""), np.full((3, 2), NAN)])
def test_a_column_without_values_is_a_fault(rows: Any) -> None:
    with pytest.raises(BmcliError, match="column 'x': the training rows have no value"):
        fit(rows)


def test_a_feature_without_values_is_named() -> None:
    with pytest.raises(BmcliError, match="no value in channel 1"):
        fit(np.array([[1.0, NAN], [2.0, NAN]]))


def test_text_that_is_no_number_is_a_fault() -> None:
    with pytest.raises(RowFault, match="expected a number, received 'one'"):
        fit(text("1", "one"))


@pytest.mark.parametrize("rows", [np.ones((2, 3)), np.ones((2, 2, 2)), np.ones(2)])
def test_rows_of_another_shape_are_a_fault(rows: np.ndarray) -> None:
    with pytest.raises(BmcliError, match=r"column 'x': expected rows of shape \(2,\), received"):
        number.encode(rows, fit(np.eye(2)))


def test_seconds_since_1970_keep_their_differences() -> None:
    seconds = 1_700_000_000.0 + np.arange(100)
    column = fit(seconds)
    assert column.raw_dtype == "float64"
    steps = np.diff(number.encode(seconds, column)[:, 0])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_numbers_too_large_to_be_scaled_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="too large to be scaled"):
        fit(np.array([1e308, -1e308, 1e308]))


def test_a_number_too_large_beside_the_training_rows_is_a_fault() -> None:
    with pytest.raises(RowFault, match="too large") as caught:
        number.encode(np.array([1.0, 1e300]), fit(np.array([1.0, 2.0])))
    assert caught.value.row == 1


def test_quantiles_spread_the_training_rows_evenly() -> None:
    rows = np.exp(np.random.default_rng(0).normal(0, 3, 5000))
    column = fit(rows, scale="quantile")
    array = number.encode(rows, column)[:, 0]
    assert array.mean() == pytest.approx(0, abs=1e-2)
    assert array.std() == pytest.approx(1, abs=1e-2)
    np.testing.assert_array_equal(np.argsort(array, kind="stable"), np.argsort(rows, kind="stable"))
    beyond = number.encode(np.array([-1e9, 1e9]), column)[:, 0]
    np.testing.assert_allclose(beyond, [-np.sqrt(3), np.sqrt(3)], rtol=1e-6)


def test_quantiles_are_those_of_scikit_learn_where_values_differ() -> None:
    from sklearn.preprocessing import QuantileTransformer

    rows = np.random.default_rng(0).normal(size=(400, 2))
    theirs = QuantileTransformer(n_quantiles=400).fit(rows)
    others = np.random.default_rng(1).normal(size=(99, 2))
    ours = number.encode(others, fit(rows, scale="quantile"))
    np.testing.assert_allclose(ours / np.sqrt(12) + 0.5, theirs.transform(others), atol=1e-6)


def test_equal_numbers_have_equal_ranks() -> None:
    rows = np.array([0.0] * 50 + [1, 2, 3, 4, 5] * 10)
    array = number.encode(rows, fit(rows, scale="quantile"))[:, 0]
    assert len(set(array[:50].tolist())) == 1
    assert -np.sqrt(3) < array[0] < array[50] < array[51]


def test_the_logarithm_keeps_the_sign() -> None:
    array = encoded(np.array([0, 9, -9, NAN]), log=True, scale="none", missing="zero")
    np.testing.assert_allclose(array[:, 0], [0, np.log(10), -np.log(10), 0], rtol=1e-6)


def test_the_logarithm_comes_before_scaling() -> None:
    rows = np.exp(np.random.default_rng(0).normal(10, 1, 1000)) - 1
    array = encoded(rows, log=True)
    assert abs(array.mean()) < 1e-6
    np.testing.assert_allclose(array[:, 0], (np.log1p(rows) - np.log1p(rows).mean()) / np.log1p(rows).std(), rtol=1e-4)


def opened(rows: np.ndarray, column: Column) -> np.ndarray:
    return np.asarray(number.build_feature(column, number.encode(rows, column)).tensor)


@pytest.mark.parametrize(
    ("binning", "rows", "expected"),
    [
        ("uniform", [0, 1, 2, 9, 10, 8], [0, 0, 0, 3, 3, 3]),
        ("quantile", [0, 1, 2, 9, 10, 8, 3, 4], [0, 0, 1, 3, 3, 2, 1, 2]),
        (None, [5, 5, 5, 5], [0, 0, 0, 0]),
        ("quantile", [0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_bins(binning: str | None, rows: list[float], expected: list[int]) -> None:
    array = np.array(rows, "float64")
    column = fit(array, bins=4, binning=binning)
    assert number.encode(array, column)[:, 0].tolist() == expected
    np.testing.assert_array_equal(opened(array, column).argmax(axis=1), expected)
    assert (opened(array, column).sum(axis=1) == 1).all()


def test_bins_of_vectors_stand_side_by_side_before_their_flags() -> None:
    rows = np.array([[0, 10.0], [1, 20], [NAN, 30]])
    column = fit(rows, bins=2, binning="uniform", missing="zero", flag=True)
    assert opened(rows, column).tolist() == [[1, 0, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0]]


def test_a_learned_stand_in_is_trained_with_the_network() -> None:
    import keras

    rows = np.array([1.0, 2, 3, NAN, NAN])
    column = fit(rows, missing="learned")
    array = number.encode(rows, column)
    assert np.isnan(array[:, 0]).tolist() == [False, False, False, True, True]
    inputs = keras.Input(column.shape)
    model = keras.Model(inputs, number.build_feature(column, inputs).tensor)
    model.compile("sgd", "mse")
    assert model.predict(array, verbose=0)[3:, 0].tolist() == [0, 0]
    wanted = np.nan_to_num(array, nan=5)
    for _ in range(20):
        model.train_on_batch(array, wanted)
    assert 0.1 < model.predict(array, verbose=0)[4, 0] < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binning": "uniform"}, "has no effect without `bins`"),
        ({"bins": 3, "scale": "quantile"}, "has no effect with `bins`"),
        ({"bins": 3, "missing": "learned"}, "so it cannot be used with `bins`"),
        ({"decimal": ",", "thousands": ","}, "is the mark before the fraction, too"),
        ({"unit": "100 g"}, "expected a text without digits"),
        ({"missing_cells": ("tbd", "-999")}, "a served model would take it for a number"),
    ],
)
def test_options_that_do_not_fit_are_a_fault(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        number.Options(**options)
