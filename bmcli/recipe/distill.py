"""The sections `distill`, of a distillation, and `distillation`, of the recipe of a distilled student."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.fields import FieldType, GateText, Kind, Options, PartField, dump, fault, fault_at, relocate_errors
from bmcli.recipe.nodes import format_value
from bmcli.recipe.problems import Problem

ScheduleShape = Literal["linear", "cosine", "geometric"]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class EpochSchedule(Options):
    """A number that changes between epochs and is constant within each."""

    start: NotNegative = Field(description="Value in the first epoch.")
    end: NotNegative = Field(description="Final value.")
    shape: ScheduleShape = Field(
        default="linear",
        description="Interpolation: linear, cosine (slow at both ends), or geometric (by equal factors).",
    )
    until: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Fraction of train.epochs after which the final value is reached."
    )

    @model_validator(mode="after")
    def _factors_need_numbers_above_0(self) -> EpochSchedule:
        if self.shape == "geometric" and not (self.start and self.end):
            raise fault("change", "a geometric schedule cannot start or end at 0.", "Write shape: linear.")
        return self


Temperature = Positive | EpochSchedule
"""Divisor of the logits before the softmax; 1 leaves the probabilities unchanged, larger values smooth them."""

LossWeight = NotNegative | EpochSchedule


def expand_over_epochs(value: float | EpochSchedule, epochs: int) -> tuple[float, ...]:
    """The value of a number or schedule in each epoch."""
    if not isinstance(value, EpochSchedule):
        return (value,) * epochs
    last = max(1, round(value.until * epochs) - 1)
    return tuple(_interpolate(value, min(1.0, epoch / last)) for epoch in range(epochs))


def _interpolate(change: EpochSchedule, share: float) -> float:
    if change.shape == "geometric":
        return float(change.start * (change.end / change.start) ** share)
    share = (1 - math.cos(math.pi * share)) / 2 if change.shape == "cosine" else share
    return change.start + (change.end - change.start) * share


class TeacherOptions(Options):
    """A trained network: a run, a recipe (trained first if it has no run), or a `.keras` file."""

    run: str | None = Field(
        default=None, description="A run folder, or the name of a run, which stands for its latest run."
    )
    recipe: str | None = Field(
        default=None,
        description="A recipe; its latest run is used if it was trained from exactly this recipe, else it is "
        "trained first.",
    )
    file: str | None = Field(
        default=None,
        description="A `.keras` file with raw columns as inputs, like model.keras of a run, and probabilities, or "
        "numbers in their original unit, as outputs.",
    )
    weight: Positive = Field(default=1.0, description="Weight of this teacher in the ensemble.")

    @model_validator(mode="after")
    def _check_one_source(self) -> TeacherOptions:
        sources = [name for name in ("run", "recipe", "file") if getattr(self, name) is not None]
        if len(sources) != 1:
            received = " and ".join(sources) or "none"
            raise fault("teacher", f"expected one of run, recipe and file, received {received}.",
                        "Write teacher: {run: runs/big}.")  # fmt: skip
        return self


@dataclass(frozen=True)
class TeachersField(FieldType):
    """One teacher or a list of them; None for the recipe itself."""

    def check(self, value: Any) -> tuple[TeacherOptions, ...] | None:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            return (_check_teacher(value),)
        if not value:
            raise fault("teacher", "expected at least one teacher, received [].")
        teachers, details = [], []
        for position, each in enumerate(value):
            try:
                teachers.append(_check_teacher(each))
            except (PydanticCustomError, ValidationError) as error:
                details += relocate_errors((position,), error, each)
        if details:
            raise ValidationError.from_exception_data("teacher", details)
        return tuple(teachers)

    def dump(self, value: Any) -> Any:
        if value is None:
            return None
        return dump(value[0]) if len(value) == 1 else [dump(each) for each in value]

    def json_schema(self) -> dict[str, Any]:
        one = TeacherOptions.model_json_schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}, {"type": "null"}]}


def _check_teacher(value: Any) -> TeacherOptions:
    if not isinstance(value, (Mapping, TeacherOptions)):
        raise fault("teacher", f"expected a teacher, received {format_value(value)}.",
                    "Write teacher: {run: runs/big}.")  # fmt: skip
    return TeacherOptions.model_validate(value)


@dataclass(frozen=True)
class StudentField(FieldType):
    """Overrides of this recipe for the student, or `{recipe: FILE}`."""

    def check(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            hint = "Write student: {model: {kind: mlp, hidden: [64]}}, or {recipe: small.yaml}."
            raise fault("student", f"expected overrides of this recipe, received {format_value(value)}.", hint)
        if "recipe" in value and (len(value) > 1 or not isinstance(value["recipe"], str)):
            hint = "Write student: {recipe: small.yaml}."
            raise fault_at(("recipe",), "the recipe of a student is a file, without other keys beside it.", hint)
        for section in ("distill", "tune", "distillation", "extends"):
            if section in value:
                raise fault_at((section,), f"a student cannot override `{section}`.", "Leave it out.")
        return dict(value)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "object"}


class TransferOptions(Options):
    """Transfer set: the rows that the student is trained on."""

    excluded_classes: Mapping[str, Annotated[tuple[str | int, ...], Field(min_length=1)]] = Field(
        default={},
        description="Classes, by target, whose training rows are left out, such as {label: [3]}; the student sees "
        "them only through its teacher.",
    )
    unlabelled: Annotated[Kind, PartField("data.sources")] | None = Field(
        default=None,
        description="A source of additional unlabelled rows with the same inputs; only soft losses apply to them.",
    )

    @property
    def replaces_rows(self) -> bool:
        """Whether the student is trained on other rows than the training split."""
        return bool(self.excluded_classes) or self.unlabelled is not None


Losses = tuple[Annotated[Kind, PartField("distillation.losses")], ...]


def _make_default_losses(objectives: Mapping[str, str]) -> Losses:
    """The losses of Hinton, Vinyals and Dean 2015 for classes and labels, squared errors for numbers."""
    soft = [name for name, objective in objectives.items() if _get_output_form(objective) != "number"]
    numbers = [name for name in objectives if name not in soft]
    check = PartField("distillation.losses").check
    if not numbers:
        return (check({"kind": "hard", "weight": 0.1}), check({"kind": "soft", "weight": 0.9}))
    losses = [check({"kind": "hard", "weight": 0.5})]
    if soft:
        losses.append(check({"kind": "soft", "weight": 0.5, "targets": tuple(soft)}))
    return (*losses, check({"kind": "logits", "weight": 0.5, "targets": tuple(numbers)}))


def _get_output_form(objective: str) -> str:
    """The form of an objective's outputs: logits of a softmax or of sigmoids, or plain numbers."""
    return str(parts.load("objectives", objective).FORM)


