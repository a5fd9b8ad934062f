"""Metrics of a category target: accuracy, precision and recall, ranking, log loss and calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from bmcli.metrics import calibration, weighted_metrics
from bmcli.metrics.info import ERROR, ERROR_SHARE, SHARE, MetricInfo
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide
from bmcli.quoting import quoted

AVERAGES = ("macro", "micro", "weighted")
POSITIVE_METRICS = ("precision", "recall", "f1")
"""Metrics of the positive one of two classes."""
RANKING_METRICS = ("roc_auc", "pr_auc")

MAX_RANKED_CLASSES = 100  # with more classes, the areas of thousands of samples take minutes

ConfusionMatrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class against all others; None where they are undefined.

    Args:
        name: The class.
        precision: Share of correct rows among those predicted as this class; None if it is never predicted.
        recall: Share of the rows of this class that are found; None if it has no row.
        f1: Harmonic mean of the two; None if the class neither occurs nor is predicted.
        support: Rows of this class.
        roc_auc, pr_auc: One class against the rest; None if no row, or every row, is of this class.
    """

    name: Annotated[str, Field(alias="class")]
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    roc_auc: float | None
    pr_auc: float | None

    def to_json(self) -> dict[str, Any]:
        return {"class": self.name, **{key: value for key, value in vars(self).items() if key != "name"}}


def describe_positive(positive: Mapping[str, str]) -> list[str]:
    """Describe of which class the metrics of each target with two classes speak, as sentences.

    Args:
        positive: The positive class, by target.
    """
    of_one = ", ".join((*POSITIVE_METRICS, RANKING_METRICS[0]))
    return [
        f"Positive class{f' of {quoted(target)}' if len(positive) > 1 else ''}: {quoted(name)}; {of_one} and "
        f"{RANKING_METRICS[1]} are those of this class."
        for target, name in positive.items()
    ]


def list_metrics(classes: int, top_k: int) -> dict[str, MetricInfo]:
    """List the metrics of a target with this number of classes, in the order of display."""
    top = (f"top_{top_k}_accuracy",) if classes > top_k else ()
    of_positive = POSITIVE_METRICS if classes == 2 else ()
    averaged = (f"{figure}_{average}" for figure in POSITIVE_METRICS for average in AVERAGES)
    shares = dict.fromkeys(("accuracy", *top, *of_positive, *averaged, *RANKING_METRICS), SHARE)
    # The Brier score of three classes or more is that of all of them, at most 2.
    brier = MetricInfo("min", 0.0, 1.0 if classes == 2 else 2.0)
    return {**shares, "log_loss": ERROR, "brier": brier, "calibration_error": ERROR_SHARE}


