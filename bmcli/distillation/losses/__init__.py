"""What a student learns from its teacher, one kind of loss a module; all of them are functions of plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from bmcli.recipe.distill import EpochSchedule, LossWeight, Temperature
from bmcli.recipe.fields import Kind, Options, fault_at

OutputForm = Literal["softmax", "sigmoid", "number"]
"""What outputs are: logits of one distribution, logits of one for each output, or plain numbers."""

Depth = Annotated[float, Field(gt=0, le=1)]


class LossOptions(Kind):
    """Options of every loss."""

    weight: LossWeight = Field(
        default=1.0, description="Weight of this loss, or a schedule over the epochs such as {start: 1, end: 0}."
    )


class OutputOptions(LossOptions):
    """Options of losses of outputs."""

    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="Targets whose outputs are compared; by default all."
    )


class SoftenedOptions(OutputOptions):
    """Options of losses whose logits are divided by a temperature."""

    temperature: Temperature

    @model_validator(mode="after")
    def _check_temperature(self) -> SoftenedOptions:
        change = self.temperature
        if isinstance(change, EpochSchedule) and not (change.start and change.end):
            where = "start" if not change.start else "end"
            raise fault_at(("temperature", where), "expected a temperature above 0, received 0.")
        return self


class LayerPair(Options):
    """A layer of the student and the layer of the teacher that it is matched to."""

    student: str | Depth = Field(
        default=1.0,
        description="Name of a layer, or a relative depth: 0.5 is halfway through the layers with weights, 1 is the "
        "input of the output layer.",
    )
    teacher: str | Depth = Field(
        default=1.0, description="Name or relative depth of the teacher's layer, as for the student."
    )
    of: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Index of the teacher, from 0, with several teachers."
    )


class LayerOptions(LossOptions):
    """Options of losses of what is inside the networks."""

    pairs: Annotated[tuple[LayerPair, ...], Field(min_length=1)] = Field(
        default=(LayerPair(),),
        description="Pairs of layers to compare, such as {student: 0.5, teacher: 0.5} or by name; by default the "
        "inputs of the output layers.",
    )


@dataclass(frozen=True)
class TargetOutputs:
    """What student and teachers say of one target.

    Args:
        student: Its outputs, float32 `(batch, width)`.
        teachers: Those of each teacher, float32 `(batch, teachers, width)`.
        teacher_weights: How much each teacher counts; they add up to 1.
        weight: Of the target's loss beside those of others.
    """

    student: Any
    teachers: Any
    teacher_weights: tuple[float, ...]
    form: OutputForm
    weight: float

    def teacher(self, temperature: Any = 1.0) -> Any:
        """Outputs of all teachers as those of one, `(batch, width)`.

        They are such that their distribution at this temperature is the mean of those of the teachers.
        """
        from keras import ops

        if self.teachers.shape[1] == 1:
            return self.teachers[:, 0]
        shares = ops.reshape(ops.convert_to_tensor(self.teacher_weights, "float32"), (1, -1, 1))
        if self.form == "number":
            return ops.sum(shares * self.teachers, axis=1)
        scaled, logs = self.teachers / temperature, ops.log(shares)
        if self.form == "softmax":
            return temperature * ops.logsumexp(ops.log_softmax(scaled) + logs, axis=1)
        yes, no = (ops.logsumexp(logs + ops.log_sigmoid(sign * scaled), axis=1) for sign in (1, -1))
        return temperature * (yes - no)


@dataclass(frozen=True)
class LossInputs:
    """What a loss is made of.

    Args:
        label_loss: The loss of the labels, `(batch,)`.
        outputs: By target.
        layers: For each pair of layers what student and teacher compute there, of the same shape but for attention,
            whose channels may differ.
        weights: How much each example counts, `(batch,)`.
        current_value: From a number that may change to what it is in this epoch.
    """

    label_loss: Any
    outputs: Mapping[str, TargetOutputs]
    layers: Sequence[tuple[Any, Any]]
    weights: Any
    current_value: Callable[[float | EpochSchedule], Any]


class LossKind(Protocol):
    """What a module in this folder offers."""

    Options: type[LossOptions]
    FORMS: tuple[OutputForm, ...]  # of the outputs that it compares; empty if it compares none
    WHOLE_BATCH: bool  # whether it compares examples with each other, so that it needs all of a batch

    def loss(self, options: Any, inputs: LossInputs) -> Any:
        """Loss of each example, `(batch,)` in float32, without the weights of examples.

        An example of weight 0 has no part in those of others.
        """


def select_outputs(options: OutputOptions, inputs: LossInputs) -> list[TargetOutputs]:
    """What is said of the targets that a loss compares."""
    return [inputs.outputs[name] for name in options.targets or inputs.outputs]


def sum_losses(losses: Sequence[Any]) -> Any:
    """The sum of some losses, `(batch,)`."""
    total = losses[0]
    for each in losses[1:]:
        total = total + each
    return total


def flatten_features(tensor: Any) -> Any:
    """`(batch, numbers)` in float32."""
    from keras import ops

    return ops.reshape(ops.cast(tensor, "float32"), (tensor.shape[0] or -1, math.prod(tensor.shape[1:])))
