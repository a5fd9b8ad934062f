"""Load a recipe: its file, the recipes it extends, overrides and variables; every value keeps its place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bmcli import disk, parts, redaction
from bmcli.advice import make_command
from bmcli.errors import BmcliError, Fault, FileLocation
from bmcli.quoting import quoted
from bmcli.recipe import addresses, nodes, search
from bmcli.recipe.addresses import is_address
from bmcli.recipe.check import check_recipe, find_place
from bmcli.recipe.nodes import KeyPath, Node, format_value
from bmcli.recipe.paths import join_steps, parse_steps, split_path
from bmcli.recipe.schema import Recipe
from bmcli.recipe.source_run import fill_from_run

COMMAND_LINE = "command line"
SEARCH = "search"
"""Origin of the values of a candidate, instead of a file name."""
_SECTIONS = (*Recipe.model_fields, "extends")
PATH_OPTIONS: tuple[KeyPath, ...] = (
    ("data", "source", "path"), ("data", "source", "table"), ("model", "weights"),
    ("distill", "transfer", "unlabelled", "path"), ("distill", "student", "data", "source", "path"),
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where a user wrote what bmcli derived a value of a recipe from, so that faults are shown there.

    Args:
        derived: Path of the derived value.
        written: Path of the user's value, which has the same form below it.
        tree: The tree that holds the user's value.
    """

    derived: KeyPath
    written: KeyPath
    tree: Node

    def trace(self, fault: Fault) -> Fault:
        """Make the fault of a derived value that of the user's value."""
        written = (*self.written, *split_path(fault.path)[len(self.derived) :])
        place = find_place(self.tree, written)
        # A place in the user's own file is that of the fault; any other is that of the derived value.
        is_users = fault.place is not None and fault.place.file == place.file
        return replace(fault, path=join_steps(written), place=fault.place if is_users else place)


