"""Field types of recipes: options that report every unknown key, choices by kind, units, Keras objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Annotated, Any, Literal, get_args, get_origin

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
from bmcli.recipe import catalogue
from bmcli.recipe.nodes import KeyPath, format_value


def fault(kind: str, message: str, suggestion: str = "") -> PydanticCustomError:
    """Make an error for a validator, with a message and a suggestion.

    Args:
        kind: Type of the error; `unknown_key` is shown at the key instead of its value.
    """
    # The message is a value of the template, because pydantic would interpret braces of user text in the template.
    return PydanticCustomError(kind, "{text}", {"text": message, "suggestion": suggestion})


class Options(BaseModel):
    """Base class of all sections of a recipe: strict types, no unknown keys, finite numbers, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Make pydantic's schema, with defaults as they are written in a recipe: `1m` instead of 60 seconds."""
        described = handler.resolve_ref_schema(handler(schema))
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        # Unlike a validation, without required values.
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
            # The details of an error cannot be changed: raise another one with the same details and suggestions.
            raise ValidationError.from_exception_data(
                cls.__name__, [add_suggestion(detail, cls) for detail in error.errors(include_url=False)]
            ) from None


def add_suggestion(detail: Any, model: type[BaseModel] | None = None) -> InitErrorDetails:
    """Convert the details of an error so that it can be raised again, with a suggestion for an unknown key.

    Args:
        model: Model whose keys are suggested, for errors directly below it; None keeps the error as it is.
    """
    context = detail.get("ctx", {})
    reason: Any = detail["type"]
    if model is not None and reason == "extra_forbidden" and len(detail["loc"]) == 1:
        known = [field.alias or name for name, field in model.model_fields.items()]
        context = {"text": "no such key.", "suggestion": parts.did_you_mean(str(detail["loc"][0]), known)}
        # The places of options in other sections are looked up where the whole recipe is known.
        reason = PydanticCustomError("unknown_key", "{text}", {**context, "known": tuple(known)})
    elif "suggestion" in context:
        reason = PydanticCustomError(reason, "{text}", context)  # pydantic gives only the name of a custom type
    return InitErrorDetails(type=reason, loc=detail["loc"], input=detail["input"], ctx=context)


def fault_at(loc: tuple[str | int, ...], message: str, suggestion: str = "") -> ValidationError:
    """Make an error at a place below the checked value."""
    detail = InitErrorDetails(type=fault("option", message, suggestion), loc=loc, input=None)
    return ValidationError.from_exception_data("options", [detail])


def fault_elsewhere(steps: tuple[str | int, ...], message: str, suggestion: str = "") -> PydanticCustomError:
    """Make an error whose place is not below the checked value, such as that of an option that another one needs.

    Args:
        steps: Path in the recipe.
    """
    context = {"text": message, "suggestion": suggestion, "steps": steps}
    return PydanticCustomError("elsewhere", "{text}", context)


def convert_lists(value: Any) -> Any:
    """Convert the lists of a JSON value to tuples, which options require."""
    if isinstance(value, dict):
        return {key: convert_lists(each) for key, each in value.items()}
    return tuple(convert_lists(each) for each in value) if isinstance(value, list) else value


class Kind(Options):
    """Options of one kind of part; the kind is the file name of the part's module."""

    kind: str


FIELD_TYPE_KEY = "$checked"


