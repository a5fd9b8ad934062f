"""Tables of a terminal: numbers with their decimal points below each other, and no column cut off.

A table that is wider than the terminal first wraps the words of its longest texts. If it is still too wide, its last
columns follow as further tables below, each with the first column again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.number_texts import align_decimals, is_number_text, write_column, write_measure
from bmcli.quoting import brief

if TYPE_CHECKING:
    from rich.table import Table

_MAX_CELL_LENGTH = 300
_GAP = 2
_MAX_STRETCH = 1.3  # by which alignment may lengthen texts with several numbers
_MAX_WORD_WIDTH = 32  # of words that stay whole
_MIN_TEXT_WIDTH = 16  # to which a column of texts shrinks before columns move to a table below
_NUMBERS = re.compile(r"(?<![\w.])([<+-]? ?[0-9][0-9,]*(?:\.[0-9]+)?(?:e[+-][0-9]+)?)(?![\w.])")


@dataclass(frozen=True)
class TableColumn:
    """A column whose cells are texts.

    Args:
        is_number: Whether its cells are numbers, below which the heading ends on the right.
        is_fixed: Whether its cells are padded to one width and never wrapped.
    """

    heading: str
    cells: tuple[str, ...]
    is_number: bool
    is_fixed: bool

    @property
    def width(self) -> int:
        """Width without wrapping."""
        return max(map(_measure, (self.heading, *self.cells)))

    @property
    def least_width(self) -> int:
        """Width to which it can shrink: the words of its heading, and numbers, stay whole."""
        words = max(map(_measure, self.heading.split()), default=0)
        if self.is_fixed:
            return max(words, *map(_measure, self.cells))
        longest = max((_measure(word) for cell in self.cells for word in cell.split()), default=0)
        return min(self.width, max(words, _MIN_TEXT_WIDTH, min(longest, _MAX_WORD_WIDTH)))


def make_columns(headings: Sequence[str], rows: Sequence[Sequence[object]], mixed: bool) -> list[TableColumn]:
    """Write the cells of a table.

    Args:
        mixed: Whether the numbers below each other have different units, such as several metrics, so that each has its
            own decimals.
    """
    return [_make_column(heading, [row[at] for row in rows], mixed) for at, heading in enumerate(headings)]


def split_columns(columns: Sequence[TableColumn], width: int) -> list[list[TableColumn]]:
    """Divide the columns into tables that fit a width, each with the first column."""
    first, blocks = columns[0], [[columns[0]]]
    for column in columns[1:]:
        block = blocks[-1]
        if _compute_width([*block, column]) > width and len(block) > 1:
            block = [first]
            blocks.append(block)
        block.append(column)
    return blocks


def draw_table(title: str, columns: Sequence[TableColumn], width: int) -> Table:
    """Make the table of columns that fit a width."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None, title_justify="left", box=None, padding=(0, _GAP, 0, 0), pad_edge=False
    )
    widths = _share_width(columns, width)
    for column, column_width in zip(columns, widths, strict=True):
        heading = Text(column.heading, justify="right" if column.is_number else "left")
        table.add_column(heading, width=column_width, overflow="fold")
    # Not aligned by rich, which would strip the blanks behind shorter fractions.
    cells = [
        [cell.rjust(column_width) for cell in column.cells] if column.is_number else column.cells
        for column, column_width in zip(columns, widths, strict=True)
    ]
    for row in zip(*cells, strict=True):
        table.add_row(*map(Text, row))
    return table


def _compute_width(columns: Sequence[TableColumn]) -> int:
    """Compute the least width of a table."""
    return sum(column.least_width for column in columns) + _GAP * (len(columns) - 1)


def _share_width(columns: Sequence[TableColumn], width: int) -> list[int]:
    """Share a width: all it needs to a column that is narrow, and the rest alike to the others."""
    widths = [column.least_width for column in columns]
    left = width - sum(widths) - _GAP * (len(columns) - 1)
    wanting = sorted(range(len(columns)), key=lambda at: columns[at].width - widths[at])
    for done, at in enumerate(wanting):
        extra = max(0, min(columns[at].width - widths[at], left // (len(wanting) - done)))
        widths[at] += extra
        left -= extra
    return widths


def _make_column(heading: str, values: Sequence[object], mixed: bool) -> TableColumn:
    texts = _write_cells(values, mixed)
    filled = [text for text in texts if text not in ("", "-")]
    if filled and all(map(is_number_text, filled)):
        return TableColumn(brief(heading), tuple(align_decimals(texts)), is_number=True, is_fixed=True)
    aligned = _align_numbers(texts)
    if aligned is not None:
        return TableColumn(brief(heading), tuple(aligned), is_number=False, is_fixed=True)
    return TableColumn(brief(heading), tuple(texts), is_number=False, is_fixed=False)


def _write_cells(values: Sequence[object], mixed: bool) -> list[str]:
    numbers: list[Any] = [value for value in values if _is_number(value)]
    written = iter([write_measure(value) for value in numbers] if mixed else write_column(numbers))
    return [next(written) if _is_number(value) else brief(str(value), _MAX_CELL_LENGTH) for value in values]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _align_numbers(texts: Sequence[str]) -> list[str] | None:
    """Align the numbers of texts with the same words around them, such as `0.81 to 0.86`; None for other texts."""
    filled = [text for text in texts if text not in ("", "-")]
    words = {tuple(_NUMBERS.sub("\0", text).split("\0")) for text in filled}
    if len(words) != 1 or len(between := next(iter(words))) < 3:
        return None
    columns = zip(*(_NUMBERS.findall(text) for text in filled), strict=True)
    aligned = zip(*(align_decimals(column) for column in columns), strict=True)
    joined_texts = [_join(between, numbers) for numbers in aligned]
    if max(map(len, joined_texts)) > _MAX_STRETCH * max(map(len, filled)):
        return list(texts)  # numbers of different units, between which there would be wide gaps
    joined = iter(joined_texts)
    return [text if text in ("", "-") else next(joined).rstrip() for text in texts]


def _join(between: Sequence[str], numbers: Sequence[str]) -> str:
    """Join words and numbers, without the blanks behind the last number, which would part it from its words."""
    pairs = zip(between, [*numbers[:-1], numbers[-1].rstrip()], strict=False)
    return "".join(text for pair in pairs for text in pair) + between[-1]


def _measure(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
