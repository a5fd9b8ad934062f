"""Change values in the text of a recipe; its order, its style and its comments stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bmcli.recipe import nodes
from bmcli.recipe.load import LoadedRecipe, find_base_file, read_document
from bmcli.recipe.nodes import KeyPath, Node, write_scalar
from bmcli.recipe.schema import Recipe

_DELETED = object()
_SECTIONS = tuple(Recipe.model_fields)


def make_portable_text(loaded: LoadedRecipe) -> str | None:
    """Write the overrides of a recipe into its text, and make its paths absolute: it can be loaded from any folder.

    None if the text cannot be changed, as for `edit_recipe`.
    """
    text = loaded.document.text
    extends = _find_node(nodes.compose(text), ("extends",))
    base = None if extends is None else find_base_file(extends.value, loaded.file.parent)
    if base is not None:
        text = _edit(text, ("extends",), str(base.absolute()))
    return edit_recipe(text, read_document(str(loaded.file)).tree, loaded.make_portable_tree())


def edit_recipe(text: str, before: Node, after: Node) -> str | None:
    """Change the text of a recipe so that its tree is another one.

    A changed value is written as one line, unless it is the section of another kind. A value that is missing in the
    text, since it is a default or comes from the recipe that it extends, is added.

    The result must be checked: a change of a value with an anchor changes all values that are its aliases.

    Args:
        before, after: Trees with the values of recipes that are extended.

    Returns:
        None if a change leaves no valid YAML, such as an alias without its anchor.
    """
    try:
        for steps, value in _list_changes(before, after):
            text = _edit(text, steps, value)
        nodes.compose(text)
    except yaml.YAMLError:
        return None
    return text


def _list_changes(before: Node, after: Node, steps: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield paths of different values with the value afterwards, as plain YAML, or `_DELETED`."""
    old, new = before.value, after.value
    if isinstance(old, dict) and isinstance(new, dict) and _get_kind(before) == _get_kind(after):
        yield from (((*steps, key), _DELETED) for key in old if key not in new)
        for key, node in new.items():
            if key in old:
                yield from _list_changes(old[key], node, (*steps, key))
            else:
                yield (*steps, key), node.plain()
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _has_mapping(new):
        for position, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _list_changes(one, other, (*steps, position))
    elif write_scalar(before.plain()) != write_scalar(after.plain()):
        yield steps, after.plain()


def _get_kind(node: Node) -> Any:
    kind = node.child("kind")
    return None if kind is None else kind.value


def _has_mapping(items: list[Node]) -> bool:
    return any(isinstance(item.value, dict) for item in items)


def _edit(text: str, steps: KeyPath, value: Any) -> str:
    """Change one value in the text."""
    node, existing, parent = _find_nearest(nodes.compose(text), steps)
    if value is _DELETED and existing == steps:
        return _delete(text, parent, str(steps[-1]))
    if value is _DELETED:  # it is in a recipe below
        value = None
    missing = steps[len(existing) :]
    if not missing:
        return _replace(text, node, value, parent)
    for step in reversed(missing[1:]):
        value = {str(step): value}
    if isinstance(node, yaml.MappingNode):
        return _insert(text, node, str(missing[0]), value, is_top=not existing)
    is_kind = isinstance(node, yaml.ScalarNode) and node.value  # a name is short for `{kind: NAME}`
    return _replace(text, node, {**({"kind": node.value} if is_kind else {}), str(missing[0]): value}, parent)


def _find_node(root: Any, steps: KeyPath) -> Any:
    """Find PyYAML's node at a path; None if there is none."""
    node, existing, _ = _find_nearest(root, steps)
    return node if existing == steps else None


