from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli.cells import RowFault
from bmcli.errors import BmcliError
from bmcli.inputs import image
from bmcli.specs import Column


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 200, shape, "uint8")


def fit(rows: Any, **options: Any) -> Column:
    return image.fit("x", rows, image.Options(**options))


def test_bytes_stay_bytes_and_get_a_channel() -> None:
    rows = pictures(5, 4, 3)
    column = fit(rows)
    array = image.encode(rows, column)
    assert (array.shape, array.dtype) == ((5, 4, 3, 1), np.uint8)
    np.testing.assert_array_equal(array[..., 0], rows)
    assert (column.shape, column.raw_shape, column.raw_dtype) == ((4, 3, 1), (4, 3), "uint8")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "bool"])
def test_other_numbers_become_float32(dtype: str) -> None:
    rows = pictures(5, 4, 3, 3).astype(dtype)
    column = fit(rows)
    assert column.dtype == "float32"
    np.testing.assert_array_equal(image.encode(rows, column), rows.astype("float32"))


def test_pictures_are_resized_and_grey_becomes_colour() -> None:
    rows = pictures(5, 8, 6)
    column = fit(rows, size=(4, 4), channels=3)
    array = image.encode(rows, column)
    assert (array.shape, array.dtype) == ((5, 4, 4, 3), np.uint8)
    assert (array[..., 0] == array[..., 2]).all()


def test_colour_becomes_grey() -> None:
    rows = np.zeros((2, 3, 3, 3), "uint8")
    rows[..., 1] = 100
    array = image.encode(rows, fit(rows, channels=1))
    assert array.shape == (2, 3, 3, 1)
    assert set(array.ravel().tolist()) == {58}  # Green weighs 0.587.


def test_unit_scale_is_the_range_of_the_training_pixels() -> None:
    column = fit(np.array([[[4, 12]], [[8, 20]]], "uint8"))
    assert column.state == {"offset": [4.0], "scale": [16.0]}


def test_standard_scale_is_per_channel() -> None:
    rows = np.random.default_rng(0).normal([1, -9, 30], [1, 2, 3], (2000, 4, 4, 3))
    state = fit(rows, scale="standard").state
    np.testing.assert_allclose(state["offset"], rows.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(state["scale"], rows.std(axis=(0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("scale", ["unit", "standard", "none"])
def test_constant_pixels_are_not_divided_by_zero(scale: str) -> None:
    assert fit(np.full((3, 2, 2, 2), 0.1), scale=scale).state["scale"] == [1.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_a_fault(value: float) -> None:
    rows = np.zeros((2000, 2, 2))
    rows[1500, 1, 1] = value
    with pytest.raises(RowFault, match="expected finite pixels") as caught:
        fit(rows)
    assert caught.value.row == 1500


@pytest.mark.parametrize(
    ("rows", "received"),
    [
        (pa.chunked_array([["a.png"]]), "text"),
        (np.zeros(3), r"rows of shape \(\)"),
        (np.zeros((3, 4)), r"rows of shape \(4,\)"),
        (np.zeros((3, 0, 4)), r"rows of shape \(0, 4\)"),
    ],
)
def test_what_is_no_picture_is_a_fault(rows: Any, received: str) -> None:
    with pytest.raises(BmcliError, match=f"received {received}"):
        fit(rows)


def test_two_channels_cannot_become_three() -> None:
    with pytest.raises(BmcliError, match="2 channels cannot become 3"):
        fit(np.zeros((3, 4, 4, 2)), channels=3)


def test_pictures_of_another_size_are_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"expected rows of shape \(4, 3\), received \(5, 3\)"):
        image.encode(pictures(2, 5, 3), fit(pictures(2, 4, 3)))
