from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmcli.errors import BmcliError
from bmcli.models import Features
from bmcli.objectives import ordinal
from bmcli.recipe.fields import KerasObject
from tests.objectives.cases import CASES, GRADES

CASE = CASES["ordinal"]


def test_the_loss_is_the_sum_of_the_conditional_ones_of_the_paper() -> None:
    """Shi et al. 2021, equation 4: for each step, the examples that reached it, and whether they went on."""
    truth, outputs = CASE.truth(), CASE.outputs().astype("float64")
    p = 1 / (1 + np.exp(-outputs))
    expected = np.zeros(len(truth))
    for step in range(3):
        reached = truth >= step
        went_on = truth > step
        expected -= np.where(reached, np.where(went_on, np.log(p[:, step]), np.log(1 - p[:, step])), 0)
    np.testing.assert_allclose(CASE.build().loss(tf.constant(truth), tf.constant(CASE.outputs())), expected, rtol=1e-4)


def test_the_loss_is_the_cross_entropy_of_the_category() -> None:
    objective, truth = CASE.build(), CASE.truth()
    probabilities = objective.predict(tf.constant(CASE.outputs())).numpy()
    expected = -np.log(probabilities[np.arange(len(truth)), truth])
    np.testing.assert_allclose(objective.loss(tf.constant(truth), tf.constant(CASE.outputs())), expected, rtol=1e-4)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (4, 3), elements=st.floats(-1e4, 1e4, width=32)))
def test_probabilities_add_up_to_1_and_cumulative_ones_never_rise(outputs: np.ndarray) -> None:
    probabilities = CASE.build().predict(tf.constant(outputs)).numpy()
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    reached = 1 - np.cumsum(probabilities, axis=1, dtype="float64")
    assert (np.diff(reached, axis=1) <= 0).all()


def test_class_weights_are_factors() -> None:
    truth, outputs = tf.constant(CASE.truth()), tf.constant(CASE.outputs())
    weighted = CASE.build(class_weights={"good": 3, "best": 0.5}).loss(truth, outputs)
    expected = CASE.build().loss(truth, outputs).numpy() * np.array([1, 1, 3, 0.5])[CASE.truth()]
    np.testing.assert_allclose(weighted, expected, rtol=1e-5)


def test_a_weight_of_an_unknown_category_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="there is no class 'bets'"):
        CASE.build(class_weights={"bets": 2})


def test_metrics_count_ranks_of_the_median() -> None:
    objective, truth = CASE.build(), CASE.truth()
    measures = objective.metrics(
        (KerasObject("root_mean_squared_error"), KerasObject("sparse_categorical_crossentropy"))
    )
    probabilities = objective.predict(tf.constant(CASE.outputs())).numpy()
    for measure in measures.values():
        measure.update(tf.constant(truth), tf.constant(probabilities))
    found = {name: float(measure.keras_metric.result()) for name, measure in measures.items()}
    chosen = (np.cumsum(probabilities, axis=1)[:, :-1] < 0.5).sum(axis=1)
    assert found["accuracy"] == pytest.approx((chosen == truth).mean())
    assert found["mae"] == pytest.approx(np.abs(chosen - truth).mean())
    assert found["root_mean_squared_error"] == pytest.approx(np.sqrt(((chosen - truth) ** 2).mean()))
    own = probabilities[np.arange(len(truth)), truth]
    assert found["sparse_categorical_crossentropy"] == pytest.approx(-np.log(own).mean(), rel=1e-4)


def test_k_goes_not_beyond_the_categories() -> None:
    with pytest.raises(BmcliError, match="k is 5, but 'grade' has 4 classes"):
        CASE.build().metrics((KerasObject("sparse_top_k_categorical_accuracy", {"k": 5}),))


def test_a_head_has_a_logit_for_each_step() -> None:
    assert ordinal.build_head(ordinal.Options(), GRADES, Features(keras.Input((5,)))).shape[1] == 3
