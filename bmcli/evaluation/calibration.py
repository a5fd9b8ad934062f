"""Whether probabilities mean what they say, and the temperature that makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation.proportions import LEVEL, wilson_bounds
from bmcli.evaluation.weighted_metrics import divide
from bmcli.quoting import quoted
from bmcli.records import validate_as
from bmcli.specs import Column

BINS = 15
SIMULATIONS = 200  # times that labels are drawn from the probabilities
COLDEST, HOTTEST = 0.05, 20.0

_FLOOR = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of nearly one probability.

    Args:
        low, high: Borders of the probability; low is left out, high is in.
        count: Rows.
        probability: Their mean probability.
        frequency: Share of them for which it came true.
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
    """How probabilities compare with what came true.

    Args:
        of: What the probabilities are of: a class, `the predicted class`, or `all labels`.
        bins: Those that hold rows, from low to high: the reliability diagram.
        error: Expected calibration error: mean distance of probability and frequency, weighted by rows.
        worst: The largest of these distances.
        brier: Brier score.
        by_chance: What `error` stays below in 95 % of samples of these rows if the probabilities are right; a
            plug-in estimate is above 0 by chance alone.
        p_value: Probability that a calibrated model shows an error as large at this sample size.
    """

    of: str
    bins: tuple[CalibrationBin, ...]
    error: float
    worst: float
    brier: float
    by_chance: float
    p_value: float

    @property
    def summary(self) -> str:
        """The finding as a sentence."""
        finding = f"expected calibration error {self.error:.3g} of the probability of {self.of}"
        if self.error <= self.by_chance:
            return f"{finding}; a calibrated model would show up to {self.by_chance:.3g} at this sample size"
        gap = sum(each.count * (each.probability - each.frequency) for each in self.bins)
        way = "too high" if gap > 0 else "too low"
        limit = f"the {self.by_chance:.3g} of a calibrated model at this sample size"
        return f"{finding}, more than {limit}: probabilities are mostly {way}"

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "bins": [vars(each) for each in self.bins]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        return validate_as(cls, values)


def measure_targets(
    truth: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], targets: tuple[Column, ...]
) -> dict[str, Calibration]:
    """Calibration of every target that has classes without an order, or labels."""
    found = {}
    for column in targets:
        name = column.name
        if column.kind == "category":
            found[name] = measure_classes(truth[name].astype(np.int64), predictions[name], column.classes)
        elif column.kind == "labels":
            found[name] = measure_labels(truth[name], predictions[name])
    return found


def measure_classes(
    truth: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], seed: int = 0
) -> Calibration:
    """Calibration of the last of two classes, or of the predicted one of several (Guo et al. 2017, section 2).

    Args:
        truth: Class indices, `(n,)`.
        probabilities: `(n, classes)`.
        seed: Of the samples that say what chance would show.
    """
    stated, came_true = get_confidence_and_outcome(truth, probabilities)
    of = quoted(classes[1]) if len(classes) == 2 else "the predicted class"
    return _calibration(of, stated, came_true, compute_brier_score(truth, probabilities), seed)


def measure_labels(truth: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> Calibration:
    """Calibration of all labels of all rows together.

    Args:
        truth: 0 and 1, `(n, labels)`.
        probabilities: `(n, labels)`.
    """
    stated, came_true = probabilities.astype(np.float64).ravel(), truth.astype(bool).ravel()
    return _calibration("all labels", stated, came_true, float(((stated - came_true) ** 2).mean()), seed)


def compute_label_brier_scores(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean squared distance of the probabilities of each row's labels from what is, `(n,)`."""
    return np.asarray(((probabilities.astype(np.float64) - truth) ** 2).mean(axis=1))


