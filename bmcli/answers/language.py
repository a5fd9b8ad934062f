"""Answers of language models: how probable each token of a text is, given those before it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bmcli import tokens
from bmcli.answers import (
    Answers,
    AnswerTable,
    Baseline,
    ExampleTitles,
    Quality,
    RowValues,
    ServedAnswer,
    Writing,
)
from bmcli.answers.figures import AnswerFigure, Table
from bmcli.errors import RunFailed
from bmcli.metrics.calibration import Calibration
from bmcli.metrics.info import ERROR, MetricInfo
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide
from bmcli.number_texts import write_number
from bmcli.token_ids import PADDING, UNKNOWN
from bmcli.tokenization.base import Tokenizer
from bmcli.windows import EncodedTarget

_METRICS = {
    "bits_per_character": ERROR,
    "bits_per_byte": ERROR,
    "bits_per_token": ERROR,
    "perplexity": MetricInfo("min", 1.0),
}
LOG_2 = float(np.log(2))


@dataclass(frozen=True)
class TokenAnswers(Answers):
    """How probable tokens of a text are.

    The truth is the ids of all tokens, `(rows, steps)`; predictions hold the natural logarithm of the probability of
    each that is predicted. A row is summarised by its bits per token.
    """

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokens of the text."""
        return tokens.from_state(self.target.state)

    @abstractmethod
    def count_tokens(self, truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Count the tokens of each text that are predicted, `(rows,)`."""

    def decode(self, encoded: EncodedTarget) -> np.ndarray:
        assert isinstance(encoded, Mapping), "a language model learns from inputs"
        return np.asarray(encoded[self.output.inputs[0]])

    def check(self, truth: np.ndarray, predictions: np.ndarray) -> None:
        rows, expected = len(truth), (len(truth), *self.output.shape)
        if truth.shape != (rows, *self.target.shape) or predictions.shape != expected:
            raise ValueError(f"expected predictions {expected}, received {predictions.shape} for {truth.shape}")
        if not np.isfinite(predictions).all():
            raise RunFailed(
                f"'{self.name}': some log-probabilities are not finite.",
                suggestion="The training diverged: lower its learning_rate, or limit gradients with clipnorm.",
            )

    def format_value(self, value: np.ndarray) -> str:
        """Format a text, or the bits of one."""
        return f"{write_number(float(value))} bits" if np.ndim(value) == 0 else self.tokenizer.decode(np.asarray(value))

    def compute_row_metric(self, truth: np.ndarray, predictions: np.ndarray) -> RowValues:
        """Compute the bits per predicted token of each text."""
        bits, count = self.predict_points(predictions), np.maximum(self.count_tokens(truth, predictions), 1)
        return RowValues("bits_per_token", bits / count, ERROR)

    def compute_quality(self, truth: np.ndarray, predictions: np.ndarray) -> Quality | None:
        count = int(self.count_tokens(truth, predictions).sum())
        if not count:
            return None
        return Quality("negative bits_per_token", -float(self.predict_points(predictions).sum()) / count)


@dataclass(frozen=True)
class LanguageAnswers(TokenAnswers):
    """Log-probabilities of the tokens of texts.

    Predictions are those of each token but the first, `(rows, steps - 1)`, 0 for padding.
    """

    def count_tokens(self, truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        return np.asarray((truth[:, 1:] != PADDING).sum(axis=1))

    def predict_points(self, predictions: np.ndarray) -> np.ndarray:
        """Sum the bits of each text, `(rows,)`."""
        return np.asarray(-predictions.sum(axis=1, dtype="float64") / LOG_2)

    # Evaluation

    def list_metrics(self, top_k: int) -> Mapping[str, MetricInfo]:
        return _METRICS

    def make_weighted_metrics(self, truth: np.ndarray, predictions: np.ndarray, top_k: int) -> WeightedMetrics:
        """Make the bits per character, byte and token of all texts together, and the perplexity of a token."""
        sizes = np.array(self._count_text(truth), "float64").reshape(-1, 2).T

        def compute(weights: np.ndarray) -> MetricSamples:
            bits, characters, length, count = sums @ weights
            by_token = divide(bits, count)
            values = (divide(bits, characters), divide(bits, length), by_token, np.exp2(by_token))
            return dict(zip(_METRICS, values, strict=True))

        undefined = dict.fromkeys(_METRICS, "there is no text.")
        if self._has_unknown_words(truth):
            sizes[:] = np.nan
            reason = "some words are unknown to the model, and with them their characters."
            undefined |= dict.fromkeys(("bits_per_character", "bits_per_byte"), reason)
        sums = np.stack([self.predict_points(predictions), *sizes, self.count_tokens(truth, predictions)])
        return WeightedMetrics(compute, undefined=undefined, info=_METRICS)

    def _has_unknown_words(self, truth: np.ndarray) -> bool:
        """Whether some tokens stand for several characters that nothing is known of."""
        return bool(self.tokenizer.separator) and bool((truth == UNKNOWN).any())

    def _count_text(self, truth: np.ndarray) -> list[tuple[int, int]]:
        """Count the characters of each text, and its bytes in UTF-8."""
        texts = [self.tokenizer.decode(row) for row in truth]
        return [(len(text), len(text.encode())) for text in texts]

    def measure_baseline(self, truth: np.ndarray, top_k: int) -> Baseline:
        """Measure the share of each token, whatever came before it."""
        following = truth[:, 1:]
        is_token = following != PADDING
        logs = compute_log_shares(following[is_token], self.tokenizer.size)
        predictions = np.where(is_token, logs[following], 0.0)
        metrics = self.make_weighted_metrics(truth, predictions, top_k).measure(len(truth))[0]
        return Baseline("the share of each token, whatever comes before it", metrics, "bits_per_token")

    # Reports and prediction

    @property
    def example_titles(self) -> ExampleTitles:
        return ExampleTitles("Least expected", "Texts with the most bits per token.", "Most expected")

    def list_figures(
        self, truth: np.ndarray, predictions: np.ndarray, calibration: Calibration | None
    ) -> Sequence[AnswerFigure]:
        is_token = truth[:, 1:] != PADDING
        rows = []
        first, width = 0, 1
        while first < predictions.shape[1]:
            part = slice(first, first + width)
            if count := int(is_token[:, part].sum()):
                bits = float(-predictions[:, part].sum(dtype="float64") / LOG_2) / count
                last = min(first + width, predictions.shape[1])
                rows.append((f"{first + 1} to {last}" if width > 1 else f"{first + 1}", float(count), bits))
            first, width = first + width, max(1, first + width)
        return (Table("Bits per token by its place in the text", ("place", "tokens", "bits"), tuple(rows)),)

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        import pyarrow as pa

        count = np.maximum((predictions != 0).sum(axis=1), 1)
        bits = self.predict_points(predictions)
        return AnswerTable({f"{self.name}_bits": pa.array(bits), f"{self.name}_bits_per_token": pa.array(bits / count)})

    @property
    def writing(self) -> Writing:
        return Writing(self.output.inputs[0], self.tokenizer)

    def name_score(self, index: int) -> str:
        return f"log-probability of {self.output.inputs[0]}"

    # Export

    def check_output(self) -> None:
        tokens.from_state(self.target.state)
        if self.output.shape != (self.target.shape[0] - 1,) or self.output.names or self.output.state:
            raise ValueError(f"the output {self.name!r} is not a number for each token but the first")

    def list_served(self) -> tuple[ServedAnswer, ...]:
        return (ServedAnswer(self.served_prediction, "_log_probabilities", self.output.shape, "float32"),)

    @property
    def served_prediction(self) -> str:
        return "log_probabilities"

    def describe_decision(self) -> str:
        return "the natural logarithm of the probability of each token but the first, 0 after the end"


def compute_log_shares(ids: np.ndarray, size: int) -> np.ndarray:
    """Compute the logarithm of the share of each of `size` tokens among some, `(size,)`."""
    counts = np.bincount(ids, minlength=size)
    return np.asarray(np.log(np.maximum(counts, 1) / max(1, counts.sum())))
