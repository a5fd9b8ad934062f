"""The loss of the labels, by the objectives of the recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import LossInputs, LossOptions, OutputForm

FORMS: tuple[OutputForm, ...] = ()
WHOLE_BATCH = False


class Options(LossOptions):
    """Loss of the true labels, the same as without a teacher."""

    kind: Literal["hard"] = Field(default="hard", description="The labels.")


def loss(options: Options, inputs: LossInputs) -> Any:
    return inputs.label_loss
