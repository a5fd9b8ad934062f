"""Squared error of the outputs: of logits (Ba and Caruana 2014), or of scaled numbers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import (
    LossInputs,
    OutputForm,
    OutputOptions,
    TargetOutputs,
    select_outputs,
    sum_losses,
)

FORMS: tuple[OutputForm, ...] = ("softmax", "sigmoid", "number")
WHOLE_BATCH = False


class Options(OutputOptions):
    """Mean squared error between the outputs of teacher and student."""

    kind: Literal["logits"] = Field(default="logits", description="Outputs as they are.")


def loss(options: Options, inputs: LossInputs) -> Any:
    return sum_losses([_compute_target_loss(each) for each in select_outputs(options, inputs)])


def _compute_target_loss(outputs: TargetOutputs) -> Any:
    from keras import ops

    differences = outputs.student - outputs.teacher()
    if outputs.form == "softmax":  # a constant added to all logits does not change the softmax
        differences = differences - ops.mean(differences, axis=-1, keepdims=True)
    return outputs.weight * outputs.average_places(ops.mean(ops.square(differences), axis=-1))