@dataclass(frozen=True)
class RecipeDocument:
    """A recipe that is merged with those it extends and with overrides; its variables are not filled in yet.

    Args:
        name: Name of the file in messages.
        text: Text of the file, without secrets.
        faults: Faults so far, which do not prevent checking the rest.
        origins: Of derived values.
    """

    tree: Node
    file: Path
    name: str
    text: str
    faults: tuple[Fault, ...] = ()
    origins: tuple[Origin, ...] = ()

    def without_tune(self) -> RecipeDocument:
        """The same recipe without its `tune` section."""
        return self.without_sections(("tune",))

    def without_sections(self, sections: Collection[str]) -> RecipeDocument:
        """The same recipe without some sections."""
        tree = replace(self.tree, value={key: node for key, node in self.tree.value.items() if key not in sections})
        return replace(self, tree=tree)

    def overlay(self, above: Node) -> RecipeDocument:
        """Merge a tree over the recipe."""
        faults = list(self.faults)
        return replace(self, tree=_hide_secrets(merge_nodes(self.tree, above, faults)), faults=tuple(faults))

    def fill_variables(self, faults: list[Fault]) -> Node:
        """Fill in variables, and make paths absolute.

        Args:
            faults: List to which faults of variables are added.
        """
        return _make_paths_absolute(_substitute_variables(self.tree, faults))

    def validate(self) -> LoadedRecipe:
        """Validate the recipe and fill in every default.

        Raises:
            BmcliError: Every fault at once: those of the recipe first, then those of the recipes it extends, then those
                of the overrides.
        """
        faults = list(self.faults)
        try:
            tree = fill_from_run(self.fill_variables(faults), lambda lock: load_recipe(lock).recipe)
            recipe = check_recipe(tree)
        except BmcliError as error:
            raise BmcliError(*sort_faults(map(self.trace, [*faults, *error.faults]), self.name)) from None
        if faults:
            raise BmcliError(*sort_faults(map(self.trace, faults), self.name))
        return LoadedRecipe(recipe, tree, self.file, self)

    def trace(self, fault: Fault) -> Fault:
        """Make a fault of a derived value that of the value that the user wrote."""
        steps = split_path(fault.path) if fault.path else ()
        around = [origin for origin in self.origins if origin.derived == steps[: len(origin.derived)]]
        return max(around, key=lambda origin: len(origin.derived)).trace(fault) if around else fault


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe with the tree that has the place of each value."""

    recipe: Recipe
    tree: Node
    file: Path
    document: RecipeDocument

    def with_origin(self, derived: str, written: str) -> LoadedRecipe:
        """Make the same recipe, whose faults at a path that bmcli gives a value are those of the user's value.

        Args:
            derived: Path that bmcli gives a value.
            written: Path of the user's value that it is derived from.
        """
        origin = Origin(split_path(derived), split_path(written), self.tree)
        return replace(self, document=replace(self.document, origins=(*self.document.origins, origin)))

    def locate(self, error: BmcliError) -> BmcliError:
        """Fill in the places of an error's recipe paths; faults of derived values become those of the user's values."""
        error.faults = tuple(self._locate_fault(self.document.trace(fault)) for fault in error.faults)
        return error

    def _locate_fault(self, fault: Fault) -> Fault:
        steps = split_path(fault.path) if fault.path else ()
        # A value of a section that the recipe does not have is written nowhere: line 1 would be a wrong place.
        return fault.at(find_place(self.tree, steps)) if self.tree.find(steps[:1]) and steps else fault

    def with_values(self, values: Mapping[str, Any]) -> LoadedRecipe:
        """Make the recipe of a candidate: override these values, and leave out the `tune` section.

        Args:
            values: Plain YAML values by dotted path.

        Raises:
            BmcliError: The values are not valid; each fault lists them all.
        """
        arguments = search.format_overrides(values)
        faults: list[Fault] = []
        written = {path: ("tune", "space", path) for path in values}
        origins = tuple(
            Origin(split_path(path), steps, self.tree) for path, steps in written.items() if self.tree.find(steps)
        )
        try:
            above = parse_overrides(arguments, faults, SEARCH)
            if faults:
                raise BmcliError(*faults)
            document = self.document.without_tune().overlay(above)
            return replace(document, origins=(*document.origins, *origins)).validate()
        except BmcliError as error:
            candidate = f"The candidate: {' '.join(arguments)}."
            raise BmcliError(
                *(
                    replace(fault.without_place_in(SEARCH), message=f"{fault.message} {candidate}")
                    for fault in error.faults
                )
            ) from None

    def make_base_tree(self) -> Node:
        """Make the tree that candidates override: as it is written, without `tune`, with absolute paths."""
        tree = self.document.without_tune().tree
        return self._make_paths_absolute(tree, lambda node: True)

    def make_complete_tree(self) -> Node:
        """Make the tree of the recipe as it is written, with absolute paths."""
        return self._make_paths_absolute(self.document.tree, lambda node: True)

    def make_portable_tree(self) -> Node:
        """Make the tree of the recipe as it is written, with absolute paths except in recipes that it extends."""
        own_files = (self.document.name, COMMAND_LINE)
        return self._make_paths_absolute(self.document.tree, lambda node: node.place.file in own_files)

    def _make_paths_absolute(self, tree: Node, is_changed: Callable[[Node], bool]) -> Node:
        for steps in (*_iterate_paths(), *_iterate_name_paths(tree)):
            node = self.tree.find(steps)
            if node is not None and tree.find(steps) is not None and is_changed(node):
                tree = _replace_node(tree, steps, node.escape_dollars())
        return tree


def load_recipe(target: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load a recipe by file name or built-in name, with `key=value` overrides.

    Raises:
        BmcliError: Every fault at once: those of the recipe first, then those of the recipes it extends, then those of
            the overrides.
    """
    return read_document(target, overrides).validate()


def read_document(target: str, overrides: Sequence[str] = ()) -> RecipeDocument:
    """Read a recipe with `key=value` overrides, without checking its values.

    Raises:
        BmcliError: A file cannot be read, or an override does not fit.
    """
    parts.reset_suggestions()
    file, name = find_recipe(target)
    faults: list[Fault] = []
    try:
        over = parse_overrides(overrides, faults)
        below, text = _merge_bases(file, name, faults)
        tree = _hide_secrets(merge_nodes(below, over, faults))
    except BmcliError as error:
        raise BmcliError(*sort_faults([*faults, *error.faults], name)) from None
    file = Path(os.path.realpath(file))  # `latest` may soon point elsewhere
    return RecipeDocument(tree, file, name, nodes.hide_secrets(text), tuple(faults))


