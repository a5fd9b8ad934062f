from __future__ import annotations

import json

import numpy as np
import pytest

from bmcli.evaluation.intervals import Resampling
from bmcli.evaluation.learning_curve import LearningCurve, RowScores, compute_learning_curve
from bmcli.metrics.info import ERROR, SHARE

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
HOW = Resampling(resamples=200)


def _accuracies(train: tuple[float, ...], validation: tuple[float, ...], rows: int = 2000) -> LearningCurve:
    """Trainings that are right on these numbers of rows; rows that one gets right, a better one gets right, too."""
    luck = np.random.default_rng(0).random(500)
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
    assert 0.05 < found.gain_per_doubling < 0.12
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
    assert found.gain_per_doubling < 0
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
