"""Which columns are inputs, targets, split names and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bmcli import parts
from bmcli.cells import Raw, RowFault, are_numbers, is_text, numbers
from bmcli.data.sources import Rows
from bmcli.errors import BmcliError, Fault
from bmcli.recipe.fields import Kind, PartOf
from bmcli.recipe.schema import DataOptions

if TYPE_CHECKING:
    import numpy as np


def check_names(rows: Rows, options: DataOptions, targets: Mapping[str, Kind]) -> None:
    """Raises one BmcliError with every column that the recipe names and the source lacks."""
    named = {f"data.inputs.{name}": name for name in options.inputs or ()}
    named |= {f"data.targets.{name}": name for name in targets}
    named |= {f"data.drop.{position}": name for position, name in enumerate(options.drop)}
    if options.weight is not None:
        named["data.weight"] = options.weight
    if options.split.column is not None:
        named["data.split.column"] = options.split.column
    if options.split.stratify not in ("auto", "none"):
        named["data.split.stratify"] = options.split.stratify
    faults = [missing(name, path, rows) for path, name in named.items() if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)


def missing(name: str, path: str, rows: Rows) -> Fault:
    return Fault(f"no column '{name}'.", path=path, suggestion=parts.did_you_mean(name, rows.columns))


def inputs(training: Mapping[str, Raw], options: DataOptions, targets: Mapping[str, Kind]) -> Mapping[str, Kind]:
    """The recipe's inputs, or every column that serves nothing else, as what it looks like.

    Args:
        training: The training rows of all columns: others must not decide what the columns are.
    """
    if options.inputs is not None:
        return options.inputs
    taken = {*targets, *options.drop, options.weight, options.split.column}
    part = PartOf("inputs")
    found = {name: part.check(likely_kind(column)) for name, column in training.items() if name not in taken}
    if not found:
        raise BmcliError("no column is left to be an input.", path="data.source")
    return found


def weights(column: Raw) -> np.ndarray:
    """How much each row counts: the numbers as they are, float32 `(rows,)`.

    Raises:
        RowFault: A cell is missing, no number, infinite or below 0, or a row holds several.
    """
    import numpy as np

    values = numbers(column)
    if values.size != len(values):
        raise RowFault(0, f"expected one number a row, received an array of shape {values.shape[1:]}.")
    values = values.reshape(-1)
    wrong = ~(values >= 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        received = "nothing" if np.isnan(values[row]) else f"{values[row]:g}"
        message = f"expected a number of at least 0, received {received}."
        raise RowFault(row, message, "Write 0 for a row that should not count.")
    large = values > np.finfo("float32").max
    if large.any():
        row = int(np.argmax(large))
        raise RowFault(row, f"{values[row]:g} is too large for a weight.")
    return values.astype("float32")


def likely_kind(column: Raw) -> str:
    """The kind of input that a column looks like."""
    if is_text(column):
        return "number" if are_numbers(column) else "category"
    byte_picture = column.dtype.name == "uint8" and column.ndim in (3, 4)
    with_channels = column.ndim == 4 and column.shape[-1] in (1, 3)
    return "image" if byte_picture or with_channels else "number"
