"""Divergence of the softened distributions of each step, over the readings that the teacher marks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import LossInputs, SoftenedOptions, select_outputs, sum_losses
from bmcli.recipe.distill import Temperature

FORMS = ("softmax",)
WHOLE_BATCH = False


class Options(SoftenedOptions):
    """Divergence of the softened marks of teacher and student, times temperature squared."""

    kind: Literal["softened_marks"] = Field(default="softened_marks", description="Softened marks.")
    temperature: Temperature = Field(default=2.0, description="Temperature that divides the logits.")


def loss(options: Options, inputs: LossInputs) -> Any:
    """Compute the mean over the readings of each row."""
    temperature = inputs.current_value(options.temperature)
    return sum_losses([_compute_loss(each, temperature) for each in select_outputs(options, inputs)])


def _compute_loss(outputs: Any, temperature: Any) -> Any:
    from keras import ops

    merged = outputs.teacher(temperature)
    is_reading = ops.cast(ops.argmax(merged, axis=-1) < merged.shape[-1] - 1, "float32")
    teacher, student = ops.log_softmax(merged / temperature), ops.log_softmax(outputs.student / temperature)
    divergences = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1) * is_reading
    means = ops.sum(divergences, axis=1) / ops.maximum(ops.sum(is_reading, axis=1), 1.0)
    return outputs.weight * temperature**2 * means
