"""Dialects of delimited text: how a file separates and quotes its cells, and where its rows begin.

Candidates are compared by what makes the records of a sample agree: on their number of cells, and on cells that hold
one value each. The sample is from the start and from later parts of a file.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

WHITESPACE = "whitespace"
"""Delimiter of cells that are separated by any number of blanks and tabs."""

DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\n|\r")
_COMMENT = re.compile(r"\s*(#|%|//)")
_MAX_TITLE_LINES = 50
_MAX_RECORDS = 300  # of each part of the sample
_BLANKS = re.compile(rb'("[^"\n]*"(?=[ \t\r\n]|\Z))|[ \t]+')
_OUTER_BLANKS = re.compile(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)")

_DIGITS = r"[+-]?(\d{1,3}([.,' \u00a0\u202f]\d{3})+|\d+)?([.,]\d*)?([eE][+-]?\d+)?"
_NUMBER = re.compile(rf"\s*[^\w\s\"';|,.+-]?\s?(?=[+\-.,]*\d){_DIGITS}\s?([%\u20ac$\u00a3]|EUR|USD|CHF)?\s*")
_DATE = re.compile(r"\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d\d.*)?|\d{1,2}:\d\d(:\d\d.*)?)\s*")
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "-", "--", ".", "#n/a", "unknown"))
_MIN_AGREEMENT = 0.8  # share of records of one number of cells
_TYPED_SHARE = 0.9  # share of a column's cells of one form
_FEW_VALUES = 20
_LONGEST_NUMBER = 60  # characters


@dataclass(frozen=True)
class Dialect:
    """How a file of delimited text is read.

    Args:
        delimiter: One character, or WHITESPACE.
        quote: A character, or `none`.
        skip_lines: Number of lines above the header, or above the first row if there is no header.
        header: Whether the first record has the names of the columns.
    """

    delimiter: str
    quote: str
    skip_lines: int
    header: bool


@dataclass(frozen=True)
class Choices:
    """Parts of a dialect that a recipe sets; None for those to be detected."""

    delimiter: str | None
    quote: str | None
    skip_lines: int | None
    header: bool | None


@dataclass(frozen=True)
class Detection:
    """A detected dialect, with what a person should know about it."""

    dialect: Dialect
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """Cells of a record, and the number of lines above it."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class _Candidate:
    """A way to split a sample.

    Args:
        start, later: Records of the start of the file, and of later parts.
        first: Index in `start` of the header, or of the first row.
        width: Most frequent number of cells.
        agreement: Share of records with this number.
        clean: Share of their cells that hold one value.
    """

    delimiter: str
    quote: str
    start: list[_Record]
    later: list[list[str]]
    first: int
    width: int
    agreement: float
    clean: float

    @property
    def score(self) -> float:
        # Blanks also separate words, so that they win only where they split better than a delimiter does.
        return self.agreement * (0.5 + 0.5 * self.clean) * (0.95 if self.delimiter == WHITESPACE else 1)

    @property
    def body(self) -> list[list[str]]:
        """Records of the usual number of cells below the first."""
        records = [*(each.cells for each in self.start[self.first + 1 :]), *self.later]
        return [cells for cells in records if len(cells) == self.width]


def detect_dialect(
    start: str, later: Sequence[str], is_whole: bool, choices: Choices, preferred: str = ""
) -> Detection:
    """Detect the parts of a dialect that are not chosen.

    Args:
        start: Text from the start of the file.
        later: Texts of whole lines from later parts.
        is_whole: Whether `start` is all of the file, and does not end within a record.
        preferred: Delimiter that the file's name promises; it is taken if it splits the rows.
    """
    finds_titles, skipped = choices.skip_lines is None, choices.skip_lines or 0
    text = _drop_lines(start.removeprefix("\ufeff"), skipped)
    if finds_titles and (separator := _SEPARATOR_LINE.fullmatch(_LINE_END.split(text, maxsplit=1)[0])):
        skipped, text = 1, _drop_lines(text, 1)
        choices = replace(choices, delimiter=choices.delimiter or separator[1])
    quote = choices.quote or _detect_quote(text)
    delimiters = (*DELIMITERS, WHITESPACE) if choices.delimiter is None else (choices.delimiter,)
    candidates = [_make_candidate(delimiter, quote, text, later, is_whole, finds_titles) for delimiter in delimiters]
    best = _pick_candidate(candidates, preferred) if choices.delimiter is None else candidates[0]
    header = _has_header(best) if choices.header is None else choices.header
    above = best.start[best.first].line if finds_titles and best.start else 0
    notes = [
        *(_describe_doubt(best, candidates) if choices.delimiter is None else ()),
        *(_describe_titles(text, above, skipped) if best.first else ()),
        *(_describe_first_row(best) if choices.header is None and not header else ()),
        *(_describe_unread_header(best) if choices.header is False else ()),
    ]
    return Detection(Dialect(best.delimiter, quote, skipped + above, header), tuple(notes))


