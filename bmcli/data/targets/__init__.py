"""Kinds of target: what a model learns to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import AfterValidator

from bmcli import parts, raw_columns
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.fields import Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


_MANY, _FEW_ROWS = 50, 1.05  # classes, and rows of each, by which a column tells rows apart


class TargetKind(Protocol):
    """What a module in this folder offers. Unlike inputs, a target must not be missing or unknown."""

    Options: type[Kind]

    def fit(self, name: str, rows: RawColumn, options: Any) -> Column:
        """Classes or scale, from the training rows.

        Args:
            rows: Cells of the target's column, or records of those that its option `columns` lists, which it then
                keeps in `state["columns"]`.

        Raises:
            RowFault: A cell cannot be read as this kind.
            BmcliError: The column as a whole cannot be learned, e.g. it has one class.
        """

    def check(self, rows: RawColumn, options: Any) -> None:
        """Raises RowFault for a cell that is missing or cannot be read as this kind, whatever the other rows hold."""

    def encode(self, rows: RawColumn, column: Column) -> np.ndarray:
        """Rows as an array `(rows, *column.shape)` of `column.dtype`; raises RowFault as `fit` does."""

    def decode(self, encoded: np.ndarray, column: Column) -> np.ndarray:
        """Encoded rows as evaluation wants them: class indices, 0 and 1 by label, or numbers in their own unit."""

    def predict_point(self, predictions: np.ndarray, column: Column) -> np.ndarray:
        """What predictions come to if one answer has to be given, in the form of `decode`.

        Args:
            predictions: Probabilities `(rows, classes)`, or numbers in the target's own unit `(rows,)`.
        """


def kind_of(column: Column) -> TargetKind:
    """The part that fitted a column."""
    part: TargetKind = parts.load("data.targets", column.kind)
    return part


def get_source_columns(column: Column) -> tuple[str, ...]:
    """The columns of the source that a fitted target is read from."""
    return tuple(column.state.get("columns", (column.name,)))


def _check_unique(value: tuple[str | int, ...]) -> tuple[str | int, ...]:
    names = [str(name) for name in value]
    if len(names) > len(set(names)):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise fault("classes", f"{quoted(twice)} is there twice.")
    return value


def _check_two_or_more(value: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if len(value) < 2:
        raise fault("classes", f"expected two classes or more, received {len(value)}.")
    return value


LabelNames = Annotated[tuple[str | int, ...], AfterValidator(_check_unique)]
"""Names of classes or labels in the order of their indices, each of them once."""

ClassNames = Annotated[LabelNames, AfterValidator(_check_two_or_more)]
"""Names of two classes or more."""


def names_to_text(names: LabelNames | None) -> tuple[str, ...] | None:
    """Names of a recipe as text, whole numbers spelled out."""
    return None if names is None else tuple(str(each) for each in names)


def find_classes(name: str, rows: RawColumn) -> tuple[str, ...]:
    """The classes of the training rows: whole numbers by size, text by letters.

    Raises:
        BmcliError: There is one alone, or one for each of many rows.
    """
    found = raw_columns.build_vocabulary(rows)
    if len(found) >= _MANY and len(rows) < len(found) * _FEW_ROWS:
        raise BmcliError(
            f"target {quoted(name)}: nearly every training row has a class of its own, as "
            f"{raw_columns.format_cell(rows, 0)}, so no class can be learned.",
            path=f"data.targets.{name}",
            suggestion="Name another column, or read it as a number, as `kind: number`.",
        )
    if len(found) == 1:
        raise BmcliError(
            f"target {quoted(name)}: every training row has the class {quoted(found[0])}, so there is "
            "nothing to learn.",
            path=f"data.targets.{name}",
        )
    return found


def make_class_column(name: str, kind: str, rows: RawColumn, classes: tuple[str, ...]) -> Column:
    """The column of a target of one class a row.

    Raises:
        RowFault: A class is missing or unknown.
    """
    lookup_classes(rows, classes)
    return Column(
        name=name,
        kind=kind,
        shape=(),
        dtype="int32",
        raw_dtype="string" if raw_columns.is_text_column(rows) else "int64",
        classes=classes,
    )


def check_classes(rows: RawColumn, names: LabelNames | None) -> None:
    """Raises RowFault for a missing class, and one that is not among those that are told."""
    lookup_classes(rows, names_to_text(names) or raw_columns.build_vocabulary(rows))


def lookup_classes(rows: RawColumn, classes: tuple[str, ...]) -> np.ndarray:
    """The class of every row as its position in `classes`, int32 `(rows,)`.

    Raises:
        RowFault: A class is missing or unknown.
    """
    import numpy as np

    found = raw_columns.lookup_indices(rows, classes)
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        if found[row] == raw_columns.MISSING:
            raise RowFault(row, "expected a class, received nothing.", "Remove the row, or tell its class.")
        known = parts.did_you_mean(raw_columns.to_texts(rows)[row].as_py(), classes)
        raise RowFault(row, f"{raw_columns.format_cell(rows, row)} is a class absent from training.", known)
    return found


def require_numbers(rows: RawColumn) -> np.ndarray:
    """One finite number a row, `(rows,)`.

    Raises:
        RowFault: A cell is no number or missing, or a row holds several.
    """
    import numpy as np

    values = raw_columns.to_numbers(rows)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise RowFault(0, f"expected one number a row, received an array of shape {values.shape[1:]}.")
    missing = np.isnan(values)
    if missing.any():
        raise RowFault(int(np.argmax(missing)), "expected a number, received nothing.", "Remove the row.")
    return values
