"""Every metric of a number target against scikit-learn on real predictions, or a computation by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from bmcli.evaluation.result import Evaluation
from tests.evaluation.columns import measure, number


def evaluate(truth: Sequence[float] | np.ndarray, predictions: Sequence[float] | np.ndarray) -> Evaluation:
    return measure({"price": np.asarray(truth)}, {"price": np.asarray(predictions)}, (number(),), 5)


def test_figures_of_a_real_model_follow_their_definitions() -> None:
    features, truth = load_diabetes(return_X_y=True)
    model = Ridge(alpha=0.1).fit(features[::2], truth[::2])
    predictions, truth = model.predict(features[1::2]), truth[1::2]
    errors = predictions - truth
    found = evaluate(truth, predictions).metrics
    assert found["mae"] == pytest.approx(np.abs(errors).mean())
    assert found["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert found["r2"] == pytest.approx(model.score(features[1::2], truth))
    assert found["r2"] == pytest.approx(1 - (errors**2).sum() / ((truth - truth.mean()) ** 2).sum())


def test_figures_of_four_rows_computed_by_hand() -> None:
    assert evaluate([1, 2, 3, 4], [1, 2, 3, 8]).metrics == {"mae": 1.0, "rmse": 2.0, "r2": 1 - 16 / 5}


def test_perfect_predictions_have_no_error() -> None:
    assert evaluate([1.5, -2.0, 7.0], [1.5, -2.0, 7.0]).metrics == {"mae": 0, "rmse": 0, "r2": 1}


def test_the_mean_explains_nothing() -> None:
    assert evaluate([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]).metrics["r2"] == 0


def test_one_row_leaves_r2_undefined() -> None:
    found = evaluate([3.0], [4.0])
    assert found.metrics == {"mae": 1.0, "rmse": 1.0}
    assert found.undefined == {"r2": "one row has no variance."}


@pytest.mark.parametrize("predictions", [[0.1] * 3, [0.1, 0.2, 0.3]])
def test_a_constant_target_leaves_r2_undefined(predictions: list[float]) -> None:
    found = evaluate([0.1, 0.1, 0.1], predictions)
    assert set(found.metrics) == {"mae", "rmse"}
    assert found.undefined == {"r2": "the target is 0.1 in every row."}


def test_differences_too_small_to_square_leave_r2_undefined() -> None:
    assert evaluate([0.0, 1e-200], [1.0, 1.0]).undefined["r2"] == "the target is 0 in every row."


def test_errors_too_large_to_square_leave_rmse_undefined() -> None:
    found = evaluate([0.0, 1.0], [1e200, 1.0])
    assert found.metrics == {"mae": 5e199}
    assert found.undefined == dict.fromkeys(("rmse", "r2"), "its value is too large for a 64-bit number.")


def test_small_numbers_are_summed_in_double_precision() -> None:
    truth = np.full(100_000, 1000.1, np.float32)
    truth[0] = 0
    errors = np.float64(np.float32(1000.1)) - 1000
    assert evaluate(truth, np.full(100_000, 1000, np.float32)).metrics["mae"] == pytest.approx(
        (errors * 99_999 + 1000) / 100_000, rel=1e-9
    )


numbers = arrays.arrays(np.float32, st.shared(st.integers(1, 30), key="rows"), elements=st.floats(-1e6, 1e6, width=32))


@settings(deadline=None, max_examples=50)
@given(numbers, numbers)
def test_rmse_is_at_least_mae_and_every_metric_has_a_value_or_a_reason(
    truth: np.ndarray, predictions: np.ndarray
) -> None:
    found = evaluate(truth, predictions)
    assert {*found.metrics, *found.undefined} == {"mae", "rmse", "r2"}
    assert found.metrics["rmse"] >= found.metrics["mae"] * (1 - 1e-12)
    assert found.metrics.get("r2", 0) <= 1
