"""Columns of numbers are described as people write them."""

from __future__ import annotations

import numpy as np
import pytest

from bmcli.data.raw_rows import RawSplits

COLUMNS = {
    "Year_Built": np.array([1872.0, 1999, np.nan, 2010]),
    "Lot_Area": np.array([1300.0, 98_000, np.nan, 260_000]),
    "years": np.array([1.0, 2, np.nan, 4]),
    "nothing": np.full(4, np.nan),
}
RAW = RawSplits(COLUMNS, {"train": np.arange(4)}, str, "houses.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Year_Built", "1872 to 2010"),
        ("Lot_Area", "1,300 to 260,000, mean 119,767"),
        ("years", "1 to 4, mean 2.3333"),
        ("nothing", None),
        ("absent", None),
    ],
)
def test_years_have_no_mean_and_no_separators(name: str, text: str | None) -> None:
    assert RAW.describe_numbers(name) == text


def test_cells_of_examples_have_no_exponent() -> None:
    assert RawSplits({"x": np.array([12_345_678.0, 0.5, np.nan])}, {"train": np.arange(3)}, str, "").cells(
        "x", "train", np.arange(3)
    ) == ["12345678", "0.5", ""]
