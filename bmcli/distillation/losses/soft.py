"""Soft targets: the softened distributions of teacher and student (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import (
    LossInputs,
    OutputForm,
    SoftenedOptions,
    TargetOutputs,
    select_outputs,
    sum_losses,
)
from bmcli.recipe.distill import Temperature

FORMS: tuple[OutputForm, ...] = ("softmax", "sigmoid")
WHOLE_BATCH = False


class Options(SoftenedOptions):
    """Divergence of the softened teacher and student distributions, times temperature squared."""

    kind: Literal["soft"] = Field(default="soft", description="Softened distributions.")
    temperature: Temperature = Field(
        default=4.0,
        description="Temperature that divides the logits, or a schedule over the epochs such as {start: 8, end: 1}.",
    )
    divergence: Literal["forward", "reverse", "jensen_shannon"] = Field(
        default="forward",
        description="forward: KL(teacher || student), which covers all modes of the teacher; reverse: KL(student || "
        "teacher), which concentrates on its main modes; jensen_shannon: the mean of the KL divergences of both from "
        "their average.",
    )


def loss(options: Options, inputs: LossInputs) -> Any:
    """Compute section 2 of the paper; the factor keeps the size of gradients independent of the temperature."""
    temperature = inputs.current_value(options.temperature)
    return sum_losses(
        [_compute_target_loss(each, temperature, options.divergence) for each in select_outputs(options, inputs)]
    )


def _compute_target_loss(outputs: TargetOutputs, temperature: Any, divergence: str) -> Any:
    from keras import ops

    teacher, student = outputs.teacher(temperature) / temperature, outputs.student / temperature
    if outputs.form == "softmax":
        divergences = _compute_divergence([ops.log_softmax(teacher)], [ops.log_softmax(student)], divergence)
    else:
        pairs = [[ops.log_sigmoid(z), ops.log_sigmoid(-z)] for z in (teacher, student)]
        # The mean over the outputs, like the loss of the objective `multi_label`.
        divergences = _compute_divergence(pairs[0], pairs[1], divergence) / teacher.shape[-1]
    return outputs.weight * temperature**2 * outputs.average_places(divergences)


def _compute_divergence(teacher: list[Any], student: list[Any], kind: str) -> Any:
    """Compute a divergence of distributions given as logarithms, summed over outputs, `(batch, ...)` in nats."""
    if kind == "forward":
        return _compute_kl(teacher, student)
    if kind == "reverse":
        return _compute_kl(student, teacher)
    from keras import ops

    mixture = [ops.logaddexp(t, s) - 0.6931471805599453 for t, s in zip(teacher, student, strict=True)]
    return (_compute_kl(teacher, mixture) + _compute_kl(student, mixture)) / 2


def _compute_kl(first: list[Any], second: list[Any]) -> Any:
    from keras import ops

    return sum_losses([ops.sum(ops.exp(a) * (a - b), axis=-1) for a, b in zip(first, second, strict=True)])
