from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from bmcli.metrics.calibration import (
    Calibration,
    compute_brier_score,
    compute_calibration_error,
    fit_temperature,
    measure_classes,
    measure_labels,
    rescale_probabilities,
)

DICE = np.random.default_rng(3)


def _right(classes: int, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Classes drawn from their own probabilities."""
    logits = 1.5 * DICE.normal(size=(rows, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (DICE.random((rows, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return np.minimum(truth, classes - 1), probabilities


@pytest.mark.parametrize("classes", [2, 4])
def test_right_probabilities_are_within_chance_and_sharpened_ones_beyond(classes: int) -> None:
    truth, probabilities = _right(classes)
    names = tuple("abcd"[:classes])
    right, sharp = (
        measure_classes(truth, given, names) for given in (probabilities, rescale_probabilities(probabilities, 0.4))
    )
    assert right.error < right.critical_value
    assert right.p_value > 0.05
    assert sharp.error > sharp.critical_value
    assert sharp.p_value < 0.01
    assert sharp.brier > right.brier


@pytest.mark.parametrize("classes", [2, 4])
def test_the_temperature_that_was_used_is_found(classes: int) -> None:
    truth, probabilities = _right(classes)
    assert fit_temperature(truth, rescale_probabilities(probabilities, 0.4)) == pytest.approx(1 / 0.4, rel=0.08)
    assert fit_temperature(truth, rescale_probabilities(probabilities, 3.0)) == pytest.approx(1 / 3, rel=0.08)


def test_labels_have_a_temperature_each_by_itself() -> None:
    probabilities = DICE.random((4000, 3))
    truth = (DICE.random((4000, 3)) < probabilities).astype(int)
    sharp = rescale_probabilities(probabilities, 0.5, independent=True)
    assert fit_temperature(truth, sharp, independent=True) == pytest.approx(2, rel=0.08)
    assert measure_labels(truth, sharp).error > 3 * measure_labels(truth, probabilities).error
    assert sharp.sum(axis=1).max() > 1


def test_a_temperature_keeps_the_order_and_1_keeps_the_probabilities() -> None:
    _, probabilities = _right(5, 50)
    assert rescale_probabilities(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-6)
    for temperature in (0.3, 4.0):
        found = rescale_probabilities(probabilities, temperature)
        assert (found.argsort(axis=1) == probabilities.argsort(axis=1)).all()
        assert found.sum(axis=1) == pytest.approx(1)


def test_softening_is_division_of_logits() -> None:
    logits = DICE.normal(size=(20, 4))
    expected = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(axis=1, keepdims=True)
    assert rescale_probabilities(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2.5) == pytest.approx(
        expected
    )


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    truth = np.array([0, 1, 1, 0] * 5)
    right, wrong = (
        measure_classes(truth, np.eye(2)[truth], ("a", "b")),
        measure_classes(truth, np.eye(2)[1 - truth], ("a", "b")),
    )
    assert (right.error, right.brier, right.max_error) == (0, 0, 0)
    assert (wrong.error, wrong.brier, wrong.max_error) == (1, 1, 1)


def test_an_error_worked_out_by_hand() -> None:
    stated = np.array([0.1, 0.12, 0.9, 0.9])
    came_true = np.array([False, True, True, True])
    assert compute_calibration_error(stated, came_true) == pytest.approx((abs(0.22 - 1) + abs(1.8 - 2)) / 4)


def test_bins_add_up_to_the_rows_and_hold_their_frequency() -> None:
    truth, probabilities = _right(2, 500)
    found = measure_classes(truth, probabilities, ("no", "yes"))
    assert found.event == "'yes'"
    assert sum(each.count for each in found.bins) == 500
    for each in found.bins:
        assert each.low < each.probability <= each.high
        assert each.frequency_low <= each.frequency <= each.frequency_high


@pytest.mark.parametrize("classes", [2, 4])
def test_brier_is_that_of_scikit_learn(classes: int) -> None:
    truth, probabilities = _right(classes, 100)
    given = probabilities[:, 1] if classes == 2 else probabilities
    assert compute_brier_score(truth, probabilities) == pytest.approx(brier_score_loss(truth, given))


def test_the_summary_has_the_direction_of_the_error() -> None:
    truth = np.array([0, 0, 0, 1] * 100)
    high = measure_classes(truth, np.tile([0.2, 0.8], (400, 1)), ("a", "b"))
    low = measure_classes(truth, np.tile([0.95, 0.05], (400, 1)), ("a", "b"))
    assert high.summary.endswith("probabilities are mostly too high")
    assert low.summary.endswith("probabilities are mostly too low")


def test_values_pass_through_json() -> None:
    found = measure_classes(*_right(3, 60), ("a", "b", "c"))
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found
