"""Derive the recipes of a distillation: its teacher, its student, and the baseline of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bmcli.errors import BmcliError, Fault, FileLocation
from bmcli.recipe.distill import DistillationOptions, DistillOptions, TrainedTeacherOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, RecipeDocument, parse_overrides, read_document
from bmcli.recipe.nodes import Node
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
    options = get_distill_options(loaded)
    if "recipe" in options.student:
        return read_document(options.student["recipe"]).without_sections(_VERB_SECTIONS).validate()
    above = loaded.document.tree.find(_STUDENT)
    document = loaded.document.without_sections(_VERB_SECTIONS)
    if above is None:
        return document.validate()
    try:
        student = document.overlay(above).validate()
    except BmcliError as error:
        raise BmcliError(*(_prefix_path(fault, above) for fault in error.faults)) from None
    if student.recipe.distillation is not None:
        raise BmcliError(
            "the recipe of a distilled student cannot be distilled.", path="distillation",
            suggestion="Leave `distillation` or `distill` out.",
        )  # fmt: skip
    return student


def _prefix_path(fault: Fault, above: Node) -> Fault:
    """Prefix the path of a fault with `distill.student` if its place is in that section."""
    inside = fault.place is not None and fault.place in set(_list_places(above))
    return replace(fault, path=f"distill.student.{fault.path}") if inside else fault


def _list_places(node: Node) -> list[FileLocation]:
    children = (
        node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    )
    own = [place for place in (node.place, node.key_place) if place is not None]
    return [*own, *(place for each in children for place in _list_places(each))]


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
    return _overlay_values(loaded.document, {"distill.teacher": entries})


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
