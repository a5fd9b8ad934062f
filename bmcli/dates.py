"""Formats of dates as regular expressions, which tables and served models read alike.

A format is `iso`, `seconds` or `milliseconds` since 1970, or directives as Python's `strptime` has them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
EPOCHS = {"seconds": 1, "milliseconds": 1000}
"""Formats that are a number, with how many of its units are a second."""

_NAMES_OF_MONTHS = (
    "january|february|march|april|may|june|july|august|september|october|november|december|sept|" + "|".join(MONTHS)
)
_DIRECTIVES = {
    "Y": ("year", r"([0-9]{4})"),
    "y": ("short_year", r"([0-9]{2})"),
    "m": ("month", r"(0?[1-9]|1[0-2])"),
    "b": ("month_name", rf"((?i:{_NAMES_OF_MONTHS}))"),
    "B": ("month_name", rf"((?i:{_NAMES_OF_MONTHS}))"),
    "d": ("day", r"(0?[1-9]|[12][0-9]|3[01])"),
    "H": ("hour", r"([01]?[0-9]|2[0-3])"),
    "I": ("half_hour", r"(0?[1-9]|1[0-2])"),
    "p": ("half", r"((?i:am|pm))"),
    "M": ("minute", r"([0-5]?[0-9])"),
    "S": ("second", r"([0-5]?[0-9])"),
    "f": ("", r"[0-9]{1,9}"),
    "z": ("zone", r"(Z|[+-][0-9]{2}:?[0-9]{2})"),
    "a": ("", r"(?i:mon|tue|wed|thu|fri|sat|sun)"),
    "A": ("", r"(?i:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"),
    "%": ("", "%"),
}
_ISO = (
    r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(?:[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.,][0-9]{1,9})?)?(?: ?(Z|[+-][0-9]{2}:?[0-9]{2}))?)?"
)
_ISO_FIELDS = ("year", "month", "day", "hour", "minute", "second", "zone")
_DAYS = (
    *("%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *(f"{day}{sign}%{year}" for sign in "/.-" for day in (f"%d{sign}%m", f"%m{sign}%d") for year in "Yy"),
    *("%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d %Y", "%b %d, %Y", "%a, %d %b %Y", "%a %b %d %Y", "%b %Y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S %z")
COMMON_FORMATS = ("iso", *(day + time for day in _DAYS for time in _TIMES), "%Y%m%dT%H%M%S", *EPOCHS)
"""Formats that are tried on a column that names none."""

# Of numbers only those are taken for moments unasked that lie between 1973 and 2286.
_LIKELY_EPOCHS = {"seconds": r"[0-9]{9,10}(?:\.[0-9]*)?", "milliseconds": "[0-9]{12,13}"}
_SAMPLE, _FEW = 1000, 100
_SPACE = " \t\n\v\f\r"


@dataclass(frozen=True)
class DatePattern:
    """How the cells of one format look.

    Args:
        regex: In the syntax of RE2, for the whole cell.
        fields: What each of its groups is, in their order.
    """

    regex: str
    fields: tuple[str, ...]


def compile_format(date_format: str) -> DatePattern:
    """The pattern of a format.

    Raises:
        ValueError: It has an unknown directive, one twice, or no full date.
    """
    if date_format == "iso":
        return DatePattern(_ISO, _ISO_FIELDS)
    if date_format in EPOCHS:
        return DatePattern(r"([+-]?[0-9]{1,15}(?:\.[0-9]*)?)", ("number",))
    regex, fields = "", []
    without_signs = re.search(r"%[YymdHIMS]%", date_format)
    for literal, directive in re.findall(r"([^%]+)|%(.?)", date_format):
        if literal:
            regex += re.escape(literal).replace("\\ ", " +")
        elif directive not in _DIRECTIVES:
            raise ValueError(f"no directive '%{directive}' in dates")
        else:
            field, group = _DIRECTIVES[directive]
            regex += group.replace("?[", "[") if without_signs else group
            fields += [field] if field else []
    _check_fields(date_format, fields)
    return DatePattern(regex, tuple(fields))


def find_matching_formats(cells: pa.ChunkedArray) -> list[str]:
    """The usual formats in which all of the cells are written; cells that are null do not count."""
    import pyarrow.compute as pc

    told = pc.drop_null(cells)
    if not len(told):
        return []
    # A call of Arrow costs more than all formats of one cell, and most columns of text hold no dates.
    first, sample = told[0].as_py().strip(_SPACE), told.slice(0, _SAMPLE)
    likely = [form for form in COMMON_FORMATS if re.fullmatch(_regex(form), first) and _match_all(sample, form)]
    return [form for form in likely if _match_all(told, form)]


def select_formats(cells: pa.ChunkedArray) -> list[str]:
    """Usual formats that together read as many of the first cells as any, without one that adds nothing."""
    import numpy as np
    import pyarrow.compute as pc

    sample = pc.drop_null(cells).slice(0, _SAMPLE)
    reads = {form: np.asarray(match_format(sample, form)) for form in COMMON_FORMATS}
    chosen, left = [], np.ones(len(sample), bool)
    while any((reads[form] & left).any() for form in COMMON_FORMATS):
        best = max(COMMON_FORMATS, key=lambda form: int((reads[form] & left).sum()))
        chosen.append(best)
        left &= ~reads[best]
    return chosen


def has_mixed_formats(cells: pa.ChunkedArray) -> bool:
    """Whether the first cells are dates, but not all of them in one usual format; none is null."""
    import numpy as np
    import pyarrow.compute as pc

    some = cells.slice(0, _FEW)
    if not pc.all(pc.match_substring_regex(some, "[0-9]")).as_py():
        return False
    read = [np.asarray(match_format(some, form)) for form in select_formats(some)]
    return len(read) > 1 and bool(np.logical_or.reduce(read).all())


def match_format(cells: pa.ChunkedArray, date_format: str) -> pa.ChunkedArray:
    """Whether each cell is written in a usual format."""
    import pyarrow.compute as pc

    return pc.match_substring_regex(pc.ascii_trim_whitespace(cells), f"^(?:{_regex(date_format)})$")


@cache
def _regex(form: str) -> str:
    """Of a usual format, for the whole cell."""
    return _LIKELY_EPOCHS.get(form) or compile_format(form).regex


def _match_all(cells: pa.ChunkedArray, date_format: str) -> bool:
    import pyarrow.compute as pc

    return pc.all(match_format(cells, date_format)).as_py()


def _check_fields(date_format: str, fields: Sequence[str]) -> None:
    if len(set(fields)) < len(fields):
        raise ValueError(f"'{date_format}' tells the same twice")
    if not {"year", "short_year"} & set(fields) or not {"month", "month_name"} & set(fields):
        raise ValueError(f"'{date_format}' does not tell year and month")
    if ("half_hour" in fields) != ("half" in fields):
        raise ValueError(f"'{date_format}' needs %I and %p together")
