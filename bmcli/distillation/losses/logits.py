"""Squared error of the outputs: of logits (Ba and Caruana 2014), or of numbers on the scale they are learned on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import Form, Given, OutputOptions, Said, chosen, summed

FORMS: tuple[Form, ...] = ("softmax", "sigmoid", "number")
WHOLE_BATCH = False


class Options(OutputOptions):
    """Mean squared error between the outputs of teacher and student."""

    kind: Literal["logits"] = Field(default="logits", description="Outputs as they are.")


def loss(options: Options, given: Given) -> Any:
    return summed([_of_target(each) for each in chosen(options, given)])


def _of_target(said: Said) -> Any:
    from keras import ops

    apart = said.student - said.teacher()
    if said.form == "softmax":  # what is added to all logits of an example says nothing
        apart = apart - ops.mean(apart, axis=-1, keepdims=True)
    return said.weight * ops.mean(ops.square(apart), axis=-1)
