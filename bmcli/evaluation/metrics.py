"""All metrics of a model's predictions, their names and directions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bmcli.errors import BmcliError, RunFailed
from bmcli.evaluation import classification, regression
from bmcli.evaluation.result import Evaluation, TargetResult
from bmcli.specs import Column


def measure(
    targets: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    spec_targets: tuple[Column, ...],
    top_k: int,
) -> Evaluation:
    """Every metric of every target.

    Args:
        targets: By name; class indices for a category, numbers in their own unit otherwise, `(n,)`.
        predictions: By name; probabilities `(n, classes)` for a category, numbers `(n,)` otherwise.
        spec_targets: The targets to measure.
        top_k: k of the top-k accuracy.

    Raises:
        BmcliError: There is no row.
        RunFailed: A prediction is not finite.
        ValueError: An array does not have the shape or range above.
    """
    results = {
        column.name: _target_result(column, targets[column.name], predictions[column.name], top_k)
        for column in spec_targets
    }
    prefixes = {column.name: _prefix(column, spec_targets) for column in spec_targets}
    return Evaluation(
        metrics={prefixes[t] + name: value for t, r in results.items() for name, value in r.metrics.items()},
        per_class={target: result.per_class for target, result in results.items() if result.per_class},
        confusion={target: result.confusion for target, result in results.items() if result.confusion},
        count=len(targets[spec_targets[0].name]),
        undefined={prefixes[t] + name: why for t, r in results.items() for name, why in r.undefined.items()},
    )


def metric_names(spec_targets: tuple[Column, ...], top_k: int) -> tuple[str, ...]:
    """Every name that `measure` gives a value or a reason for, in the order of the targets."""
    return tuple(
        _prefix(column, spec_targets) + name
        for column in spec_targets
        for name in (
            classification.metric_names(len(column.classes), top_k)
            if column.kind == "category"
            else regression.METRIC_NAMES
        )
    )


def _prefix(column: Column, spec_targets: tuple[Column, ...]) -> str:
    return f"{column.name}/" if len(spec_targets) > 1 else ""


def _target_result(column: Column, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> TargetResult:
    truth, predictions = np.asarray(truth), np.asarray(predictions)
    if len(truth) == 0:
        raise BmcliError(
            "the split has no rows to measure on.",
            path="evaluate.split",
            suggestion="Name a split with rows, or give this one a share in data.split.",
        )
    _check_shape(column, truth, predictions)
    _check_finite(column, predictions)
    if column.kind != "category":
        return regression.measure(truth, predictions)
    _check_probabilities(column, truth, predictions)
    probabilities = predictions.astype(np.float32, copy=False)
    return classification.measure(truth.astype(np.int64), probabilities, column.classes, top_k)


def _check_shape(column: Column, truth: np.ndarray, predictions: np.ndarray) -> None:
    rows = (len(truth),)
    expected = (*rows, len(column.classes)) if column.kind == "category" else rows
    if truth.shape != rows or predictions.shape != expected:
        raise ValueError(
            f"Target {column.name!r}: expected targets {rows} and predictions {expected}, "
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
    if truth.min() < 0 or truth.max() >= len(column.classes):
        raise ValueError(
            f"Target {column.name!r}: expected indices below {len(column.classes)}, "
            f"received {truth.min()} to {truth.max()}"
        )
    # Half precision rounds each probability by up to 0.4 %.
    sums = predictions.sum(axis=1, dtype=np.float64)
    if predictions.min() < 0 or np.abs(sums - 1).max() > 0.01:
        raise ValueError(
            f"Target {column.name!r}: expected probabilities that add up to 1, "
            f"received sums from {sums.min():g} to {sums.max():g}"
        )