def _find_nearest(root: Any, steps: KeyPath) -> tuple[Any, KeyPath, Any]:
    """Find the deepest existing node on a path; returns it with its own path and its parent."""
    node, parent = root, None
    for count, step in enumerate(steps):
        child = None
        if isinstance(node, yaml.MappingNode):
            child = next((value for key, value in node.value if key.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            child = node.value[step]
        if child is None:
            return node, steps[:count], parent
        node, parent = child, node
    return node, steps, parent


def _replace(text: str, node: Any, value: Any, parent: Any) -> str:
    """Replace a value, with the comments inside it; a list in block style by one behind its key."""
    start, end = node.start_mark.index, _find_end(text, node)
    if not _is_block(node):
        space = "" if text[start - 1 : start].isspace() or start == 0 else " "
        before = space if start == end else ""  # nothing is written behind the key
        return f"{text[:start]}{before}{_write(value)}{text[end:]}"
    end = _find_line_end(text, end)
    if isinstance(value, Mapping) and value:
        separator = "\n" + " " * node.start_mark.column
        return f"{text[:start]}{separator.join(_list_entries(value))}{text[end:]}"
    if isinstance(parent, yaml.MappingNode):
        key = next(key for key, each in parent.value if each is node)
        start = text.index(":", key.end_mark.index) + 1
        return f"{text[:start]} {_write(value)}{text[end:]}"
    return f"{text[:start]}{_write(value)}{text[end:]}"


def _insert(text: str, mapping: Any, key: str, value: Any, is_top: bool) -> str:
    """Insert an entry into a mapping: behind its last entry, or at the top behind the sections that come before it."""
    entry = f"{write_scalar(key)}: {_write(value)}"
    if not mapping.value:
        place = mapping.start_mark.index + 1
        return f"{text[:place]}{entry}{text[place:]}"
    values = [each for _, each in mapping.value]
    if is_top and key in _SECTIONS:
        above = _SECTIONS[: _SECTIONS.index(key)]
        values = [each for name, each in mapping.value if name.value in above] or values
    end = _find_end(text, values[-1])
    if not _is_block(mapping):
        return f"{text[:end]}, {entry}{text[end:]}"
    line_end = _find_line_end(text, end)
    return f"{text[:line_end]}\n{' ' * mapping.start_mark.column}{entry}{text[line_end:]}"


def _delete(text: str, mapping: Any, key: str) -> str:
    """Delete an entry; from a recipe that extends another, by `null`, since the other may have it, too."""
    key_node, node = next((each, value) for each, value in mapping.value if each.value == key)
    if _find_node(nodes.compose(text), ("extends",)) is not None:
        return _replace(text, node, None, mapping)
    if _is_block(mapping) and len(mapping.value) > 1:
        start = text.rfind("\n", 0, key_node.start_mark.index) + 1
        return text[:start] + text[_find_line_end(text, _find_end(text, node)) + 1 :]
    position = mapping.value.index((key_node, node))
    if position:
        return text[: _find_end(text, mapping.value[position - 1][1])] + text[_find_end(text, node) :]
    end = mapping.value[1][0].start_mark.index if len(mapping.value) > 1 else _find_end(text, node)
    return text[: key_node.start_mark.index] + ("{}" if _is_block(mapping) else "") + text[end:]


def _list_entries(value: Mapping[str, Any]) -> list[str]:
    """List the entries of a mapping, each as a line in block style, its kind first."""
    keys = sorted(value, key=lambda key: key != "kind")
    return [f"{write_scalar(str(key))}: {_write(value[key])}" for key in keys]


def _write(value: Any) -> str:
    """Write a value on one line."""
    return "{" + ", ".join(_list_entries(value)) + "}" if isinstance(value, Mapping) else write_scalar(value)


def _is_block(node: Any) -> bool:
    """Whether a node is a collection in block style."""
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _find_end(text: str, node: Any) -> int:
    """Find the end of a value; PyYAML's end of a block collection is the start of what comes next."""
    if _is_block(node) and node.value:
        last = node.value[-1]
        return _find_end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    is_block_text = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return len(text[:end].rstrip("\n")) if is_block_text else end


def _find_line_end(text: str, place: int) -> int:
    """Find the end of a line, whose comment is before it."""
    end = text.find("\n", place)
    return len(text) if end < 0 else end
