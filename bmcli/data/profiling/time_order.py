"""Columns of dates by which rows follow each other in time, such as those of hourly measurements.

Neighbours in time are alike. If the rows are split at random, a model is tested between rows that it has seen; it will
be used on later ones.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bmcli.data.splitting.splits import read_times
from bmcli.raw_columns import RawColumn, RowFault, to_texts

if TYPE_CHECKING:
    import numpy as np

_MIN_TIMES = 20  # distinct ones that are necessary: fewer are in order, or at equal distances, by chance
_MIN_REGULAR = 0.75  # share of the steps that are alike: those of working days are
_TOLERANCE = 0.1  # of a step from the median: months differ by as much
_MAX_REPEATED = 1.05  # rows of each time on average, from which on shuffled rows are in no order
_FREQUENT = 0.05  # share of the rows from which on a class must be among both the oldest and the newest
_UNITS = (
    ("year", 31_556_952), ("month", 2_629_746), ("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60),
    ("second", 1),
)  # fmt: skip
_BIRTH = re.compile(r"birth|born|\bdob\b|_dob\b|\bdob_|geburt|geboren", re.IGNORECASE)


def is_birth(name: str) -> bool:
    """Whether a column is named like a date of birth, which is no time of a row."""
    return _BIRTH.search(name) is not None


def describe_order(column: RawColumn, formats: Sequence[str]) -> str:
    """Describe in which way rows follow each other in time, as a clause; an empty text if they do not.

    They do if they are sorted by their times, or if the times are at equal distances and each has one row. They also do
    if the times are at equal distances and stand as often in order as each has rows, such as those of several sensors,
    one after the other. Dates of persons or orders are in no order.

    Args:
        formats: Date formats of the cells, as of `Guess.time_formats`.
    """
    import numpy as np

    times = _read_times(column, formats)
    if times is None:
        return ""
    distinct, counts = np.unique(times, return_counts=True)
    if len(distinct) < _MIN_TIMES:
        return ""
    changes, steps = np.diff(times), np.diff(distinct)
    ordered_runs = 1 + min(int((changes < 0).sum()), int((changes > 0).sum()))
    step = float(np.median(steps))
    is_regular = bool((np.abs(steps - step) <= _TOLERANCE * step).mean() >= _MIN_REGULAR)
    if is_regular and (ordered_runs <= counts.max() or counts.mean() < _MAX_REPEATED):
        return f"its times follow each other {_describe_step(step / 1e6)}"
    return "the rows are sorted by it" if ordered_runs == 1 else ""


def _read_times(column: RawColumn, formats: Sequence[str]) -> np.ndarray | None:
    """Read the times as the split would; None if a cell cannot be read."""
    with contextlib.suppress(RowFault):
        return read_times(column, () if tuple(formats) == ("iso",) else formats)
    return None


def _describe_step(seconds: float) -> str:
    """Describe a step as `every hour` or `every 15 minutes`."""
    for unit, length in _UNITS:
        count = round(seconds / length)
        if count and abs(seconds - count * length) <= _TOLERANCE * length / 2:
            return f"every {unit}" if count == 1 else f"every {count} {unit}s"
    return "at equal distances"


def divides_classes(column: RawColumn, formats: Sequence[str], classes: RawColumn, share: float) -> bool:
    """Whether a split by time takes frequent classes from the oldest or the newest rows.

    Args:
        classes: The target, a class for each row.
        share: Of the newest rows, and of the oldest ones.
    """
    import numpy as np

    times = _read_times(column, formats)
    if times is None:
        return False
    indices = to_texts(classes, fractions=True).combine_chunks().dictionary_encode().indices
    codes = np.asarray(indices.fill_null(-1))[np.argsort(times)]
    count = max(1, round(share * len(codes)))
    values, counts = np.unique(codes, return_counts=True)
    frequent = values[counts >= _FREQUENT * len(codes)]
    return not all(np.isin(frequent, part).all() for part in (codes[:count], codes[-count:]))
