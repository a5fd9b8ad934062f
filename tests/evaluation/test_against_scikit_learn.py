"""Every metric against scikit-learn and scipy to the last digits, on random and degenerate rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from bmcli.evaluation.result import Evaluation
from bmcli.metrics.classification import MAX_RANKED_CLASSES, compute_areas
from bmcli.specs import Column
from tests.evaluation.columns import category, count, labels, measure, number, ordered

FLOOR = float(np.finfo(np.float32).eps)

Expected = dict[str, float | None]


def check(found: Evaluation, expected: Expected) -> None:
    """Compare all metrics; None stands for an undefined one."""
    assert {*found.metrics, *found.undefined} == set(expected)
    assert set(found.undefined) == {name for name, value in expected.items() if value is None}
    for name, value in found.metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


def evaluate(
    column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...] = ()
) -> Evaluation:
    name = column.name
    return measure({name: truth}, {name: predictions}, (column,), 2, {name: quantiles} if quantiles else {})


def draw_probabilities(dice: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    """Probabilities in steps of 1/32: single precision holds them exactly, and many are tied."""
    counts = dice.multinomial(32 - classes, dice.dirichlet(np.ones(classes), rows)) + 1
    return (counts / 32).astype("float32")


def compute_calibration_error(confidence: np.ndarray, outcomes: np.ndarray) -> float:
    bins = np.clip(np.ceil(confidence * 15), 1, 15)
    members = [bins == index for index in np.unique(bins)]
    return float(sum(abs(confidence[each].mean() - outcomes[each].mean()) * each.mean() for each in members))


def average_areas(positives: np.ndarray, scores: np.ndarray) -> tuple[float | None, float | None]:
    pairs = [(p, s) for p, s in zip(positives.T, scores.T, strict=True) if p.any() and not p.all()]
    if not pairs:
        return None, None
    return (
        float(np.mean([reference.roc_auc_score(*pair) for pair in pairs])),
        float(np.mean([reference.average_precision_score(*pair) for pair in pairs])),
    )


def draw_truths(dice: np.random.Generator, rows: int, classes: int) -> Iterator[np.ndarray]:
    """Truth with all classes, without the last ones, and with one class only."""
    for occurring in {classes, max(1, classes // 2), 1}:
        yield dice.integers(0, occurring, rows)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("rows", [1, 2, 7, 300])
@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_classes(rows: int, classes: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    for truth in draw_truths(dice, rows, classes):
        probabilities = draw_probabilities(dice, rows, classes)
        predicted, one_hot = probabilities.argmax(axis=1), truth[:, None] == np.arange(classes)
        expected: Expected = {"accuracy": reference.accuracy_score(truth, predicted)}
        if classes > 2:
            # scikit-learn lets the last class win a tie; the first one has to.
            ranks = (-probabilities).argsort(axis=1, kind="stable").argsort(axis=1)
            expected["top_2_accuracy"] = reference.top_k_accuracy_score(truth, -ranks, k=2, labels=range(classes))
        for name in ("precision", "recall", "f1"):
            for average in ("macro", "micro", "weighted"):
                score = getattr(reference, f"{name}_score")
                expected[f"{name}_{average}"] = score(truth, predicted, average=average, zero_division=0)
            if classes == 2:
                of_positive = score(truth, predicted, zero_division=np.nan)
                expected[name] = None if np.isnan(of_positive) else of_positive
        ranked = slice(1, 2) if classes == 2 else slice(None)
        expected["roc_auc"], expected["pr_auc"] = average_areas(one_hot[:, ranked], probabilities[:, ranked])
        expected["log_loss"] = reference.log_loss(truth, probabilities.astype("float64"), labels=range(classes))
        errors = ((probabilities.astype("float64") - one_hot) ** 2).sum(axis=1).mean()
        expected["brier"] = errors / 2 if classes == 2 else errors
        event = (probabilities[:, 1], truth == 1) if classes == 2 else (probabilities.max(axis=1), predicted == truth)
        expected["calibration_error"] = compute_calibration_error(event[0].astype("float64"), event[1])
        check(evaluate(category(*"abcdefgh"[:classes]), truth, probabilities), expected)


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_metrics_of_labels(rows: int, density: float) -> None:
    dice = np.random.default_rng(rows)
    truth = (dice.random((rows, 4)) < density).astype("uint8")
    probabilities = (dice.integers(0, 17, (rows, 4)) / 16).astype("float32")
    predicted, exact = probabilities > 0.5, probabilities.astype("float64")
    expected: Expected = {
        "subset_accuracy": reference.accuracy_score(truth, predicted),
        "hamming_loss": reference.hamming_loss(truth, predicted),
        "f1_micro": reference.f1_score(truth, predicted, average="micro", zero_division=0),
        "f1_macro": reference.f1_score(truth, predicted, average="macro", zero_division=0),
        "f1_samples": reference.f1_score(truth, predicted, average="samples", zero_division=1),
        "pr_auc_micro": average_areas(truth.reshape(-1, 1), probabilities.reshape(-1, 1))[1],
        "log_loss": -np.log(np.clip(np.where(truth, exact, 1 - exact), FLOOR, 1)).mean(),
        "brier": reference.mean_squared_error(truth, exact),
        "calibration_error": compute_calibration_error(exact.ravel(), truth.ravel()),
    }
    expected["roc_auc_macro"], expected["pr_auc_macro"] = average_areas(truth, probabilities)
    check(evaluate(labels(*"abcd"), truth, probabilities), expected)


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_ordered_categories(rows: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    for truth in draw_truths(dice, rows, 4):
        probabilities = draw_probabilities(dice, rows, 4)
        median = (np.cumsum(probabilities, axis=1)[:, :-1] < 0.5).sum(axis=1)
        rank = probabilities.astype("float64") @ np.arange(4)
        varies = np.ptp(truth) > 0 and np.ptp(rank) > 0
        one_category = len(np.unique([truth, median])) == 1
        expected: Expected = {
            "accuracy": reference.accuracy_score(truth, median),
            "mae": reference.mean_absolute_error(truth, median),
            "quadratic_kappa": None
            if one_category
            else reference.cohen_kappa_score(truth, median, weights="quadratic", labels=range(4)),
            "spearman": stats.spearmanr(truth, rank).statistic if varies else None,
            "log_loss": reference.log_loss(truth, probabilities.astype("float64"), labels=range(4)),
        }
        check(evaluate(ordered(*"abcd"), truth, probabilities), expected)


def expect_errors(truth: np.ndarray, predictions: np.ndarray) -> Expected:
    return {
        "mae": reference.mean_absolute_error(truth, predictions),
        "rmse": reference.root_mean_squared_error(truth, predictions),
        "r2": reference.r2_score(truth, predictions) if np.ptp(truth) else None,
    }


@pytest.mark.parametrize("rows", [1, 2, 7, 300, 20_000])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e3])
def test_metrics_of_numbers(rows: int, spread: float) -> None:
    dice = np.random.default_rng(rows)
    truth = 1000.1 + spread * dice.normal(size=rows)
    predictions = truth + dice.normal(size=rows).round()
    check(evaluate(number(), truth, predictions), expect_errors(truth, predictions))
    quantiles = truth[:, None] + np.sort(dice.normal(size=(rows, 3)).round(), axis=1)
    losses = [reference.mean_pinball_loss(truth, quantiles[:, i], alpha=q) for i, q in enumerate((0.1, 0.5, 0.9))]
    expected: Expected = {
        "pinball": float(np.mean(losses)),
        **{f"pinball_{quantile}": loss for quantile, loss in zip((0.1, 0.5, 0.9), losses, strict=True)},
        "coverage": ((quantiles[:, 0] <= truth) & (truth <= quantiles[:, 2])).mean(),
        "interval_width": (quantiles[:, 2] - quantiles[:, 0]).mean(),
        **expect_errors(truth, quantiles[:, 1]),
    }
    check(evaluate(number(), truth, quantiles, (0.1, 0.5, 0.9)), expected)


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
@pytest.mark.parametrize("mean", [0.0, 0.5, 20.0])
def test_metrics_of_counts(rows: int, mean: float) -> None:
    dice = np.random.default_rng(rows)
    truth, rates = dice.poisson(mean, rows).astype("float64"), dice.gamma(2, 3, rows)
    deviance = reference.mean_poisson_deviance(truth, rates)
    check(evaluate(count(), truth, rates), {"poisson_deviance": deviance, **expect_errors(truth, rates)})


@pytest.mark.parametrize("kind", ["category", "labels"])
def test_areas_of_too_many_classes_to_resample_are_measured(kind: str) -> None:
    dice, classes = np.random.default_rng(0), MAX_RANKED_CLASSES + 1
    names = tuple(map(str, range(classes)))
    if kind == "labels":
        truth = dice.integers(0, 2, (50, classes))
        probabilities = dice.random((50, classes)).astype("float32")
        roc, pr = average_areas(truth, probabilities)
        micro = reference.average_precision_score(truth.ravel(), probabilities.ravel())
        expected = {"roc_auc_macro": roc, "pr_auc_macro": pr, "pr_auc_micro": micro}
        found = evaluate(labels(*names), truth, probabilities)
    else:
        truth = dice.integers(0, classes, 50)
        probabilities = dice.dirichlet(np.ones(classes), 50).astype("float32")
        expected = dict(
            zip(("roc_auc", "pr_auc"), average_areas(truth[:, None] == np.arange(classes), probabilities), strict=True)
        )
        found = evaluate(category(*names), truth, probabilities)
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decimals", [1, 8], ids=["tied", "untied"])
@pytest.mark.parametrize("rows", [2, 9, 500])
def test_areas_of_a_class(rows: int, decimals: int) -> None:
    dice = np.random.default_rng(rows)
    positive, scores = dice.permutation(np.arange(rows) % 2 == 0), dice.random(rows).round(decimals)
    expected = reference.roc_auc_score(positive, scores), reference.average_precision_score(positive, scores)
    assert compute_areas(positive, scores) == pytest.approx(expected, rel=1e-12)
    assert compute_areas(np.ones(rows, bool), scores) == (None, None)
