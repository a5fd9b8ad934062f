"""Kinds of target: what a model learns to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bmcli import parts
from bmcli.cells import Raw
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class TargetKind(Protocol):
    """What a module in this folder offers. Unlike inputs, a target must not be missing or unknown."""

    Options: type[Kind]

    def fit(self, name: str, rows: Raw, options: Any) -> Column:
        """Classes or scale, from the training rows.

        Raises:
            RowFault: A cell cannot be read as this kind.
            BmcliError: The column as a whole cannot be learned, e.g. it has one class.
        """

    def encode(self, rows: Raw, column: Column) -> np.ndarray:
        """Rows as an array `(rows, *column.shape)` of `column.dtype`; raises RowFault as `fit` does."""

    def decode(self, encoded: np.ndarray, column: Column) -> np.ndarray:
        """Encoded rows as evaluation wants them: class indices, or numbers in their own unit."""


def kind_of(column: Column) -> TargetKind:
    """The part that fitted a column."""
    part: TargetKind = parts.load("data.targets", column.kind)
    return part
