"""Uncertainty of metrics: bootstrap intervals, and paired differences of two models on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.info import UNKNOWN, Direction, MetricInfo
from bmcli.metrics.proportions import LEVEL, Interval, wilson_bounds
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics
from bmcli.number_texts import write_number, write_signed
from bmcli.records import validate_as

RESAMPLES = 1000

_STREAM = 0x1B0075  # seeds the draws with the seed, so that no other generator with that seed draws the same
_CHUNK_WEIGHTS = 2**17  # weights in one chunk: they fit into the processor's cache
_JACKKNIFE_BLOCKS = 200  # each is left out once for the acceleration
_HALVINGS = 20
_MAX_UNDEFINED = 0.05  # share of resamples that may leave a metric undefined
_UNBOUNDED_REASON = "its bounds are not finite on these rows."
_BIASED_REASON = "its bias by chance differs between models; compare brier or log_loss instead."


__all__ = [
    "Difference", "Interval", "ResampledMetrics", "Resampling", "compute_differences", "compute_intervals",
    "compute_mcnemar_p_value", "compute_wilson_interval", "resample_metrics",
]  # fmt: skip


@dataclass(frozen=True)
class Resampling:
    """Settings of the bootstrap.

    Args:
        resamples: Number of samples, each as large as the data.
        level: Of the intervals.
        seed: Of the draws.
        groups: Integer group of each row, `(rows,)`: the rows of a group are dependent and are drawn together.
    """

    resamples: int = RESAMPLES
    level: float = LEVEL
    seed: int = 0
    groups: np.ndarray | None = None

    def select(self, indices: np.ndarray) -> Resampling:
        """Make the resampling of some of the rows."""
        return self if self.groups is None else replace(self, groups=self.groups[indices])

    def summary(self, bootstrap: str = "BCa") -> str:
        """Describe the resampling, as part of a sentence."""
        units = "rows" if self.groups is None else f"{len(np.unique(self.groups)):,} groups"
        return f"{bootstrap} bootstrap over {units}, {self.resamples:,} resamples"

    def has_same_draws(self, other: Resampling) -> bool:
        """Whether another resampling draws the same samples from the same number of rows."""
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
        interval: Of `second - first`; None with a `reason`.
        p_value: Probability of a difference as large between equally good models.
        method: Of the p-value.
        reason: Why there is no interval; empty if there is one.
        direction: Whether more or less of the metric is better; empty if neither is.
    """

    metric: str
    first: float
    second: float
    interval: Interval | None
    p_value: float
    method: str
    reason: str = ""
    direction: Direction = ""

    @property
    def difference(self) -> float:
        """`second - first`, 0 where they are equal up to rounding."""
        return float(subtract_metrics(self.second, self.first))

    @property
    def better(self) -> str:
        """`first` or `second` where the interval shows that one is better, empty otherwise."""
        if self.interval is None or self.interval.low <= 0 <= self.interval.high or not self.direction:
            return ""
        return "second" if (self.interval.low > 0) == (self.direction == "max") else "first"

    def summary(self, first: str = "the first", second: str = "the second") -> str:
        """Describe the difference as a sentence.

        Args:
            first, second: Names of the models.
        """
        text = f"{self.metric}: {first} {write_number(self.first)}, {second} {write_number(self.second)}, "
        text += f"difference {write_signed(self.difference)}"
        if self.interval is None:
            return f"{text}; no interval, since {self.reason}"
        bounds = f"{write_signed(self.interval.low)} to {write_signed(self.interval.high)}"
        text += f" ({self.interval.percent} interval {bounds}, p {_format_p_value(self.p_value)}): "
        if self.better:
            return f"{text}{first if self.better == 'first' else second} is better."
        if not self.direction and not self.interval.low <= 0 <= self.interval.high:
            return f"{text}a significant difference."
        return f"{text}no significant difference."

    def to_json(self) -> dict[str, Any]:
        interval = self.interval and self.interval.to_json()
        return {**vars(self), "interval": interval, "difference": self.difference, "better": self.better}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Difference:
        return validate_as(cls, values)


@dataclass(frozen=True)
class ResampledMetrics:
    """Metrics of some rows and of their resamples.

    Args:
        distributions: Of each metric.
        shares, left_out, info: As in `WeightedMetrics`.
    """

    rows: int
    resampling: Resampling
    distributions: Mapping[str, _BootstrapDistribution]
    shares: Mapping[str, np.ndarray]
    left_out: Mapping[str, str]
    info: Mapping[str, MetricInfo]


