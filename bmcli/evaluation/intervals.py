"""How sure a metric is: intervals from resampled rows, and paired differences of two models on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmcli.evaluation.directions import direction
from bmcli.evaluation.shares import LEVEL, Interval, wilson_bounds
from bmcli.evaluation.weighted import Values, Weighted

RESAMPLES = 1000

_STREAM = 0x1B0075  # of the draws, so that they are those of no data made from the same seed
_AT_ONCE = 2_000_000  # weights in memory together
_BLOCKS = 200  # left out in turn for the acceleration
_UNDEFINED = 0.05  # share of resamples that may leave a metric undefined


__all__ = ["Difference", "Interval", "Resampling", "differences", "intervals", "mcnemar", "wilson"]


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

    @property
    def words(self) -> str:
        """What is drawn and how, as part of a sentence."""
        units = "rows" if self.groups is None else f"{len(np.unique(self.groups)):,} groups"
        return f"BCa bootstrap over {units}, {self.resamples:,} resamples"


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
        if self.interval is None or self.interval.low <= 0 <= self.interval.high or not direction(self.metric):
            return ""
        return "second" if (self.interval.low > 0) == (direction(self.metric) == "max") else "first"

    def words(self, first: str = "the first", second: str = "the second") -> str:
        """The finding as a sentence.

        Args:
            first, second: What the models are called.
        """
        told = f"{self.metric}: {first} {self.first:.4g}, {second} {self.second:.4g}, difference {self.difference:+.4g}"
        if self.interval is None:
            return f"{told}; no interval, since {self.reason}"
        bounds = f"{self.interval.low:+.4g} to {self.interval.high:+.4g}"
        told += f" ({self.interval.level:.0%} interval {bounds}, p {_shown_p(self.p_value)}): "
        if self.better:
            return f"{told}{first if self.better == 'first' else second} is better."
        if not direction(self.metric) and not self.interval.low <= 0 <= self.interval.high:
            return f"{told}they differ."
        return f"{told}these rows do not show a difference."

    def to_json(self) -> dict[str, Any]:
        interval = self.interval and self.interval.to_json()
        return {**vars(self), "interval": interval, "difference": self.difference, "better": self.better}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Difference:
        kept = {key: value for key, value in values.items() if key not in ("difference", "better")}
        interval = values["interval"]
        return cls(**{**kept, "interval": None if interval is None else Interval.from_json(interval)})


def intervals(figures: Weighted, rows: int, how: Resampling) -> tuple[dict[str, Interval], dict[str, str]]:
    """An interval for every metric, and for those that have none the reason.

    A share of the rows, such as the accuracy, has Wilson's score interval (Wilson 1927), unless rows belong together.
    Every other metric has that of the bias-corrected and accelerated bootstrap (BCa; Efron 1987), with levels
    expanded as a t interval is for few rows (Hesterberg 2015, section 5.3).

    Args:
        figures: The metrics as functions of the rows that are drawn.
        rows: How many there are.
    """
    found: dict[str, Interval] = {}
    reasons = dict(figures.left_out)
    for name, spread in _spreads(figures, rows, how).items():
        if name in figures.shares and how.groups is None:
            found[name] = wilson(int(figures.shares[name].sum()), rows, how.level)
        elif reason := spread.fault():
            reasons[name] = reason
        else:
            low, high = spread.bounds(how.level)
            found[name] = Interval(low, high, how.level, how.words)
    return found, reasons


def differences(first: Weighted, second: Weighted, rows: int, how: Resampling) -> dict[str, Difference]:
    """The difference of two models in every metric that is defined for both, on the same rows.

    Both models are measured on the same resamples, and the interval is that of their difference. The p-value follows
    from the same resamples: it is below 0.05 just where the 95 % interval leaves out 0. For a share of the rows it is
    that of McNemar's exact test (McNemar 1947), which asks whether the rows that one model alone gets right are
    evenly divided, unless rows belong together.

    Args:
        first, second: Metrics of each model as functions of the rows that are drawn.
        rows: How many there are.
    """
    one, two = (each.of(np.ones((rows, 1))) for each in (first, second))
    both = Weighted(lambda weights: _less(second.of(weights), first.of(weights)))
    found = {}
    for name, spread in _spreads(both, rows, how).items():
        if not np.isfinite(spread.value):
            continue
        reason = spread.fault()
        interval = None if reason else Interval(*spread.bounds(how.level), how.level, f"paired {how.words}")
        if name in first.shares and how.groups is None:
            p_value, method = mcnemar(first.shares[name], second.shares[name]), "McNemar's exact test"
        else:
            p_value, method = (1.0 if reason else spread.p_value()), f"paired {how.words}"
        found[name] = Difference(name, float(one[name][0]), float(two[name][0]), interval, p_value, method, reason)
    return found


def wilson(hits: int, rows: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share."""
    return Interval(*wilson_bounds(hits, rows, level), level, f"Wilson score interval over {rows:,} rows")


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p-value of McNemar's exact test that two models are right equally often.

    Args:
        first, second: Whether each model is right, bool `(rows,)`.
    """
    from scipy.special import bdtr

    one, two = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * float(bdtr(min(one, two), one + two, 0.5)))


@dataclass(frozen=True)
class _Spread:
    """A metric in the resamples.

    Args:
        value: On the rows themselves.
        drawn: In the resamples, ascending, `(resamples,)`; without those that leave it undefined.
        undefined: How many do.
        units: How many rows or groups there were to draw.
        left_out: With each block of units left out, `(blocks,)`.
    """

    value: float
    drawn: np.ndarray
    undefined: int
    units: int
    left_out: np.ndarray

    def fault(self) -> str:
        """Why there is no interval; empty if there is one."""
        if not np.isfinite(self.value):
            return "the metric is undefined on these rows."
        if self.undefined > _UNDEFINED * (self.undefined + len(self.drawn)):
            return f"{self.undefined:,} resamples leave it undefined."
        if self.units < 2:
            return "there is one unit to draw from."
        if self.drawn[-1] - self.drawn[0] <= 1e-12 * abs(self.value):
            return "it is the same in every resample."
        return ""

    def bounds(self, level: float) -> tuple[float, float]:
        from scipy.special import ndtr, stdtrit

        bias, acceleration = self._bias(), self._acceleration()
        ends = np.array([-1, 1]) * stdtrit(self.units - 1, (1 + level) / 2) * self._expansion()
        shares = ndtr(bias + (bias + ends) / np.maximum(1 - acceleration * (bias + ends), 1e-3))
        low, high = np.quantile(self.drawn, shares)
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
        different, first, counts = np.unique(self.drawn, return_index=True, return_counts=True)
        last = len(self.drawn) - 1
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


def _spreads(figures: Weighted, rows: int, how: Resampling) -> dict[str, _Spread]:
    units = rows if how.groups is None else len(np.unique(how.groups))
    values = figures.of(np.ones((rows, 1)))
    drawn = _gathered(figures, _draws(rows, how))
    left_out = _gathered(figures, _without_blocks(rows, how))
    return {name: _spread(float(value[0]), drawn[name], left_out[name], units) for name, value in values.items()}


def _spread(value: float, drawn: np.ndarray, left_out: np.ndarray, units: int) -> _Spread:
    defined = np.isfinite(drawn)
    return _Spread(value, np.sort(drawn[defined]), int((~defined).sum()), units, left_out)


def _gathered(figures: Weighted, chunks: Iterator[np.ndarray]) -> Values:
    found = [figures.of(weights) for weights in chunks]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _draws(rows: int, how: Resampling) -> Iterator[np.ndarray]:
    """Weights of the resamples, some samples at a time: how often each row, or its group, was drawn."""
    units, of_row = _units(rows, how)
    dice = np.random.default_rng([_STREAM, how.seed])
    for samples in _chunks(how.resamples, rows):
        drawn = dice.integers(0, units, (samples, units))
        counts = np.stack([np.bincount(each, minlength=units) for each in drawn], axis=1).astype(np.float64)
        yield counts if how.groups is None else counts[of_row]


def _without_blocks(rows: int, how: Resampling) -> Iterator[np.ndarray]:
    """Weights that leave out one block of rows or groups each."""
    units, of_row = _units(rows, how)
    blocks = min(units, _BLOCKS)
    order = np.random.default_rng([_STREAM, how.seed, 1]).permutation(units)
    of_unit = np.empty(units, np.int64)
    of_unit[order] = np.arange(units) % blocks
    block, start = of_unit[of_row], 0
    for samples in _chunks(blocks, rows):
        yield (block[:, None] != np.arange(start, start + samples)).astype(np.float64)
        start += samples


def _units(rows: int, how: Resampling) -> tuple[int, np.ndarray]:
    """How many units there are to draw, and the unit of each row."""
    if how.groups is None:
        return rows, np.arange(rows)
    names, of_row = np.unique(how.groups, return_inverse=True)
    return len(names), of_row


def _chunks(samples: int, rows: int) -> Iterator[int]:
    size = max(1, _AT_ONCE // max(rows, 1))
    for start in range(0, samples, size):
        yield min(size, samples - start)


def _less(second: Values, first: Values) -> Values:
    return {name: second[name] - first[name] for name in second if name in first}


def _shown_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
