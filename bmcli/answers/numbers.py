"""Answers that are numbers: a number, a count, or quantiles of a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bmcli.answers import (
    Answers,
    AnswerTable,
    Baseline,
    ExampleScores,
    ExampleTitles,
    Quality,
    RowValues,
    ServedAnswer,
    ServedRole,
    TruthDistribution,
)
from bmcli.answers.figures import AnswerFigure, Histogram, Scatter
from bmcli.metrics import count, quantile, regression
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.info import ERROR, MetricInfo
from bmcli.metrics.levels import find_median_index
from bmcli.metrics.weighted_metrics import WeightedMetrics, join_metrics
from bmcli.number_texts import write_values

if TYPE_CHECKING:
    import pyarrow as pa


class NumericAnswers(Answers, ABC):
    """What answers with a number for each row have in common."""

    @abstractmethod
    def compute_widths(self, predictions: np.ndarray) -> np.ndarray | None:
        """Compute the width of a predicted interval, `(rows,)`; None without one."""

    def format_value(self, value: np.ndarray) -> str:
        return write_values(self.name, [float(value)])[0]

    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score by the absolute error, and by the width between the outer quantiles."""
        errors = np.abs(self.predict_points(predictions) - truth)
        return ExampleScores(errors, self.compute_widths(predictions), errors <= np.median(errors))

    @property
    def example_titles(self) -> ExampleTitles:
        return ExampleTitles("Largest errors", "The largest absolute errors.", "Smallest errors")

    def measure_correctness(self, truth: np.ndarray, predictions: np.ndarray) -> float:
        return -float(np.abs(truth - self.predict_points(predictions)).mean())

    def get_distribution(self, truth: np.ndarray) -> TruthDistribution:
        return TruthDistribution((), truth)

    def list_figures(
        self, truth: np.ndarray, predictions: np.ndarray, calibration: Calibration | None
    ) -> Sequence[AnswerFigure]:
        points = self.predict_points(predictions)
        return (
            Scatter("Predicted against true", f"true {self.name}", "predicted", truth, points),
            Histogram("Errors", f"predicted minus true {self.name}", points - truth),
        )

    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        import pyarrow as pa

        return pa.array(truth)

    def choose_scores(self, predictions: np.ndarray) -> np.ndarray:
        return np.zeros(len(predictions), "int32")

    def name_score(self, index: int) -> str:
        return self.name

    def describe_decision(self) -> str:
        return "the number, in the unit of the target"

    @property
    def difference_unit(self) -> str:
        return "interquartile ranges"

    def describe_agreement(self, tolerance: float) -> str:
        return (
            f"a number within {tolerance:g} of the interquartile range of the model's predictions, or of its distance "
            "from their median where that is larger"
        )

    def measure_differences(self, expected: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Measure differences in interquartile ranges of the reference.

        Outliers do not stretch that range, so that it is what a person sees as the difference of two usual rows. Of a
        row beyond it the distance from the median counts: there a share of the number is what matters.
        """
        expected, reference = np.asarray(expected, np.float64), np.asarray(reference, np.float64)
        low, middle, high = np.quantile(reference, (0.25, 0.5, 0.75), axis=0)
        # Of predictions that are mostly equal the deviation counts, and of equal ones the number itself.
        ranges = np.where(high > low, high - low, reference.std(axis=0))
        ranges = np.where(ranges > 0, ranges, np.where(middle == 0, 1.0, np.abs(middle)))
        units = np.maximum(ranges, np.abs(expected - middle))
        return np.asarray((np.abs(expected - predicted) / units).reshape(len(expected), -1))

    def compute_model_r2(self, expected: np.ndarray, predicted: np.ndarray) -> float | None:
        spread = np.square(expected - expected.mean(axis=0, dtype=np.float64)).sum()
        if not spread > 0 or not np.isfinite(predicted).all():
            return None
        return float(1 - np.square(expected.astype(np.float64) - predicted).sum() / spread)

    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> Quality | None:
        if len(truth) < 2 or np.ptp(truth) == 0 or not np.isfinite(predictions).all():
            return None
        return Quality("r2", float(1 - np.square(truth - self.predict_points(predictions)).mean() / truth.var()))


@dataclass(frozen=True)
class NumberAnswers(NumericAnswers):
    """A number in the unit of the target, `(rows,)`."""

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        return predictions

    def compute_widths(self, predictions: np.ndarray) -> np.ndarray | None:
        return None

    @property
    def baseline_metric(self) -> str:
        """The metric for which the mean is the best prediction."""
        return "rmse"

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        mean = truth.mean(dtype=np.float64)
        name = f"always {self.format_value(mean)}, the mean"
        return Baseline(name, self.measure_constant(mean, truth, top_k), self.baseline_metric)

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return {**self.means, **regression.METRICS}

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        usual = regression.make_weighted_metrics(np.asarray(truth), np.asarray(predictions))
        return join_metrics(self.make_weighted_means(truth, predictions), usual) if self.means else usual

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        if self.means:
            return super().compute_row_metric(truth, predictions)
        return RowValues("mae", np.abs(truth - predictions.astype(np.float64)), ERROR)

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute absolute errors, whose means have the unit of the target."""
        return RowValues("absolute error", np.abs(truth - predictions.astype(np.float64)), ERROR)

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        return AnswerTable({self.name: self.make_truth_column(predictions)})

    def list_served(self) -> tuple[ServedAnswer, ...]:
        return (ServedAnswer("number", "", (), "float32"),)

    @property
    def served_prediction(self) -> ServedRole:
        return "number"

    def write_answer(self, prediction: str, names: str) -> str:
        return f"float({prediction})"


@dataclass(frozen=True)
class CountAnswers(NumberAnswers):
    """The rate of a count, `(rows,)`."""

    @property
    def baseline_metric(self) -> str:
        return "poisson_deviance"

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return count.METRICS

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        return count.make_weighted_metrics(np.asarray(truth), np.asarray(predictions))

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        return RowValues("Poisson deviance", count.compute_deviances(truth, predictions))


@dataclass(frozen=True)
class QuantileAnswers(NumericAnswers):
    """Quantiles in the unit of the target, `(rows, quantiles)`, in increasing order. State: `quantiles`."""

    @property
    def quantiles(self) -> tuple[float, ...]:
        return tuple(self.output.state["quantiles"])

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Predict the quantile nearest to the median."""
        return predictions[:, find_median_index(self.quantiles)]

    def compute_widths(self, predictions: np.ndarray) -> np.ndarray | None:
        return predictions[:, -1] - predictions[:, 0] if len(self.quantiles) > 1 else None

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        levels = np.quantile(truth, self.quantiles)
        name = f"always {', '.join(map(self.format_value, levels))}, the quantiles of the rows"
        return Baseline(name, self.measure_constant(levels, truth, top_k), "pinball")

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return quantile.list_metrics(self.quantiles)

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        return quantile.make_weighted_metrics(np.asarray(truth), np.asarray(predictions), self.quantiles)

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        losses = quantile.compute_pinball_losses(truth, predictions, self.quantiles).mean(axis=1)
        return RowValues("pinball", losses, ERROR)

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        return RowValues("pinball loss", self.compute_row_metric(truth, predictions).values)

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        """Make a column of the middle quantile, and one of each quantile, such as `price_quantile_0.9`."""
        levels = {
            f"{self.name}_quantile_{level:g}": self.make_truth_column(predictions[:, index])
            for index, level in enumerate(self.quantiles)
        }
        return AnswerTable({self.name: self.make_truth_column(self.predict_points(predictions)), **levels})

    def check_output(self) -> None:
        levels = self.output.state.get("quantiles")
        if (
            not isinstance(levels, (list, tuple))
            or not all(isinstance(each, float) and 0 < each < 1 for each in levels)
            or self.output.shape != (len(levels),)
            or not levels
            or self.target.classes
        ):
            raise ValueError(f"the output {self.name!r} has no quantiles between 0 and 1, one for each number")

    def list_served(self) -> tuple[ServedAnswer, ...]:
        return (
            ServedAnswer("number", "", (), "float32"),
            ServedAnswer("quantiles", "_quantiles", (len(self.quantiles),), "float32"),
        )

    @property
    def served_prediction(self) -> ServedRole:
        return "quantiles"

    def write_answer(self, prediction: str, names: str) -> str:
        return f"dict(zip({list(self.quantiles)!r}, {prediction}.tolist()))"
