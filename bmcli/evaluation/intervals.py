"""How sure a metric is: intervals from resampled rows, and paired differences of two models on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bmcli.evaluation.directions import get_direction
from bmcli.evaluation.proportions import LEVEL, Interval, wilson_bounds
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics
from bmcli.records import validate_as

RESAMPLES = 1000

_STREAM = 0x1B0075  # of the draws, so that they are those of no data made from the same seed
_AT_ONCE = 2**17  # weights that are handled together: they stay in the processor's cache
_BLOCKS = 200  # left out in turn for the acceleration
_HALVINGS = 20
_MAX_UNDEFINED = 0.05  # share of resamples that may leave a metric undefined
_UNBOUNDED_REASON = "its bounds are not finite on these rows."
_BIASED_REASON = "chance raises it by another amount in each model; compare brier or log_loss instead."


__all__ = [
    "Difference", "Interval", "ResampledMetrics", "Resampling", "compute_differences", "compute_intervals",
    "compute_mcnemar_p_value", "compute_wilson_interval", "resample_metrics",
]  # fmt: skip


@dataclass(frozen=True)
class Resampling:
    """How rows are drawn again.

    Args:
        resamples: How many samples are drawn, each as large as the data.
        level: Of the intervals.
        seed: Of the draws.
        groups: A whole number for each row, `(rows,)`: rows of one group belong together and are drawn together.
    """

    resamples: int = RESAMPLES
    level: float = LEVEL
    seed: int = 0
    groups: np.ndarray | None = None

    def of(self, places: np.ndarray) -> Resampling:
        """The same for some of the rows."""
        return self if self.groups is None else replace(self, groups=self.groups[places])

    def summary(self, bootstrap: str = "BCa") -> str:
        """What is drawn and how, as part of a sentence."""
        units = "rows" if self.groups is None else f"{len(np.unique(self.groups)):,} groups"
        return f"{bootstrap} bootstrap over {units}, {self.resamples:,} resamples"

    def has_same_draws(self, other: Resampling) -> bool:
        """Whether another draws the same samples from as many rows."""
        if (self.resamples, self.seed) != (other.resamples, other.seed):
            return False
        if self.groups is None or other.groups is None:
            return self.groups is other.groups
        return np.array_equal(self.groups, other.groups)


@dataclass(frozen=True)
class Difference:
    """A metric of two models on the same rows.

    Args:
        first, second: The metric of each.
        interval: Of `second - first`; None where no resample differs from the others.
        p_value: How often a difference as large would come up between equally good models.
        method: How the p-value was found.
        reason: Why there is no interval; empty if there is one.
    """

    metric: str
    first: float
    second: float
    interval: Interval | None
    p_value: float
    method: str
    reason: str = ""

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def better(self) -> str:
        """`first` or `second` where the interval shows that one is better, empty otherwise."""
        if self.interval is None or self.interval.low <= 0 <= self.interval.high or not get_direction(self.metric):
            return ""
        return "second" if (self.interval.low > 0) == (get_direction(self.metric) == "max") else "first"

    def summary(self, first: str = "the first", second: str = "the second") -> str:
        """The finding as a sentence.

        Args:
            first, second: What the models are called.
        """
        told = f"{self.metric}: {first} {self.first:.4g}, {second} {self.second:.4g}, difference {self.difference:+.4g}"
        if self.interval is None:
            return f"{told}; no interval, since {self.reason}"
        bounds = f"{self.interval.low:+.4g} to {self.interval.high:+.4g}"
        told += f" ({self.interval.percent} interval {bounds}, p {_format_p_value(self.p_value)}): "
        if self.better:
            return f"{told}{first if self.better == 'first' else second} is better."
        if not get_direction(self.metric) and not self.interval.low <= 0 <= self.interval.high:
            return f"{told}they differ."
        return f"{told}these rows do not show a difference."

    def to_json(self) -> dict[str, Any]:
        interval = self.interval and self.interval.to_json()
        return {**vars(self), "interval": interval, "difference": self.difference, "better": self.better}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Difference:
        return validate_as(cls, values)


@dataclass(frozen=True)
class ResampledMetrics:
    """Metrics of some rows and of samples of them.

    Args:
        distributions: Of each metric.
        shares, left_out: As in `WeightedMetrics`.
    """

    rows: int
    resampling: Resampling
    distributions: Mapping[str, _BootstrapDistribution]
    shares: Mapping[str, np.ndarray]
    left_out: Mapping[str, str]


def resample_metrics(figures: WeightedMetrics, rows: int, resampling: Resampling) -> ResampledMetrics:
    """Compute metrics on resamples of the rows.

    These follow from `rows` and `resampling` alone, so that those of two models are paired.

    Args:
        figures: The metrics as functions of the rows that are drawn.
        rows: How many there are.
    """
    return ResampledMetrics(
        rows, resampling, _resample_each(figures, rows, resampling), figures.shares, figures.left_out
    )


def compute_intervals(found: ResampledMetrics) -> tuple[dict[str, Interval], dict[str, str]]:
    """An interval for every metric, and for those that have none the reason.

    A share of the rows, such as the accuracy, has Wilson's score interval (Wilson 1927), unless rows belong together.
    Every other metric has that of the bias-corrected and accelerated bootstrap (BCa; Efron 1987), with levels
    expanded as a t interval is for few rows (Hesterberg 2015, section 5.3). One that chance makes larger, the
    calibration error, has that of the inverted bootstrap test (Carpenter 1999), stretched to hold the metric itself.
    """
    between: dict[str, Interval] = {}
    reasons = dict(found.left_out)
    for name, spread in found.distributions.items():
        if name in found.shares and found.resampling.groups is None:
            between[name] = compute_wilson_interval(int(found.shares[name].sum()), found.rows, found.resampling.level)
        elif bounds := spread.finite_bounds(found.resampling.level):
            between[name] = Interval(
                *bounds, found.resampling.level, found.resampling.summary("inverted" if spread.gaps else "BCa")
            )
        else:
            reasons[name] = spread.fault() or _UNBOUNDED_REASON
    return between, reasons


def compute_differences(first: ResampledMetrics, second: ResampledMetrics) -> dict[str, Difference]:
    """The difference of two models in every metric that is defined for both, on the same rows.

    Both models were measured on the same resamples, and the interval is that of their difference. The p-value follows
    from the same resamples: it is below 0.05 just where the 95 % interval leaves out 0. For a share of the rows it is
    that of McNemar's exact test (McNemar 1947), which asks whether the rows that one model alone gets right are
    evenly divided, unless rows belong together. The calibration error has no interval here.

    Raises:
        ValueError: They were not drawn alike.
    """
    if first.rows != second.rows or not first.resampling.has_same_draws(second.resampling):
        raise ValueError("Expected metrics of the same resamples, received others")
    how, found = first.resampling, {}
    for name, one in first.distributions.items():
        if name not in second.distributions or not np.isfinite(one.value + second.distributions[name].value):
            continue
        two = second.distributions[name]
        spread = two.subtract(one)
        bounds, method = None if one.gaps else spread.finite_bounds(how.level), f"paired {how.summary()}"
        reason = "" if bounds else _BIASED_REASON if one.gaps else spread.fault() or _UNBOUNDED_REASON
        interval = Interval(*bounds, how.level, method) if bounds else None
        if name in first.shares and how.groups is None:
            p_value, method = compute_mcnemar_p_value(first.shares[name], second.shares[name]), "McNemar's exact test"
        else:
            p_value = 1.0 if reason else spread.p_value()
        found[name] = Difference(name, one.value, two.value, interval, p_value, method, reason)
    return found


def compute_wilson_interval(hits: int, rows: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share."""
    return Interval(*wilson_bounds(hits, rows, level), level, f"Wilson score interval over {rows:,} rows")