def resample_metrics(metrics: WeightedMetrics, rows: int, resampling: Resampling) -> ResampledMetrics:
    """Compute metrics on resamples of the rows.

    The resamples depend on `rows` and `resampling` alone, so those of two models are paired.

    Args:
        metrics: The metrics as functions of the weights of rows.
        rows: Number of rows.
    """
    return ResampledMetrics(
        rows, resampling, _resample_each(metrics, rows, resampling), metrics.shares, metrics.left_out, metrics.info
    )


def compute_intervals(resampled: ResampledMetrics) -> tuple[dict[str, Interval], dict[str, str]]:
    """Compute an interval for each metric, and the reason for each metric without one.

    A share of the rows, such as the accuracy, has Wilson's score interval (Wilson 1927), unless rows are grouped.
    Other metrics have the interval of the bias-corrected and accelerated bootstrap (BCa; Efron 1987), with levels
    expanded like those of a t interval for few rows (Hesterberg 2015, section 5.3). The calibration error, which is
    biased upwards by chance, has the interval of the inverted bootstrap test (Carpenter 1999), extended to contain the
    metric itself and cut at the bounds of the metric.
    """
    intervals: dict[str, Interval] = {}
    reasons = dict(resampled.left_out)
    for name, distribution in resampled.distributions.items():
        if name in resampled.shares and resampled.resampling.groups is None:
            intervals[name] = compute_wilson_interval(
                int(resampled.shares[name].sum()), resampled.rows, resampled.resampling.level
            )
        elif bounds := distribution.find_bounds(resampled.resampling.level):
            method = resampled.resampling.summary("inverted" if distribution.gaps else "BCa")
            # The bounds of BCa are values of resamples, which the metric can have.
            within = resampled.info.get(name, UNKNOWN).cut(*bounds) if distribution.gaps else bounds
            if within != bounds:
                method += ", cut at the bounds of the metric"
            intervals[name] = Interval(*within, resampled.resampling.level, method)
        else:
            reasons[name] = distribution.explain_undefined() or _UNBOUNDED_REASON
    return intervals, reasons


def compute_differences(first: ResampledMetrics, second: ResampledMetrics) -> dict[str, Difference]:
    """Compute the difference of two models in each metric that is defined for both, on the same rows.

    The interval is that of the difference on the same resamples. The p-value comes from the same resamples: it is
    below 0.05 exactly where the 95 % interval excludes 0. For a share of the rows, unless rows are grouped, it is that
    of McNemar's exact test (McNemar 1947): whether each model is equally often the only correct one. The calibration
    error has no interval here.

    Raises:
        ValueError: The two have different resamples.
    """
    if first.rows != second.rows or not first.resampling.has_same_draws(second.resampling):
        raise ValueError("Expected metrics of the same resamples, received different ones")
    resampling, differences = first.resampling, {}
    for name, first_metric in first.distributions.items():
        if name not in second.distributions or not np.isfinite(first_metric.value + second.distributions[name].value):
            continue
        second_metric = second.distributions[name]
        difference = second_metric.subtract(first_metric)
        bounds, method = (
            None if first_metric.gaps else difference.find_bounds(resampling.level),
            f"paired {resampling.summary()}",
        )
        reason = (
            ""
            if bounds
            else _BIASED_REASON
            if first_metric.gaps
            else difference.explain_undefined() or _UNBOUNDED_REASON
        )
        interval = Interval(*bounds, resampling.level, method) if bounds else None
        if name in first.shares and resampling.groups is None:
            p_value, method = compute_mcnemar_p_value(first.shares[name], second.shares[name]), "McNemar's exact test"
        else:
            p_value = 1.0 if reason else difference.p_value()
        direction = first.info.get(name, UNKNOWN).direction
        differences[name] = Difference(
            name, first_metric.value, second_metric.value, interval, p_value, method, reason, direction
        )
    return differences


def compute_wilson_interval(hits: int, rows: int, level: float = LEVEL) -> Interval:
    """Compute Wilson's score interval of a share."""
    return Interval(*wilson_bounds(hits, rows, level), level, f"Wilson score interval over {rows:,} rows")


