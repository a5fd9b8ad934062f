"""Predictions as tables, written as CSV, Parquet or JSON lines."""

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
    """Formats by the endings of file names; tables divided by tabs are read, but never written."""
    every: tuple[TableFormat, ...] = get_args(TableFormat)
    known = {
        ending: kind
        for ending, kind in sources.map_endings_to_kinds().items()
        if ending not in sources.TAB_SEPARATED_ENDINGS
    }
    return {ending: kind for ending, read in known.items() for kind in every if kind == read}


def make_table(
    kept_columns: Mapping[str, RawColumn],
    predictions: Mapping[str, np.ndarray],
    targets: Sequence[Column],
    quantiles: Mapping[str, Sequence[float]],
) -> pa.Table:
    """Kept columns, then those of each target.

    `price` for a number; `species` and `species_probability_Gentoo` for a class, or for each label of several;
    `price`, the quantile in the middle, and `price_quantile_0.9` where quantiles are predicted.

    Args:
        predictions: By target: probabilities `(rows, classes)`, numbers `(rows,)`, or `(rows, quantiles)`.
        quantiles: Of each target whose quantiles are predicted, which they are.
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
            f"column {quoted(name)} has no single values to be kept.", suggestion="Leave it out of --keep."
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
    return {column.name: make_answer_column(point, column), **probabilities}


def make_answer_column(truth: np.ndarray, column: Column) -> pa.Array:
    """A decoded target as a column: the names of classes, or numbers."""
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
    """All labels of a row in one cell, as such a target is written."""
    separator = column.state["separator"]
    return [
        separator.join(name for name, there in zip(column.classes, row, strict=True) if there) for row in point.tolist()
    ]


TableWriter = Callable[["pa.Table"], None]


@contextlib.contextmanager
def open_writer(output: Path | None, table_format: TableFormat, rows: int) -> Iterator[TableWriter]:
    """A function that writes tables of one schema after each other, to a file or to standard output.

    Args:
        rows: About how many there are in all.

    Raises:
        BmcliError: The file is there by the end.
    """
    writer = {"csv": _open_csv, "parquet": _open_parquet, "jsonl": _open_json_lines}[table_format]
    first: list[pa.Table] = []  # by which the size of all is estimated

    def estimate() -> int | None:
        if not first:
            return None
        sample = io.BytesIO()
        with writer(sample) as write:
            write(first[0])
        return sample.getbuffer().nbytes * max(rows, len(first[0])) // len(first[0])

    def kept(write: TableWriter) -> TableWriter:
        def keep_and_write(table: pa.Table) -> None:
            if not first and len(table):
                first.append(table)
            write(table)

        return keep_and_write

    if output is None:
        with disk.convert_write_errors(_STANDARD_OUTPUT, estimate=estimate):
            with writer(sys.stdout.buffer) as write:
                yield kept(write)
            sys.stdout.buffer.flush()
        return
    try:
        with (
            disk.convert_write_errors(output, estimate=estimate),
            disk.create_new_file(output) as aside,
            aside.open("wb") as file,
        ):
            with writer(file) as write:
                yield kept(write)
            disk.flush(file)
    except FileExistsError:
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.") from None


@contextlib.contextmanager
def _open_csv(file: Any) -> Iterator[TableWriter]:
    """Texts with which a spreadsheet would begin a formula get an apostrophe before them; numbers stay numbers."""
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


# What spreadsheets take for a formula, after the blanks that some of them skip.
_FORMULA = r"^([\t\r]|\s*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def _escape_formulas(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    columns = [
        _escape_texts(each) if pa.types.is_string(each.type) or pa.types.is_large_string(each.type) else each
        for each in rows.columns
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
    """Numbers of half the precision as the shortest decimals that read back to them, missing where not finite."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_float32(column.type):
        column = column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_finite(column), column, None)
    return column
