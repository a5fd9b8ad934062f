"""Permutation importance: the increase in the loss when the values of one column are shuffled among the rows.

Breiman 2001, section 10, measured on rows that the model was not trained on, like the model reliance of Fisher, Rudin
and Dominici 2019. Columns with the same information replace each other, so neither appears important.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bmcli.answers import Answers
from bmcli.evaluation.explanation_record import PermutationImportance
from bmcli.evaluation.intervals import Resampling, compute_intervals, resample_metrics
from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.specs import Split

PAPER = "Breiman 2001; Fisher, Rudin and Dominici 2019"

Predict = Callable[[Split], Mapping[str, np.ndarray]]


def measure_importances(
    rows: Split,
    truth: Mapping[str, np.ndarray],
    answers: Mapping[str, Answers],
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
        answers: Of the outputs, by name.
        predict: From rows to predictions by target.
        names: The inputs whose importance is measured; None for all.
        seed: Of the shuffles.
    """
    generator = np.random.default_rng([0x5FFE, seed])
    predictions = predict(rows)
    baseline = _measure_losses(answers, truth, predictions)
    increases: dict[str, dict[str, np.ndarray]] = {name: {} for name in answers}
    decreases: dict[str, dict[str, float]] = {name: {} for name in answers}
    for name in rows.inputs if names is None else names:
        values, shuffled_losses = rows.inputs[name], []
        for _ in range(repeats):
            shuffled = replace(rows, inputs={**rows.inputs, name: values[generator.permutation(len(rows))]})
            shuffled_predictions = predict(shuffled)
            shuffled_losses.append(_measure_losses(answers, truth, shuffled_predictions))
        for output, (losses, correctness) in baseline.items():
            increases[output][name] = np.mean([each[output][0] - losses for each in shuffled_losses], axis=0)
            shuffled_correctness = float(np.mean([each[output][1] for each in shuffled_losses]))
            decreases[output][name] = float(subtract_metrics(correctness, shuffled_correctness))
    return {output: _rank_importances(increases[output], decreases[output]) for output in answers}


def _measure_losses(
    answers: Mapping[str, Answers], truth: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, float]]:
    """Measure the loss of each row, and the correctness of all, by output."""
    return {
        name: (
            each.compute_row_losses(truth[name], predictions[name]).values,
            each.measure_correctness(truth[name], predictions[name]),
        )
        for name, each in answers.items()
    }


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
