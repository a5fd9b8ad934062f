"""Raw cells of a source by split, for reports and slices, which show values and not encoded arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.data import columns, derivation, invalid
from bmcli.data.sources import SourceRows, get_source, read_rows
from bmcli.data.splitting import splits
from bmcli.errors import prefix_faults
from bmcli.number_texts import is_year, write_number, write_values
from bmcli.raw_columns import RawColumn, RowFault, is_file_column, is_text_column, read_written_numbers, take_rows
from bmcli.recipe.data import DataOptions, FoldOptions
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np

_MAX_WHOLE = 1e15  # beyond which a float does not hold all digits


@dataclass(frozen=True)
class RawSplits:
    """Raw columns and the rows of each split, in the order of the encoded arrays.

    Args:
        describe_row, origin: As in `SourceRows`.
    """

    columns: Mapping[str, RawColumn]
    indices: Mapping[str, np.ndarray]
    describe_row: Callable[[int], str]
    origin: str

    def cells(self, name: str, split: str, rows: np.ndarray) -> list[str]:
        """Format cells as text, empty where missing.

        Args:
            rows: Positions among the rows of the split.
        """
        column: Any = take_rows(self.columns[name], self.indices[split][rows])
        if is_text_column(column):
            return [cell or "" for cell in column.to_pylist()]
        return ["" if cell != cell else _format_number(cell) for cell in column]  # NaN differs from itself.

    def count_missing(self, name: str) -> dict[str, int]:
        """Count the missing cells of each split."""
        import numpy as np

        is_missing = _find_missing(self.columns[name])
        return {split: int(np.count_nonzero(is_missing[self.indices[split]])) for split in SPLITS}

    def describe_numbers(self, name: str) -> str | None:
        """Describe minimum, maximum and mean of a column, of years without the mean; None if it has no numbers."""
        import numpy as np

        if name not in self.columns:
            return None
        try:
            values = read_written_numbers(self.columns[name])
        except RowFault:
            return None
        numbers = values[~np.isnan(values)].astype("float64")
        if not len(numbers):
            return None
        low, high = float(numbers.min()), float(numbers.max())
        written = " to ".join(write_values(name, [low, high]))
        is_whole = bool((numbers == np.floor(numbers)).all())
        mean = "" if is_year(name, low, high, is_whole) else f", mean {write_number(float(numbers.mean()))}"
        return f"{written}{mean}"

    def select_split(self, split: str) -> SourceRows:
        """Return the rows of a split."""
        all_rows = SourceRows(self.columns, None, self.describe_row, origin=self.origin)
        return invalid.take_source_rows(all_rows, self.indices[split])


def read_raw_folds(options: DataOptions, targets: Mapping[str, TargetOptions], seed: int, count: int) -> RawSplits:
    """Read all single-valued columns, with the test rows of each fold as `fold-1`, `fold-2` and so on.

    Raises:
        BmcliError: As `prepare` does for one of the folds.
    """
    rows, _, _ = read_valid_rows(options, targets)
    tested = {}
    for number in range(1, count + 1):
        # Split like a training of this fold alone, so that the rows are the same.
        split = options.split.model_copy(update={"fold": FoldOptions(number=number, of=count)})
        with prefix_faults(rows.origin):
            assignment = splits.split_rows(rows, options.model_copy(update={"split": split}), targets, seed)
        tested[f"fold-{number}"] = assignment.indices["test"]
    return RawSplits(_select_single_valued(rows, None), tested, rows.describe_row, rows.origin)


def read_raw_splits(
    options: DataOptions, targets: Mapping[str, TargetOptions], seed: int, names: tuple[str, ...] | None
) -> RawSplits:
    """Read single-valued columns of a source, with the rows of each split.

    Args:
        targets: Target options by name.
        seed: Seed of the split and the sample.
        names: Columns, None for all; arrays, files and columns that the source lacks are left out.

    Raises:
        BmcliError: As `prepare` does.
    """
    if names is not None and not names:
        return RawSplits({}, {}, str, "")
    rows, indices = reread_rows(options, targets, seed)
    return RawSplits(_select_single_valued(rows, names), indices, rows.describe_row, rows.origin)


def reread_rows(
    options: DataOptions, targets: Mapping[str, TargetOptions], seed: int
) -> tuple[SourceRows, Mapping[str, np.ndarray]]:
    """Read a source again, and split it into the rows of the encoded arrays, in their order.

    Raises:
        BmcliError: As `prepare` does.
    """
    rows, _, _ = read_valid_rows(options, targets)
    with prefix_faults(rows.origin):
        return rows, splits.split_rows(rows, options, targets, seed).indices


def read_valid_rows(
    options: DataOptions, targets: Mapping[str, TargetOptions]
) -> tuple[SourceRows, dict[str, int], int]:
    """Read a source, check that it has the recipe's columns, and apply the policy for cells that cannot be read.

    Preparation and every later reading share these steps, so that they agree on the rows.

    Returns:
        The rows; the number of unreadable cells by column; the number of skipped rows.

    Raises:
        BmcliError: The source or a column is at fault, or no row is left.
    """
    rows = read_rows(get_source(options), skip_malformed=options.invalid != "error")
    with prefix_faults(rows.origin):
        columns.check_names(rows, options, targets)
        derivations = derivation.list_derivations(options)
        rows = derivation.derive_columns(rows, derivations, with_faults=options.invalid == "error")
        return invalid.apply_invalid_policy(rows, options, targets)


def _select_single_valued(rows: SourceRows, names: tuple[str, ...] | None) -> dict[str, RawColumn]:
    selected = rows.columns if names is None else names
    raw = dict(columns.list_readable(rows.columns, [name for name in selected if name in rows.columns]))
    return {
        name: column
        for name, column in raw.items()
        if not is_file_column(column) and (is_text_column(column) or column.ndim == 1)
    }


def find_row_indices(options: DataOptions, targets: Mapping[str, TargetOptions], seed: int, split: str) -> np.ndarray:
    """Return the indices of a split's rows in the source, in the order of the encoded arrays.

    Arguments and faults are those of `read_raw_splits`.
    """
    return reread_rows(options, targets, seed)[1][split]


def _find_missing(column: RawColumn) -> np.ndarray:
    """Whether each cell is missing, `(rows,)`."""
    import numpy as np
    import pyarrow.compute as pc

    if is_text_column(column):
        return np.asarray(pc.fill_null(pc.equal(column, ""), True))
    return np.asarray(column) != np.asarray(column)  # Only NaN differs from itself; `isnan` refuses some dtypes.


def _format_number(cell: object) -> str:
    """Format a cell as its source may write it: fractions with at most 7 significant digits."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _MAX_WHOLE:
        return str(int(cell))
    return f"{cell:.7g}" if isinstance(cell, float) else str(cell)
