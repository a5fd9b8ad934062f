"""Numbers as people read them: the one place that decides on digits, separators and exponents.

Consoles, pages, figures and messages use it. Files that programs read, such as JSON, hold all digits.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

_DIGITS = 5  # significant digits; digits before the point are never rounded
_LARGE, _SMALL = 1e15, 1e-4  # beyond which numbers are written with an exponent
_FIRST_YEAR, _LAST_YEAR = 1000, 2999
_YEAR_WORDS = frozenset({"year", "yr", "jahr", "jaar", "annee", "année", "ano", "año", "anno", "rok"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
_NUMBER = re.compile(r"([<+-]? ?[0-9][0-9,]*)(\.[0-9]+)?(e[+-][0-9]+)?( ?(?:%|ms|s|h|B|[KMG]i?B|points))?")


def write_number(value: float | None) -> str:
    """Write a number with five significant digits, whole numbers with all of theirs.

    For example `0.8123`, `12.346`, `98,000` and `260,000`. An exponent is written only beyond 1e15 and below 1e-4.
    """
    if value is not None and math.isfinite(value) and value == int(value) and abs(value) < _LARGE:
        return f"{int(value):,}"
    digits, exponent, power = write_measure(value).partition("e")
    return (digits.rstrip("0").removesuffix(".") if "." in digits else digits) + exponent + power


def write_measure(value: float | None) -> str:
    """Write a measured number: like `write_number`, but with the zeros that its digits have, such as `1.0000`."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= _LARGE or 0 < abs(value) < _SMALL:
        return f"{value:.2e}"
    return f"{value:,.{_count_decimals(value)}f}"


def write_signed(value: float) -> str:
    """Write a difference, with its sign."""
    return f"+{write_measure(value)}" if value > 0 else write_measure(value)


def write_column(values: Sequence[float | None]) -> list[str]:
    """Write numbers of one unit with the same number of decimals, those of the largest."""
    finite = [abs(value) for value in values if value is not None and math.isfinite(value)]
    if not finite or not _SMALL <= max(finite) < _LARGE or all(isinstance(value, int) for value in values):
        return [write_measure(value) for value in values]
    decimals = _count_decimals(max(finite))
    return [
        # The addition turns -0.0 into 0.0.
        f"{round(value, decimals) + 0.0:,.{decimals}f}"
        if value is not None and math.isfinite(value)
        else write_measure(value)
        for value in values
    ]


def write_ticks(values: Sequence[float]) -> list[str]:
    """Write the evenly spaced ticks of an axis, with as many decimals as distinguish them.

    Numbers of four digits have a separator only beside longer ones, so that years are written as years.
    """
    step = min((abs(b - a) for a, b in itertools.pairwise(values) if a != b), default=0.0)
    largest = max(map(abs, values), default=0.0)
    if largest >= _LARGE or (step and step < _SMALL):
        return [f"{value:g}" for value in values]
    decimals = next((n for n in range(12) if abs(step - round(step, n)) < 1e-3 * step), 12) if step else 4
    group = "," if largest >= 1e4 else ""
    # The addition turns -0.0 into 0.0.
    return [f"{round(value, decimals) + 0.0:{group}.{decimals}f}" for value in values]


def is_year(name: str, low: float, high: float, is_whole: bool) -> bool:
    """Whether the numbers of a column are years: whole numbers of four digits, with a word for year in its name."""
    words = {word.lower() for word in _WORD.findall(name)}
    return is_whole and low >= _FIRST_YEAR and high <= _LAST_YEAR and not words.isdisjoint(_YEAR_WORDS)


def write_values(name: str, values: Sequence[float]) -> list[str]:
    """Write numbers of a column of the data: years without separators."""
    whole = all(value == math.floor(value) for value in values)
    if values and is_year(name, min(values), max(values), whole):
        return [str(int(value)) for value in values]
    return list(map(write_number, values))


def is_number_text(text: str) -> bool:
    """Whether a text is a written number, with a unit or without."""
    return _NUMBER.fullmatch(text) is not None


def align_decimals(texts: Sequence[str]) -> list[str]:
    """Pad written numbers to one length, so that their decimal points stand below each other; others to the right."""
    parts = [_NUMBER.fullmatch(text) for text in texts]
    tails = [text[len(match[1]) :] if match else "" for text, match in zip(texts, parts, strict=True)]
    heads = [match[1] if match else "" for match in parts]
    before, after = (max(map(len, each), default=0) for each in (heads, tails))
    width = max([before + after, *(len(text) for text, match in zip(texts, parts, strict=True) if not match)])
    return [
        f"{head:>{before}}{tail:<{after}}".rjust(width) if match else text.rjust(width)
        for text, match, head, tail in zip(texts, parts, heads, tails, strict=True)
    ]


def _count_decimals(value: float) -> int:
    """Count the decimals of a number: five significant digits at 1 and above, below four decimals or three digits."""
    size = float(f"{abs(value):.{_DIGITS - 1}e}")  # rounded first: 9.99996 has the decimals of 10
    if size >= 1:
        return max(0, _DIGITS - 1 - math.floor(math.log10(size)))
    size = float(f"{abs(value):.2e}")
    return _DIGITS - 1 if size == 0 or size >= 1e-2 else 2 - math.floor(math.log10(size))
