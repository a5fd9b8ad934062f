"""Calibration of probabilities, and the temperature that improves it (temperature scaling)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.metrics.proportions import LEVEL, wilson_bounds
from bmcli.metrics.weighted_metrics import divide
from bmcli.quoting import quoted
from bmcli.records import validate_as

BINS = 15
SIMULATIONS = 200  # samples of labels that are drawn from the probabilities
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

_FLOOR = float(np.finfo(np.float32).eps)
_SMALLEST_FLOAT64 = 1e-300  # keeps the logarithm of a probability that underflowed finite


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of a reliability diagram.

    Args:
        low, high: Bounds of the predicted probability; low is exclusive, high is inclusive.
        count: Rows.
        probability: Their mean predicted probability.
        frequency: Observed frequency: the share of them for which the event occurred.
        frequency_low, frequency_high: Wilson's 95 % interval of that share.
    """

    low: float
    high: float
    count: int
    probability: float
    frequency: float
    frequency_low: float
    frequency_high: float


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities against observed frequencies.

    Args:
        event: The event whose probability is predicted: a class, `the predicted class`, or `all labels`.
        bins: Those that hold rows, from low to high: the reliability diagram.
        error: Expected calibration error: mean distance of probability and frequency, weighted by rows.
        max_error: Maximum calibration error: the largest of these distances.
        brier: Brier score.
        critical_value: 95 % quantile of `error` for a calibrated model on these rows; the plug-in estimate is above 0
            by chance alone.
        p_value: Probability that a calibrated model shows an error as large at this sample size.
    """

    event: str
    bins: tuple[CalibrationBin, ...]
    error: float
    max_error: float
    brier: float
    critical_value: float
    p_value: float

    @property
    def summary(self) -> str:
        """The result as a sentence."""
        text = f"expected calibration error {self.error:.3g} of the probability of {self.event}"
        if self.error <= self.critical_value:
            return f"{text}; a calibrated model would show up to {self.critical_value:.3g} at this sample size"
        signed_error = sum(each.count * (each.probability - each.frequency) for each in self.bins)
        direction = "too high" if signed_error > 0 else "too low"
        limit = f"the {self.critical_value:.3g} of a calibrated model at this sample size"
        return f"{text}, more than {limit}: probabilities are mostly {direction}"

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "bins": [vars(each) for each in self.bins]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        return validate_as(cls, values)


def measure_classes(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    positive: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Measure the calibration of the positive one of two classes, or of the predicted one of several (Guo et al. 2017).

    Args:
        truth: Class indices, `(n,)`.
        probabilities: `(n, classes)`.
        positive: Index of the positive one of two classes, by default the last.
        seed: Of the simulated samples of a calibrated model.
    """
    confidence, outcomes = get_confidence_and_outcome(truth, probabilities, positive)
    event = quoted(classes[1 if positive is None else positive]) if len(classes) == 2 else "the predicted class"
    return _make_calibration(event, confidence, outcomes, compute_brier_score(truth, probabilities), seed)


