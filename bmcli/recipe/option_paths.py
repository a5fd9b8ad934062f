"""Where the schema has an option that a recipe writes in another place: `epochs` is `train.epochs`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from functools import cache
from typing import Any, NamedTuple

from bmcli import parts
from bmcli.quoting import listed, quoted
from bmcli.recipe.fields import FIELD_TYPE_KEY, FieldType, KerasObject, Kind, Options, PartField, get_schema_kind
from bmcli.recipe.graph import LayersField
from bmcli.recipe.nodes import KeyPath, Node
from bmcli.recipe.objective import ObjectiveField
from bmcli.recipe.paths import join_steps
from bmcli.recipe.schema import Recipe

NAME = "NAME"
"""Step of a key that the user chooses, such as a column."""
_ITEM = "[]"
_WRITTEN_BY_BMCLI = ("bmcli", "plugins", "distillation")
_CLOSE = 0.8  # similarity of a typing mistake; `learning_rate` and `layer_rates` have 0.75
_MAX_PLACES = 3


class OptionPath(NamedTuple):
    """A place of an option in recipes.

    Args:
        steps: Path from the top of a recipe; NAME stands for keys of the user.
        kinds: The kinds that have the option, if it belongs to some kinds of a part.
    """

    steps: KeyPath
    kinds: tuple[str, ...]

    @property
    def list_steps(self) -> KeyPath:
        """The path of the list whose items have the option; empty if it belongs to no item."""
        return self.steps[: self.steps.index(_ITEM)] if _ITEM in self.steps else ()


@cache
def map_option_paths(opened: KeyPath | None = None) -> Mapping[str, tuple[OptionPath, ...]]:
    """Map the name of each option to all its places, except those in layers, which have hundreds.

    Args:
        opened: The only place whose kinds are imported, such as `("model",)`; None to import those of every place,
            which takes 0.3 s.
    """
    kinds_by_path: dict[KeyPath, list[str]] = {}
    for steps, kind in _walk(Recipe.model_json_schema(), {}, (), (), opened):
        kinds_by_path.setdefault(steps, []).extend([kind] if kind else [])
    paths: dict[str, list[OptionPath]] = {}
    for steps, kinds in kinds_by_path.items():
        paths.setdefault(str(steps[-1]), []).append(OptionPath(steps, tuple(dict.fromkeys(kinds))))
    return {name: tuple(places) for name, places in paths.items()}


def _walk(
    schema: Mapping[str, Any],
    scope: Mapping[str, Any],
    steps: KeyPath,
    above: Collection[FieldType],
    opened: KeyPath | None,
) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of every option below a schema, with the kind that has it; empty if it belongs to no kind.

    Args:
        scope: Definitions of the document that contains the schema.
        above: The field types that contain this one; some may contain themselves.
        opened: As in `map_option_paths`.
    """
    scope = schema.get("$defs", scope)
    field = schema.get(FIELD_TYPE_KEY)
    if isinstance(field, (PartField, ObjectiveField)) and opened is not None and not _is_at(steps, opened):
        return
    if field is not None and field not in above and not isinstance(field, LayersField):
        yield from _walk(_make_schema(field), {}, steps, (*above, field), opened)
    if "$ref" in schema:
        yield from _walk(scope[schema["$ref"].removeprefix("#/$defs/")], scope, steps, above, opened)
    for alternative in (*schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        yield from _walk(alternative, scope, steps, above, opened)
    for key, step in (("items", _ITEM), ("additionalProperties", NAME)):
        if isinstance(schema.get(key), dict):
            yield from _walk(schema[key], scope, (*steps, step), above, opened)
    properties = schema.get("properties", {})
    kind = get_schema_kind(schema) if "kind" in properties else ""
    for name, option in properties.items():
        if not steps and name in _WRITTEN_BY_BMCLI:
            continue
        yield (*steps, name), kind
        yield from _walk(option, scope, (*steps, name), above, opened)


def _is_at(place: KeyPath, steps: KeyPath) -> bool:
    """Whether a place of the schema is that of steps in a recipe."""
    return len(place) == len(steps) and all(map(_is_step, place, steps))


def _is_step(general: str | int, given: str | int) -> bool:
    return general in (given, NAME) or (general == _ITEM and isinstance(given, int))


@cache
def _make_schema(field: FieldType) -> dict[str, Any]:
    return field.json_schema()


def suggest_override(key: str, value: str) -> str | None:
    """Return the override, such as `train.epochs=3`, that an unknown option of the command line most likely means.

    None if the recipe language has no option of this name outside of lists and keys of the user.
    """
    places = [place for place in _open_for(key, ()).get(key, ()) if not _is_inside(place)]
    return f"{join_steps(min(places, key=_sort_by_length).steps)}={value}" if places else None


def _open_for(key: str, place: KeyPath) -> Mapping[str, tuple[OptionPath, ...]]:
    """Map options with the kinds of one place alone, if that finds the key outside of lists and keys of the user."""
    some = map_option_paths(place)
    is_found = any(not _is_inside(each) for each in some.get(key, ()))
    return some if is_found else map_option_paths()


def _is_inside(place: OptionPath) -> bool:
    """Whether a place is inside of a list, or below a key of the user."""
    return _ITEM in place.steps or NAME in place.steps


def _sort_by_length(place: OptionPath) -> tuple[bool, int]:
    return Recipe.model_fields[str(place.steps[0])].default is None, len(place.steps)


def suggest_place(steps: KeyPath, known: tuple[str, ...], tree: Node) -> str:
    """Suggest where an unknown key belongs; empty if another known key is closer, or there is no such option.

    Args:
        steps: Path of the unknown key in the recipe.
        known: The keys that are known in its place.
        tree: The recipe.
    """
    key = str(steps[-1])
    if any(SequenceMatcher(None, key, each).ratio() >= _CLOSE for each in known):
        return ""
    places = _open_for(key, steps[:-1])
    name = key if key in places else None if parts.nearest(key, known) else _find_similar(key)
    if name is None:
        return ""
    aligned = [_align(place, steps) for place in places[name]]
    best_rank = min(_rank(place, steps, tree) for place in aligned)
    best = [place for place in aligned if _rank(place, steps, tree) == best_rank]
    return _describe_places(best[:_MAX_PLACES], steps, tree)


def _find_similar(key: str) -> str | None:
    """Find the option whose name begins with a key, such as `batch_size` with `batch`, or is the most similar one."""
    places = map_option_paths()
    return next((name for name in places if name.startswith(f"{key}_")), None) or parts.nearest(key, places)


def _align(place: OptionPath, steps: KeyPath) -> OptionPath:
    """Fill in the keys and positions of a path that begins like the place."""
    filled: list[str | int] = []
    for general, given in zip(place.steps, steps, strict=False):
        if not _is_step(general, given):
            break
        filled.append(given)
    return place._replace(steps=(*filled, *place.steps[len(filled) :]))


def _rank(place: OptionPath, steps: KeyPath, tree: Node) -> tuple[int, ...]:
    """The rank of a place: the same place in another kind is first, then places of the recipe's own kinds and sections.

    Of these, places without keys of the user come first, then those near the wrong one, then short ones.
    """
    common = next(
        (depth for depth, pair in enumerate(zip(place.steps, steps, strict=False)) if pair[0] != pair[1]), len(steps)
    )
    inside = sum(step in (_ITEM, NAME) for step in place.steps)
    section = str(place.steps[0])
    is_absent = Recipe.model_fields[section].default is None and tree.find((section,)) is None
    elsewhere = place.steps != steps
    return elsewhere, not _fits(place, tree), inside > 0, is_absent, -common, inside, len(place.steps)


def _fits(place: OptionPath, tree: Node) -> bool:
    """Whether the recipe has a kind that has the option, or the option belongs to no kind."""
    return not place.kinds or _find_kind(place.steps[:-1], tree) in place.kinds


def _find_kind(steps: KeyPath, tree: Node) -> Any:
    """The kind of a part that a recipe names, or that of the default; None if there is neither."""
    node = tree.find(steps)
    if node is not None and isinstance(node.value, str):
        return node.value
    named = tree.find((*steps, "kind"))
    if named is not None:
        return named.value
    default: Any = Recipe.model_fields[str(steps[0])].default
    for step in steps[1:]:
        field = type(default).model_fields.get(str(step)) if isinstance(default, Options) else None
        default = None if field is None else field.default
    return default.kind if isinstance(default, (Kind, KerasObject)) else None


def _describe_places(places: list[OptionPath], steps: KeyPath, tree: Node) -> str:
    first = places[0]
    kinds = "" if _fits(first, tree) else f", of kind {listed(first.kinds, 6)}"
    if first.steps == steps:
        return f"It is an option{kinds.removeprefix(',')}."
    if first.list_steps:
        return f"Did you mean {quoted(first.steps[-1])} in an item of {quoted(join_steps(first.list_steps))}{kinds}?"
    written = [_write_place(place, steps, tree) for place in places]
    return f"Did you mean {' or '.join(written)}{kinds}?"


def _write_place(place: OptionPath, steps: KeyPath, tree: Node) -> str:
    """Format a place; as an override with its value, if the unknown key is one."""
    path, node = join_steps(place.steps), tree.find(steps)
    written = join_steps(steps)
    text = node.key_place.text if node is not None and node.key_place is not None else ""
    if text.startswith((f"{written}=", f"{written}.")):
        return quoted(f"{path}{text.removeprefix(written)}", 200)
    return quoted(path)
