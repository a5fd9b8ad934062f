"""Cells that cannot be read: their rows are left out, or they are taken for missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bmcli import parts
from bmcli.data import columns
from bmcli.data.sources import Rows
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import Raw, RowFault, are_blobs, is_text, take
from bmcli.recipe.data import DataOptions, columns_of
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 256


class Picked(Mapping[str, Raw]):
    """Some rows of columns, taken whenever a column is asked for."""

    def __init__(self, every: Mapping[str, Raw], indices: np.ndarray) -> None:
        self._every, self._indices = every, indices

    def __contains__(self, name: object) -> bool:
        return name in self._every  # without making the column

    def __getitem__(self, name: str) -> Raw:
        return take(self._every[name], self._indices)

    def __iter__(self) -> Iterator[str]:
        return iter(self._every)

    def __len__(self) -> int:
        return len(self._every)


class _Filled(Mapping[str, Raw]):
    """Columns in which some cells are taken for missing.

    Args:
        bad: Whether each row is, by column.
    """

    def __init__(self, every: Mapping[str, Raw], bad: Mapping[str, np.ndarray]) -> None:
        self._every, self._bad = every, bad

    def __contains__(self, name: object) -> bool:
        return name in self._every  # without making the column

    def __getitem__(self, name: str) -> Raw:
        column = self._every[name]
        return _without(column, self._bad[name]) if name in self._bad else column

    def __iter__(self) -> Iterator[str]:
        return iter(self._every)

    def __len__(self) -> int:
        return len(self._every)


def settled(rows: Rows, options: DataOptions, targets: Mapping[str, Kind]) -> tuple[Rows, dict[str, int], int]:
    """The rows by the recipe's policy: some left out, some cells of inputs taken for missing.

    What only the training rows decide, as a class that they lack, is no matter of this policy.

    Returns:
        The rows; how many cells could not be read, by column; how many rows were left out.

    Raises:
        BmcliError: No row is left.
    """
    import numpy as np

    if options.invalid == "stop":
        return rows, {}, 0
    inputs = columns.inputs(rows.columns, options, targets)
    checks = dict(_checks(inputs, targets, options.weight))
    read_from = {name: columns_of(name, kind) for name, kind in targets.items()}
    bad = {
        name: found
        for name, check in checks.items()
        if (found := _unreadable(columns.joined(rows.columns, read_from.get(name, (name,))), check)).any()
    }
    filled = {
        name: mask
        for name, mask in bad.items()
        if options.invalid == "fill" and name in inputs and _can_lack(rows.columns[name], mask, checks[name])
    }
    skipped = np.zeros(len(rows), bool)
    for name in bad.keys() - filled.keys():
        skipped |= bad[name]
    if skipped.all():
        worst = max(bad, key=lambda name: int(bad[name].sum()))
        raise BmcliError(
            f"no row is left: every row has a cell that cannot be read, most of them in column {quoted(worst)}.",
            path="data.invalid",
            suggestion="Write `invalid: stop` to see the first of each column.",
        )
    told = {name: int(mask.sum()) for name, mask in bad.items()}
    if filled:
        rows = replace(rows, columns=_Filled(rows.columns, filled))
    return (picked(rows, np.flatnonzero(~skipped)) if skipped.any() else rows), told, int(skipped.sum())


def picked(rows: Rows, indices: np.ndarray) -> Rows:
    """Some rows of a source, with their places there."""
    return replace(
        rows,
        columns=Picked(rows.columns, indices),
        split=None if rows.split is None else rows.split[indices],
        where=lambda row: rows.where(int(indices[row])),
        count=len(indices),
    )


def _checks(
    inputs: Mapping[str, Kind], targets: Mapping[str, Kind], weight: str | None
) -> Iterator[tuple[str, Callable[[Raw], object]]]:
    """Columns with what refuses their cells."""
    for room, kinds in (("inputs", inputs), ("data.targets", targets)):
        for name, kind in kinds.items():
            yield name, partial(parts.load(room, kind.kind).check, options=kind)
    if weight is not None:
        yield weight, columns.weights


def _unreadable(column: Raw, check: Callable[[Raw], object]) -> np.ndarray:
    """Whether each cell of a column is refused, `(rows,)`."""
    import numpy as np

    bad = np.zeros(len(column), bool)
    if _passes(column, check):
        return bad
    for start in range(0, len(column), _BLOCK):
        left = np.arange(start, min(start + _BLOCK, len(column)))
        while len(left) and (fault := _fault(take(column, left), check)):
            bad[left[fault.row]] = True
            left = np.delete(left, fault.row)
    return bad


def _can_lack(column: Raw, bad: np.ndarray, check: Callable[[Raw], object]) -> bool:
    """Whether the kind of a column knows missing cells, as a number with `missing: fault` does not."""
    return _passes(_without(column, bad), check)


def _passes(column: Raw, check: Callable[[Raw], object]) -> bool:
    return _fault(column, check) is None


def _fault(column: Raw, check: Callable[[Raw], object]) -> RowFault | None:
    try:
        check(column)
    except RowFault as fault:
        return fault
    return None


def _without(column: Raw, bad: np.ndarray) -> Raw:
    """The column with some cells missing."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if are_blobs(column):
        return column.without(bad)
    if is_text(column):
        return pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column)
    return np.where(bad.reshape(-1, *[1] * (column.ndim - 1)), np.nan, column)
