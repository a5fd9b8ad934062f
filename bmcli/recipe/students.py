"""From a recipe with a `distill` section to those of its teacher, its student, and the student's baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bmcli.errors import BmcliError, Fault, Place
from bmcli.recipe.distill import DistillOptions, TaughtBy, TaughtOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.load import Loaded, Written, parse_overrides, read
from bmcli.recipe.nodes import Node
from bmcli.recipe.search import overrides

DISTILL = "distill"
"""In the place of a file's name: where the values of a student come from."""

_OF_VERBS = ("tune", "distill")
_STUDENT = ("distill", "student")


def options_of(loaded: Loaded) -> DistillOptions:
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


def itself(loaded: Loaded) -> Loaded:
    """The recipe as its own teacher."""
    return _with_values(loaded.written.without(_OF_VERBS), {"name": f"{loaded.recipe.name}-teacher"})


def student(loaded: Loaded) -> Loaded:
    """The student's recipe, without what it learns from its teachers.

    Raises:
        BmcliError: What is laid over the recipe does not fit it; every fault at once, each where it is written.
    """
    options = options_of(loaded)
    if "recipe" in options.student:
        return read(options.student["recipe"]).without(_OF_VERBS).checked()
    above = loaded.written.tree.find(_STUDENT)
    written = loaded.written.without(_OF_VERBS)
    if above is None:
        return written.checked()
    try:
        found = written.under(above).checked()
    except BmcliError as error:
        raise BmcliError(*(_told_of_student(fault, above) for fault in error.faults)) from None
    if found.recipe.taught is not None:
        raise BmcliError(
            "a recipe that learns from teachers already cannot be distilled.", path="taught",
            suggestion="Leave `taught` or `distill` out.",
        )  # fmt: skip
    return found


def _told_of_student(fault: Fault, above: Node) -> Fault:
    """A fault of what is laid over the recipe by its path in the recipe."""
    inside = fault.place is not None and fault.place in set(_places(above))
    return replace(fault, path=f"distill.student.{fault.path}") if inside else fault


def _places(node: Node) -> list[Place]:
    inner = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    own = [place for place in (node.place, node.key_place) if place is not None]
    return [*own, *(place for each in inner for place in _places(each))]


def taught(learner: Loaded, options: DistillOptions, teachers: Sequence[TaughtBy], more: Mapping[str, Any]) -> Loaded:
    """The recipe of a student that learns from teachers which are trained.

    Args:
        learner: As `student` gives it.
        more: Further values by dotted path, as a seed.
    """
    objectives = {name: each.kind for name, each in learner.recipe.objectives().items()}
    learns = TaughtOptions(
        teachers=tuple(teachers), average=options.average, losses=options.losses_of(objectives),
        transfer=options.transfer,
    )  # fmt: skip
    return _with_values(learner.written, {"taught": _plain(learns), **more})


def with_teachers(loaded: Loaded, teachers: Sequence[TaughtBy]) -> Loaded:
    """The same recipe with teachers that are trained, as runs or files, in the place of those it names."""
    told = [
        {**({"run": each.run} if each.run else {"file": each.model}), "weight": each.weight} for each in teachers
    ]  # fmt: skip
    return _with_values(loaded.written, {"distill.teacher": told})


def baseline(learner: Loaded, options: DistillOptions, more: Mapping[str, Any]) -> Loaded:
    """The recipe of the same student without teachers: on the same rows, in the same batches."""
    values: dict[str, Any] = {"name": f"{learner.recipe.name}-baseline", **more}
    if options.transfer.changes:
        losses = DistillOptions.model_validate({"losses": ("hard", "soft")}).losses
        assert losses is not None, "two were named"
        values["taught"] = _plain(TaughtOptions(losses=losses[:1], transfer=options.transfer))
    return _with_values(learner.written, values)


def _plain(options: TaughtOptions) -> Any:
    """As a recipe writes it; what is not there is left out, since null deletes."""
    return _without_nulls(dump(options))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, (list, tuple)) else value


def _with_values(written: Written, values: Mapping[str, Any]) -> Loaded:
    faults: list[Fault] = []
    above = parse_overrides(overrides(values), faults, DISTILL)
    if faults:
        raise BmcliError(*faults)
    return written.under(above).checked()


def check(loaded: Loaded) -> None:
    """Refuses a student's recipe that is wrong, before anything is trained."""
    if loaded.recipe.distill is not None:
        student(loaded)
