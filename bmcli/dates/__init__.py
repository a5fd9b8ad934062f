"""Date formats as regular expressions, which the preparation of tables and served models share.

A format is `iso`, `seconds` or `milliseconds` since 1970, or a text with directives of Python's `strptime`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
EPOCHS = {"seconds": 1, "milliseconds": 1000}
"""Formats that are a number since 1970, with its units per second."""
FIRST_YEAR, LAST_YEAR = 2, 9998
"""Years of dates. Databases and spreadsheets write 0000-00-00, 0001-01-01 or 9999-12-31 where there is no date."""

_MONTH_NAMES = "january|february|march|april|may|june|july|august|september|october|november|december|sept|" + "|".join(
    MONTHS
)
_ZONE = "[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?"
_DIRECTIVES = {
    "Y": ("year", "[0-9]{4}"),
    "y": ("short_year", "[0-9]{2}"),
    "m": ("month", "0?[1-9]|1[0-2]"),
    "b": ("month_name", rf"(?i:{_MONTH_NAMES})"),
    "B": ("month_name", rf"(?i:{_MONTH_NAMES})"),
    "d": ("day", "0?[1-9]|[12][0-9]|3[01]"),
    "G": ("iso_year", "[0-9]{4}"),
    "V": ("iso_week", "0[1-9]|[1-4][0-9]|5[0-3]"),
    "u": ("iso_day", "[1-7]"),
    "H": ("hour", "[01]?[0-9]|2[0-3]"),
    "I": ("half_hour", "0?[1-9]|1[0-2]"),
    "p": ("half", r"(?i:[ap]\.?m\.?)"),
    "M": ("minute", "[0-5]?[0-9]"),
    "S": ("second", "[0-5]?[0-9]"),
    "f": ("fraction", "[0-9]{1,9}"),
    "z": ("zone", _ZONE),
    "a": ("", r"(?i:mon|tues?|wed|thu(?:rs?)?|fri|sat|sun)\.?"),
    "A": ("", "(?i:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"),
    "%": ("", "%"),
}
_SUFFIXES = {"b": r"\.?", "d": "(?i:st|nd|rd|th)?"}
"""Characters that may follow a directive: `Jan.`, `31st`."""
_ISO = (
    "(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12][0-9]|3[01])"
    "(?:(?:[Tt]| +)(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
    f"(?::(?P<second>[0-5][0-9])(?:[.,](?P<fraction>[0-9]{{1,9}}))?)?(?: *(?P<zone>{_ZONE}))?)?"
)
_ISO_FIELDS = ("year", "month", "day", "hour", "minute", "second", "fraction", "zone")

DATE_LIKE = re.compile(
    r"\d{4}-\d{1,2}(-\d{1,2})?([T ]\d{1,2}:\d{2}.*)?|\d{4}/\d{1,2}/\d{1,2}.*|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?"
)
"""Texts that look like dates or months, whether or not a common format matches them."""


@dataclass(frozen=True)
class DatePattern:
    """Regular expression of one date format.

    Args:
        regex: Pattern of the whole cell, in the syntax of RE2, which both Arrow and TensorFlow use. Its groups have
            the names of their fields.
        fields: Field of the date for each group of the pattern, in their order.
    """

    regex: str
    fields: tuple[str, ...]


@cache
def compile_format(date_format: str) -> DatePattern:
    """Return the pattern of a format.

    Raises:
        ValueError: The format has an unknown directive, repeats a field, or lacks year or month; with a message for
            the user.
    """
    if date_format == "iso":
        return DatePattern(_ISO, _ISO_FIELDS)
    if date_format in EPOCHS:
        return DatePattern(r"(?P<number>[+-]?[0-9]{1,15}(?:\.[0-9]*)?)", ("number",))
    regex, fields = "", []
    # Without separators only a fixed width shows where one number ends and the next begins.
    without_separators = re.search(r"%[YymdHIMSb]%", date_format)
    for literal, directive in re.findall(r"([^%]+)|%(.?)", date_format):
        if literal:
            regex += re.escape(literal).replace("\\ ", " +")
        elif directive not in _DIRECTIVES:
            raise ValueError(f"no directive '%{directive}' for dates")
        else:
            field, group = _DIRECTIVES[directive]
            # A number has no zero before its first digit.
            group = group.replace("?[", "[") if without_separators and regex else group
            regex += f"(?P<{field}>{group})" if field else group
            regex += "" if without_separators else _SUFFIXES.get(directive, "")
            fields += [field] if field else []
    _check_fields(date_format, fields)
    # Other programs write whole numbers as 20210131.0 where some cells are missing.
    return DatePattern(regex + (r"(?:\.0*)?" if is_compact(date_format) else ""), tuple(fields))


def write_example(date_format: str) -> str:
    """Write a date in a format."""
    example = datetime(2021, 1, 31, 14, 5, tzinfo=UTC)
    if date_format in EPOCHS:
        return str(int(example.timestamp()) * EPOCHS[date_format])
    return example.strftime("%Y-%m-%d" if date_format == "iso" else date_format)


def list_formats(formats: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats of an option, which may be one, several or none."""
    return (formats,) if isinstance(formats, str) else tuple(formats or ())


def find_format_problem(formats: str | Sequence[str] | None) -> tuple[str, str] | None:
    """Return what is wrong with the formats of an option, and the next step; None if nothing is."""
    for date_format in list_formats(formats):
        try:
            compile_format(date_format)
        except ValueError as error:
            return f"{error}.", "Write iso, seconds, milliseconds, or directives such as %Y-%m-%d %H:%M:%S."
    return None if formats is None or formats else ("expected at least one format, received none.", "")


def is_compact(date_format: str) -> bool:
    """Whether cells of a format are whole numbers, such as 20210131."""
    return re.fullmatch("%Y%m(%d(%H(%M(%S)?)?)?)?|%d%m%Y|%m%d%Y", date_format) is not None


def _check_fields(date_format: str, fields: Sequence[str]) -> None:
    if len(set(fields)) < len(fields):
        raise ValueError(f"'{date_format}' contains a field twice")
    has_month = {"year", "short_year"} & set(fields) and {"month", "month_name"} & set(fields)
    has_week = {"iso_year", "iso_week"} <= set(fields)
    if not has_month and not has_week:
        raise ValueError(f"'{date_format}' lacks the year or the month")
    if has_month and {"iso_year", "iso_week", "iso_day"} & set(fields):
        raise ValueError(f"'{date_format}' contains both a month and a week")
    if ("half_hour" in fields) != ("half" in fields):
        raise ValueError(f"'{date_format}' needs both %I and %p")
