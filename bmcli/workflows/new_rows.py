"""Rows of a file that is not the source of a run: read in its own format, as the training rows were where that fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bmcli import parts
from bmcli.data import files
from bmcli.data.profiling import discovery
from bmcli.data.sources import SourceOptions, SourceRows, read_rows
from bmcli.errors import BmcliError

_MARKERS = "missing"  # option of sources that read some texts as missing cells


def read_new_rows(
    data: Path, trained: Mapping[str, Any], needed: Iterable[str], skip_malformed: bool, as_written: bool = False
) -> SourceRows:
    """Read all rows of a file or folder.

    A file of the format of the training rows is read with their options. If it lacks a column then, such as a file with
    another delimiter, what is `auto` by default is detected again.

    Args:
        trained: Options of the source of the training rows, as in a recipe.
        needed: Columns that the rows should have.
        skip_malformed: As in `read_rows`.
        as_written: Read texts that mark a missing value, such as NA, as texts.

    Raises:
        BmcliError: The data cannot be read; its faults have no place in the recipe.
    """
    trained_class: type[SourceOptions] = parts.load("data.sources", trained["kind"]).Options
    read = partial(_read, skip_malformed=skip_malformed, as_written=as_written)
    if not trained_class.detects and (data.is_dir() or files.get_ending(data.name) in trained_class.ENDINGS):
        return read(trained_class, {**trained, "path": str(data)})
    try:
        found = discovery.detect_source(data)
    except BmcliError as unknown:
        return _read_unknown(data, trained_class, trained, read, unknown)
    options_class: type[SourceOptions] = parts.load("data.sources", found.kind).Options
    fields = options_class.model_fields
    if found.kind != trained["kind"] or "path" not in fields:
        return read(options_class, found.to_options())
    fixed = {name: value for name, value in trained.items() if fields[name].default != "auto"}
    error, rows = None, None
    try:
        rows = read(options_class, {**trained, **found.to_options()})
    except BmcliError as failure:
        error = failure
    if rows is not None and (fixed.keys() == trained.keys() or all(name in rows.columns for name in needed)):
        return rows
    try:
        others = read(options_class, {**fixed, **found.to_options()})
    except BmcliError:
        others = None
    if others is not None and all(name in others.columns for name in needed):
        return others
    if rows is None:
        assert error is not None
        raise error
    if others is not None and others.detected_options.get("header") is False:
        note = (
            f"{files.format_path(data)}: its first line has values like those of the rows below it, but is read as the "
            "header, as in the training rows. If it is a row, write the names of the columns above it."
        )
        rows = replace(rows, notes=(*rows.notes, note))
    return rows


def _read_unknown(
    data: Path,
    trained_class: type[SourceOptions],
    trained: Mapping[str, Any],
    read: Callable[[type[SourceOptions], Mapping[str, Any]], SourceRows],
    unknown: BmcliError,
) -> SourceRows:
    """Read a file whose format is not recognised as the training rows; raise why it is not if that fails."""
    if not os.path.exists(data) or "path" not in trained_class.model_fields:
        raise unknown
    try:
        return read(trained_class, {**trained, "path": str(data)})
    except BmcliError:
        raise unknown from None


def _read(
    options_class: type[SourceOptions], options: Mapping[str, Any], skip_malformed: bool, as_written: bool
) -> SourceRows:
    if as_written and _MARKERS in options_class.model_fields:
        options = {**options, _MARKERS: ()}
    try:
        return read_rows(options_class.model_validate(options), skip_malformed)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None
