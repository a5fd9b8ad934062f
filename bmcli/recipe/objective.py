"""Section `objective`: the learning objective of each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from bmcli import parts
from bmcli.recipe.fields import FieldType, Kind, PartField, check_mapping
from bmcli.recipe.targets import TargetOptions

if TYPE_CHECKING:
    from bmcli.recipe.data import DataOptions


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


class ObjectiveOptions(Kind):
    """Options of every objective."""

    @property
    def decides(self) -> bool:
        """Whether predictions depend on a value that is set or chosen after training, as the objective's answers do."""
        return False

    @property
    def decides_on_validation(self) -> bool:
        """Whether such a value is chosen on validation rows."""
        return False

    def list_resolved(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """List what the options that are `auto` became, by option, for the lock file.

        Args:
            state: Of the output.
        """
        return {}

    weight: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="Weight of this target's loss among those of several targets."
    )


def learns_from_inputs(objective: Kind) -> bool:
    """Whether an objective learns from inputs alone, without a target."""
    return not parts.load("objectives", objective.kind).TARGETS


def resolve_targets(objective: Any, data: DataOptions) -> Mapping[str, TargetOptions]:
    """Resolve the targets: those of the recipe or of its source; none if its only objective learns from inputs."""
    if isinstance(objective, Kind) and learns_from_inputs(objective):
        return data.targets or {}
    return data.targets_by_name()


def resolve_objectives(objective: Any, targets: Mapping[str, TargetOptions]) -> dict[str, ObjectiveOptions]:
    """Resolve the objective of each output: of each target, then of those without one.

    Args:
        objective: Objective of all targets; one that learns from inputs, whose output has the name of its kind; or
            objectives by output. Missing ones follow from the kind of the target.
    """
    if isinstance(objective, ObjectiveOptions) and not targets:
        return {objective.kind: objective}
    by_name = dict.fromkeys(targets, objective) if isinstance(objective, Kind) else objective or {}
    usual = {name: parts.load("data.targets", target.kind).OBJECTIVE for name, target in targets.items()}
    # Any, since the options of a part are known by its room alone.
    resolved: dict[str, Any] = {
        name: by_name.get(name) or PartField("objectives").check(kind) for name, kind in usual.items()
    }
    return {**resolved, **{name: each for name, each in by_name.items() if name not in resolved}}
