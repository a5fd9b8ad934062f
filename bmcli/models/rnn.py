"""Recurrent network: Elman 1990 (simple), Hochreiter and Schmidhuber 1997 (lstm), Cho et al. 2014 (gru)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import models
from bmcli.models import DenseOptions, Rate, Units
from bmcli.recipe.fields import Activation, Initializer, KerasObject
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras


class Options(DenseOptions):
    """Recurrent layers over one sequence, then dense layers; other inputs join in before the dense layers.

    An image is read as the sequence of its rows. Padding is skipped. Normalization follows each recurrent
    layer, and each dense layer's linear map.
    """

    kind: Literal["rnn"] = Field(default="rnn", description="A recurrent network.")
    cell: Literal["simple", "lstm", "gru"] = Field(default="lstm", description="The recurrent layer.")
    units: Units | tuple[Units, ...] = Field(
        default=64,
        description="Units of the recurrent layer, or a list for several layers one above the other.",
    )
    bidirectional: bool = Field(
        default=False, description="Read in both directions, side by side (Schuster and Paliwal 1997)."
    )
    activation: Activation = Field(default=KerasObject("tanh"), description="Keras activation of the recurrent layers.")
    recurrent_initializer: Initializer = Field(
        default=KerasObject("orthogonal"), description="Keras initializer of the weights from step to step."
    )
    recurrent_dropout: Rate = Field(
        default=0.0,
        description="Share of the state set to 0 in training, alike at every step (Gal and Ghahramani 2016).",
    )
    pooling: Literal["last", "mean", "max"] = Field(
        default="last",
        description="How the steps become a vector: the last state, or the mean or maximum of all.",
    )
    dense: tuple[Units, ...] = Field(default=(), description="Units of the dense layers after the recurrent ones.")
    dense_activation: Activation = Field(
        default=KerasObject("relu"), description="Keras activation of the dense layers."
    )


def convolves(options: Options) -> bool:
    return False


def build(options: Options, spec: DataSpec, heads: Mapping[str, int]) -> keras.Model:
    tensors, features = models.open_inputs(spec)
    sequence, others = models.sole(features, "rnn", sequences=True)
    tensor = models.join([_read(options, models.rows(sequence), sequence.mask), *map(models.vector, others)])
    tensor = models.dropped(options, tensor)
    for units in options.dense:
        tensor = models.dense(options, tensor, units, options.dense_activation)
    return models.close(tensors, tensor, heads)


def _read(options: Options, tensor: Any, mask: Any) -> Any:
    """The sequence as a vector, `(batch, units)`, or twice as wide if bidirectional."""
    from bmcli.layers.step_pooling import StepPooling

    stack = (options.units,) if isinstance(options.units, int) else options.units
    for position, units in enumerate(stack):
        is_last = position == len(stack) - 1
        steps = not is_last or options.pooling != "last"
        tensor = _recurrent(options, units, steps)(tensor, mask=mask)
        tensor = models.normalized(options, tensor, mask if steps else None)
    if options.pooling == "last":
        return tensor
    return StepPooling(options.pooling)(tensor, mask=mask)


def _recurrent(options: Options, units: int, steps: bool) -> keras.layers.Layer:
    """A recurrent layer that gives every step's output, or the last one alone."""
    import keras

    from bmcli.layers.keras_objects import make

    cell = {"simple": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[options.cell]
    layer = cell(
        units,
        activation=make("activations", options.activation),
        recurrent_initializer=make("initializers", options.recurrent_initializer),
        dropout=options.dropout,
        recurrent_dropout=options.recurrent_dropout,
        return_sequences=steps,
        **models.kernel(options),
    )
    return keras.layers.Bidirectional(layer) if options.bidirectional else layer
