"""Ordered categories, from the lowest to the highest: grades, stages, stars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import cells
from bmcli.cells import Raw
from bmcli.data.targets import Classes, indices
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class Options(Kind):
    """A category a row, of categories that have an order."""

    kind: Literal["ordered"] = "ordered"
    classes: Classes | None = Field(
        default=None,
        description="All categories from the lowest to the highest. Whole numbers are put in order by size if this is "
        "left out; of text it must be told.",
    )


def fit(name: str, rows: Raw, options: Options) -> Column:
    """The categories in their order. One that is told may be absent from the training rows."""
    found = cells.vocabulary(rows)
    if len(found) == 1:
        raise BmcliError(
            f"target '{name}': every training row has the category '{found[0]}', so there is nothing to learn.",
            path=f"data.targets.{name}",
        )
    if options.classes is None and not all(re.fullmatch(r"-?[0-9]+", each) for each in found):
        example = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        raise BmcliError(
            f"target '{name}': the order of its {len(found)} categories is not known.",
            path=f"data.targets.{name}",
            suggestion=f"Write them from the lowest to the highest, as classes: [{example}].",
        )
    column = Column(
        name=name,
        kind="ordered",
        shape=(),
        dtype="int32",
        raw_dtype="string" if cells.is_text(rows) else "int64",
        classes=found if options.classes is None else tuple(str(each) for each in options.classes),
    )
    encode(rows, column)
    return column


def check(rows: Raw, options: Options) -> None:
    """Refuses a missing class, and one that is not among those that are told."""
    told = cells.vocabulary(rows) if options.classes is None else tuple(str(each) for each in options.classes)
    indices(rows, told)


def encode(rows: Raw, column: Column) -> np.ndarray:
    """Ranks, the lowest category being 0, int32 `(rows,)`; a missing or unknown category is a fault."""
    return indices(rows, column.classes)


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Ranks, as they are."""
    return encoded


def point(predictions: np.ndarray, column: Column) -> np.ndarray:
    """The median: the highest category that is at least as probable to be reached as not (Shi et al. 2021).

    Of all answers it has the smallest expected distance in ranks.
    """
    import numpy as np

    above = 1 - np.cumsum(predictions[:, :-1], axis=1, dtype="float64")
    return (above > 0.5).sum(axis=1)
