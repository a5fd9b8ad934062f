"""Losses between student and teacher, one kind in each module; all are functions of plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from bmcli.recipe.distill import EpochSchedule, LossWeight, Temperature
from bmcli.recipe.fields import Kind, Options, fault_at

OutputForm = Literal["softmax", "sigmoid", "number"]
"""Form of outputs: logits of one distribution, logits of one for each output, or plain numbers."""

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
        schedule = self.temperature
        if isinstance(schedule, EpochSchedule) and not (schedule.start and schedule.end):
            key = "start" if not schedule.start else "end"
            raise fault_at(("temperature", key), "expected a temperature above 0, received 0.")
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
    """Options of losses between layers of the networks."""

    pairs: Annotated[tuple[LayerPair, ...], Field(min_length=1)] = Field(
        default=(LayerPair(),),
        description="Pairs of layers to compare, such as {student: 0.5, teacher: 0.5} or by name; by default the "
        "inputs of the output layers.",
    )


@dataclass(frozen=True)
class TargetOutputs:
    """Outputs of student and teachers for one target.

    Outputs may have further axes before the last one, such as steps.

    Args:
        student: Its outputs, float32 `(batch, ..., width)`.
        teachers: Those of each teacher, float32 `(batch, teachers, ..., width)`.
        teacher_weights: Of the teachers; they add up to 1.
        weight: Of the target's loss in the sum over targets.
        places: Weights of the axes before the last one, `(batch, ...)`, 0 for padding; over a whole batch they add up
            to the number of examples. None if all places of an example count alike.
    """

    student: Any
    teachers: Any
    teacher_weights: tuple[float, ...]
    form: OutputForm
    weight: float
    places: Any = None

    def average_places(self, losses: Any) -> Any:
        """Average the losses of each example over its places: `(batch, ...)` to `(batch,)`."""
        from keras import ops

        axes = tuple(range(1, len(losses.shape)))
        if self.places is not None:
            return ops.sum(self.places * losses, axis=axes)
        return ops.mean(losses, axis=axes) if axes else losses

    def teacher(self, temperature: Any = 1.0) -> Any:
        """Merge the outputs of all teachers to those of one, `(batch, ..., width)`.

        At this temperature, the distribution of the result is the weighted mean of the teachers' distributions.
        """
        from keras import ops

        if self.teachers.shape[1] == 1:
            return self.teachers[:, 0]
        places = (1,) * (len(self.teachers.shape) - 2)
        weights = ops.reshape(ops.convert_to_tensor(self.teacher_weights, "float32"), (1, -1, *places))
        if self.form == "number":
            return ops.sum(weights * self.teachers, axis=1)
        scaled, log_weights = self.teachers / temperature, ops.log(weights)
        if self.form == "softmax":
            return temperature * ops.logsumexp(ops.log_softmax(scaled) + log_weights, axis=1)
        log_positive, log_negative = (
            ops.logsumexp(log_weights + ops.log_sigmoid(sign * scaled), axis=1) for sign in (1, -1)
        )
        return temperature * (log_positive - log_negative)


@dataclass(frozen=True)
class LossInputs:
    """Inputs of a loss.

    Args:
        label_loss: The loss of the labels, `(batch,)`.
        outputs: By target.
        layers: Activations of student and teacher for each pair of layers, of the same shape except for `attention`,
            where channels may differ.
        weights: Of the examples, `(batch,)`.
        current_value: From a number or schedule to the value in this epoch.
    """

    label_loss: Any
    outputs: Mapping[str, TargetOutputs]
    layers: Sequence[tuple[Any, Any]]
    weights: Any
    current_value: Callable[[float | EpochSchedule], Any]


class LossKind(Protocol):
    """Interface of a module in this folder."""

    Options: type[LossOptions]
    FORMS: tuple[OutputForm, ...]  # of the outputs that it compares; empty if it compares none
    WHOLE_BATCH: bool  # whether it compares examples with each other, so that it needs all of a batch

    def loss(self, options: Any, inputs: LossInputs) -> Any:
        """Compute the loss of each example, `(batch,)` in float32, without the weights of examples.

        An example of weight 0 does not affect the losses of others.
        """


def select_outputs(options: OutputOptions, inputs: LossInputs) -> list[TargetOutputs]:
    """Select the outputs of the targets that a loss compares."""
    return [inputs.outputs[name] for name in options.targets or inputs.outputs]


def sum_losses(losses: Sequence[Any]) -> Any:
    """Sum losses, `(batch,)`."""
    total = losses[0]
    for each in losses[1:]:
        total = total + each
    return total


def flatten_features(tensor: Any) -> Any:
    """`(batch, numbers)` in float32."""
    from keras import ops

    return ops.reshape(ops.cast(tensor, "float32"), (tensor.shape[0] or -1, math.prod(tensor.shape[1:])))
