"""From a recipe with a `distill` section to those of its teacher, its student, and the student's baseline."""

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
"""In the place of a file's name: where the values of a student come from."""

_VERB_SECTIONS = ("tune", "distill")
_STUDENT = ("distill", "student")


def get_distill_options(loaded: LoadedRecipe) -> DistillOptions:
    """The `distill` section.

    Raises:
        BmcliError: There is none.
    """
    if loaded.recipe.distill is None:
        raise BmcliError(
            "the recipe does not say what to distill.",
            suggestion="Write distill: {teacher: {run: runs/big}, student: {model: {kind: mlp, hidden: [64]}}}.",
        )
    return loaded.recipe.distill


def make_own_teacher(loaded: LoadedRecipe) -> LoadedRecipe:
    """The recipe as its own teacher."""
    return _overlay_values(loaded.document.without_sections(_VERB_SECTIONS), {"name": f"{loaded.recipe.name}-teacher"})


def make_student(loaded: LoadedRecipe) -> LoadedRecipe:
    """The student's recipe, without what it learns from its teachers.

    Raises:
        BmcliError: What is laid over the recipe does not fit it; every fault at once, each where it is written.
    """
    options = get_distill_options(loaded)
    if "recipe" in options.student:
        return read_document(options.student["recipe"]).without_sections(_VERB_SECTIONS).validate()
    above = loaded.document.tree.find(_STUDENT)
    written = loaded.document.without_sections(_VERB_SECTIONS)
    if above is None:
        return written.validate()
    try:
        found = written.overlay(above).validate()
    except BmcliError as error:
        raise BmcliError(*(_prefix_path(fault, above) for fault in error.faults)) from None
    if found.recipe.distillation is not None:
        raise BmcliError(
            "a recipe that learns from teachers already cannot be distilled.", path="distillation",
            suggestion="Leave `make_distilled_student` or `distill` out.",
        )  # fmt: skip
    return found


def _prefix_path(fault: Fault, above: Node) -> Fault:
    """A fault of what is laid over the recipe by its path in the recipe."""
    inside = fault.place is not None and fault.place in set(_list_places(above))
    return replace(fault, path=f"distill.student.{fault.path}") if inside else fault


def _list_places(node: Node) -> list[FileLocation]:
    inner = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    own = [place for place in (node.place, node.key_place) if place is not None]
    return [*own, *(place for each in inner for place in _list_places(each))]


def make_distilled_student(
    student: LoadedRecipe, options: DistillOptions, teachers: Sequence[TrainedTeacherOptions], values: Mapping[str, Any]
) -> LoadedRecipe:
    """The recipe of a student that learns from teachers which are trained.

    Args:
        student: As `make_student` gives it.
        values: Further values by dotted path, as a seed.
    """
    objectives = {name: each.kind for name, each in student.recipe.objectives().items()}
    learns = DistillationOptions(
        teachers=tuple(teachers), average=options.average, losses=options.resolve_losses(objectives),
        transfer=options.transfer,
    )  # fmt: skip
    return _overlay_values(student.document, {"distillation": _dump_options(learns), **values})


def with_teachers(loaded: LoadedRecipe, teachers: Sequence[TrainedTeacherOptions]) -> LoadedRecipe:
    """The same recipe with teachers that are trained, as runs or files, in the place of those it names."""
    told = [
        {**({"run": each.run} if each.run else {"file": each.model}), "weight": each.weight} for each in teachers
    ]  # fmt: skip
    return _overlay_values(loaded.document, {"distill.teacher": told})


def make_baseline(student: LoadedRecipe, options: DistillOptions, more: Mapping[str, Any]) -> LoadedRecipe:
    """The recipe of the same student without teachers: on the same rows, in the same batches."""
    values: dict[str, Any] = {"name": f"{student.recipe.name}-baseline", **more}
    if options.transfer.replaces_rows:
        losses = DistillOptions.model_validate({"losses": ("hard", "soft")}).losses
        assert losses is not None, "two were named"
        values["distillation"] = _dump_options(DistillationOptions(losses=losses[:1], transfer=options.transfer))
    return _overlay_values(student.document, values)


def _dump_options(options: DistillationOptions) -> Any:
    """As a recipe writes it; what is not there is left out, since null deletes."""
    return _without_nulls(dump(options))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, (list, tuple)) else value


def _overlay_values(written: RecipeDocument, values: Mapping[str, Any]) -> LoadedRecipe:
    faults: list[Fault] = []
    above = parse_overrides(format_overrides(values), faults, DISTILL)
    if faults:
        raise BmcliError(*faults)
    return written.overlay(above).validate()


def check_student(loaded: LoadedRecipe) -> None:
    """Refuses a student's recipe that is wrong, before anything is trained."""
    if loaded.recipe.distill is not None:
        make_student(loaded)