def sort_faults(faults: Iterable[Fault], recipe: str) -> list[Fault]:
    """Sort faults and drop repeated ones: first the recipe, then the recipes it extends, then overrides.

    Args:
        recipe: Name of the recipe's file in places.
    """

    def position(fault: Fault) -> tuple[Any, ...]:
        if fault.place is None:
            return (0,)
        file = fault.place.file
        rank = 1 if file == recipe else 3 if file == COMMAND_LINE else 2
        return rank, file, fault.place.line, fault.place.column

    return sorted(dict.fromkeys(faults), key=position)


def list_built_in() -> dict[str, Path]:
    """List the recipes that come with bmcli, by name, sorted by folder (`images`, `tables` ...)."""
    package = Path(__file__).parent.parent
    folder = next((f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), None)
    files = [] if folder is None else folder.glob("*/*.yaml")
    return {file.stem: file for file in sorted(files, key=lambda file: (file.parent.name, file.stem))}


def find_recipe(target: str) -> tuple[Path, str]:
    """Find a recipe by file name or built-in name; returns the file and its name in messages."""
    path = os.path.expanduser(target)
    # `Path.is_file` raises for names that the system refuses, such as very long ones; `os.path.isfile` is False.
    if os.path.isfile(path):
        return Path(path), target
    recipes = list_built_in()
    if target in recipes:
        return recipes[target], f"{target}.yaml"
    if other := disk.describe_non_file(path):
        raise BmcliError(f"{target} is {other}, expected a recipe file.")
    near = parts.did_you_mean(target, [*recipes, *_list_recipe_files(Path())])
    raise BmcliError(
        f"no recipe {quoted(target, 200)}: no such file, and no built-in recipe of that name.",
        suggestion=near if near.startswith("Did") else f"{make_command('ls')} lists the built-in recipes.",
    )


def _list_recipe_files(folder: Path) -> list[str]:
    try:
        return sorted(file.name for file in folder.glob("*.yaml"))
    except OSError:  # the list is for suggestions only
        return []


def _merge_bases(file: Path, name: str, faults: list[Fault]) -> tuple[Node, str]:
    """Merge the tree of a file over the chain of recipes that it extends; returns the tree and the file's own text.

    Raises:
        BmcliError: A file of the chain cannot be read; the recipes that extend it cannot be checked without it.
    """
    chain: list[Node] = []
    seen: set[str] = set()
    own_text, characters, values = "", 0, 0
    base_file: tuple[Path, str] | None = (file, name)
    while base_file is not None:
        file, name = base_file
        seen.add(os.path.realpath(file))
        text = nodes.read_text(file, name, _SECTIONS)
        # A foreign recipe may extend any file of the machine: faults quote the file only if it is a recipe.
        tree = nodes.parse_recipe_file(text, name, file.parent, _SECTIONS, bool(chain), faults)
        own_text = own_text if chain else text
        characters, values = characters + len(text), values + tree.count()
        if characters > nodes.MAX_BYTES or values > 2 * nodes.MAX_NODES:
            message = "too large together with the recipes that extend it."
            raise BmcliError(Fault(message, place=FileLocation(name, 1, 1)))
        base = tree.value.pop("extends", None)
        base_file = _find_base(base, file, name, seen)
        chain.append(tree)
    merged = chain.pop()
    while chain:
        merged = merge_nodes(merged, chain.pop(), faults)
    return merged, own_text


def find_base_file(extends: str, folder: Path) -> Path | None:
    """Find the file that `extends` names in a recipe of this folder; None for a built-in recipe."""
    beside = folder / extends
    return beside if os.path.isfile(beside) else None


