"""Cells that cannot be read: their rows are left out, or they are taken for missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bmcli import parts
from bmcli.data import columns
from bmcli.data.sources import SourceRows
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, is_file_column, is_text_column, take_rows
from bmcli.recipe.data import DataOptions, get_target_columns
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 256


class RowSubset(Mapping[str, RawColumn]):
    """Some rows of columns, taken whenever a column is asked for."""

    def __init__(self, source_columns: Mapping[str, RawColumn], indices: np.ndarray) -> None:
        self._source_columns, self._indices = source_columns, indices

    def __contains__(self, name: object) -> bool:
        return name in self._source_columns  # without making the column

    def __getitem__(self, name: str) -> RawColumn:
        return take_rows(self._source_columns[name], self._indices)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source_columns)

    def __len__(self) -> int:
        return len(self._source_columns)


class _MaskedColumns(Mapping[str, RawColumn]):
    """Columns in which some cells are taken for missing.

    Args:
        bad: Whether each row is, by column.
    """

    def __init__(self, source_columns: Mapping[str, RawColumn], bad: Mapping[str, np.ndarray]) -> None:
        self._source_columns, self._bad = source_columns, bad

    def __contains__(self, name: object) -> bool:
        return name in self._source_columns  # without making the column

    def __getitem__(self, name: str) -> RawColumn:
        column = self._source_columns[name]
        return _mask_cells(column, self._bad[name]) if name in self._bad else column

    def __iter__(self) -> Iterator[str]:
        return iter(self._source_columns)

    def __len__(self) -> int:
        return len(self._source_columns)


def apply_invalid_policy(
    rows: SourceRows, options: DataOptions, targets: Mapping[str, Kind]
) -> tuple[SourceRows, dict[str, int], int]:
    """The rows by the recipe's policy: some left out, some cells of inputs taken for missing.

    What only the training rows decide, as a class that they lack, is no matter of this policy.

    Returns:
        The rows; how many cells could not be read, by column; how many rows were left out.

    Raises:
        BmcliError: No row is left.
    """
    import numpy as np

    if options.invalid == "error":
        return rows, {}, 0
    inputs = columns.resolve_inputs(rows.columns, options, targets)
    checks = dict(_list_checks(inputs, targets, options.weight))
    read_from = {name: get_target_columns(name, kind) for name, kind in targets.items()}
    bad = {
        name: found
        for name, check in checks.items()
        if (found := _find_unreadable(columns.join_columns(rows.columns, read_from.get(name, (name,))), check)).any()
    }
    filled = {
        name: mask
        for name, mask in bad.items()
        if options.invalid == "fill" and name in inputs and _accepts_missing(rows.columns[name], mask, checks[name])
    }
    skipped = np.zeros(len(rows), bool)
    for name in bad.keys() - filled.keys():
        skipped |= bad[name]
    if skipped.all():
        worst = max(bad, key=lambda name: int(bad[name].sum()))
        raise BmcliError(
            f"no row is left: every row has a cell that cannot be read, most of them in column {quoted(worst)}.",
            path="data.invalid",
            suggestion="Write `invalid: error` to see the first of each column.",
        )
    told = {name: int(mask.sum()) for name, mask in bad.items()}
    if filled:
        rows = replace(rows, columns=_MaskedColumns(rows.columns, filled))
    return (picked(rows, np.flatnonzero(~skipped)) if skipped.any() else rows), told, int(skipped.sum())


def picked(rows: SourceRows, indices: np.ndarray) -> SourceRows:
    """Some rows of a source, with their places there."""
    return replace(
        rows,
        columns=RowSubset(rows.columns, indices),
        split=None if rows.split is None else rows.split[indices],
        where=lambda row: rows.where(int(indices[row])),
        count=len(indices),
    )


def _list_checks(
    inputs: Mapping[str, Kind], targets: Mapping[str, Kind], weight: str | None
) -> Iterator[tuple[str, Callable[[RawColumn], object]]]:
    """Columns with what refuses their cells."""
    for room, kinds in (("inputs", inputs), ("data.targets", targets)):
        for name, kind in kinds.items():
            yield name, partial(parts.load(room, kind.kind).check, options=kind)
    if weight is not None:
        yield weight, columns.read_weights


def _find_unreadable(column: RawColumn, check: Callable[[RawColumn], object]) -> np.ndarray:
    """Whether each cell of a column is refused, `(rows,)`."""
    import numpy as np

    bad = np.zeros(len(column), bool)
    if _is_readable(column, check):
        return bad
    for start in range(0, len(column), _BLOCK):
        left = np.arange(start, min(start + _BLOCK, len(column)))
        while len(left) and (fault := _find_fault(take_rows(column, left), check)):
            bad[left[fault.row]] = True
            left = np.delete(left, fault.row)
    return bad


def _accepts_missing(column: RawColumn, bad: np.ndarray, check: Callable[[RawColumn], object]) -> bool:
    """Whether the kind of a column knows missing cells, as a number with `missing: fault` does not."""
    return _is_readable(_mask_cells(column, bad), check)


def _is_readable(column: RawColumn, check: Callable[[RawColumn], object]) -> bool:
    return _find_fault(column, check) is None


def _find_fault(column: RawColumn, check: Callable[[RawColumn], object]) -> RowFault | None:
    try:
        check(column)
    except RowFault as fault:
        return fault
    return None


def _mask_cells(column: RawColumn, bad: np.ndarray) -> RawColumn:
    """The column with some cells missing."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_file_column(column):
        return column.with_missing(bad)
    if is_text_column(column):
        return pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column)
    return np.where(bad.reshape(-1, *[1] * (column.ndim - 1)), np.nan, column)
