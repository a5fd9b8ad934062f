from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from bmcli.recipe.fields import KerasObject
from tests.objectives.cases import CASES, VISITS

CASE = CASES["count"]


def rates() -> np.ndarray:
    return VISITS.state["mean"] * np.exp(CASE.outputs()[:, 0].astype("float64"))


def test_the_prediction_is_the_rate_beside_the_training_mean() -> None:
    objective = CASE.build()
    np.testing.assert_allclose(objective.predict(tf.constant(CASE.outputs())), rates(), rtol=1e-5)
    assert float(objective.predict(tf.zeros((1, 1)))[0]) == pytest.approx(4.0)


def test_the_loss_is_half_the_poisson_deviance() -> None:
    losses = CASE.build().loss(tf.constant(CASE.truth()), tf.constant(CASE.outputs())).numpy()
    assert losses.mean() == pytest.approx(metrics.mean_poisson_deviance(CASE.truth(), rates()) / 2, rel=1e-4)


def test_the_gradient_is_the_error_of_the_rate() -> None:
    output = tf.constant(CASE.outputs())
    with tf.GradientTape() as tape:
        tape.watch(output)
        losses = CASE.build().loss(tf.constant(CASE.truth()), output)
    np.testing.assert_allclose(tape.gradient(losses, output)[:, 0], rates() - CASE.truth(), rtol=1e-4, atol=1e-4)


def test_a_right_rate_has_no_loss() -> None:
    counts = np.array([1, 5, 1000, 100_000], "float32")
    losses = CASE.build().loss(tf.constant(counts), tf.constant(np.log(counts / 4)[:, None]))
    np.testing.assert_allclose(losses / counts, 0, atol=1e-5)


def test_the_rate_never_falls_when_the_output_rises() -> None:
    outputs = np.concatenate([np.linspace(-50, 50, 2001), [1e3, 1e4]])
    predicted = CASE.build().predict(tf.constant(outputs[:, None], tf.float32)).numpy()
    assert (np.diff(predicted) >= 0).all()
    assert (np.diff(predicted)[1000:] > 0).all()


def test_metrics_are_those_of_scikit_learn() -> None:
    objective, truth = CASE.build(), CASE.truth()
    measures = objective.metrics((KerasObject("r2_score"),))
    for measure in measures.values():
        for part in (slice(0, 13), slice(13, None)):
            measure.update(tf.constant(truth[part]), objective.predict(tf.constant(CASE.outputs()[part])))
    found = {name: float(measure.keras_metric.result()) for name, measure in measures.items()}
    assert list(found) == ["poisson_deviance", "mae", "r2_score"]
    assert found["poisson_deviance"] == pytest.approx(metrics.mean_poisson_deviance(truth, rates()), rel=1e-4)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, rates()), rel=1e-4)
    assert found["r2_score"] == pytest.approx(metrics.r2_score(truth, rates()), rel=1e-3)
