"""Decisions on validation rows describe their effect there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bmcli.answers.classes import CategoryAnswers, LabelAnswers
from bmcli.answers.decisions import Decision
from bmcli.metrics.classification import log_losses
from bmcli.metrics.threshold import maximize_f1
from bmcli.specs import OutputSpec
from tests.evaluation.columns import category, labels


def too_sure(rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and probabilities whose logits are twice what they should be."""
    dice = np.random.default_rng(0)
    logits = dice.normal(size=rows)
    truth = (dice.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)
    stated = 1 / (1 + np.exp(-2 * logits))
    return truth, np.stack([1 - stated, stated], axis=1)


def category_answers() -> CategoryAnswers:
    return CategoryAnswers(OutputSpec("label", "classification", (2,), names=("no", "yes")), category("no", "yes"))


def test_a_temperature_has_loss_and_calibration_before_and_after() -> None:
    truth, found = too_sure()
    scaling, scaled = category_answers().fit_temperature(truth, found)
    assert scaling.temperature == pytest.approx(2, abs=0.2)
    assert scaling.losses == pytest.approx([log_losses(truth, each).mean() for each in (found, scaled)], rel=1e-6)
    assert scaling.after.error < scaling.after.critical_value < scaling.before.error
    assert "less extreme" in scaling.summary


def test_labels_are_softened_each_by_itself() -> None:
    truth, found = too_sure()
    both, stated = np.stack([truth, 1 - truth], axis=1), found[:, ::-1]
    answers = LabelAnswers(OutputSpec("tags", "multi_label", (2,), names=("a", "b")), labels("a", "b"))
    scaling, _ = answers.fit_temperature(both, stated[:, ::-1])
    assert scaling.losses[1] < scaling.losses[0]
    assert scaling.before.event == "all labels"


def test_decisions_pass_through_json() -> None:
    truth, found = too_sure(300)
    decisions = (
        Decision("paid", 300, category_answers().fit_temperature(truth, found)[0]),
        Decision("paid", 300, None, "yes", maximize_f1(truth == 1, found[:, 1])),
        Decision("paid", 0),
    )
    for each in decisions:
        assert Decision.from_json(json.loads(json.dumps(each.to_json()))) == each
    assert decisions[1].summary.startswith("'yes' is predicted if its probability is at least ")
    assert decisions[2].summary == ""