def parse_records(text: str, delimiter: str, quote: str) -> Iterator[_Record]:
    """Parse the records of a text that are not blank."""
    csv.field_size_limit(2**31 - 1)  # The default limit of 128 KiB refuses long texts; Arrow has none.
    if delimiter == WHITESPACE:
        text = squeeze_blanks(text.encode(), quote).decode()
    reader = csv.reader(io.StringIO(text, newline=""), **get_reader_options(delimiter, quote))
    line = 0
    for cells in reader:
        if cells:
            yield _Record(line, cells)
        line = reader.line_num


def get_reader_options(delimiter: str, quote: str) -> dict[str, Any]:
    """Return the options of `csv.reader`, for text whose blanks were squeezed if they are the delimiter."""
    quotes: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if quote == "none" else {"quotechar": quote}
    return {"delimiter": "\t" if delimiter == WHITESPACE else delimiter, **quotes}


def squeeze_blanks(lines: bytes, quote: str) -> bytes:
    """Replace blanks between cells by one tab, and remove those around lines; blanks in double quotes stay."""
    lines = _OUTER_BLANKS.sub(b"", lines)
    if quote != '"' or b'"' not in lines:
        return re.sub(rb"[ \t]+", b"\t", lines)
    return _BLANKS.sub(lambda match: match[1] or b"\t", lines)


def is_number(cell: str) -> bool:
    """Whether a cell looks like a number, in any of the usual ways to write it."""
    return len(cell) <= _LONGEST_NUMBER and _NUMBER.fullmatch(cell) is not None


def is_missing(cell: str) -> bool:
    """Whether a cell is one of the usual marks of a missing value."""
    return cell.strip().lower() in _MISSING


def _drop_lines(text: str, count: int) -> str:
    return _LINE_END.split(text, maxsplit=count)[-1] if count else text


