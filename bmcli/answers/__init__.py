"""Answers: what the predictions of an output mean outside of the network, in NumPy.

An objective makes the answers of its output. Evaluation, prediction, explanation, export and reports use them, and
never depend on the kind of a target. `Answers` has a default for everything that not every objective has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from bmcli.answers.decisions import CalibratedOutput
from bmcli.answers.figures import AnswerFigure
from bmcli.data import targets as target_kinds
from bmcli.errors import RunFailed
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.classification import ClassMetrics, ConfusionMatrix
from bmcli.metrics.info import UNKNOWN, MetricInfo
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.number_texts import write_number
from bmcli.raw_columns import RawColumn
from bmcli.specs import Column, OutputSpec, Split
from bmcli.windows import EncodedTarget

if TYPE_CHECKING:
    import pyarrow as pa

    from bmcli.tokenization.base import Tokenizer


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


class Quality(NamedTuple):
    """A metric of some predictions that is higher for better ones."""

    name: str
    value: float


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


class Writing(NamedTuple):
    """How a model writes texts.

    Args:
        input: The input that it reads, and continues.
        tokenizer: Of its tokens.
    """

    input: str
    tokenizer: Tokenizer


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
class Answers:
    """The answers of one output.

    Throughout, `truth` is decoded, and `predictions` are what the objective predicts, `(rows, *output.shape)`.

    The defaults suit predictions that are numbers in the form of the truth, with metrics that are means over the rows;
    the first of these, from `compute_terms`, then also orders examples and compares slices and artefacts.

    Args:
        target: The column of the truth.
    """

    output: OutputSpec
    target: Column

    means: ClassVar[Mapping[str, MetricInfo]] = {}
    """Metrics that are means of `compute_terms`, the headline first."""
    state_names: ClassVar[tuple[str, ...]] = ()
    """Names of the values in the state of the output."""

    @property
    def name(self) -> str:
        """Name of the output."""
        return self.output.name

    def read_truth(self, split: Split, rows: np.ndarray | None = None) -> np.ndarray:
        """Read the truth of a split, or of the rows at some positions of it, in the unit of the target."""
        return self.decode(split.read_target(self.output, rows))

    def decode(self, encoded: EncodedTarget) -> np.ndarray:
        """Decode encoded targets, or the inputs by name that stand for them, to the truth in the unit of the target.

        By default by the kind of the target.
        """
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

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Reduce predictions to one answer for each row, in the form of the truth; by default as they are."""
        return predictions

    def format_value(self, value: np.ndarray) -> str:
        """Format one truth, or one point prediction, for a person; by default its numbers."""
        return ", ".join(write_number(float(number)) for number in np.ravel(value))

    # Evaluation

    def compute_terms(self, truth: np.ndarray, predictions: np.ndarray) -> Mapping[str, np.ndarray]:
        """Compute the terms of the metrics `means`, each `(rows,)`; bool for a share of the rows."""
        raise NotImplementedError(f"{type(self).__name__} has no means")

    def make_weighted_means(self, truth: np.ndarray, predictions: np.ndarray) -> WeightedMetrics:
        """Make the metrics `means` as functions of the weights of rows."""
        terms = self.compute_terms(truth, predictions)
        shares = {name: values for name, values in terms.items() if values.dtype == bool}
        return WeightedMetrics(make_weighted_means(terms), shares, info=self.means)

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        """List the metrics by name, in the order of display; the first is the headline."""
        return self.means

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        """Make the metrics as functions of the weights of rows, with the names of `list_metrics`."""
        return self.make_weighted_means(truth, predictions)

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute the terms of a metric that is a mean over rows, by which slices are compared."""
        name, info = next(iter(self.means.items()))
        return RowValues(name, self.compute_terms(truth, predictions)[name], info)

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute the loss of each row, for permutation importance."""
        name, values, info = self.compute_row_metric(truth, predictions)
        return RowValues(name, values) if info.direction == "min" else RowValues(f"1 - {name}", 1.0 - values)

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

    @property
    def positive(self) -> int | None:
        """Index of the positive one of two classes, of which precision and recall speak; None without such a class."""
        return None

    def align_positive(self, output: OutputSpec) -> Answers:
        """Make answers with the same decisions whose positive class is that of another output with the same classes.

        By default the same answers, for outputs without such a class.
        """
        return self

    def select_class(self, predictions: np.ndarray, index: int) -> np.ndarray:
        """Whether each row is predicted to be of a class, bool `(rows,)`; only of answers with one class."""
        return np.asarray(self.predict_points(predictions) == index)

    # Examples and reports

    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score rows for the selection of examples; by default the half with the smaller losses is correct."""
        losses = self.compute_row_losses(truth, predictions).values
        return ExampleScores(losses, None, losses <= np.median(losses))

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

    def restrict(self, predictions: np.ndarray, cells: Mapping[str, RawColumn]) -> np.ndarray:
        """Remove predictions for parts that the cells do not have, such as words; by default none are removed.

        Args:
            cells: Of the inputs, by column.
        """
        return predictions

    def count_unanswered(self, cells: Mapping[str, RawColumn]) -> int:
        """Count the rows of which a part is behind what the network reads, and gets no answer; by default none."""
        return 0

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        """Make the columns that `predict` writes; by default one of the points."""
        return AnswerTable({self.name: self.make_truth_column(self.predict_points(predictions))})

    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        """Make the column of the truth as a person reads it; by default of texts."""
        import pyarrow as pa

        return pa.array([self.format_value(value) for value in truth], pa.string())

    @property
    def writing(self) -> Writing | None:
        """How the model writes texts, for `bmcli generate`; None if it writes none."""
        return None

    # Explanation

    def choose_scores(self, predictions: np.ndarray) -> np.ndarray:
        """Choose the score of each row to explain, int32 `(rows,)`; `TargetObjective.explain` computes it."""
        return np.zeros(len(predictions), "int32")

    def name_score(self, index: int) -> str:
        """Name a score."""
        return self.output.names[index] if self.output.names else self.name

    # Export

    def check_output(self) -> None:
        """Require an output that `describe` and `calibrate` can make; that of an artefact may come from anywhere.

        Raises:
            ValueError: A field has another value.
        """
        if self.output.names or set(self.output.state) != set(self.state_names) or self.target.classes:
            raise ValueError(f"classes or a state do not fit the output {self.name!r} of {self.output.objective}")

    def list_served(self) -> tuple[ServedAnswer, ...]:
        """List the tensors of an exported model, those of texts included; by default the predictions alone."""
        return (ServedAnswer(self.served_prediction, "", self.output.shape, "float32"),)

    @property
    def served_prediction(self) -> ServedRole:
        """Role of the tensor that holds the predictions."""
        return "prediction"

    def describe_decision(self) -> str:
        """Describe for a card how the answer follows from the predictions, as part of a sentence."""
        return "the prediction"

    def write_answer(self, prediction: str, names: str) -> str:
        """Write the answer of `describe_decision` as a Python expression, for the example of a card.

        Args:
            prediction: Expression of the prediction of one row, a NumPy array.
            names: Expression of the list of the names of the output.
        """
        return f"{prediction}.tolist()"

    def name_decisions(self, predictions: np.ndarray) -> np.ndarray | None:
        """Make the decisions of an exported model, bytes in an object array `(rows,)`; None without names."""
        return None

    @property
    def difference_unit(self) -> str:
        """Unit of `measure_differences`, as in `the largest difference is 0.01 ...`."""
        return "in a prediction"

    def measure_differences(self, expected: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Measure the absolute differences of two sets of predictions, `(rows, numbers)`, in a unit for people.

        Args:
            reference: Predictions of many rows, by which numbers are scaled; probabilities need no scale.
        """
        differences = np.abs(np.asarray(expected, np.float64) - predicted)
        return np.asarray(differences.reshape(len(differences), -1))

    def describe_agreement(self, tolerance: float) -> str:
        """Describe which predictions `agree`, as part of a sentence."""
        return f"the same prediction within {tolerance:g}"

    def agree(
        self, expected: np.ndarray, predicted: np.ndarray, differences: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Whether two sets of predictions have the same answer, bool `(rows,)`.

        Args:
            differences: Result of `measure_differences`.
            tolerance: Largest difference of equal numbers.
        """
        return np.asarray((differences <= tolerance).all(axis=1))

    def compute_model_r2(self, expected: np.ndarray, predicted: np.ndarray) -> float | None:
        """Compute R2 of an artefact's numbers with those of its model as truth; None for answers without numbers."""
        return None

    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> Quality | None:
        """Compute a metric that is higher for better predictions, to compare an artefact with its model.

        None where it is undefined.
        """
        name, values, info = self.compute_row_metric(truth, predictions)
        mean = float(values.mean())
        return Quality(f"negative {name}", -mean) if info.direction == "min" else Quality(name, mean)

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
