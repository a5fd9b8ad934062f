"""Regression target: one number a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli.column_records import StrictRecord
from bmcli.data.targets import TargetGuess, describe_numbers, doubt_quantity, read_notation, require_numbers
from bmcli.errors import BmcliError
from bmcli.notation import NumberNotation
from bmcli.number_texts import write_number, write_values
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, suggest_notation
from bmcli.recipe.numbers import NotationOptions
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile


OBJECTIVE = "regression"
ONE_CLASS = False


class State(StrictRecord):
    """How a number is scaled and written."""

    mean: float
    scale: float
    log: bool = False
    notation: dict[Literal["decimal", "thousands", "unit"], str] = Field(default={})


class Options(TargetOptions, NotationOptions):
    """One number per row."""

    kind: Literal["number"] = "number"
    scale: Literal["standard", "log", "none"] = Field(
        default="standard",
        description="`standard` trains on the number with mean 0 and standard deviation 1, `log` on log(1 + number) "
        "likewise, for numbers over several orders of magnitude. Metrics and predictions use the original unit.",
    )


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Recognise single numbers."""
    if not profile.is_number or profile.is_array:
        return None
    options, described = describe_numbers(profile)
    low, high = write_values(profile.name, [profile.minimum, profile.maximum])
    why = f"numbers from {low} to {high}{described}"
    return TargetGuess("number", 0.5, why, options, doubt=doubt_quantity(profile))


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit mean and standard deviation of the training rows, `state["mean"]` and `state["scale"]`; 0 and 1 unscaled.

    With `scale: log` they are those of log(1 + number), and `state["log"]` is true.
    """
    import numpy as np

    log = options.scale == "log"
    with suggest_notation(rows, options.notation):
        values = _read_scaled(rows, log, options.notation)
    if values.min() == values.max():
        raise BmcliError(
            f"target {quoted(name)}: every training row has the value "
            f"{write_number(require_numbers(rows, options.notation)[0])}, so there is nothing to learn.",
            path=f"data.targets.{name}",
        )
    mean, scale = 0.0, 1.0
    if options.scale != "none":
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = float(values.mean(dtype="float64")), float(values.std(dtype="float64"))
        if not (np.isfinite(scale) and scale > 0):
            raise BmcliError(
                f"target {quoted(name)}: the numbers are too large, or too close to each other, to be scaled.",
                path=f"data.targets.{name}",
            )
    return Column(
        name=name,
        kind="number",
        shape=(),
        dtype="float32",
        raw_dtype="float32",
        state={
            "mean": mean,
            "scale": scale,
            **({"log": True} if log else {}),
            **({"notation": notation} if (notation := options.notation.to_options()) else {}),
        },
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuse cells that are not numbers, or whose logarithm does not exist if it is learned."""
    _read_scaled(rows, options.scale == "log", options.notation)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Scale to `(number - mean) / scale`, or log(1 + number) likewise, float32 `(rows,)`; missing cells are faults."""
    import numpy as np

    notation = read_notation(column)
    values = _read_scaled(rows, bool(column.state.get("log")), notation).astype("float64")
    with np.errstate(over="ignore"):
        encoded = ((values - column.state["mean"]) / column.state["scale"]).astype("float32")
    if not np.isfinite(encoded).all():
        row = int(np.argmin(np.isfinite(encoded)))
        value = write_number(require_numbers(rows, notation)[row])
        message = f"{value} is too large for the scale of the training rows."
        raise RowFault(row, message)
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the numbers in their original unit, float64 `(rows,)`."""
    import numpy as np

    values = encoded.astype("float64") * column.state["scale"] + column.state["mean"]
    return np.expm1(values) if column.state.get("log") else values


def index_classes(rows: RawColumn, options: Options) -> None:
    """There are no classes."""


def count_classes(truth: np.ndarray, column: Column) -> None:
    """There are no classes."""


def _read_scaled(rows: RawColumn, log: bool, notation: NumberNotation) -> np.ndarray:
    """Read one number a row, as log(1 + number) if that is learned."""
    import numpy as np

    values = require_numbers(rows, notation)
    if not log:
        return values
    if (values <= -1).any():
        row = int(np.argmax(values <= -1))
        raise RowFault(
            row,
            f"expected a number above -1, because log(1 + number) is learned, received {write_number(values[row])}.",
            option="Write scale: standard.",
        )  # fmt: skip
    return np.log1p(values.astype("float64"))
