"""Classes: text or whole numbers, one a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import cells, parts
from bmcli.cells import Raw
from bmcli.data.targets import Classes, indices
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class Options(Kind):
    """A class a row."""

    kind: Literal["category"] = "category"
    classes: Classes | None = Field(
        default=None,
        description="All classes in the order of their indices; by default the training rows', sorted.",
    )


def fit(name: str, rows: Raw, options: Options) -> Column:
    """The classes of the training rows, as ordered or sorted: whole numbers by size, text by letters."""
    found = cells.vocabulary(rows)
    if len(found) == 1:
        raise BmcliError(
            f"target '{name}': every training row has the class '{found[0]}', so there is nothing to learn.",
            path=f"data.targets.{name}",
        )
    classes = found if options.classes is None else tuple(str(each) for each in options.classes)
    unseen = sorted(set(classes) - set(found))
    column = Column(
        name=name,
        kind="category",
        shape=(),
        dtype="int32",
        raw_dtype="string" if cells.is_text(rows) else "int64",
        classes=classes,
    )
    encode(rows, column)
    if unseen:
        raise BmcliError(
            f"target '{name}': no training row has the class '{unseen[0]}'.",
            path=f"data.targets.{name}.classes",
            suggestion=parts.did_you_mean(unseen[0], set(found) - set(classes)),
        )
    return column


def check(rows: Raw, options: Options) -> None:
    """Refuses a missing class, and one that is not among those that are told."""
    told = cells.vocabulary(rows) if options.classes is None else tuple(str(each) for each in options.classes)
    indices(rows, told)


def encode(rows: Raw, column: Column) -> np.ndarray:
    """Positions in `column.classes`, int32 `(rows,)`; a missing or unknown class is a fault."""
    return indices(rows, column.classes)


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Positions in `column.classes`, as they are."""
    return encoded


def point(predictions: np.ndarray, column: Column) -> np.ndarray:
    """The most probable class, the first of them in a tie."""
    return predictions.argmax(axis=1)
