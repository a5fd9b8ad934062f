"""Decisions on validation rows describe their effect there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bmcli.evaluation.calibration import fit_temperature, rescale_probabilities
from bmcli.evaluation.classification import log_losses
from bmcli.evaluation.decisions import Decision, measure_temperature_scaling
from bmcli.evaluation.threshold import maximize_f1
from bmcli.specs import Column
from tests.evaluation.columns import category, labels


def too_sure(rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and probabilities whose logits are twice what they should be."""
    dice = np.random.default_rng(0)
    logits = dice.normal(size=rows)
    truth = (dice.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)
    stated = 1 / (1 + np.exp(-2 * logits))
    return truth, np.stack([1 - stated, stated], axis=1)


def test_a_temperature_has_loss_and_calibration_before_and_after() -> None:
    truth, found = too_sure()
    temperature = fit_temperature(truth, found)
    scaled = rescale_probabilities(found, temperature)
    scaling = measure_temperature_scaling(category("no", "yes"), truth, found, scaled, temperature)
    assert temperature == pytest.approx(2, abs=0.2)
    assert scaling.losses == pytest.approx([log_losses(truth, each).mean() for each in (found, scaled)], rel=1e-6)
    assert scaling.after.error < scaling.after.critical_value < scaling.before.error
    assert "less extreme" in scaling.summary


def test_labels_are_softened_each_by_itself() -> None:
    truth, found = too_sure()
    both, stated = np.stack([truth, 1 - truth], axis=1), found[:, ::-1]
    scaling = measure_temperature_scaling(
        labels("a", "b"), both, stated[:, ::-1], rescale_probabilities(stated[:, ::-1], 2.0, independent=True), 2.0
    )
    assert scaling.losses[1] < scaling.losses[0]
    assert scaling.before.event == "all labels"


def test_decisions_pass_through_json() -> None:
    truth, found = too_sure(300)
    column: Column = category("no", "yes")
    decisions = (
        Decision(
            "paid", 300, measure_temperature_scaling(column, truth, found, rescale_probabilities(found, 2.0), 2.0)
        ),
        Decision("paid", 300, None, "yes", maximize_f1(truth == 1, found[:, 1])),
        Decision("paid", 0),
    )
    for each in decisions:
        assert Decision.from_json(json.loads(json.dumps(each.to_json()))) == each
    assert decisions[1].summary.startswith("'yes' is predicted if its probability is at least ")
    assert decisions[2].summary == ""
