"""How the dates of a column are written, guessed from all of its cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from bmcli.dates import EPOCHS, compile_format, is_compact
from bmcli.dates.parsing import parse_years
from bmcli.notation import find_markers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_NUMERIC_FORMATS = tuple(
    sign.join(parts)
    for sign in "/-."
    for parts in (("%m", "%d", "%Y"), ("%d", "%m", "%Y"), ("%m", "%d", "%y"), ("%d", "%m", "%y"), ("%y", "%m", "%d"))
)
DAY_FORMATS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", *_NUMERIC_FORMATS, "%d. %m. %Y", "%m%d%Y", "%d%m%Y"),
    *("%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d/%b/%Y", "%d%b%Y", "%d %b, %Y", "%d-%b-%y", "%d %b %y", "%Y-%b-%d"),
    *("%b %d %Y", "%b %d, %Y", "%a, %d %b %Y", "%a %b %d %Y", "%a %d %b %Y", "%a, %b %d, %Y", "%A, %d %b %Y"),
    *("%A, %b %d, %Y", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y"),
    *("%b %Y", "%b-%Y", "%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%m.%Y", "%Y%m"),
    *("%G-W%V-%u", "%G-W%V", "%GW%V%u", "%GW%V"),
)
"""Formats of days, months and weeks that are tried; a time of day may follow each."""
TIME_FORMATS = (
    "",
    *(
        separator + time + zone
        for separator in (" ", "T", ":", ", ")
        for time in (
            *("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%H:%M:%S,%f", "%H%M", "%H%M%S"),
            *("%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p"),
        )
        for zone in ("", "%z", " %z")
    ),
)
_COMPACT_TIMES = ("", "%H%M", "%H%M%S", *TIME_FORMATS[1:])
_TIME = (
    r"(?:(?:[Tt:]|,? +)(?:[0-9]{1,2}:[0-9]{1,2}(?::[0-9]{1,2}(?:[.,][0-9]{1,9})?)?(?: *(?i:[ap]\.?m\.?))?"
    r"|[0-9]{4}(?:[0-9]{2})?)(?: *(?:[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_COMPACT_TIME = rf"(?:[0-9]{{4}}(?:[0-9]{{2}})?(?:\.0*)?|{_TIME})"
# Any number could be seconds since 1970. Only numbers of the years 1973 to 2286 count as dates without a format.
_EPOCH_REGEXES = {"seconds": r"[0-9]{9,10}(?:\.[0-9]*)?", "milliseconds": "[0-9]{12,13}"}
_LIKELY_YEARS = "19[0-9]{2}|20[0-9]{2}|2100"  # of numbers that may be days or months
_RARE_FIELDS = (("day", "29|30|31"), ("year", "000[01]|9999"), ("iso_year", "000[01]|9999"), ("iso_week", "53"))
_NO_DATE = (
    "^(?:(?:0000[-/.]?00[-/.]?00|00[-/.]00[-/.]0000|(?:0001|9999)[-/.]?[0-9]{2}[-/.]?[0-9]{2}"
    "|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:0001|9999))(?:[T ]?[0-9:.,]*)?Z?|0)$"
)
_PLAUSIBLE = re.compile(r"(?=.{6,40}$)\D*\d.*\d.*")
_FEW_CELLS, _SAMPLE = 40, 300  # cells that are looked at first, and from which formats are collected
_MAX_STYLES = 12  # times of day in different formats after the same format of days
FOREIGN_SHARE = 0.05  # share of the cells below which those that are no dates count as mistakes

DATE_WORDS = frozenset((
    "date", "day", "days", "time", "datetime", "timestamp", "datum", "tag", "zeit", "dt", "ts", "ymd",
    "yyyymmdd", "month", "months", "yearmonth", "yyyymm", "monat", "period", "week", "when", "birthday", "dob",
    "created", "updated", "modified", "joined", "expires", "start", "end", "since", "until", "from", "to",
))  # fmt: skip


@dataclass(frozen=True)
class DateReading:
    """How the dates of a column are written.

    Args:
        formats: The first that matches a cell is used.
        days: The part of each format before the time of day.
        dates: Number of cells in these formats.
        distinct: Number of their distinct texts.
        why: Why days are before months, or after them; empty where the formats leave no choice.
        rivals: Formats of days that fit the cells as well as the first one of `formats`, with other dates.
        contradicts: Whether some cells have the day before the month, and others after it.
        markers: Cells without a date, such as `unknown` or 9999-12-31, by their text.
        foreign: Other cells that are no dates, by their text.
    """

    formats: tuple[str, ...]
    days: tuple[str, ...]
    dates: int
    distinct: int
    why: str
    rivals: tuple[str, ...]
    contradicts: bool
    markers: Mapping[str, int]
    foreign: Mapping[str, int]

    @property
    def foreign_share(self) -> float:
        """Share of foreign cells among those that are neither missing nor markers."""
        count = sum(self.foreign.values())
        return count / max(1, count + self.dates)


def find_no_dates(cells: pa.ChunkedArray, missing_cells: Sequence[str] = ()) -> np.ndarray:
    """Find the texts that mean that there is no date: markers of missing cells, 0000-00-00, 9999-12-31; `(cells,)`.

    Args:
        missing_cells: Further markers.
    """
    import numpy as np
    import pyarrow.compute as pc

    is_no_date = pc.match_substring_regex(pc.utf8_trim_whitespace(cells), _NO_DATE)
    return np.asarray(pc.or_(find_markers(cells, missing_cells), pc.fill_null(is_no_date, False)))


def has_date_name(name: str) -> bool:
    """Whether a column is named like a date, such as `order_date`, `createdAt` or `Datum`."""
    words = [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)]
    return any(word in DATE_WORDS or word.endswith(("date", "datum", "day")) for word in words)


def read_formats(cells: pa.ChunkedArray) -> DateReading | None:
    """Guess the formats of a column of texts, with nulls; None if none of its cells looks like a date.

    A format is chosen because it fits the most cells. Where the order of day and month matters, a part above 12 decides
    for all cells; without one, dots are a sign of days first.
    """
    import numpy as np

    if not _may_be_dates(cells):
        return None
    column = _count_texts(cells)
    choices, contradicting = _choose_days(column)
    formats, days, found = list[str](), list[str](), np.zeros(len(column.texts), bool)
    for choice in choices:
        found |= _add_times(column, choice, formats)
        days += [choice.day_format] * (len(formats) - len(days))
    if not formats:
        return None
    markers = find_no_dates(column.texts) & ~found
    return DateReading(
        formats=tuple(formats),
        days=tuple(days),
        dates=column.count_cells(found),
        distinct=int(found.sum()),
        why=next((choice.why for choice in choices if choice.why), ""),
        rivals=next((choice.rivals for choice in choices if choice.rivals), ()),
        contradicts=column.count_cells(contradicting) >= FOREIGN_SHARE * column.count_cells(~markers),
        markers=column.list_cells(markers),
        foreign=column.list_cells(~found & ~markers),
    )


def _may_be_dates(cells: pa.ChunkedArray) -> bool:
    """Whether a few cells look like dates: the distinct texts of a column of prose are as large as itself."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    present = pc.drop_null(cells)
    if not len(present):
        return False
    spread = np.unique(np.linspace(0, len(present) - 1, min(_FEW_CELLS, len(present))).astype("int64"))
    first = pc.unique(present.slice(0, _SAMPLE)).slice(0, _FEW_CELLS)
    texts = [*first.to_pylist(), *present.take(pa.array(spread)).to_pylist()]
    return any(True for text in texts for _ in _find_day_formats(text.strip()))


