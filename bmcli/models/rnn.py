"""Recurrent network: Elman 1990 (simple), Hochreiter and Schmidhuber 1997 (lstm), Cho et al. 2014 (gru)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli import models
from bmcli.inputs import Feature
from bmcli.models import (
    CAUSAL_STEPS,
    STEPS,
    VECTOR,
    Backbone,
    DenseOptions,
    DropoutRate,
    FeatureRequest,
    Features,
    Units,
)
from bmcli.recipe.fields import Activation, Initializer, KerasObject, fault_at
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras


class Options(DenseOptions):
    """Recurrent layers over one sequence, then dense layers, before which other inputs join.

    For sequences of up to a few hundred steps whose order matters; it learns from fewer rows than a `transformer`. An
    image is read as the sequence of its rows. Padding is skipped. Each recurrent layer, and the linear map of each
    dense layer, is followed by normalization.
    """

    WIDTHS: ClassVar = ("dense",)  # options that channel pruning may reduce
    kind: Literal["rnn"] = Field(default="rnn", description="A recurrent network.")
    cell: Literal["simple", "lstm", "gru"] = Field(default="lstm", description="Kind of recurrent layer.")
    units: Units | tuple[Units, ...] = Field(
        default=64,
        description="Units of the recurrent layer, or a list for several stacked layers.",
    )
    bidirectional: bool = Field(
        default=False, description="Read the sequence in both directions (Schuster and Paliwal 1997)."
    )
    activation: Activation = Field(default=KerasObject("tanh"), description="Keras activation of the recurrent layers.")
    recurrent_initializer: Initializer = Field(
        default=KerasObject("orthogonal"), description="Keras initializer of the recurrent weights."
    )
    recurrent_dropout: DropoutRate = Field(
        default=0.0,
        description="Dropout rate of the state, with the same mask at every step (Gal and Ghahramani 2016).",
    )
    share: bool = Field(
        default=False,
        description="Share the weights of one recurrent layer among all of `units`, after a linear projection to "
        "its width.",
    )
    pooling: Literal["last", "mean", "max", "attention"] = Field(
        default="last",
        description="How the steps become a vector: the last state, the mean or maximum of all states, or attention "
        "pooling (Yang et al. 2016).",
    )
    dense: tuple[Units, ...] = Field(default=(), description="Units of the dense layers after the recurrent ones.")
    dense_activation: Activation = Field(
        default=KerasObject("relu"), description="Keras activation of the dense layers."
    )

    @model_validator(mode="after")
    def _layers_can_share(self) -> Options:
        stack = _stack(self)
        if self.share and (len(stack) < 2 or len(set(stack)) > 1):
            raise fault_at(
                ("share",),
                "sharing weights needs several recurrent layers of the same units.",
                "Write a list such as units: [64, 64].",
            )
        return self


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    if models.find_single_input(spec, sequences=True) is None:
        return ()
    return (VECTOR, STEPS) if options.bidirectional else (VECTOR, STEPS, CAUSAL_STEPS)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec)
    sequence, others = models.require_single_input(features, "rnn", sequences=True)
    every_step = any(request.form == "steps" for request in requests)
    tensor = _encode_sequence(options, models.to_sequence(sequence), sequence.mask, every_step)

    def build_steps() -> Features:
        steps = models.apply_dropout(options, models.append_inputs(tensor, others))
        return Features(steps, sequence.mask, embedding=sequence.embedding)

    builders = {VECTOR: lambda: Features(_build_vector(options, tensor, sequence.mask, others)), STEPS: build_steps}
    if not options.bidirectional:
        builders[CAUSAL_STEPS] = build_steps
    return Backbone(tensors, models.build_requested(requests, builders))


def _build_vector(options: Options, tensor: Any, mask: Any, others: Sequence[Feature]) -> Any:
    state = tensor if len(tensor.shape) == 2 else _pool_steps(options, tensor, mask)
    vector = models.apply_dropout(options, models.concatenate([state, *map(models.to_vector, others)]))
    for units in options.dense:
        vector = models.apply_dense(options, vector, units, options.dense_activation)
    return vector


def _stack(options: Options) -> tuple[int, ...]:
    return (options.units,) if isinstance(options.units, int) else options.units


def _encode_sequence(options: Options, tensor: Any, mask: Any, every_step: bool) -> Any:
    """Encode the sequence as the states of all steps, `(batch, steps, units)`, or the last one where that suffices.

    They are twice as wide if bidirectional.
    """
    for layer in _layers(options, every_step):
        tensor = layer(_project_input(options, tensor), mask=mask)
        tensor = models.apply_normalization(options, tensor, mask if len(tensor.shape) == 3 else None)
    return tensor


def _layers(options: Options, every_step: bool) -> list[keras.layers.Layer]:
    """Build the recurrent layers, the first one first."""
    stack = _stack(options)
    if options.share:
        # One layer for all: it must return all steps, because only the last call needs the last state alone.
        return [_build_recurrent(options, stack[0], steps=True)] * len(stack)
    below = [_build_recurrent(options, units, steps=True) for units in stack[:-1]]
    return [*below, _build_recurrent(options, stack[-1], steps=every_step or options.pooling != "last")]


def _project_input(options: Options, tensor: Any) -> Any:
    """Project the sequence to the width of a shared layer, whose input and output must have the same width."""
    import keras

    width = _stack(options)[0] * (2 if options.bidirectional else 1)
    if not options.share or tensor.shape[-1] == width:
        return tensor
    return keras.layers.Dense(width, **models.kernel_arguments(options))(tensor)


def _pool_steps(options: Options, tensor: Any, mask: Any) -> Any:
    """Reduce the steps to a vector."""
    from keras import ops

    from bmcli.layers.attention_pooling import AttentionPooling
    from bmcli.layers.step_pooling import StepPooling

    if options.pooling == "attention":
        return AttentionPooling()(tensor, mask=mask)
    if options.pooling != "last":
        return StepPooling(options.pooling)(tensor, mask=mask)
    if not options.bidirectional:
        return StepPooling("last")(tensor, mask=mask)
    # The backward direction ends at the first step.
    forward, backward = ops.split(tensor, 2, axis=-1)
    return ops.concatenate([StepPooling("last")(forward, mask=mask), backward[:, 0]], axis=-1)


def _build_recurrent(options: Options, units: int, steps: bool) -> keras.layers.Layer:
    """Build a recurrent layer that returns the states of all steps, or the last one alone."""
    import keras

    from bmcli.layers.keras_objects import make_keras_object

    cell = {"simple": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[options.cell]
    layer = cell(
        units,
        activation=make_keras_object("activations", options.activation),
        recurrent_initializer=make_keras_object("initializers", options.recurrent_initializer),
        dropout=options.dropout,
        recurrent_dropout=options.recurrent_dropout,
        return_sequences=steps,
        **models.kernel_arguments(options),
    )
    return keras.layers.Bidirectional(layer) if options.bidirectional else layer
