"""Every metric of a target of ordered categories against scikit-learn and scipy, or a computation by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from bmcli.evaluation.result import Evaluation
from bmcli.metrics.ordinal import METRICS, spearman
from tests.evaluation.columns import measure, metric_names, ordered

GRADES = ordered("poor", "fair", "good", "best")


def evaluate(truth: np.ndarray, probabilities: np.ndarray) -> Evaluation:
    return measure({"grade": truth}, {"grade": probabilities}, (GRADES,), 5)


def drawn(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(4), rows).astype("float32")
    return np.array([draw.choice(4, p=each / each.sum()) for each in probabilities.astype("float64")]), probabilities


def test_figures_are_those_of_scikit_learn_for_the_median() -> None:
    truth, probabilities = drawn()
    median = (np.cumsum(probabilities, axis=1)[:, :-1] < 0.5).sum(axis=1)
    found = evaluate(truth, probabilities).metrics
    assert tuple(found) == tuple(METRICS) == metric_names((GRADES,), 5)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, median))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, median))
    kappa = reference.cohen_kappa_score(truth, median, weights="quadratic")
    assert found["quadratic_kappa"] == pytest.approx(kappa)
    assert found["spearman"] == pytest.approx(stats.spearmanr(truth, probabilities @ np.arange(4)).statistic)
    assert found["log_loss"] == pytest.approx(reference.log_loss(truth, probabilities), rel=1e-4)


def test_confusion_and_class_table_are_there() -> None:
    truth, probabilities = drawn()
    found = evaluate(truth, probabilities)
    assert [row.name for row in found.per_class["grade"]] == list(GRADES.classes)
    assert sum(map(sum, found.confusion["grade"])) == 300


def test_three_rows_computed_by_hand() -> None:
    found = evaluate(np.array([0, 1, 3]), np.eye(4, dtype="float32")[[0, 3, 3]]).metrics
    assert (found["accuracy"], found["mae"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    # Squared distances: 4 seen; of chance (0 + 9 + 9 + 1 + 4 + 4 + 9 + 0 + 0) / 3 = 12
    assert found["quadratic_kappa"] == pytest.approx(1 - 4 / 12)


def test_one_category_predicted_for_all_leaves_metrics_undefined() -> None:
    found = evaluate(np.array([1, 1]), np.eye(4, dtype="float32")[[1, 1]])
    assert set(found.undefined) == {"quadratic_kappa", "spearman"}
    assert found.metrics["mae"] == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_spearman_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    found = spearman(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_every_metric_has_a_value_or_a_reason(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    found = evaluate(truth, np.eye(4, dtype="float32")[predicted])
    assert {*found.metrics, *found.undefined} == set(METRICS)
