"""Raw cells of a column, converted to numbers, text or booleans, independently of their source.

A missing cell is null or an empty text in a column of text, and NaN in an array.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from bmcli.canonical import Spelling, canonicalize, choose_spelling
from bmcli.dates.reading import has_date_name
from bmcli.errors import BmcliError
from bmcli.notation import PLAIN, NumberNotation, WrittenNumbers, find_markers, guess_numbers, parse_numbers
from bmcli.pictures import ImageHeader, read_header
from bmcli.quoting import quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# pyarrow is untyped, so this alias also accepts `FileColumn`; if it were named here, every use of a column would have
# to exclude it.
RawColumn: TypeAlias = "np.ndarray | pa.ChunkedArray"
"""A raw column: text with nulls (from tables), a numeric array of any rank with the rows first, or encoded files."""

# Indices of cells that are not among the classes of `lookup_indices`.
UNKNOWN = -1
MISSING = -2
_LONG_INTEGER = "^[+-]?[0-9]{16,}$"
_EXACT_IN_FLOAT64 = 2**53
UNNAMED = re.compile(r"Unnamed: [0-9]+(\.[0-9]+)*|__index_level_[0-9]+__")
"""Names of columns without a name in the header, such as the index that pandas and R write before the columns."""
MISSING_INTEGER, UNKNOWN_INTEGER = -(2**63), -(2**63) + 1
"""Integers that a served model takes for a missing cell, and for one that is no integer; no training row has them."""
UNKNOWN_TEXT = "no such thing \N{SNOWMAN}"
"""A text that does not occur in training rows."""
BOOLEAN_FAMILIES = (
    (("yes", "y"), ("no", "n")),
    (("true", "t"), ("false", "f")),
    (("on",), ("off",)),
    (("1",), ("0",)),
    (("ja",), ("nein", "nej", "nei")),
    (("wahr",), ("falsch",)),
    (("oui",), ("non",)),
    (("vrai",), ("faux",)),
    (("si", "s\N{LATIN SMALL LETTER I WITH ACUTE}", "s\N{LATIN SMALL LETTER I WITH GRAVE}"), ("no",)),
    (("verdadero", "vero"), ("falso",)),
    (("sim",), ("nao", "n\N{LATIN SMALL LETTER A WITH TILDE}o")),
    (("verdadeiro",), ("falso",)),
    (("tak",), ("nie",)),
    (
        ("\N{CHECK MARK}", "\N{HEAVY CHECK MARK}", "\N{BALLOT BOX WITH CHECK}"),
        ("\N{BALLOT X}", "\N{HEAVY BALLOT X}", "\N{BALLOT BOX}"),
    ),
)
"""Words for yes and for no that are used together."""
YES_WORDS = tuple(dict.fromkeys(word for yes, _ in BOOLEAN_FAMILIES for word in yes))
NO_WORDS = tuple(dict.fromkeys(word for _, no in BOOLEAN_FAMILIES for word in no))
_SAMPLE = 2000  # cells whose words are counted, and distinct cells of `ColumnCells.samples`
# Scripts that are written without blanks between words, with the mean number of letters of a word.
_UNSPACED_SCRIPTS = (
    (r"[\p{Han}\p{Hiragana}\p{Katakana}ー]", 2.0),
    (r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]", 5.0),
)
_LETTER_OR_DIGIT = r"[\p{L}\p{M}\p{N}]"
_MAX_COMPARED, _MAX_COMPARED_LETTERS = 500, 100  # texts whose letters are compared, and letters of each
_INFINITE = re.compile(r"\s*[+-]?inf(inity)?\s*", re.IGNORECASE)
_MAX_HEADERS = 100  # pictures whose headers are read
# Dtypes whose values float32 represents exactly; others are converted to float64.
_EXACT_IN_FLOAT32 = ("bool", "int8", "uint8", "int16", "uint16", "float16", "float32")


class RowFault(Exception):
    """A cell that cannot be read.

    Args:
        row: Index among the rows that were passed in, from 0.
        message: What was expected and what was received.
        suggestion: The next step in the data.
        cell: Text of the cell, if it may stand for a missing value.
        option: The next step in the recipe, which helps only before a training.
    """

    def __init__(self, row: int, message: str, suggestion: str = "", cell: str | None = None, option: str = "") -> None:
        super().__init__(message)
        self.row, self.message, self.suggestion, self.cell, self.option = row, message, suggestion, cell, option

    def at(self, row: int) -> RowFault:
        """Return the fault of the same cell, whose row has another index."""
        return RowFault(row, self.message, self.suggestion, self.cell, self.option)

    @property
    def advice(self) -> str:
        """The next steps before a training."""
        if not (self.suggestion and self.option):
            return self.suggestion or self.option
        return f"{self.suggestion} Or {self.option[0].lower()}{self.option[1:]}"


class UnreadableColumn(BmcliError):
    """A column that cannot be read, which is a fault only where the column is used."""

    @classmethod
    def of(cls, error: BmcliError) -> UnreadableColumn:
        """Make the error of a column from an error of its cells."""
        return cls(*error.faults)


class FileColumn:
    """A column of encoded files, such as pictures. The bytes of a row are read on demand and not kept.

    Args:
        positions: Position of each row's file in the source, integers `(rows,)`, negative where the cell is missing.
        reader: Function from a position to the bytes of the file; raises BmcliError or OSError if it cannot be read.
    """

    def __init__(self, positions: np.ndarray, reader: Callable[[int], bytes]) -> None:
        self._positions, self._reader = positions, reader

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, indices: np.ndarray) -> FileColumn:
        """Select rows."""
        return FileColumn(self._positions[indices], self._reader)

    def with_missing(self, bad: np.ndarray) -> FileColumn:
        """Mark the cells where `bad` is true as missing."""
        import numpy as np

        return FileColumn(np.where(bad, -1, self._positions), self._reader)

    def missing(self) -> np.ndarray:
        """Whether each cell is missing, `(rows,)`."""
        return self._positions < 0

    def read(self, row: int) -> bytes:
        """Read the bytes of a row.

        Raises:
            RowFault: The file cannot be read.
        """
        try:
            return self._reader(int(self._positions[row]))
        except BmcliError as error:
            raise RowFault(row, error.faults[0].message, error.faults[0].suggestion) from None
        except OSError as error:
            raise RowFault(row, f"cannot be read: {(error.strerror or str(error)).lower()}.") from None


def is_text_column(rows: RawColumn) -> bool:
    return not hasattr(rows, "ndim") and not is_file_column(rows)


def is_file_column(rows: RawColumn) -> TypeGuard[FileColumn]:
    return isinstance(rows, FileColumn)


class ColumnCells:
    """The raw cells of a column, with statistics by which kinds of inputs recognise it.

    Statistics are computed when they are first used, and kept. Those of texts are for a column of text only.
    """

    def __init__(self, name: str, rows: RawColumn) -> None:
        self.name, self.rows = name, rows

    @property
    def is_file(self) -> bool:
        """Whether the cells are encoded files."""
        return is_file_column(self.rows)

    @property
    def is_text(self) -> bool:
        return is_text_column(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a cell; `()` for a single value, a text or a file."""
        return () if self.is_file or self.is_text else tuple(self.rows.shape[1:])

    @property
    def dtype(self) -> str:
        """`text`, `file`, or the name of the array's dtype."""
        return "file" if self.is_file else "text" if self.is_text else self.rows.dtype.name

    @cached_property
    def written_numbers(self) -> WrittenNumbers | None:
        """How the numbers of a column of text are written; None if its cells are no numbers."""
        return guess_numbers(self.present) if self.is_text else None

    @cached_property
    def is_numeric(self) -> bool:
        """Whether every cell that is not missing is a number, of the same notation as the others."""
        if not self.is_text:
            return not self.is_file and is_numeric(self.rows)
        written = self.written_numbers
        return written is not None and not written.foreign and not written.obstacle

    @cached_property
    def has_long_codes(self) -> bool:
        """Whether the cells are integers of 16 digits or more, different ones of which are equal in floating point.

        Such numbers are identifiers, unless the column is named like a time: then they are nanoseconds.
        """
        if self.is_file or self.shape not in ((), (1,)) or has_date_name(self.name):
            return False
        return _are_long_codes(self.present if self.is_text else self.rows)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The numbers of a numeric column that are not missing, in one dimension."""
        import numpy as np

        notation = PLAIN if self.written_numbers is None else self.written_numbers.notation
        values = to_numbers(self.rows, notation).reshape(-1)
        return values[~np.isnan(values)]

    @cached_property
    def present(self) -> pa.ChunkedArray:
        """The texts that are not missing."""
        import pyarrow.compute as pc

        return pc.drop_null(to_texts(self.rows))

    @cached_property
    def distinct(self) -> int:
        """Number of distinct texts."""
        import pyarrow.compute as pc

        return int(pc.count_distinct(self.present).as_py())

    @cached_property
    def samples(self) -> list[str]:
        """The first distinct texts, without surrounding whitespace."""
        import pyarrow.compute as pc

        # Of growing parts: the distinct texts of a whole column of prose are as large as the column.
        size = 2 * _SAMPLE
        while len(unique := pc.unique(self.present.slice(0, size))) < _SAMPLE and size < len(self.present):
            size *= 8
        return [text.strip() for text in unique.slice(0, _SAMPLE).to_pylist()]

    @cached_property
    def mean_words(self) -> float:
        """Mean number of words of the first texts; estimated where the script has no blanks between words."""
        import pyarrow.compute as pc

        words = pc.utf8_split_whitespace(self.present.slice(0, _SAMPLE))
        return max(float(pc.mean(pc.list_value_length(words)).as_py() or 0), self._unspaced_words)

    @property
    def is_unspaced(self) -> bool:
        """Whether most letters are of scripts without blanks between words, such as Chinese, Japanese and Thai."""
        return self._unspaced_words > 0

    @cached_property
    def _unspaced_words(self) -> float:
        """Mean number of words of the first texts, by their letters, in a script without blanks; 0 in other scripts."""
        import pyarrow.compute as pc

        texts = self.present.slice(0, _SAMPLE)
        if pc.all(pc.string_is_ascii(texts)).as_py() is not False:  # None if there are no texts
            return 0.0
        letters = pc.sum(pc.count_substring_regex(texts, pattern=_LETTER_OR_DIGIT)).as_py() or 0
        counts = [
            pc.sum(pc.count_substring_regex(texts, pattern=pattern)).as_py() or 0 for pattern, _ in _UNSPACED_SCRIPTS
        ]
        if 2 * sum(counts) <= letters:
            return 0.0
        return sum(count / size for count, (_, size) in zip(counts, _UNSPACED_SCRIPTS, strict=True)) / len(texts)

    @cached_property
    def rows_per_letter(self) -> float:
        """Mean number of distinct texts in which a letter occurs: 1 where nothing repeats, large in prose."""
        letters = [set(text[:_MAX_COMPARED_LETTERS]) for text in self.samples[:_MAX_COMPARED]]
        return sum(map(len, letters)) / max(1, len(set[str]().union(*letters)))


def sample_image_headers(column: FileColumn) -> list[ImageHeader]:
    """Read the headers of evenly spread pictures; damaged ones, which preparation reports, are left out."""
    headers = []
    for row in range(0, len(column), max(1, len(column) // _MAX_HEADERS)):
        try:
            headers.append(read_header(column.read(row)))
        except (RowFault, ValueError):
            continue
    return headers


def require_values(rows: RawColumn) -> np.ndarray | pa.ChunkedArray:
    """Return the column if it holds values; raise RowFault if it holds encoded files."""
    if is_file_column(rows):
        raise RowFault(0, "expected a value, received an encoded file.", option="Read the column as `kind: image`.")
    return rows


def take_rows(rows: RawColumn, indices: np.ndarray) -> RawColumn:
    """Select rows in the order of `indices`; consecutive rows are sliced without a copy."""
    import pyarrow as pa

    if is_file_column(rows):
        return rows.take(indices)
    if len(indices) and indices[-1] - indices[0] + 1 == len(indices) and (indices[1:] - indices[:-1] == 1).all():
        return rows[indices[0] : indices[-1] + 1]
    return rows.take(pa.array(indices)) if is_text_column(rows) else rows[indices]


def factorize(rows: Any) -> tuple[RawColumn, np.ndarray]:
    """Return the distinct texts in order of appearance, a missing one last, and for each row the index of its text.

    Slow work, such as parsing dates, is then done once for all rows that share a text. Arrays are returned unchanged.
    """
    import numpy as np
    import pyarrow as pa

    if not is_text_column(rows) or not len(rows):
        return rows, np.arange(len(rows))
    # Each chunk is encoded by a separate dictionary, whose indices mean different texts until they are unified.
    chunks = rows.dictionary_encode().unify_dictionaries().chunks
    distinct = chunks[0].dictionary
    codes = np.concatenate([np.asarray(chunk.indices.fill_null(len(distinct))) for chunk in chunks])
    return pa.chunked_array([distinct, pa.nulls(1, distinct.type)]), codes


@contextmanager
def translate_fault_rows(codes: np.ndarray) -> Iterator[None]:
    """Translate a RowFault of a distinct text of `factorize` to the first row that has this text."""
    import numpy as np

    try:
        yield
    except RowFault as fault:
        raise fault.at(int(np.argmax(codes == fault.row))) from None


def to_numbers(rows: RawColumn, notation: NumberNotation = PLAIN, missing_cells: Sequence[str] = ()) -> np.ndarray:
    """Convert cells to floating point of the same shape, NaN where missing.

    Args:
        notation: How the numbers of a column of text are written.
        missing_cells: Texts that mark a missing cell, beside the usual ones.

    Raises:
        RowFault: A cell is not a number, or is infinite.
    """
    import numpy as np

    rows = require_values(rows)
    if is_text_column(rows):
        values, foreign = parse_numbers(rows, notation, missing_cells)
        if foreign.any():
            row = int(np.argmax(foreign))
            is_infinite = np.isinf(values[row]) or _INFINITE.fullmatch(rows[row].as_py()) is not None
            expected = "a finite number" if is_infinite else "a number"
            raise RowFault(row, f"expected {expected}, received {format_cell(rows, row)}.", cell=_get_text(rows, row))
    elif rows.dtype.name in _EXACT_IN_FLOAT32:
        values = np.asarray(rows, "float32")
    else:
        values = np.asarray(rows, "float64")
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.argwhere(infinite)[0][0])
        raise RowFault(row, f"expected a finite number, received {format_cell(rows, row)}.")
    return values


def read_written_numbers(rows: RawColumn) -> np.ndarray:
    """Convert cells to numbers as `to_numbers` does, in the notation in which all of them are written."""
    cells = ColumnCells("", rows)
    written = cells.written_numbers
    return to_numbers(rows, PLAIN if written is None or not cells.is_numeric else written.notation)


@contextmanager
def suggest_notation(rows: RawColumn, notation: NumberNotation) -> Iterator[None]:
    """Add the notation of most cells to the fault of one that is not a number of another notation."""
    try:
        yield
    except RowFault as fault:
        written = ColumnCells("", rows).written_numbers if fault.cell is not None else None
        if written is None or written.obstacle or written.notation == notation:
            raise
        options = written.notation.to_options() or {"decimal": "."}
        listed = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in options.items())
        listed = listed.replace("$", "$$")  # A single dollar sign can begin a variable of a recipe.
        advice = f"Write `{listed}` beside its kind: nearly all of the cells are written in this way."
        raise RowFault(fault.row, fault.message, cell=fault.cell, option=advice) from None


def is_numeric(rows: RawColumn) -> bool:
    """Whether every cell that is not missing is a number."""
    try:
        to_numbers(rows)
    except RowFault:
        return False
    return True


def to_texts(rows: RawColumn, spelling: Spelling = "raw", *, fractions: bool = False) -> pa.ChunkedArray:
    """Convert cells to categories: text with nulls where missing; integers become their decimal digits.

    Args:
        spelling: The canonical form of the texts; by default they are unchanged.
        fractions: Accept numbers that are not integers, such as the classes 0.5 and 1.5; they become decimal digits.

    Raises:
        RowFault: A number is not an integer, or a row holds several values.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = require_values(rows)
    if not is_text_column(rows):
        return pa.chunked_array([_format_numbers(rows) if fractions else _format_integers(rows)])
    return canonicalize(pc.if_else(pc.equal(rows, ""), pa.scalar(None, pa.string()), rows), spelling)


