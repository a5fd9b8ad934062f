"""Section `objective`: the learning objective of each target."""

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
        # A target may be named `kind`; its objective is then a mapping, and not a name.
        if isinstance(value, Mapping) and not isinstance(value.get("kind"), str):
            return check_mapping(part.check, value)
        return part.check(value)

    def json_schema(self) -> dict[str, Any]:
        one = PartField("objectives").json_schema()
        return {"anyOf": [*one["anyOf"], {"type": "object", "additionalProperties": one}, {"type": "null"}]}


def resolve_objectives(objective: Any, targets: Mapping[str, Kind]) -> dict[str, Kind]:
    """Resolve the objective of each target.

    Args:
        objective: Objective of all targets, or objectives by target; missing ones follow from the kind of the target.
    """
    defaults = {
        "category": "classification", "labels": "multi_label", "ordered": "ordinal", "number": "regression",
        "count": "count",
    }  # fmt: skip
    by_name: Mapping[str, Kind] = dict.fromkeys(targets, objective) if isinstance(objective, Kind) else objective or {}
    return {
        name: by_name.get(name) or PartField("objectives").check(defaults[target.kind])
        for name, target in targets.items()
    }
