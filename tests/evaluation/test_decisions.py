"""Decisions on validation rows describe their effect there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from bmcli.answers.classes import CategoryAnswers, LabelAnswers, OrderedAnswers
from bmcli.answers.decisions import Decision
from bmcli.evaluation.metrics import measure
from bmcli.metrics.classification import log_losses
from bmcli.metrics.threshold import maximize_f1
from bmcli.objectives.classification import Options
from bmcli.specs import OutputSpec
from tests.evaluation.columns import category, labels, ordered


def too_sure(rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and probabilities whose logits are twice what they should be."""
    dice = np.random.default_rng(0)
    logits = dice.normal(size=rows)
    truth = (dice.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)
    stated = 1 / (1 + np.exp(-2 * logits))
    return truth, np.stack([1 - stated, stated], axis=1)


def category_answers() -> CategoryAnswers:
    return CategoryAnswers(OutputSpec("label", "classification", (2,), names=("no", "yes")), category("no", "yes"))


def test_a_temperature_has_loss_and_calibration_before_and_after() -> None:
    truth, found = too_sure()
    scaling, scaled = category_answers().fit_temperature(truth, found)
    assert scaling.temperature == pytest.approx(2, abs=0.2)
    assert scaling.losses == pytest.approx([log_losses(truth, each).mean() for each in (found, scaled)], rel=1e-6)
    assert scaling.after.error < scaling.after.critical_value < scaling.before.error
    assert "less extreme" in scaling.summary


def test_labels_are_softened_each_by_itself() -> None:
    truth, found = too_sure()
    both, stated = np.stack([truth, 1 - truth], axis=1), found[:, ::-1]
    answers = LabelAnswers(OutputSpec("tags", "multi_label", (2,), names=("a", "b")), labels("a", "b"))
    scaling, _ = answers.fit_temperature(both, stated[:, ::-1])
    assert scaling.losses[1] < scaling.losses[0]
    assert scaling.before.event == "all labels"


def test_decisions_pass_through_json() -> None:
    truth, found = too_sure(300)
    decisions = (
        Decision("paid", 300, category_answers().fit_temperature(truth, found)[0]),
        Decision("paid", 300, None, "yes", maximize_f1(truth == 1, found[:, 1])),
        Decision("paid", 0),
    )
    for each in decisions:
        assert Decision.from_json(json.loads(json.dumps(each.to_json()))) == each
    assert decisions[1].summary.startswith("'yes' is predicted if its probability is at least ")
    assert decisions[2].summary == ""


def loan_answers(positive: str, **state: float) -> CategoryAnswers:
    """Answers of loans, of which 1 in 4 is bad."""
    output = OutputSpec("status", "classification", (2,), names=("bad", "good"), state={"positive": positive, **state})
    return CategoryAnswers(output, category("bad", "good", name="status"))


def loans(rows: int = 800) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(3)
    bad = dice.random(rows) < 0.25
    stated = 1 / (1 + np.exp(-(dice.normal(size=rows) + 2.0 * bad - 1.5)))
    return 1 - bad.astype(int), np.stack([stated, 1 - stated], axis=1).astype("float32")


@pytest.mark.parametrize("positive", ["bad", "good"])
def test_metrics_of_two_classes_are_those_of_the_positive_one(positive: str) -> None:
    truth, predictions = loans()
    answers = loan_answers(positive)
    index = answers.classes.index(positive)
    found = measure({"status": truth}, {"status": predictions}, {"status": answers}, 5)
    is_positive, is_predicted = truth == index, predictions.argmax(1) == index
    assert found.positive == {"status": positive}
    assert found.metrics["precision"] == pytest.approx(reference.precision_score(is_positive, is_predicted))
    assert found.metrics["recall"] == pytest.approx(reference.recall_score(is_positive, is_predicted))
    assert found.metrics["f1"] == pytest.approx(reference.f1_score(is_positive, is_predicted))
    area = reference.average_precision_score(is_positive, predictions[:, index])
    assert found.metrics["pr_auc"] == pytest.approx(area)
    row = found.per_class["status"][index]
    assert (row.precision, row.recall, row.f1, row.pr_auc) == pytest.approx(
        tuple(found.metrics[name] for name in ("precision", "recall", "f1", "pr_auc"))
    )
    roc, precision, reliability = answers.list_figures(
        truth, predictions, answers.measure_calibration(truth, predictions)
    )
    assert roc.title == f"ROC of '{positive}'"
    assert precision.title == f"Precision and recall of '{positive}'"
    assert precision.curves[0].name == positive
    assert reliability.x_label == f"predicted probability of '{positive}'"


def test_the_area_under_precision_and_recall_depends_on_the_positive_class_far_more_than_on_the_model() -> None:
    truth, predictions = loans()
    bad, good = (
        measure({"status": truth}, {"status": predictions}, {"status": loan_answers(each)}, 5).metrics
        for each in ("bad", "good")
    )
    assert bad["pr_auc"] < 0.85 < 0.9 < good["pr_auc"]
    assert bad["roc_auc"] == pytest.approx(good["roc_auc"])
    assert {name: bad[name] for name in ("accuracy", "f1_macro", "brier")} == pytest.approx(
        {name: good[name] for name in ("accuracy", "f1_macro", "brier")}
    )


@pytest.mark.parametrize("positive", ["bad", "good"])
def test_a_threshold_is_chosen_for_the_positive_class(positive: str) -> None:
    truth, predictions = loans()
    answers = loan_answers(positive)
    index = answers.classes.index(positive)
    decided = answers.calibrate(Options.model_validate({"threshold": {"goal": "f1"}}), truth, predictions)
    best = maximize_f1(truth == index, predictions[:, index])
    assert decided.decision.positive == positive
    assert decided.output.state["threshold"] == best.value
    points = CategoryAnswers(decided.output, answers.target).predict_points(predictions)
    np.testing.assert_array_equal(points == index, predictions[:, index] >= best.value)


def test_answers_with_another_positive_class_decide_alike() -> None:
    _, predictions = loans()
    for threshold in (0.2, 0.5, 0.83):
        bad, good = loan_answers("bad", threshold=threshold), loan_answers("good")
        aligned = bad.align_positive(good.output)
        assert aligned.classes[aligned.positive or 0] == "good"
        np.testing.assert_array_equal(aligned.predict_points(predictions), bad.predict_points(predictions))


def test_rows_of_folds_with_other_positive_classes_keep_their_decisions() -> None:
    _, predictions = loans(200)
    folds = (loan_answers("bad", threshold=0.3), loan_answers("good", threshold=0.6))
    pooled = folds[0].pool([(each.output, 100) for each in folds])
    apart = np.concatenate([each.predict_points(predictions[100 * n :][:100]) for n, each in enumerate(folds)])
    np.testing.assert_array_equal(pooled.predict_points(predictions), apart)


def test_only_two_classes_have_a_positive_one() -> None:
    of_three = CategoryAnswers(OutputSpec("label", "classification", (3,), names=tuple("abc")), category(*"abc"))
    of_order = OrderedAnswers(OutputSpec("grade", "ordinal", (2,), names=("low", "high")), ordered("low", "high"))
    assert of_three.positive is None
    assert of_order.positive == 1
    wrong = loan_answers("worst")
    with pytest.raises(ValueError, match="none of its classes"):
        wrong.check_output()
