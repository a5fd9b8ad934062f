"""A model is compared with the best prediction that is the same for every row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bmcli.answers import Answers
from bmcli.evaluation.baseline import BaselineComparison, compare_with_baselines
from bmcli.evaluation.result import Evaluation
from bmcli.specs import Column
from tests.evaluation.columns import answers_of, category, count, labels, measure, number, ordered


def compare(
    truth: Any, predictions: Any, column: Column, answers: Answers | None = None, **more: Any
) -> BaselineComparison:
    """Compare predictions of one target with its baseline."""
    found = answers_of(column, **more) if answers is None else {column.name: answers}
    evaluation = measure({column.name: truth}, {column.name: predictions}, (column,), 5, **more)
    (comparison,) = compare_with_baselines(evaluation, {column.name: np.asarray(truth)}, found, 5).baselines
    return comparison


def sure_of(truth: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype="float32")[truth]


def test_a_class_is_compared_with_the_most_frequent_one() -> None:
    truth = [0] * 3 + [1] * 6 + [2]
    found = compare(truth, sure_of(truth, 3), category("ham", "spam", "news"))
    assert found.prediction == "always 'spam'"
    assert found.metrics["accuracy"] == 0.6
    assert found.metrics["roc_auc"] == 0.5
    assert found.metrics["log_loss"] == pytest.approx(-sum(p * np.log(p) for p in (0.3, 0.6, 0.1)))
    assert found.is_beaten


def test_a_model_that_always_predicts_the_most_frequent_class_does_not_beat_it() -> None:
    truth = [0] * 3 + [1] * 7
    assert not compare(truth, sure_of([1] * 10, 2), category("ham", "spam")).is_beaten


def test_a_chosen_threshold_does_not_move_the_baseline_off_the_majority() -> None:
    column, truth = category("ham", "spam"), [0] * 7 + [1] * 3
    plain = answers_of(column)["label"]
    strict = replace(plain, output=replace(plain.output, state={"threshold": 0.2}))  # type: ignore[type-var]
    assert compare(truth, sure_of(truth, 2), column, strict).metrics["accuracy"] == 0.7


def test_a_number_is_compared_with_the_mean() -> None:
    truth = np.array([1.0, 2.0, 3.0, 10.0])
    found = compare(truth, truth.astype("float32"), number())
    assert found.prediction == "always 4, the mean"
    assert found.metrics["rmse"] == pytest.approx(truth.std())
    assert found.metrics["r2"] == pytest.approx(0)
    assert (found.metric, found.is_beaten) == ("rmse", True)
    assert not compare(truth, np.full(4, 4.0, "float32"), number()).is_beaten


def test_a_count_is_compared_with_the_mean_by_its_deviance() -> None:
    truth = np.array([0.0, 1.0, 2.0, 9.0])
    found = compare(truth, truth + np.float32(0.5), count())
    assert (found.metric, found.is_beaten) == ("poisson_deviance", True)


def test_quantiles_are_compared_with_those_of_the_rows() -> None:
    truth = np.arange(11.0)
    levels = {"price": (0.1, 0.5, 0.9)}
    found = compare(truth, np.stack([truth - 1, truth, truth + 1], axis=1), number(), quantiles=levels)
    assert found.prediction == "always 1, 5, 9, the quantiles of the rows"
    assert found.metrics["coverage"] == pytest.approx(9 / 11)
    assert (found.metric, found.is_beaten) == ("pinball", True)


def test_labels_are_compared_with_their_shares() -> None:
    truth = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], "uint8")
    found = compare(truth, np.clip(truth, 0.1, 0.9).astype("float32"), labels("red", "round"))
    assert found.prediction == "always red"
    assert found.metrics["subset_accuracy"] == 0.5
    assert (found.metric, found.is_beaten) == ("log_loss", True)


def test_ordered_classes_are_compared_with_the_median_one() -> None:
    truth = [0] * 4 + [1] * 3 + [2] * 3
    assert compare(truth, sure_of(truth, 3), ordered("poor", "fair", "good")).prediction == "always 'fair'"


def test_where_every_row_is_of_one_class_no_model_is_blamed() -> None:
    assert compare([1, 1, 1], sure_of([1, 1, 1], 2), category("ham", "spam")).is_beaten


def test_of_several_targets_each_is_compared_under_its_name() -> None:
    columns = category("a", "b"), number()
    truth = {"label": np.array([0, 0, 1]), "price": np.array([1.0, 2.0, 6.0])}
    predictions = {"label": sure_of([0, 0, 1], 2), "price": np.float32([3, 3, 3])}
    evaluation = measure(truth, predictions, columns, 5)
    compared = compare_with_baselines(evaluation, truth, answers_of(*columns), 5)
    assert [each.is_beaten for each in compared.baselines] == [True, False]
    assert compared.baseline_metrics["label/accuracy"] == pytest.approx(2 / 3)
    assert compared.baseline_metrics["price/r2"] == pytest.approx(0)
    assert Evaluation.from_json(compared.to_json()) == compared
