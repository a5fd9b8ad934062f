"""Comparison of a model with the best prediction that is the same for every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bmcli.answers import Answers
    from bmcli.evaluation.result import Evaluation

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class BaselineComparison:
    """Comparison of a model with a baseline that does not see the inputs.

    Args:
        output: Its name.
        prediction: The prediction for every row, as in `always 'ham'`.
        metrics: Of the baseline, by the names that the evaluation of the model has.
        metric: The metric for which the baseline is the best constant.
        is_beaten: Whether the model is better by that metric; also true where no model could be.
    """

    output: str
    prediction: str
    metrics: Mapping[str, float]
    metric: str
    is_beaten: bool

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "metrics": dict(self.metrics)}


def compare_with_baselines(
    evaluation: Evaluation, truth: Arrays, answers: Mapping[str, Answers], top_k: int
) -> Evaluation:
    """Add the comparison of each output that has a baseline to an evaluation.

    Args:
        truth: By output, decoded.
        answers: The evaluated outputs, by name.
    """
    comparisons = []
    for name, each in answers.items():
        baseline, prefix = each.measure_baseline(truth[name], top_k), f"{name}/" if len(answers) > 1 else ""
        if baseline is None:
            continue
        metrics = {prefix + metric: value for metric, value in baseline.metrics.items()}
        metric, info = prefix + baseline.metric, each.list_metrics(top_k)[baseline.metric]
        if metric not in metrics or metric not in evaluation.metrics:
            continue  # too large for a number
        own, constant = evaluation.metrics[metric], metrics[metric]
        is_better = own > constant if info.direction == "max" else own < constant
        is_ideal = constant == (info.high if info.direction == "max" else info.low)
        comparisons.append(BaselineComparison(name, baseline.prediction, metrics, metric, is_better or is_ideal))
    return replace(evaluation, baselines=tuple(comparisons))
