"""Numbers in the unit of the target are written as people write them, and importance has their unit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.columns import answers_of, number


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("price", 260_000.0, "260,000"), ("price", 98_000.0, "98,000"), ("price", 183_232.4, "183,232"),
     ("price", 1987.0, "1,987"), ("year_built", 1987.0, "1987"), ("ratio", 0.25, "0.25")],
)  # fmt: skip
def test_values_have_no_exponent_and_years_no_separator(name: str, value: float, text: str) -> None:
    assert answers_of(number(name))[name].format_value(np.float32(value)) == text


def test_the_baseline_names_the_mean_as_people_write_it() -> None:
    baseline = answers_of(number())["price"].measure_baseline(np.array([98_000.0, 260_000.0, 260_000.0]), 5)
    assert baseline is not None
    assert baseline.prediction == "always 206,000, the mean"


def test_the_loss_of_a_row_has_the_unit_of_the_target() -> None:
    losses = answers_of(number())["price"].compute_row_losses(np.array([10.0, 20.0]), np.array([13.0, 18.0]))
    assert losses.name == "absolute error"
    assert losses.values.tolist() == [3.0, 2.0]
