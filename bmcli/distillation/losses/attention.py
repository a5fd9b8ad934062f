"""Attention transfer: the spatial attention of feature maps (Zagoruyko and Komodakis 2017, section 3.1)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import LayerOptions, LossInputs, OutputForm, flatten_features, sum_losses

FORMS: tuple[OutputForm, ...] = ()
WHOLE_BATCH = False


class Options(LayerOptions):
    """Attention transfer: distance of the normalised attention maps (squared activations summed over channels).

    Maps of the student are resized to the teacher's height and width. The layers must have spatial or time axes:
    feature maps or sequences.
    """

    kind: Literal["attention"] = Field(default="attention", description="Where feature maps are strong.")


def loss(options: Options, inputs: LossInputs) -> Any:
    from keras import ops

    pairs = [(_compute_attention_map(student), _compute_attention_map(teacher)) for student, teacher in inputs.layers]
    return sum_losses([ops.sum(ops.square(student - teacher), axis=-1) for student, teacher in pairs])


def _compute_attention_map(layer: Any) -> Any:
    """Compute the attention map of a layer `(batch, positions ..., channels)`, of length 1, `(batch, positions)`."""
    from keras import ops

    strength = flatten_features(ops.sum(ops.square(ops.cast(layer, "float32")), axis=-1))
    # Without the constant, the gradient of a map of zeros would be NaN.
    return strength * ops.rsqrt(ops.sum(ops.square(strength), axis=-1, keepdims=True) + 1e-12)