def measure_labels(truth: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> Calibration:
    """Measure the calibration of all labels of all rows together.

    Args:
        truth: 0 and 1, `(n, labels)`.
        probabilities: `(n, labels)`.
    """
    confidence, outcomes = probabilities.astype(np.float64).ravel(), truth.astype(bool).ravel()
    return _make_calibration("all labels", confidence, outcomes, float(((confidence - outcomes) ** 2).mean()), seed)


def compute_label_brier_scores(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the Brier score of each row: mean squared error of the probabilities of its labels, `(n,)`."""
    return np.asarray(((probabilities.astype(np.float64) - truth) ** 2).mean(axis=1))


def get_confidence_and_outcome(
    truth: np.ndarray, probabilities: np.ndarray, positive: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Get the predicted probability of each row's event, and whether it occurred, `(n,)` each.

    Args:
        positive: Index of the positive one of two classes, which is the event, by default the last. Of several classes
            the predicted one is the event.
    """
    if probabilities.shape[1] == 2:
        positive = 1 if positive is None else positive
        return probabilities[:, positive].astype(np.float64), truth == positive
    return probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == truth


def compute_brier_scores(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the Brier score of each row: squared error of its probabilities (Brier 1950), `(n,)`.

    As in scikit-learn, it is that of one class if there are two, at most 1, and of all classes otherwise, at most 2.
    """
    errors = probabilities.astype(np.float64)
    errors[np.arange(len(truth)), truth] -= 1
    squares = (errors**2).sum(axis=1)
    return np.asarray(squares / 2 if probabilities.shape[1] == 2 else squares)


def compute_brier_score(truth: np.ndarray, probabilities: np.ndarray) -> float:
    return float(compute_brier_scores(truth, probabilities).mean())


def compute_calibration_error(confidence: np.ndarray, outcomes: np.ndarray) -> float:
    """Compute the expected calibration error in 15 bins of equal width (Naeini, Cooper and Hauskrecht 2015)."""
    return float(_compute_errors(_assign_bins(confidence), confidence, outcomes[:, None])[0])


def make_weighted_gaps(confidence: np.ndarray, outcomes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function from weights `(rows, samples)` to the signed gap of each bin, `(15, samples)`.

    The absolute values of the gaps add up to the expected calibration error of the sample.

    Args:
        confidence, outcomes: `(rows,)`, or of several labels `(rows, labels)`.
    """
    from scipy.sparse import csr_array

    labels = confidence.size // len(confidence)
    rows = np.repeat(np.arange(len(confidence)), labels)
    errors = (confidence - outcomes).ravel()
    gaps = csr_array((errors, (_assign_bins(confidence).ravel(), rows)), shape=(BINS, len(confidence)))
    return lambda weights: divide(np.asarray(gaps @ weights), labels * weights.sum(axis=0))


def _make_calibration(event: str, confidence: np.ndarray, outcomes: np.ndarray, brier: float, seed: int) -> Calibration:
    bin_indices = _assign_bins(confidence)
    bins = tuple(
        _make_bin(int(index), confidence[bin_indices == index], outcomes[bin_indices == index])
        for index in np.unique(bin_indices)
    )
    error, simulated_errors = (
        compute_calibration_error(confidence, outcomes),
        _simulate_errors(bin_indices, confidence, seed),
    )
    return Calibration(
        event=event,
        bins=bins,
        error=error,
        max_error=max(abs(each.probability - each.frequency) for each in bins),
        brier=brier,
        critical_value=float(np.quantile(simulated_errors, LEVEL)),
        # The observed sample counts as one of the simulated ones, so the p-value is never 0.
        p_value=float((1 + (simulated_errors >= error).sum()) / (1 + len(simulated_errors))),
    )


def _make_bin(index: int, confidence: np.ndarray, outcomes: np.ndarray) -> CalibrationBin:
    low, high = wilson_bounds(int(outcomes.sum()), len(outcomes))
    return CalibrationBin(
        low=index / BINS,
        high=(index + 1) / BINS,
        count=len(confidence),
        probability=float(confidence.mean()),
        frequency=float(outcomes.mean()),
        frequency_low=low,
        frequency_high=high,
    )


def _assign_bins(confidence: np.ndarray) -> np.ndarray:
    # Bins include their upper bound only; a probability of 0 belongs to the first bin.
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _compute_errors(bin_indices: np.ndarray, confidence: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Compute the expected calibration error of each column of outcomes `(n, samples)`, `(samples,)`."""
    is_in_bin = bin_indices == np.arange(BINS)[:, None]
    gaps = np.abs((is_in_bin * confidence).sum(axis=1)[:, None] - is_in_bin.astype(np.float64) @ outcomes)
    return np.asarray(gaps.sum(axis=0) / len(confidence))


def _simulate_errors(bin_indices: np.ndarray, confidence: np.ndarray, seed: int) -> np.ndarray:
    """Simulate errors of a calibrated model: outcomes are drawn from the probabilities (Vaicenavicius et al. 2019)."""
    generator = np.random.default_rng([0xCA11B, seed])
    errors = [
        _compute_errors(bin_indices, confidence, (generator.random(len(confidence)) < confidence)[:, None])[0]
        for _ in range(SIMULATIONS)
    ]
    return np.array(errors)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray, independent: bool = False) -> float:
    """Find the temperature with the lowest log loss (Guo et al. 2017, section 4.2), from 0.05 to 20.

    Args:
        truth: Class indices `(n,)`, or 0 and 1 `(n, labels)` where labels are independent.
        probabilities: `(n, classes or labels)`, of rows the network was not trained on.
    """
    from scipy.optimize import minimize_scalar

    def compute_loss(log_temperature: float) -> float:
        return compute_log_loss(
            truth, rescale_probabilities(probabilities, float(np.exp(log_temperature)), independent), independent
        )

    # Over the logarithm, in which dividing and multiplying logits by the same factor are equally far from 1.
    result = minimize_scalar(
        compute_loss,
        bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    # A bounded search never tries the temperature of the network as it is.
    return float(np.exp(result.x)) if result.fun < compute_loss(0.0) else 1.0


def compute_log_loss(truth: np.ndarray, probabilities: np.ndarray, independent: bool = False) -> float:
    """Compute the mean negative log-likelihood, in nats; arguments as for `fit_temperature`."""
    probabilities_64 = probabilities.astype(np.float64)
    true_probabilities = (
        np.where(truth == 1, probabilities_64, 1 - probabilities_64)
        if independent
        else probabilities_64[np.arange(len(truth)), truth]
    )
    return float(-np.log(np.maximum(true_probabilities, _SMALLEST_FLOAT64)).mean())


def rescale_probabilities(probabilities: np.ndarray, temperature: float, independent: bool = False) -> np.ndarray:
    """Divide the logits behind some probabilities by a temperature; above 1 makes them less extreme, below 1 more.

    The logarithm of a probability is its logit up to a constant, which the softmax removes, so the probabilities are
    sufficient and the logits need not be kept. A probability below float32's epsilon counts as epsilon.

    Args:
        probabilities: `(n, classes)`, or `(n, labels)` where labels are `independent`.
    """
    clipped = np.clip(probabilities.astype(np.float64), _FLOOR, 1 - _FLOOR if independent else 1.0)
    if independent:
        return np.asarray(1 / (1 + ((1 - clipped) / clipped) ** (1 / temperature)))
        # Relative to the largest, since all powers would underflow to 0 at a low temperature.
    powers = (clipped / clipped.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
