from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli.cells import RowFault
from bmcli.errors import BmcliError
from bmcli.inputs import number
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


def test_a_flag_tells_what_was_missing() -> None:
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
    with pytest.raises(RowFault, match="expected a number, received 'n/a'"):
        fit(text("1", "n/a"))


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
