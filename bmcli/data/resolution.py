"""What the data options of a recipe came to, once the data was seen."""

from __future__ import annotations

from collections.abc import Mapping

from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import Kind, PartField
from bmcli.specs import MANY_COLUMNS, DataSpec


def resolve_options(options: DataOptions, targets: Mapping[str, Kind], spec: DataSpec) -> DataOptions:
    """The same options with what was found in the place of `auto`; preparing by them gives the same arrays.

    Many inputs that the recipe does not name are left to be found again: with all their options they would be more
    than a recipe may hold.
    """
    part = PartField("inputs")
    few = spec.inputs if len(spec.inputs) < MANY_COLUMNS else ()
    source = {name: value for name, value in spec.source.items() if getattr(options.source, name) == "auto"}
    found = {
        "source": options.source.model_copy(update=source),
        "inputs": options.inputs or {column.name: part.check(column.kind) for column in few} or None,
        "targets": targets,
        "split": options.split.model_copy(update={"stratify": spec.stratified or "none"}),
    }
    return options.model_copy(update=found)
