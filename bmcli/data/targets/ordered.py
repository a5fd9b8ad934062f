"""Ordered categories, from the lowest to the highest: grades, stages, stars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli.data.targets import ClassNames, check_classes, find_classes, lookup_classes, make_class_column, names_to_text
from bmcli.errors import BmcliError
from bmcli.quoting import listed, quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class Options(Kind):
    """One category per row, of categories with an order."""

    kind: Literal["ordered"] = "ordered"
    classes: ClassNames | None = Field(
        default=None,
        description="All categories from the lowest to the highest; required for text, by default sorted for integers.",
    )


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """The categories in their order. One that is told may be absent from the training rows."""
    found = find_classes(name, rows)
    if options.classes is None and not all(re.fullmatch(r"-?[0-9]+", each) for each in found):
        example = listed(found, 4)
        raise BmcliError(
            f"target {quoted(name)}: the order of its {len(found)} categories is not known.",
            path=f"data.targets.{name}",
            suggestion=f"Write them from the lowest to the highest, as classes: [{example}].",
        )
    return make_class_column(name, "ordered", rows, names_to_text(options.classes) or found)


def check(rows: RawColumn, options: Options) -> None:
    """Refuses a missing class, and one that is not among those that are told."""
    check_classes(rows, options.classes)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Ranks, the lowest category being 0, int32 `(rows,)`; a missing or unknown category is a fault."""
    return lookup_classes(rows, column.classes)


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Ranks, as they are."""
    return encoded


def predict_point(predictions: np.ndarray, column: Column) -> np.ndarray:
    """The median: the highest category that is at least as probable to be reached as not (Shi et al. 2021).

    Of all answers it has the smallest expected distance in ranks.
    """
    import numpy as np

    above = 1 - np.cumsum(predictions[:, :-1], axis=1, dtype="float64")
    return (above > 0.5).sum(axis=1)