def _find_base(base: Node | None, file: Path, name: str, seen: Collection[str]) -> tuple[Path, str] | None:
    """Find the recipe that `extends` names: a file relative to the one that names it, or a built-in one."""
    if base is None or base.value is None:
        return None
    if not isinstance(base.value, str) or not base.value:
        message = f"expected the file or name of one recipe, received {format_value(base.plain())}."
        raise BmcliError(Fault(message, "extends", base.place))
    beside = find_base_file(base.value, file.parent)
    result: tuple[Path, str] | None = None
    if beside is not None:
        result = beside, str(Path(name).parent / base.value)
    elif base.value in list_built_in():
        result = list_built_in()[base.value], f"{base.value}.yaml"
    if result is None and (other := disk.describe_non_file(file.parent / base.value)):
        raise BmcliError(Fault(f"{quoted(base.value, 200)} is {other}, expected a recipe.", "extends", base.place))
    if result is None:
        hint = parts.did_you_mean(base.value, [*list_built_in(), *_list_recipe_files(file.parent)])
        raise BmcliError(Fault(f"no recipe {quoted(base.value, 200)} to extend.", "extends", base.place, hint))
    if os.path.realpath(result[0]) in seen:
        raise BmcliError(Fault(f"{quoted(base.value, 200)} extends itself in a circle.", "extends", base.place))
    return result


def merge_nodes(below: Node, above: Node, faults: list[Fault], steps: KeyPath = ()) -> Node:
    """Merge `above` over `below`: mappings merge, lists and scalars replace, null deletes.

    A mapping that changes `kind` replaces the one below, whose other options belong to the old kind; so does a model
    that comes `from` a run. A name is short for `{kind: NAME}`. A mapping with positions as keys changes items of a
    list.

    Args:
        faults: List to which the fault of a missing list item is added.
        steps: Path of both values.
    """
    if isinstance(above.value, str) and isinstance(below.value, dict) and "kind" in below.value:
        above = replace(above, value={"kind": above})
    if not isinstance(above.value, dict):
        return above
    if isinstance(below.value, list) and above.value and all(_is_position(key) for key in above.value):
        return _merge_items(below, above, faults, steps)
    replaces = _names_no_kind(below, steps) or _names_run(above, steps)
    values = {} if replaces else _keep_mapping(below, above)
    # A mapping without keys is still where the missing ones belong.
    kept = bool(values) or below.value == {}
    for key, node in above.value.items():
        if node.value is None and not node.faulty:
            values.pop(key, None)
        elif key in values:
            values[key] = merge_nodes(values[key], node, faults, (*steps, key))
        else:
            values[key] = merge_nodes(replace(node, value={}), node, faults, (*steps, key))
    return replace(below if kept else above, value=values, faulty=below.faulty or above.faulty)


def _keep_mapping(below: Node, above: Node) -> dict[str, Node]:
    """Choose the entries below that a mapping merged over them keeps."""
    kind = above.value.get("kind")
    if isinstance(below.value, str) and kind is None:
        return {"kind": below}
    if not isinstance(below.value, dict):
        return {}
    old = below.value.get("kind")
    changed = kind is not None and old is not None and _fold_kind(kind.value) != _fold_kind(old.value)
    return {} if changed else dict(below.value)


def _fold_kind(kind: Any) -> Any:
    """Convert a kind to a form that it shares with Keras' name of its class: `AdamW` and `adamw`."""
    return kind.replace("_", "").lower() if isinstance(kind, str) else kind


def _names_no_kind(below: Node, steps: KeyPath) -> bool:
    """Whether a text is a value, such as a path or `balanced`, and not short for `{kind: NAME}`."""
    of_objective = len(steps) in (2, 3) and steps[0] == "objective" and steps[-1] == "class_weights"
    return isinstance(below.value, str) and (steps in PATH_OPTIONS or of_objective)


def _names_run(above: Node, steps: KeyPath) -> bool:
    """Whether a model names the run that its options come from, which belong to no other model."""
    source = above.value.get("from")
    return steps == ("model",) and source is not None and isinstance(source.value, str)


def _is_position(key: str) -> bool:
    return key.isdecimal() and len(key) < 9


def _merge_items(below: Node, above: Node, faults: list[Fault], steps: KeyPath) -> Node:
    items = dict(enumerate(below.value))
    for key, node in above.value.items():
        position = int(key)
        if position not in items:
            message = f"there is no item {position}; the list has {len(below.value)}, counted from 0."
            faults.append(Fault(message, place=node.key_place or node.place))
        elif node.value is None and not node.faulty:
            del items[position]
        else:
            items[position] = merge_nodes(items[position], node, faults, (*steps, position))
    return replace(below, value=list(items.values()))


