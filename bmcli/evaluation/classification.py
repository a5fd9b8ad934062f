"""Metrics of a category target: accuracy, precision and recall, ranking, log loss and calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bmcli.evaluation import calibration, weighted_metrics
from bmcli.evaluation.result import ClassMetrics, ConfusionMatrix, TargetMetrics
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics, divide
from bmcli.quoting import quoted

AVERAGES = ("macro", "micro", "weighted")
RANKING_METRICS = ("roc_auc", "pr_auc")
CALIBRATION_METRICS = ("brier", "calibration_error")

MAX_RANKED_CLASSES = 100  # with more classes, the areas of thousands of samples take minutes


def metric_names(classes: int, top_k: int) -> tuple[str, ...]:
    """List the metrics of a target with this number of classes, in the order of display."""
    top = (f"top_{top_k}_accuracy",) if classes > top_k else ()
    averaged = (f"{figure}_{average}" for figure in ("precision", "recall", "f1") for average in AVERAGES)
    return ("accuracy", *top, *averaged, *RANKING_METRICS, "log_loss", *CALIBRATION_METRICS)


def measure(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    top_k: int,
    predicted: np.ndarray | None = None,
) -> TargetMetrics:
    """Compute all metrics of one category target.

    Precision, recall and F1 are scikit-learn's: macro and weighted averages run over the classes that occur
    or are predicted, and 0/0 (the precision of a class that is never predicted) counts as 0 in them. Micro
    averages equal the accuracy, because every row has one class.

    `roc_auc` and `pr_auc` (average precision, the step-wise area) are those of the last class if there are
    two classes; otherwise each class that occurs is ranked against the rest, and the areas are averaged with
    equal weights (one-vs-rest, macro). They are undefined if every row is of one class.

    `brier` and `calibration_error` are those of `calibration.measure_classes`.

    Args:
        truth: Class indices, `(n,)`, at least one row.
        probabilities: `(n, classes)`, each row adding up to 1.
        top_k: k of the top-k accuracy, which is computed if there are more than k classes.
        predicted: Class indices, `(n,)`; by default the most probable class, the first of them in a tie.
    """
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    by_class = compute_metrics_by_class(truth, predicted, probabilities, classes)
    metrics = {"accuracy": float(np.mean(predicted == truth))}
    if len(classes) > top_k:
        metrics[f"top_{top_k}_accuracy"] = top_k_accuracy(truth, probabilities, top_k)
    metrics |= _compute_averages(truth, predicted)
    rankings = _average_rankings(by_class)
    metrics |= rankings
    metrics["log_loss"] = log_loss(truth, probabilities)
    metrics["brier"] = calibration.compute_brier_score(truth, probabilities)
    metrics["calibration_error"] = calibration.compute_calibration_error(
        *calibration.get_confidence_and_outcome(truth, probabilities)
    )
    only_class = next(row.name for row in by_class if row.support)
    undefined = {
        name: f"every row is of class {quoted(only_class)}." for name in RANKING_METRICS if name not in rankings
    }
    return TargetMetrics(metrics, undefined, by_class, confusion_matrix(truth, predicted, len(classes)))


def top_k_accuracy(truth: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Compute the share of rows whose class is among the k most probable; in a tie the class that comes first is ahead.

    scikit-learn lets the last class win a tie, so its top-1 accuracy differs from the accuracy of `argmax`.
    """
    return float(np.mean(is_among_top_k(truth, probabilities, k)))


def is_among_top_k(truth: np.ndarray, probabilities: np.ndarray, k: int) -> np.ndarray:
    """Whether each row's class is among the k most probable, `(n,)`."""
    true_probabilities = np.take_along_axis(probabilities, truth[:, None], axis=1)
    is_earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    is_ahead = (probabilities > true_probabilities) | ((probabilities == true_probabilities) & is_earlier)
    return np.asarray(is_ahead.sum(axis=1) < k)


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the mean of `-log(probability of the true class)`, in nats, at most 15.94.

    A probability below float32's epsilon, 1.2e-7, counts as epsilon, as in scikit-learn, whose own function
    takes neither a single class nor probabilities that were rounded to half precision.
    """
    return float(np.mean(log_losses(truth, probabilities)))


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the log loss of each row, `(n,)`."""
    true_probabilities = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0].astype(np.float64)
    floor = float(np.finfo(np.float32).eps)
    # The absolute value, since a minus sign would turn the loss of a probability of 1 into -0.0.
    return np.asarray(np.abs(np.log(np.clip(true_probabilities, floor, 1.0))))


