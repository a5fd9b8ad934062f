"""Metrics of all targets, and their names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.errors import BmcliError, RunFailed
from bmcli.evaluation import classification, count, multi_label, ordinal, quantile, regression
from bmcli.evaluation.result import Evaluation
from bmcli.evaluation.weighted_metrics import WeightedMetrics, join_with_prefixes
from bmcli.specs import Column

NO_QUANTILES: Mapping[str, tuple[float, ...]] = {}


def measure(
    targets: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    spec_targets: tuple[Column, ...],
    top_k: int,
    quantiles: Mapping[str, tuple[float, ...]] = NO_QUANTILES,
) -> Evaluation:
    """Compute every metric of every target.

    Args:
        targets: By name; class indices `(n,)`, 0 and 1 by label `(n, labels)`, or numbers in their own unit `(n,)`.
        predictions: By name; probabilities `(n, classes)`, numbers `(n,)`, or several quantiles `(n, quantiles)`.
        spec_targets: The targets to measure.
        top_k: k of the top-k accuracy.
        quantiles: The predicted quantiles, by target; only of targets with quantiles.

    Raises:
        BmcliError: There is no row.
        RunFailed: A prediction is not finite.
        ValueError: An array does not have the shape or range above.
    """
    for column in spec_targets:
        _check_target(column, targets[column.name], predictions[column.name], quantiles.get(column.name, ()))
    rows = len(targets[spec_targets[0].name])
    values, reasons = make_weighted_metrics(targets, predictions, spec_targets, top_k, quantiles).measure(rows)
    names = metric_names(spec_targets, top_k, quantiles)
    per_class, confusion = {}, {}
    for column in spec_targets:
        if column.classes:
            truth, predicted, probabilities = _predict_points(column, targets[column.name], predictions[column.name])
            per_class[column.name] = classification.compute_metrics_by_class(
                truth, predicted, probabilities, column.classes
            )
            if column.kind != "labels":
                confusion[column.name] = classification.confusion_matrix(truth, predicted, len(column.classes))
    return Evaluation(
        metrics={name: values[name] for name in names if name in values},
        per_class=per_class,
        confusion=confusion,
        count=rows,
        undefined={name: reasons[name] for name in names if name in reasons},
    )


def metric_names(
    spec_targets: tuple[Column, ...], top_k: int, quantiles: Mapping[str, tuple[float, ...]] = NO_QUANTILES
) -> tuple[str, ...]:
    """List the names for which `measure` returns a value or a reason, in the order of the targets."""
    return tuple(
        _get_prefix(column, spec_targets) + name
        for column in spec_targets
        for name in _list_names(column, top_k, quantiles.get(column.name, ()))
    )


def make_weighted_metrics(
    targets: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    spec_targets: tuple[Column, ...],
    top_k: int,
    quantiles: Mapping[str, tuple[float, ...]] = NO_QUANTILES,
) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows; arguments that `measure` accepts."""
    return join_with_prefixes(
        [
            (
                _get_prefix(column, spec_targets),
                make_target_metrics(
                    column, targets[column.name], predictions[column.name], top_k, quantiles.get(column.name, ())
                ),
            )
            for column in spec_targets
        ]
    )


def compute_row_metric(
    column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...] = ()
) -> tuple[str, np.ndarray]:
    """Compute a target's metric that is a mean over rows: its name and terms `(n,)`; bool for a share of rows."""
    if quantiles:
        errors = truth[:, None] - predictions.astype(np.float64)
        return "pinball", np.maximum(np.array(quantiles) * errors, (np.array(quantiles) - 1) * errors).mean(axis=1)
    if not column.classes:
        return "mae", np.abs(truth - predictions.astype(np.float64))
    right = target_kinds.kind_of(column).predict_point(predictions, column) == truth
    return ("subset_accuracy", right.all(axis=1)) if column.kind == "labels" else ("accuracy", right)