def compute_mcnemar_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """p-value of McNemar's exact test that two models are right equally often.

    Args:
        first, second: Whether each model is right, bool `(rows,)`.
    """
    from scipy.special import bdtr

    one, two = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * float(bdtr(min(one, two), one + two, 0.5)))


@dataclass(frozen=True)
class _BootstrapDistribution:
    """A metric in the resamples.

    Args:
        value: On the rows themselves.
        samples: In the resamples, `(resamples,)`, nan where one leaves it undefined.
        units: How many rows or groups there were to draw.
        left_out: With each block of units left out, `(blocks,)`.
        gaps: Of a sum of absolute values these, on the rows `(gaps, 1)` and in the resamples `(gaps, resamples)`.
    """

    value: float
    samples: np.ndarray
    units: int
    left_out: np.ndarray
    gaps: tuple[np.ndarray, np.ndarray] | None = None

    def subtract(self, other: _BootstrapDistribution) -> _BootstrapDistribution:
        """The difference of this and another metric in the same resamples."""
        return _BootstrapDistribution(
            self.value - other.value, self.samples - other.samples, self.units, self.left_out - other.left_out
        )

    @cached_property
    def ordered(self) -> np.ndarray:
        """The values that are defined, ascending."""
        return np.sort(self.samples[np.isfinite(self.samples)])

    def fault(self) -> str:
        """Why there is no interval; empty if there is one."""
        if not np.isfinite(self.value):
            return "the metric is undefined on these rows."
        undefined = len(self.samples) - len(self.ordered)
        if undefined > _MAX_UNDEFINED * len(self.samples):
            return f"{undefined:,} resamples leave it undefined."
        if self.units < 2:
            return "there is one unit to draw from."
        if self.ordered[-1] - self.ordered[0] <= 1e-12 * abs(self.value):
            return "it is the same in every resample."
        if self.gaps and self.value == 0:
            return "it is 0, of which no share can be tested."
        return ""

    def finite_bounds(self, level: float) -> tuple[float, float] | None:
        """The bounds of the interval; None where there is none, for which `fault` may have the reason."""
        if self.fault():
            return None
        bounds = self._bounds(level) if self.gaps is None else _invert_test(self.value, *self.gaps, level)
        return bounds if np.isfinite(bounds).all() else None

    def _bounds(self, level: float) -> tuple[float, float]:
        from scipy.special import ndtr, stdtrit

        bias, acceleration = self._bias(), self._acceleration()
        ends = np.array([-1, 1]) * stdtrit(self.units - 1, (1 + level) / 2) * self._expansion()
        shares = ndtr(bias + (bias + ends) / np.maximum(1 - acceleration * (bias + ends), 1e-3))
        low, high = np.quantile(self.ordered, shares)
        return float(low), float(high)

    def p_value(self) -> float:
        """One less the level of the interval that just touches 0."""
        from scipy.special import ndtri, stdtr

        bias, acceleration = self._bias(), self._acceleration()
        distance = ndtri(self._share_below(0.0)) - bias
        score = distance / max(1 + acceleration * distance, 1e-3) - bias
        return float(2 * stdtr(self.units - 1, -abs(score) / self._expansion()))

    def _expansion(self) -> float:
        return float(np.sqrt(self.units / (self.units - 1)))

    def _bias(self) -> float:
        """How far the median of the resamples lies from the metric, in standard normal scores."""
        from scipy.special import ndtri

        return float(ndtri(self._share_below(self.value)))

    def _share_below(self, value: float) -> float:
        """The share of the resamples below a value, by the interpolation that gives the bounds; never 0 or 1."""
        different, first, counts = np.unique(self.ordered, return_index=True, return_counts=True)
        last = len(self.ordered) - 1
        share = np.interp(value, different, (first + (counts - 1) / 2) / last)
        return float(np.clip(share, 0.5 / (last + 2), 1 - 0.5 / (last + 2)))

    def _acceleration(self) -> float:
        """How fast the metric's spread changes with its value, by the jackknife."""
        values = self.left_out[np.isfinite(self.left_out)]
        if not len(values):
            return 0.0
        away = values.mean() - values
        spread = float((away**2).sum()) ** 1.5
        return float((away**3).sum() / (6 * spread)) if spread > 0 else 0.0


