"""Answers: what the predictions of an output mean outside of the network, in NumPy.

An objective makes the answers of its output. Evaluation, prediction, explanation, export and reports use them, and
never depend on the kind of a target. `Answers` has a default for everything that not every objective has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bmcli.answers.decisions import CalibratedOutput
from bmcli.answers.figures import AnswerFigure
from bmcli.data import targets as target_kinds
from bmcli.errors import RunFailed
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.classification import ClassMetrics, ConfusionMatrix
from bmcli.metrics.info import UNKNOWN, MetricInfo
from bmcli.metrics.weighted_metrics import WeightedMetrics
from bmcli.specs import Column, OutputSpec
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import pyarrow as pa


class RowValues(NamedTuple):
    """A number for each row.

    Args:
        name: Of a metric or a loss.
        values: `(rows,)`; bool for a share of the rows.
        info: Direction and bounds of their mean.
    """

    name: str
    values: np.ndarray
    info: MetricInfo = UNKNOWN


class ExampleScores(NamedTuple):
    """How wrong and how uncertain predictions are, for the selection of examples.

    Args:
        errors: `(rows,)`, larger for worse predictions.
        uncertainties: `(rows,)`, larger for less confident ones; None without a confidence.
        is_correct: bool `(rows,)`.
    """

    errors: np.ndarray
    uncertainties: np.ndarray | None
    is_correct: np.ndarray


class ExampleTitles(NamedTuple):
    """Titles of the lists of wrong and of correct examples, and how the errors are ordered, as a sentence."""

    wrong: str
    order: str
    correct: str


class TruthDistribution(NamedTuple):
    """Distribution of a target.

    Args:
        names: Of classes or labels; empty for numbers.
        values: Number of rows of each name, or the numbers themselves, `(rows,)`.
    """

    names: tuple[str, ...]
    values: np.ndarray


class Baseline(NamedTuple):
    """The best prediction that is the same for every row, by which a person sees what a model has learned.

    Args:
        prediction: As in `always 'ham', the most frequent class`.
        metrics: By name, of those that `list_metrics` lists; undefined ones are left out.
        metric: The one of them for which the prediction is best; models are compared by it.
    """

    prediction: str
    metrics: Mapping[str, float]
    metric: str


class AnswerTable(NamedTuple):
    """Answers as a table that a person reads.

    Args:
        columns: By name, all of the same length. The type of a column is the same for any predictions, also for none.
        rows: Index of the predicted row of each line, `(lines,)` in increasing order: a row may have several lines, or
            none; None for one line for each row.
    """

    columns: Mapping[str, pa.Array]
    rows: np.ndarray | None = None


ServedRole = str
"""Meaning of a tensor of an exported model: `decision`, `classes`, `probabilities`, `number`, `quantiles`, or another
word of an objective."""


class ServedAnswer(NamedTuple):
    """A tensor of an exported model for one output.

    Args:
        role: Its meaning.
        suffix: Of its name, after that of the output.
        shape: Without the batch axis.
        dtype: `string`, or a NumPy dtype.
    """

    role: ServedRole
    suffix: str
    shape: tuple[int | None, ...]
    dtype: str


def fits_shape(values: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    """Whether an array has a shape, in which None is any size."""
    sizes = values.shape
    return len(sizes) == len(shape) and all(
        expected in (None, size) for expected, size in zip(shape, sizes, strict=True)
    )


@dataclass(frozen=True)
class Answers(ABC):
    """The answers of one output.

    Throughout, `truth` is decoded, and `predictions` are what the objective predicts, `(rows, *output.shape)`.

    Args:
        target: The column of the truth.
    """

    output: OutputSpec
    target: Column

    @property
    def name(self) -> str:
        """Name of the output."""
        return self.output.name

    def decode(self, encoded: EncodedRows) -> np.ndarray:
        """Decode encoded targets to the truth, in the unit of the target."""
        return target_kinds.kind_of(self.target).decode(np.asarray(encoded), self.target)

    def check(self, truth: np.ndarray, predictions: np.ndarray) -> None:
        """Require arrays of the right shape and range.

        Raises:
            RunFailed: A prediction is not finite.
            ValueError: A shape or a range is wrong.
        """
        target_shape, expected = ((len(truth), *each) for each in (self.target.shape, self.output.shape))
        if truth.shape != target_shape or not fits_shape(predictions, expected):
            raise ValueError(
                f"Target {self.name!r}: expected targets {target_shape} and predictions {expected}, "
                f"received {truth.shape} and {predictions.shape}"
            )
        finite = np.isfinite(predictions).reshape(len(predictions), -1).all(axis=1)
        if not finite.all():
            raise RunFailed(
                f"target '{self.name}': {np.sum(~finite)} of {len(finite)} predictions are not finite.",
                suggestion="The training diverged: lower its learning_rate, or limit gradients with clipnorm.",
            )

    @abstractmethod
    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Reduce predictions to one answer for each row, in the form of the truth."""

    @abstractmethod
    def format_value(self, value: np.ndarray) -> str:
        """Format one truth, or one point prediction, for a person."""

    # Evaluation

    @abstractmethod
    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        """List the metrics by name, in the order of display; the first is the headline."""

    @abstractmethod
    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        """Make the metrics as functions of the weights of rows, with the names of `list_metrics`."""

    @abstractmethod
    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute the terms of a metric that is a mean over rows, by which slices are compared."""

    @abstractmethod
    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute the loss of each row, for permutation importance."""

    def measure_correctness(self, truth: np.ndarray, predictions: np.ndarray) -> float:
        """Compute one number that is higher for better predictions, for permutation importance."""
        _, values, info = self.compute_row_metric(truth, predictions)
        return float(values.mean()) * (-1 if info.direction == "min" else 1)

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline | None:
        """Measure the best prediction that is the same for every row; None for answers that have none."""
        return None

    def measure_constant(self, prediction: np.ndarray, truth: np.ndarray, top_k: int) -> dict[str, float]:
        """Compute the metrics of one prediction, `output.shape`, for all rows; undefined ones are left out."""
        predictions = np.broadcast_to(prediction, (len(truth), *np.shape(prediction)))
        return self.make_weighted_metrics(truth, predictions, top_k).measure(len(truth))[0]

    def compute_class_metrics(self, truth: np.ndarray, predictions: np.ndarray) -> tuple[ClassMetrics, ...]:
        """Compute the metrics of each class or label; empty for answers without any."""
        return ()

    def count_confusions(self, truth: np.ndarray, predictions: np.ndarray) -> ConfusionMatrix | None:
        """Count the rows of each pair of classes; None unless each row has one class."""
        return None

    def measure_calibration(self, truth: np.ndarray, predictions: np.ndarray) -> Calibration | None:
        """Compare predicted probabilities with observed frequencies; None for answers without probabilities."""
        return None

    @property
    def has_one_class(self) -> bool:
        """Whether each row has one of the classes `output.names`, so that its rate can be compared between groups."""
        return False

    def select_class(self, predictions: np.ndarray, index: int) -> np.ndarray:
        """Whether each row is predicted to be of a class, bool `(rows,)`; only of answers with one class."""
        return np.asarray(self.predict_points(predictions) == index)

    # Examples and reports

    @abstractmethod
    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score rows for the selection of examples."""

    @property
    def example_titles(self) -> ExampleTitles:
        """Titles of the lists of examples."""
        return ExampleTitles(
            "Most wrong", "Errors with the lowest probability of the true class.", "Most confident correct"
        )

    def compute_confidence(self, predictions: np.ndarray) -> np.ndarray | None:
        """Compute the probability of each answer, `(rows,)`; None for answers without probabilities."""
        return None

    def get_distribution(self, truth: np.ndarray) -> TruthDistribution | None:
        """Get the distribution of the truth, for a figure; None if it has no useful one."""
        return None

    def list_figures(
        self, truth: np.ndarray, predictions: np.ndarray, calibration: Calibration | None
    ) -> Sequence[AnswerFigure]:
        """List the figures of a report.

        Args:
            calibration: Result of `measure_calibration`.
        """
        return ()

    # Prediction

    @abstractmethod
    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        """Make the columns that `predict` writes."""

    @abstractmethod
    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        """Make the column of the truth as a person reads it."""

    # Explanation

    @abstractmethod
    def choose_scores(self, predictions: np.ndarray) -> np.ndarray:
        """Choose the score of each row to explain, int32 `(rows,)`; `TargetObjective.explain` computes it."""

    def name_score(self, index: int) -> str:
        """Name a score."""
        return self.output.names[index] if self.output.names else self.name

    # Export

    def check_output(self) -> None:
        """Require an output that `describe` and `calibrate` can make; that of an artefact may come from anywhere.

        Raises:
            ValueError: A field has another value.
        """
        if self.output.names or self.output.state or self.target.classes:
            raise ValueError(f"classes or a state do not fit the output {self.name!r} of {self.output.objective}")

    @abstractmethod
    def list_served(self) -> tuple[ServedAnswer, ...]:
        """List the tensors of an exported model, those of texts included."""

    @property
    @abstractmethod
    def served_prediction(self) -> ServedRole:
        """Role of the tensor that holds the predictions."""

    @abstractmethod
    def describe_decision(self) -> str:
        """Describe for a card how the answer follows from the predictions, as part of a sentence."""

    def name_decisions(self, predictions: np.ndarray) -> np.ndarray | None:
        """Make the decisions of an exported model, bytes in an object array `(rows,)`; None without names."""
        return None

    def get_scale(self, predictions: np.ndarray) -> float:
        """Get the scale in which differences of predictions are measured: 1 for probabilities."""
        return 1.0

    @abstractmethod
    def agree(
        self, expected: np.ndarray, predicted: np.ndarray, differences: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Whether two sets of predictions have the same answer, bool `(rows,)`.

        Args:
            differences: Absolute differences in units of `get_scale`, `(rows, numbers)`.
            tolerance: Largest difference of equal numbers.
        """

    @abstractmethod
    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues | None:
        """Compute a metric that is higher for better predictions, to compare an artefact with its model.

        Returns:
            Its name and the value `()`; None where it is undefined.
        """

    # Decisions after training

    def pool(self, outputs: Sequence[tuple[OutputSpec, int]]) -> Answers:
        """Make the answers of rows that several networks predicted, such as those of the folds of a cross-validation.

        Args:
            outputs: The output of each network, and its number of rows, in the order of the rows.
        """
        return self

    def calibrate(self, options: Any, truth: np.ndarray | None, predictions: np.ndarray | None) -> CalibratedOutput:
        """Decide values that predictions depend on; called only if the objective's options have such values.

        Args:
            options: Of the objective.
            truth, predictions: Of the validation rows; None if nothing is chosen on them.
        """
        raise NotImplementedError(f"{self.output.objective} decides nothing after training")