def make_target_metrics(
    column: Column, truth: np.ndarray, predictions: np.ndarray, top_k: int, quantiles: tuple[float, ...] = ()
) -> WeightedMetrics:
    """Make the weighted metrics of one target, under names without the target's."""
    truth, predictions = np.asarray(truth), np.asarray(predictions)
    if quantiles:
        return quantile.make_weighted_metrics(truth, predictions, quantiles)
    if not column.classes:
        return (count if column.kind == "count" else regression).make_weighted_metrics(truth, predictions)
    truth, predicted, probabilities = _predict_points(column, truth, predictions)
    if column.kind == "category":
        return classification.make_weighted_metrics(truth, probabilities, column.classes, top_k, predicted)
    return (multi_label if column.kind == "labels" else ordinal).make_weighted_metrics(truth, predicted, probabilities)


def _predict_points(
    column: Column, truth: np.ndarray, predictions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Get truth and predicted classes or labels as integers, and probabilities in single precision."""
    probabilities = np.asarray(predictions).astype(np.float32, copy=False)
    predicted = target_kinds.kind_of(column).predict_point(probabilities, column)
    return np.asarray(truth).astype(np.int64), predicted, probabilities


def _list_names(column: Column, top_k: int, quantiles: tuple[float, ...]) -> tuple[str, ...]:
    if column.kind == "category":
        return classification.metric_names(len(column.classes), top_k)
    if quantiles:
        return quantile.metric_names(quantiles)
    return {"labels": multi_label, "ordered": ordinal, "count": count, "number": regression}[column.kind].METRIC_NAMES


def _get_prefix(column: Column, spec_targets: tuple[Column, ...]) -> str:
    return f"{column.name}/" if len(spec_targets) > 1 else ""


def _check_target(column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]) -> None:
    truth, predictions = np.asarray(truth), np.asarray(predictions)
    if len(truth) == 0:
        raise BmcliError(
            "the split has no rows to evaluate.",
            path="evaluate.split",
            suggestion="Name a split with rows, or give this one a share in data.split.",
        )
    _check_shape(column, truth, predictions, quantiles)
    _check_finite(column, predictions)
    if column.classes:
        _check_probabilities(column, truth, predictions)


def _check_shape(column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]) -> None:
    rows = (len(truth),)
    width = len(column.classes) or len(quantiles)
    expected, target_shape = (*rows, width) if width else rows, (*rows, *column.shape)
    if truth.shape != target_shape or predictions.shape != expected:
        raise ValueError(
            f"Target {column.name!r}: expected targets {target_shape} and predictions {expected}, "
            f"received {truth.shape} and {predictions.shape}"
        )


def _check_finite(column: Column, predictions: np.ndarray) -> None:
    finite = np.isfinite(predictions).reshape(len(predictions), -1).all(axis=1)
    if not finite.all():
        raise RunFailed(
            f"target '{column.name}': {np.sum(~finite)} of {len(finite)} predictions are not finite.",
            suggestion="The training diverged: lower its learning_rate, or limit gradients with clipnorm.",
        )


def _check_probabilities(column: Column, truth: np.ndarray, predictions: np.ndarray) -> None:
    limit = 2 if column.kind == "labels" else len(column.classes)
    if truth.min() < 0 or truth.max() >= limit:
        raise ValueError(
            f"Target {column.name!r}: expected indices below {limit}, received {truth.min()} to {truth.max()}"
        )
    if column.kind == "labels":
        if predictions.min() < 0 or predictions.max() > 1:
            raise ValueError(
                f"Target {column.name!r}: expected probabilities from 0 to 1, "
                f"received {predictions.min():g} to {predictions.max():g}"
            )
        return
    # Half precision rounds each probability by up to 0.4 %.
    sums = predictions.sum(axis=1, dtype=np.float64)
    if predictions.min() < 0 or np.abs(sums - 1).max() > 0.01:
        raise ValueError(
            f"Target {column.name!r}: expected probabilities that add up to 1, "
            f"received sums from {sums.min():g} to {sums.max():g}"
        )