def is_among_top_k(truth: np.ndarray, probabilities: np.ndarray, k: int) -> np.ndarray:
    """Whether each row's class is among the k most probable, `(n,)`; in a tie the class that comes first is ahead.

    scikit-learn lets the last class win a tie, so its top-1 accuracy differs from the accuracy of `argmax`.
    """
    true_probabilities = np.take_along_axis(probabilities, truth[:, None], axis=1)
    is_earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    is_ahead = (probabilities > true_probabilities) | ((probabilities == true_probabilities) & is_earlier)
    return np.asarray(is_ahead.sum(axis=1) < k)


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute `-log(probability of the true class)` of each row, in nats, at most 15.94, `(n,)`.

    A probability below float32's epsilon, 1.2e-7, counts as epsilon, as in scikit-learn, whose own function
    takes neither a single class nor probabilities that were rounded to half precision.
    """
    true_probabilities = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0].astype(np.float64)
    floor = float(np.finfo(np.float32).eps)
    # The absolute value, since a minus sign would turn the loss of a probability of 1 into -0.0.
    return np.asarray(np.abs(np.log(np.clip(true_probabilities, floor, 1.0))))


def make_weighted_metrics(
    truth: np.ndarray,
    probabilities: np.ndarray,
    names: tuple[str, ...],
    top_k: int,
    predicted: np.ndarray | None = None,
    positive: int | None = None,
) -> WeightedMetrics:
    """Make all metrics of one category target; ranking areas beyond 100 classes are not resampled.

    Precision, recall and F1 are scikit-learn's: macro and weighted averages run over the classes that occur
    or are predicted, and 0/0 (the precision of a class that is never predicted) counts as 0 in them. Micro
    averages equal the accuracy, because every row has one class.

    Two classes have a positive one: `precision`, `recall` and `f1` are its own, and undefined where the divisor is
    0. `roc_auc` and `pr_auc` (average precision, the step-wise area) are its own, too; of more classes, each that
    occurs is ranked against the rest, and the areas are averaged with equal weights (one-vs-rest, macro). They are
    undefined if every row is of one class.

    `brier` and `calibration_error` are those of `calibration.measure_classes`.

    Args:
        truth: Class indices, `(n,)`, at least one row.
        probabilities: `(n, classes)`, each row adding up to 1.
        names: Of the classes.
        top_k: k of the top-k accuracy, which is computed if there are more than k classes.
        predicted: Class indices, `(n,)`; by default the most probable class, the first of them in a tie.
        positive: Index of the positive one of two classes, by default the last.
    """
    classes = probabilities.shape[1]
    positive = 1 if classes == 2 and positive is None else positive
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    shares = {"accuracy": predicted == truth}
    if classes > top_k:
        shares[f"top_{top_k}_accuracy"] = is_among_top_k(truth, probabilities, top_k)
    averages = _make_weighted_averages(truth, predicted, classes, positive)
    ranked = range(classes) if positive is None else range(positive, positive + 1)
    areas = make_mean_areas(truth, probabilities, ranked)
    rankings = make_weighted_rankings(RANKING_METRICS, classes, "classes", areas)
    losses = {
        "log_loss": log_losses(truth, probabilities),
        "brier": calibration.compute_brier_scores(truth, probabilities),
    }
    mean_metrics = weighted_metrics.make_weighted_means({**shares, **losses})
    gaps = calibration.make_weighted_gaps(*calibration.get_confidence_and_outcome(truth, probabilities, positive))

    def compute(weights: np.ndarray) -> MetricSamples:
        calibration_error = {"calibration_error": np.abs(gaps(weights)).sum(axis=0)}
        return {**mean_metrics(weights), **averages(weights), **rankings.compute(weights), **calibration_error}

    undefined = dict.fromkeys(RANKING_METRICS, f"every row is of class {quoted(names[truth[0]])}.")
    if positive is not None:
        missing = f"row is of class {quoted(names[positive])}"
        undefined |= {"recall": f"no {missing}.", "f1": f"no {missing}, and none is predicted to be."}
        undefined["precision"] = f"no row is predicted to be of class {quoted(names[positive])}."
    return WeightedMetrics(
        compute,
        shares,
        {"calibration_error": gaps},
        rankings.left_out,
        rankings.compute_left_out,
        undefined,
        list_metrics(classes, top_k),
    )


def _make_weighted_averages(
    truth: np.ndarray, predicted: np.ndarray, classes: int, positive: int | None
) -> Callable[[np.ndarray], MetricSamples]:
    """Make averages of precision, recall and F1 over classes, and those of the positive class if there is one."""
    is_hit = truth == predicted
    tallies = [
        weighted_metrics.make_weighted_counts(codes, classes + 1)
        for codes in (np.where(is_hit, truth, classes), predicted, truth)
    ]

    def compute(weights: np.ndarray) -> MetricSamples:
        hits, guesses, support = (tally(weights)[:classes] for tally in tallies)
        total, is_present = support.sum(axis=0), support + guesses > 0
        divisors = {"precision": guesses, "recall": support, "f1": (support + guesses) / 2}
        averages = {}
        for metric, divisor in divisors.items():
            shares = divide(hits, divisor)
            if positive is not None:
                averages[metric] = shares[positive]
            by_class = np.nan_to_num(shares)
            averages[f"{metric}_macro"] = divide(by_class.sum(axis=0), is_present.sum(axis=0))
            averages[f"{metric}_micro"] = divide(hits.sum(axis=0), total)
            averages[f"{metric}_weighted"] = divide((by_class * support).sum(axis=0), total)
        return averages

    return compute


def make_weighted_rankings(
    names: tuple[str, ...], classes: int, noun: str, compute: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> WeightedMetrics:
    """Make metrics that rank classes or labels from a function of weights; beyond 100 they are not resampled."""

    def compute_by_name(weights: np.ndarray) -> MetricSamples:
        return dict(zip(names, compute(weights), strict=True))

    if classes <= MAX_RANKED_CLASSES:
        return WeightedMetrics(compute_by_name)
    reason = f"it ranks {classes} {noun}, which takes too long to resample beyond {MAX_RANKED_CLASSES}."
    return WeightedMetrics(lambda weights: {}, left_out=dict.fromkeys(names, reason), compute_left_out=compute_by_name)


def make_mean_areas(
    truth: np.ndarray, probabilities: np.ndarray, ranked: range
) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
    """Make a function from weights to the areas of `make_weighted_areas`, averaged over classes or labels."""

    def make_areas(index: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        return weighted_metrics.make_weighted_areas(_has_class(truth, index), probabilities[:, index])

    # Each function holds arrays as long as the rows, so those of many classes are made one after the other.
    make_kept_areas = cache(make_areas) if len(ranked) <= MAX_RANKED_CLASSES else make_areas

    def compute(weights: np.ndarray) -> Sequence[np.ndarray]:
        areas = [make_kept_areas(index)(weights) for index in ranked]
        return [weighted_metrics.compute_nanmean(values) for values in zip(*areas, strict=True)]

    return compute


def _has_class(indices: np.ndarray, index: int) -> np.ndarray:
    """Whether each row is of a class, or has a label: of class indices `(n,)`, or of 0 and 1 `(n, labels)`."""
    return np.asarray(indices[:, index] == 1 if indices.ndim == 2 else indices == index)


def compute_metrics_by_class(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> tuple[ClassMetrics, ...]:
    """Compute the metrics of each class against all others.

    Args:
        truth, predicted: Class indices `(n,)`, or 0 and 1 by label `(n, labels)`.
        probabilities: `(n, classes)`.
    """
    return tuple(
        _compute_class_metrics(name, _has_class(truth, index), _has_class(predicted, index), probabilities[:, index])
        for index, name in enumerate(classes)
    )


def _compute_class_metrics(
    name: str, is_positive: np.ndarray, is_predicted: np.ndarray, scores: np.ndarray
) -> ClassMetrics:
    hits, support, guesses = int((is_positive & is_predicted).sum()), int(is_positive.sum()), int(is_predicted.sum())
    roc_auc, pr_auc = compute_areas(is_positive, scores)
    return ClassMetrics(
        name=name,
        precision=hits / guesses if guesses else None,
        recall=hits / support if support else None,
        f1=2 * hits / (support + guesses) if support + guesses else None,
        support=support,
        roc_auc=roc_auc,
        pr_auc=pr_auc,
    )


def compute_areas(positive: np.ndarray, scores: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Compute ROC AUC and average precision; None without positive or without negative rows."""
    if positive.all() or not positive.any():
        return None, None
    roc, pr = weighted_metrics.make_weighted_areas(positive, scores)(np.ones((len(scores), 1)))
    return float(roc[0]), float(pr[0])


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ConfusionMatrix:
    """Count the rows of each pair of classes: rows are the truth and columns the prediction."""
    # scikit-learn's function warns when the target has one class only.
    counts = np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return tuple(map(tuple, counts.tolist()))