def compute_mcnemar_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the p-value of McNemar's exact test that two models are right equally often.

    Args:
        first, second: Whether each model is right, bool `(rows,)`.
    """
    from scipy.special import bdtr

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    # Twice the smaller tail, which is more than 1 if both models are alone right equally often.
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


@dataclass(frozen=True)
class _BootstrapDistribution:
    """A metric in the resamples.

    Args:
        value: On the rows themselves.
        samples: In the resamples, `(resamples,)`, nan where it is undefined.
        units: Number of rows or groups that are drawn from.
        left_out: With each block of units left out, `(blocks,)`.
        gaps: For a sum of absolute values, its terms on the rows `(gaps, 1)` and in the resamples `(gaps, resamples)`.
    """

    value: float
    samples: np.ndarray
    units: int
    left_out: np.ndarray
    gaps: tuple[np.ndarray, np.ndarray] | None = None

    def subtract(self, other: _BootstrapDistribution) -> _BootstrapDistribution:
        """Subtract another model's distribution over the same resamples."""
        return _BootstrapDistribution(
            float(subtract_metrics(self.value, other.value)),
            subtract_metrics(self.samples, other.samples),
            self.units,
            subtract_metrics(self.left_out, other.left_out),
        )

    @cached_property
    def ordered(self) -> np.ndarray:
        """Defined values, ascending."""
        return np.sort(self.samples[np.isfinite(self.samples)])

    def explain_undefined(self) -> str:
        """Explain why there is no interval; empty if there is one."""
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

    def find_bounds(self, level: float) -> tuple[float, float] | None:
        """Compute the bounds of the interval; None where there is none, in most cases with a `explain_undefined`."""
        if self.explain_undefined():
            return None
        bounds = self._compute_bounds(level) if self.gaps is None else _invert_test(self.value, *self.gaps, level)
        return bounds if np.isfinite(bounds).all() else None

    def _compute_bounds(self, level: float) -> tuple[float, float]:
        from scipy.special import ndtr, stdtrit

        bias, acceleration = self._compute_bias(), self._compute_acceleration()
        scores = np.array([-1, 1]) * stdtrit(self.units - 1, (1 + level) / 2) * self._compute_expansion()
        # A large acceleration would make the denominator 0 or negative, and so reverse the order of the levels.
        levels = ndtr(bias + (bias + scores) / np.maximum(1 - acceleration * (bias + scores), 1e-3))
        low, high = np.quantile(self.ordered, levels)
        return float(low), float(high)

    def p_value(self) -> float:
        """Compute the p-value: 1 minus the level of the interval with a bound at 0."""
        from scipy.special import ndtri, stdtr

        bias, acceleration = self._compute_bias(), self._compute_acceleration()
        distance = ndtri(self._compute_share_below(0.0)) - bias
        score = distance / max(1 + acceleration * distance, 1e-3) - bias
        return float(2 * stdtr(self.units - 1, -abs(score) / self._compute_expansion()))

    def _compute_expansion(self) -> float:
        return float(np.sqrt(self.units / (self.units - 1)))

    def _compute_bias(self) -> float:
        """Compute the distance of the resamples' median from the metric, in standard normal scores."""
        from scipy.special import ndtri

        return float(ndtri(self._compute_share_below(self.value)))

    def _compute_share_below(self, value: float) -> float:
        """Compute the share of resamples below a value, by the interpolation of the bounds; never 0 or 1."""
        distinct, first, counts = np.unique(self.ordered, return_index=True, return_counts=True)
        last = len(self.ordered) - 1
        # The inverse of `np.quantile`; equal values share their mean rank. Shares of 0 and 1 have infinite scores.
        share = np.interp(value, distinct, (first + (counts - 1) / 2) / last)
        return float(np.clip(share, 0.5 / (last + 2), 1 - 0.5 / (last + 2)))

    def _compute_acceleration(self) -> float:
        """Estimate how fast the metric's standard error changes with its value, by the jackknife."""
        values = self.left_out[np.isfinite(self.left_out)]
        if not len(values):
            return 0.0
        deviations = values.mean() - values
        scale = float((deviations**2).sum()) ** 1.5
        return float((deviations**3).sum() / (6 * scale)) if scale > 0 else 0.0


def _invert_test(value: float, gaps: np.ndarray, drawn: np.ndarray, level: float) -> tuple[float, float]:
    """Compute bounds of a sum of absolute values by inverting a test (Carpenter 1999).

    A sum of absolute values of noise around 0 is positive, and resampling adds the same bias a second time: plain
    bootstrap intervals hardly ever contain the true error of a calibrated model. Instead, suppose that the true terms
    are some share of the observed ones; adding the resampling noise to them gives the distribution of the sum. The
    interval contains the sums of all shares for which the observed sum is likely, and the observed sum.

    Args:
        value: The sum on the rows.
        gaps, drawn: The terms on the rows `(gaps, 1)`, and in the resamples `(gaps, resamples)`.
    """
    noise = drawn[:, np.isfinite(drawn).all(axis=0)] - gaps
    levels = ((1 + level) / 2, (1 - level) / 2)
    low, high = (value * _find_share(lambda share: _compute_rank(value, share * gaps + noise), end) for end in levels)
    return low, max(high, value)


