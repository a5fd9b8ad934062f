"""Squared error of the outputs: of logits (Ba and Caruana 2014), or of numbers on the scale they are learned on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import LossInputs, OutputForm, OutputOptions, TargetOutputs, select_outputs, sum_losses

FORMS: tuple[OutputForm, ...] = ("softmax", "sigmoid", "number")
WHOLE_BATCH = False


class Options(OutputOptions):
    """Mean squared error between the outputs of teacher and student."""

    kind: Literal["logits"] = Field(default="logits", description="Outputs as they are.")


def loss(options: Options, inputs: LossInputs) -> Any:
    return sum_losses([_compute_target_loss(each) for each in select_outputs(options, inputs)])


def _compute_target_loss(outputs: TargetOutputs) -> Any:
    from keras import ops

    apart = outputs.student - outputs.teacher()
    if outputs.form == "softmax":  # what is added to all logits of an example says nothing
        apart = apart - ops.mean(apart, axis=-1, keepdims=True)
    return outputs.weight * ops.mean(ops.square(apart), axis=-1)
