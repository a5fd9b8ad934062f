"""Figures of predictions as plain values, which reports draw: a closed vocabulary for all kinds of answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmcli.metrics.calibration import Calibration


@dataclass(frozen=True)
class Curve:
    """One curve.

    Args:
        name, note: For the legend, such as a class and the area under its curve.
        x, y: Of its points, `(points,)`.
        level: Height of a dotted horizontal line for reference; None without one.
    """

    name: str
    note: str
    x: np.ndarray
    y: np.ndarray
    level: float | None = None


@dataclass(frozen=True)
class Curves:
    """Curves over shares from 0 to 1, such as ROC curves.

    Args:
        legend: Title of the legend.
        has_steps: Whether the curves are constant between points.
        has_diagonal: Whether a dashed diagonal is drawn for reference.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    legend: str = ""
    has_steps: bool = False
    has_diagonal: bool = False


@dataclass(frozen=True)
class Frequencies:
    """Observed shares against predicted ones with intervals, from 0 to 1, such as a reliability diagram.

    Args:
        predicted, observed, low, high, counts: `(points,)`; larger counts have larger points.
    """

    title: str
    x_label: str
    y_label: str
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Scatter:
    """Points of two numbers of one unit, with their diagonal.

    Args:
        x, y: `(points,)`.
    """

    title: str
    x_label: str
    y_label: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Histogram:
    """Distribution of numbers around 0, without the lowest and the highest percent.

    Args:
        values: `(rows,)`.
    """

    title: str
    x_label: str
    values: np.ndarray


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers.

    Args:
        head: Of the columns.
        rows: Cells in the order of the columns; numbers are aligned to the right.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


def make_reliability_diagram(calibration: Calibration) -> Frequencies:
    """Make the figure of predicted probabilities against observed frequencies."""
    columns = ("probability", "frequency", "frequency_low", "frequency_high", "count")
    return Frequencies(
        "Calibration",
        f"predicted probability of {calibration.event}",
        "observed frequency",
        *(np.array([getattr(each, name) for each in calibration.bins]) for name in columns),
    )


AnswerFigure = Curves | Frequencies | Scatter | Histogram | Table