class _Column:
    """The distinct texts of a column, with the number of cells of each."""

    def __init__(self, texts: pa.ChunkedArray, counts: np.ndarray) -> None:
        self.texts, self.counts = texts, counts
        self._matches: dict[str, np.ndarray] = {}

    def sample(self, size: int, among: np.ndarray | None = None) -> list[str]:
        """Return evenly spread texts."""
        import numpy as np
        import pyarrow as pa

        rows = np.arange(len(self.texts)) if among is None else np.flatnonzero(among)
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(size, len(rows))).astype(int))] if len(rows) else rows
        texts: list[str] = self.texts.take(pa.array(chosen, pa.int64())).to_pylist()
        return texts

    def match(self, day_format: str) -> np.ndarray:
        """Whether each text is a day in a format, perhaps with a time of day."""
        import numpy as np
        import pyarrow.compute as pc

        if day_format not in self._matches:
            regex = f"^{_get_regex(day_format)}$"
            fits = np.array(pc.match_substring_regex(self.texts, regex))
            if is_compact(day_format):
                fits &= np.asarray(pc.match_substring_regex(self.texts, _narrow(regex, "year", _LIKELY_YEARS)))
            # To read the fields of all texts is slow: only some days and years may not exist.
            narrowed = [_narrow(regex, *each) for each in _RARE_FIELDS if f"?P<{each[0]}>" in regex]
            for pattern in narrowed:
                rare = np.flatnonzero(fits & np.asarray(pc.match_substring_regex(self.texts, pattern)))
                fits[rare] = self._parse(day_format, rare)[1]
            self._matches[day_format] = fits
        return self._matches[day_format]

    def count_years(self, day_format: str, among: np.ndarray) -> int:
        """Count the different years in which a format reads some texts."""
        import numpy as np

        return len(np.unique(self._parse(day_format, np.flatnonzero(among))[0]))

    def _parse(self, day_format: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the year of some texts, and whether each has one."""
        import pyarrow as pa

        fields = compile_format(day_format).fields
        return parse_years(self.texts.take(pa.array(rows)), f"^{_get_regex(day_format)}$", fields)

    def count_cells(self, among: np.ndarray) -> int:
        return int(self.counts[among].sum())

    def list_cells(self, among: np.ndarray) -> dict[str, int]:
        """Return texts with their numbers of cells."""
        import numpy as np
        import pyarrow as pa

        rows = np.flatnonzero(among)
        return dict(zip(self.texts.take(pa.array(rows)).to_pylist(), self.counts[rows].tolist(), strict=True))


@dataclass(frozen=True)
class _Choice:
    """A format of days.

    Args:
        cells: Whether each text is read in it.
        why, rivals: As in `DateReading`.
    """

    day_format: str
    cells: np.ndarray
    why: str = ""
    rivals: tuple[str, ...] = ()


def _count_texts(cells: pa.ChunkedArray) -> _Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.value_counts(pc.utf8_trim(pc.drop_null(cells), " \t\n\v\f\r"))
    return _Column(pa.chunked_array([counted.field("values")]), counted.field("counts").to_numpy())


def _choose_days(column: _Column) -> tuple[list[_Choice], np.ndarray]:
    """Choose formats of days by greedy set cover; also return the texts that contradict the first of them.

    Formats of which one reads a text of the other have their fields in another order: only one of them is right.
    """
    import numpy as np

    remaining, contradicting = np.ones(len(column.texts), bool), np.zeros(len(column.texts), bool)
    choices, tried = list[_Choice](), set[str]()
    candidates = _collect_formats(column.sample(_SAMPLE))
    while candidates:
        covered = {each: column.match(each) & remaining for each in candidates}
        best = max(candidates, key=lambda each: column.count_cells(covered[each]))
        if not covered[best].any():
            # Files are joined from others: a part that the sample has missed may have a format of its own.
            tried |= set(candidates)
            candidates = [each for each in _collect_formats(column.sample(_SAMPLE, remaining)) if each not in tried]
            continue
        equal = [each for each in candidates if (covered[each] == covered[best]).all()]
        remaining &= ~covered[best]
        known = [each for each in equal if _get_order(each) in {_get_order(choice.day_format) for choice in choices}]
        if any((column.match(best) & column.match(choice.day_format)).any() for choice in choices):
            contradicting |= covered[best]
        elif known:
            choices.append(_Choice(known[0], covered[best]))
        else:
            choices.append(_decide(column, equal, covered[best]))
    return choices, contradicting


def _decide(column: _Column, equal: Sequence[str], cells: np.ndarray) -> _Choice:
    """Choose among formats that fit the same texts."""
    others = [each for each in equal if each not in EPOCHS]  # numbers of which each is a day are no seconds
    if len(others) == 1:
        return _Choice(others[0], cells, _explain_order(column, others[0], cells))
    if not others:
        return _Choice(equal[0], cells)
    years = {each: column.count_years(each, cells) for each in others}
    likely = [each for each in others if years[each] <= 2 * min(years.values())]
    if len(likely) == 1:
        return _Choice(likely[0], cells, "its year is the part that changes least")
    with_dots = [each for each in likely if each.startswith("%d.")]
    if with_dots:
        return _Choice(with_dots[0], cells, "days are first, as is usual with dots")
    return _Choice(likely[0], cells, rivals=tuple(likely[1:]))


def _explain_order(column: _Column, day_format: str, cells: np.ndarray) -> str:
    """Describe which cell shows whether days or months are first; empty if the format leaves no choice."""
    import numpy as np

    swapped = day_format.translate(str.maketrans("dm", "md"))
    if swapped == day_format or swapped not in DAY_FORMATS:
        return ""
    first = "days" if day_format.startswith("%d") else "months"
    row = int(np.argmax(cells & ~column.match(swapped)))
    return f"{first} are first, as in {column.texts[row].as_py()}"


def _get_order(date_format: str) -> str:
    """Return the order of day, month and year."""
    return "".join(re.findall("%([ymdY])", date_format)).lower()


def _add_times(column: _Column, choice: _Choice, formats: list[str]) -> np.ndarray:
    """Add the formats of days with times to a list; return which texts are in them."""
    import numpy as np
    import pyarrow.compute as pc

    if choice.day_format in EPOCHS:
        formats.append(choice.day_format)
        return choice.cells
    times = _COMPACT_TIMES if choice.day_format == "%Y%m%d" else TIME_FORMATS
    possible = (*(("iso",) if choice.day_format == "%Y-%m-%d" else ()), *(choice.day_format + time for time in times))
    remaining, found = choice.cells.copy(), np.zeros(len(choice.cells), bool)
    for _ in range(_MAX_STYLES):
        if not remaining.any():
            break
        row = int(np.argmax(remaining))
        text = column.texts[row].as_py()
        fitting = next((each for each in possible if re.fullmatch(compile_format(each).regex, text)), None)
        remaining[row] = False
        if fitting is not None:
            formats.append(fitting)
            matching = pc.match_substring_regex(column.texts, f"^(?:{compile_format(fitting).regex})$")
            found |= choice.cells & np.asarray(matching)
            remaining &= ~found
    return found


def _collect_formats(texts: Sequence[str]) -> list[str]:
    """List the formats of days that match one of some texts, in the order in which they are preferred."""
    found = {each for text in texts for each in _find_day_formats(text)}
    return [each for each in (*DAY_FORMATS, *EPOCHS) if each in found]


def _find_day_formats(text: str) -> Iterator[str]:
    """Yield the formats in which a text is a day, perhaps with a time."""
    if _PLAUSIBLE.match(text):
        yield from (each for each in (*DAY_FORMATS, *EPOCHS) if _compile(each).fullmatch(text))


@cache
def _compile(day_format: str) -> re.Pattern[str]:
    return re.compile(_get_regex(day_format))


def _narrow(regex: str, field: str, values: str) -> str:
    """Narrow the pattern of a format to some values of a field."""
    return re.sub(rf"\(\?P<{field}>[^)]*\)", f"(?:{values})", regex)


def _get_regex(day_format: str) -> str:
    """Return the regular expression of days in a format, perhaps with a time of day."""
    if day_format in EPOCHS:
        return _EPOCH_REGEXES[day_format]
    return f"(?:{compile_format(day_format).regex})(?:{_COMPACT_TIME if day_format == '%Y%m%d' else _TIME})"
