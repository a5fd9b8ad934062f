"""Categories: text or whole numbers of which few are different.

The categories are those of the training rows, in alphabetical order, or by size if all are whole numbers.
Cells are encoded as their position; a missing cell as the number of categories, and a category that the
training rows do not have as one more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import cells
from bmcli.cells import Raw
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.recipe.fields import Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

_LARGEST_ONE_HOT = 16
_LARGEST_EMBEDDING = 64


class Options(Kind):
    """One category a row."""

    kind: Literal["category"] = "category"
    encoding: Literal["auto", "one_hot", "embedding"] = Field(
        default="auto", description="How the network sees it; `auto` embeds more than 16 categories."
    )
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Width of the embedding; by default it grows with the number of categories."
    )

    @model_validator(mode="after")
    def _dimension_is_of_an_embedding(self) -> Options:
        if self.encoding == "one_hot" and self.dimension is not None:
            raise fault("dimension", "`dimension` goes with `encoding: embedding`.")
        return self


def fit(name: str, rows: Raw, options: Options) -> Column:
    """The categories of the training rows, and whether any cell is missing."""
    classes = cells.vocabulary(rows)
    if not classes:
        raise BmcliError(
            f"column '{name}': the training rows have no value.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{name}]`.",
        )
    return Column(
        name=name,
        kind="category",
        shape=(),
        dtype="int32",
        raw_shape=() if cells.is_text(rows) else tuple(rows.shape[1:]),
        raw_dtype="string" if cells.is_text(rows) else "int64",
        classes=classes,
        state={
            "dimension": _dimension(len(classes), options),
            "has_missing": bool((cells.positions(rows, classes) == cells.MISSING).any()),
        },
    )


def encode(rows: Raw, column: Column) -> np.ndarray:
    """Positions in `column.classes`, int32 `(rows,)`; their number where missing, one more where unknown."""
    import numpy as np

    found = cells.positions(rows, column.classes)
    count = np.int32(len(column.classes))
    return np.select([found == cells.MISSING, found == cells.UNKNOWN], [count, count + np.int32(1)], found)


def encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.category_encoder import CategoryEncoder

    return CategoryEncoder(column.classes, column.raw_dtype)


def feature(column: Column, encoded: Any) -> Feature:
    """An embedding, or a one-hot vector in which cells unlike any training cell are all zeros."""
    import keras

    count, dimension = len(column.classes), column.state["dimension"]
    if dimension:
        return Feature(column, keras.layers.Embedding(count + 2, dimension)(encoded))
    return Feature(column, keras.ops.one_hot(encoded, count + column.state["has_missing"]))


def _dimension(count: int, options: Options) -> int:
    """Width of the embedding, 0 for one-hot."""
    if options.encoding == "one_hot" or (
        options.encoding == "auto" and options.dimension is None and count <= _LARGEST_ONE_HOT
    ):
        return 0
    # The fourth root would do for millions of categories; small tables want more, as fast.ai's rule gives.
    return options.dimension or min(_LARGEST_EMBEDDING, round(1.6 * count**0.56))
