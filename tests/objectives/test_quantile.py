from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from sklearn.metrics import mean_pinball_loss

from bmcli.metrics.levels import find_median_index
from bmcli.models import Features
from bmcli.objectives import quantile
from bmcli.recipe.fields import KerasObject
from tests.objectives.cases import CASES, INCOME, PRICE

CASE = CASES["quantile"]
SHARES = (0.1, 0.5, 0.9)


@cache
def compiled(jit: bool) -> Any:
    return tf.function(CASES["quantile, log"].build().predict, jit_compile=jit)


def own_unit(encoded: np.ndarray) -> np.ndarray:
    return encoded * PRICE.state["scale"] + PRICE.state["mean"]


def test_the_first_quantile_is_free_and_each_other_one_is_above() -> None:
    output = CASE.outputs().astype("float64")
    rises = np.log1p(np.exp(output[:, 1:]))
    expected = own_unit(np.cumsum(np.concatenate([output[:, :1], rises], axis=1), axis=1))
    np.testing.assert_allclose(CASE.build().predict(tf.constant(CASE.outputs())), expected, rtol=1e-5)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32)))
@pytest.mark.parametrize("jit", [False, True], ids=["plain", "xla"])
def test_quantiles_never_cross(jit: bool, outputs: np.ndarray) -> None:
    predict = compiled(jit)
    assert (np.diff(predict(tf.constant(outputs)).numpy(), axis=1) >= 0).all()


def test_the_loss_is_the_mean_pinball_loss_of_the_standardised_number() -> None:
    objective, truth = CASE.build(), CASE.truth()
    predicted = (objective.predict(tf.constant(CASE.outputs())).numpy() - PRICE.state["mean"]) / PRICE.state["scale"]
    expected = np.mean([mean_pinball_loss(truth, predicted[:, i], alpha=share) for i, share in enumerate(SHARES)])
    losses = objective.loss(tf.constant(truth), tf.constant(CASE.outputs())).numpy()
    assert losses.mean() == pytest.approx(expected, rel=1e-4)


def test_the_quantiles_of_the_rows_have_the_smallest_loss() -> None:
    truth = np.random.default_rng(0).gamma(2, 1, 4000).astype("float32")
    best = np.quantile(truth, SHARES)
    outputs = np.array([best[0], *np.log(np.expm1(np.diff(best)))])

    def mean_loss(outputs: np.ndarray) -> float:
        rows = tf.tile(tf.constant(outputs[None], tf.float32), (len(truth), 1))
        return float(tf.reduce_mean(CASE.build().loss(tf.constant(truth), rows)))

    for change in (*np.eye(3), *-np.eye(3)):
        assert mean_loss(outputs + 0.2 * change) > mean_loss(outputs) + 1e-4


def test_metrics_are_in_the_targets_unit() -> None:
    objective = CASE.build()
    measures = objective.metrics((KerasObject("root_mean_squared_error"),))
    predicted = objective.predict(tf.constant(CASE.outputs())).numpy()
    for measure in measures.values():
        for part in (slice(0, 13), slice(13, None)):
            measure.update(tf.constant(CASE.truth()[part]), tf.constant(predicted[part]))
    found = {name: float(measure.keras_metric.result()) for name, measure in measures.items()}
    truth = own_unit(CASE.truth())
    expected = np.mean([mean_pinball_loss(truth, predicted[:, i], alpha=share) for i, share in enumerate(SHARES)])
    assert list(found) == ["pinball", "coverage", "mae", "root_mean_squared_error"]
    assert found["pinball"] == pytest.approx(expected, rel=1e-4)
    assert found["coverage"] == pytest.approx(np.mean((predicted[:, 0] <= truth) & (truth <= predicted[:, 2])))
    assert found["mae"] == pytest.approx(np.abs(predicted[:, 1] - truth).mean(), rel=1e-4)


def test_one_quantile_has_no_interval() -> None:
    assert "coverage" not in CASES["quantile, one"].build().metrics()


@pytest.mark.parametrize(("quantiles", "expected"), [((0.1, 0.5, 0.9), 1), ((0.9,), 0), ((0.05, 0.1, 0.45, 0.9), 2)])
def test_the_middle_is_the_median_or_next_to_it(quantiles: tuple[float, ...], expected: int) -> None:
    assert find_median_index(quantiles) == expected


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [
        ((), "at least 1"),
        ((0.5, 0.1), "in increasing order"),
        ((0.5, 0.5), "in increasing order"),
        ((0.0, 0.5), "greater than 0"),
        ((0.5, 1.0), "less than 1"),
    ],
)
def test_quantiles_are_shares_that_rise(quantiles: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        quantile.Options(quantiles=quantiles)


def test_a_head_has_a_number_for_each_quantile() -> None:
    options = quantile.Options(quantiles=(0.2, 0.8))
    assert quantile.build_head(options, PRICE, Features(keras.Input((5,)))).shape[1] == 2


def test_a_logarithmic_target_is_predicted_in_its_own_unit() -> None:
    case = CASES["regression, log"]
    predicted = case.build().predict(tf.constant(case.outputs()))
    expected = np.expm1(case.outputs()[:, 0] * INCOME.state["scale"] + INCOME.state["mean"])
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)
