"""Dates in texts as times, in NumPy; `layers.date_encoder` reads the same ones inside of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bmcli.dates import EPOCHS, FIRST_YEAR, LAST_YEAR, MONTHS, compile_format

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MICROSECONDS = 1_000_000
_DAY_S = 86_400
LAST_S = 2**38  # in the year 10,680
_WHITESPACE = " \t\n\v\f\r"


def parse_times(cells: pa.ChunkedArray, formats: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Parse each text in the first format that matches it.

    Returns:
        Microseconds since 1970, int64, in UTC where the cell has a zone, 0 where it is no date; and whether it is one;
        both `(cells,)`. A null, and a day that does not exist, is no date.
    """
    import numpy as np
    import pyarrow.compute as pc

    cells = pc.utf8_trim(cells, _WHITESPACE)
    times, found = np.zeros(len(cells), "int64"), np.zeros(len(cells), bool)
    for date_format in formats:
        parsed, fits = _parse_format(cells, date_format)
        times = np.where(fits & ~found, parsed, times)
        found |= fits
    return times, found


def parse_years(cells: pa.ChunkedArray, regex: str, fields: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the year of the day in each text, 0 where there is none, and whether there is one; both `(cells,)`.

    Args:
        regex: Pattern of the whole text, with groups for the fields of a day.
    """
    import numpy as np
    import pyarrow.compute as pc

    groups = pc.extract_regex(cells, regex)
    fits = np.asarray(pc.is_valid(groups))
    rows = np.flatnonzero(fits)
    groups = groups.filter(pc.is_valid(groups))
    days, valid = _count_days({field: pc.struct_field(groups, field) for field in fields}, len(rows))
    years = np.zeros(len(cells), "int64")
    fits[rows] = valid
    years[rows] = np.where(valid, days.astype("datetime64[D]").astype("datetime64[Y]").astype("int64") + 1970, 0)
    return years, fits


def _parse_format(cells: pa.ChunkedArray, date_format: str) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    import pyarrow.compute as pc

    pattern = compile_format(date_format)
    groups = pc.extract_regex(cells, f"^(?:{pattern.regex})$")
    fits = np.asarray(pc.is_valid(groups))
    # Only the cells that match: most formats of a column with several match a part of its cells.
    rows = np.flatnonzero(fits)
    groups = groups.filter(pc.is_valid(groups))
    texts = {field: pc.struct_field(groups, field) for field in pattern.fields}
    if date_format in EPOCHS:
        values = np.asarray(pc.cast(texts["number"], "float64"), "float64") / EPOCHS[date_format]
        valid = np.abs(values) < LAST_S
        values = np.where(valid, values, 0.0)
        whole = np.floor(values)
        found = whole.astype("int64") * MICROSECONDS + ((values - whole) * MICROSECONDS).astype("int64")
    else:
        days, valid = _count_days(texts, len(rows))
        found = (days * _DAY_S + _count_seconds(texts, len(rows)) - _read_zone(texts, len(rows))) * MICROSECONDS
        found += _read_fraction(texts, len(rows))
    times = np.zeros(len(cells), "int64")
    times[rows], fits[rows] = np.where(valid, found, 0), valid
    return times, fits


def _read_integers(texts: dict[str, Any], field: str, count: int, otherwise: int = 0) -> np.ndarray:
    """Read a field as integers; `otherwise` where it is empty, or the format has no such field."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if field not in texts:
        return np.full(count, otherwise, "int64")
    digits = pc.if_else(pc.equal(texts[field], ""), str(otherwise), texts[field])
    return np.asarray(pc.cast(digits, pa.int64()), "int64")


def _count_days(texts: dict[str, Any], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the days since 1970, and whether each date exists."""
    import numpy as np

    if "iso_year" in texts:
        return _count_week_days(texts, count)
    if "year" in texts:
        year = _read_integers(texts, "year", count, 1970)
    else:
        short = _read_integers(texts, "short_year", count)
        year = short + np.where(short < 69, 2000, 1900)  # the rule of POSIX
    month, day = _read_month(texts, count), _read_integers(texts, "day", count, 1)
    months = (year - 1970) * 12 + month - 1
    first, after = (_to_days(months + more, "M") for more in (0, 1))
    return first + day - 1, (day <= after - first) & (year >= FIRST_YEAR) & (year <= LAST_YEAR)


def _count_week_days(texts: dict[str, Any], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the days of weeks of ISO 8601, of their Monday if they have no day."""
    year, week = _read_integers(texts, "iso_year", count), _read_integers(texts, "iso_week", count)
    # The 4th of January is in the first week of its year. 1970 began on a Thursday.
    fourth = _to_days(year - 1970, "Y") + 3
    monday = fourth - (fourth + 3) % 7 + 7 * (week - 1)
    # The year of a week is that of its Thursday: only some years have a week 53.
    exists = monday + 3 < _to_days(year - 1969, "Y")
    day = _read_integers(texts, "iso_day", count, 1)
    return monday + day - 1, exists & (year >= FIRST_YEAR) & (year <= LAST_YEAR)


def _to_days(periods: np.ndarray, unit: str) -> np.ndarray:
    """Return the first days of periods since 1970, such as months, as days since 1970."""
    return periods.astype(f"datetime64[{unit}]").astype("datetime64[D]").astype("int64")


def _read_month(texts: dict[str, Any], count: int) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if "month_name" not in texts:
        return _read_integers(texts, "month", count, 1)
    names = pc.utf8_slice_codeunits(pc.ascii_lower(texts["month_name"]), 0, 3)
    return np.asarray(pc.index_in(names, value_set=pa.array(MONTHS)), "int64") + 1


def _count_seconds(texts: dict[str, Any], count: int) -> np.ndarray:
    """Count the seconds since midnight."""
    import numpy as np
    import pyarrow.compute as pc

    hour = _read_integers(texts, "hour", count)
    if "half" in texts:
        afternoon = np.asarray(pc.starts_with(texts["half"], "p", ignore_case=True)).astype("int64")
        hour = _read_integers(texts, "half_hour", count) % 12 + 12 * afternoon
    return hour * 3600 + _read_integers(texts, "minute", count) * 60 + _read_integers(texts, "second", count)


def _read_fraction(texts: dict[str, Any], count: int) -> np.ndarray:
    """Read a fraction of a second in microseconds."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if "fraction" not in texts:
        return np.zeros(count, "int64")
    digits = pc.utf8_slice_codeunits(pc.utf8_rpad(texts["fraction"], 6, "0"), 0, 6)
    return np.asarray(pc.cast(digits, pa.int64()), "int64")


def _read_zone(texts: dict[str, Any], count: int) -> np.ndarray:
    """Read the seconds by which the time zone is ahead of UTC."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if "zone" not in texts:
        return np.zeros(count, "int64")
    # `Z` and `UTC` become +0000, and `+01` becomes +0100.
    zone = pc.binary_join_element_wise(pc.replace_substring_regex(texts["zone"], "[A-Za-z:]", ""), "0000", "")
    zone = pc.if_else(pc.starts_with(zone, "0"), "+0000", zone)
    hours, minutes = (
        np.asarray(pc.cast(pc.utf8_slice_codeunits(zone, start, start + 2), pa.int64()), "int64") for start in (1, 3)
    )
    ahead = hours * 3600 + minutes * 60
    return np.where(np.asarray(pc.starts_with(zone, "-")), -ahead, ahead)
