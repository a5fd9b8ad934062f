"""The policy for cells that cannot be read: skip their rows, or treat them as missing."""

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
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import Kind
from bmcli.recipe.targets import TargetOptions

if TYPE_CHECKING:
    import numpy as np

_BLOCK_ROWS = 256


class RowSubset(Mapping[str, RawColumn]):
    """Columns restricted to some rows; the rows are selected when a column is accessed."""

    def __init__(self, source_columns: Mapping[str, RawColumn], indices: np.ndarray) -> None:
        self._source_columns, self._indices = source_columns, indices

    def __contains__(self, name: object) -> bool:
        return name in self._source_columns  # The inherited method would build the column.

    def __getitem__(self, name: str) -> RawColumn:
        return take_rows(self._source_columns[name], self._indices)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source_columns)

    def __len__(self) -> int:
        return len(self._source_columns)


class _MaskedColumns(Mapping[str, RawColumn]):
    """Columns in which some cells are treated as missing.

    Args:
        masks: Whether each cell is treated as missing, `(rows,)`, by column.
    """

    def __init__(self, source_columns: Mapping[str, RawColumn], masks: Mapping[str, np.ndarray]) -> None:
        self._source_columns, self._masks = source_columns, masks

    def __contains__(self, name: object) -> bool:
        return name in self._source_columns  # The inherited method would build the column.

    def __getitem__(self, name: str) -> RawColumn:
        column = self._source_columns[name]
        return mask_cells(column, self._masks[name]) if name in self._masks else column

    def __iter__(self) -> Iterator[str]:
        return iter(self._source_columns)

    def __len__(self) -> int:
        return len(self._source_columns)


def apply_invalid_policy(
    rows: SourceRows, options: DataOptions, targets: Mapping[str, TargetOptions]
) -> tuple[SourceRows, dict[str, int], int]:
    """Apply the policy of `data.invalid`: skip rows, or treat cells of inputs as missing.

    The policy covers cells that cannot be read by themselves. Cells that are faults only because of the training rows,
    such as a class that is absent there, stay faults.

    Returns:
        The rows; the number of unreadable cells by column; the number of skipped rows.

    Raises:
        BmcliError: No row is left.
    """
    import numpy as np

    if options.invalid == "error":
        return rows, {}, 0
    inputs = columns.resolve_inputs(rows.columns, options, targets)
    checks = dict(_list_checks(inputs, targets, options.weight))
    read_from = {name: kind.list_read_columns(name) for name, kind in targets.items()}
    derived = {name: kind.reads[:1] for name, kind in inputs.items() if kind.reads}  # a cell of these is many rows'
    read_from |= derived
    unreadable = {
        name: mask
        for name, check in checks.items()
        if (mask := find_unreadable(columns.join_columns(rows.columns, read_from.get(name, (name,))), check)).any()
    }
    filled = {
        name: mask
        for name, mask in unreadable.items()
        if options.invalid == "fill"
        and name in inputs
        and name not in derived
        and _accepts_missing(rows.columns[name], mask, checks[name])
    }
    skipped = np.zeros(len(rows), bool)
    for name in unreadable.keys() - filled.keys() - derived.keys():
        skipped |= unreadable[name]
    if skipped.all():
        worst = max(unreadable, key=lambda name: int(unreadable[name].sum()))
        raise BmcliError(
            f"no row is left: every row has a cell that cannot be read, most of them in column {quoted(worst)}.",
            path="data.invalid",
            suggestion="Write `invalid: error` to see the first such cell of each column.",
        )
    counts = {name: int(mask.sum()) for name, mask in unreadable.items()}
    if filled:
        rows = replace(rows, columns=_MaskedColumns(rows.columns, filled))
    return (take_source_rows(rows, np.flatnonzero(~skipped)) if skipped.any() else rows), counts, int(skipped.sum())


def take_source_rows(rows: SourceRows, indices: np.ndarray) -> SourceRows:
    """Select rows of a source; they keep their places in its files."""
    return replace(
        rows,
        columns=RowSubset(rows.columns, indices),
        split=None if rows.split is None else rows.split[indices],
        describe_row=lambda row: rows.describe_row(int(indices[row])),
        count=len(indices),
    )


def _list_checks(
    inputs: Mapping[str, Kind], targets: Mapping[str, TargetOptions], weight: str | None
) -> Iterator[tuple[str, Callable[[RawColumn], object]]]:
    """Return the check of the cells of each input, target and weight, by column."""
    for room, kinds in (("inputs", inputs), ("data.targets", targets)):
        for name, kind in kinds.items():
            yield name, partial(parts.load(room, kind.kind).check, options=kind)
    if weight is not None:
        yield weight, columns.read_weights


def find_unreadable(column: RawColumn, check: Callable[[RawColumn], object], limit: int | None = None) -> np.ndarray:
    """Find the cells of a column that `check` refuses, boolean `(rows,)`.

    A check stops at the first fault, so it runs again without that row; in blocks, so that it does not run over the
    whole column for each fault.

    Args:
        limit: Number of cells after which the search ends; None for all.
    """
    import numpy as np

    unreadable = np.zeros(len(column), bool)
    if _find_fault(column, check) is None:
        return unreadable
    for start in range(0, len(column), _BLOCK_ROWS):
        remaining = np.arange(start, min(start + _BLOCK_ROWS, len(column)))
        while len(remaining) and (fault := _find_fault(take_rows(column, remaining), check)):
            unreadable[remaining[fault.row]] = True
            remaining = np.delete(remaining, fault.row)
            if limit is not None and unreadable.sum() >= limit:
                return unreadable
    return unreadable


def _accepts_missing(column: RawColumn, mask: np.ndarray, check: Callable[[RawColumn], object]) -> bool:
    """Whether the kind of a column accepts missing cells, which a number with `missing: fault` does not."""
    return _find_fault(mask_cells(column, mask), check) is None


def _find_fault(column: RawColumn, check: Callable[[RawColumn], object]) -> RowFault | None:
    try:
        check(column)
    except RowFault as fault:
        return fault
    return None


def mask_cells(column: RawColumn, mask: np.ndarray) -> RawColumn:
    """Make the cells missing where `mask` is true."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_file_column(column):
        return column.with_missing(mask)
    if is_text_column(column):
        return pc.if_else(pa.array(mask), pa.scalar(None, pa.string()), column)
    return np.where(mask.reshape(-1, *[1] * (column.ndim - 1)), np.nan, column)  # Integers become floating point.