class FieldType:
    """A field type with its own validation, serialisation and JSON schema."""

    def check(self, value: Any) -> Any:
        """Validate a value; raises `fault(...)` or a ValidationError with places relative to `value`."""
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        """Make the JSON schema of the values that `check` accepts, without references to other documents."""
        raise NotImplementedError

    def dump(self, value: Any) -> Any:
        """Convert a checked value to plain YAML values; `check` converts them back to the same value."""
        return dump(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check, serialization=core_schema.plain_serializer_function_ser_schema(self.dump)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # A placeholder: `json_schema.make_recipe_schema` replaces it, so that fields of one type share one definition.
        return {FIELD_TYPE_KEY: self}


def dump(value: Any) -> Any:
    """Convert a checked value to plain YAML values; checking these gives the same value."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, KerasObject):
        options = {name: dump(item) for name, item in value.options.items()}
        return {"kind": value.kind, **options} if options else value.kind
    if isinstance(value, Mapping):
        return {name: dump(item) for name, item in value.items()}
    return [dump(item) for item in value] if isinstance(value, (list, tuple)) else value


def check_mapping(check: Callable[[Any], Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check every value of a mapping; raises the errors of all of them, each at its key."""
    checked, details = {}, []
    for name, value in values.items():
        try:
            checked[name] = check(value)
        except (PydanticCustomError, ValidationError) as error:
            details += relocate_errors((name,), error, value)
    if details:
        raise ValidationError.from_exception_data("mapping", details)
    return checked


def relocate_errors(
    loc: tuple[str | int, ...], error: PydanticCustomError | ValidationError, value: Any
) -> list[InitErrorDetails]:
    """Move the errors of a value below the checked one to their place, seen from the checked one."""
    if isinstance(error, PydanticCustomError):
        return [InitErrorDetails(type=error, loc=loc, input=value)]
    return [add_suggestion({**detail, "loc": (*loc, *detail["loc"])}) for detail in error.errors(include_url=False)]


_NOUNS: Mapping[str, str] = {
    "augmentations": "augmentation",
    "compression.methods": "compression",
    "data.sources": "kind of source",
    "data.targets": "kind of target",
    "distillation.losses": "distillation loss",
    "export.formats": "export format",
    "inputs": "kind of input",
    "models": "model family",
    "objectives": "objective",
    "tokens": "kind of tokens",
}
"""A part of each room in messages."""


def _list_words(annotation: Any, metadata: Sequence[Any]) -> list[str]:
    """List the words that a field accepts as its whole value."""
    words = [each for each in get_args(annotation) if get_origin(annotation) is Literal and isinstance(each, str)]
    schemas = [each.json_schema or {} for each in metadata if isinstance(each, WithJsonSchema)]
    return [*words, *(word for schema in schemas for word in schema.get("enum", ()))]


@dataclass(frozen=True)
class PartField(FieldType):
    """Choice of a part of a room: `{kind: mlp, hidden: [64]}`, or its name `mlp`."""

    room: str

    def check(self, value: Any) -> Kind:
        if isinstance(value, Kind):
            return value
        kind, values = _split_kind(value, parts.names(self.room), noun=_NOUNS[self.room], suggest=self._suggest_option)
        options: type[Kind] = parts.load(self.room, kind).Options
        return options.model_validate({**values, "kind": kind})

    def _suggest_option(self, word: str) -> str:
        """Suggest the kind with an option of this value: `{kind: rnn, cell: lstm}` for lstm; empty if there is none."""
        for kind in parts.names(self.room):
            for name, option in parts.load(self.room, kind).Options.model_fields.items():
                if name != "kind" and word in _list_words(option.annotation, option.metadata):
                    return f"Did you mean {{kind: {kind}, {name}: {word}}}?"
        return ""

    def json_schema(self) -> dict[str, Any]:
        kinds = parts.names(self.room)
        return _make_choice_schema([make_options_schema(parts.load(self.room, kind).Options, kind) for kind in kinds])


@dataclass(frozen=True)
class ChoiceField(FieldType):
    """Choice of options by their kind: `{kind: hyperband, factor: 3}`, or the name `hyperband`.

    Args:
        default_kind: Kind of a mapping without `kind`.
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
        kinds = [make_options_schema(model, model.model_fields["kind"].default) for model in self.options]
        return _make_choice_schema(kinds, self.default_kind)


@dataclass(frozen=True)
class KerasObject:
    """A Keras object of a recipe: its name, and the options that differ from Keras' defaults."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KerasObjectField(FieldType):
    """A Keras object of a family (`optimizers`, `layers` ...) by name, checked without importing Keras.

    Keras' own names of classes are accepted too: `AdamW` is `adamw`.

    Args:
        also: Further names to suggest.
        default_kind: Kind of a mapping without `kind`.
        complete: Fill in Keras' defaults, so that a resolved recipe keeps them when Keras changes.
        auto_options: Options that may be `auto`, because they are measured.
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
        value = catalogue.replace_class_names(self.family, value)
        noun = catalogue.get_noun(self.family)
        kind, options = _split_kind(value, catalogue.list_kinds(self.family), self.also, noun)
        explicit = {name: item for name, item in options.items() if not (name in self.auto_options and item == "auto")}
        problems = catalogue.find_option_problems(self.family, kind, explicit)
        if problems:
            known = catalogue.get_entry(self.family, kind)["options"]
            details = [
                InitErrorDetails(
                    type=fault(_choose_fault_kind(place, known), message, suggestion), loc=place, input=value
                )
                for place, message, suggestion in problems
            ]
            raise ValidationError.from_exception_data(kind, details)
        defaults = catalogue.get_entry(self.family, kind)["options"] if self.complete else {}
        return KerasObject(kind, {**{name: item for name, item in defaults.items() if item is not None}, **options})

    def json_schema(self) -> dict[str, Any]:
        kinds = [_make_keras_options_schema(self.family, kind) for kind in catalogue.list_kinds(self.family)]
        return _make_choice_schema(kinds, self.default_kind)


def _choose_fault_kind(place: KeyPath, known: Mapping[str, Any]) -> str:
    """Choose `unknown_key` for a fault that is shown at the key instead of its value."""
    return "unknown_key" if len(place) == 1 and place[0] not in known else "keras_option"


def _make_choice_schema(kinds: Sequence[dict[str, Any]], default_kind: str | None = None) -> dict[str, Any]:
    """Make the schema of a choice: one of several kinds, or the name of one without required options.

    Args:
        default_kind: Kind for which `kind` is optional.
    """
    bare = [name for kind in kinds if kind["required"] == ["kind"] for name in _list_schema_names(kind)]
    for kind in kinds:
        if get_schema_kind(kind) == default_kind:
            kind["required"] = [name for name in kind["required"] if name != "kind"]
    return {"anyOf": [*([{"enum": bare}] if bare else []), *kinds]}


def get_schema_kind(schema: Mapping[str, Any]) -> str:
    """Get the kind of a schema of options."""
    return _list_schema_names(schema)[0]


def _list_schema_names(schema: Mapping[str, Any]) -> list[str]:
    """List the values of `kind` that a schema of options accepts, the kind first."""
    described = schema["properties"]["kind"]
    return described.get("enum") or [described.get("const", "")]


def make_options_schema(model: type[Kind], kind: str) -> dict[str, Any]:
    """Make the JSON schema of the options of one kind, without references to other documents."""
    schema = model.model_json_schema()
    schema["properties"]["kind"] = {
        "const": kind,
        "description": schema.get("description", f"The kind {kind}."),
    }
    schema["required"] = sorted({*schema.get("required", []), "kind"})
    return schema


def _make_keras_options_schema(family: str, kind: str) -> dict[str, Any]:
    entry = catalogue.get_entry(family, kind)
    about = f"Keras' {entry['object']}"
    options = {
        name: {**_make_keras_option_schema(name), "default": default, "description": f"Option {name} of {about}."}
        for name, default in entry["options"].items()
    }
    return {
        "type": "object",
        "description": f"{about}.",
        "properties": {"kind": {**_make_name_schema(kind, entry["object"]), "description": f"{about}."}, **options},
        "required": ["kind", *entry["required"]],
        "additionalProperties": False,
    }


def _make_name_schema(kind: str, class_name: str) -> dict[str, Any]:
    return {"const": kind} if kind == class_name else {"enum": [kind, class_name]}


def _make_keras_option_schema(option: str) -> dict[str, Any]:
    family = catalogue.get_option_family(option)
    return {"anyOf": [{FIELD_TYPE_KEY: KerasObjectField(family)}, {"type": "null"}]} if family else {}


def _split_kind(
    value: Any,
    kinds: Collection[str],
    also: Sequence[str] = (),
    noun: str = "kind",
    suggest: Callable[[str], str] = lambda word: "",
) -> tuple[str, dict[str, Any]]:
    """Split a mapping with a `kind`, or a name, into the kind and the other options.

    Args:
        also: Further names to suggest.
        noun: What a kind is one of, in messages.
        suggest: Makes a suggestion for a word that is no kind; empty if the most similar kind should be suggested.
    """
    if isinstance(value, str):
        kind: Any = value
        options: dict[str, Any] = {}
    elif isinstance(value, Mapping):
        if "kind" not in value:
            raise fault("missing_kind", "'kind' is missing.", parts.did_you_mean("", kinds))
        kind, options = value["kind"], {key: item for key, item in value.items() if key != "kind"}
    else:
        raise fault("kind_type", f"expected a name or a mapping with a 'kind', received {format_value(value)}.")
    if not isinstance(kind, str) or kind not in kinds:
        hint = (suggest(kind) if isinstance(kind, str) else "") or parts.did_you_mean(str(kind), [*kinds, *also])
        is_absent = isinstance(kind, str) and not hint.startswith("Did")
        message = f"there is no {noun} {format_value(kind)} in this version." if is_absent else None
        error = fault("unknown_kind", message or f"no kind {format_value(kind)}.", hint)
        if isinstance(value, str):
            raise error
        raise ValidationError.from_exception_data("kind", [InitErrorDetails(type=error, loc=("kind",), input=kind)])
    return kind, options


_UNITS: Mapping[str, Mapping[str, float]] = {
    "duration": {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001},
    "size": {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1},
}
_MAX_QUANTITY = 1e18  # seconds or bytes
_EXAMPLES = {"duration": "30m", "size": "512MiB"}


def _read_quantity(name: str, value: Any) -> float:
    """Parse a number with a unit; returns seconds or bytes."""
    units = _UNITS[name]
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", value) if isinstance(value, str) else None
    number = float(match[1]) * units.get(match[2], 0) if match else 0
    if not 0 < number < _MAX_QUANTITY:
        raise fault(
            name,
            f"expected a {name} like {_EXAMPLES[name]}, received {format_value(value)}.",
            f"Units: {', '.join(units)}.",
        )
    return number


def _write_quantity(name: str, value: float) -> str:
    """Format seconds or bytes in the largest unit that gives a whole number and the same value when parsed."""
    for unit, factor in _UNITS[name].items():
        text = f"{round(value / factor)}{unit}"
        if round(value / factor) and _read_quantity(name, text) == value:
            return text
    base = "s" if name == "duration" else "B"
    # Without exponent: `_read_quantity` does not accept 1e-05s.
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


GateText = Annotated[
    str, BeforeValidator(_check_gate), WithJsonSchema({"type": "string", "pattern": f"^{GATE_PATTERN}$"})
]
"""Limit of a metric, such as `>= 0.9`."""


Share = Annotated[float, Field(gt=0, lt=1)]


KerasMetric = Annotated[KerasObject, KerasObjectField("metrics")]
