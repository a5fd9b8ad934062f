from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from bmcli.errors import BmcliError
from bmcli.objectives import multi_label
from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject, PartField
from tests.objectives.cases import CASES, TAGS

CASE = CASES["multi_label"]


def build(train_targets: Any = None, **options: Any) -> multi_label.MultiLabel:
    checked = PartField("objectives").check({"kind": "multi_label", **options})
    chosen = CASE.truth() if train_targets is None else train_targets
    return multi_label.build(checked, multi_label.describe(checked, TAGS), TAGS, chosen)


def losses(objective: multi_label.MultiLabel) -> np.ndarray:
    return objective.loss(tf.constant(CASE.truth()), tf.constant(CASE.outputs())).numpy()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("binary_crossentropy", {}),
        ("binary_crossentropy", {"label_smoothing": 0.2}),
        ("binary_focal_crossentropy", {}),
        ("binary_focal_crossentropy", {"gamma": 0.5, "label_smoothing": 0.1}),
        ("binary_focal_crossentropy", {"apply_class_balancing": True, "alpha": 0.7}),
    ],
)
def test_losses_are_those_of_keras(kind: str, options: dict[str, Any]) -> None:
    thing = getattr(keras.losses, catalogue.get_entry("losses", kind)["object"])
    expected = thing(from_logits=True, reduction="none", **options)(
        CASE.truth().astype("float32"), tf.constant(CASE.outputs())
    )
    np.testing.assert_allclose(losses(build(loss={"kind": kind, **options})), expected, rtol=1e-4, atol=1e-6)


def test_balanced_weights_are_those_of_scikit_learn_for_each_label() -> None:
    truth = CASE.truth()
    found = build(class_weights="balanced").class_weights
    for label in range(3):
        expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=truth[:, label])
        np.testing.assert_allclose(found[label], expected, rtol=1e-6)


def test_named_weights_are_of_the_examples_that_have_the_label() -> None:
    truth, outputs = CASE.truth(), CASE.outputs()
    every = keras.ops.binary_crossentropy(truth.astype("float32"), outputs, from_logits=True).numpy()
    expected = (every * np.where(truth == 1, [1, 3, 0.5], 1)).mean(axis=1)
    np.testing.assert_allclose(losses(build(class_weights={"round": 3, "small": 0.5})), expected, rtol=1e-4)


def test_a_weight_of_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(BmcliError, match="there is no class 'smal'") as caught:
        build(class_weights={"smal": 2})
    assert caught.value.faults[0].suggestion == "Did you mean 'small'?"


def test_metrics_are_those_of_scikit_learn() -> None:
    objective, truth, outputs = build(), CASE.truth(), CASE.outputs()
    extra = tuple(KerasObject(kind) for kind in ("f1_score", "precision", "recall", "auc", "binary_crossentropy"))
    measures = objective.metrics(extra)
    for measure in measures.values():
        for part in (slice(0, 13), slice(13, None)):
            measure.update(tf.constant(truth[part]), objective.predict(tf.constant(outputs[part])))
    found = {name: float(measure.keras_metric.result()) for name, measure in measures.items()}
    predicted = outputs > 0
    p = 1 / (1 + np.exp(-outputs))
    assert found["binary_accuracy"] == pytest.approx(1 - metrics.hamming_loss(truth, predicted))
    assert found["f1_micro"] == pytest.approx(metrics.f1_score(truth, predicted, average="micro"))
    assert found["f1_score"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert found["precision"] == pytest.approx(metrics.precision_score(truth, predicted, average="micro"))
    assert found["recall"] == pytest.approx(metrics.recall_score(truth, predicted, average="micro"))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth.ravel(), p.ravel()), abs=0.01)
    assert found["binary_crossentropy"] == pytest.approx(metrics.log_loss(truth.ravel(), p.ravel()), rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sparse_categorical_accuracy", {}, "does not suit target 'tags' of kind labels"),
        ("precision", {"class_id": 3}, "class_id is 3, but 'tags' has 3 classes"),
    ],
)
def test_a_metric_that_does_not_suit_is_a_fault(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BmcliError, match=message) as caught:
        build().metrics((KerasObject(kind, options),))
    assert caught.value.faults[0].path == "train.metrics.0"


@pytest.mark.parametrize("loss", [loss for loss in catalogue.list_kinds("losses") if loss not in multi_label._LOSSES])
def test_other_losses_do_not_suit(loss: str) -> None:
    with pytest.raises(ValidationError, match=f"{loss} does not suit multi_label"):
        multi_label.Options(loss=KerasObject(loss))
