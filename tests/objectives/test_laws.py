"""Laws of every objective."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.models import VECTOR
from bmcli.objectives import TargetObjective, name_metric
from bmcli.recipe.fields import KerasObject
from tests.objectives.cases import CASES, ROWS

every_case = pytest.mark.parametrize("name", CASES)
REQUIRED = {
    "precision_at_recall": {"recall": 0.5},
    "recall_at_precision": {"precision": 0.2},
    "sensitivity_at_specificity": {"specificity": 0.5},
    "specificity_at_sensitivity": {"sensitivity": 0.5},
    "sparse_top_k_categorical_accuracy": {"k": 2},
}


def loss_of(objective: TargetObjective, truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    found: np.ndarray = objective.loss(tf.constant(truth), tf.constant(outputs)).numpy()
    return found


def gradient_of(objective: TargetObjective, truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    output = tf.constant(outputs)
    with tf.GradientTape() as tape:
        tape.watch(output)
        total = tf.reduce_sum(objective.loss(tf.constant(truth), output))
    found: np.ndarray = tape.gradient(total, output).numpy()
    return found


def test_every_objective_of_a_target_is_among_the_cases() -> None:
    """Those that learn from inputs, and those of steps, have tests of their own, since their outputs have places."""
    kinds = {kind: parts.load("objectives", kind) for kind in parts.names("objectives")}
    labelled = {name for name, kind in kinds.items() if kind.TARGETS and kind.REQUEST == VECTOR}
    assert {case.kind for case in CASES.values()} == labelled


def test_every_kind_of_target_can_be_learned() -> None:
    learned = {kind for name in parts.names("objectives") for kind in parts.load("objectives", name).TARGETS}
    assert learned == set(parts.names("data.targets"))


@every_case
@pytest.mark.parametrize("rows", [1, 3, ROWS])
def test_each_example_has_a_loss_in_float32(name: str, rows: int) -> None:
    case = CASES[name]
    losses = loss_of(case.build(), case.truth(rows), case.outputs(rows))
    assert (losses.shape, losses.dtype) == ((rows,), np.float32)
    assert np.isfinite(losses).all()
    assert (losses >= -1e-5).all()


@every_case
def test_the_loss_of_an_example_does_not_depend_on_the_others(name: str) -> None:
    case = CASES[name]
    objective, truth, outputs = case.build(), case.truth(), case.outputs()
    alone = [loss_of(objective, truth[row : row + 1], outputs[row : row + 1])[0] for row in range(ROWS)]
    np.testing.assert_allclose(loss_of(objective, truth, outputs), alone, rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_a_compiled_step_gives_the_same(name: str, jit: bool) -> None:
    case = CASES[name]
    objective, truth, outputs = case.build(), case.truth(), case.outputs()

    @tf.function(jit_compile=jit)
    def compiled(truth: Any, outputs: Any) -> Any:
        return objective.loss(truth, outputs), objective.predict(outputs)

    losses, predictions = compiled(tf.constant(truth), tf.constant(outputs))
    np.testing.assert_allclose(losses, loss_of(objective, truth, outputs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predictions, objective.predict(tf.constant(outputs)), rtol=1e-4, atol=1e-6)


@every_case
def test_half_precision_outputs_are_converted_to_float32(name: str) -> None:
    case = CASES[name]
    output = tf.cast(case.outputs(), tf.bfloat16)
    assert case.build().loss(tf.constant(case.truth()), output).dtype == tf.float32
    assert case.build().predict(output).dtype == tf.float32


@every_case
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    case = CASES[name]
    objective, truth, outputs = case.build(), case.truth(), case.outputs()
    found, step = gradient_of(objective, truth, outputs), 2.0**-7
    for column in range(outputs.shape[1]):
        ahead, behind = outputs.copy(), outputs.copy()
        ahead[:, column] += step
        behind[:, column] -= step
        slopes = (loss_of(objective, truth, ahead) - loss_of(objective, truth, behind)) / (2 * step)
        # A quantile's or Huber's loss may have its kink within the step.
        smooth = np.abs(slopes - found[:, column]) <= 0.01 + 0.02 * np.abs(slopes)
        assert smooth.mean() >= 0.9


@every_case
def test_the_gradient_of_outputs_that_are_all_zero_points_downhill(name: str) -> None:
    """A head starts there, where a sloppy definition has a kink."""
    case = CASES[name]
    objective, truth, outputs = case.build(), case.truth(), np.zeros((ROWS, case.width()), "float32")
    gradient = gradient_of(objective, truth, outputs)
    before, after = (loss_of(objective, truth, each).sum() for each in (outputs, outputs - 1e-3 * gradient))
    assert after < before


@every_case
@pytest.mark.parametrize("size", [1e4, 1e6])
@pytest.mark.parametrize("sign", [[1], [-1], [1, -1], [-1, 1]], ids=str)
def test_extreme_outputs_have_finite_losses_gradients_and_predictions(name: str, size: float, sign: list[int]) -> None:
    case = CASES[name]
    objective, truth = case.build(), case.truth()
    outputs = np.full((ROWS, case.width()), size, "float32") * np.resize(sign, case.width()).astype("float32")
    assert np.isfinite(loss_of(objective, truth, outputs)).all()
    assert np.isfinite(gradient_of(objective, truth, outputs)).all()
    assert np.isfinite(objective.predict(tf.constant(outputs)).numpy()).all()


@every_case
def test_a_network_recovers_from_extreme_outputs(name: str) -> None:
    """Even completely wrong outputs have a gradient."""
    case = CASES[name]
    objective, truth = case.build(), case.truth()
    for size in (-1e4, 1e4):
        outputs = np.full((ROWS, case.width()), size, "float32")
        if case.kind == "classification":
            outputs[:, 1:] = 0  # a number added to all logits means nothing
        losses, gradient = loss_of(objective, truth, outputs), gradient_of(objective, truth, outputs)
        assert (np.abs(gradient).sum(axis=1) > 0)[losses > 1].all()


@every_case
def test_the_weight_is_kept_beside_the_loss(name: str) -> None:
    case = CASES[name]
    plain, heavy = case.build(), case.build(weight=3.0)
    assert (plain.weight, heavy.weight) == (1.0, 3.0)
    np.testing.assert_array_equal(
        loss_of(plain, case.truth(), case.outputs()), loss_of(heavy, case.truth(), case.outputs())
    )


@every_case
def test_predictions_can_be_served(name: str) -> None:
    """They are made of Keras operations, on symbolic tensors as on values."""
    case = CASES[name]
    objective, outputs = case.build(), case.outputs()
    tensor = keras.Input((case.width(),))
    served = keras.Model(tensor, objective.predict(tensor))
    np.testing.assert_allclose(served(outputs), objective.predict(tf.constant(outputs)), rtol=1e-5)


@every_case
def test_predictions_have_the_form_of_their_kind(name: str) -> None:
    case = CASES[name]
    predictions = case.build().predict(tf.constant(case.outputs())).numpy()
    if case.target.classes:
        assert predictions.shape == (ROWS, len(case.target.classes))
        assert predictions.min() >= 0
        assert predictions.max() <= 1
        if case.target.kind != "labels":
            np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    else:
        quantiles = case.options.get("quantiles", (0.1, 0.5, 0.9))
        assert predictions.shape == ((ROWS, len(quantiles)) if case.kind == "quantile" else (ROWS,))


# Those of classification and regression are compiled in their own tests.
@pytest.mark.parametrize("name", [name for name in CASES if name in ("multi_label", "ordinal", "count", "quantile")])
def test_every_metric_works_inside_a_compiled_step(name: str) -> None:
    case = CASES[name]
    objective, truth, outputs = case.build(), case.truth(), case.outputs()
    kinds = list(parts.load("objectives", case.kind).METRICS)
    measures = objective.metrics(tuple(KerasObject(kind, REQUIRED.get(kind, {})) for kind in kinds))
    assert set(measures) >= {name_metric(KerasObject(kind, REQUIRED.get(kind, {}))) for kind in kinds}
    assert all(measure.keras_metric.variables for measure in measures.values())
    assert all(measure.direction in ("min", "max", None) for measure in measures.values())

    def update(truth: Any, outputs: Any) -> None:
        for measure in measures.values():
            measure.update(truth, objective.predict(outputs))

    results = []
    for compiled in (False, True):
        for measure in measures.values():
            measure.keras_metric.reset_state()
        tf.function(update, jit_compile=compiled)(tf.constant(truth), tf.constant(outputs))
        results.append([np.asarray(measure.keras_metric.result()) for measure in measures.values()])
    assert all(result.shape == () for result in results[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4)


@every_case
def test_examples_that_do_not_count_change_no_metric_of_the_objective(name: str) -> None:
    case = CASES[name]
    objective, truth, outputs = case.build(), case.truth(), case.outputs()
    counts = (np.arange(ROWS) % 3 > 0).astype("float32")
    some, part = objective.metrics(), objective.metrics()
    predictions = objective.predict(tf.constant(outputs)).numpy()
    for key in some:
        some[key].update(tf.constant(truth), tf.constant(predictions), tf.constant(counts))
        kept = counts > 0
        part[key].update(tf.constant(truth[kept]), tf.constant(predictions[kept]))
        found, expected = (float(each[key].keras_metric.result()) for each in (some, part))
        assert found == pytest.approx(expected, rel=1e-4), key


@every_case
def test_no_other_constant_output_has_a_much_lower_loss(name: str) -> None:
    case = CASES[name]
    objective, truth, weights = case.build(), case.truth(), (1 + np.arange(ROWS) % 3).astype("float32")

    def average(output: np.ndarray) -> float:
        return float(np.average(loss_of(objective, truth, np.tile(output, (ROWS, 1))), weights=weights))

    if case.kind == "quantile":
        weights = np.ones(ROWS, "float32")  # which quantiles of rows leave out of account
    outputs = objective.list_constant_outputs(truth, weights)
    assert outputs is not None
    assert (outputs.dtype, outputs.shape[1]) == (np.float32, case.width())
    best = min(outputs, key=average)
    steps = np.eye(case.width(), dtype="float32") * 0.2
    assert min(average(best + step) for step in [*steps, *-steps]) > 0.99 * average(best)