def to_booleans(
    rows: RawColumn, yes: Sequence[str] = YES_WORDS, no: Sequence[str] = NO_WORDS, missing_cells: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Convert text to 1 for yes and 0 for no, float32 `(rows,)`, NaN where neither; also return which are missing.

    Args:
        missing_cells: Texts that mark a missing cell, beside the usual ones.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.utf8_lower(pc.ascii_trim_whitespace(pc.fill_null(rows, "")))
    indices = np.asarray(pc.fill_null(pc.index_in(words, value_set=pa.array([*no, *yes], pa.string())), UNKNOWN))
    values = np.where(indices == UNKNOWN, np.float32("nan"), (indices >= len(no)).astype("float32"))
    # A word for yes or no stays one, even if it usually marks a missing cell.
    return values, np.asarray(find_markers(words, missing_cells)) & (indices == UNKNOWN)


def are_boolean_words(words: Collection[str]) -> bool:
    """Whether words in lower case mean yes and no only: one of each, or more that come with their opposites.

    As y beside n; the n of t, f and n may stand for what is not known.
    """
    if not (any(word in YES_WORDS for word in words) and any(word in NO_WORDS for word in words)):
        return False
    paired = {
        word
        for family in BOOLEAN_FAMILIES
        if all(any(word in words for word in side) for side in family)
        for side in family
        for word in side
    }
    return paired.issuperset(words) or (len(words) == 2 and {*YES_WORDS, *NO_WORDS}.issuperset(words))


def build_vocabulary(rows: RawColumn, spelling: Spelling = "raw") -> tuple[str, ...]:
    """Return the distinct categories, sorted: integers by value, other text alphabetically."""
    import pyarrow.compute as pc

    categories = [text for text in pc.unique(to_texts(rows, spelling)).to_pylist() if text is not None]
    if all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in categories):
        return tuple(sorted(categories, key=lambda text: (int(text), text)))
    return tuple(sorted(categories))


