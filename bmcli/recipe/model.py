"""Section `model`: the options that every family has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from bmcli.recipe.fields import FIELD_TYPE_KEY, FieldType, Kind, Options, PartField, fault
from bmcli.recipe.nodes import format_value


class ModelSource(Options):
    """The run that a network takes its backbone from."""

    run: str = Field(description="Its folder.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of its model, which bmcli records in recipe.lock.yaml."
    )


@dataclass(frozen=True)
class ModelSourceField(FieldType):
    """A run by its folder or its name; the recipe of a run has its SHA-256 too."""

    def check(self, value: Any) -> ModelSource | None:
        if value is None or isinstance(value, ModelSource):
            return value
        if not isinstance(value, (str, Mapping)) or not value:
            raise fault("source", f"expected a run, received {format_value(value)}.", "Write from: runs/NAME.")
        return ModelSource.model_validate({"run": value} if isinstance(value, str) else value)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, ModelSource.model_json_schema(), {"type": "null"}]}


@dataclass(frozen=True)
class ModelField(PartField):
    """A model family, which a model that comes from a run need not name."""

    room: str = "models"

    def json_schema(self) -> dict[str, Any]:
        described = {
            "type": "object",
            "description": "The backbone of a run, with its family and options.",
            "properties": {"from": {FIELD_TYPE_KEY: ModelSourceField()}},
            "required": ["from"],
            "additionalProperties": False,
        }
        return {"anyOf": [*super().json_schema()["anyOf"], described]}


class ModelOptions(Kind):
    """Options of every family."""

    source: Annotated[ModelSource | None, ModelSourceField()] = Field(
        default=None,
        alias="from",
        description="A run, by its folder or name, whose backbone is the start of the training: all weights before the "
        "output layers. Family, options and inputs come from the run.",
    )
