"""How rows are dealt to parts of stated shares: by chance, by group, by time, or by the hash of what they hold.

The part of a row follows from the data and the seed alone, on any machine and with any version of numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bmcli.errors import BmcliError

if TYPE_CHECKING:
    import numpy as np


class Splitter(Protocol):
    """A way to deal rows."""

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        """The part of each row, a whole number `(len(rows),)`.

        Args:
            rows: Places of the rows that are dealt, ascending.
            shares: Share of each part, adding up to 1; a part whose share is 0 gets no row.
        """

    def describe_units(self, rows: np.ndarray) -> str:
        """What there is to deal, as `5 rows` or `3 groups`: where it is less than the parts, one of them is empty."""


@dataclass(frozen=True)
class RandomSplitter:
    """Each row by itself.

    Args:
        strata: A whole number for each row; every part keeps their proportions within one row.
    """

    seed: int
    strata: np.ndarray | None = None

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        fractions = np.array(shares)
        strata = np.zeros(len(rows), "int64") if self.strata is None else self.strata[rows]
        # The bit stream of PCG64 is guaranteed for good; that of numpy's shuffle is not.
        order = np.argsort(np.random.PCG64(self.seed).random_raw(len(rows)), kind="stable")
        order = order[np.argsort(strata[order], kind="stable")]
        parts = np.empty(len(rows), "int64")
        owed = np.zeros(len(fractions))
        for stratum in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
            counts = _counts(len(stratum), fractions, owed)
            owed += len(stratum) * fractions - counts
            parts[stratum] = np.repeat(np.arange(len(fractions)), counts)
        return parts

    def describe_units(self, rows: np.ndarray) -> str:
        return f"{len(rows)} rows"


@dataclass(frozen=True)
class GroupSplitter:
    """All rows of a group together.

    Large groups are dealt first and small ones make up for them, so that the shares are met as well as the sizes of
    the groups allow. A group goes to a part with the chance that its rows would have one by one, among the parts that
    still have room for it.

    Args:
        groups: A whole number for each row.
        strata: A whole number for each row; the parts keep their proportions as well as whole groups allow.
    """

    seed: int
    groups: np.ndarray
    strata: np.ndarray | None = None

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        names, of_row = np.unique(self.groups[rows], return_inverse=True)
        strata = np.zeros(len(rows), "int64") if self.strata is None else self.strata[rows]
        sizes = np.bincount(of_row)
        chance = np.random.PCG64(self.seed).random_raw(2 * len(names))
        order = np.lexsort((chance[: len(names)], -sizes))
        tallies = _tallies(of_row, strata)
        room = _RemainingRows(shares, np.bincount(strata).tolist())
        parts = np.empty(len(names), "int64")
        for group in order.tolist():
            parts[group] = room.assign_group(tallies[group], int(chance[len(names) + group]) / 2**64)
        _fill_empty(parts, order, [part for part, share in enumerate(shares) if share > 0])
        return parts[of_row]

    def describe_units(self, rows: np.ndarray) -> str:
        import numpy as np

        return f"{len(np.unique(self.groups[rows]))} groups"


@dataclass(frozen=True)
class TimeSplitter:
    """The oldest rows to the first part, the newest to the last; rows of one moment together.

    Args:
        times: A number for each row, larger for later ones.
    """

    times: np.ndarray

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        _, of_row, counts = np.unique(self.times[rows], return_inverse=True, return_counts=True)
        ends = np.concatenate([[0], np.cumsum(counts)])
        wanted = [part for part, share in enumerate(shares) if share > 0]
        parts = np.empty(len(counts), "int64")
        first, target = 0, 0.0
        for later, part in zip(range(len(wanted) - 1, -1, -1), wanted, strict=True):
            target += shares[part] * len(rows)
            nearest = int(np.argmin(np.abs(ends - round(target, 6)))) if later else len(counts)
            last = min(max(nearest, first + 1), max(len(counts) - later, first + 1), len(counts))
            parts[first:last] = part
            first = last
        return parts[of_row]

    def describe_units(self, rows: np.ndarray) -> str:
        import numpy as np

        return f"{len(np.unique(self.times[rows]))} different times"


@dataclass(frozen=True)
class HashSplitter:
    """By numbers that follow from what each row holds, so that a row keeps its part when others come.

    Args:
        hashes: uint64 for each row, evenly spread.
    """

    hashes: np.ndarray

    def assign_parts(self, rows: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        import numpy as np

        wanted = np.flatnonzero(np.array(shares) > 0)
        borders = np.cumsum(np.array(shares)[wanted])[:-1]
        places = (self.hashes[rows] >> np.uint64(11)).astype("float64") * 2.0**-53
        return wanted[np.searchsorted(borders, places, side="right")]

    def describe_units(self, rows: np.ndarray) -> str:
        import numpy as np

        return f"{len(np.unique(self.hashes[rows]))} different rows"


def split_folds(splitter: Splitter, rows: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and rows to test on, `count` times, dealt like the splits.

    Every row is tested once. In the order of time, each fold trains on all that is older than its test rows, and
    the oldest rows are never tested.

    These keep what scikit-learn's splitters keep: StratifiedKFold the proportions of classes within one row,
    GroupKFold whole groups, StratifiedGroupKFold both (its folds differ more in size), TimeSeriesSplit the order, with
    the same rows in each fold where every row has a time of its own. They are dealt here since a fold has to be what
    `data.split` would make of the same rows, so that any of them can be trained by itself and on another machine:
    `HashSplitter` keeps a row in its fold when others are added, rows of one moment stay together, which
    TimeSeriesSplit cuts apart by position, and nothing rests on the shuffling of a version of numpy.

    Raises:
        BmcliError: There is less to deal than there are folds.
    """
    import numpy as np

    ordered = isinstance(splitter, TimeSplitter)
    number = count + 1 if ordered else count
    parts = splitter.assign_parts(rows, [1 / number] * number)
    if len(np.unique(parts)) < number:
        raise BmcliError(
            f"{splitter.describe_units(rows)} are too few for {count} folds.", suggestion="Ask for fewer folds."
        )
    for part in range(number - count, number):
        yield rows[parts < part if ordered else parts != part], rows[parts == part]


