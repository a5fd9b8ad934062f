"""Metrics of samples are the metrics of the rows in them."""

from __future__ import annotations

import numpy as np
import pytest

from bmcli.evaluation import classification
from bmcli.evaluation.directions import direction
from bmcli.evaluation.metrics import metric_names
from tests.evaluation.samples import KINDS, TOP_K, case

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_a_row_that_counts_three_times_is_as_three_rows(kind: str, seed: int) -> None:
    rows = case(kind, 40, seed)
    weights = np.random.default_rng(seed).integers(0, 4, (40, 5))
    found = rows.weighted.of(weights.astype(float))
    for sample in range(5):
        expected = rows.take(np.repeat(np.arange(40), weights[:, sample])).measured
        wanted = {name: value for name, value in expected.metrics.items() if name != "calibration_error"}
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(wanted, rel=1e-5)


@every_kind
def test_every_metric_has_its_function_or_a_reason(kind: str) -> None:
    rows = case(kind, 30, 0)
    quantiles = {rows.column.name: rows.quantiles} if rows.quantiles else {}
    found = [*rows.weighted.of(np.ones((30, 1))), *rows.weighted.left_out]
    assert sorted(found) == sorted(metric_names((rows.column,), TOP_K, quantiles))


@every_kind
def test_samples_that_leave_a_metric_undefined_give_nan(kind: str) -> None:
    rows = case(kind, 30, 0)
    one = np.eye(30)[:, :1]
    found = {name: values[0] for name, values in rows.weighted.of(one).items()}
    measured = rows.take(np.array([0])).measured
    assert {name for name, value in found.items() if np.isnan(value)} == set(measured.undefined)


@every_kind
def test_shares_are_means_of_the_rows_that_count(kind: str) -> None:
    rows = case(kind, 30, 1)
    for name, counted in rows.weighted.shares.items():
        assert counted.mean() == pytest.approx(rows.measured.metrics[name])


def test_areas_of_many_classes_are_left_out_and_said_to_be() -> None:
    classes = classification.MOST_RANKED + 1
    truth = np.arange(classes)
    found = classification.weighted(truth, np.full((classes, classes), 1 / classes, "float32"), 5)
    assert set(found.left_out) == {"roc_auc", "pr_auc", "calibration_error"}
    assert "roc_auc" not in found.of(np.ones((classes, 1)))


def test_directions_of_metrics() -> None:
    assert [direction(name) for name in ("label/accuracy", "price/mae", "pinball_0.1", "coverage")] == [
        "max", "min", "min", "",
    ]  # fmt: skip
