"""Hints: activations of hidden layers (Romero et al. 2015)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import LayerOptions, LossInputs, OutputForm, flatten_features, sum_losses

FORMS: tuple[OutputForm, ...] = ()
WHOLE_BATCH = False


class Options(LayerOptions):
    """Mean squared error between the activations of a student layer and of a teacher layer.

    Feature maps of the student are resized to the teacher's height and width. Where the numbers of channels differ, a
    linear projection from the student's to the teacher's channels is trained along with the student and then dropped.
    """

    kind: Literal["feature"] = Field(default="feature", description="Hidden layers.")


def loss(options: Options, inputs: LossInputs) -> Any:
    from keras import ops

    pairs = [(flatten_features(student), flatten_features(teacher)) for student, teacher in inputs.layers]
    return sum_losses([ops.mean(ops.square(student - teacher), axis=-1) for student, teacher in pairs])
