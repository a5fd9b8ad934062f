"""Check a search space: the recipe must accept the values that a search would try."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from typing import Any

from bmcli import parts
from bmcli.errors import BmcliError, Fault
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, RecipeDocument, build_tree, read_document, sort_faults
from bmcli.recipe.nodes import KeyPath, Node, format_value, write_scalar
from bmcli.recipe.paths import join_steps, split_path
from bmcli.recipe.schema import Recipe
from bmcli.recipe.search import SearchParameter, are_same, collect_conditions, format_overrides, read_space

_MAX_CONTEXTS = 16  # each is a validation of the whole recipe
_EntryValues = Mapping[str, Any]


def load_search(target: str, arguments: Sequence[str] = ()) -> LoadedRecipe:
    """Load a recipe with `key=value` overrides, and check its search space.

    Raises:
        BmcliError: Every fault of the recipe and of the space at once.
    """
    document = read_document(target, arguments)
    try:
        loaded = document.validate()
    except BmcliError as error:
        if any(split_path(fault.path)[0] != "tune" for fault in error.faults):
            raise
        raise BmcliError(*sort_faults([*error.faults, *_find_other_faults(document)], document.name)) from None
    check_space(loaded)
    return loaded


def _find_other_faults(document: RecipeDocument) -> Iterator[Fault]:
    """Find the faults of the entries of a space that can be parsed, if others cannot."""
    space = document.fill_variables([]).find(("tune", "space"))
    if space is not None and isinstance(space.value, dict):
        parameters, _ = read_space(space.plain())
        yield from _SpaceCheck(document.without_tune().validate(), parameters, space).find_faults()


def check_space(loaded: LoadedRecipe) -> None:
    """Check the search space before anything is trained.

    The recipe is validated with each choice, and with the ends and the middle of each range.

    Raises:
        BmcliError: One fault for each invalid entry, at its place.
    """
    if loaded.recipe.tune is None:
        return
    entries = loaded.tree.find(("tune", "space"))
    assert entries is not None, "a space has no default"
    faults = list(_SpaceCheck(loaded, loaded.recipe.tune.space, entries).find_faults())
    if faults:
        raise BmcliError(*sort_faults(faults, loaded.document.name))


def read_written_values(loaded: LoadedRecipe) -> dict[str, Any]:
    """Read the values that a recipe itself has at the paths of its search space; those of inactive entries are missing.

    Overriding the recipe with them changes nothing. They may lie outside of the space, such as `auto` for a range.
    """
    assert loaded.recipe.tune is not None, "the recipe has a search"
    space, complete = loaded.recipe.tune.space, dump(loaded.recipe)
    values: dict[str, Any] = {}
    for path in sorted(space, key=lambda each: len(collect_conditions(each, space))):  # parents first
        if not space[path].is_active(values):
            continue
        node = loaded.tree.find(split_path(path))
        written = _find_value(complete, split_path(path)) if node is None else node.plain()
        choices = _list_equal_choices(loaded, path, space[path], written)
        if choices or written is not None:
            # Through JSON, so that it equals what is read from the journal: lists instead of tuples.
            values[path] = json.loads(json.dumps(dump([*choices, written][0])))
    return values if _is_same_recipe(loaded, values) else {}


def is_candidate(values: Mapping[str, Any], space: Mapping[str, SearchParameter]) -> bool:
    """Whether a search can choose these values, no more and no less."""
    return all(
        path in values and parameter.allows(values[path]) if parameter.is_active(values) else path not in values
        for path, parameter in space.items()
    )


def _find_value(section: Any, steps: KeyPath) -> Any:
    """Find a value in plain mappings and lists; None if there is none."""
    for step in steps:
        if isinstance(section, Mapping):
            section = section.get(str(step))
        elif isinstance(section, (list, tuple)) and isinstance(step, int) and step < len(section):
            section = section[step]
        else:
            return None
    return section


def _list_equal_choices(loaded: LoadedRecipe, path: str, parameter: SearchParameter, written: Any) -> list[Any]:
    """List the choices that mean what is written, such as `{kind: adam}` for `adam`; those that equal it come first."""
    same = [choice for choice in parameter.values if are_same(written, choice)]
    return same or [choice for choice in parameter.values if _is_same_recipe(loaded, {path: choice})]


def _is_same_recipe(loaded: LoadedRecipe, values: Mapping[str, Any]) -> bool:
    """Whether overriding a recipe with values changes nothing."""
    try:
        return loaded.with_values(values).recipe == loaded.recipe.without_tune()
    except BmcliError:
        return False


@dataclass(frozen=True)
class _SpaceCheck:
    """A search space with the recipe that its values override.

    Args:
        entries: Node of the space, with the place of each entry.
    """

    loaded: LoadedRecipe
    parameters: Mapping[str, SearchParameter]
    entries: Node

    @cached_property
    def _document(self) -> RecipeDocument:
        return self.loaded.document.without_tune()

    def find_faults(self) -> Iterator[Fault]:
        """Yield one fault for each invalid entry."""
        for path in self.parameters:
            fault = self._find_fault(path)
            if fault is not None:
                yield fault

    def _find_fault(self, path: str) -> Fault | None:
        """Find the fault of an entry, if any: in one of its contexts, or with one of its values."""
        # All contexts are checked with the first value only, and all values in the first valid context only: their
        # product would take too long.
        first, *others = self.parameters[path].values_to_try()
        accepted, refused = [], []
        for context in self._list_contexts(path):
            try:
                accepted.append((context, self._build_recipe({**context, path: first})))
            except BmcliError as error:
                if self._accepts(context):  # an invalid context is the fault of other entries
                    refused.append((context, error))
        if refused:
            return self._make_refusal_fault(path, first, *refused[0], [context for context, _ in accepted])
        if not accepted:
            return None
        context, recipe = accepted[0]
        recipes = [recipe]
        for value in others:
            try:
                recipes.append(self._build_recipe({**context, path: value}))
            except BmcliError as error:
                return self._make_refusal_fault(path, value, context, error, [])
        return self._find_no_effect(path, recipes) or self._find_unfair_change(
            path, self._build_recipe(context), recipes
        )

    def _list_contexts(self, path: str) -> Iterable[dict[str, Any]]:
        """List values of other entries with which this one is searched: those of its `when`, and of searched kinds."""
        allowed = collect_conditions(path, self.parameters)
        for kind in self._list_searched_kinds(path):
            required = {**collect_conditions(kind, self.parameters), kind: self.parameters[kind].values}
            if kind not in allowed and all(allowed.get(other, values) == values for other, values in required.items()):
                allowed = {**allowed, **required}
        return (dict(zip(allowed, each, strict=True)) for each in islice(product(*allowed.values()), _MAX_CONTEXTS))

    def _list_searched_kinds(self, path: str) -> list[str]:
        """List the searched kinds that an entry is an option of: `model.kind` for `model.filters`."""
        steps = split_path(path)
        above = [join_steps((*steps[:count], "kind")) for count in range(1, len(steps))]
        return [kind for kind in above if kind in self.parameters and kind != path]

    def _build_recipe(self, values: _EntryValues) -> Recipe:
        """Validate the recipe with these values of entries."""
        if not values:
            return self.loaded.recipe.without_tune()
        above = build_tree(
            {split_path(path): self._make_node(path, value) for path, value in values.items()}, self.entries.place
        )
        return self._document.overlay(above).validate().recipe

    def _accepts(self, values: _EntryValues) -> bool:
        try:
            self._build_recipe(values)
        except BmcliError:
            return False
        return True

    def _make_node(self, path: str, value: Any) -> Node:
        """Make a node of a value at its place in the space, so that faults are reported there."""
        entry, parameter = self.entries.value[path], self.parameters[path]
        node, options = Node(value, entry.place), entry.value if isinstance(entry.value, dict) else {}
        if parameter.kind == "choice":
            choices = zip(parameter.values, options["choice"].value, strict=True)
            node = next((written for each, written in choices if are_same(each, value)), node)
        elif parameter.kind != "bool" and value in (parameter.low, parameter.high):
            ends = next(options[key].value for key in ("int", "float", "log") if key in options)
            node = replace(ends[value == parameter.high], value=value)  # the written 1 may stand for 1.0
        return replace(node.escape_dollars(), key_place=entry.key_place)

    def _make_refusal_fault(
        self, path: str, value: Any, context: _EntryValues, error: BmcliError, fitting: list[_EntryValues]
    ) -> Fault:
        """Make the fault of an entry from the error of the recipe with one of its values.

        Args:
            context: Values of the other entries in this recipe.
            fitting: Other contexts, in which the recipe accepts the value.
        """
        entry, steps = self.entries.value[path], split_path(path)
        own_faults = [fault for fault in error.faults if split_path(fault.path)[: len(steps)] == steps]
        fault = next((each for each in error.faults if each.place == entry.key_place), None)
        if fault is not None:
            return replace(fault, suggestion=self._suggest_kind(path, context, fault.suggestion, fitting))
        if own_faults and steps[0] == "objective" and self.loaded.recipe.objective is None:
            kinds = {objective.kind for objective in self.loaded.recipe.objectives().values()}
            hint = f"Write objective: {kinds.pop()}." if len(kinds) == 1 else "Name the objective of each target."
            return Fault("the recipe has no objective with this option.", path, entry.key_place, hint)
        if own_faults:
            return own_faults[0]
        fault, overrides = error.faults[0], " ".join(format_overrides({**context, path: value}))
        return Fault(f"with {overrides}: {fault.path}: {fault.message}", path, entry.key_place, fault.suggestion)

    def _suggest_kind(self, path: str, context: _EntryValues, suggestion: str, fitting: list[_EntryValues]) -> str:
        """Suggest what to do about an option that the active kind does not have."""
        kinds = self._list_searched_kinds(path)
        for kind in reversed(kinds):
            suiting = list(dict.fromkeys(write_scalar(each[kind]) for each in fitting if kind in each))
            if suiting:
                values = suiting[0] if len(suiting) == 1 else f"[{', '.join(suiting)}]"
                return f"{kind} is {write_scalar(context[kind])} here. Add when: {{{kind}: {values}}}."
        above = _find_kind_above(dump(self.loaded.recipe), path)
        if kinds or above is None or suggestion.startswith("Did"):
            return suggestion
        kind, active = above
        hint = f"{kind} is {active}: to search an option of another, also search {kind}, and add when: {{{kind}: ...}}."
        return f"{suggestion} {hint}".strip()

    def _find_no_effect(self, path: str, recipes: Sequence[Recipe]) -> Fault | None:
        """Find two values of an entry that give the same recipe."""
        entry = self.entries.value[path]
        values = self.parameters[path].values_to_try()
        bare = [recipe.model_copy(update={"vars": {}}) for recipe in recipes]
        for position, recipe in enumerate(bare):
            if recipe in bare[:position]:
                other = values[bare.index(recipe)]
                if split_path(path)[0] == "vars":
                    known = [f"vars.{name}" for name in self.loaded.recipe.vars]
                    hint = "" if path in known else parts.did_you_mean(path, known)
                    return Fault("no value of the recipe uses this variable.", path, entry.key_place, hint)
                message = f"{format_value(other)} and {format_value(values[position])} give the same recipe."
                hint = "Values override the recipe: a mapping changes only the options that it names."
                return Fault(message, path, entry.key_place, hint)
        return None

    def _find_unfair_change(self, path: str, before: Recipe, recipes: Sequence[Recipe]) -> Fault | None:
        """Find a value that changes how candidates are compared.

        Args:
            before: The recipe without a value of the entry.
        """
        for recipe in recipes:
            problem = self._explain_unfair_change(path, before, recipe)
            if problem is not None:
                return Fault(problem[0], path, self.entries.value[path].key_place, problem[1])
        return None

    def _explain_unfair_change(self, path: str, before: Recipe, after: Recipe) -> tuple[str, str] | None:
        """Return message and suggestion if an entry changes an option that must stay the same."""
        expected, tune = _list_evaluation_options(before), self.loaded.recipe.tune
        for name, value in _list_evaluation_options(after).items():
            if value != expected[name]:
                return f"this changes {name}, and with it the evaluation: candidates could not be compared.", ""
        if split_path(path)[0] == "vars" and _get_weights_file(after) != _get_weights_file(before):
            return "this changes the name of a file.", "Search model.weights itself."
        if tune is None:
            return None
        if tune.algorithm.kind == "hyperband" and after.train.epochs != before.train.epochs:
            return "this changes train.epochs, but hyperband sets the epochs of each trial.", ""
        if "validation/loss" in self.loaded.recipe.search_objectives() and _list_loss_terms(after) != _list_loss_terms(
            before
        ):
            hint = "Set tune.objective to a metric that does not change, such as validation/accuracy."
            return "this changes the loss itself, by which candidates are compared.", hint
        return None


def _find_kind_above(recipe: Any, path: str) -> tuple[str, str] | None:
    """Find the nearest section above a value that has a kind; returns the path of the kind, and the kind."""
    steps = split_path(path)
    for count in range(len(steps) - 1, 0, -1):
        section = recipe
        for step in steps[:count]:
            section = section.get(str(step)) if isinstance(section, dict) else None
        kind = section.get("kind") if isinstance(section, dict) else section
        if isinstance(kind, str):
            return join_steps((*steps[:count], "kind")), kind
    return None


def _list_evaluation_options(recipe: Recipe) -> dict[str, Any]:
    """List the options that must be the same for all candidates, so that they can be compared."""
    data = recipe.data
    return {
        "seed": recipe.seed, "data.seed": recipe.data_seed, "data.source": data.source, "data.split": data.split,
        "data.targets": recipe.targets(), "data.invalid": data.invalid, "evaluate": recipe.evaluate,
    }  # fmt: skip


def _get_weights_file(recipe: Recipe) -> Any:
    return getattr(recipe.model, "weights", None)


def _list_loss_terms(recipe: Recipe) -> Any:
    """List the terms of the loss: the objectives, and the set of regularizers of the network."""
    return recipe.objectives(), set(_iterate_regularizers(dump(recipe.model)))


def _iterate_regularizers(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key.endswith("_regularizer") and item is not None:
                yield write_scalar(item)
            yield from _iterate_regularizers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _iterate_regularizers(item)