def _compute_rank(value: float, gaps: np.ndarray) -> float:
    """Compute the share of sums of absolute values `(gaps, resamples)` that are below a value."""
    sums = np.abs(gaps).sum(axis=0)
    return float((sums < value).mean() + (sums == value).mean() / 2)


def _find_share(rank: Callable[[float], float], target: float) -> float:
    """Find the share, from 0, at which a decreasing rank equals a target, by bisection."""
    low, high = 0.0, 1.0
    if rank(low) <= target:
        return low
    while rank(high) > target:
        high *= 2
    for _ in range(_HALVINGS):
        mid = (low + high) / 2
        low, high = (mid, high) if rank(mid) > target else (low, mid)
    return high


def _resample_each(metrics: WeightedMetrics, rows: int, resampling: Resampling) -> dict[str, _BootstrapDistribution]:
    from threadpoolctl import threadpool_limits

    units = rows if resampling.groups is None else len(np.unique(resampling.groups))
    # The matrices of a chunk are small: BLAS threads spend longer waiting for each other than they save.
    with threadpool_limits(1, "blas"):
        values, gaps = _gather_samples(metrics, iter([np.ones((rows, 1), np.int32)]))
        drawn, gaps_drawn = _gather_samples(metrics, _iterate_draws(rows, resampling))
        left_out, _ = _gather_samples(metrics, _make_jackknife_weights(rows, resampling))
    return {
        name: _BootstrapDistribution(
            float(value[0]), drawn[name], units, left_out[name],
            (gaps[name], gaps_drawn[name]) if name in gaps else None,
        )
        for name, value in values.items()
    }  # fmt: skip


def _gather_samples(functions: WeightedMetrics, chunks: Iterator[np.ndarray]) -> tuple[MetricSamples, MetricSamples]:
    """Compute metrics of all samples, and the terms of those that are sums of absolute values."""
    samples = [
        (functions.compute(weights), {name: gaps(weights) for name, gaps in functions.gaps.items()})
        for weights in chunks
    ]
    metrics, gaps = zip(*samples, strict=True)
    return _concatenate_chunks(metrics), _concatenate_chunks(gaps)


def _concatenate_chunks(chunks: Sequence[MetricSamples]) -> MetricSamples:
    return {name: np.concatenate([each[name] for each in chunks], axis=-1) for name in chunks[0]}


def _iterate_draws(rows: int, resampling: Resampling) -> Iterator[np.ndarray]:
    """Yield weights of the resamples in chunks: the number of times that each row, or its group, was drawn."""
    units, of_row = _find_units(rows, resampling)
    dtype, generator = _choose_integer_dtype(rows, units, of_row), np.random.default_rng([_STREAM, resampling.seed])
    for samples in _iterate_chunks(resampling.resamples, rows):
        drawn = generator.integers(0, units, (samples, units))
        counts = np.stack([np.bincount(each, minlength=units) for each in drawn]).astype(dtype)
        yield (counts if resampling.groups is None else np.take(counts, of_row, axis=1)).T


def _make_jackknife_weights(rows: int, resampling: Resampling) -> Iterator[np.ndarray]:
    """Yield weights that leave out one block of rows or groups each."""
    units, of_row = _find_units(rows, resampling)
    blocks = min(units, _JACKKNIFE_BLOCKS)
    order = np.random.default_rng([_STREAM, resampling.seed, 1]).permutation(units)
    of_unit = np.empty(units, np.int64)
    of_unit[order] = np.arange(units) % blocks
    block, start = of_unit[of_row], 0
    for samples in _iterate_chunks(blocks, rows):
        yield (block != np.arange(start, start + samples)[:, None]).astype(np.int32).T
        start += samples


def _find_units(rows: int, resampling: Resampling) -> tuple[int, np.ndarray]:
    """Count the units to draw from, and find the unit of each row."""
    if resampling.groups is None:
        return rows, np.arange(rows)
    names, of_row = np.unique(resampling.groups, return_inverse=True)
    return len(names), of_row


def _choose_integer_dtype(rows: int, units: int, of_row: np.ndarray) -> type[np.integer]:
    """Choose an integer type that holds sums of the weights; the narrow one is faster."""
    largest = rows if units == rows else units * int(np.bincount(of_row).max())
    return np.int32 if largest < 2**31 else np.int64


def _iterate_chunks(samples: int, rows: int) -> Iterator[int]:
    size = max(1, _CHUNK_WEIGHTS // max(rows, 1))
    for start in range(0, samples, size):
        yield min(size, samples - start)


def _format_p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
