"""Classification target: one class a row, text or integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import parts
from bmcli.data.targets import (
    ClassNames,
    check_classes,
    count_indices,
    find_classes,
    lookup_classes,
    make_class_column,
    names_to_text,
)
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


OBJECTIVE = "classification"


class Options(Kind):
    """One class per row."""

    kind: Literal["category"] = "category"
    classes: ClassNames | None = Field(
        default=None,
        description="All classes in the order of their indices; by default the sorted classes of the training rows.",
    )


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the classes of the training rows, in the order of the options or sorted."""
    present = find_classes(name, rows)
    classes = names_to_text(options.classes) or present
    column = make_class_column(name, "category", rows, classes)
    if unseen := sorted(set(classes) - set(present)):
        raise BmcliError(
            f"target {quoted(name)}: no training row has the class {quoted(unseen[0])}.",
            path=f"data.targets.{name}.classes",
            suggestion=parts.did_you_mean(unseen[0], set(present) - set(classes)),
        )
    return column


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a missing class, or one that is not among the classes of the options."""
    check_classes(rows, options.classes)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode rows as indices in `column.classes`, int32 `(rows,)`; a missing or unknown class is a fault."""
    return lookup_classes(rows, column.classes)


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the indices in `column.classes` unchanged."""
    return encoded


def count_classes(truth: np.ndarray, column: Column) -> np.ndarray:
    """Count the rows of each class."""
    return count_indices(truth, column)
