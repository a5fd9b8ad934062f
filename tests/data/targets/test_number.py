from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data.targets import number
from bmcli.errors import BmcliError
from bmcli.raw_columns import RowFault


def fit(rows: Any, **options: Any) -> Any:
    return number.fit("y", rows, number.Options(**options))


def test_the_scaled_target_has_mean_0_and_deviation_1() -> None:
    rows = np.random.default_rng(0).normal(500, 20, 1000)
    column = fit(rows)
    encoded = number.encode(rows, column)
    assert encoded.dtype == np.float32
    assert encoded.mean() == pytest.approx(0, abs=1e-6)
    assert encoded.std() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(encoded * column.state["scale"] + column.state["mean"], rows, rtol=1e-6)


def test_an_unscaled_target_stays_as_it_is() -> None:
    rows = pa.chunked_array([["1.5", "2", " 3 "]])
    assert number.encode(rows, fit(rows, scale="none")).tolist() == [1.5, 2.0, 3.0]


def test_a_logarithmic_target_is_standardised_after_log1p() -> None:
    rows = np.random.default_rng(0).lognormal(8, 2, 1000)
    column = fit(rows, scale="log")
    encoded = number.encode(rows, column)
    logs = np.log1p(rows)
    np.testing.assert_allclose(encoded, (logs - logs.mean()) / logs.std(), atol=1e-5)
    np.testing.assert_allclose(number.decode(encoded, column), rows, rtol=1e-5)


def test_a_number_without_a_logarithm_is_a_fault() -> None:
    with pytest.raises(RowFault, match=r"expected a number above -1, .* received -1") as caught:
        fit(np.array([0.0, 3.0, -1.0]), scale="log")
    assert caught.value.row == 2
    assert number.encode(np.array([-0.5]), fit(np.array([-0.9, 3.0]), scale="log")).shape == (1,)


def test_a_column_of_width_one_is_a_number_a_row() -> None:
    rows = np.array([[1.0], [2.0]])
    assert number.encode(rows, fit(rows)).shape == (2,)


@pytest.mark.parametrize("scale", ["standard", "log", "none"])
def test_a_constant_target_is_a_fault(scale: str) -> None:
    with pytest.raises(BmcliError, match="every training row has the value 3"):
        fit(np.full(4, 3.0), scale=scale)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "received nothing"),
        ("n/a", "expected a number, received 'n/a'"),
        ("inf", "expected a finite number"),
    ],
)
def test_a_cell_that_is_no_finite_number_is_a_fault(cell: str | None, message: str) -> None:
    with pytest.raises(RowFault, match=message) as caught:
        fit(pa.chunked_array([pa.array(["1", "2", cell])]))
    assert caught.value.row == 2


def test_a_number_beyond_float32_is_a_fault() -> None:
    with pytest.raises(RowFault, match="too large") as caught:
        number.encode(np.array([1.0, 1e300]), fit(np.array([1.0, 2.0])))
    assert caught.value.row == 1


def test_vectors_are_no_numbers() -> None:
    with pytest.raises(RowFault, match=r"expected one number a row, received an array of shape \(2,\)"):
        fit(np.zeros((3, 2)))
