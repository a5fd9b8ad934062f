"""Make tables of predictions and write them as CSV, Parquet or JSON lines."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bmcli import disk
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, is_text_column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.answers import Answers, AnswerTable

TableFormat = Literal["csv", "parquet", "jsonl"]

_STANDARD_OUTPUT = Path("/dev/stdout")


def list_formats() -> dict[str, TableFormat]:
    """Return the format of each file ending that is written; more endings are read."""
    return {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


def make_table(
    kept_columns: Mapping[str, RawColumn],
    predictions: Mapping[str, np.ndarray],
    answers: Mapping[str, Answers],
    truth: Mapping[str, np.ndarray] | None = None,
) -> pa.Table:
    """Make a table of kept columns, followed by those of each output, by `Answers.make_columns`.

    A row has as many lines as the output with most of them. An output with one line for each row repeats it in all of
    them, as kept columns are; cells of the others are missing below their last line.

    Args:
        truth: Decoded targets by output, which follow as columns such as `species_true`, also for rows without answers.

    Raises:
        BmcliError: A kept column has several values a row, or the name of another column.
    """
    import pyarrow as pa

    from bmcli.answers import AnswerTable

    tables = [each.make_columns(predictions[name]) for name, each in answers.items()]
    if truth is not None:
        tables.append(
            AnswerTable({f"{name}_true": each.make_truth_column(truth[name]) for name, each in answers.items()})
        )
    taken = {name for each in tables for name in each.columns}
    if clashing := next((name for name in kept_columns if name in taken), None):
        raise BmcliError(
            f"column {quoted(clashing)} cannot be kept: the predictions have a column of this name.",
            suggestion="Rename it in the data.",
        )
    kept = AnswerTable({name: _convert_kept_column(name, rows) for name, rows in kept_columns.items()})
    rows = len(next(iter(predictions.values())))
    counts = _count_lines(tables, rows)
    return pa.table(
        {name: column for each in (kept, *tables) for name, column in _spread_lines(each, rows, counts).items()}
    )


def _count_lines(tables: Sequence[AnswerTable], rows: int) -> np.ndarray | None:
    """Count the lines of each row, `(rows,)`; None if every row has one."""
    import numpy as np

    given = [each.rows for each in tables if each.rows is not None]
    if not given:
        return None
    counts = [np.bincount(each, minlength=rows) for each in given]
    return np.max([*counts, *([np.ones(rows, "int64")] if len(given) < len(tables) else [])], axis=0)


def _spread_lines(table: AnswerTable, rows: int, counts: np.ndarray | None) -> Mapping[str, Any]:
    """Repeat or fill up columns, so that each row has the lines of `counts`."""
    import numpy as np
    import pyarrow as pa

    if counts is None:
        return table.columns
    row_of_line = np.repeat(np.arange(rows), counts)
    if table.rows is None:
        return {name: column.take(pa.array(row_of_line)) for name, column in table.columns.items()}
    own = np.bincount(table.rows, minlength=rows)
    places = np.arange(len(row_of_line)) - (np.cumsum(counts) - counts)[row_of_line]
    lines = pa.array((np.cumsum(own) - own)[row_of_line] + places, mask=places >= own[row_of_line])
    return {name: column.take(lines) for name, column in table.columns.items()}


def _convert_kept_column(name: str, rows: RawColumn) -> Any:
    import pyarrow as pa

    if is_text_column(rows):
        return rows
    if getattr(rows, "ndim", 0) != 1:
        raise BmcliError(
            f"column {quoted(name)} does not have one value per row.", suggestion="Leave it out of --keep."
        )
    return pa.array(rows)


TableWriter = Callable[["pa.Table"], None]
"""Write a table; all tables of a writer have the same schema."""


@contextlib.contextmanager
def open_writer(
    output: Path | None, table_format: TableFormat, rows: int, spreadsheet_safe: bool = False
) -> Iterator[TableWriter]:
    """Open a writer of tables, which are appended to a new file or to standard output.

    Args:
        rows: Approximate number of rows of all tables.
        spreadsheet_safe: Put an apostrophe before texts in CSV that a spreadsheet would run as formulas.

    Raises:
        BmcliError: The file exists by the end.
    """
    open_csv = _open_safe_csv if spreadsheet_safe else _open_csv
    open_table = {"csv": open_csv, "parquet": _open_parquet, "jsonl": _open_json_lines}[table_format]
    first: list[pa.Table] = []

    def estimate_bytes() -> int | None:
        """Estimate the size of the output from its first table, for the message of a full disk."""
        if not first:
            return None
        sample = io.BytesIO()
        with open_table(sample) as write:
            write(first[0])
        return sample.getbuffer().nbytes * max(rows, len(first[0])) // len(first[0])

    def keep_first(write: TableWriter) -> TableWriter:
        def keep_and_write(table: pa.Table) -> None:
            if not first and len(table):
                first.append(table)
            write(table)

        return keep_and_write

    if output is None:
        with disk.convert_write_errors(_STANDARD_OUTPUT, estimate=estimate_bytes):
            with open_table(sys.stdout.buffer) as write:
                yield keep_first(write)
            sys.stdout.buffer.flush()
        return
    try:
        with (
            disk.convert_write_errors(output, estimate=estimate_bytes),
            disk.create_new_file(output) as temporary,
            temporary.open("wb") as file,
        ):
            with open_table(file) as write:
                yield keep_first(write)
            disk.flush(file)
    except FileExistsError:
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.") from None


@contextlib.contextmanager
def _open_safe_csv(file: Any) -> Iterator[TableWriter]:
    """Open a CSV writer; texts that a spreadsheet would run as formulas get an apostrophe before them."""
    with _open_csv(file) as write:
        yield lambda rows: write(_escape_formulas(rows))


@contextlib.contextmanager
def _open_csv(file: Any) -> Iterator[TableWriter]:
    from pyarrow import csv

    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write(rows: pa.Table) -> None:
            if not writers:
                options = csv.WriteOptions(quoting_style="needed")
                writers.append(stack.enter_context(csv.CSVWriter(file, rows.schema, write_options=options)))
            writers[0].write_table(rows)

        yield write


# The beginning of a formula in spreadsheets, after blanks, which some of them skip. The last four are full-width
# forms of `=`, `+`, `-` and `@`, which some read as the plain ones. A foreign text in the data could otherwise run
# commands when the file is opened.
_FORMULA = r"^([\t\r]|\s*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def count_formulas(rows: pa.Table) -> int:
    """Count the texts that a spreadsheet would run as formulas."""
    import pyarrow.compute as pc

    return sum(pc.sum(_find_formulas(column)).as_py() or 0 for column in rows.columns if _is_text(column))


def _is_text(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _find_formulas(texts: Any) -> Any:
    import pyarrow.compute as pc

    return pc.and_not(pc.match_substring_regex(texts, _FORMULA), pc.match_substring_regex(texts, _NUMBER))


def _escape_formulas(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    columns = [_escape_texts(column) if _is_text(column) else column for column in rows.columns]
    return pa.table(columns, names=_escape_texts(pa.array(rows.column_names, pa.string())).to_pylist())


def _escape_texts(texts: Any) -> Any:
    import pyarrow.compute as pc

    formulas = _find_formulas(texts)
    if not pc.any(formulas).as_py():
        return texts
    return pc.if_else(formulas, pc.binary_join_element_wise("'", texts, ""), texts)


@contextlib.contextmanager
def _open_parquet(file: Any) -> Iterator[TableWriter]:
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write(rows: pa.Table) -> None:
            if not writers:
                writers.append(stack.enter_context(parquet.ParquetWriter(file, rows.schema)))
            writers[0].write_table(rows)

        yield write


@contextlib.contextmanager
def _open_json_lines(file: Any) -> Iterator[TableWriter]:
    def write(rows: pa.Table) -> None:
        columns = [_shorten_floats(column).to_pylist() for column in rows.columns]
        lines = (
            json.dumps(dict(zip(rows.column_names, cells, strict=True)), ensure_ascii=False)
            for cells in zip(*columns, strict=True)
        )
        file.write("".join(f"{line}\n" for line in lines).encode())

    yield write


def _shorten_floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert float32 to the shortest decimals that read back to it; numbers that are not finite become missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Widened directly, 0.1 in float32 would be written as 0.10000000149011612. JSON has no NaN and no infinity.
    if pa.types.is_float32(column.type):
        column = column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_finite(column), column, None)
    return column