def make_weighted_metrics(
    truth: np.ndarray, probabilities: np.ndarray, top_k: int, predicted: np.ndarray | None = None
) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows, without ranking areas beyond 100 classes."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    shares = {"accuracy": predicted == truth}
    if classes > top_k:
        shares[f"top_{top_k}_accuracy"] = is_among_top_k(truth, probabilities, top_k)
    averages = _make_weighted_averages(truth, predicted, classes)
    rankings, left_out = _make_weighted_rankings(truth, probabilities)
    losses = {
        "log_loss": log_losses(truth, probabilities),
        "brier": calibration.compute_brier_scores(truth, probabilities),
    }
    mean_metrics = weighted_metrics.make_weighted_means({**shares, **losses})
    gaps = calibration.make_weighted_gaps(*calibration.get_confidence_and_outcome(truth, probabilities))

    def compute(weights: np.ndarray) -> MetricSamples:
        metrics = {**mean_metrics(weights), **averages(weights), **rankings(weights)}
        return {**metrics, "calibration_error": np.abs(gaps(weights)).sum(axis=0)}

    return WeightedMetrics(compute, shares, {"calibration_error": gaps}, left_out)


def _make_weighted_averages(
    truth: np.ndarray, predicted: np.ndarray, classes: int
) -> Callable[[np.ndarray], MetricSamples]:
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
            by_class = np.nan_to_num(divide(hits, divisor))
            averages[f"{metric}_macro"] = divide(by_class.sum(axis=0), is_present.sum(axis=0))
            averages[f"{metric}_micro"] = divide(hits.sum(axis=0), total)
            averages[f"{metric}_weighted"] = divide((by_class * support).sum(axis=0), total)
        return averages

    return compute


def _make_weighted_rankings(
    truth: np.ndarray, probabilities: np.ndarray
) -> tuple[Callable[[np.ndarray], MetricSamples], dict[str, str]]:
    classes = probabilities.shape[1]
    if classes > MAX_RANKED_CLASSES:
        reason = f"it ranks {classes} classes, which takes too long to resample beyond {MAX_RANKED_CLASSES}."
        return lambda weights: {}, dict.fromkeys(RANKING_METRICS, reason)
    ranked = range(1, 2) if classes == 2 else range(classes)
    area_functions = [weighted_metrics.make_weighted_areas(truth == index, probabilities[:, index]) for index in ranked]

    def compute(weights: np.ndarray) -> MetricSamples:
        areas_by_metric = zip(*(areas(weights) for areas in area_functions), strict=True)
        return {
            name: weighted_metrics.compute_nanmean(list(areas))
            for name, areas in zip(RANKING_METRICS, areas_by_metric, strict=True)
        }

    return compute, {}


def _compute_averages(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import precision_recall_fscore_support

    by_average = {
        average: precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)[:3]
        for average in AVERAGES
    }
    return {
        f"{metric}_{average}": float(by_average[average][position])
        for position, metric in enumerate(("precision", "recall", "f1"))
        for average in AVERAGES
    }


def compute_metrics_by_class(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> tuple[ClassMetrics, ...]:
    """Compute the metrics of each class against all others.

    Args:
        truth, predicted: Class indices, `(n,)`.
        probabilities: `(n, classes)`.
    """
    return tuple(
        compute_class_metrics(name, truth == index, predicted == index, probabilities[:, index])
        for index, name in enumerate(classes)
    )


def compute_class_metrics(
    name: str, is_positive: np.ndarray, is_predicted: np.ndarray, scores: np.ndarray
) -> ClassMetrics:
    """Compute the metrics of one class against all others.

    Args:
        is_positive, is_predicted: Whether each row is of the class, and whether it is predicted so, `(n,)`.
        scores: Probability of the class, `(n,)`.
    """
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
    from sklearn.metrics import average_precision_score, roc_auc_score

    if positive.all() or not positive.any():
        return None, None
    return float(roc_auc_score(positive, scores)), float(average_precision_score(positive, scores))


def _average_rankings(rows: tuple[ClassMetrics, ...]) -> dict[str, float]:
    ranked = rows[-1:] if len(rows) == 2 else rows
    defined = [row for row in ranked if row.roc_auc is not None]
    return {name: float(np.mean([getattr(row, name) for row in defined])) for name in RANKING_METRICS if defined}


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ConfusionMatrix:
    """Count the rows of each pair of classes: rows are the truth and columns the prediction."""
    # scikit-learn's function warns when the target has one class only.
    counts = np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return tuple(map(tuple, counts.tolist()))
