"""Metrics of samples are the metrics of the rows in them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bmcli.evaluation import fairness
from bmcli.metrics import classification
from bmcli.metrics.weighted_metrics import make_weighted_areas
from tests.evaluation.columns import metric_names
from tests.evaluation.samples import KINDS, TOP_K, case

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_a_row_that_counts_three_times_is_as_three_rows(kind: str, seed: int) -> None:
    rows = case(kind, 40, seed)
    weights = np.random.default_rng(seed).integers(0, 4, (40, 5))
    found = rows.weighted.compute(weights.astype(float))
    for sample in range(5):
        expected = rows.take(np.repeat(np.arange(40), weights[:, sample])).measured
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(expected.metrics, rel=1e-5)


@every_kind
def test_every_metric_has_its_function_or_a_reason(kind: str) -> None:
    rows = case(kind, 30, 0)
    quantiles = {rows.column.name: rows.quantiles} if rows.quantiles else {}
    found = [*rows.weighted.compute(np.ones((30, 1))), *rows.weighted.left_out]
    assert sorted(found) == sorted(metric_names((rows.column,), TOP_K, quantiles))


@every_kind
def test_samples_that_leave_a_metric_undefined_give_nan(kind: str) -> None:
    rows = case(kind, 30, 0)
    one = np.eye(30)[:, :1]
    found = {name: values[0] for name, values in rows.weighted.compute(one).items()}
    measured = rows.take(np.array([0])).measured
    assert {name for name, value in found.items() if np.isnan(value)} == set(measured.undefined)


@every_kind
def test_shares_are_means_of_the_rows_that_count(kind: str) -> None:
    rows = case(kind, 30, 1)
    for name, counted in rows.weighted.shares.items():
        assert counted.mean() == pytest.approx(rows.measured.metrics[name])


@pytest.mark.parametrize("decimals", [1, 8], ids=["tied", "untied"])
def test_areas_are_those_of_scikit_learn_with_weights(decimals: int) -> None:
    dice = np.random.default_rng(decimals)
    positive, scores = dice.random(500) < 0.2, np.round(dice.random(500), decimals)
    weights = np.asfortranarray(dice.integers(0, 4, (500, 6)).astype("int32"))
    roc, precision = make_weighted_areas(positive, scores)(weights)
    for sample in range(6):
        own = weights[:, sample]
        assert roc[sample] == pytest.approx(roc_auc_score(positive, scores, sample_weight=own), rel=1e-12)
        expected = average_precision_score(positive, scores, sample_weight=own)
        assert precision[sample] == pytest.approx(expected, rel=1e-12)


def test_areas_of_scores_of_the_same_row_share_its_weight() -> None:
    dice = np.random.default_rng(0)
    positive, scores = dice.random((50, 3)) < 0.4, dice.random((50, 3))
    weights = dice.integers(0, 3, (50, 4))
    together = make_weighted_areas(positive.ravel(), scores.ravel(), np.repeat(np.arange(50), 3))(weights)
    apart = make_weighted_areas(positive.ravel(), scores.ravel())(np.repeat(weights, 3, axis=0))
    assert np.allclose(together, apart, rtol=1e-12)


def test_areas_of_many_classes_are_left_out_with_a_reason() -> None:
    classes = classification.MAX_RANKED_CLASSES + 1
    truth = np.arange(classes)
    names = tuple(map(str, truth))
    found = classification.make_weighted_metrics(truth, np.full((classes, classes), 1 / classes, "float32"), names, 5)
    assert set(found.left_out) == {"roc_auc", "pr_auc"}
    assert "roc_auc" not in found.compute(np.ones((classes, 1)))
    assert found.measure(classes)[0]["roc_auc"] == 0.5


def test_directions_of_metrics() -> None:
    info = {**case("two classes", 9, 0).weighted.info, **case("quantiles", 9, 0).weighted.info}
    assert [info[name].direction for name in ("accuracy", "mae", "pinball_0.1", "coverage")] == [
        "max",
        "min",
        "min",
        "",
    ]


@every_kind
def test_metrics_of_resamples_stay_within_their_bounds(kind: str) -> None:
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 200).T
    weighted = case(kind, 40, 0, skill=-1.0).weighted
    for name, values in weighted.compute(weights).items():
        low, high = weighted.info[name].low, weighted.info[name].high
        assert (low, high) != (-np.inf, np.inf), name
        assert low <= np.nanmin(values) <= np.nanmax(values) <= high + 1e-12, name


def test_bounds_of_metrics() -> None:
    kinds = ("five classes", "quantiles", "ordered")
    info = {name: each for kind in kinds for name, each in case(kind, 9, 0).weighted.info.items()}
    info["any"] = case("number", 9, 0).weighted.get_info("any")
    names = ("top_2_accuracy", "r2", "pinball_0.1", "spearman", "any")
    assert {name: (info[name].low, info[name].high) for name in names} == {
        "top_2_accuracy": (0, 1), "r2": (-np.inf, 1), "pinball_0.1": (0, np.inf), "spearman": (-1, 1),
        "any": (-np.inf, np.inf),
    }  # fmt: skip


def test_differences_and_ratios_between_groups_are_shares() -> None:
    assert {(each.low, each.high) for each in fairness.list_metrics("sex").values()} == {(0, 1)}
