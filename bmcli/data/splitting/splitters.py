"""Splitters: assign rows to parts of given shares at random, by group, by time, or by the hash of their content.

The part of a row depends only on the data and the seed, on any machine and with any version of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bmcli.errors import BmcliError

if TYPE_CHECKING:
    import numpy as np


class Splitter(Protocol):
    """Interface of splitters."""

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        """Assign each row to a part; return the numbers of the parts, `(len(rows),)`.

        Args:
            rows: Indices of the rows to assign, ascending.
            shares: Share of each part, adding up to 1; a part with share 0 gets no row.
        """

    def describe_units(self, rows: np.ndarray) -> str:
        """Count the indivisible units, such as `5 rows` or `3 groups`: with fewer units than parts, a part is empty."""


@dataclass(frozen=True)
class RandomSplitter:
    """Assign each row at random.

    Args:
        strata: Stratum of each row, an integer; every part keeps the proportions of the strata within one row.
    """

    seed: int
    strata: np.ndarray | None = None

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        fractions = np.array(shares)
        strata = np.zeros(len(rows), "int64") if self.strata is None else self.strata[rows]
        # NumPy guarantees the bit stream of PCG64 for all versions, but not the results of `shuffle`.
        order = np.argsort(np.random.PCG64(self.seed).random_raw(len(rows)), kind="stable")
        order = order[np.argsort(strata[order], kind="stable")]
        parts = np.empty(len(rows), "int64")
        deficit = np.zeros(len(fractions))
        for stratum in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
            counts = _apportion_rows(len(stratum), fractions, deficit)
            deficit += len(stratum) * fractions - counts
            parts[stratum] = np.repeat(np.arange(len(fractions)), counts)
        return parts

    def describe_units(self, rows: np.ndarray) -> str:
        return _count(len(rows), "row")


@dataclass(frozen=True)
class GroupSplitter:
    """Assign all rows of a group to one part.

    Large groups are assigned first and small groups compensate for them, so that the shares are met as well as the
    sizes of the groups allow. Among the parts that still have room for a group, each is drawn with the probability that
    the rows of the group would have if they were assigned one by one.

    Args:
        groups: Group of each row, an integer.
        strata: Stratum of each row, an integer; the parts keep the proportions of the strata as well as whole groups
            allow.
    """

    seed: int
    groups: np.ndarray
    strata: np.ndarray | None = None

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        names, group_of_row = np.unique(self.groups[rows], return_inverse=True)
        strata = np.zeros(len(rows), "int64") if self.strata is None else self.strata[rows]
        sizes = np.bincount(group_of_row)
        random = np.random.PCG64(self.seed).random_raw(2 * len(names))
        order = np.lexsort((random[: len(names)], -sizes))
        counts = _count_strata(group_of_row, strata)
        remaining = _RemainingRows(shares, np.bincount(strata).tolist())
        parts = np.empty(len(names), "int64")
        for group in order.tolist():
            parts[group] = remaining.assign_group(counts[group], int(random[len(names) + group]) / 2**64)
        _fill_empty_parts(parts, order, [part for part, share in enumerate(shares) if share > 0])
        return parts[group_of_row]

    def describe_units(self, rows: np.ndarray) -> str:
        import numpy as np

        return _count(len(np.unique(self.groups[rows])), "group")


@dataclass(frozen=True)
class TimeSplitter:
    """Assign the oldest rows to the first part and the newest to the last; rows of the same time stay together.

    Args:
        times: Time of each row, a number.
    """

    times: np.ndarray

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        _, time_of_row, counts = np.unique(self.times[rows], return_inverse=True, return_counts=True)
        ends = np.concatenate([[0], np.cumsum(counts)])
        used = [part for part, share in enumerate(shares) if share > 0]
        parts = np.empty(len(counts), "int64")
        first, target = 0, 0.0
        for later, part in zip(range(len(used) - 1, -1, -1), used, strict=True):
            target += shares[part] * len(rows)
            nearest = int(np.argmin(np.abs(ends - round(target, 6)))) if later else len(counts)
            # Each part takes at least one time, and leaves one for each later part, as long as there are enough.
            last = min(max(nearest, first + 1), max(len(counts) - later, first + 1), len(counts))
            parts[first:last] = part
            first = last
        return parts[time_of_row]

    def describe_units(self, rows: np.ndarray) -> str:
        import numpy as np

        return _count(len(np.unique(self.times[rows])), "different time")


@dataclass(frozen=True)
class HashSplitter:
    """Assign rows by the hash of their content, so that a row keeps its part when others are added.

    Args:
        hashes: Hash of each row, uint64, uniformly distributed.
    """

    hashes: np.ndarray

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        used = np.flatnonzero(np.array(shares) > 0)
        borders = np.cumsum(np.array(shares)[used])[:-1]
        # The upper 53 bits, as many as float64 holds exactly, give a number from 0 to 1.
        uniform = (self.hashes[rows] >> np.uint64(11)).astype("float64") * 2.0**-53
        return used[np.searchsorted(borders, uniform, side="right")]

    def describe_units(self, rows: np.ndarray) -> str:
        import numpy as np

        return _count(len(np.unique(self.hashes[rows])), "different row")


def split_folds(splitter: Splitter, rows: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training rows and the test rows of each fold of a cross-validation.

    Every row is a test row once. With a TimeSplitter, each fold trains on all rows older than its test rows, and the
    oldest rows are never tested.

    The folds have the properties of scikit-learn's splitters: the proportions of classes within one row
    (StratifiedKFold), whole groups (GroupKFold), both (StratifiedGroupKFold, whose folds differ more in size), and the
    order of time (TimeSeriesSplit, whose folds have the same rows if all times differ). scikit-learn is not used,
    because a fold must be the same as `data.split` makes of the same rows, so that it can be trained separately and on
    another machine: `HashSplitter` keeps a row in its fold when others are added, rows of the same time stay together,
    which TimeSeriesSplit separates by position, and nothing depends on how a version of NumPy shuffles.

    Raises:
        BmcliError: There are more folds than rows, groups or times.
    """
    ordered = isinstance(splitter, TimeSplitter)
    parts = _assign_folds(splitter, rows, count)
    if parts is None:
        possible = (fewer for fewer in range(count - 1, 1, -1) if _assign_folds(splitter, rows, fewer) is not None)
        most = next(possible, None)
        advice = "Cross-validation needs more of them." if most is None else f"Use at most {most} folds."
        raise BmcliError(f"{count} folds need more than {splitter.describe_units(rows)}.", suggestion=advice)
    number = int(parts.max()) + 1
    for part in range(number - count, number):
        yield rows[parts < part if ordered else parts != part], rows[parts == part]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _assign_folds(splitter: Splitter, rows: np.ndarray, count: int) -> np.ndarray | None:
    """Assign each row to one of `count` parts, with one more for rows in order of time; None if a part has no rows."""
    import numpy as np

    number = count + isinstance(splitter, TimeSplitter)
    parts = splitter.assign_parts(rows, [1 / number] * number)
    return parts if len(np.unique(parts)) == number else None