def encode_categories(rows: RawColumn) -> np.ndarray:
    """Return the category of each row as an integer; missing cells are one more category."""
    import numpy as np

    texts = to_texts(rows, fractions=True)
    spelling = choose_spelling(texts, normalize=True)
    categories = build_vocabulary(texts, spelling)
    indices = lookup_indices(texts, categories, spelling)
    return np.where(indices == MISSING, len(categories), indices)


def lookup_indices(rows: RawColumn, classes: tuple[str, ...], spelling: Spelling = "raw") -> np.ndarray:
    """Return the index of every cell in `classes`, int32 `(rows,)`; UNKNOWN or MISSING where it has none.

    Args:
        classes: Texts in the canonical form of `spelling`.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    cells, names = to_texts(rows), pa.array(classes, pa.string())
    indices = np.asarray(pc.fill_null(pc.index_in(cells, value_set=names), UNKNOWN)).astype("int32")
    # Nearly all cells are in canonical form, which is their own; only the others are converted.
    rest = np.flatnonzero(indices == UNKNOWN)
    if spelling == "raw" or not len(rest):
        return np.where(np.asarray(pc.is_null(cells)), np.int32(MISSING), indices)
    converted = canonicalize(cells.take(pa.array(rest)), spelling)
    indices[rest] = np.asarray(pc.fill_null(pc.index_in(converted, value_set=names), UNKNOWN))
    indices[rest[np.asarray(pc.is_null(converted))]] = MISSING
    return indices


def format_cell(rows: RawColumn, row: int) -> str:
    """Format a cell for a message."""
    if is_file_column(rows):
        return "an encoded file"
    if is_text_column(rows):
        cell = rows[row].as_py()
        return "nothing" if cell is None else quoted(cell) if isinstance(cell, str) else repr(cell)
    return str(rows[row]) if rows.ndim == 1 else "another value in an array"


def _are_long_codes(rows: RawColumn) -> bool:
    """Whether all numbers have 16 digits or more, and some lie beyond the integers that float64 represents exactly."""
    import numpy as np
    import pyarrow.compute as pc

    if not is_text_column(rows):
        if rows.dtype.kind not in "iu" or not len(rows):
            return False
        low, high = int(np.abs(rows).min()), max(abs(int(rows.min())), int(rows.max()))
        return low >= 10**15 and high > _EXACT_IN_FLOAT64
    cells = pc.utf8_trim_whitespace(rows)
    if not len(cells) or not pc.all(pc.match_substring_regex(cells, _LONG_INTEGER)).as_py():
        return False
    digits = pc.utf8_ltrim(cells, "+-0")
    is_longer = pc.greater(pc.utf8_length(digits), len(str(_EXACT_IN_FLOAT64)))
    return bool(pc.any(pc.or_(is_longer, pc.greater(digits, str(_EXACT_IN_FLOAT64)))).as_py())


def _get_text(rows: RawColumn, row: int) -> str | None:
    return rows[row].as_py() if is_text_column(rows) else None


def _format_numbers(rows: Any) -> pa.Array:
    """Convert the numbers of an array to text, those that are integers without a decimal point."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return _format_integers(rows)
    except RowFault:
        values = rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
        if values.ndim != 1:
            raise
    # Of the array's own precision: as float64, a 0.1 of float32 would be 0.10000000149011612.
    return pc.cast(pa.array(values, mask=np.isnan(values)), pa.string())


def _format_integers(rows: Any) -> pa.Array:
    """Convert the integers of an array to text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    values = rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
    if values.ndim != 1:
        raise RowFault(0, f"expected one value a row, received an array of shape {tuple(values.shape[1:])}.")
    # Numbers beyond int64 are cast to another value with a warning; the comparison below finds them.
    with np.errstate(invalid="ignore"):
        integers = (
            values.astype("int64") if values.dtype.kind != "f" else np.nan_to_num(np.rint(values)).astype("int64")
        )
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    fractional = (integers != values) & ~missing
    if fractional.any():
        row = int(np.argmax(fractional))
        raise RowFault(row, f"expected a whole number, received {values[row]}.", option="Read it as `kind: number`.")
    return pc.cast(pa.array(integers, mask=missing), pa.string())
