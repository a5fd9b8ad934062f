"""Every metric of a category target against scikit-learn on real predictions, or a computation by hand."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bmcli.evaluation.result import Evaluation
from tests.evaluation.columns import category, measure, metric_names

Predicted = tuple[np.ndarray, np.ndarray]


def evaluate(truth: Any, probabilities: Any, classes: int | None = None, top_k: int = 5) -> Evaluation:
    probabilities = np.asarray(probabilities, np.float32)
    column = category(*string.ascii_letters[: classes or probabilities.shape[1]])
    return measure({"label": np.asarray(truth, np.int32)}, {"label": probabilities}, (column,), top_k)


def predict(load: Callable[..., Any]) -> Predicted:
    """Truth and probabilities of a mediocre classifier, so that no figure is trivially 1."""
    features, truth = load(return_X_y=True)
    scaled = StandardScaler().fit_transform(features)[:, :4]
    model = LogisticRegression(C=0.05, max_iter=2000).fit(scaled[::2], truth[::2])
    return truth[1::2], model.predict_proba(scaled[1::2]).astype(np.float32)


@pytest.fixture(scope="module", params=[load_iris, load_digits, load_breast_cancer], ids=lambda load: load.__name__)
def predicted(request: pytest.FixtureRequest) -> Predicted:
    return predict(request.param)


def random_rows(seed: int, rows: int, classes: int) -> Predicted:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, rows)
    return truth, generator.dirichlet(np.ones(classes), rows).astype(np.float32)


anything = st.builds(random_rows, st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 9))


def test_accuracy_and_averages_are_those_of_scikit_learn(predicted: Predicted) -> None:
    truth, probabilities = predicted
    chosen = probabilities.argmax(axis=1)
    found = evaluate(truth, probabilities).metrics
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, chosen))
    for average in ("macro", "micro", "weighted"):
        for name in ("precision", "recall", "f1"):
            expected = getattr(reference, f"{name}_score")(truth, chosen, average=average, zero_division=0)
            assert found[f"{name}_{average}"] == pytest.approx(expected), (name, average)


def test_log_loss_is_that_of_scikit_learn(predicted: Predicted) -> None:
    truth, probabilities = predicted
    expected = reference.log_loss(truth, probabilities)
    assert evaluate(truth, probabilities).metrics["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_areas_are_those_of_scikit_learn(predicted: Predicted) -> None:
    truth, probabilities = predicted
    found = evaluate(truth, probabilities).metrics
    if probabilities.shape[1] == 2:
        roc_auc = reference.roc_auc_score(truth, probabilities[:, 1])
        pr_auc = reference.average_precision_score(truth, probabilities[:, 1])
    else:
        roc_auc = reference.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
        pr_auc = reference.average_precision_score(truth, probabilities, average="macro")
    assert found["roc_auc"] == pytest.approx(roc_auc)
    assert found["pr_auc"] == pytest.approx(pr_auc)


@pytest.mark.parametrize("k", [2, 3, 5, 9])
def test_top_k_accuracy_is_that_of_scikit_learn_without_ties(k: int) -> None:
    truth, probabilities = predict(load_digits)
    expected = reference.top_k_accuracy_score(truth, probabilities, k=k)
    assert evaluate(truth, probabilities, top_k=k).metrics[f"top_{k}_accuracy"] == pytest.approx(expected)


def test_confusion_and_class_table_are_those_of_scikit_learn(predicted: Predicted) -> None:
    truth, probabilities = predicted
    chosen = probabilities.argmax(axis=1)
    found = evaluate(truth, probabilities)
    assert found.confusion["label"] == tuple(map(tuple, reference.confusion_matrix(truth, chosen).tolist()))
    columns = reference.precision_recall_fscore_support(truth, chosen, zero_division=0)
    for row, expected in zip(found.per_class["label"], zip(*columns, strict=True), strict=True):
        assert (row.precision or 0, row.recall, row.f1, row.support) == pytest.approx(expected)


def test_figures_of_five_rows_computed_by_hand() -> None:
    probabilities = [[0.7, 0.3], [0.4, 0.6], [0.8, 0.2], [0.1, 0.9], [0.45, 0.55]]
    found = evaluate([0, 0, 1, 1, 1], probabilities)
    assert found.confusion["label"] == ((1, 1), (1, 2))
    first, last = found.per_class["label"]
    assert (first.precision, first.recall, first.f1, first.support) == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert (last.precision, last.recall, last.f1, last.support) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    # Of the 3 x 2 pairs of a positive with a negative row, 0.9 beats both and 0.55 beats 0.3.
    assert found.metrics["roc_auc"] == pytest.approx(3 / 6)
    # Positives stand first, third and fifth: recall rises by a third at precision 1, 2/3 and 3/5.
    assert found.metrics["pr_auc"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert found.metrics["f1_weighted"] == pytest.approx((2 * 1 / 2 + 3 * 2 / 3) / 5)
    own = [0.7, 0.4, 0.2, 0.9, 0.55]
    assert found.metrics["log_loss"] == pytest.approx(-sum(map(np.log, own)) / 5, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(anything)
def test_confusion_adds_up_to_rows_supports_and_accuracy(predicted: Predicted) -> None:
    truth, probabilities = predicted
    found = evaluate(truth, probabilities)
    matrix = np.array(found.confusion["label"])
    assert matrix.sum() == found.count == len(truth)
    assert matrix.sum(axis=1).tolist() == [row.support for row in found.per_class["label"]]
    assert matrix.sum(axis=0).tolist() == np.bincount(probabilities.argmax(1), minlength=len(matrix)).tolist()
    assert np.trace(matrix) / len(truth) == pytest.approx(found.metrics["accuracy"])


@settings(deadline=None, max_examples=50)
@given(anything)
def test_averages_follow_from_the_class_table(predicted: Predicted) -> None:
    found = evaluate(*predicted)
    rows = [row for row in found.per_class["label"] if row.f1 is not None]
    supports = [row.support for row in rows]
    for name in ("precision", "recall", "f1"):
        values = [getattr(row, name) or 0.0 for row in rows]
        assert found.metrics[f"{name}_macro"] == pytest.approx(np.mean(values))
        assert found.metrics[f"{name}_weighted"] == pytest.approx(np.average(values, weights=supports))
        assert found.metrics[f"{name}_micro"] == pytest.approx(found.metrics["accuracy"])
    assert found.metrics["recall_weighted"] == pytest.approx(found.metrics["accuracy"])


@settings(deadline=None, max_examples=50)
@given(anything)
def test_every_named_metric_has_a_value_or_a_reason(predicted: Predicted) -> None:
    found = evaluate(*predicted)
    names = metric_names((category(*string.ascii_letters[: predicted[1].shape[1]]),), 5)
    assert sorted([*found.metrics, *found.undefined]) == sorted(names)
    assert all(found.undefined.values())


@settings(deadline=None, max_examples=50)
@given(anything)
def test_every_metric_but_losses_is_a_share(predicted: Predicted) -> None:
    found = evaluate(*predicted).metrics
    assert all(0 <= value <= 1 for name, value in found.items() if name not in ("log_loss", "brier"))
    assert 0 <= found["brier"] <= 2
    assert 0 <= found["log_loss"] < 16


def test_perfect_predictions_reach_the_best_values() -> None:
    found = evaluate([0, 1, 2, 2], np.eye(3)[[0, 1, 2, 2]])
    assert {found.metrics.pop(name) for name in ("log_loss", "brier", "calibration_error")} == {0}
    assert set(found.metrics.values()) == {1.0}
    assert not found.undefined


def test_worst_predictions_reach_the_worst_values() -> None:
    found = evaluate([0, 0, 1], np.eye(2)[[1, 1, 0]]).metrics
    assert found["accuracy"] == found["f1_macro"] == found["precision_macro"] == found["roc_auc"] == 0
    # The only positive row comes last: average precision is its precision there.
    assert found["pr_auc"] == pytest.approx(1 / 3)
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize("rows", [1, 4])
def test_one_class_among_the_rows_leaves_the_areas_undefined(rows: int) -> None:
    found = evaluate([1] * rows, [[0.2, 0.5, 0.3]] * rows)
    assert found.undefined == dict.fromkeys(("roc_auc", "pr_auc"), "every row is of class 'b'.")
    assert found.metrics["accuracy"] == found.metrics["f1_macro"] == 1
    assert [row.roc_auc for row in found.per_class["label"]] == [None] * 3


def test_a_target_of_one_class_is_always_right() -> None:
    found = evaluate([0, 0], [[1.0], [1.0]])
    assert found.confusion["label"] == ((2,),)
    assert found.metrics["accuracy"] == 1
    assert set(found.undefined) == {"roc_auc", "pr_auc"}


def test_a_class_that_never_occurs_has_no_recall_and_is_left_out_of_the_areas() -> None:
    truth, probabilities = predict(load_iris)
    widened = np.hstack([probabilities * np.float32(0.75), np.full((len(truth), 1), 0.25, np.float32)])
    with_it, without = evaluate(truth, widened), evaluate(truth, probabilities)
    absent = with_it.per_class["label"][3]
    assert (absent.recall, absent.support, absent.roc_auc, absent.pr_auc) == (None, 0, None, None)
    assert with_it.metrics["roc_auc"] == pytest.approx(without.metrics["roc_auc"])
    assert with_it.metrics["pr_auc"] == pytest.approx(without.metrics["pr_auc"])


def test_a_class_neither_there_nor_predicted_leaves_the_averages_alone() -> None:
    truth, probabilities = predict(load_iris)
    widened = np.hstack([probabilities, np.zeros((len(truth), 1), np.float32)])
    with_it, without = evaluate(truth, widened), evaluate(truth, probabilities)
    assert with_it.per_class["label"][3].f1 is None
    assert with_it.metrics == without.metrics


def test_a_class_that_is_never_predicted_has_no_precision_and_counts_as_zero() -> None:
    found = evaluate([0, 0, 1, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    assert found.per_class["label"][1].precision is None
    assert found.metrics["precision_macro"] == pytest.approx((2 / 4 + 0) / 2)


def test_a_tie_goes_to_the_first_class_in_accuracy_and_top_k() -> None:
    uniform = np.full((4, 4), 0.25)
    found = evaluate([0, 1, 2, 3], uniform, top_k=2)
    assert found.metrics["accuracy"] == 1 / 4
    assert found.metrics["top_2_accuracy"] == 2 / 4
    assert found.confusion["label"] == ((1, 0, 0, 0),) * 4


def test_equal_scores_rank_like_chance() -> None:
    found = evaluate([0, 1, 1, 1], np.full((4, 2), 0.5)).metrics
    assert found["roc_auc"] == 0.5
    assert found["pr_auc"] == 0.75


def test_top_k_accuracy_needs_more_than_k_classes() -> None:
    assert "top_5_accuracy" not in evaluate([0, 1], np.full((2, 5), 0.2)).metrics
    assert "top_5_accuracy" in evaluate([0, 1], np.full((2, 6), 1 / 6)).metrics


def test_a_class_within_the_top_k_counts_at_every_rank() -> None:
    probabilities = [[0.4, 0.3, 0.2, 0.1]] * 4
    assert evaluate([0, 1, 2, 3], probabilities, top_k=3).metrics["top_3_accuracy"] == 3 / 4


def test_twenty_six_classes_of_which_few_occur() -> None:
    truth, probabilities = random_rows(seed=1, rows=7, classes=26)
    found = evaluate(truth, probabilities)
    occurring = np.unique(truth)
    one_vs_rest = [reference.roc_auc_score(truth == index, probabilities[:, index]) for index in occurring]
    assert found.metrics["roc_auc"] == pytest.approx(np.mean(one_vs_rest))
    assert np.array(found.confusion["label"]).shape == (26, 26)


def test_half_precision_probabilities_are_accepted() -> None:
    truth, probabilities = random_rows(seed=2, rows=50, classes=20)
    column = category(*string.ascii_letters[:20])
    halves = {"label": probabilities.astype(np.float16)}
    found = measure({"label": truth}, halves, (column,), 5).metrics
    assert found["log_loss"] == pytest.approx(evaluate(truth, probabilities).metrics["log_loss"], rel=1e-2)
