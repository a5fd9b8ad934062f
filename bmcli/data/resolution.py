"""What the data options of a recipe came to, once the data was seen."""

from __future__ import annotations

from collections.abc import Mapping

from bmcli.recipe.fields import Kind, PartOf
from bmcli.recipe.schema import DataOptions
from bmcli.specs import DataSpec


def resolved(options: DataOptions, targets: Mapping[str, Kind], spec: DataSpec) -> DataOptions:
    """The same options with what was found in the place of `auto`; preparing by them gives the same arrays."""
    part = PartOf("inputs")
    source = {name: value for name, value in spec.source.items() if getattr(options.source, name) == "auto"}
    found = {
        "source": options.source.model_copy(update=source),
        "inputs": options.inputs or {column.name: part.check(column.kind) for column in spec.inputs},
        "targets": targets,
        "split": options.split.model_copy(update={"stratify": spec.stratified or "none"}),
    }
    return options.model_copy(update=found)
