"""Answers of masked language models: how probable the hidden tokens of a text are, given all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bmcli import tokens
from bmcli.answers import AnswerTable, Baseline, ExampleTitles, ServedAnswer
from bmcli.answers.figures import AnswerFigure, Table
from bmcli.answers.language import LOG_2, TokenAnswers, compute_log_shares
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.info import ERROR, SHARE, MetricInfo
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide
from bmcli.token_ids import FIRST_TOKEN

_METRICS = {
    "bits_per_token": ERROR,
    "perplexity": MetricInfo("min", 1.0),
    "token_accuracy": SHARE,
}
_RANKS = (10, 100, 1000)  # of tokens by their frequency, at which the parts of a figure end


@dataclass(frozen=True)
class MaskedLanguageAnswers(TokenAnswers):
    """Hidden tokens.

    Predictions are, for each token, its log-probability if it is hidden, 0 otherwise, and the id of the text in which
    the most probable tokens are filled in, `(rows, steps, 2)`.
    """

    def count_tokens(self, truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        return np.asarray(find_hidden(predictions).sum(axis=1))

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Sum the bits of the hidden tokens of each text, `(rows,)`."""
        return np.asarray(-predictions[:, :, 0].sum(axis=1, dtype="float64") / LOG_2)

    # Evaluation

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return _METRICS

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        """Make the bits and the accuracy of all hidden tokens together, and the perplexity of one."""
        hidden = find_hidden(predictions)
        right = (hidden & (predictions[:, :, 1] == truth)).sum(axis=1)
        sums = np.stack([self.predict_points(predictions), right, hidden.sum(axis=1)])

        def compute(weights: np.ndarray) -> MetricSamples:
            bits, hits, count = sums @ weights
            by_token = divide(bits, count)
            return dict(zip(_METRICS, (by_token, np.exp2(by_token), divide(hits, count)), strict=True))

        return WeightedMetrics(compute, undefined=dict.fromkeys(_METRICS, "no token is hidden."), info=_METRICS)

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        """Measure the share of each token, whatever stands around it."""
        is_token = truth >= FIRST_TOKEN
        logs = compute_log_shares(truth[is_token], self.tokenizer.inner_size)
        predictions = np.stack([np.where(is_token, logs[truth], 0.0), np.full(truth.shape, logs.argmax())], axis=-1)
        metrics = self.make_weighted_metrics(truth, predictions, top_k).measure(len(truth))[0]
        return Baseline("the share of each token, whatever stands around it", metrics, "bits_per_token")

    # Reports and prediction

    @property
    def example_titles(self) -> ExampleTitles:
        return ExampleTitles("Least expected", "Texts with the most bits per hidden token.", "Most expected")

    def list_figures(
        self, truth: np.ndarray, predictions: np.ndarray, calibration: Calibration | None
    ) -> Sequence[AnswerFigure]:
        """List the accuracy by the frequency of the hidden token in these texts."""
        counts = np.bincount(truth[truth >= FIRST_TOKEN], minlength=self.tokenizer.inner_size)
        ranks = np.empty_like(counts)
        ranks[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
        hidden = find_hidden(predictions)
        rank, right = ranks[truth[hidden]], (predictions[:, :, 1] == truth)[hidden]
        bits, rows, low = -predictions[:, :, 0][hidden] / LOG_2, [], 1
        for high in (*_RANKS, len(counts)):
            part = (rank >= low) & (rank <= high)
            if part.any():
                accuracy, mean = float(right[part].mean()), float(bits[part].mean())
                rows.append((f"{low:,} to {high:,}", float(part.sum()), accuracy, mean))
            low = high + 1
        head = ("rank of the token by frequency", "hidden tokens", "accuracy", "bits")
        return (Table("Accuracy by the frequency of the token", head, tuple(rows)),)

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        """Make the text in which the most probable tokens are filled in, and the bits per hidden token."""
        import pyarrow as pa

        count = np.maximum(find_hidden(predictions).sum(axis=1), 1)
        filled = [self.tokenizer.decode(ids) for ids in predictions[:, :, 1].astype("int32")]
        bits = self.predict_points(predictions) / count
        return AnswerTable(
            {f"{self.name}_filled": pa.array(filled, pa.string()), f"{self.name}_bits_per_token": pa.array(bits)}
        )

    def name_score(self, index: int) -> str:
        return f"log-probability of the hidden tokens of {self.output.inputs[0]}"

    # Export

    def check_output(self) -> None:
        tokens.from_state(self.target.state)
        if self.output.shape != (*self.target.shape, 2) or self.output.names or self.output.state:
            raise ValueError(f"the output {self.name!r} is not two numbers for each token")

    def list_served(self) -> tuple[ServedAnswer, ...]:
        return (ServedAnswer(self.served_prediction, "_filled_tokens", self.output.shape, "float32"),)

    @property
    def served_prediction(self) -> str:
        return "filled_tokens"

    def describe_decision(self) -> str:
        return (
            "for each token the natural logarithm of its probability if it was hidden, 0 otherwise, and the id of the "
            "text in which the most probable tokens are filled in"
        )

    def describe_agreement(self, tolerance: float) -> str:
        return f"the same filled tokens, with log-probabilities within {tolerance:g}"

    def measure_differences(self, expected: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Measure the absolute differences of the log-probabilities, `(rows, steps)`."""
        return np.abs(np.asarray(expected, np.float64) - predicted)[:, :, 0]

    def agree(
        self, expected: np.ndarray, predicted: np.ndarray, differences: np.ndarray, tolerance: float
    ) -> np.ndarray:
        is_same = (expected[:, :, 1] == predicted[:, :, 1]).all(axis=1)
        return np.asarray(is_same & (differences <= tolerance).all(axis=1))


def find_hidden(predictions: np.ndarray) -> np.ndarray:
    """Find the places at which a token was hidden, bool `(rows, steps)`."""
    return np.asarray(predictions[:, :, 0] != 0)
