"""The names and options of Keras' objects, read from a file, because importing Keras takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.nodes import format_value
from bmcli.recipe.problems import Problem

# An option whose name ends so takes a Keras object of that family, as a name or a mapping with a `kind`.
_FAMILY_OF_OPTION = {
    "_initializer": "initializers",
    "_regularizer": "regularizers",
    "_constraint": "constraints",
    "activation": "activations",
    "layer": "layers",
}

# Names of options that have no default value by which their type could be checked.
_COUNTS = {
    "units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "head_dim", "num_query_heads",
    "num_key_value_heads", "n", "height", "width", "num_classes",
}  # fmt: skip
_COUNTS_OF_AXES = {"kernel_size", "pool_size"}
_FLAGS = {"use_cudnn"}  # true or false, or text
_NUMBERS = {"rate", "stddev", "clipnorm", "clipvalue", "global_clipnorm", "recall", "precision"}


@cache
def _read_families() -> dict[str, dict[str, Any]]:
    families: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("keras_catalogue.json").read_text(encoding="utf-8")
    )
    return families


def list_kinds(family: str) -> list[str]:
    """Kinds of a family: `activations`, `initializers`, `layers`, `losses`, `metrics`, `optimizers` ..."""
    return list(_read_families()[family])


@cache
def _map_class_names(family: str) -> dict[str, str]:
    return {entry["object"]: kind for kind, entry in _read_families()[family].items()}


def find_kind(family: str, name: Any) -> Any:
    """Find the kind of Keras' own name of a class, such as `conv2d` of Conv2D; other values stay as they are."""
    return _map_class_names(family).get(name, name) if isinstance(name, str) else name


def replace_class_names(family: str, value: Any) -> Any:
    """Replace Keras' names of classes by kinds, in an object of a recipe and in those inside it."""
    if not isinstance(value, Mapping):
        return find_kind(family, value)
    replaced = {}
    for name, item in value.items():
        inner = family if name == "kind" else get_option_family(str(name))
        replaced[name] = item if inner is None else replace_class_names(inner, item)
    return replaced


def get_entry(family: str, kind: str) -> dict[str, Any]:
    """The entry of one kind: its Keras `object`, its `options` with defaults, and the names of `required` ones."""
    entry: dict[str, Any] = _read_families()[family][kind]
    return entry


def get_noun(family: str) -> str:
    """An object of a family in messages."""
    return "loss" if family == "losses" else family.removesuffix("s")


def get_option_family(option: str) -> str | None:
    """The family of objects that an option takes, such as `initializers` for `kernel_initializer`."""
    return next((family for ending, family in _FAMILY_OF_OPTION.items() if option.endswith(ending)), None)


def find_option_problems(
    family: str, kind: str, options: Mapping[str, Any], also: tuple[str, ...] = ()
) -> list[Problem]:
    """Find every unknown, missing or wrongly typed option of a Keras object.

    Args:
        also: Further names to suggest, of options that are not Keras' own.
    """
    entry = get_entry(family, kind)
    missing = [name for name in entry["required"] if name not in options]
    problems: list[Problem] = []
    if missing:
        example = ", ".join(f"{name}: ..." for name in missing)
        needed = " and ".join(map(quoted, missing))
        problems.append(Problem((), f"{kind} needs {needed}.", f"Write {{kind: {kind}, {example}}}."))
    for name, value in options.items():
        if name not in entry["options"]:
            hint = parts.did_you_mean(str(name), [*entry["options"], *also])
            problems.append(Problem((name,), f"{kind} has no option {quoted(name)}.", hint))
        else:
            problems += _find_value_problems(name, value, entry["options"][name], name in entry["required"])
    return problems


def _find_value_problems(name: str, value: Any, default: Any, required: bool) -> list[Problem]:
    inner = get_option_family(name)
    if value is None:
        missing = [Problem((name,), f"{quoted(name)} needs a value.")]
        return missing if required or default is not None else []
    if inner is not None:
        return [problem.below(name) for problem in find_object_problems(inner, value)]
    expected = _describe_expected(name, value, default)
    if expected is None:
        return []
    hint = "" if default is None else f"Keras' default is {format_value(default)}."
    return [Problem((name,), f"expected {expected}, received {format_value(value)}.", hint)]


def find_object_problems(family: str, value: Any) -> list[Problem]:
    """Find the problems of a value that must be an object of a family: a name, or a mapping with a `kind`."""
    kind: str
    options: Mapping[str, Any]
    if isinstance(value, str):
        kind, options = value, {}
    elif isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        kind, options = value["kind"], {key: item for key, item in value.items() if key != "kind"}
    else:
        return [Problem((), f"expected one of Keras' {family} by name, or a mapping with a 'kind'.")]
    if kind not in list_kinds(family):
        where: tuple[str, ...] = () if isinstance(value, str) else ("kind",)
        hint = parts.did_you_mean(kind, list_kinds(family))
        return [Problem(where, f"no {get_noun(family)} {quoted(kind)}.", hint)]
    return find_option_problems(family, kind, options)


def _describe_expected(name: str, value: Any, default: Any) -> str | None:
    """The type that the default, or else the name, suggests; None if the value has it."""
    if isinstance(value, Mapping):
        return "a plain value"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    several = isinstance(value, (list, tuple))
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, (int, float)):
        # Keras takes a list where each axis may have its own size.
        return None if number or (isinstance(default, int) and several) else "a number"
    if isinstance(default, str):
        if name in _FLAGS:
            return None if isinstance(value, bool) or value == default else f"true, false or {default}"
        return None if isinstance(value, str) else "text"
    if isinstance(default, list):
        return None if number or several or isinstance(value, str) else "a number or a list of numbers"
    if name in _COUNTS or name in _COUNTS_OF_AXES:
        return _describe_expected_count(value, name in _COUNTS_OF_AXES)
    return "a number" if name in _NUMBERS and not number else None


def _describe_expected_count(value: Any, for_axes: bool) -> str | None:
    values = value if for_axes and isinstance(value, (list, tuple)) else [value]
    fits = all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in values)
    return None if fits else "a whole number of at least 1" + (", or a list of them" if for_axes else "")