def _invert_test(value: float, gaps: np.ndarray, drawn: np.ndarray, level: float) -> tuple[float, float]:
    """Bounds of a sum of absolute values, by inverting a test (Carpenter 1999).

    The sum of values around 0 is above 0 by chance, and resamples of it are so twice: an interval taken from these as
    they are hardly ever holds the truth of a calibrated model. Instead the values are supposed to be some share of
    those found; what resamples add to them says how the sum would then be spread. The interval holds the sums of all
    shares that make the sum that was found no surprise, and that sum itself.

    Args:
        value: The sum on the rows.
        gaps, drawn: The values on the rows `(gaps, 1)`, and in the resamples `(gaps, resamples)`.
    """
    chance = drawn[:, np.isfinite(drawn).all(axis=0)] - gaps
    ends = ((1 + level) / 2, (1 - level) / 2)
    low, high = (value * _find_share(lambda share: _rank(value, share * gaps + chance), end) for end in ends)
    return low, max(high, value)


def _rank(value: float, gaps: np.ndarray) -> float:
    """The share of sums of absolute values `(gaps, resamples)` that are below a value."""
    sums = np.abs(gaps).sum(axis=0)
    return float((sums < value).mean() + (sums == value).mean() / 2)


def _find_share(rank: Callable[[float], float], wanted: float) -> float:
    """The share, from 0, at which a rank that falls with it comes to the one that is wanted."""
    low, high = 0.0, 1.0
    if rank(low) <= wanted:
        return low
    while rank(high) > wanted:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rank(middle) > wanted else (low, middle)
    return high


