"""Date formats as regular expressions, which the preparation of tables and served models share.

A format is `iso`, `seconds` or `milliseconds` since 1970, or a text with directives of Python's `strptime`.
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
"""Formats that are a number since 1970, with its units per second."""

_MONTH_NAMES = "january|february|march|april|may|june|july|august|september|october|november|december|sept|" + "|".join(
    MONTHS
)
_DIRECTIVES = {
    "Y": ("year", r"([0-9]{4})"),
    "y": ("short_year", r"([0-9]{2})"),
    "m": ("month", r"(0?[1-9]|1[0-2])"),
    "b": ("month_name", rf"((?i:{_MONTH_NAMES}))"),
    "B": ("month_name", rf"((?i:{_MONTH_NAMES}))"),
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
_DAY_FORMATS = (
    *("%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *(f"{day}{sign}%{year}" for sign in "/.-" for day in (f"%d{sign}%m", f"%m{sign}%d") for year in "Yy"),
    *("%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d %Y", "%b %d, %Y", "%a, %d %b %Y", "%a %b %d %Y", "%b %Y"),
)
_TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S %z")
COMMON_FORMATS = ("iso", *(day + time for day in _DAY_FORMATS for time in _TIME_FORMATS), "%Y%m%dT%H%M%S", *EPOCHS)
"""Formats that are tried on a column without a configured format."""

DATE_LIKE = re.compile(
    r"\d{4}-\d{1,2}(-\d{1,2})?([T ]\d{1,2}:\d{2}.*)?|\d{4}/\d{1,2}/\d{1,2}.*|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?"
)
"""Texts that look like dates or months, whether or not a common format matches them."""

# Any number could be seconds since 1970. Without a configured format only numbers of the years 1973 to 2286 count as
# dates, so that ordinary numbers are not mistaken for them.
_LIKELY_EPOCHS = {"seconds": r"[0-9]{9,10}(?:\.[0-9]*)?", "milliseconds": "[0-9]{12,13}"}
_SAMPLE, _MIXED_SAMPLE = 1000, 100
_WHITESPACE = " \t\n\v\f\r"


@dataclass(frozen=True)
class DatePattern:
    """Regular expression of one date format.

    Args:
        regex: Pattern of the whole cell, in the syntax of RE2, which both Arrow and TensorFlow use.
        fields: Field of the date for each group of the pattern, in their order.
    """

    regex: str
    fields: tuple[str, ...]


def compile_format(date_format: str) -> DatePattern:
    """Return the pattern of a format.

    Raises:
        ValueError: The format has an unknown directive, repeats a field, or lacks year or month; with a message for
            the user.
    """
    if date_format == "iso":
        return DatePattern(_ISO, _ISO_FIELDS)
    if date_format in EPOCHS:
        return DatePattern(r"([+-]?[0-9]{1,15}(?:\.[0-9]*)?)", ("number",))
    regex, fields = "", []
    # Without separators only a fixed width shows where one number ends and the next begins.
    without_separators = re.search(r"%[YymdHIMS]%", date_format)
    for literal, directive in re.findall(r"([^%]+)|%(.?)", date_format):
        if literal:
            regex += re.escape(literal).replace("\\ ", " +")
        elif directive not in _DIRECTIVES:
            raise ValueError(f"no directive '%{directive}' for dates")
        else:
            field, group = _DIRECTIVES[directive]
            regex += group.replace("?[", "[") if without_separators else group
            fields += [field] if field else []
    _check_fields(date_format, fields)
    return DatePattern(regex, tuple(fields))


def find_matching_formats(cells: pa.ChunkedArray) -> list[str]:
    """Return the common formats that match every cell; nulls do not count."""
    import pyarrow.compute as pc

    present = pc.drop_null(cells)
    if not len(present):
        return []
    # A call of Arrow costs more than all formats of one cell, and most columns of text hold no dates.
    first, sample = present[0].as_py().strip(_WHITESPACE), present.slice(0, _SAMPLE)
    likely = [form for form in COMMON_FORMATS if re.fullmatch(_get_regex(form), first) and _match_all(sample, form)]
    return [form for form in likely if _match_all(present, form)]


def select_formats(cells: pa.ChunkedArray) -> list[str]:
    """Choose common formats that together match as many of the first cells as possible, by greedy set cover.

    A format that matches no further cell is left out.
    """
    import numpy as np
    import pyarrow.compute as pc

    sample = pc.drop_null(cells).slice(0, _SAMPLE)
    matches = {form: np.asarray(match_format(sample, form)) for form in COMMON_FORMATS}
    chosen, unmatched = [], np.ones(len(sample), bool)
    while any((matches[form] & unmatched).any() for form in COMMON_FORMATS):
        best = max(COMMON_FORMATS, key=lambda form: int((matches[form] & unmatched).sum()))
        chosen.append(best)
        unmatched &= ~matches[best]
    return chosen


def has_mixed_formats(cells: pa.ChunkedArray) -> bool:
    """Whether the first cells, none of them null, are dates, but in more than one common format."""
    import numpy as np
    import pyarrow.compute as pc

    sample = cells.slice(0, _MIXED_SAMPLE)
    if not pc.all(pc.match_substring_regex(sample, "[0-9]")).as_py():
        return False
    matches = [np.asarray(match_format(sample, form)) for form in select_formats(sample)]
    return len(matches) > 1 and bool(np.logical_or.reduce(matches).all())


def match_format(cells: pa.ChunkedArray, date_format: str) -> pa.ChunkedArray:
    """Whether each cell matches a common format, null where the cell is null."""
    import pyarrow.compute as pc

    return pc.match_substring_regex(pc.ascii_trim_whitespace(cells), f"^(?:{_get_regex(date_format)})$")


@cache
def _get_regex(date_format: str) -> str:
    """Return the regular expression of a common format, for the whole cell."""
    return _LIKELY_EPOCHS.get(date_format) or compile_format(date_format).regex


def _match_all(cells: pa.ChunkedArray, date_format: str) -> bool:
    import pyarrow.compute as pc

    return pc.all(match_format(cells, date_format)).as_py()


def _check_fields(date_format: str, fields: Sequence[str]) -> None:
    if len(set(fields)) < len(fields):
        raise ValueError(f"'{date_format}' contains a field twice")
    if not {"year", "short_year"} & set(fields) or not {"month", "month_name"} & set(fields):
        raise ValueError(f"'{date_format}' lacks the year or the month")
    if ("half_hour" in fields) != ("half" in fields):
        raise ValueError(f"'{date_format}' needs both %I and %p")
