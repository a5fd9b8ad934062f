"""Validate the tree of a recipe: the result is a checked recipe, or every fault with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from bmcli import parts
from bmcli.errors import BmcliError, Fault, FileLocation
from bmcli.quoting import quoted
from bmcli.recipe.nodes import KeyPath, Node, format_value
from bmcli.recipe.option_paths import suggest_place
from bmcli.recipe.paths import join_steps
from bmcli.recipe.schema import Recipe


def check_recipe(tree: Node) -> Recipe:
    """Validate a tree and fill in every default.

    Raises:
        BmcliError: All faults at once, in the order of the file; those of faulty nodes are left out.
    """
    parts.reset_suggestions()
    plain = tree.plain()
    if not isinstance(plain, dict):
        message = f"expected a recipe, a mapping of sections; received {format_value(plain)}."
        raise BmcliError(Fault(message, place=tree.place))
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise BmcliError(*_make_faults(error.errors(include_url=False), tree)) from None


def find_place(tree: Node, steps: KeyPath) -> FileLocation:
    """The place of a fault at these steps: the value, or the key of the mapping that lacks it."""
    node, existing = tree.nearest(steps)
    if existing == steps or node.key_place is None:
        return node.place
    return node.key_place


class _LocatedError(NamedTuple):
    """One of pydantic's errors.

    Args:
        steps: Path to it in the recipe.
        value: Path to the value for which pydantic tried alternatives, or `steps`.
    """

    steps: KeyPath
    value: KeyPath
    kind: str
    context: Mapping[str, Any]
    detail: Mapping[str, Any]

    @property
    def has_own_text(self) -> bool:
        """Whether its message comes from `fields.fault`, and not from pydantic."""
        return "suggestion" in self.context


def _make_faults(details: Sequence[Any], tree: Node) -> list[Fault]:
    """Convert errors into faults.

    Of a union, pydantic reports one error per alternative. Those of the alternatives that matched deepest become one
    fault, since the user meant one of these.
    """
    by_value: dict[KeyPath, list[_LocatedError]] = {}
    for error in (_locate_error(detail, tree) for detail in details if not _counts_valid_items(detail, tree)):
        by_value.setdefault(error.value, []).append(error)
    faults = [fault for errors in by_value.values() for fault in _merge_errors(errors, tree)]
    return sorted(dict.fromkeys(faults), key=_get_sort_key)


def _get_sort_key(fault: Fault) -> tuple[str, int, int]:
    assert fault.place is not None, "every fault of a tree has a place"
    return fault.place.file, fault.place.line, fault.place.column


# Errors of alternatives whose type is right; errors of the alternatives with other types are left out.
_VALUE_ERRORS = {
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "string_pattern_mismatch"),
    *("too_short", "too_long", "string_too_short"),
}


# pydantic puts the names of the alternatives of a union into places; none of them can be a key of a recipe.
_ALTERNATIVE = re.compile(r".*\[.*|constrained-.*|[A-Z].*|str|int|float|bool|none")


def _locate_error(detail: Mapping[str, Any], tree: Node) -> _LocatedError:
    steps: KeyPath = ()
    value: KeyPath | None = None
    for step in detail.get("ctx", {}).get("steps", detail["loc"]):
        # Keys of users, such as names of columns, can look like names of alternatives: what the recipe has is a key.
        exists = tree.find((*steps, step)) is not None
        if not exists and isinstance(step, str) and _ALTERNATIVE.fullmatch(step):
            value = steps if value is None else value
        else:
            steps = (*steps, step)
    return _LocatedError(steps, steps if value is None else value, detail["type"], detail.get("ctx", {}), detail)


def _counts_valid_items(detail: Mapping[str, Any], tree: Node) -> bool:
    """Whether a list is too short only because pydantic does not count its items with faults of their own."""
    node = tree.find(detail["loc"]) if detail["type"] == "too_short" else None
    return node is not None and isinstance(node.value, list) and len(node.value) >= detail["ctx"]["min_length"]


def _merge_errors(errors: list[_LocatedError], tree: Node) -> Iterable[Fault]:
    """The faults of one value."""
    deepest = max(len(error.steps) for error in errors)
    by_steps: dict[KeyPath, list[_LocatedError]] = {}
    for error in errors:
        if len(error.steps) == deepest:
            by_steps.setdefault(error.steps, []).append(error)
    for steps, same_place in by_steps.items():
        if tree.nearest(steps)[0].faulty:  # its fault is reported already
            continue
        same_place = [error for error in same_place if error.kind in _VALUE_ERRORS] or same_place
        with_own_text = [error for error in same_place if error.has_own_text]
        yield from (_to_fault(error, tree) for error in with_own_text)
        if not with_own_text:
            yield _to_expected_fault(steps, same_place, tree)


def _to_fault(error: _LocatedError, tree: Node) -> Fault:
    node = tree.find(error.steps)
    at_key = error.kind == "unknown_key" and node is not None
    place = node.key_place if at_key and node else find_place(tree, error.steps)
    suggestion = error.context["suggestion"]
    if "known" in error.context:
        suggestion = suggest_place(error.steps, error.context["known"], tree) or suggestion
    return Fault(error.context["text"], join_steps(error.steps), place, suggestion)


def _to_expected_fault(steps: KeyPath, errors: Sequence[_LocatedError], tree: Node) -> Fault:
    """Make one fault of the errors of a value: the expected and the received values."""
    first = errors[0]
    place = find_place(tree, steps)
    if first.kind == "missing" and isinstance(steps[-1], str):
        return Fault(f"{quoted(steps[-1])} is missing.", join_steps(steps), place)
    if first.kind == "missing":
        return Fault(f"item {steps[-1]} is missing, counted from 0.", join_steps(steps[:-1]), place)
    node = tree.find(steps)
    value = node.plain() if node else first.detail["input"]
    expected = _join_with_or(list(dict.fromkeys(_describe_expected(error) for error in errors)))
    return Fault(
        f"expected {expected}, received {format_value(value)}.", join_steps(steps), place, _suggest_word(value, errors)
    )


def _suggest_word(value: Any, errors: Sequence[_LocatedError]) -> str:
    """Suggest the allowed word that is most similar to a wrong one."""
    allowed = [word for error in errors if error.kind == "literal_error" for word in _list_allowed_words(error)]
    near = parts.nearest(value, allowed) if isinstance(value, str) else None
    return f"Did you mean {quoted(near, 300)}?" if near else ""


def _list_allowed_words(error: _LocatedError) -> list[str]:
    # pydantic gives the words only as the text `'a', 'b' or 'c'`.
    return re.findall(r"'([^']*)'", error.context["expected"])


_DESCRIPTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda c: "a whole number",
    "int_from_float": lambda c: "a whole number",
    "float_type": lambda c: "a number",
    "finite_number": lambda c: "a finite number",
    "bool_type": lambda c: "true or false",
    "string_type": lambda c: "text",
    "none_required": lambda c: "null",
    "tuple_type": lambda c: "a list",
    "mapping_type": lambda c: "a mapping",
    "dict_type": lambda c: "a mapping",
    "model_type": lambda c: "a mapping",
    "model_attributes_type": lambda c: "a mapping",
    "greater_than": lambda c: f"a number above {c['gt']:.15g}",
    "greater_than_equal": lambda c: f"a number of at least {c['ge']:.15g}",
    "less_than": lambda c: f"a number below {c['lt']:.15g}",
    "less_than_equal": lambda c: f"a number of at most {c['le']:.15g}",
    "string_pattern_mismatch": lambda c: f"text matching {c['pattern']}",
    "literal_error": lambda c: str(c["expected"]),
    "too_short": lambda c: f"at least {_format_count(c['min_length'])}",
    "too_long": lambda c: f"at most {_format_count(c['max_length'])}",
    "string_too_short": lambda c: "text that is not empty",
    "value_error": lambda c: str(c["error"]),
}


def _describe_expected(error: _LocatedError) -> str:
    describe = _DESCRIPTIONS.get(error.kind)
    message = str(error.detail["msg"])
    return describe(error.context) if describe else message[:1].lower() + message[1:]


def _join_with_or(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _format_count(number: int) -> str:
    return "one value" if number == 1 else f"{number} values"
