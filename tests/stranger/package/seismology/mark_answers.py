"""Answers that are a mark for each reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.answers import Answers, AnswerTable, ExampleScores, Quality, RowValues, ServedAnswer, TruthDistribution
from bmcli.answers.figures import AnswerFigure, Table
from bmcli.metrics.info import ERROR, SHARE, MetricInfo
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide
from seismology.marks import PADDING

_METRICS = {"mark_accuracy": SHARE, "row_accuracy": SHARE, "log_loss": ERROR}


@dataclass(frozen=True)
class MarkAnswers(Answers):
    """A mark for each reading; predictions are probabilities `(rows, steps, marks + 1)`, the last one of no reading."""

    @property
    def marks(self) -> tuple[str, ...]:
        return self.output.names[:-1]

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Predict the most probable mark of each step, `(rows, steps)`; -1 is no mark."""
        found = predictions.argmax(axis=-1)
        return np.where(found == len(self.marks), PADDING, found)

    def format_value(self, value: np.ndarray) -> str:
        return " ".join(self.marks[index] for index in value if index != PADDING)

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return _METRICS

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        """Make the shares of right marks and of rows of right marks, and the mean loss of a mark."""
        is_mark, is_right = truth != PADDING, self.predict_points(predictions) == truth
        is_right_row = is_right.all(axis=1)
        sums = np.stack([
            (is_right & is_mark).sum(axis=1), self._compute_losses(truth, predictions), is_mark.sum(axis=1)
        ]).astype("float64")  # fmt: skip

        def compute(weights: np.ndarray) -> MetricSamples:
            right, losses, marks = sums @ weights
            rows = divide(is_right_row.astype("float64") @ weights, weights.sum(axis=0))
            return {"mark_accuracy": divide(right, marks), "row_accuracy": rows, "log_loss": divide(losses, marks)}

        return WeightedMetrics(compute, shares={"row_accuracy": is_right_row}, info=_METRICS)

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        return RowValues("row_accuracy", (self.predict_points(predictions) == truth).all(axis=1), SHARE)

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        return RowValues("log loss", self._compute_losses(truth, predictions))

    def _compute_losses(self, truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Compute the sum over the marks of each row of minus the log-probability, `(rows,)`."""
        chosen = np.take_along_axis(predictions.astype("float64"), np.maximum(truth, 0)[..., None], axis=-1)[..., 0]
        return np.where(truth == PADDING, 0.0, -np.log(np.maximum(chosen, 1e-7))).sum(axis=1)

    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score by the loss, and by the least probability of an answer."""
        is_right = self.compute_row_metric(truth, predictions).values
        return ExampleScores(self._compute_losses(truth, predictions), -self.compute_confidence(predictions), is_right)

    def compute_confidence(self, predictions: np.ndarray) -> np.ndarray:
        return np.asarray(predictions.max(axis=-1).min(axis=1))

    def get_distribution(self, truth: np.ndarray) -> TruthDistribution:
        return TruthDistribution(self.marks, np.bincount(truth[truth != PADDING], minlength=len(self.marks)))

    def list_figures(self, truth: np.ndarray, predictions: np.ndarray, calibration: Any) -> Sequence[AnswerFigure]:
        is_right = self.predict_points(predictions) == truth
        rows = tuple(
            (mark, float((truth == index).sum()), float(is_right[truth == index].mean()))
            for index, mark in enumerate(self.marks)
            if (truth == index).any()
        )
        return (Table("Marks", ("mark", "readings", "accuracy"), rows),)

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        import pyarrow as pa

        confidence = pa.array(self.compute_confidence(predictions))
        marks = self.make_truth_column(self.predict_points(predictions))
        return AnswerTable({self.name: marks, f"{self.name}_confidence": confidence})

    def make_truth_column(self, truth: np.ndarray) -> Any:
        import pyarrow as pa

        return pa.array([self.format_value(row) for row in truth], pa.string())

    def choose_scores(self, predictions: np.ndarray) -> np.ndarray:
        return np.zeros(len(predictions), "int32")

    def name_score(self, index: int) -> str:
        return f"log-probability of {self.name}"

    def check_output(self) -> None:
        if self.output.shape != (*self.target.shape, len(self.output.names)) or self.output.state:
            raise ValueError(f"the output {self.name!r} does not have a probability for each mark")

    def list_served(self) -> tuple[ServedAnswer, ...]:
        return (
            ServedAnswer("decision", "", (), "string"),
            ServedAnswer("probabilities", "_probabilities", self.output.shape, "float32"),
        )

    @property
    def served_prediction(self) -> str:
        return "probabilities"

    def describe_decision(self) -> str:
        return "the most probable mark of each reading"

    def name_decisions(self, predictions: np.ndarray) -> np.ndarray:
        texts = [self.format_value(row).encode() for row in self.predict_points(predictions)]
        return np.array(texts, object)

    def describe_agreement(self, tolerance: float) -> str:
        return "the same marks"

    def agree(
        self, expected: np.ndarray, predicted: np.ndarray, differences: np.ndarray, tolerance: float
    ) -> np.ndarray:
        return np.asarray((self.predict_points(expected) == self.predict_points(predicted)).all(axis=1))

    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> Quality:
        return Quality("row_accuracy", float((self.predict_points(predictions) == truth).all(axis=1).mean()))
