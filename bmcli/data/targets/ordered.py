"""Ordinal target: one of ordered categories a row, such as grades, stages or stars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli.data.targets import (
    NUMBER,
    ClassNames,
    ClassState,
    Normalize,
    check_classes,
    count_indices,
    find_classes,
    get_spelling,
    index_one_class,
    lookup_classes,
    make_class_column,
    names_to_text,
    resolve_spelling,
)
from bmcli.errors import BmcliError
from bmcli.quoting import listed, quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile


OBJECTIVE = "ordinal"
ONE_CLASS = True
State = ClassState


class Options(TargetOptions):
    """One category per row, of categories with an order."""

    kind: Literal["ordered"] = "ordered"
    classes: ClassNames | None = Field(
        default=None,
        description="All categories from the lowest to the highest; required for text, by default sorted for numbers.",
    )
    normalize: Normalize = True


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> None:
    """Ordered categories are never guessed, since cells do not show their order."""


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the categories in their order. Those of the options may be absent from the training rows."""
    spelling = resolve_spelling(rows, options.classes, options.normalize)
    present = find_classes(name, rows, spelling)
    if options.classes is None and not all(map(NUMBER.fullmatch, present)):
        raise BmcliError(
            f"target {quoted(name)}: the order of its {len(present)} categories is not known.",
            path=f"data.targets.{name}",
            suggestion=f"List them from the lowest to the highest: classes: [{listed(present, 4)}].",
        )
    return make_class_column(name, "ordered", rows, names_to_text(options.classes, spelling) or present, spelling)


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a missing category, or one that is not among the classes of the options."""
    check_classes(rows, options.classes, options.normalize)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode categories as ranks from 0 for the lowest, int32 `(rows,)`; a missing or unknown category is a fault."""
    return lookup_classes(rows, column.classes, get_spelling(column))


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the ranks unchanged."""
    return encoded


def index_classes(rows: RawColumn, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Find the class of each row."""
    return index_one_class(rows)


def count_classes(truth: np.ndarray, column: Column) -> np.ndarray:
    """Count the rows of each category."""
    return count_indices(truth, column)
