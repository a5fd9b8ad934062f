"""Field types of the recipe: options that report every unknown key, choices by kind, units, Keras objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from bmcli import parts
from bmcli.quoting import LONGEST, brief, quoted
from bmcli.recipe import catalogue, nodes


def fault(kind: str, message: str, suggestion: str = "") -> PydanticCustomError:
    """An error whose text is shown as it stands, with a suggestion beside it."""
    # The text travels as a value, because a template would interpret braces in what the user wrote.
    return PydanticCustomError(kind, "{text}", {"text": message, "suggestion": suggestion})


class Options(BaseModel):
    """Base of everything in a recipe: strict types, no unknown keys, finite numbers, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's schema, with defaults as a recipe writes them: `1m`, and not the seconds they become."""
        described = handler.resolve_ref_schema(handler(schema))
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        written = cls.model_construct().model_dump(include=optional)
        for name, value in written.items():
            described["properties"][name]["default"] = dump(value)
        return described

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                cls.__name__, [add_suggestion(detail, cls) for detail in error.errors(include_url=False)]
            ) from None


def add_suggestion(detail: Any, model: type[BaseModel] | None = None) -> InitErrorDetails:
    """The same error, with the nearest known key if it is about an unknown key of this very model."""
    context = detail.get("ctx", {})
    reason: Any = detail["type"]
    if model is not None and reason == "extra_forbidden" and len(detail["loc"]) == 1:
        hint = parts.did_you_mean(str(detail["loc"][0]), model.model_fields)
        reason = fault("unknown_key", "no such key.", hint)
    elif "suggestion" in context:
        reason = PydanticCustomError(reason, "{text}", context)
    return InitErrorDetails(type=reason, loc=detail["loc"], input=detail["input"], ctx=context)


def fault_at(loc: tuple[str | int, ...], message: str, suggestion: str = "") -> ValidationError:
    """A fault at a place below the value that is checked."""
    detail = InitErrorDetails(type=fault("option", message, suggestion), loc=loc, input=None)
    return ValidationError.from_exception_data("options", [detail])


class Kind(Options):
    """Options of a part. The file name of the part's module is its kind."""

    kind: str


FIELD_TYPE_KEY = "$checked"


