"""Make tables of predictions and write them as CSV, Parquet or JSON lines."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from bmcli import disk
from bmcli.data import sources
from bmcli.data import targets as target_kinds
from bmcli.errors import BmcliError
from bmcli.objectives import find_median_index
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, is_text_column
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TableFormat = Literal["csv", "parquet", "jsonl"]

_STANDARD_OUTPUT = Path("/dev/stdout")


def list_formats() -> dict[str, TableFormat]:
    """Return the format of each file ending; tables separated by tabs are read, but never written."""
    formats: tuple[TableFormat, ...] = get_args(TableFormat)
    kinds = {
        ending: kind
        for ending, kind in sources.map_endings_to_kinds().items()
        if ending not in sources.TAB_SEPARATED_ENDINGS
    }
    return {ending: table_format for ending, kind in kinds.items() for table_format in formats if table_format == kind}


def make_table(
    kept_columns: Mapping[str, RawColumn],
    predictions: Mapping[str, np.ndarray],
    targets: Sequence[Column],
    quantiles: Mapping[str, Sequence[float]],
) -> pa.Table:
    """Make a table of kept columns, followed by those of each target.

    A target `price` with numbers has a column `price`; if its quantiles are predicted, that is the middle one, beside
    columns such as `price_quantile_0.9`. A target `species` with classes or labels has a column `species` and columns
    such as `species_probability_Gentoo`.

    Args:
        predictions: By target: probabilities `(rows, classes)`, numbers `(rows,)`, or `(rows, quantiles)`.
        quantiles: Levels of the predicted quantiles, for targets that have them.
    """
    import pyarrow as pa

    columns = {name: _convert_kept_column(name, rows) for name, rows in kept_columns.items()}
    for column in targets:
        columns |= _make_target_columns(column, predictions[column.name], quantiles.get(column.name, ()))
    return pa.table(columns)


def _convert_kept_column(name: str, rows: RawColumn) -> Any:
    import pyarrow as pa

    if is_text_column(rows):
        return rows
    if getattr(rows, "ndim", 0) != 1:
        raise BmcliError(
            f"column {quoted(name)} does not have one value per row.", suggestion="Leave it out of --keep."
        )
    return pa.array(rows)


def _make_target_columns(column: Column, predicted: np.ndarray, quantiles: Sequence[float]) -> dict[str, Any]:
    import pyarrow as pa

    if not column.classes:
        return _make_number_columns(predicted, column.name, quantiles)
    point = target_kinds.kind_of(column).predict_point(predicted, column)
    probabilities = {
        f"{column.name}_probability_{name}": pa.array(predicted[:, i]) for i, name in enumerate(column.classes)
    }
    return {column.name: make_decoded_column(point, column), **probabilities}


def make_decoded_column(truth: np.ndarray, column: Column) -> pa.Array:
    """Make a column of a decoded target: names of classes, labels joined in one cell, or numbers."""
    import pyarrow as pa

    if not column.classes:
        return pa.array(truth)
    return pa.array(_join_labels(truth, column)) if truth.ndim == 2 else _name_classes(truth, column)


def _make_number_columns(predicted: np.ndarray, name: str, quantiles: Sequence[float]) -> dict[str, Any]:
    import pyarrow as pa

    if not quantiles:
        return {name: pa.array(predicted)}
    levels = {f"{name}_quantile_{level:g}": pa.array(predicted[:, i]) for i, level in enumerate(quantiles)}
    return {name: pa.array(predicted[:, find_median_index(quantiles)]), **levels}


def _name_classes(point: np.ndarray, column: Column) -> pa.Array:
    import pyarrow as pa

    return pa.array(column.classes, pa.string()).take(pa.array(point))


def _join_labels(point: np.ndarray, column: Column) -> list[str]:
    """Join the labels of each row in one cell, with the separator that the data uses."""
    separator = column.state["separator"]
    return [
        separator.join(name for name, is_set in zip(column.classes, row, strict=True) if is_set)
        for row in point.tolist()
    ]


TableWriter = Callable[["pa.Table"], None]
"""Write a table; all tables of a writer have the same schema."""


@contextlib.contextmanager
def open_writer(output: Path | None, table_format: TableFormat, rows: int) -> Iterator[TableWriter]:
    """Open a writer of tables, which are appended to a new file or to standard output.

    Args:
        rows: Approximate number of rows of all tables.

    Raises:
        BmcliError: The file exists by the end.
    """
    open_table = {"csv": _open_csv, "parquet": _open_parquet, "jsonl": _open_json_lines}[table_format]
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
def _open_csv(file: Any) -> Iterator[TableWriter]:
    """Open a CSV writer; texts that a spreadsheet would run as formulas get an apostrophe before them."""
    from pyarrow import csv

    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write(rows: pa.Table) -> None:
            rows = _escape_formulas(rows)
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


def _escape_formulas(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    columns = [
        _escape_texts(column) if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else column
        for column in rows.columns
    ]
    return pa.table(columns, names=_escape_texts(pa.array(rows.column_names, pa.string())).to_pylist())


def _escape_texts(texts: Any) -> Any:
    import pyarrow.compute as pc

    formulas = pc.and_not(pc.match_substring_regex(texts, _FORMULA), pc.match_substring_regex(texts, _NUMBER))
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
        file.write(("\n".join(lines) + "\n").encode())

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