def parse_overrides(overrides: Iterable[str], faults: list[Fault], origin: str = COMMAND_LINE) -> Node:
    """Parse `key=value` arguments into one tree that is merged over a recipe.

    Args:
        faults: List to which faults of arguments are added: they cannot be parsed, or contradict each other.
        origin: File name of their places.
    """
    tree: dict[str, Any] = {}
    for number, argument in enumerate(overrides, start=1):
        place = FileLocation(origin, number, 1, redaction.redact_argument(" ".join(argument.splitlines())))
        try:
            steps, value = _parse_override(argument, place, faults)
            _insert_value(tree, steps, value)
        except BmcliError as error:
            faults += [fault.at(place) for fault in error.faults]
    return _build_nodes(tree, FileLocation(origin, 1, 1))


def build_tree(values: Mapping[KeyPath, Node], place: FileLocation) -> Node:
    """Build one tree, to be merged over a recipe, of values by path; no path may be inside another.

    Args:
        place: Place of an empty tree.
    """
    tree: dict[str, Any] = {}
    for steps, node in values.items():
        _insert_value(tree, [str(step) for step in steps], node)
    return _build_nodes(tree, place)


def _parse_override(argument: str, place: FileLocation, faults: list[Fault]) -> tuple[list[str], Node]:
    steps, rest = parse_steps(argument)
    if not steps or not rest.startswith("="):
        raise BmcliError(
            f"expected an override key=value, received {format_value(argument)}.",
            suggestion='Write a key with dots in double quotes: data.inputs."a.b".kind=number.',
        )
    if len(steps) > nodes.MAX_DEPTH:
        raise BmcliError(f"nested more than {nodes.MAX_DEPTH} deep.")
    if steps == ("extends",):
        raise BmcliError("extends cannot be overridden.", path="extends", suggestion="Write it in the recipe.")
    column = len(argument) - len(rest) + 2
    value = _parse_override_value(rest[1:], place, column, faults)
    return [str(step) for step in steps], replace(value, key_place=place)


def _parse_override_value(text: str, place: FileLocation, column: int, faults: list[Fault]) -> Node:
    here = replace(place, column=column)
    if text.startswith((">", "|")) and "\n" not in text:
        # YAML's mark of a block of text, which one line cannot hold: here it is text, such as the gate `>= 0.9`.
        return Node(text, here, folder=Path.cwd())
    own_faults: list[Fault] = []
    try:
        value = nodes.parse_tree(text, COMMAND_LINE, Path.cwd(), own_faults) if text.strip() else Node(None, here)
    except BmcliError as error:
        moved = (replace(fault, place=_shift_place(fault.place, here)) for fault in error.faults)
        raise BmcliError(*moved) from None
    faults += [replace(fault, place=_shift_place(fault.place, here)) for fault in own_faults]
    return _shift_places(value, here)


def _shift_place(place: FileLocation | None, value: FileLocation) -> FileLocation:
    """Convert a place in the value of an override to the place in the whole argument."""
    inside = place is not None and place.line == 1
    return replace(value, column=value.column + place.column - 1) if inside and place else value


def _shift_places(node: Node, value: FileLocation) -> Node:
    """Convert all places in the value of an override to places in the whole argument."""
    children = node.value
    if isinstance(children, dict):
        children = {key: _shift_places(child, value) for key, child in children.items()}
    elif isinstance(children, list):
        children = [_shift_places(child, value) for child in children]
    key_place = node.key_place and _shift_place(node.key_place, value)
    return replace(node, value=children, place=_shift_place(node.place, value), key_place=key_place)


def _insert_value(tree: dict[str, Any], steps: Sequence[str], value: Node) -> None:
    """Insert a value into nested dictionaries; a name becomes a mapping with that `kind` if needed."""
    path = join_steps(tuple(steps))
    for step in steps[:-1]:
        inside = tree.setdefault(step, {})
        if isinstance(inside, Node) and isinstance(inside.value, str):
            inside = tree[step] = {"kind": inside}
        if isinstance(inside, Node):
            raise BmcliError("another override sets a value that contains this one.", path=path)
        tree = inside
    existing = tree.get(steps[-1])
    if isinstance(existing, dict) and isinstance(value.value, str) and "kind" not in existing:
        existing["kind"] = value
    elif existing is not None:
        message = "this is set twice." if isinstance(existing, Node) else "another override sets a part of this value."
        raise BmcliError(message, path=path)
    else:
        tree[steps[-1]] = value


