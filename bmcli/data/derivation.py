"""Inputs whose cells are made of all rows of a source, in its order: see `bmcli.inputs.DerivedKind`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from bmcli import parts
from bmcli.data import columns, invalid
from bmcli.data.sources import SourceRows
from bmcli.data.splitting.splits import read_times
from bmcli.errors import BmcliError
from bmcli.inputs import DerivedKind
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import convert_lists
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import Column, DataSpec

_KEY = "derivation"  # of the state of a fitted column


@dataclass(frozen=True)
class Derivation:
    """How the cells of an input are made.

    Args:
        time: Column by which the recipe splits the rows, which must be in its order; None without such a split.
    """

    options: InputOptions
    time: str | None


def list_derivations(options: DataOptions) -> dict[str, Derivation]:
    """List the inputs of a recipe that are made of several rows."""
    inputs = options.inputs or {}
    return {name: Derivation(each, options.split.time) for name, each in inputs.items() if each.reads}


def add_derivation(column: Column, derivation: Derivation) -> Column:
    """Keep in the state of a fitted input how its cells are made, as plain JSON values."""
    values = {"options": json.loads(derivation.options.model_dump_json()), "time": derivation.time}
    return replace(column, state={**column.state, _KEY: values})


def get_derivations(spec: DataSpec) -> dict[str, Derivation]:
    """Get how inputs are made, from the state that `add_derivation` keeps.

    Raises:
        ValueError: It is none that a training can keep; an artefact may come from anywhere.
    """
    kept = {column.name: column.state[_KEY] for column in spec.inputs if _KEY in column.state}
    return {name: _parse_derivation(name, values) for name, values in kept.items()}


def _parse_derivation(name: str, values: Mapping[str, Any]) -> Derivation:
    kind = values["options"].get("kind")
    if kind not in parts.names("inputs"):
        raise ValueError(f"the input {name!r} is made by no kind {kind!r}")
    try:
        options = parts.load("inputs", kind).Options.model_validate(convert_lists(values["options"]))
    except ValidationError as error:
        raise ValueError(f"the input {name!r} is made by wrong options: {error.errors()[0]['msg']}") from None
    if not options.reads:
        raise ValueError(f"the input {name!r} is made by {kind!r}, which reads no other rows")
    return Derivation(options, values["time"])


def derive_columns(rows: SourceRows, derivations: Mapping[str, Derivation], with_faults: bool) -> SourceRows:
    """Add the inputs that are made of several rows to all rows of a source.

    Args:
        with_faults: Whether a cell that cannot be read is a fault; otherwise it counts as missing.

    Raises:
        BmcliError: A column is missing.
    """
    needed = [
        name
        for each in derivations.values()
        for name in (*each.options.reads, *([] if each.time is None else [each.time]))
    ]
    faults = [
        columns.missing_column_fault(name, "", rows) for name in dict.fromkeys(needed) if name not in rows.columns
    ]
    if faults:
        raise BmcliError(*faults)
    return (
        replace(rows, columns=_DerivedColumns(rows, derivations, with_faults), count=len(rows)) if derivations else rows
    )


class _DerivedColumns(Mapping[str, RawColumn]):
    """Columns of a source, and by their names the inputs that are made of them, which an iteration does not list.

    An input is made when it is first read, and kept, because predictions read it once for each batch.
    """

    def __init__(self, rows: SourceRows, derivations: Mapping[str, Derivation], with_faults: bool) -> None:
        self._rows, self._derivations, self._with_faults = rows, derivations, with_faults
        self._made: dict[str, RawColumn] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._derivations or name in self._rows.columns

    def __getitem__(self, name: str) -> RawColumn:
        if name not in self._derivations:
            return self._rows.columns[name]
        if name not in self._made:
            self._made[name] = self._make(self._derivations[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.columns)

    def __len__(self) -> int:
        return len(self._rows.columns)

    def _make(self, derivation: Derivation) -> RawColumn:
        options, rows = derivation.options, self._rows
        kind: DerivedKind = parts.load("inputs", options.kind)
        first, *others = (rows.columns[name] for name in options.reads)
        if not self._with_faults:
            unreadable = invalid.find_unreadable(first, lambda cells: kind.check(cells, options))
            first = invalid.mask_cells(first, unreadable) if unreadable.any() else first
        times = None if derivation.time is None else columns.read_column(rows, derivation.time, read_times)
        try:
            return kind.derive([first, *others], options, times)
        except RowFault as fault:
            raise BmcliError(columns.locate_fault(fault, options.reads[0], rows)) from None
