"""Intervals contain the true value as often as their level, and real differences are found."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bmcli.evaluation.intervals import (  # fmt: skip
    Difference,
    Interval,
    Resampling,
    compute_differences,
    compute_intervals,
    compute_mcnemar_p_value,
    compute_wilson_interval,
    resample_metrics,
)
from bmcli.metrics import classification, regression
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from tests.evaluation.samples import KINDS, case

CLASSES = ("no", "yes")
SIMULATED = 200


def between(figures: WeightedMetrics, rows: int, how: Resampling) -> tuple[dict[str, Interval], dict[str, str]]:
    return compute_intervals(resample_metrics(figures, rows, how))


def paired(first: WeightedMetrics, second: WeightedMetrics, rows: int, how: Resampling) -> dict[str, Difference]:
    return compute_differences(resample_metrics(first, rows, how), resample_metrics(second, rows, how))


def _of_means(values: np.ndarray) -> WeightedMetrics:
    return WeightedMetrics(make_weighted_means({"mean": values}))


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_has_an_interval_around_it(kind: str) -> None:
    rows = case(kind, 120, 0)
    found, reasons = between(rows.weighted, 120, Resampling(resamples=300))
    assert (set(found), reasons) == (set(rows.measured.metrics), {})
    for name, interval in found.items():
        assert interval.low < rows.measured.metrics[name] <= interval.high + 1e-12
        assert interval.method


def _binary(seed: int, rows: int) -> WeightedMetrics:
    """Scores of two normal distributions a unit apart; the area under their curve is Phi(1 / sqrt(2))."""
    dice = np.random.default_rng(seed)
    truth = (np.arange(rows) % 2).astype(int)
    scores = 1 / (1 + np.exp(-(dice.normal(size=rows) + truth - 0.5)))
    return classification.make_weighted_metrics(truth, np.stack([1 - scores, scores], axis=1), CLASSES, 5)


def _linear(seed: int, rows: int) -> WeightedMetrics:
    dice = np.random.default_rng(seed)
    predicted = dice.normal(size=rows)
    return regression.make_weighted_metrics(predicted + dice.normal(size=rows), predicted)


@pytest.mark.parametrize(
    ("make", "truths"),
    [(_binary, {"accuracy": 0.69146, "roc_auc": 0.76025}), (_linear, {"mae": 0.79788, "rmse": 1.0, "r2": 0.5})],
    ids=["classes", "numbers"],
)
def test_of_95_percent_intervals_93_to_97_percent_hold_the_truth(make, truths: dict[str, float]) -> None:
    held = dict.fromkeys(truths, 0)
    for seed in range(SIMULATED):
        found, _ = between(make(seed, 400), 400, Resampling(resamples=500))
        for metric, truth in truths.items():
            held[metric] += found[metric].low <= truth <= found[metric].high
    assert {metric: 0.93 <= count / SIMULATED <= 0.97 for metric, count in held.items()} == dict.fromkeys(truths, True)


@pytest.mark.slow
def test_intervals_of_numbers_hold_the_truth_of_few_rows_too() -> None:
    truths, simulated = {"mae": 0.79788, "rmse": 1.0, "r2": 0.5}, 1000
    held = dict.fromkeys(truths, 0)
    for seed in range(simulated):
        found, _ = between(_linear(seed, 200), 200, Resampling(resamples=500))
        for metric, truth in truths.items():
            held[metric] += found[metric].low <= truth <= found[metric].high
    assert {metric: 0.93 <= count / simulated <= 0.97 for metric, count in held.items()} == dict.fromkeys(truths, True)


@pytest.mark.parametrize(("sharpness", "truth"), [(1.0, 0.0), (1.5, 0.0612)], ids=["calibrated", "too sure"])
def test_intervals_of_the_calibration_error_hold_the_truth_though_chance_raises_it(
    sharpness: float, truth: float
) -> None:
    held, without = 0, 0
    for seed in range(SIMULATED):
        dice = np.random.default_rng(seed)
        logits = 1.5 * dice.normal(size=300)
        came_true = (dice.random(300) < 1 / (1 + np.exp(-logits))).astype(int)
        stated = 1 / (1 + np.exp(-sharpness * logits))
        figures = classification.make_weighted_metrics(came_true, np.stack([1 - stated, stated], axis=1), CLASSES, 5)
        drawn = resample_metrics(figures, 300, Resampling(resamples=300))
        found = compute_intervals(drawn)[0]["calibration_error"]
        held += found.low <= truth <= found.high
        low, high = np.quantile(drawn.distributions["calibration_error"].samples, [0.025, 0.975])
        without += low <= truth <= high
    assert found.method == "inverted bootstrap over rows, 300 resamples"
    assert 0.93 <= held / SIMULATED <= 0.98
    assert without / SIMULATED < 0.3  # what quantiles of the resamples would hold


def test_an_interval_of_the_calibration_error_is_cut_at_1() -> None:
    figures = classification.make_weighted_metrics(
        np.array([1, 0, 0, 0]), np.full((4, 2), [0.01, 0.99]), ("no", "yes"), 5
    )
    found = between(figures, 4, Resampling(resamples=300))[0]["calibration_error"]
    assert found.high == 1
    assert found.method == "inverted bootstrap over rows, 300 resamples, cut at the bounds of the metric"


def test_intervals_of_few_groups_hold_the_truth_where_those_of_rows_do_not() -> None:
    held = {"groups": 0, "rows": 0}
    for seed in range(SIMULATED):
        dice = np.random.default_rng(seed)
        groups = np.repeat(np.arange(25), 8)
        figures = _of_means(dice.normal(size=25)[groups] + dice.normal(size=200))
        for name, given in (("groups", groups), ("rows", None)):
            interval = between(figures, 200, Resampling(resamples=500, groups=given))[0]["mean"]
            held[name] += interval.low <= 0 <= interval.high
    assert 0.93 <= held["groups"] / SIMULATED <= 0.97
    assert held["rows"] / SIMULATED < 0.7


def test_the_same_rows_and_seed_give_the_same_interval() -> None:
    first, second, other = (between(_linear(0, 80), 80, Resampling(seed=s))[0] for s in (4, 4, 5))
    assert first == second
    assert first != other


def test_rows_in_chunks_are_drawn_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = between(_linear(0, 80), 80, Resampling())[0]
    monkeypatch.setattr("bmcli.evaluation.intervals._CHUNK_WEIGHTS", 800)
    assert between(_linear(0, 80), 80, Resampling())[0]["mae"].low == pytest.approx(at_once["mae"].low, rel=1e-12)


def test_methods_are_named() -> None:
    found, _ = between(_binary(0, 60), 60, Resampling(resamples=200))
    assert found["accuracy"].method == "Wilson score interval over 60 rows"
    assert found["roc_auc"].method == "BCa bootstrap over rows, 200 resamples"
    grouped, _ = between(_binary(0, 60), 60, Resampling(resamples=200, groups=np.arange(60) // 4))
    assert grouped["accuracy"].method == "BCa bootstrap over 15 groups, 200 resamples"


def test_a_perfect_accuracy_has_an_interval_with_a_width() -> None:
    truth = np.array([0, 1] * 20)
    found, reasons = between(
        classification.make_weighted_metrics(truth, np.eye(2)[truth], CLASSES, 5), 40, Resampling(resamples=100)
    )
    assert found["accuracy"].low == pytest.approx(0.9124, abs=1e-3)
    assert found["accuracy"].high == 1
    assert reasons["roc_auc"] == "it is the same in every resample."


def test_a_metric_that_most_resamples_leave_undefined_has_a_reason_instead() -> None:
    truth = np.array([1, *[0] * 29])
    scores = np.linspace(0.2, 0.8, 30)
    found, reasons = between(
        classification.make_weighted_metrics(truth, np.stack([1 - scores, scores], axis=1), CLASSES, 5),
        30,
        Resampling(),
    )
    assert "roc_auc" not in found
    assert "resamples leave it undefined" in reasons["roc_auc"]


def test_one_row_has_no_spread() -> None:
    found, reasons = between(regression.make_weighted_metrics(np.ones(1), np.zeros(1)), 1, Resampling(resamples=10))
    assert not found
    assert reasons["mae"] == "there is one unit to draw from."


def test_wilson_as_printed() -> None:
    found = compute_wilson_interval(81, 263)  # Newcombe 1998, table I
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_mcnemar_is_a_sign_test_of_the_rows_that_one_model_alone_gets_right() -> None:
    first = np.array([True] * 50 + [True] * 8 + [False] * 2 + [False] * 10)
    second = np.array([True] * 50 + [False] * 8 + [True] * 2 + [False] * 10)
    assert compute_mcnemar_p_value(first, second) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert compute_mcnemar_p_value(first, first) == 1


def _two_models(gap: float, seed: int, rows: int = 400) -> tuple[WeightedMetrics, WeightedMetrics]:
    """Two models of which the second errs more by a factor, on the same rows."""
    dice = np.random.default_rng(seed)
    truth, errors = dice.normal(size=rows), dice.normal(size=rows)
    noise = 0.3 * dice.normal(size=rows)
    return regression.make_weighted_metrics(truth, truth + errors), regression.make_weighted_metrics(
        truth, truth + (1 + gap) * errors + noise
    )


def test_a_paired_difference_is_found_where_separate_intervals_overlap() -> None:
    first, second = _two_models(0.05, 0)
    found = paired(first, second, 400, Resampling())["mae"]
    one, two = (between(each, 400, Resampling())[0]["mae"] for each in (first, second))
    assert one.high > two.low
    assert found.better == "first"
    assert found.p_value < 0.05
    assert "A is better" in found.summary("A", "B")


def test_differences_of_equal_models_are_found_in_5_percent() -> None:
    found = []
    for seed in range(SIMULATED):
        dice = np.random.default_rng(seed)
        truth = dice.normal(size=200)
        pair = [regression.make_weighted_metrics(truth, truth + dice.normal(size=200)) for _ in range(2)]
        found.append(paired(pair[0], pair[1], 200, Resampling(resamples=500))["mae"])
    assert 0.03 <= np.mean([bool(each.better) for each in found]) <= 0.07
    for each in found:
        assert (each.p_value < 0.05) == bool(each.better)


def test_shares_are_compared_by_mcnemar_unless_rows_belong_together() -> None:
    first, second = _binary(0, 100), _binary(1, 100)
    alone = paired(first, second, 100, Resampling())["accuracy"]
    grouped = paired(first, second, 100, Resampling(groups=np.arange(100) // 5))["accuracy"]
    assert alone.method == "McNemar's exact test"
    assert alone.p_value == compute_mcnemar_p_value(first.shares["accuracy"], second.shares["accuracy"])
    assert grouped.method == "paired BCa bootstrap over 20 groups, 1,000 resamples"


def test_a_difference_of_calibration_errors_is_not_tested() -> None:
    found = paired(_binary(0, 100), _binary(1, 100), 100, Resampling(resamples=100))["calibration_error"]
    assert (found.interval, found.better) == (None, "")
    assert "compare brier or log_loss" in found.summary()


def test_models_on_other_resamples_are_not_compared() -> None:
    drawn = resample_metrics(_linear(0, 50), 50, Resampling(resamples=100))
    others = (
        (60, Resampling(resamples=100)), (50, Resampling(resamples=100, seed=1)),
        (50, Resampling(resamples=100, groups=np.arange(50) // 2)),
    )  # fmt: skip
    for rows, how in others:
        with pytest.raises(ValueError, match="same resamples"):
            compute_differences(drawn, resample_metrics(_linear(0, rows), rows, how))


def test_a_model_against_itself_differs_by_nothing() -> None:
    found = paired(_binary(0, 50), _binary(0, 50), 50, Resampling(resamples=100))["accuracy"]
    assert (found.difference, found.p_value, found.better, found.interval) == (0, 1, "", None)
    assert found.summary().endswith("no interval, since it is the same in every resample.")


def test_values_pass_through_json() -> None:
    interval = Interval(0.1, 0.3, 0.95, "by hand")
    for difference in (
        Difference("mae", 1.0, 2.0, interval, 0.01, "by hand"), Difference("mae", 1.0, 1.0, None, 1.0, "x", "why.")
    ):  # fmt: skip
        assert Difference.from_json(json.loads(json.dumps(difference.to_json()))) == difference
    assert Interval.from_json(json.loads(json.dumps(interval.to_json()))) == interval


def test_a_calibration_error_of_0_has_a_reason_instead_of_an_interval_without_end() -> None:
    """All rows have the base rate as probability, as from a network with one constant input."""
    truth = np.arange(40) % 2
    figures = classification.make_weighted_metrics(truth, np.full((40, 2), 0.5, "float32"), CLASSES, 1, truth)
    found, reasons = between(figures, 40, Resampling(200))
    (name,) = figures.gaps
    assert "it is 0" in reasons[name]
    assert all(np.isfinite([each.low, each.high]).all() for each in found.values())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("classes", [2, 3])
def test_few_rows_of_one_class_make_no_raw_warnings(rows: int, classes: int) -> None:
    truth, probabilities = np.ones(rows, int), np.full((rows, classes), 1 / classes, "float32")
    for figures in (
        classification.make_weighted_metrics(truth, probabilities, tuple("abc"[:classes]), 1, truth),
        regression.make_weighted_metrics(np.full(rows, 5.0), np.full(rows, 5.0)),
    ):
        found, reasons = between(figures, rows, Resampling(50))
        json.dumps([each.to_json() for each in found.values()], allow_nan=False)
        assert all(reasons.values())
