"""Hints: what hidden layers compute (Romero et al. 2015)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import Form, Given, LayerOptions, flattened, summed

FORMS: tuple[Form, ...] = ()
WHOLE_BATCH = False


class Options(LayerOptions):
    """Squared error between what layers of teacher and student compute, averaged over the numbers of an example.

    Feature maps of the student are resized to the teacher's height and width. Where the numbers of channels differ, a
    linear map of its own leads from the student's to the teacher's; it is learned beside the student and then
    dropped.
    """

    kind: Literal["feature"] = Field(default="feature", description="Hidden layers.")


def loss(options: Options, given: Given) -> Any:
    from keras import ops

    pairs = [(flattened(student), flattened(teacher)) for student, teacher in given.layers]
    return summed([ops.mean(ops.square(student - teacher), axis=-1) for student, teacher in pairs])