class FieldType:
    """A field type that is checked, dumped and described by methods of its own."""

    def check(self, value: Any) -> Any:
        """The checked value; raises fault() or a ValidationError with places relative to `value`."""
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        """The values that `check` accepts, as a schema that stands by itself."""
        raise NotImplementedError

    def dump(self, value: Any) -> Any:
        """A checked value as plain YAML values; checking them again gives the same value."""
        return dump(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check, serialization=core_schema.plain_serializer_function_ser_schema(self.dump)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # `json_schema.recipe_schema` describes it in the place of this, once for all the fields of this type.
        return {FIELD_TYPE_KEY: self}


def dump(value: Any) -> Any:
    """A checked value as plain YAML values; checking them again gives the same value."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, KerasObject):
        options = {name: dump(item) for name, item in value.options.items()}
        return {"kind": value.kind, **options} if options else value.kind
    if isinstance(value, Mapping):
        return {name: dump(item) for name, item in value.items()}
    return [dump(item) for item in value] if isinstance(value, (list, tuple)) else value


def check_mapping(check: Callable[[Any], Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every value checked, with the faults of all of them at their keys."""
    checked, details = {}, []
    for name, value in values.items():
        try:
            checked[name] = check(value)
        except (PydanticCustomError, ValidationError) as error:
            details += details_at((name,), error, value)
    if details:
        raise ValidationError.from_exception_data("mapping", details)
    return checked


def details_at(
    loc: tuple[str | int, ...], error: PydanticCustomError | ValidationError, value: Any
) -> list[InitErrorDetails]:
    """The errors of a value below the one that is checked, as errors of that one."""
    if isinstance(error, PydanticCustomError):
        return [InitErrorDetails(type=error, loc=loc, input=value)]
    return [add_suggestion({**detail, "loc": (*loc, *detail["loc"])}) for detail in error.errors(include_url=False)]


@dataclass(frozen=True)
class PartField(FieldType):
    """A choice among the parts of a room: `{kind: mlp, hidden: [64]}`, or the bare name `mlp`."""

    room: str

    def check(self, value: Any) -> Kind:
        if isinstance(value, Kind):
            return value
        kind, values = _split_kind(value, parts.names(self.room))
        options: type[Kind] = parts.load(self.room, kind).Options
        return options.model_validate({**values, "kind": kind})

    def json_schema(self) -> dict[str, Any]:
        kinds = parts.names(self.room)
        return _make_choice_schema([options_schema(parts.load(self.room, kind).Options, kind) for kind in kinds])


@dataclass(frozen=True)
class ChoiceField(FieldType):
    """A choice among these options by their kind: `{kind: hyperband, factor: 3}`, or the bare name `hyperband`.

    Args:
        default_kind: The kind of options that name none.
    """

    options: tuple[type[Kind], ...]
    default_kind: str | None = None

    def check(self, value: Any) -> Kind:
        if isinstance(value, Kind):
            return value
        if self.default_kind is not None and isinstance(value, Mapping):
            value = {"kind": self.default_kind, **value}
        by_kind = {model.model_fields["kind"].default: model for model in self.options}
        kind, values = _split_kind(value, list(by_kind))
        return by_kind[kind].model_validate({**values, "kind": kind})

    def json_schema(self) -> dict[str, Any]:
        kinds = [options_schema(model, model.model_fields["kind"].default) for model in self.options]
        return _make_choice_schema(kinds, self.default_kind)


@dataclass(frozen=True)
class KerasObject:
    """A Keras object as written in a recipe: its name and the options that differ from Keras' defaults."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KerasObjectField(FieldType):
    """A Keras object of a family (`optimizers`, `layers` ...) by name, checked without importing Keras.

    Args:
        also: Names to suggest beside the family's own.
        default_kind: The kind of options that name none.
        complete: Spell out Keras' defaults, so that a resolved recipe keeps them.
        auto_options: Options that may be `auto`, as they are measured.
    """

    family: str
    also: tuple[str, ...] = ()
    default_kind: str | None = None
    complete: bool = False
    auto_options: tuple[str, ...] = ()

    def check(self, value: Any) -> KerasObject:
        if isinstance(value, KerasObject):
            return value
        if self.default_kind is not None and isinstance(value, Mapping):
            value = {"kind": self.default_kind, **value}
        kind, options = _split_kind(value, catalogue.list_kinds(self.family), self.also)
        told = {name: item for name, item in options.items() if not (name in self.auto_options and item == "auto")}
        problems = catalogue.check_options(self.family, kind, told)
        if problems:
            known = catalogue.get_entry(self.family, kind)["options"]
            details = [
                InitErrorDetails(type=fault(_choose_fault_kind(where, known), text, hint), loc=where, input=value)
                for where, text, hint in problems
            ]
            raise ValidationError.from_exception_data(kind, details)
        defaults = catalogue.get_entry(self.family, kind)["options"] if self.complete else {}
        return KerasObject(kind, {**{name: item for name, item in defaults.items() if item is not None}, **options})

    def json_schema(self) -> dict[str, Any]:
        kinds = [_keras_options_schema(self.family, kind) for kind in catalogue.list_kinds(self.family)]
        return _make_choice_schema(kinds, self.default_kind)


def _choose_fault_kind(where: Sequence[str | int], known: Mapping[str, Any]) -> str:
    """`unknown_key` for a fault that is shown at the key and not at its value."""
    return "unknown_key" if len(where) == 1 and where[0] not in known else "keras_option"


def _make_choice_schema(kinds: Sequence[dict[str, Any]], default_kind: str | None = None) -> dict[str, Any]:
    """One of several kinds, or the bare name of one that needs no options; `default_kind` need not be named."""
    bare = [kind["properties"]["kind"]["const"] for kind in kinds if kind["required"] == ["kind"]]
    for kind in kinds:
        if kind["properties"]["kind"]["const"] == default_kind:
            kind["required"] = [name for name in kind["required"] if name != "kind"]
    return {"anyOf": [*([{"enum": bare}] if bare else []), *kinds]}


def options_schema(model: type[Kind], kind: str) -> dict[str, Any]:
    """JSON schema of the options of one kind, which stands by itself."""
    schema = model.model_json_schema()
    schema["properties"]["kind"] = {
        "const": kind,
        "description": schema.get("description", f"The kind {kind}."),
    }
    schema["required"] = sorted({*schema.get("required", []), "kind"})
    return schema


def _keras_options_schema(family: str, kind: str) -> dict[str, Any]:
    known = catalogue.get_entry(family, kind)
    about = f"Keras' {known['object']}"
    options = {
        name: {**_keras_option_schema(name), "default": default, "description": f"Option {name} of {about}."}
        for name, default in known["options"].items()
    }
    return {
        "type": "object",
        "description": f"{about}.",
        "properties": {"kind": {"const": kind, "description": f"{about}."}, **options},
        "required": ["kind", *known["required"]],
        "additionalProperties": False,
    }


def _keras_option_schema(option: str) -> dict[str, Any]:
    family = catalogue.family_of_option(option)
    return {"anyOf": [{FIELD_TYPE_KEY: KerasObjectField(family)}, {"type": "null"}]} if family else {}


def _split_kind(value: Any, known: Collection[str], also: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """The kind and the remaining options of a mapping with a `kind`, or of a bare name."""
    if isinstance(value, str):
        kind: Any = value
        options: dict[str, Any] = {}
    elif isinstance(value, Mapping):
        if "kind" not in value:
            raise fault("missing_kind", "'kind' is missing.", parts.did_you_mean("", known))
        kind, options = value["kind"], {key: item for key, item in value.items() if key != "kind"}
    else:
        raise fault("kind_type", f"expected a name or a mapping with a 'kind', received {format_value(value)}.")
    if not isinstance(kind, str) or kind not in known:
        error = fault("unknown_kind", f"no kind {format_value(kind)}.", parts.did_you_mean(str(kind), [*known, *also]))
        if isinstance(value, str):
            raise error
        raise ValidationError.from_exception_data("kind", [InitErrorDetails(type=error, loc=("kind",), input=kind)])
    return kind, options


def format_value(value: Any) -> str:
    """A value as a user would write it, if it is short."""
    if value is None:
        return "nothing"
    if isinstance(value, (Mapping, list, tuple)):
        short = len(value) <= 8 and not any(isinstance(item, (Mapping, list, tuple)) for item in _items(value))
        text = nodes.write_scalar(value) if short else ""
        what = "a mapping" if isinstance(value, Mapping) else "a list"
        return text if 0 < len(text) <= 40 else what
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else brief(repr(value), LONGEST)


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value


_UNITS: Mapping[str, Mapping[str, float]] = {
    "duration": {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001},
    "size": {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1},
}
_ABSURD = 1e18  # seconds or bytes
_EXAMPLES = {"duration": "30m", "size": "512MiB"}


def _read_quantity(name: str, value: Any) -> float:
    """A number with a unit in the unit's base, seconds or bytes."""
    units = _UNITS[name]
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", value) if isinstance(value, str) else None
    number = float(match[1]) * units.get(match[2], 0) if match else 0
    if not 0 < number < _ABSURD:
        raise fault(
            name,
            f"expected a {name} like {_EXAMPLES[name]}, received {format_value(value)}.",
            f"Units: {', '.join(units)}.",
        )
    return number


def _write_quantity(name: str, value: float) -> str:
    """In the largest unit that gives a whole number, and reads back to the same value."""
    for unit, factor in _UNITS[name].items():
        text = f"{round(value / factor)}{unit}"
        if round(value / factor) and _read_quantity(name, text) == value:
            return text
    base = "s" if name == "duration" else "B"
    return f"{Decimal(repr(value)):f}{base}"


def _make_quantity(name: str) -> Any:
    units = "|".join(_UNITS[name])
    return Annotated[
        float,
        BeforeValidator(partial(_read_quantity, name)),
        PlainSerializer(partial(_write_quantity, name)),
        WithJsonSchema(
            {"type": "string", "pattern": rf"^[0-9]+(\.[0-9]+)? ?({units})$", "examples": [_EXAMPLES[name]]}
        ),
    ]


Duration = _make_quantity("duration")
"""Seconds, written with a unit: `30s`, `5m`, `2h`."""

Size = _make_quantity("size")
"""Bytes, written with a unit: `512MiB`."""

Activation = Annotated[KerasObject, KerasObjectField("activations")]
Initializer = Annotated[KerasObject, KerasObjectField("initializers")]
Regularizer = Annotated[KerasObject, KerasObjectField("regularizers")]

GATE_PATTERN = r"(>=|<=|>|<) ?-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"


def _check_gate(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(GATE_PATTERN, value) or not isfinite(float(value.lstrip("<>= "))):
        hint = "Write >=, <=, > or < and a number, in quotes."
        raise fault("gate", f"expected a limit like '>= 0.9', received {format_value(value)}.", hint)
    return value


Gate = Annotated[str, BeforeValidator(_check_gate), WithJsonSchema({"type": "string", "pattern": f"^{GATE_PATTERN}$"})]
"""A limit of a metric: `>= 0.9`."""


Share = Annotated[float, Field(gt=0, lt=1)]


KerasMetric = Annotated[KerasObject, KerasObjectField("metrics")]
