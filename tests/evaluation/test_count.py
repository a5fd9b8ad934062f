from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from bmcli.evaluation.result import Evaluation
from tests.evaluation.columns import count, measure, metric_names


def evaluate(truth: np.ndarray, rates: np.ndarray) -> Evaluation:
    return measure({"visits": truth}, {"visits": rates}, (count(),), 5)


def test_figures_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    rates = draw.gamma(2, 3, 200).astype("float32")
    truth = draw.poisson(rates).astype("float64")
    found = evaluate(truth, rates).metrics
    assert tuple(found) == ("poisson_deviance", "mae", "rmse", "r2") == metric_names((count(),), 5)
    assert found["poisson_deviance"] == pytest.approx(reference.mean_poisson_deviance(truth, rates))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, rates))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(truth, rates))
    assert found["r2"] == pytest.approx(reference.r2_score(truth, rates))


def test_perfect_rates_have_no_deviance() -> None:
    assert evaluate(np.array([1.0, 5.0, 0.0]), np.array([1.0, 5.0, 0.0])).metrics["poisson_deviance"] == pytest.approx(
        0
    )


def test_a_rate_of_0_where_something_happened_is_finite_and_large() -> None:
    assert 50 < evaluate(np.array([1.0, 5.0]), np.array([0.0, 5.0])).metrics["poisson_deviance"] < 1e3


def test_a_constant_count_leaves_r2_undefined() -> None:
    assert set(evaluate(np.array([2.0, 2.0]), np.array([1.0, 3.0])).undefined) == {"r2"}
