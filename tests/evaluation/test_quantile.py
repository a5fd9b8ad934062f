from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from bmcli.evaluation.result import Evaluation
from tests.evaluation.columns import category, measure, metric_names, number

QUANTILES = (0.05, 0.5, 0.95)


def evaluate(truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...] = QUANTILES) -> Evaluation:
    return measure({"price": truth}, {"price": predictions}, (number(),), 5, {"price": quantiles})


def drawn() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    centre = draw.normal(50, 10, 400)
    return draw.normal(centre, 5), centre[:, None] + 5 * np.array([-1.5, 0.2, 1.7])


def test_figures_are_those_of_scikit_learn() -> None:
    truth, predictions = drawn()
    found = evaluate(truth, predictions).metrics
    assert tuple(found) == metric_names((number(),), 5, {"price": QUANTILES})
    losses = [reference.mean_pinball_loss(truth, predictions[:, i], alpha=q) for i, q in enumerate(QUANTILES)]
    assert [found[f"pinball_{q}"] for q in QUANTILES] == pytest.approx(losses)
    assert found["pinball"] == pytest.approx(np.mean(losses))
    assert found["coverage"] == pytest.approx(((predictions[:, 0] <= truth) & (truth <= predictions[:, 2])).mean())
    assert found["interval_width"] == pytest.approx(16)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, predictions[:, 1]))
    assert found["r2"] == pytest.approx(reference.r2_score(truth, predictions[:, 1]))


def test_one_quantile_has_no_interval() -> None:
    truth, predictions = drawn()
    found = evaluate(truth, predictions[:, 2:], (0.95,)).metrics
    assert tuple(found) == ("pinball", "pinball_0.95", "mae", "rmse", "r2")


def test_names_stand_beside_those_of_other_targets() -> None:
    names = metric_names((category("a", "b"), number()), 5, {"price": (0.1, 0.9)})
    assert {"label/accuracy", "price/pinball_0.1", "price/coverage"} <= set(names)


def test_another_number_of_quantiles_is_refused() -> None:
    truth, predictions = drawn()
    with pytest.raises(ValueError, match=r"predictions \(400, 3\), received \(400,\) and \(400, 2\)"):
        evaluate(truth, predictions[:, :2])
