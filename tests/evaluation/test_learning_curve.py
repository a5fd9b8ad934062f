from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmcli.evaluation.intervals import Resampling
from bmcli.evaluation.learning_curve import LearningCurve, RowScores, compute_learning_curve
from bmcli.evaluation.power_law import estimate_reduction
from bmcli.metrics.info import ERROR, SHARE, UNKNOWN

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
HOW = Resampling(resamples=200)


def _accuracies(
    train: tuple[float, ...], validation: tuple[float, ...], rows: int = 2000, validation_rows: int = 500
) -> LearningCurve:
    """Trainings that are right on these numbers of rows; rows that one gets right, a better one gets right, too."""
    luck = (np.arange(validation_rows) + 0.5) / validation_rows
    trainings = [
        RowScores(share, np.arange(int(rows * share)) < at * int(rows * share), luck < right)
        for share, at, right in zip(SHARES, train, validation, strict=True)
    ]
    return compute_learning_curve("label", "accuracy", SHARE, trainings, HOW)


def test_where_errors_still_fall_and_training_rows_are_fitted_more_data_helps() -> None:
    found = _accuracies((1.0, 1.0, 0.99, 0.98, 0.98), (0.6, 0.67, 0.74, 0.8, 0.84))
    assert found.more_data_helps
    assert found.fit == "over"
    assert found.gain_from_more_rows is not None
    assert found.gain_from_more_rows.p_value < 0.001
    assert "More data would help" in found.summary
    assert "The model overfits" in found.summary


def test_where_training_rows_are_not_fitted_either_the_model_is_too_small() -> None:
    found = _accuracies((0.72, 0.71, 0.71, 0.71, 0.71), (0.69, 0.7, 0.7, 0.7, 0.7))
    assert not found.more_data_helps
    assert found.fit == "under"
    assert "No evidence that more data would help" in found.summary
    assert "a larger model or longer training may help" in found.summary


def test_of_errors_less_is_better() -> None:
    dice = np.random.default_rng(0)
    noise = dice.random(400)
    trainings = [RowScores(s, noise[: int(400 * s)] * 0.1, noise * (2 - s)) for s in SHARES]
    found = compute_learning_curve("price", "mae", ERROR, trainings, HOW)
    assert found.more_data_helps
    assert found.error_ratio == pytest.approx(0.1)


def test_one_share_leaves_open_what_more_data_brings() -> None:
    found = compute_learning_curve(
        "label", "accuracy", SHARE, [RowScores(1.0, np.arange(60) > 5, np.arange(60) > 9)], HOW
    )
    assert found.gain_from_more_rows is None
    assert "too few training rows" in found.summary


def test_values_pass_through_json() -> None:
    found = _accuracies((1.0,) * 5, (0.6, 0.67, 0.74, 0.8, 0.84))
    assert LearningCurve.from_json(json.loads(json.dumps(found.to_json()))) == found


# Forecasts


def test_the_forecast_of_a_power_law_is_its_value_with_twice_the_rows() -> None:
    errors = [0.05 + 3 * (2000 * share) ** -0.5 for share in SHARES]
    forecast = _accuracies((1.0,) * 5, tuple(1 - error for error in errors), validation_rows=20_000).forecast
    assert forecast.rows == 4000
    assert forecast.value == pytest.approx(1 - (0.05 + 3 * 4000**-0.5), abs=0.003)
    assert forecast.interval is not None
    assert forecast.interval.low <= forecast.value <= forecast.interval.high
    assert "power law of the errors, percentile bootstrap over rows" in forecast.interval.method


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5), st.integers(20, 400))
def test_a_forecast_is_between_the_metric_and_its_best_value(accuracies: list[float], rows: int) -> None:
    found = _accuracies((1.0,) * 5, tuple(accuracies), validation_rows=rows)
    forecast, last = found.forecast, found.points[-1].validation
    if forecast.value is None:
        assert forecast.reason
        assert f"There is no forecast for 4,000 rows: {forecast.reason}." in found.summary
    else:
        assert forecast.interval is not None
        assert last <= forecast.interval.low <= forecast.value <= forecast.interval.high <= 1


def test_errors_without_an_upper_bound_have_a_forecast_above_0() -> None:
    noise = np.random.default_rng(0).random(400)
    trainings = [RowScores(s, noise[: int(400 * s)] * 0.1, noise * (2000 * s) ** -0.3) for s in SHARES]
    found = compute_learning_curve("price", "mae", ERROR, trainings, HOW)
    assert found.forecast.value == pytest.approx(found.points[-1].validation * 2**-0.3, rel=0.01)


def test_a_steep_curve_that_nears_its_bound_gets_no_forecast() -> None:
    """A line through the last points would forecast an accuracy of 1.11."""
    found = _accuracies((1.0,) * 5, (0.3, 0.35, 0.5, 0.74, 0.926))
    assert found.forecast.reason == "the points do not follow a power law"
    assert "There is no forecast for 4,000 rows" in found.summary


def test_points_that_scatter_leave_too_wide_a_range() -> None:
    found = _accuracies((1.0,) * 5, (0.4, 0.62, 0.7, 0.85, 0.9), validation_rows=60)
    assert found.forecast.value is None
    assert "% of the error, too wide a range" in found.forecast.reason


def test_three_points_are_too_few_for_a_forecast() -> None:
    right = np.arange(200) % 4 > 0
    trainings = [RowScores(share, right, right) for share in SHARES[2:]]
    found = compute_learning_curve("label", "accuracy", SHARE, trainings, HOW)
    assert found.forecast.reason == "it needs trainings on at least 4 shares of the rows"


def test_without_an_error_there_is_nothing_to_forecast() -> None:
    assert (
        _accuracies((1.0,) * 5, (0.8, 0.9, 0.99, 1.0, 1.0)).forecast.reason == "no error is left on the validation rows"
    )


def test_a_metric_without_a_best_value_has_no_error() -> None:
    noise = np.random.default_rng(0).random(400)
    found = compute_learning_curve("x", "width", UNKNOWN, [RowScores(s, noise, noise) for s in SHARES], HOW)
    assert found.forecast.reason == "width has no best value from which errors could be counted"
    assert (found.error_ratio, found.fit) == (None, "unknown")
    assert "cannot be seen" in found.summary


def test_intervals_of_forecasts_cover_the_power_law() -> None:
    generator, covered = np.random.default_rng(0), 0
    rows = np.array([100, 200, 400, 800, 1400, 2000])
    for number in range(60):
        errors = 0.05 + 2 * rows**-0.6 + generator.normal(0, 0.01, len(rows))
        wrong = generator.random((400, 1)) < errors
        resampled = generator.multinomial(400, np.full(400, 1 / 400), 200) @ wrong / 400
        draws = estimate_reduction(rows, wrong.mean(axis=0), resampled, 2, number).draws
        true = 1 - (0.05 + 2 * 4000**-0.6) / (0.05 + 2 * 2000**-0.6)
        covered += np.quantile(draws, 0.025) <= true <= np.quantile(draws, 0.975)
    assert covered >= 54