def _apportion_rows(rows: int, fractions: np.ndarray, deficit: np.ndarray) -> np.ndarray:
    """Round `rows * fractions` to integers with the sum `rows`.

    Parts that got too few rows of earlier strata are rounded up first. Otherwise the rounding errors of many small
    strata would add up.

    Args:
        deficit: Rows that each part lacks so far, a real number.
    """
    import numpy as np

    exact = np.round(rows * fractions, 6)
    counts = np.floor(exact).astype("int64")
    claims = np.where(exact > counts, exact - counts + deficit, -np.inf)
    counts[np.argsort(-claims, kind="stable")[: rows - counts.sum()]] += 1
    return counts


_StratumCounts = list[tuple[int, int]]  # the strata of a group, and its rows in each


def _count_strata(groups: np.ndarray, strata: np.ndarray) -> list[_StratumCounts]:
    """Count the rows of each group in each stratum."""
    import numpy as np

    width = int(strata.max()) + 1
    pairs, counts = np.unique(groups * width + strata, return_counts=True)
    by_group: list[_StratumCounts] = [[] for _ in range(int(groups.max()) + 1)]
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        by_group[pair // width].append((pair % width, count))
    return by_group


class _RemainingRows:
    """Rows of each stratum that each part still lacks.

    Sums are computed one by one in Python, because those of NumPy differ in their last bits between processors.
    """

    def __init__(self, shares: Sequence[float], totals: Sequence[int]) -> None:
        self.lacking = {part: [share * total for total in totals] for part, share in enumerate(shares) if share > 0}
        self.rest = list(totals)

    def assign_group(self, counts: _StratumCounts, random: float) -> int:
        """Assign a group to a part, and subtract its rows.

        Args:
            counts: Rows of the group by stratum.
            random: Number from 0 to 1 that decides among the parts with room.
        """
        with_room = [part for part in self.lacking if self._compute_excess(part, counts) < 1e-6]
        if with_room:
            part = self._draw_part(with_room, counts, random)
        else:
            part = min(self.lacking, key=lambda part: self._compute_excess(part, counts))
        for stratum, count in counts:
            self.lacking[part][stratum] -= count
            self.rest[stratum] -= count
        return part

    def _compute_excess(self, part: int, counts: _StratumCounts) -> float:
        """Count the rows by which a group exceeds what a part lacks."""
        excess = 0.0
        for stratum, count in counts:
            excess += max(0.0, count - self.lacking[part][stratum])
        return excess

    def _draw_part(self, parts: Sequence[int], counts: _StratumCounts, random: float) -> int:
        bounds, total = [], 0.0
        for part in parts:
            for stratum, count in counts:
                total += count * self.lacking[part][stratum] / self.rest[stratum]
            bounds.append(total)
        return next(part for part, bound in zip(parts, bounds, strict=True) if random * total <= bound)


def _fill_empty_parts(parts: np.ndarray, order: np.ndarray, used: Sequence[int]) -> None:
    """Give a part without a group the smallest group of the part with most groups, if that has two or more."""
    import numpy as np

    for part in used:
        counts = np.bincount(parts, minlength=max(used) + 1)
        most = int(np.argmax(counts))
        if counts[part] == 0 and counts[most] > 1:
            smallest = order[parts[order] == most][-1]
            parts[smallest] = part
