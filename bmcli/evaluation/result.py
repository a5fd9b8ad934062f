"""Results of an evaluation, as plain values that pass through JSON unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bmcli.evaluation.baseline import BaselineComparison
from bmcli.evaluation.fairness import Fairness
from bmcli.evaluation.slices import Slices
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.classification import ClassMetrics, ConfusionMatrix, describe_positive
from bmcli.metrics.proportions import Interval
from bmcli.metrics.weighted_metrics import describe_row_weights
from bmcli.records import validate_as


@dataclass(frozen=True)
class Evaluation:
    """All results of a model on some rows.

    A metric is named `accuracy` if there is one target, `label/accuracy` if there are several.

    Args:
        metrics: Value by metric name; always finite.
        per_class: Metrics of each class or label, by target that has them.
        confusion: Counts by target with one class a row; rows are the truth and columns the prediction, in the
            order of `per_class`.
        count: Number of evaluated rows.
        undefined: Reason by metric name, for every metric that is undefined on these rows.
        intervals: By metric name.
        without_interval: Reason by metric name, for every metric without an interval.
        calibration: By target of classes or labels.
        slices: Of each target, if the recipe has slices.
        fairness: Of each column of `evaluate.fairness`.
        baselines: Comparison of each output that has a baseline.
        weight: The column of the weights with which metrics named `row_weighted_` are computed; None without such.
        positive: The positive class of each target that has one, of which precision, recall, F1 and PR AUC speak.

    Raises:
        ValueError: A metric is not finite.
    """

    metrics: Mapping[str, float]
    per_class: Mapping[str, tuple[ClassMetrics, ...]]
    confusion: Mapping[str, ConfusionMatrix]
    count: int
    undefined: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    without_interval: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    slices: tuple[Slices, ...] = ()
    fairness: tuple[Fairness, ...] = ()
    baselines: tuple[BaselineComparison, ...] = ()
    positive: Mapping[str, str] = field(default_factory=dict)
    weight: str | None = None

    def __post_init__(self) -> None:
        rows = [row for table in self.per_class.values() for row in table]
        class_values = [value for row in rows for value in (row.precision, row.recall, row.f1, row.roc_auc, row.pr_auc)]
        for value in (*self.metrics.values(), *class_values):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"Expected finite metrics, received {value}")

    @property
    def meanings(self) -> list[str]:
        """Of which class and with which weights of rows the metrics are, as sentences."""
        of_weights = [] if self.weight is None else [describe_row_weights(self.weight)]
        return [*describe_positive(self.positive), *of_weights]

    @property
    def baseline_metrics(self) -> dict[str, float]:
        """Metrics of the baselines of all outputs, by the names of `metrics`."""
        return {name: value for each in self.baselines for name, value in each.metrics.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: text, finite numbers, None, lists and dicts."""
        return {
            "count": self.count,
            "metrics": dict(self.metrics),
            "positive": dict(self.positive),
            "weight": self.weight,
            "undefined": dict(self.undefined),
            "per_class": {name: [row.to_json() for row in table] for name, table in self.per_class.items()},
            "confusion": {name: [list(row) for row in matrix] for name, matrix in self.confusion.items()},
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "without_interval": dict(self.without_interval),
            "calibration": {name: each.to_json() for name, each in self.calibration.items()},
            "slices": [each.to_json() for each in self.slices],
            "fairness": [each.to_json() for each in self.fairness],
            "baselines": [each.to_json() for each in self.baselines],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        return validate_as(cls, values)