def _resample_each(figures: WeightedMetrics, rows: int, resampling: Resampling) -> dict[str, _BootstrapDistribution]:
    from threadpoolctl import threadpool_limits

    units = rows if resampling.groups is None else len(np.unique(resampling.groups))
    # The matrices of a chunk are small: threads that wait for each other take far longer where cores are shared.
    with threadpool_limits(1, "blas"):
        values, gaps = _gather_samples(figures, iter([np.ones((rows, 1), np.int32)]))
        drawn, gaps_drawn = _gather_samples(figures, _draws(rows, resampling))
        left_out, _ = _gather_samples(figures, _make_jackknife_weights(rows, resampling))
    return {
        name: _BootstrapDistribution(
            float(value[0]), drawn[name], units, left_out[name],
            (gaps[name], gaps_drawn[name]) if name in gaps else None,
        )
        for name, value in values.items()
    }  # fmt: skip


def _gather_samples(figures: WeightedMetrics, chunks: Iterator[np.ndarray]) -> tuple[MetricSamples, MetricSamples]:
    """Metrics of all samples, and the gaps of those that are made of such."""
    found = [(figures.of(weights), {name: gaps(weights) for name, gaps in figures.gaps.items()}) for weights in chunks]
    metrics, gaps = zip(*found, strict=True)
    return _concatenate_chunks(metrics), _concatenate_chunks(gaps)


def _concatenate_chunks(chunks: Sequence[MetricSamples]) -> MetricSamples:
    return {name: np.concatenate([each[name] for each in chunks], axis=-1) for name in chunks[0]}


def _draws(rows: int, resampling: Resampling) -> Iterator[np.ndarray]:
    """Weights of the resamples, some samples at a time: how often each row, or its group, was drawn."""
    units, of_row = _units(rows, resampling)
    dtype, dice = _choose_integer_dtype(rows, units, of_row), np.random.default_rng([_STREAM, resampling.seed])
    for samples in _chunks(resampling.resamples, rows):
        drawn = dice.integers(0, units, (samples, units))
        counts = np.stack([np.bincount(each, minlength=units) for each in drawn]).astype(dtype)
        yield (counts if resampling.groups is None else np.take(counts, of_row, axis=1)).T


def _make_jackknife_weights(rows: int, resampling: Resampling) -> Iterator[np.ndarray]:
    """Weights that leave out one block of rows or groups each."""
    units, of_row = _units(rows, resampling)
    blocks = min(units, _BLOCKS)
    order = np.random.default_rng([_STREAM, resampling.seed, 1]).permutation(units)
    of_unit = np.empty(units, np.int64)
    of_unit[order] = np.arange(units) % blocks
    block, start = of_unit[of_row], 0
    for samples in _chunks(blocks, rows):
        yield (block != np.arange(start, start + samples)[:, None]).astype(np.int32).T
        start += samples


def _units(rows: int, resampling: Resampling) -> tuple[int, np.ndarray]:
    """How many units there are to draw, and the unit of each row."""
    if resampling.groups is None:
        return rows, np.arange(rows)
    names, of_row = np.unique(resampling.groups, return_inverse=True)
    return len(names), of_row


def _choose_integer_dtype(rows: int, units: int, of_row: np.ndarray) -> type[np.integer]:
    """A type for sums of the weights; the narrow one is the faster."""
    most = rows if units == rows else units * int(np.bincount(of_row).max())
    return np.int32 if most < 2**31 else np.int64


def _chunks(samples: int, rows: int) -> Iterator[int]:
    size = max(1, _AT_ONCE // max(rows, 1))
    for start in range(0, samples, size):
        yield min(size, samples - start)


def _format_p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
