"""Data options of a recipe with the values that were detected in the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bmcli.inputs import get_traits
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import Kind, PartField
from bmcli.specs import MANY_COLUMNS, DataSpec


def resolve_options(options: DataOptions, targets: Mapping[str, Kind], spec: DataSpec) -> DataOptions:
    """Replace `auto` by the detected values; the resolved options prepare the same arrays.

    Inputs that the recipe does not list stay unlisted if they are many: with all their options the resolved recipe
    would exceed the size limit of recipes.
    """
    part = PartField("inputs")
    few = spec.inputs if options.inputs is None and len(spec.inputs) < MANY_COLUMNS else ()
    source = {name: value for name, value in spec.source.items() if getattr(options.source, name) == "auto"}
    detected: dict[str, Any] = {
        column.name: part.check({"kind": column.kind, **get_traits(column).detected_options}) for column in few
    }
    resolved = {
        "source": options.source.model_copy(update=source),
        "inputs": options.inputs or detected or None,
        "targets": targets,
        "split": options.split.model_copy(update={"stratify": spec.stratified_by or "none"}),
    }
    return options.model_copy(update=resolved)
