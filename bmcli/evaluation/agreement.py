"""Gain by distillation: student against baseline on the same rows, and the agreement of both with the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from bmcli.answers import Answers
from bmcli.distillations import ClassAgreement, DistillationGain, NetworkResult, ReliabilityCurve
from bmcli.evaluation.intervals import Resampling, compute_differences, resample_metrics
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics


def average_metrics(metrics: Sequence[WeightedMetrics]) -> WeightedMetrics:
    """Average each metric over several models on the same rows."""
    if len(metrics) == 1:
        return metrics[0]

    def compute(weights: np.ndarray) -> MetricSamples:
        values = [each.compute(weights) for each in metrics]
        return {name: np.mean([each[name] for each in values], axis=0) for name in values[0]}

    return WeightedMetrics(compute, info=metrics[0].info)


def compute_gain(
    metric: str, teacher: NetworkResult, baseline: NetworkResult, student: NetworkResult, rows: int,
    metrics_by_seed: tuple[Sequence[WeightedMetrics], Sequence[WeightedMetrics]],
) -> DistillationGain:  # fmt: skip
    """Compute the improvement of the student over its baseline in a metric that both have.

    The interval is that of the difference of their means over the seeds, from resampled rows that are the same for
    both.

    Args:
        rows: Number of evaluated rows.
        metrics_by_seed: Weighted metrics of the baselines and of the students, one for each seed.
    """
    is_error = metrics_by_seed[1][0].get_info(metric).direction == "min"
    direction: Literal["min", "max"] = "min" if is_error else "max"
    sign = 1 if direction == "max" else -1
    baseline_metrics, student_metrics = average_metrics(metrics_by_seed[0]), average_metrics(metrics_by_seed[1])
    difference = compute_differences(
        *(
            resample_metrics(_select_metric(each, metric), rows, Resampling())
            for each in (baseline_metrics, student_metrics)
        )
    ).get(metric)
    bounds, method = None, "the metric is undefined on these rows"
    if difference is not None:
        method = difference.interval.method if difference.interval else difference.reason
        if difference.interval:
            # Adding 0 turns -0 into 0.
            low, high = sorted(sign * bound + 0.0 for bound in (difference.interval.low, difference.interval.high))
            bounds = (low, high)
    baseline_values, student_values = ([each[metric] for each in learner.by_seed] for learner in (baseline, student))
    gains = tuple(
        _subtract_oriented(value, baseline_value, sign)
        for baseline_value, value in zip(baseline_values, student_values, strict=True)
    )
    # The mean of the gains would not be 0 where gains cancel each other up to rounding.
    mean = _subtract_oriented(float(np.mean(student_values)), float(np.mean(baseline_values)), sign)
    gap = 0.0
    if metric in teacher.metrics:
        gap = _subtract_oriented(teacher.metrics[metric], baseline.metrics[metric], sign)
    return DistillationGain(metric, direction, mean, bounds, method, gains, mean / gap if gap > 0 else None)


def _subtract_oriented(value: float, baseline: float, sign: int) -> float:
    """Compute how much better a metric is than its baseline; 0, never -0, where they are equal up to rounding."""
    return sign * float(subtract_metrics(value, baseline)) + 0.0


def _select_metric(metrics: WeightedMetrics, metric: str) -> WeightedMetrics:
    shares = {name: rows for name, rows in metrics.shares.items() if name == metric}
    return WeightedMetrics(lambda weights: {metric: metrics.compute(weights)[metric]}, shares)


def compute_agreement_by_class(
    truth: np.ndarray, teacher: np.ndarray, student: np.ndarray, baseline: np.ndarray | None, classes: Sequence[str]
) -> tuple[ClassAgreement, ...]:
    """Compute the shares of rows for which student and baseline predict the teacher's class.

    The first entry is of all rows, the others are of the rows of each class.

    Args:
        truth: Class indices `(rows,)`.
        teacher, student, baseline: Probabilities `(rows, classes)`.
    """
    teacher_classes = teacher.argmax(axis=1)
    student_agrees = student.argmax(axis=1) == teacher_classes
    baseline_agrees = None if baseline is None else baseline.argmax(axis=1) == teacher_classes
    subsets = [("", np.ones(len(truth), bool)), *((name, truth == index) for index, name in enumerate(classes))]
    return tuple(
        ClassAgreement(
            name,
            int(rows.sum()),
            float(student_agrees[rows].mean()),
            None if baseline_agrees is None else float(baseline_agrees[rows].mean()),
        )
        for name, rows in subsets
        if rows.any()
    )


def compute_reliability(
    truth: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], answers: Mapping[str, Answers]
) -> dict[str, ReliabilityCurve]:
    """Compute the reliability curve of each output with probabilities."""
    measured = measure_calibrations(truth, predictions, answers)
    return {
        name: ReliabilityCurve(each.error, tuple((one.probability, one.frequency, one.count) for one in each.bins))
        for name, each in measured.items()
    }


def measure_calibrations(
    truth: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], answers: Mapping[str, Answers]
) -> dict[str, Calibration]:
    """Measure the calibration of each output with probabilities."""
    measured = {name: each.measure_calibration(truth[name], predictions[name]) for name, each in answers.items()}
    return {name: each for name, each in measured.items() if each is not None}
