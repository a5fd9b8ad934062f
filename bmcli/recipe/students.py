"""Derive the recipes of a distillation: its teacher, its student, and the baseline of the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bmcli.errors import BmcliError, Fault
from bmcli.recipe.distill import DistillationOptions, DistillOptions, TrainedTeacherOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, Origin, RecipeDocument, parse_overrides, read_document
from bmcli.recipe.nodes import KeyPath, Node
from bmcli.recipe.search import format_overrides

DISTILL = "distill"
"""Origin of the values of a student, instead of a file name."""

_VERB_SECTIONS = ("tune", "distill")
_STUDENT = ("distill", "student")


def get_distill_options(loaded: LoadedRecipe) -> DistillOptions:
    """Get the `distill` section.

    Raises:
        BmcliError: There is none.
    """
    if loaded.recipe.distill is None:
        raise BmcliError(
            "the recipe has no section `distill`.",
            suggestion="Write distill: {teacher: {run: runs/big}, student: {model: {kind: mlp, hidden: [64]}}}.",
        )
    return loaded.recipe.distill


def make_own_teacher(loaded: LoadedRecipe) -> LoadedRecipe:
    """Make the recipe of a teacher that is this recipe itself."""
    return _overlay_values(loaded.document.without_sections(_VERB_SECTIONS), {"name": f"{loaded.recipe.name}-teacher"})


def make_student(loaded: LoadedRecipe) -> LoadedRecipe:
    """Make the recipe of the student, without its distillation losses.

    Raises:
        BmcliError: The overrides of `distill.student` are not valid; every fault at once, at its place.
    """
    options, tree = get_distill_options(loaded), loaded.document.tree
    if "recipe" in options.student:
        document = read_document(options.student["recipe"]).without_sections(_VERB_SECTIONS)
        return replace(document, origins=_list_origins(options, tree)).validate()
    above = tree.find(_STUDENT)
    document = loaded.document.without_sections(_VERB_SECTIONS)
    if above is None:
        return replace(document, origins=_list_origins(options, tree)).validate()
    document = document.overlay(above)
    overridden = (Origin(steps, (*_STUDENT, *steps), tree) for steps in _list_kept(document.tree, above))
    student = replace(document, origins=(*overridden, *_list_origins(options, tree))).validate()
    if student.recipe.distillation is not None:
        raise BmcliError(
            "the recipe of a distilled student cannot be distilled.", path="distillation",
            suggestion="Leave `distillation` or `distill` out.",
        )  # fmt: skip
    return student


def _list_origins(options: DistillOptions, tree: Node) -> tuple[Origin, ...]:
    """List where the values of `distillation`, which the recipe of a distilled student has, are written."""
    shared = (Origin(("distillation", name), ("distill", name), tree) for name in ("average", "losses", "transfer"))
    several = len(options.teacher or ()) > 1
    teachers = (
        Origin(("distillation", "teachers", index), ("distill", "teacher", *((index,) if several else ())), tree)
        for index in range(len(options.teacher or (None,)))
    )
    return (*shared, *teachers)


def _list_kept(merged: Node, above: Node, steps: KeyPath = ()) -> Iterator[KeyPath]:
    """List the paths of those nodes of a tree that another one has kept which it was merged over."""
    if steps and merged.place == above.place:
        yield steps
    if isinstance(above.value, dict) and isinstance(merged.value, dict):
        for key in above.value.keys() & merged.value.keys():
            yield from _list_kept(merged.value[key], above.value[key], (*steps, key))


def make_distilled_student(
    student: LoadedRecipe, options: DistillOptions, teachers: Sequence[TrainedTeacherOptions], values: Mapping[str, Any]
) -> LoadedRecipe:
    """Make the recipe of a student with its distillation losses and trained teachers.

    Args:
        student: Recipe of `make_student`.
        values: Further values by dotted path, such as a seed.
    """
    objectives = {name: each.kind for name, each in student.recipe.objectives().items()}
    distillation = DistillationOptions(
        teachers=tuple(teachers), average=options.average, losses=options.resolve_losses(objectives),
        transfer=options.transfer,
    )  # fmt: skip
    return _overlay_values(student.document, {"distillation": _dump_options(distillation), **values})


def with_teachers(loaded: LoadedRecipe, teachers: Sequence[TrainedTeacherOptions]) -> LoadedRecipe:
    """Replace the teachers of a recipe by trained ones, as runs or files."""
    entries = [
        {**({"run": each.run} if each.run else {"file": each.model}), "weight": each.weight} for each in teachers
    ]  # fmt: skip
    # Paths of faults stay, but their places are those of the teachers that the user named.
    origins = (Origin(("distill", "teacher"), ("distill", "teacher"), loaded.document.tree),)
    document = replace(loaded.document, origins=(*loaded.document.origins, *origins))
    return _overlay_values(document, {"distill.teacher": entries})


def make_baseline(student: LoadedRecipe, options: DistillOptions, more: Mapping[str, Any]) -> LoadedRecipe:
    """Make the recipe of the same student without teachers: on the same rows, in the same batches."""
    values: dict[str, Any] = {"name": f"{student.recipe.name}-baseline", **more}
    if options.transfer.replaces_rows:
        losses = DistillOptions.model_validate({"losses": ("hard", "soft")}).losses
        assert losses is not None, "two are set"
        values["distillation"] = _dump_options(DistillationOptions(losses=losses[:1], transfer=options.transfer))
    return _overlay_values(student.document, values)


def _dump_options(options: DistillationOptions) -> Any:
    """Dump options without the values that are None, because null deletes a value of the recipe."""
    return _without_nulls(dump(options))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, (list, tuple)) else value


def _overlay_values(document: RecipeDocument, values: Mapping[str, Any]) -> LoadedRecipe:
    faults: list[Fault] = []
    above = parse_overrides(format_overrides(values), faults, DISTILL)
    if faults:
        raise BmcliError(*faults)
    return document.overlay(above).validate()


def check_student(loaded: LoadedRecipe) -> None:
    """Validate the recipe of the student, if there is one, before anything is trained."""
    if loaded.recipe.distill is not None:
        make_student(loaded)
