"""Every metric of a target of labels against scikit-learn, or a computation by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as reference

from bmcli.evaluation.result import Evaluation
from bmcli.metrics.multi_label import METRICS
from tests.evaluation.columns import labels, measure, metric_names

TAGS = labels("red", "round", "small", "wet")


def evaluate(truth: np.ndarray, probabilities: np.ndarray) -> Evaluation:
    return measure({"tags": truth}, {"tags": probabilities}, (TAGS,), 5)


def drawn(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    probabilities = draw.random((rows, 4)).astype("float32")
    truth = (draw.random((rows, 4)) < probabilities * [1, 0.8, 0.5, 0.2]).astype("uint8")
    return truth, probabilities


def test_figures_are_those_of_scikit_learn() -> None:
    truth, probabilities = drawn()
    predicted = probabilities > 0.5
    found = evaluate(truth, probabilities).metrics
    assert tuple(found) == tuple(METRICS) == metric_names((TAGS,), 5)
    assert found["subset_accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    assert found["hamming_loss"] == pytest.approx(reference.hamming_loss(truth, predicted))
    for average in ("micro", "macro", "samples"):
        expected = reference.f1_score(truth, predicted, average=average, zero_division=1)
        assert found[f"f1_{average}"] == pytest.approx(expected)
    assert found["roc_auc_macro"] == pytest.approx(reference.roc_auc_score(truth, probabilities, average="macro"))
    for average in ("micro", "macro"):
        expected = reference.average_precision_score(truth, probabilities, average=average)
        assert found[f"pr_auc_{average}"] == pytest.approx(expected)
    each = [reference.log_loss(truth[:, label], probabilities[:, label]) for label in range(4)]
    assert found["log_loss"] == pytest.approx(np.mean(each), rel=1e-4)


def test_each_label_has_a_row() -> None:
    truth, probabilities = drawn()
    predicted = probabilities > 0.5
    found = evaluate(truth, probabilities)
    assert found.confusion == {}
    precision, recall, f1, support = reference.precision_recall_fscore_support(truth, predicted)
    for label, row in enumerate(found.per_class["tags"]):
        assert (row.name, row.support) == (TAGS.classes[label], support[label])
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[label], recall[label], f1[label]))
        assert row.roc_auc == pytest.approx(reference.roc_auc_score(truth[:, label], probabilities[:, label]))


def test_two_rows_computed_by_hand() -> None:
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    found = evaluate(truth, np.array([[0.9, 0.4, 0.6, 0.1], [0.2, 0.1, 0.0, 0.3]], "float32")).metrics
    assert found["subset_accuracy"] == 0.5
    assert found["hamming_loss"] == 0.25
    assert found["f1_micro"] == 0.5
    assert found["f1_macro"] == 0.25  # red 1, round 0, small 0, wet 0
    assert found["f1_samples"] == 0.75  # 0.5 and, for the row that has no label and gets none, 1


def test_a_label_that_never_occurs_is_left_out_of_the_areas() -> None:
    truth, probabilities = drawn()
    truth[:, 3] = 0
    found = evaluate(truth, probabilities)
    expected = reference.roc_auc_score(truth[:, :3], probabilities[:, :3], average="macro")
    assert found.metrics["roc_auc_macro"] == pytest.approx(expected)
    row = found.per_class["tags"][3]
    assert (row.support, row.recall, row.roc_auc) == (0, None, None)


def test_one_row_leaves_the_macro_areas_undefined() -> None:
    truth, probabilities = drawn(1)
    found = evaluate(truth, probabilities)
    assert {"roc_auc_macro", "pr_auc_macro"} <= set(found.undefined)
    assert {*found.metrics, *found.undefined} == set(METRICS)


def test_rows_without_any_label_leave_every_area_undefined() -> None:
    _, probabilities = drawn(5)
    found = evaluate(np.zeros((5, 4), "uint8"), probabilities)
    assert set(found.undefined) == {"roc_auc_macro", "pr_auc_macro", "pr_auc_micro"}


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    truth, probabilities = drawn(5)
    with pytest.raises(ValueError, match="expected probabilities from 0 to 1"):
        evaluate(truth, probabilities * 3 - 1)
    with pytest.raises(ValueError, match=r"expected targets \(5, 4\)"):
        evaluate(truth[:, 0], probabilities)


def test_a_single_label_has_every_metric() -> None:
    found = measure({"tags": np.array([[1], [0]])}, {"tags": np.array([[0.9], [0.6]], "float32")}, (labels("red"),), 5)
    assert set(found.metrics) == set(METRICS)
    assert (found.metrics["f1_samples"], found.metrics["roc_auc_macro"]) == (0.5, 1)


def test_sure_predictions_have_a_finite_loss() -> None:
    truth, _ = drawn(5)
    assert evaluate(truth, 1.0 - truth).metrics["log_loss"] == pytest.approx(15.94, abs=0.01)
    assert evaluate(truth, truth.astype("float32")).metrics["log_loss"] == pytest.approx(0, abs=1e-6)


table = st.shared(st.integers(1, 12), key="rows").map(lambda rows: (rows, 4))


@settings(deadline=None, max_examples=50)
@given(
    arrays.arrays(np.uint8, table, elements=st.integers(0, 1)),
    arrays.arrays(np.float32, table, elements=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0])),
)
def test_every_metric_has_a_value_or_a_reason(truth: np.ndarray, probabilities: np.ndarray) -> None:
    found = evaluate(truth, probabilities)
    assert {*found.metrics, *found.undefined} == set(METRICS)
    assert all(0 <= value <= 1 for name, value in found.metrics.items() if name != "log_loss")
