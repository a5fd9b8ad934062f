"""Quantities: one number a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli.data.targets import require_numbers
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np


class Options(Kind):
    """One number per row."""

    kind: Literal["number"] = "number"
    scale: Literal["standard", "log", "none"] = Field(
        default="standard",
        description="`standard` trains on the number with mean 0 and standard deviation 1, `log` on log(1 + number) "
        "likewise, for numbers over several orders of magnitude. Metrics and predictions use the original unit.",
    )


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Mean and deviation of the training rows, or 0 and 1; kept in `state` as `mean` and `scale`.

    With a logarithm `state` has `log`, and they are those of log(1 + number).
    """
    import numpy as np

    log = {"log": True} if options.scale == "log" else {}
    values = _read(rows, log)
    if values.min() == values.max():
        raise BmcliError(
            f"target {quoted(name)}: every training row has the value {require_numbers(rows)[0]:g}, so there "
            "is nothing to learn.",
            path=f"data.targets.{name}",
        )
    mean, scale = 0.0, 1.0
    if options.scale != "none":
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = float(values.mean(dtype="float64")), float(values.std(dtype="float64"))
        if not (np.isfinite(scale) and scale > 0):
            raise BmcliError(
                f"target {quoted(name)}: the numbers are too large or too near each other to be scaled.",
                path=f"data.targets.{name}",
            )
    return Column(
        name=name,
        kind="number",
        shape=(),
        dtype="float32",
        raw_dtype="float32",
        state={"mean": mean, "scale": scale, **log},
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuses what is no number, or has no logarithm if that is learned."""
    _read(rows, {"log": options.scale == "log"})


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """`(number - mean) / scale`, or that of log(1 + number), float32 `(rows,)`; a missing number is a fault."""
    import numpy as np

    values = _read(rows, column.state).astype("float64")
    with np.errstate(over="ignore"):
        encoded = ((values - column.state["mean"]) / column.state["scale"]).astype("float32")
    if not np.isfinite(encoded).all():
        row = int(np.argmin(np.isfinite(encoded)))
        raise RowFault(row, f"{require_numbers(rows)[row]:g} is too large beside the training rows.")
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Numbers in their own unit, float64 `(rows,)`."""
    import numpy as np

    values = encoded.astype("float64") * column.state["scale"] + column.state["mean"]
    return np.expm1(values) if column.state.get("log") else values


def predict_point(predictions: np.ndarray, column: Column) -> np.ndarray:
    """The number itself."""
    return predictions


def _read(rows: RawColumn, state: Mapping[str, Any]) -> np.ndarray:
    """One number a row, or log(1 + number) if that is what is learned."""
    import numpy as np

    values = require_numbers(rows)
    if not state.get("log"):
        return values
    if (values <= -1).any():
        row = int(np.argmax(values <= -1))
        raise RowFault(
            row, f"expected a number above -1, whose log(1 + number) is learned, received {values[row]:g}.",
            "Use scale: standard.",
        )  # fmt: skip
    return np.log1p(values.astype("float64"))