def _show(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _detect_quote(text: str) -> str:
    """Return the single quote if it surrounds cells and no double quote does; otherwise the double quote."""
    doubles = len(re.findall(r'(?m)(?:^|[,;\t|])\s?"', text))
    singles = len(re.findall(r"(?m)(?:^|[,;\t|])'[^'\n]*'(?=[,;\t|\r]|$)", text))
    return "'" if singles >= 3 and not doubles and singles >= text.count("\n") / 2 else '"'


def _make_candidate(
    delimiter: str, quote: str, text: str, later: Sequence[str], is_whole: bool, finds_titles: bool
) -> _Candidate:
    start = _parse_agreeing(text, delimiter, quote)
    if not is_whole and len(start) > 1:
        del start[-1]  # The sample may end within this record.
    further = [each.cells for part in later for each in _parse_agreeing(part, delimiter, quote)]
    widths = Counter(map(len, [each.cells for each in start[1:] or start] + further))
    width = max(widths, key=lambda each: (widths[each], each), default=0)
    first = _find_first(start, width) if finds_titles else 0
    below = [each.cells for each in start[first + 1 :] or start[first:]] + further
    rows = [cells for cells in below if len(cells) == width]
    others = "".join(each for each in DELIMITERS if each != delimiter)
    cells = [cell for row in rows for cell in row]
    clean = sum(_is_one_value(cell, others) for cell in cells) / max(1, len(cells))
    return _Candidate(delimiter, quote, start, further, first, width, len(rows) / max(1, len(below)), clean)


def _parse_agreeing(text: str, delimiter: str, quote: str) -> list[_Record]:
    """Parse a sample; without quotes if cells with line breaks would be whole rows, which a stray quote has joined."""
    quoted = list(islice(parse_records(text, delimiter, quote), _MAX_RECORDS))
    if quote == "none" or not any("\n" in cell or "\r" in cell for record in quoted for cell in record.cells):
        return quoted
    plain = list(islice(parse_records(text, delimiter, "none"), _MAX_RECORDS))
    widths = Counter(len(record.cells) for record in plain[:-1])
    return plain if len(widths) == 1 and next(iter(widths)) > 1 else quoted


def _find_first(records: Sequence[_Record], width: int) -> int:
    """Find the header, or the first row, below lines of comments and titles."""
    if width < 2:
        return 0
    for position, record in enumerate(records[:_MAX_TITLE_LINES]):
        if not _is_title(record.cells, [each.cells for each in records[position + 1 :]], width):
            return position if len(record.cells) in (width - 1, width, width + 1) else 0
    return 0


def _is_title(cells: Sequence[str], below: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a record is a line of comment or title above a table of `width` columns."""
    rows = [row for row in below if len(row) == width]
    if _COMMENT.match(cells[0]):
        # The last of such lines may name the columns, as NumPy writes them.
        return (
            len(cells) not in (width, width + 1)
            or bool(below and _COMMENT.match(below[0][0]))
            or _names_typed_columns(rows[:1], rows[1:])
        )
    if sum(bool(cell.strip()) for cell in cells) > 1:
        return False
    return len(cells) != width - 1 if width > 2 else len(cells) < width and _names_typed_columns(rows[:1], rows[1:])


def _is_one_value(cell: str, others: str) -> bool:
    """Whether a cell does not look like several: a number, or a text without another delimiter."""
    if is_number(cell):
        return True
    # In prose a blank follows a comma.
    if re.search(rf"[{others}]\S", cell):
        return False
    words = cell.split()
    return len(words) < 2 or not all(map(is_number, words[:-1])) or _DATE.fullmatch(cell) is not None


def _pick_candidate(candidates: Sequence[_Candidate], preferred: str) -> _Candidate:
    """Pick the delimiter that splits the sample best; the comma if none does, as for a table of one column."""
    able = [each for each in candidates if _splits_sample(each)]
    for each in able:
        if each.delimiter == preferred:
            return each
    if able:
        return max(able, key=lambda each: (each.score, each.width))
    headed = [each for each in candidates if each.delimiter != WHITESPACE and each.start and each.width > 1]
    headed = [each for each in headed if len(each.start[0].cells) == each.width]
    return max(headed, key=lambda each: each.score, default=candidates[0])


def _splits_sample(candidate: _Candidate) -> bool:
    """Whether nearly all records have the same number of cells, more than one, and so has the header."""
    if candidate.width < 2 or candidate.agreement < _MIN_AGREEMENT:
        return False
    if candidate.delimiter == WHITESPACE and not (candidate.agreement > 0.95 and _has_numbers(candidate)):
        return False
    head = candidate.start[candidate.first].cells
    return (
        len(head) == candidate.width
        or has_trailing_delimiter(head, candidate.body)
        or has_row_labels(head, candidate.body)
        or (len(head) == candidate.width + 1 and not head[-1].strip())
        or (candidate.delimiter == WHITESPACE and len(head) == candidate.width + 1 and head[0] == "#")
    )


def _has_numbers(candidate: _Candidate) -> bool:
    body = candidate.body
    return len(body) > 1 and any(_find_form(column) == "number" for column in zip(*body, strict=True))


def has_trailing_delimiter(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether every row ends with a delimiter, and the header does not."""
    return bool(rows) and all(len(row) == len(header) + 1 and not row[-1].strip() for row in rows)


def has_row_labels(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows begin with a label that the header has no cell for, as R writes them: each is another text."""
    labels = [row[0] for row in rows if len(row) == len(header) + 1]
    if len(labels) < 2 or len(labels) < 0.95 * len(rows) or len(set(labels)) < len(labels):
        return False
    return len(header) > 1 or all(label.strip().isdigit() for label in labels)


def _describe_doubt(best: _Candidate, candidates: Sequence[_Candidate]) -> Iterator[str]:
    """Describe a second way to split the rows, if there is one."""
    rivals = [
        each
        for each in candidates
        if each is not best and each.delimiter != WHITESPACE and _splits_sample(each) and each.first == best.first
    ]
    if rivals and best.width > 1:
        rival = max(rivals, key=lambda each: each.score)
        yield (
            f"read with the delimiter {_name(best.delimiter)}, whose cells hold one value each; "
            f"{_name(rival.delimiter)} would also split the rows, into {rival.width} cells. To change it, set "
            "`delimiter`."
        )
    elif best.delimiter == WHITESPACE:
        yield f"cells are separated by blanks, {best.width} in a row; to change it, set `delimiter`."


def _describe_titles(text: str, above: int, skipped: int) -> Iterator[str]:
    """Describe the lines that are left out above the table."""
    lines = [line for line in _LINE_END.split(text)[:above] if line.strip()]
    yield (
        f"{len(lines)} line{'s' if len(lines) > 1 else ''} above the table left out, the first of them "
        f"{_show(lines[0])}; to read them, set `skip_lines: {skipped}`."
    )


def _describe_first_row(candidate: _Candidate) -> Iterator[str]:
    """Describe why the first record is a row, and not the header."""
    cells = ", ".join(_show(cell) for cell in candidate.start[candidate.first].cells[:3])
    yield (
        f"read without a header: the first row ({cells}{', ...' if candidate.width > 3 else ''}) has values like those "
        f"of the rows below it; the columns are named column_1 to column_{candidate.width}. If it names the columns, "
        "set `header: true`."
    )


def _describe_unread_header(candidate: _Candidate) -> Iterator[str]:
    """Describe a first record that looks like a header, but is read as a row."""
    if not candidate.start or not candidate.body:
        return
    head = candidate.start[candidate.first].cells
    if _names_typed_columns([head], candidate.body):
        names = f"{', '.join(_show(cell) for cell in head[:3])}{', ...' if len(head) > 3 else ''}"
        yield (
            f"the first line ({names}) is read as a row, though it has words above numbers or dates. If it names the "
            "columns, remove it."
        )


def _name(delimiter: str) -> str:
    return {"\t": "tab", WHITESPACE: "blanks"}.get(delimiter, repr(delimiter))


def _has_header(candidate: _Candidate) -> bool:
    """Whether the first record names columns; it does unless it has values like those of the rows below it."""
    if not candidate.start:
        return True
    head, body = candidate.start[candidate.first].cells, candidate.body
    if len(head) != candidate.width or not body or _are_numbered(head) or _names_typed_columns([head], body):
        return True
    return not any(
        not is_missing(name) and _is_value(name, column)
        for name, column in zip(head, zip(*body, strict=True), strict=True)
    )


def _names_typed_columns(heads: Sequence[Sequence[str]], body: Sequence[Sequence[str]]) -> bool:
    """Whether a record has a word above a column of numbers or dates that does not have this word."""
    return any(
        not is_missing(name) and (form := _find_form(column)) and _get_form(name) != form and name not in column
        for head in heads
        for name, column in zip(head, zip(*body, strict=True), strict=False)
    )


def _is_value(name: str, column: Sequence[str]) -> bool:
    """Whether a cell is of the form of the column below it, or one of its few values."""
    form = _find_form(column)
    if form is not None:
        return _get_form(name) == form
    values = set(column)
    return name in values and len(column) >= 4 and len(values) <= max(2, min(_FEW_VALUES, len(column) // 4))


def _are_numbered(head: Sequence[str]) -> bool:
    """Whether the numbers of a header count up, such as 0, 1, 2 of pandas, or years."""
    numbers = [int(cell) for cell in head if re.fullmatch(r"\s*\d{1,9}\s*", cell, re.ASCII)]
    are_enough = len(numbers) > 2 or (len(numbers) == 2 and 1900 <= numbers[0] <= 2100)
    return are_enough and all(after == before + 1 for before, after in pairwise(numbers))


def _get_form(cell: str) -> str | None:
    return "number" if is_number(cell) else "date" if _DATE.fullmatch(cell) else None


def _find_form(column: Sequence[str]) -> str | None:
    """Return the form of nearly all cells of a column: `number`, `date`, or None for texts."""
    forms = Counter(_get_form(cell) for cell in column if not is_missing(cell))
    form, count = forms.most_common(1)[0] if forms else (None, 0)
    return form if form and count >= _TYPED_SHARE * forms.total() else None
