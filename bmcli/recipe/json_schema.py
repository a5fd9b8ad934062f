"""JSON schema of recipes, for editors, made from the models that validate them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import astuple
from typing import Any

from bmcli.recipe.fields import FIELD_TYPE_KEY, FieldType
from bmcli.recipe.schema import Recipe

_PREFIX = "#/$defs/"
_EXTENDS = "A recipe file, relative to this one, or a built-in recipe by name, whose values this recipe overrides."


def make_recipe_schema() -> dict[str, Any]:
    """Make the JSON schema (draft 2020-12) of every section, kind and option, with descriptions.

    Each definition exists twice: in a recipe with `extends` (`.part`), keys may be missing, and null deletes a value.
    """
    collected = _SchemaCollection()
    collected.resolve({"$ref": f"{_PREFIX}Recipe", "$defs": {"Recipe": _make_root_schema()}}, {})
    whole = {name: _allow_variable(schema) for name, schema in collected.schemas.items()}
    partial = {f"{name}.part": _make_partial(schema) for name, schema in whole.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bmcli recipe",
        "if": {"properties": {"extends": {"type": "string"}}, "required": ["extends"]},
        "then": {"$ref": f"{_PREFIX}Recipe.part"},
        "else": {"$ref": f"{_PREFIX}Recipe"},
        "$defs": {**whole, **partial, "variable": _VARIABLE},
    }


def _make_root_schema() -> dict[str, Any]:
    schema = Recipe.model_json_schema()
    extends = {"anyOf": [{"type": "string"}, {"type": "null"}], "description": _EXTENDS}
    return {**schema, "properties": {"extends": extends, **schema["properties"]}}


class _SchemaCollection:
    """Definitions of the recipe's schema, each under a unique name."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.names: dict[Hashable, str] = {}

    def add_reference(self, key: Hashable, name: str, make: Callable[[], Any]) -> str:
        """Refer to the schema of a key, which is made on first use.

        Args:
            name: Name of the definition; underscores are appended if another key has it.
        """
        if key not in self.names:
            unique = name
            while unique in self.schemas:
                unique += "_"
            self.names[key] = unique
            self.schemas[unique] = {}  # reserves the name: the schema may refer to itself
            self.schemas[unique] = make()
        return f"{_PREFIX}{self.names[key]}"

    def resolve(self, schema: Any, scope: Mapping[str, Any]) -> Any:
        """Replace the references and placeholders of a schema by references into this collection.

        Args:
            scope: Definitions of the document that contains the schema.
        """
        if isinstance(schema, list):
            return [self.resolve(item, scope) for item in schema]
        if not isinstance(schema, dict):
            return schema
        scope = schema.get("$defs", scope)
        resolved = {
            key: self.resolve(value, scope)
            for key, value in schema.items()
            if key not in ("$defs", "$ref", FIELD_TYPE_KEY)
        }
        if FIELD_TYPE_KEY in schema:
            resolved["$ref"] = self._refer_to_field(schema[FIELD_TYPE_KEY])
        if "$ref" in schema:
            resolved["$ref"] = self._refer_to_definition(schema["$ref"].removeprefix(_PREFIX), scope)
        return resolved

    def _refer_to_field(self, field: FieldType) -> str:
        # Every field type is a frozen dataclass, which `FieldType` itself is not: hence the ignore.
        words = [type(field).__name__.strip("_"), *(word for word in astuple(field) if isinstance(word, str))]  # type: ignore[call-overload]
        return self.add_reference(field, ".".join(words), lambda: self.resolve(field.json_schema(), {}))

    def _refer_to_definition(self, name: str, scope: Mapping[str, Any]) -> str:
        # Each model has a document with its own `$defs`, and two of them may use one name for different definitions.
        return self.add_reference((name, repr(scope)), name, lambda: self.resolve(scope[name], scope))


_VARIABLE = {
    "type": "string",
    "pattern": r"^\$\{[^{}]+\}$",
    "description": "Value of a variable of `vars`, such as ${NAME}.",
}
_SCALARS = ("integer", "number", "boolean")
_NESTED = ("items", "additionalProperties")
_LISTED = ("anyOf", "prefixItems")


def _map_subschemas(schema: Any, change: Callable[[Any], Any]) -> dict[str, Any]:
    """Apply `change` to each schema directly inside a schema."""
    changed = dict(schema)
    for key in _NESTED:
        if isinstance(schema.get(key), dict):
            changed[key] = change(schema[key])
    for key in _LISTED:
        if key in schema:
            changed[key] = [change(item) for item in schema[key]]
    if "properties" in schema:
        changed["properties"] = {name: change(item) for name, item in schema["properties"].items()}
    return changed


def _allow_variable(schema: Any) -> Any:
    """Allow `${NAME}` for every value; free text accepts it anyway."""
    schema = _map_subschemas(schema, _allow_variable)
    limited = schema.get("type") in _SCALARS or "const" in schema or "enum" in schema or "pattern" in schema
    return _join_alternatives(schema, {"$ref": f"{_PREFIX}variable"}) if limited else schema


def _make_partial(schema: Any) -> Any:
    """Make a schema for a recipe with `extends`: no required keys, null for any value, list items by position."""
    schema = _map_subschemas(schema, _make_partial)
    schema.pop("required", None)
    if "$ref" in schema and schema["$ref"] != f"{_PREFIX}variable":
        schema["$ref"] += ".part"
    if "properties" in schema:
        schema["properties"] = {
            name: _join_alternatives(item, {"type": "null"}) for name, item in schema["properties"].items()
        }
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _join_alternatives(schema["additionalProperties"], {"type": "null"})
    if schema.get("type") == "array":
        by_number = {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}}
        return _join_alternatives(schema, by_number)
    return schema


def _join_alternatives(schema: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Make the schema of a choice between two; the description of the first is that of both."""
    notes: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in notes}
    return {**notes, "anyOf": [rest, other]} if rest else schema
