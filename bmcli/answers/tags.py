"""Answers that are a tag for each word of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from bmcli.answers.figures import AnswerFigure, Table
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.info import ERROR, SHARE, MetricInfo
from bmcli.metrics.spans import SpanTags, read_span_tags
from bmcli.metrics.weighted_metrics import (
    MetricSamples,
    WeightedMetrics,
    compute_nanmean,
    divide,
    join_metrics,
)
from bmcli.normalization import split_words
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, to_texts

if TYPE_CHECKING:
    import pyarrow as pa

_TOKEN_METRICS = {"token_accuracy": SHARE, "macro_f1": SHARE, "log_loss": ERROR}
_SPAN_METRICS = {"span_f1": SHARE, "span_precision": SHARE, "span_recall": SHARE}
_FLOOR = 1e-7  # of a probability before its logarithm
_NO_WORD = -1
_SHORT = 5  # words of the shortest texts in the table of lengths


@dataclass(frozen=True)
class TagAnswers(Answers):
    """A tag for each word; predictions are probabilities `(rows, steps, tags + 1)`, the last one that of no word.

    The truth is indices of tags, -1 for no word, `(rows, steps)`. Words beyond the last step are not measured.
    """

    @property
    def tags(self) -> tuple[str, ...]:
        return self.output.names[:-1]

    @cached_property
    def span_tags(self) -> SpanTags | None:
        """How the tags mark spans; None if they do not."""
        return read_span_tags(self.tags)

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Predict the most probable tag of each step, `(rows, steps)`; -1 is no word."""
        found = predictions.argmax(axis=-1)
        return np.where(found == len(self.tags), _NO_WORD, found)

    def format_value(self, value: np.ndarray) -> str:
        """Format the tags of a row, separated by blanks."""
        return " ".join(self.tags[index] for index in value if index != _NO_WORD)

    # Evaluation

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return _TOKEN_METRICS if self.span_tags is None else {**_TOKEN_METRICS, **_SPAN_METRICS}

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        """Make the metrics of words, and those of whole spans if the tags mark spans."""
        points = self.predict_points(predictions)
        words = self._make_word_metrics(truth, points, self._compute_losses(truth, predictions))
        if self.span_tags is None:
            return words
        return join_metrics(words, _make_span_metrics(self.span_tags, truth, points))

    def _make_word_metrics(self, truth: np.ndarray, points: np.ndarray, losses: np.ndarray) -> WeightedMetrics:
        is_word, count = truth != _NO_WORD, len(self.tags)
        sums = np.stack([(is_word & (points == truth)).sum(axis=1), losses, is_word.sum(axis=1)]).astype("float64")
        rows, _ = np.nonzero(is_word)
        true, found = truth[is_word], points[is_word]
        count_true, count_found, count_right = (
            _make_row_counts(rows[chosen], codes[chosen], count)
            for codes, chosen in ((true, true >= 0), (found, found >= 0), (true, true == found))
        )

        def compute(weights: np.ndarray) -> MetricSamples:
            right, loss, words = sums @ weights
            total = count_true(weights) + count_found(weights)
            f1 = compute_nanmean(list(divide(2 * count_right(weights), total)))
            return {"token_accuracy": divide(right, words), "macro_f1": f1, "log_loss": divide(loss, words)}

        return WeightedMetrics(compute, info=_TOKEN_METRICS)

    def _compute_losses(self, truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Compute the sum over the words of each row of minus the log-probability of the true tag, `(rows,)`."""
        chosen = np.take_along_axis(predictions, np.maximum(truth, 0)[..., None], axis=-1)[..., 0].astype("float64")
        return np.asarray(np.where(truth == _NO_WORD, 0.0, -np.log(np.maximum(chosen, _FLOOR))).sum(axis=1))

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute the share of the words of each row whose tag is right."""
        is_word = truth != _NO_WORD
        right = ((self.predict_points(predictions) == truth) & is_word).sum(axis=1)
        return RowValues("mean_row_accuracy", right / np.maximum(is_word.sum(axis=1), 1), SHARE)

    def compute_row_losses(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        words = np.maximum((truth != _NO_WORD).sum(axis=1), 1)
        return RowValues("log loss", self._compute_losses(truth, predictions) / words)

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        """Measure the most frequent tag for every word."""
        best = int(self._count_tags(truth).argmax())
        prediction = np.tile(np.eye(len(self.output.names), dtype="float32")[best], (truth.shape[1], 1))
        metrics = self.measure_constant(prediction, truth, top_k)
        metrics.pop("log_loss", None)  # the loss of a certain constant is that of its floor alone.
        return Baseline(f"always {quoted(self.tags[best])}, the most frequent tag", metrics, "token_accuracy")

    def _count_tags(self, truth: np.ndarray) -> np.ndarray:
        return np.bincount(truth[truth != _NO_WORD], minlength=len(self.tags))

    # Examples and reports

    def score_rows(self, truth: np.ndarray, predictions: np.ndarray) -> ExampleScores:
        """Score by the mean loss of a word, and by the least probability of a predicted tag."""
        is_right = (self.predict_points(predictions) == truth).all(axis=1)
        losses = self.compute_row_losses(truth, predictions).values
        return ExampleScores(losses, -self.compute_confidence(predictions), is_right)

    @property
    def example_titles(self) -> ExampleTitles:
        return ExampleTitles("Most wrong", "Texts with the highest mean loss of a word.", "Most confident correct")

    def compute_confidence(self, predictions: np.ndarray) -> np.ndarray:
        """Compute the least probability of a predicted tag in each row, `(rows,)`."""
        return np.asarray(predictions.max(axis=-1).min(axis=1))

    def get_distribution(self, truth: np.ndarray) -> TruthDistribution:
        return TruthDistribution(self.tags, self._count_tags(truth))

    def list_figures(
        self, truth: np.ndarray, predictions: np.ndarray, calibration: Calibration | None
    ) -> Sequence[AnswerFigure]:
        points = self.predict_points(predictions)
        tables = [self._tabulate_tags(truth, points), _tabulate_lengths(truth, points)]
        return tables if self.span_tags is None else [*tables, _tabulate_spans(self.span_tags, truth, points)]

    def _tabulate_tags(self, truth: np.ndarray, points: np.ndarray) -> Table:
        """Tabulate the errors of each tag, the most errors first, with the tag that is predicted instead."""
        rows: list[tuple[str | float, ...]] = []
        for index, tag in enumerate(self.tags):
            found = points[truth == index]
            wrong = np.bincount(found[(found != index) & (found >= 0)], minlength=len(self.tags))
            if len(found):
                instead = f"{self.tags[int(wrong.argmax())]} ({int(wrong.max())})" if wrong.any() else ""
                rows.append((tag, float(len(found)), float((found != index).sum()), instead))
        rows.sort(key=lambda row: -float(row[2]))
        return Table("Errors by tag", ("tag", "words", "errors", "most often predicted instead"), tuple(rows))

    # Prediction

    def restrict(self, predictions: np.ndarray, cells: Mapping[str, RawColumn]) -> np.ndarray:
        """Predict no word for texts without one, which the network reads as a text of an unknown word."""
        has_none = self._count_words(cells) == 0
        nothing = np.eye(predictions.shape[-1], dtype=predictions.dtype)[-1]
        return np.where(has_none[:, None, None], nothing, predictions)

    def count_unanswered(self, cells: Mapping[str, RawColumn]) -> int:
        return int((self._count_words(cells) > self.target.shape[0]).sum())

    def _count_words(self, cells: Mapping[str, RawColumn]) -> np.ndarray:
        """Count the words of each text, `(rows,)`."""
        _, text = self.target.state["columns"]
        return np.array([len(split_words(each)) for each in to_texts(cells[text]).to_pylist()], "int64")

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        """Make a column of the tags, separated by blanks, and one of the least probability of a tag."""
        import pyarrow as pa

        tags = self.make_truth_column(self.predict_points(predictions))
        confidence = pa.array(self.compute_confidence(predictions))
        return AnswerTable({self.name: tags, f"{self.name}_confidence": confidence})

    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        import pyarrow as pa

        return pa.array([self.format_value(row) for row in truth], pa.string())

    def name_score(self, index: int) -> str:
        return f"log-probability of {self.name}"

    # Export

    def check_output(self) -> None:
        tags = self.target.state.get("tags")
        shape = (*self.target.shape, len(self.output.names))
        if (
            not isinstance(tags, list)
            or not all(isinstance(tag, str) and tag for tag in tags)
            or len(set(tags)) != len(tags)
            or self.output.names != (*tags, "")
            or self.output.shape != shape
            or self.output.state
        ):
            raise ValueError(f"the output {self.name!r} does not have a probability for each tag")

    def list_served(self) -> tuple[ServedAnswer, ...]:
        return (
            ServedAnswer("decision", "", (), "string"),
            ServedAnswer("probabilities", "_probabilities", self.output.shape, "float32"),
        )

    @property
    def served_prediction(self) -> ServedRole:
        return "probabilities"

    def describe_decision(self) -> str:
        return "the most probable tag of each word; the last name, which is empty, is that of steps without a word"

    def write_answer(self, prediction: str, names: str) -> str:
        return f'" ".join({names}[tag] for tag in {prediction}.argmax(-1)).strip()'

    def name_decisions(self, predictions: np.ndarray) -> np.ndarray:
        texts = [self.format_value(row).encode() for row in self.predict_points(predictions)]
        decisions = np.empty(len(texts), object)
        decisions[:] = texts
        return decisions

    @property
    def difference_unit(self) -> str:
        return "in a probability"

    def describe_agreement(self, tolerance: float) -> str:
        return "the same tags"

    def agree(
        self, expected: np.ndarray, predicted: np.ndarray, differences: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Whether rows have the same tags, but for ties within the tolerance."""
        best = np.take_along_axis(expected, predicted.argmax(axis=-1)[..., None], axis=-1)[..., 0]
        return np.asarray((expected.max(axis=-1) - best <= tolerance).all(axis=1))

    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> Quality | None:
        is_word = truth != _NO_WORD
        right = (self.predict_points(predictions) == truth)[is_word]
        return Quality("token_accuracy", float(right.mean())) if is_word.any() else None


def _make_row_counts(rows: np.ndarray, codes: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function from weights of rows to the total weight of each code, `(count, samples)`.

    Args:
        rows: The row of each item, such as a word.
        codes: Integers from 0 to `count - 1`, one for each item.
    """
    from scipy.sparse import coo_array

    items, places = np.ones(len(rows)), (codes, rows)
    return lambda weights: np.asarray(coo_array((items, places), shape=(count, len(weights))).tocsr() @ weights)


def _make_span_metrics(span_tags: SpanTags, truth: np.ndarray, points: np.ndarray) -> WeightedMetrics:
    """Make precision, recall and F1 of whole spans: right are those with both borders and the type, as in conlleval."""
    right, found, true = (np.stack(each) for each in zip(*_count_spans(span_tags, truth, points), strict=True))
    sums = np.stack([right.sum(axis=0), found.sum(axis=0), true.sum(axis=0)]).astype("float64")

    def compute(weights: np.ndarray) -> MetricSamples:
        hits, predicted, existing = sums @ weights
        return {
            "span_f1": divide(2 * hits, predicted + existing),
            "span_precision": divide(hits, predicted),
            "span_recall": divide(hits, existing),
        }

    undefined = {
        "span_f1": "there are no spans, and none is predicted.",
        "span_precision": "no span is predicted.",
        "span_recall": "there are no spans.",
    }
    return WeightedMetrics(compute, undefined=undefined, info=_SPAN_METRICS)


def _count_spans(
    span_tags: SpanTags, truth: np.ndarray, points: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Count the right, the predicted and the true spans of each type in each row, `(rows,)` each."""
    # A tag that is predicted where there is no word is no answer.
    points = np.where(truth == _NO_WORD, _NO_WORD, points)
    true_rows, true_types, true_numbers = span_tags.find_spans(truth)
    rows, types, numbers = span_tags.find_spans(points)
    is_right = np.isin(numbers, true_numbers)

    def count(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(chosen, minlength=len(truth))

    return [
        (count(rows[is_right & (types == kind)]), count(rows[types == kind]), count(true_rows[true_types == kind]))
        for kind in range(len(span_tags.types))
    ]


def _tabulate_spans(span_tags: SpanTags, truth: np.ndarray, points: np.ndarray) -> Table:
    rows = []
    for kind, counts in zip(span_tags.types, _count_spans(span_tags, truth, points), strict=True):
        right, found, true = (float(each.sum()) for each in counts)
        if found + true:
            rows.append((kind, true, found, right, 2 * right / (found + true)))
    head = ("type", "spans", "predicted", "right", "F1")
    return Table(f"Whole spans of {span_tags.scheme} tags by type", head, tuple(rows))


def _tabulate_lengths(truth: np.ndarray, points: np.ndarray) -> Table:
    """Tabulate the accuracy of the words of texts of 1 to 5 words, 6 to 10, and so on, twice as many each time."""
    lengths, right = (truth != _NO_WORD).sum(axis=1), ((points == truth) & (truth != _NO_WORD)).sum(axis=1)
    rows: list[tuple[str | float, ...]] = []
    first, last = 1, _SHORT
    while first <= truth.shape[1]:
        chosen = (lengths >= first) & (lengths <= last)
        if words := int(lengths[chosen].sum()):
            rows.append((f"{first} to {last}", float(chosen.sum()), float(words), float(right[chosen].sum()) / words))
        first, last = last + 1, 2 * last
    return Table("Accuracy by length", ("words", "texts", "words in all", "accuracy"), tuple(rows))
