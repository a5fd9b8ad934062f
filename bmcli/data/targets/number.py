"""Quantities: one number a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli.cells import Raw, RowFault, numbers
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class Options(Kind):
    """A number a row."""

    kind: Literal["number"] = "number"
    scale: Literal["standard", "none"] = Field(
        default="standard",
        description="`standard` learns it with mean 0 and deviation 1; metrics keep its own unit.",
    )


def fit(name: str, rows: Raw, options: Options) -> Column:
    """Mean and deviation of the training rows, or 0 and 1; kept in `state` as `mean` and `scale`."""
    import numpy as np

    values = _complete(rows)
    if values.min() == values.max():
        raise BmcliError(
            f"target '{name}': every training row has the value {values[0]:g}, so there is nothing to learn.",
            path=f"data.targets.{name}",
        )
    mean, scale = 0.0, 1.0
    if options.scale == "standard":
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = float(values.mean(dtype="float64")), float(values.std(dtype="float64"))
        if not (np.isfinite(scale) and scale > 0):
            raise BmcliError(
                f"target '{name}': the numbers are too large or too near each other to be scaled.",
                path=f"data.targets.{name}",
            )
    return Column(
        name=name,
        kind="number",
        shape=(),
        dtype="float32",
        raw_dtype="float32",
        state={"mean": mean, "scale": scale},
    )


def encode(rows: Raw, column: Column) -> np.ndarray:
    """`(value - mean) / scale`, float32 `(rows,)`; a missing number is a fault."""
    import numpy as np

    values = _complete(rows).astype("float64")
    with np.errstate(over="ignore"):
        encoded = ((values - column.state["mean"]) / column.state["scale"]).astype("float32")
    if not np.isfinite(encoded).all():
        row = int(np.argmin(np.isfinite(encoded)))
        raise RowFault(row, f"{values[row]:g} is too large beside the training rows.")
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Numbers in their own unit, float64 `(rows,)`."""
    return encoded.astype("float64") * column.state["scale"] + column.state["mean"]


def _complete(rows: Raw) -> np.ndarray:
    """One finite number a row."""
    import numpy as np

    values = numbers(rows)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise RowFault(0, f"expected one number a row, received an array of shape {values.shape[1:]}.")
    missing = np.isnan(values)
    if missing.any():
        raise RowFault(int(np.argmax(missing)), "expected a number, received nothing.", "Remove the row.")
    return values
