from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from bmcli.metrics.threshold import ThresholdChoice, maximize_f1, maximize_recall, minimize_cost

DICE = np.random.default_rng(4)
TRUTH = DICE.random(300) < 0.3
SCORES = np.clip(np.round(0.3 * TRUTH + 0.7 * DICE.random(300), 2), 0, 1).astype("float32")
GRID = np.linspace(0.005, 0.995, 100)  # between the scores, which are rounded


def test_the_best_f1_is_that_of_a_search() -> None:
    found = maximize_f1(TRUTH, SCORES)
    best = max(f1_score(TRUTH, cut <= SCORES, zero_division=0) for cut in GRID)
    assert f1_score(TRUTH, found.value <= SCORES) == pytest.approx(best)
    assert f"{best:.4f}" in found.goal


def test_dear_misses_lower_the_threshold_and_dear_alarms_raise_it() -> None:
    def cost(cut: float, alarm: float, miss: float) -> float:
        return float(alarm * ((cut <= SCORES) & ~TRUTH).sum() + miss * ((cut > SCORES) & TRUTH).sum())

    cuts = []
    for alarm, miss in ((1, 10), (1, 1), (10, 1)):
        found = minimize_cost(TRUTH, SCORES, alarm, miss)
        assert cost(found.value, alarm, miss) == min(cost(cut, alarm, miss) for cut in (*GRID, 1.1))
        cuts.append(found.value)
    assert cuts == sorted(cuts)


def test_the_most_recall_at_a_precision_keeps_it() -> None:
    found = maximize_recall(TRUTH, SCORES, 0.8)
    assert precision_score(TRUTH, found.value <= SCORES) >= 0.8
    best = max(
        recall_score(TRUTH, c <= SCORES) for c in GRID if precision_score(TRUTH, c <= SCORES, zero_division=0) >= 0.8
    )
    assert recall_score(TRUTH, found.value <= SCORES) == pytest.approx(best)
    assert found.goal_reached


def test_a_precision_that_none_reaches_is_reported() -> None:
    found = maximize_recall(np.array([False, True] * 20), np.full(40, 0.5), 0.9)
    assert not found.goal_reached
    assert "none reaches" in found.goal


def test_the_curves_have_the_metrics_of_other_thresholds() -> None:
    found = maximize_f1(TRUTH, SCORES)
    for name, figure in (("F1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        each = [figure(TRUTH, cut <= SCORES) for cut in found.thresholds]
        assert found.curves[name] == pytest.approx(each)
    assert list(found.thresholds) == sorted(found.thresholds)
    assert found.curves["F1"][found.thresholds.index(found.value)] == max(found.curves["F1"])
    costs = minimize_cost(TRUTH, SCORES, 1, 3)
    assert costs.curves["cost per row"][costs.thresholds.index(costs.value)] == min(costs.curves["cost per row"])
    assert ThresholdChoice.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_of_many_thresholds_some_are_kept() -> None:
    dice = np.random.default_rng(0)
    found = maximize_f1(dice.random(3000) < 0.5, dice.random(3000))
    assert len(found.thresholds) == len(found.curves["recall"]) == 200
