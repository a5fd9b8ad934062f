"""What a teacher is good for: student against baseline on the same rows, and how far they say what the teacher says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from bmcli.distillations import ClassAgreement, DistillationGain, NetworkResult, ReliabilityCurve
from bmcli.evaluation import calibration
from bmcli.evaluation.directions import get_direction
from bmcli.evaluation.intervals import Resampling, compute_differences, resample_metrics
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics
from bmcli.specs import Column


def average_metrics(figures: Sequence[WeightedMetrics]) -> WeightedMetrics:
    """The mean of each metric over several models on the same rows."""
    if len(figures) == 1:
        return figures[0]

    def compute(weights: np.ndarray) -> MetricSamples:
        found = [each.compute(weights) for each in figures]
        return {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}

    return WeightedMetrics(compute)


def compute_gain(
    metric: str, teacher: NetworkResult, baseline: NetworkResult, student: NetworkResult, rows: int,
    figures: tuple[Sequence[WeightedMetrics], Sequence[WeightedMetrics]],
) -> DistillationGain:  # fmt: skip
    """By how much the student is better than its baseline in a metric that both have.

    The interval is that of the difference of their means over the seeds, from resampled rows that are the same for
    both.

    Args:
        rows: How many were measured.
        figures: The metrics of the baselines and of the students, as functions of the rows drawn, one for each seed.
    """
    way: Literal["min", "max"] = "min" if get_direction(metric) == "min" else "max"
    sign = 1 if way == "max" else -1
    one, two = average_metrics(figures[0]), average_metrics(figures[1])
    only = compute_differences(
        *(resample_metrics(_select_metric(each, metric), rows, Resampling()) for each in (one, two))
    ).get(metric)
    bounds, method = None, "the metric is undefined on these rows"
    if only is not None:
        method = only.interval.method if only.interval else only.reason
        ends = (sign * only.interval.low, sign * only.interval.high) if only.interval else None
        bounds = (min(ends), max(ends)) if ends else None
    each = tuple(
        sign * (second[metric] - first[metric]) for first, second in zip(baseline.by_seed, student.by_seed, strict=True)
    )
    gap = sign * (teacher.metrics[metric] - baseline.metrics[metric]) if metric in teacher.metrics else 0.0
    mean = float(np.mean(each))
    return DistillationGain(metric, way, mean, bounds, method, each, mean / gap if gap > 0 else None)


def _select_metric(figures: WeightedMetrics, metric: str) -> WeightedMetrics:
    shares = {name: rows for name, rows in figures.shares.items() if name == metric}
    return WeightedMetrics(lambda weights: {metric: figures.compute(weights)[metric]}, shares)


def compute_agreement_by_class(
    truth: np.ndarray, teacher: np.ndarray, student: np.ndarray, baseline: np.ndarray | None, classes: Sequence[str]
) -> tuple[ClassAgreement, ...]:
    """Share of rows of which student and baseline say what the teacher says: all rows first, then those of each class.

    Args:
        truth: Class indices `(rows,)`.
        teacher, student, baseline: Probabilities `(rows, classes)`.
    """
    said = teacher.argmax(axis=1)
    agrees = student.argmax(axis=1) == said
    also = None if baseline is None else baseline.argmax(axis=1) == said
    every = [("", np.ones(len(truth), bool)), *((name, truth == place) for place, name in enumerate(classes))]
    return tuple(
        ClassAgreement(
            name, int(rows.sum()), float(agrees[rows].mean()), None if also is None else float(also[rows].mean())
        )
        for name, rows in every
        if rows.any()
    )


def compute_reliability(
    truth: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], targets: Sequence[Column]
) -> dict[str, ReliabilityCurve]:
    """How the probabilities of each target with classes or labels compare with what came true."""
    found = {}
    for column in targets:
        if not column.classes:
            continue
        told, right = predictions[column.name].astype("float32"), truth[column.name].astype(np.int64)
        of = calibration.measure_labels(right, told) if column.kind == "labels" else calibration.measure_classes(
            right, told, column.classes
        )  # fmt: skip
        points = tuple((each.probability, each.frequency, each.count) for each in of.bins)
        found[column.name] = ReliabilityCurve(of.error, points)
    return found
