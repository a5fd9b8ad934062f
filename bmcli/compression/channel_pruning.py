"""A network and a narrower one of the same recipe: which channels are left, and what they weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bmcli import private_api
from bmcli.errors import BmcliError

MAPS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
"""Layers whose kernels end with the axes of what goes in and of what comes out."""

# Convolutions of each channel by itself, whose kernels end with the axes of channels and of filters for each.
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

# What happens to every channel by itself, and leaves one that is 0 as it is.
_APART = (
    keras.layers.Dropout, keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
)  # fmt: skip
# The same among plain operations, and layers of ours by name: steps of padding are put to one value.
_APART_BY_NAME = ("Where", "FullLike", "ZerosLike", "Divide", "StepPooling")


@dataclass(frozen=True)
class Flow:
    """The channels of a tensor, its last axis, that are left.

    Args:
        places: Of those that are left.
        channels: How many there are.
        origin: Number of the narrowed layer whose channels they are, one for one; None after others were mixed in.
    """

    places: np.ndarray
    channels: int
    origin: int | None = None

    @property
    def is_whole(self) -> bool:
        return len(self.places) == self.channels


@dataclass(frozen=True)
class Pair:
    """A layer with weights in both networks, and which of its channels go in and come out of the narrower one."""

    layer: Any
    narrower: Any
    before: Flow
    after: Flow


@dataclass
class Narrowed:
    """A layer that loses channels.

    Args:
        weights: All whose last axis is that of the channels: the kernel first, then bias and normalization.
    """

    channels: int
    left: int
    weights: list[Any] = field(default_factory=list)


Choose = Callable[[Any, int], np.ndarray]
"""Which channels of a layer are left, of how many there shall be; their places in order."""


def narrowed_layers(model: keras.Model, narrower: keras.Model) -> list[Narrowed]:
    """The layers that lose channels.

    Raises:
        BmcliError: What follows such a layer is no longer the same without the channels, even if they are all 0.
    """
    found: dict[int, Narrowed] = {}
    for pair in _pairs(model, narrower, lambda layer, left: np.arange(left)):
        if isinstance(pair.layer, MAPS) and pair.after.origin is not None:
            kept = [pair.layer.kernel, *([pair.layer.bias] if pair.layer.use_bias else [])]
            found[pair.after.origin] = Narrowed(pair.after.channels, len(pair.after.places), kept)
        elif pair.before.origin is not None and not isinstance(pair.layer, MAPS):
            found[pair.before.origin].weights += _by_channel(pair.layer)
    return list(found.values())


def _by_channel(layer: Any) -> list[Any]:
    """The weights whose last axis is that of the channels; with them at 0, channels that are 0 stay so."""
    if isinstance(layer, _DEPTHWISE):
        return [layer.bias] if layer.use_bias else []
    found: list[Any] = layer.trainable_variables
    return found


def copy_weights(model: keras.Model, narrower: keras.Model) -> None:
    """Copy the weights of a network to another of the same layers; of more channels those with the largest weights.

    Where the others are 0, both networks then compute the same.
    """
    if [weight.shape for weight in model.weights] == [weight.shape for weight in narrower.weights]:
        narrower.set_weights(model.get_weights())
        return
    for pair in _pairs(model, narrower, largest):
        if isinstance(pair.layer, MAPS):
            kernel = pair.layer.kernel.numpy()[..., pair.before.places, :][..., pair.after.places]
            bias = [pair.layer.bias.numpy()[pair.after.places]] if pair.layer.use_bias else []
            pair.narrower.set_weights([kernel, *bias])
        elif isinstance(pair.layer, _DEPTHWISE):
            kernel = pair.layer.kernel.numpy()[..., pair.before.places, :]
            bias = [pair.layer.bias.numpy()[pair.before.places]] if pair.layer.use_bias else []
            pair.narrower.set_weights([kernel, *bias])
        elif isinstance(pair.layer, keras.layers.BatchNormalization):
            pair.narrower.set_weights([value[pair.before.places] for value in pair.layer.get_weights()])
        else:
            pair.narrower.set_weights(pair.layer.get_weights())


def largest(layer: Any, left: int) -> np.ndarray:
    """The channels of a layer with the largest sums of magnitudes (Li et al. 2017, section 3.1), in order."""
    sizes = np.abs(layer.kernel.numpy()).sum(axis=tuple(range(len(layer.kernel.shape) - 1)))
    return np.sort(np.argsort(-sizes, kind="stable")[:left])


def _pairs(model: keras.Model, narrower: keras.Model, choose: Choose) -> Iterator[Pair]:
    """All layers with weights, from the inputs on."""
    flows: dict[int, Flow] = {}
    for number, (layer, other) in enumerate(zip(model.operations, narrower.operations, strict=True)):
        node = private_api.only_node(layer)
        given = [flows[id(tensor)] for tensor in node.input_tensors]
        after = _after(layer, other, given, node.outputs[0], number, choose)
        for tensor in node.outputs:
            flows[id(tensor)] = after if tensor is node.outputs[0] else _whole(tensor)
        if getattr(layer, "weights", None):
            yield Pair(layer, other, given[0], after)


def _after(layer: Any, other: Any, given: list[Flow], output: Any, number: int, choose: Choose) -> Flow:
    """The channels of a layer's output that are left."""
    if isinstance(layer, MAPS):
        channels, left = layer.kernel.shape[-1], other.kernel.shape[-1]
        if left == channels:
            return _whole(output)
        return Flow(choose(layer, left), channels, number)
    if all(flow.is_whole for flow in given):
        return _whole(output)
    if isinstance(layer, keras.layers.Flatten):
        return _flattened(given[0], output)
    if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(output.shape) - 1):
        return _joined(given)
    if isinstance(layer, keras.layers.Activation):
        _require_zero(layer)
        return given[0]
    narrowed = next(flow for flow in given if not flow.is_whole)
    if isinstance(layer, _APART) or type(layer).__name__ in _APART_BY_NAME:
        return narrowed
    if isinstance(layer, (keras.layers.BatchNormalization, *_DEPTHWISE)) and narrowed.origin is not None:
        return narrowed
    hint = "Take batch normalization, or none." if "Normalization" in type(layer).__name__ else "Prune weights."
    raise BmcliError(
        f"channels before {type(layer).__name__} cannot be removed: it looks at all of them at once.",
        path="train.prune", suggestion=hint,
    )  # fmt: skip


def _whole(tensor: Any) -> Flow:
    channels = tensor.shape[-1] or 1
    return Flow(np.arange(channels), channels)


def _flattened(flow: Flow, output: Any) -> Flow:
    """Channels at all places of a picture or sequence, side by side."""
    width = output.shape[-1]
    starts = np.arange(width // flow.channels) * flow.channels
    return Flow((starts[:, None] + flow.places).ravel(), width)


def _joined(flows: list[Flow]) -> Flow:
    starts = np.cumsum([0, *(flow.channels for flow in flows)])
    places = [start + flow.places for start, flow in zip(starts[:-1], flows, strict=True)]
    return Flow(np.concatenate(places), int(starts[-1]))


def _require_zero(layer: Any) -> None:
    """Refuses an activation that makes something of a channel that is 0."""
    if float(np.abs(keras.ops.convert_to_numpy(layer.activation(keras.ops.zeros((1, 1))))).max()):
        raise BmcliError(
            f"channels before {layer.activation.__name__} cannot be removed: it turns 0 into something else.",
            path="model.activation", suggestion="Take relu, gelu, silu or tanh.",
        )  # fmt: skip
