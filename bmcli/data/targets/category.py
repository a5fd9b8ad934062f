"""Classes: text or whole numbers, one a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from bmcli import cells, parts
from bmcli.cells import Raw, RowFault
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class Options(Kind):
    """A class a row."""

    kind: Literal["category"] = "category"
    classes: tuple[str | int, ...] | None = Field(
        default=None,
        description="All classes in the order of their indices; by default the training rows', sorted.",
    )

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, value: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        names = [str(name) for name in value or ()]
        if len(names) > len(set(names)):
            twice = next(name for position, name in enumerate(names) if name in names[:position])
            raise fault("classes", f"'{twice}' is there twice.")
        if value is not None and len(names) < 2:
            raise fault("classes", f"expected two classes or more, received {len(names)}.")
        return value


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


def encode(rows: Raw, column: Column) -> np.ndarray:
    """Positions in `column.classes`, int32 `(rows,)`; a missing or unknown class is a fault."""
    import numpy as np

    found = cells.positions(rows, column.classes)
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        if found[row] == cells.MISSING:
            raise RowFault(row, "expected a class, received nothing.", "Remove the row, or tell its class.")
        known = parts.did_you_mean(cells.shown(rows, row).strip("'"), column.classes)
        raise RowFault(row, f"{cells.shown(rows, row)} is a class absent from training.", known)
    return found


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Positions in `column.classes`, as they are."""
    return encoded