class DistillOptions(Options):
    """Distillation by `bmcli distill`: teachers, student, losses, and the measurement of the gain."""

    teacher: Annotated[tuple[TeacherOptions, ...] | None, TeachersField()] = Field(
        default=None,
        description="{run: runs/big}, {recipe: big.yaml} or {file: big.keras}, or a list of these as an ensemble. "
        "By default this recipe itself, trained first.",
    )
    average: Literal["probabilities", "logits"] = Field(
        default="probabilities", description="Outputs of several teachers to average: probabilities or logits."
    )
    student: Annotated[Mapping[str, Any], StudentField()] = Field(
        default={},
        description="Overrides of this recipe for the student, such as {model: {kind: mlp, hidden: [64]}} or "
        "{recipe: small.yaml}. By default none.",
    )
    losses: Annotated[Losses, Field(min_length=1)] | None = Field(
        default=None,
        description="Losses of the student with their weights. By default 0.1 of `hard` and 0.9 of `soft`, and for "
        "numbers 0.5 of `hard` and 0.5 of `logits`.",
    )
    transfer: TransferOptions = Field(
        default=TransferOptions(), description="Transfer set: the rows that the student is trained on."
    )
    generations: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Number of generations; the student of each is the teacher of the next (Furlanello et al. 2018).",
    )
    baseline: bool = Field(
        default=True,
        description="Also train the same student without a teacher, from the same weights and on the same batches.",
    )
    seeds: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Number of trainings of student and baseline, each with another seed."
    )
    metric: str = Field(
        default="auto",
        description="Metric of the gain, such as accuracy; by default the first metric of the evaluation.",
    )
    teacher_gate: Mapping[str, GateText] = Field(
        default={},
        description="Limits on validation metrics of the teacher, such as {accuracy: '>= 0.9'}; a missed limit ends "
        "with exit code 3 before the student is trained.",
    )
    min_gain: bool | NotNegative = Field(
        default=False,
        description="true: the confidence interval of the gain must lie above 0; a number: minimum gain. If it is "
        "missed, the exit code is 3.",
    )

    @model_validator(mode="after")
    def _gain_has_a_baseline(self) -> DistillOptions:
        if self.min_gain is not False and not self.baseline:
            raise fault_at(("min_gain",), "there is no gain without a baseline.", "Write baseline: true.")
        return self

    @model_validator(mode="after")
    def _check_teacher_is_used(self) -> DistillOptions:
        if self.losses is not None and all(loss.kind == "hard" for loss in self.losses):
            raise fault_at(("losses",), "the loss `hard` alone does not use the teacher.",
                           "Add {kind: soft}.")  # fmt: skip
        return self

    def resolve_losses(self, objectives: Mapping[str, str]) -> Losses:
        """The losses of the recipe, or the default ones for these targets.

        Args:
            objectives: Kind of objective by target.
        """
        return self.losses or _make_default_losses(objectives)


