"""Every option of the schema, by the part or section that has it, and other values to try."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from tests.recipe.strategies import schema

_KERAS = "KerasObjectField."
_VARIABLE = "#/$defs/variable"
# A value that differs from every default, for options that take one of Keras' objects.
_KERAS_VALUES = {
    "activations": "tanh", "initializers": {"kind": "constant", "value": 0.3}, "regularizers": "l2",
    "constraints": "non_neg",
}  # fmt: skip


@cache
def list_owners() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The options of each owner by name, with their schemas.

    An owner is a section (`TrainOptions`), a kind of a part (`models.cnn`), or an object of Keras
    (`keras.optimizers.adam`).
    """
    owners: dict[str, dict[str, Mapping[str, Any]]] = {}
    for definition, described in schema()["$defs"].items():
        if not definition.endswith(".part") and definition != "variable":
            for owner, name, option in _walk(definition, described):
                owners.setdefault(_shorten(owner), {}).setdefault(name, option)
    return owners


def _walk(owner: str, described: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    properties = described.get("properties", {})
    if properties:
        kind = _get_kind(properties.get("kind", {}))
        named = f"{owner}.{kind}" if kind else owner
        for name, option in properties.items():
            if not (kind and name == "kind"):
                yield named, name, option
                yield from _walk(f"{named}.{name}", option)
    inside = [*described.get("anyOf", ()), *described.get("prefixItems", ())]
    inside += [described[key] for key in ("items", "additionalProperties") if isinstance(described.get(key), dict)]
    for each in inside:
        yield from _walk(owner, each)


def _get_kind(described: Mapping[str, Any]) -> str:
    """The kind of a part with a fixed kind; empty for a section."""
    for each in (described, *described.get("anyOf", ())):
        if "const" in each:
            return str(each["const"])
        if "enum" in each and each.get("type") != "string":
            return str(each["enum"][0])
    return ""


_ROOMS = {
    "ObjectiveField": "objectives", "ScheduleField": "schedules", "LayersField": "layers", "weights": "prune",
    "bayesian": "algorithms.bayesian", "hyperband": "algorithms.hyperband",
}  # fmt: skip


def _shorten(owner: str) -> str:
    """`models.cnn` instead of `ModelField.models.cnn`."""
    if owner.startswith(_KERAS):
        family, kind = owner.removeprefix(_KERAS).split(".")[0], owner.rpartition(".")[2]
        return f"keras.{family}.{kind}"
    room, dot, kind = re.sub(r"^(PartField|ModelField|ChoiceField|TokensField)\.|_+$", "", owner).partition(".")
    return f"{_ROOMS.get(room, room)}{dot}{kind}"


def is_section(option: Mapping[str, Any]) -> bool:
    """Whether an option is nothing but a mapping of other options, which have effects of their own."""
    inside = [each for each in option.get("anyOf", ()) if each.get("$ref") != _VARIABLE and each.get("type") != "null"]
    if "$ref" in option:
        inside.append(schema()["$defs"][option["$ref"].removeprefix("#/$defs/")])
    if inside:
        return all(is_section(each) for each in inside)
    return "properties" in option and "kind" not in option["properties"]


def list_values(option: Mapping[str, Any]) -> list[Any]:
    """Values that an option accepts; its default is the last, since it is the usual value."""
    default = option.get("default")
    values = [*(value for value in _iterate_values(option, ()) if value != default), default]
    return [value for position, value in enumerate(values) if value not in values[:position]]


def _iterate_values(described: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[Any]:
    if "$ref" in described:
        name = described["$ref"].removeprefix("#/$defs/")
        if described["$ref"] == _VARIABLE or name in above:
            return
        if name.startswith(_KERAS):
            yield from filter(None, [_KERAS_VALUES.get(name.removeprefix(_KERAS))])
        else:
            yield from _iterate_values(schema()["$defs"][name], (*above, name))
    for each in described.get("anyOf", ()):
        yield from _iterate_values(each, above)
    if "const" in described:
        yield described["const"]
    yield from described.get("enum", ())
    yield from _VALUES.get(described.get("type", ""), lambda each: [])(described)
    if not {"type", "$ref", "anyOf", "const", "enum"} & set(described):
        yield from list_other_values(described.get("default"))
    if described.get("type") == "array" and isinstance(described.get("items"), dict):
        least = max(1, described.get("minItems", 1))
        yield from ([item] * least for item in _iterate_values(described["items"], above))


def list_other_values(default: Any) -> list[Any]:
    """Values of the type of a default; none if it says too little."""
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1, default + 2, default - 1]
    return [default / 2, default + 0.25, default + 1] if isinstance(default, float) else []


def _list_integers(described: Mapping[str, Any]) -> list[int]:
    default = described.get("default")
    low, high = described.get("minimum", 0), described.get("maximum", 10**6)
    near = [default + 1, default - 1] if isinstance(default, int) else []
    return [value for value in (*near, 2, 3, 1, low) if low <= value <= high]


def _list_numbers(described: Mapping[str, Any]) -> list[float]:
    low = described.get("minimum", described.get("exclusiveMinimum", 0))
    high = described.get("maximum", described.get("exclusiveMaximum", 10**6))
    return [value for value in (0.5, 0.25, 0.9, 2.0) if low < value < high]


_VALUES: Mapping[str, Any] = {
    "boolean": lambda described: [True, False],
    "integer": _list_integers,
    "number": _list_numbers,
}
