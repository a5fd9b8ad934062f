"""Section `objective`: what is learned of each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmcli.recipe.fields import FieldType, Kind, PartField, check_mapping


@dataclass(frozen=True)
class ObjectiveField(FieldType):
    """One objective for every target, or a mapping from target to objective."""

    def check(self, value: Any) -> Any:
        part = PartField("objectives")
        if value is None or isinstance(value, Kind):
            return value
        # A target may be called `kind`: its objective is a mapping.
        if isinstance(value, Mapping) and not isinstance(value.get("kind"), str):
            return check_mapping(part.check, value)
        return part.check(value)

    def json_schema(self) -> dict[str, Any]:
        one = PartField("objectives").json_schema()
        return {"anyOf": [*one["anyOf"], {"type": "object", "additionalProperties": one}, {"type": "null"}]}


def resolve_objectives(given: Any, targets: Mapping[str, Kind]) -> dict[str, Kind]:
    """The objective of each target: `given` for all or by name, else the target kind's usual one."""
    usual = {
        "category": "classification", "labels": "multi_label", "ordered": "ordinal", "number": "regression",
        "count": "count",
    }  # fmt: skip
    by_name: Mapping[str, Kind] = dict.fromkeys(targets, given) if isinstance(given, Kind) else given or {}
    return {
        name: by_name.get(name) or PartField("objectives").check(usual[target.kind]) for name, target in targets.items()
    }