class TrainedTeacherOptions(Options):
    """A trained teacher."""

    model: str = Field(min_length=1, description="Its `.keras` file.")
    run: str | None = Field(default=None, description="Its run folder, if it is a run.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file.")
    weight: Positive = Field(default=1.0, description="Weight of this teacher in the ensemble.")


class DistillationOptions(Options):
    """Losses of a student in addition to those of the labels, and their teachers."""

    teachers: tuple[TrainedTeacherOptions, ...] = Field(
        default=(), description="Trained teachers; empty for a baseline."
    )
    average: Literal["probabilities", "logits"] = Field(
        default="probabilities", description="Outputs of several teachers to average: probabilities or logits."
    )
    losses: Losses = Field(min_length=1, description="Losses to minimise, with their weights.")
    transfer: TransferOptions = Field(
        default=TransferOptions(), description="Transfer set: the rows that the student is trained on."
    )

    @model_validator(mode="after")
    def _check_teacher_is_named(self) -> DistillationOptions:
        soft = next((position for position, loss in enumerate(self.losses) if loss.kind != "hard"), None)
        if not self.teachers and soft is not None:
            raise fault_at(("losses", soft), f"`{self.losses[soft].kind}` needs a teacher.", "Name one in teachers.")
        return self


def find_target_problem(options: DistillOptions | DistillationOptions, objectives: Mapping[str, str]) -> Problem | None:
    """Find the first option that does not suit the targets.

    Args:
        objectives: Kind of objective by target.
    """
    for target in options.transfer.excluded_classes:
        if target not in objectives:
            hint = parts.did_you_mean(target, objectives)
            return Problem(("transfer", "excluded_classes", target), f"no target {quoted(target)}.", hint)
        if objectives[target] not in ("classification", "ordinal"):
            message = f"target {quoted(target)} has no single class per row by which rows could be excluded."
            return Problem(("transfer", "excluded_classes", target), message)
    for place, loss in enumerate(options.losses or ()):
        problem = _find_loss_problem(loss, objectives)
        if problem is not None:
            return problem.below("losses", place)
    return None


def _find_loss_problem(loss: Kind, objectives: Mapping[str, str]) -> Problem | None:
    forms = parts.load("distillation.losses", loss.kind).FORMS
    named = getattr(loss, "targets", None) or ()
    for target in named:
        if target not in objectives:
            return Problem(("targets",), f"no target {quoted(target)}.", parts.did_you_mean(target, objectives))
    for target in named or objectives:
        if forms and _get_output_form(objectives[target]) not in forms:
            others = [name for name, objective in objectives.items() if _get_output_form(objective) in forms]
            hint = f"Write targets: [{', '.join(others)}]." if others else "Use `logits`."
            form = "probabilities of labels" if _get_output_form(objectives[target]) == "sigmoid" else "numbers"
            message = f"{loss.kind} does not suit the outputs of target {quoted(target)}, which are {form}."
            return Problem((), message, hint)
    return None