def _build_nodes(values: Mapping[str, Any], place: FileLocation) -> Node:
    inside = {key: item if isinstance(item, Node) else _build_nodes(item, place) for key, item in values.items()}
    first = next((node.key_place for node in inside.values() if node.key_place), place)
    return Node(inside, first, first, Path.cwd())


_VARIABLE = re.compile(r"\$\$|\$\{([^{}]*)\}|\$\{")


def _hide_secrets(tree: Node) -> Node:
    """Replace the value of each variable whose name marks a secret by `***`.

    Recipes are written to files of runs and caches, so secrets are dropped while loading; using one is a fault.
    """
    declared = tree.value.get("vars")
    if declared is None or not isinstance(declared.value, dict):
        return tree
    variables = {
        name: replace(node, value=redaction.HIDDEN) if redaction.is_secret(name) else node
        for name, node in declared.value.items()
    }
    return replace(tree, value={**tree.value, "vars": replace(declared, value=variables)})


def _substitute_variables(tree: Node, faults: list[Fault]) -> Node:
    """Replace `${name}` by the value of a variable, and `$$` by a dollar sign.

    A variable may use those above it. A value that uses an invalid variable is marked faulty.
    """
    filling = _VariableFiller({}, faults)
    declared = tree.value.get("vars")
    if declared is None or not isinstance(declared.value, dict):
        return tree.map_scalars(filling.fill_variables)
    for name, node in declared.value.items():
        filling.variables[name] = node.map_scalars(filling.fill_variables)
    rest = replace(tree, value={key: node for key, node in tree.value.items() if key != "vars"})
    filled = rest.map_scalars(filling.fill_variables)
    return replace(tree, value={**filled.value, "vars": replace(declared, value=filling.variables)})


@dataclass
class _VariableFiller:
    """Fill variables into scalars.

    Args:
        variables: Variables that may be used so far.
        faults: List to which faults are added.
        remaining: Characters that may be added to the whole recipe: a few nested variables could fill the memory.
    """

    variables: dict[str, Node]
    faults: list[Fault]
    remaining: int = nodes.MAX_TEXT

    def fill_variables(self, node: Node) -> Node:
        """Fill in the variables of a scalar; a text that consists of one variable also gets its type."""
        if not isinstance(node.value, str):
            return node
        if "$" not in node.value:
            return self._check_node(node, len(node.value))
        names = [match[1] for match in _VARIABLE.finditer(node.value) if match[0] != "$$"]
        # A list, not a generator: every unusable variable is a fault.
        if not all([self._is_usable(name, node.place) for name in dict.fromkeys(names)]):
            return replace(node, faulty=True)
        if names and node.value.startswith("${"):
            # A path that starts with a variable is relative to where the variable was set.
            node = replace(node, folder=self.variables[names[0]].folder)
        if names and node.value == f"${{{names[0]}}}":
            value = self.variables[names[0]].value
            length = len(value) if isinstance(value, str) else 0
            return self._check_node(replace(node, value=value), length)
        return self._insert_texts(node, names)

    def _is_usable(self, name: str | None, place: FileLocation) -> bool:
        variable = None if name is None else self.variables.get(name)
        if name is None or variable is None:
            self.faults.append(_make_unknown_variable_fault(name, place, self.variables))
            return False
        if redaction.is_secret(name):
            self.faults.append(
                Fault(
                    f"variable {quoted(name)} is a secret by its name, so no value can use it: recipes are written to "
                    "files.",
                    place=place,
                    suggestion="Rename it if it is no secret. Set secrets in the environment, such as AWS_PROFILE for "
                    "s3://.",
                )
            )
            return False
        return not (variable.faulty or isinstance(variable.value, (dict, list)))

    def _insert_texts(self, node: Node, names: Sequence[str]) -> Node:
        texts = {name: _format_variable(self.variables[name].value) for name in dict.fromkeys(names)}
        # Checked before the text is made, which might not fit into memory.
        length = len(node.value) + sum(len(texts[name]) for name in names)
        if not self._fits(node, length):
            return replace(node, faulty=True)
        pieces = iter(["$" if match[0] == "$$" else texts[match[1]] for match in _VARIABLE.finditer(node.value)])
        return self._check_node(replace(node, value=_VARIABLE.sub(lambda _: next(pieces), node.value)), length)

    def _check_node(self, node: Node, length: int) -> Node:
        """Check a filled node: it is marked faulty if the recipe gets too long, or its address contains a secret.

        Args:
            length: Number of characters of its text.
        """
        if not self._fits(node, length):
            return replace(node, faulty=True)
        self.remaining -= length
        if isinstance(node.value, str) and "://" in node.value and redaction.redact_text(node.value) != node.value:
            message = "an address must not contain a user, password, key or signature: recipes are written to files."
            self.faults.append(Fault(message, place=node.place, suggestion=addresses.CREDENTIALS_HINT))
            return replace(node, faulty=True)
        return node

    def _fits(self, node: Node, length: int) -> bool:
        """Whether the recipe may get this many more characters; the first excess is reported as a fault."""
        fits = length <= self.remaining
        if not fits and self.remaining >= 0:
            self.faults.append(Fault("too long once its variables are filled in.", place=node.place))
            self.remaining = -1
        return fits