def get_confidence_and_outcome(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability that each row states, and whether it came true, `(n,)` each."""
    if probabilities.shape[1] == 2:
        return probabilities[:, 1].astype(np.float64), truth == 1
    return probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == truth


def compute_brier_scores(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared distance of each row's probabilities from what is (Brier 1950), `(n,)`.

    As in scikit-learn that of one class if there are two, at most 1, and of all otherwise, at most 2.
    """
    away = probabilities.astype(np.float64)
    away[np.arange(len(truth)), truth] -= 1
    squares = (away**2).sum(axis=1)
    return np.asarray(squares / 2 if probabilities.shape[1] == 2 else squares)


def compute_brier_score(truth: np.ndarray, probabilities: np.ndarray) -> float:
    return float(compute_brier_scores(truth, probabilities).mean())


def compute_calibration_error(confidence: np.ndarray, outcomes: np.ndarray) -> float:
    """Expected calibration error in 15 bins of equal width (Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017)."""
    return float(_errors(_assign_bins(confidence), confidence, outcomes[:, None])[0])


def make_weighted_gaps(confidence: np.ndarray, outcomes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights `(rows, samples)` to the gap of each bin, `(15, samples)`.

    Their absolute values add up to the expected calibration error of the sample.

    Args:
        confidence, outcomes: `(rows,)`, or of several labels `(rows, labels)`.
    """
    from scipy.sparse import csr_array

    each = confidence.size // len(confidence)
    rows = np.repeat(np.arange(len(confidence)), each)
    apart = (confidence - outcomes).ravel()
    gaps = csr_array((apart, (_assign_bins(confidence).ravel(), rows)), shape=(BINS, len(confidence)))
    return lambda weights: divide(np.asarray(gaps @ weights), each * weights.sum(axis=0))


def _calibration(of: str, confidence: np.ndarray, outcomes: np.ndarray, brier: float, seed: int) -> Calibration:
    places = _assign_bins(confidence)
    bins = tuple(
        _bin(int(place), confidence[places == place], outcomes[places == place]) for place in np.unique(places)
    )
    error, chance = compute_calibration_error(confidence, outcomes), _simulate_errors(places, confidence, seed)
    return Calibration(
        of=of,
        bins=bins,
        error=error,
        worst=max(abs(each.probability - each.frequency) for each in bins),
        brier=brier,
        by_chance=float(np.quantile(chance, LEVEL)),
        p_value=float((1 + (chance >= error).sum()) / (1 + len(chance))),
    )


def _bin(place: int, confidence: np.ndarray, outcomes: np.ndarray) -> CalibrationBin:
    low, high = wilson_bounds(int(outcomes.sum()), len(outcomes))
    return CalibrationBin(
        low=place / BINS,
        high=(place + 1) / BINS,
        count=len(confidence),
        probability=float(confidence.mean()),
        frequency=float(outcomes.mean()),
        frequency_low=low,
        frequency_high=high,
    )


def _assign_bins(confidence: np.ndarray) -> np.ndarray:
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _errors(places: np.ndarray, confidence: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Expected calibration error of each column of outcomes `(n, samples)`, `(samples,)`."""
    inside = places == np.arange(BINS)[:, None]
    gaps = np.abs((inside * confidence).sum(axis=1)[:, None] - inside.astype(np.float64) @ outcomes)
    return np.asarray(gaps.sum(axis=0) / len(confidence))


def _simulate_errors(places: np.ndarray, confidence: np.ndarray, seed: int) -> np.ndarray:
    """Errors of outcomes drawn from the probabilities themselves (Vaicenavicius et al. 2019, section 5)."""
    dice = np.random.default_rng([0xCA11B, seed])
    drawn = [
        _errors(places, confidence, (dice.random(len(confidence)) < confidence)[:, None])[0] for _ in range(SIMULATIONS)
    ]
    return np.array(drawn)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray, independent: bool = False) -> float:
    """The temperature with the lowest log loss (Guo et al. 2017, section 4.2), from 0.05 to 20.

    Args:
        truth: Class indices `(n,)`, or 0 and 1 `(n, labels)` where labels are independent.
        probabilities: `(n, classes or labels)`, of rows the network was not trained on.
    """
    from scipy.optimize import minimize_scalar

    def of(log_temperature: float) -> float:
        return compute_log_loss(
            truth, rescale_probabilities(probabilities, float(np.exp(log_temperature)), independent), independent
        )

    found = minimize_scalar(of, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-4})
    # A bounded search never tries the temperature of the network as it is.
    return float(np.exp(found.x)) if found.fun < of(0.0) else 1.0


def compute_log_loss(truth: np.ndarray, probabilities: np.ndarray, independent: bool = False) -> float:
    """Mean of `-log(probability of what is)`, in nats; arguments as of `fit_temperature`."""
    given = probabilities.astype(np.float64)
    own = np.where(truth == 1, given, 1 - given) if independent else given[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(own, 1e-300)).mean())


def rescale_probabilities(probabilities: np.ndarray, temperature: float, independent: bool = False) -> np.ndarray:
    """Probabilities of logits divided by a temperature; above 1 they move together, below 1 apart.

    The logarithm of a probability is its logit but for a constant that the softmax takes away, so that the
    probabilities tell all that is needed. One below float32's epsilon counts as that.

    Args:
        probabilities: `(n, classes)`, or those of `independent` labels.
    """
    given = np.clip(probabilities.astype(np.float64), _FLOOR, 1 - _FLOOR if independent else 1.0)
    if independent:
        return np.asarray(1 / (1 + ((1 - given) / given) ** (1 / temperature)))
    powers = (given / given.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
