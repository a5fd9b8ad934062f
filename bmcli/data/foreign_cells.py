"""Faults of cells that the kind of their column cannot read: all of them at once, and what settles them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bmcli import parts
from bmcli.data import columns
from bmcli.data.invalid import find_unreadable
from bmcli.data.sources import SourceRows
from bmcli.errors import Fault
from bmcli.notation import MAX_FOREIGN, list_counts, order_counts
from bmcli.raw_columns import RawColumn, RowFault, is_text_column
from bmcli.recipe.fields import Kind
from bmcli.recipe.nodes import escape_dollars

_MAX_COUNTED = 200  # distinct cells that are looked for
_MAX_MISSING_LIST = 500  # characters of a list that a suggestion spells out
_MANY_FOREIGN = 0.5  # share of the cells, from which on the column is of another kind


def explain_fault(
    fault: RowFault, name: str, rows: SourceRows, check: Callable[[RawColumn], object], cure: Callable[..., str]
) -> Fault:
    """Make the fault of a cell, with its place and with all cells of the column that cannot be read.

    Args:
        check: Raises RowFault for a cell that cannot be read.
        cure: Function from the cells that cannot be read to the option of a recipe that settles them, or to an empty
            text.
    """
    located, cells = _locate_all(fault, name, rows, check)
    if not cells:
        return located
    is_other_kind = sum(cells.values()) > _MANY_FOREIGN * len(rows.columns[name])
    advice = "" if fault.advice and is_other_kind else _advise(cells, is_other_kind, cure)
    if fault.advice and advice:
        advice = f"{fault.advice} Or {advice[0].lower()}{advice[1:]}"
    return replace(located, suggestion=advice or fault.advice)


def explain_later_fault(
    fault: RowFault, name: str, rows: SourceRows, check: Callable[[RawColumn], object], example: str, otherwise: str
) -> Fault:
    """Make the fault of a cell that a trained model cannot read, as `explain_fault` does, without a change of a recipe.

    Args:
        example: How the training rows write a value; empty if that is of no help.
        otherwise: What else can be done than to correct the cell.
    """
    located, cells = _locate_all(fault, name, rows, check)
    written = f"Write it as in the training rows, for example {example}" if cells and example else "Correct it"
    steps = [fault.suggestion, f"{written}, or {otherwise}.", *columns.describe_notes(rows)]
    return replace(located, suggestion=" ".join(filter(None, steps)))


def _locate_all(
    fault: RowFault, name: str, rows: SourceRows, check: Callable[[RawColumn], object]
) -> tuple[Fault, dict[str, int]]:
    """Add the place of a cell, and the number of all cells of its column that cannot be read; also return these.

    The cells are none if the column is not one of text.
    """
    located = columns.locate_fault(fault, name, rows)
    if fault.cell is None or name not in rows.columns or not is_text_column(rows.columns[name]):
        return located, {}
    cells = count_foreign(rows.columns[name], check)
    total = sum(cells.values())
    if total > 1:
        least = "at least " if len(cells) >= _MAX_COUNTED else ""
        message = f"{located.message} {least.capitalize()}{total:,} cells are no better: {list_counts(cells)}."
        located = replace(located, message=message)
    return located, cells


def count_foreign(column: Any, check: Callable[[RawColumn], object]) -> dict[str, int]:
    """Count the distinct texts of a column that a check refuses, the most frequent first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.value_counts(column.drop_null())
    unreadable = pa.array(find_unreadable(pa.chunked_array([counted.field("values")]), check, _MAX_COUNTED))
    return order_counts(counted.field("values").filter(unreadable), counted.field("counts").filter(unreadable))


def _advise(cells: Mapping[str, int], is_other_kind: bool, cure: Callable[..., str]) -> str:
    if is_other_kind:
        return "Most cells are of another kind: name it in the recipe."
    return cure(cells)


def make_input_cure(options: Kind | None, missing: Sequence[str]) -> Callable[[Mapping[str, int]], str]:
    """Make the function that advises how to treat the foreign cells of an input as missing.

    Args:
        options: Options of the input if the recipe lists it, else None.
        missing: Option `missing` of the source, if it has one.
    """
    return partial(_advise_missing, options, missing)


def _advise_missing(options: Kind | None, missing: Sequence[str], cells: Mapping[str, int]) -> str:
    if options is None and missing:
        known, text = tuple(missing), f"Add {'it' if len(cells) == 1 else 'them'} to `missing: {{}}`."
    elif options is None:
        known, text = (), "List the inputs, with `missing_cells: {}` beside its kind, as `bmcli init` does."
    elif "missing_cells" in type(options).model_fields:
        known = tuple(options.model_dump()["missing_cells"])
        text = "Write `missing_cells: {}` beside its kind to treat such cells as missing."
    else:
        return ""
    words = json.dumps(escape_dollars([text for text in (*known, *cells) if text]), ensure_ascii=False)
    if len(cells) > MAX_FOREIGN or len(words) > _MAX_MISSING_LIST:
        return "Write `invalid: fill` to treat such cells as missing."
    return text.format(words)


def advise_targets(cells: Mapping[str, int]) -> str:
    """Advise how to leave out the rows whose target cannot be read."""
    return "Correct the cells, or write `invalid: skip` to leave out their rows."


def check_kind(role: str, options: Kind) -> Callable[[RawColumn], object]:
    """Return the check of the cells of an input or target."""
    return partial(parts.load("inputs" if role == "inputs" else "data.targets", options.kind).check, options=options)
