"""The cells of a source as they were written, by split: for a reader, who cannot read what was encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.data import columns, invalid
from bmcli.data.sources import SourceRows, read_rows
from bmcli.data.splitting import splits
from bmcli.errors import naming
from bmcli.raw_columns import RawColumn, RowFault, is_file_column, is_text_column, take_rows, to_numbers
from bmcli.recipe.data import DataOptions, FoldOptions
from bmcli.recipe.fields import Kind
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class RawSplits:
    """Raw columns, and which of their rows each split has, in the order of the encoded ones.

    Args:
        where, origin: As of `SourceRows`.
    """

    columns: Mapping[str, RawColumn]
    indices: Mapping[str, np.ndarray]
    where: Callable[[int], str]
    origin: str

    def cells(self, name: str, split: str, rows: np.ndarray) -> list[str]:
        """Some cells as text, empty where missing.

        Args:
            rows: Positions among the rows of the split.
        """
        picked: Any = take_rows(self.columns[name], self.indices[split][rows])
        if is_text_column(picked):
            return [cell or "" for cell in picked.to_pylist()]
        return ["" if cell != cell else _format_number(cell) for cell in picked]  # NaN is not itself

    def count_missing(self, name: str) -> dict[str, int]:
        """How many cells of each split are missing."""
        import numpy as np

        gone = _find_missing(self.columns[name])
        return {split: int(np.count_nonzero(gone[self.indices[split]])) for split in SPLITS}

    def number_range(self, name: str) -> tuple[float, float, float] | None:
        """The lowest, the mean and the highest number of a column; None if it holds none."""
        import numpy as np

        if name not in self.columns:
            return None
        try:
            values = to_numbers(self.columns[name])
        except RowFault:
            return None
        told = values[~np.isnan(values)].astype("float64")
        return (float(told.min()), float(told.mean()), float(told.max())) if len(told) else None

    def of(self, split: str) -> SourceRows:
        """The rows of a split."""
        every = SourceRows(self.columns, None, self.where, origin=self.origin)
        return invalid.picked(every, self.indices[split])


def read_raw_folds(options: DataOptions, targets: Mapping[str, Kind], seed: int, count: int) -> RawSplits:
    """All columns of single values, and the rows that each fold tests, as `fold-1`.

    Raises:
        BmcliError: As `prepare` does for one of the folds.
    """
    rows = _read_valid_rows(options, targets)
    tested = {}
    for number in range(1, count + 1):
        split = options.split.model_copy(update={"fold": FoldOptions(number=number, of=count)})
        with naming(rows.origin):
            indices, _ = splits.split_rows(rows, options.model_copy(update={"split": split}), targets, seed)
        tested[f"fold-{number}"] = indices["test"]
    return RawSplits(_select_single_valued(rows, None), tested, rows.where, rows.origin)


def read_raw_splits(
    options: DataOptions, targets: Mapping[str, Kind], seed: int, names: tuple[str, ...] | None
) -> RawSplits:
    """Some columns of single values of a source whose rows are prepared already.

    Args:
        targets: Target options by name.
        seed: What decided the split and the sample.
        names: Columns, None for all; those that the source does not have, and arrays and files, are left out.

    Raises:
        BmcliError: As `prepare` does.
    """
    if names is not None and not names:
        return RawSplits({}, {}, str, "")
    rows, indices = reread_rows(options, targets, seed)
    return RawSplits(_select_single_valued(rows, names), indices, rows.where, rows.origin)


def reread_rows(
    options: DataOptions, targets: Mapping[str, Kind], seed: int
) -> tuple[SourceRows, Mapping[str, np.ndarray]]:
    """The rows of a source that is prepared already, and those of each split, in the order of the encoded ones.

    Raises:
        BmcliError: As `prepare` does.
    """
    rows = _read_valid_rows(options, targets)
    with naming(rows.origin):
        return rows, splits.split_rows(rows, options, targets, seed)[0]


def _read_valid_rows(options: DataOptions, targets: Mapping[str, Kind]) -> SourceRows:
    """The rows of a source without those that cannot be read."""
    rows = read_rows(options.source, skip_broken=options.invalid != "error")  # type: ignore[arg-type]
    with naming(rows.origin):
        columns.check_names(rows, options, targets)
        return invalid.apply_invalid_policy(rows, options, targets)[0]


def _select_single_valued(rows: SourceRows, names: tuple[str, ...] | None) -> dict[str, RawColumn]:
    wanted = rows.columns if names is None else names
    found = {name: rows.columns[name] for name in wanted if name in rows.columns}
    return {name: column for name, column in found.items() if _is_single_valued(column)}


def find_row_indices(options: DataOptions, targets: Mapping[str, Kind], seed: int, split: str) -> np.ndarray:
    """Which rows of a source a split has, in the order of the encoded ones.

    Arguments and faults as of `read_raw_splits`.
    """
    return reread_rows(options, targets, seed)[1][split]


def _is_single_valued(column: RawColumn) -> bool:
    return not is_file_column(column) and (is_text_column(column) or column.ndim == 1)


def _find_missing(column: RawColumn) -> np.ndarray:
    """Whether each cell is missing, `(rows,)`."""
    import numpy as np
    import pyarrow.compute as pc

    if is_text_column(column):
        return np.asarray(pc.fill_null(pc.equal(column, ""), True))
    return np.asarray(column) != np.asarray(column)


def _format_number(cell: object) -> str:
    """A number as short as it can be read back."""
    return f"{cell:.7g}" if isinstance(cell, float) else str(cell)
