"""Permutation importance: how much worse a model gets when it is told the wrong cells of a column.

Breiman 2001, section 10, measured on rows that the model was not trained on, as the model reliance of Fisher, Rudin
and Dominici 2019. Columns that tell the same stand in for each other, and neither then looks important.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

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
    measured: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, tuple[PermutationImportance, ...]]:
    """The importance of inputs for each target, the largest first.

    The interval is that of the mean over rows of a row's increase, itself the mean over `repeats` shuffles.

    Args:
        rows: Encoded, not those of the training.
        truth: By target, decoded.
        columns: The targets.
        predict: From rows to what is predicted of them by target.
        measured: The inputs whose importance is asked for; None for all.
        seed: Of the shuffles.
    """
    dice = np.random.default_rng([0x5FFE, seed])
    before = predict(rows)
    usual = {c.name: _measure_losses(c, truth, before, quantiles) for c in columns}
    increases: dict[str, dict[str, np.ndarray]] = {c.name: {} for c in columns}
    falls: dict[str, dict[str, float]] = {c.name: {} for c in columns}
    for name in rows.inputs if measured is None else measured:
        cells, after = rows.inputs[name], []
        for _ in range(repeats):
            dealt = replace(rows, inputs={**rows.inputs, name: cells[dice.permutation(len(rows))]})
            predicted = predict(dealt)
            after.append({c.name: _measure_losses(c, truth, predicted, quantiles) for c in columns})
        for c in columns:
            losses, right = usual[c.name]
            increases[c.name][name] = np.mean([each[c.name][0] - losses for each in after], axis=0)
            falls[c.name][name] = float(np.mean([right - each[c.name][1] for each in after]))
    return {c.name: _rank_importances(increases[c.name], falls[c.name]) for c in columns}


def _measure_losses(
    column: Column,
    truth: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    quantiles: Mapping[str, tuple[float, ...]],
) -> tuple[np.ndarray, float]:
    """The loss of each row, and how right all are."""
    own, levels = truth[column.name], quantiles.get(column.name, ())
    predicted = predictions[column.name]
    right = scores.measure_correctness(column, own, predict_points(column, predicted, levels))
    return scores.compute_row_losses(column, own, predicted, levels), right


def _rank_importances(
    increases: Mapping[str, np.ndarray], falls: Mapping[str, float]
) -> tuple[PermutationImportance, ...]:
    rows = len(next(iter(increases.values())))
    around, _ = compute_intervals(resample_metrics(WeightedMetrics(make_weighted_means(increases)), rows, Resampling()))
    found = []
    for name, each in increases.items():
        mean = float(each.mean())
        # A column that changes nothing is the same in every resample, and has no interval.
        low, high = (around[name].low, around[name].high) if name in around else (mean, mean)
        found.append(PermutationImportance(name, mean, low, high, falls[name]))
    return tuple(sorted(found, key=lambda each: -each.increase))