def _format_variable(value: Any) -> str:
    return value if isinstance(value, str) else nodes.write_scalar(value)


def _make_unknown_variable_fault(name: str | None, place: FileLocation, variables: Collection[str]) -> Fault:
    if name is None:
        return Fault("${ without a closing brace.", place=place, suggestion="Close it, or write $${ for this text.")
    hint = parts.did_you_mean(name, variables) or "Set it in vars, above the variables that use it."
    return Fault(f"no variable {quoted(name)} in vars.", place=place, suggestion=hint)


def _make_paths_absolute(tree: Node) -> Node:
    """Join relative paths to the folder of the file that contains them; addresses stay as they are."""
    for steps in _iterate_paths():
        node = tree.find(steps)
        if node is not None:
            tree = _replace_node(tree, steps, node.map_scalars(_make_absolute))
    for steps in _iterate_name_paths(tree):
        node = tree.find(steps)
        if node is not None:
            tree = _replace_node(tree, steps, node.map_scalars(_make_absolute_if_exists))
    return tree


def _iterate_paths() -> Iterator[KeyPath]:
    """Yield the options whose value is a path, and their entries in a search space."""
    for option in PATH_OPTIONS:
        yield option
        yield ("tune", "space", join_steps(option), "choice")


def _iterate_name_paths(tree: Node) -> Iterator[KeyPath]:
    """Yield the options whose value is a path, or the name of a run or a built-in recipe."""
    yield ("distill", "student", "recipe")
    yield ("distill", "student", "model", "from")
    yield ("model", "from")
    teacher = tree.find(("distill", "teacher"))
    count = len(teacher.value) if teacher is not None and isinstance(teacher.value, list) else None
    for position in [()] if count is None else [(number,) for number in range(count)]:
        for key in ("run", "recipe", "file"):
            yield ("distill", "teacher", *position, key)


def _make_absolute_if_exists(node: Node) -> Node:
    absolute = _make_absolute(node)
    return absolute if isinstance(absolute.value, str) and os.path.exists(absolute.value) else node


def _make_absolute(node: Node) -> Node:
    if not isinstance(node.value, str) or not node.value or node.folder is None or is_address(node.value):
        return node
    return replace(node, value=str((node.folder / os.path.expanduser(node.value)).absolute()))


def _replace_node(tree: Node, steps: KeyPath, node: Node) -> Node:
    """Replace the node at a path."""
    if not steps:
        return node
    child = _replace_node(tree.value[steps[0]], steps[1:], node)
    if isinstance(tree.value, list):
        return replace(tree, value=[child if place == steps[0] else each for place, each in enumerate(tree.value)])
    return replace(tree, value={**tree.value, steps[0]: child})