def _counts(rows: int, fractions: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """Whole numbers next to `rows * fractions` with the sum `rows`.

    Those that earlier strata left short are rounded up first, so that many small strata do not add up to
    skewed parts.
    """
    import numpy as np

    exact = np.round(rows * fractions, 6)
    counts = np.floor(exact).astype("int64")
    claims = np.where(exact > counts, exact - counts + owed, -np.inf)
    counts[np.argsort(-claims, kind="stable")[: rows - counts.sum()]] += 1
    return counts


_Tally = list[tuple[int, int]]  # strata and how many rows a group has in each


def _tallies(groups: np.ndarray, strata: np.ndarray) -> list[_Tally]:
    """How many rows each group has in each stratum."""
    import numpy as np

    width = int(strata.max()) + 1
    pairs, counts = np.unique(groups * width + strata, return_counts=True)
    tallies: list[_Tally] = [[] for _ in range(int(groups.max()) + 1)]
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        tallies[pair // width].append((pair % width, count))
    return tallies


class _RemainingRows:
    """Rows of each stratum that each part still lacks.

    Sums are made one by one in Python, because those of numpy differ in their last bits between processors.
    """

    def __init__(self, shares: Sequence[float], totals: Sequence[int]) -> None:
        self.lacking = {part: [share * total for total in totals] for part, share in enumerate(shares) if share > 0}
        self.rest = list(totals)

    def assign_group(self, tally: _Tally, chance: float) -> int:
        """The part that a group goes to, by a number from 0 to 1."""
        with_room = [part for part in self.lacking if self._excess(part, tally) < 1e-6]
        part = self._draw_part(with_room, tally, chance) if with_room else self._least_excess(tally)
        for stratum, count in tally:
            self.lacking[part][stratum] -= count
            self.rest[stratum] -= count
        return part

    def _excess(self, part: int, tally: _Tally) -> float:
        excess = 0.0
        for stratum, count in tally:
            excess += max(0.0, count - self.lacking[part][stratum])
        return excess

    def _least_excess(self, tally: _Tally) -> int:
        return min(self.lacking, key=lambda part: self._excess(part, tally))

    def _draw_part(self, parts: Sequence[int], tally: _Tally, chance: float) -> int:
        bounds, total = [], 0.0
        for part in parts:
            for stratum, count in tally:
                total += count * self.lacking[part][stratum] / self.rest[stratum]
            bounds.append(total)
        return next(part for part, bound in zip(parts, bounds, strict=True) if chance * total <= bound)


def _fill_empty(parts: np.ndarray, order: np.ndarray, wanted: Sequence[int]) -> None:
    """Gives a part without a group the smallest group of the part that has most, if that one has two."""
    import numpy as np

    for part in wanted:
        counts = np.bincount(parts, minlength=max(wanted) + 1)
        most = int(np.argmax(counts))
        if counts[part] == 0 and counts[most] > 1:
            smallest = order[parts[order] == most][-1]
            parts[smallest] = part
