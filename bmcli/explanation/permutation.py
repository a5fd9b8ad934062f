"""Permutation importance: the increase in the loss when the values of one column are shuffled among the rows.

Breiman 2001, section 10, measured on rows that the model was not trained on, like the model reliance of Fisher, Rudin
and Dominici 2019. Columns with the same information replace each other, so neither appears important.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bmcli.evaluation.differences import subtract_metrics
from bmcli.evaluation.explanation_record import PermutationImportance
from bmcli.evaluation.intervals import Resampling, compute_intervals, resample_metrics
from bmcli.evaluation.predictions import predict_points
from bmcli.evaluation.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.explanation import scores
from bmcli.specs import Column, Split

PAPER = "Breiman 2001; Fisher, Rudin and Dominici 2019"

Predict = Callable[[Split], Mapping[str, np.ndarray]]


def measure_importances(
    rows: Split,
    truth: Mapping[str, np.ndarray],
    columns: tuple[Column, ...],
    quantiles: Mapping[str, tuple[float, ...]],
    predict: Predict,
    repeats: int,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, tuple[PermutationImportance, ...]]:
    """Measure the importance of inputs for each target, the largest first.

    The interval is that of the mean over rows of a row's increase, itself the mean over `repeats` shuffles.

    Args:
        rows: Encoded, not training rows.
        truth: By target, decoded.
        columns: The targets.
        predict: From rows to predictions by target.
        names: The inputs whose importance is measured; None for all.
        seed: Of the shuffles.
    """
    generator = np.random.default_rng([0x5FFE, seed])
    predictions = predict(rows)
    baseline = {target.name: _measure_losses(target, truth, predictions, quantiles) for target in columns}
    increases: dict[str, dict[str, np.ndarray]] = {target.name: {} for target in columns}
    decreases: dict[str, dict[str, float]] = {target.name: {} for target in columns}
    for name in rows.inputs if names is None else names:
        values, shuffled_losses = rows.inputs[name], []
        for _ in range(repeats):
            shuffled = replace(rows, inputs={**rows.inputs, name: values[generator.permutation(len(rows))]})
            shuffled_predictions = predict(shuffled)
            shuffled_losses.append(
                {target.name: _measure_losses(target, truth, shuffled_predictions, quantiles) for target in columns}
            )
        for target in columns:
            losses, correctness = baseline[target.name]
            increases[target.name][name] = np.mean([each[target.name][0] - losses for each in shuffled_losses], axis=0)
            shuffled_correctness = float(np.mean([each[target.name][1] for each in shuffled_losses]))
            decreases[target.name][name] = float(subtract_metrics(correctness, shuffled_correctness))
    return {target.name: _rank_importances(increases[target.name], decreases[target.name]) for target in columns}


def _measure_losses(
    column: Column,
    truth: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    quantiles: Mapping[str, tuple[float, ...]],
) -> tuple[np.ndarray, float]:
    """Measure the loss of each row, and the correctness of all."""
    values, own_quantiles = truth[column.name], quantiles.get(column.name, ())
    predicted = predictions[column.name]
    correctness = scores.measure_correctness(column, values, predict_points(column, predicted, own_quantiles))
    return scores.compute_row_losses(column, values, predicted, own_quantiles), correctness


def _rank_importances(
    increases: Mapping[str, np.ndarray], decreases: Mapping[str, float]
) -> tuple[PermutationImportance, ...]:
    rows = len(next(iter(increases.values())))
    intervals, _ = compute_intervals(
        resample_metrics(WeightedMetrics(make_weighted_means(increases)), rows, Resampling())
    )
    importances = []
    for name, each in increases.items():
        mean = float(each.mean())
        # A column without any effect is the same in every resample, and has no interval.
        low, high = (intervals[name].low, intervals[name].high) if name in intervals else (mean, mean)
        importances.append(PermutationImportance(name, mean, low, high, decreases[name]))
    return tuple(sorted(importances, key=lambda each: -each.increase))
