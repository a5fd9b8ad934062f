from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from sklearn import metrics

from bmcli.errors import BmcliError
from bmcli.models import Features
from bmcli.objectives import regression
from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject, PartField
from bmcli.specs import Column

MEAN, SCALE = 20.0, 2.0
PRICE = Column("price", "number", (), "float32", state={"mean": MEAN, "scale": SCALE})
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.normal(size=30).astype("float32")
OUTPUT = RANDOM.normal(size=(30, 1)).astype("float32")
LOSSES = [*regression._STANDARDISED_LOSSES, *regression._ORIGINAL_UNIT_LOSSES]


def build(train_targets: Any = TRUTH, **options: Any) -> regression.Regression:
    checked = PartField("objectives").check({"kind": "regression", **options})
    return regression.build(checked, regression.describe(checked, PRICE), PRICE, train_targets)


def expected(loss: str) -> np.ndarray:
    truth, output = TRUTH.astype("float64"), OUTPUT[:, 0].astype("float64")
    error = output - truth
    own_truth, own_output = truth * SCALE + MEAN, output * SCALE + MEAN
    return {
        "mean_squared_error": error**2,
        "mean_absolute_error": np.abs(error),
        "huber": np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5),
        "log_cosh": np.log(np.cosh(error)),
        "mean_absolute_percentage_error": 100 * np.abs((own_output - own_truth) / own_truth),
        "mean_squared_logarithmic_error": (np.log(own_output + 1) - np.log(own_truth + 1)) ** 2,
    }[loss]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_losses_are_those_of_the_definition(loss: str, compiled: bool) -> None:
    function = tf.function(build(loss=loss).loss, jit_compile=compiled)
    losses = function(tf.constant(TRUTH), tf.constant(OUTPUT)).numpy()
    assert (losses.shape, losses.dtype) == ((30,), np.float32)
    np.testing.assert_allclose(losses, expected(loss), rtol=1e-4, atol=1e-5)


def test_the_default_is_the_squared_error() -> None:
    np.testing.assert_allclose(
        build().loss(tf.constant(TRUTH), tf.constant(OUTPUT)), expected("mean_squared_error"), rtol=1e-5
    )


def test_one_example_gives_one_loss() -> None:
    assert build().loss(tf.constant(TRUTH[:1]), tf.constant(OUTPUT[:1])).shape == (1,)


def test_huber_counts_deviations() -> None:
    losses = build(loss={"kind": "huber", "delta": 0.5}).loss(tf.constant([0.0]), tf.constant([[2.0]]))
    np.testing.assert_allclose(losses, [0.5 * (2 - 0.25)])


def test_predictions_are_in_the_targets_unit() -> None:
    predictions = build().predict(tf.cast(OUTPUT, tf.bfloat16))
    assert (predictions.shape, predictions.dtype) == ((30,), tf.float32)
    np.testing.assert_allclose(build().predict(tf.constant(OUTPUT)), OUTPUT[:, 0] * SCALE + MEAN, rtol=1e-6)


def test_metrics_are_in_the_targets_unit() -> None:
    objective = build()
    measures = objective.metrics(tuple(KerasObject(kind) for kind in regression.METRICS))
    for measure in measures.values():
        assert measure.keras_metric.variables
        for part in (slice(0, 12), slice(12, 30)):
            measure.update(tf.constant(TRUTH[part]), objective.predict(tf.constant(OUTPUT[part])))
    results = {name: float(measure.keras_metric.result()) for name, measure in measures.items()}
    truth, output = TRUTH * SCALE + MEAN, OUTPUT[:, 0] * SCALE + MEAN
    assert results["mae"] == pytest.approx(metrics.mean_absolute_error(truth, output), rel=1e-4)
    assert results["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, output), rel=1e-4)
    assert results["r2_score"] == pytest.approx(metrics.r2_score(truth, output), rel=1e-3)
    share = metrics.mean_absolute_percentage_error(truth, output)
    assert results["mean_absolute_percentage_error"] == pytest.approx(100 * share, rel=1e-4)


def test_metrics_work_inside_a_compiled_step() -> None:
    objective = build()
    measures = objective.metrics(tuple(KerasObject(kind) for kind in regression.METRICS))

    @tf.function(jit_compile=True)
    def update(truth: Any, output: Any) -> None:
        for measure in measures.values():
            measure.update(truth, objective.predict(output))

    update(tf.constant(TRUTH), tf.constant(OUTPUT))
    assert all(np.isfinite(float(measure.keras_metric.result())) for measure in measures.values())


def test_directions_are_known() -> None:
    measures = build().metrics((KerasObject("r2_score"),))
    assert {name: measure.direction for name, measure in measures.items()} == {
        "mae": "min",
        "rmse": "min",
        "r2_score": "max",
    }


def test_a_metric_that_does_not_suit_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="auc does not suit target 'price' of kind number") as caught:
        build().metrics((KerasObject("auc"),))
    assert caught.value.faults[0].path == "train.metrics.0"
    assert "r2_score" in caught.value.faults[0].suggestion


def test_every_keras_loss_is_classified() -> None:
    for loss in catalogue.list_kinds("losses"):
        if loss in LOSSES:
            assert regression.Options(loss=KerasObject(loss)).loss == KerasObject(loss)
        else:
            with pytest.raises(ValidationError, match=f"{loss} does not suit regression"):
                regression.Options(loss=KerasObject(loss))


@pytest.mark.parametrize(
    ("loss", "train", "needed"),
    [
        ("mean_absolute_percentage_error", [1.0, -MEAN / SCALE], "needs numbers other than 0"),
        ("mean_squared_logarithmic_error", [1.0, -MEAN / SCALE - 1], "needs numbers of at least 0"),
    ],
)
def test_a_loss_that_is_not_defined_for_the_rows_is_a_fault(loss: str, train: list[float], needed: str) -> None:
    with pytest.raises(BmcliError, match=needed) as caught:
        build(np.array(train, "float32"), loss=loss)
    assert caught.value.faults[0].path == "objective.loss"


def test_a_head_has_the_number_itself() -> None:
    assert regression.build_head(regression.Options(), PRICE, Features(keras.Input((5,)))).shape[1] == 1
