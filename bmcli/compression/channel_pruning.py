"""A network and a narrower one of the same recipe: which channels are left, and what they weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bmcli import private_api
from bmcli.errors import BmcliError

KERNEL_LAYERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
"""Layers whose kernels end with the axes of what goes in and of what comes out."""

# Convolutions of each channel by itself, whose kernels end with the axes of channels and of filters for each.
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

# What happens to every channel by itself, and leaves one that is 0 as it is.
_CHANNELWISE_LAYERS = (
    keras.layers.Dropout, keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
)  # fmt: skip
# The same among plain operations, and layers of ours by name: steps of padding are put to one value.
_CHANNELWISE_NAMES = ("Where", "FullLike", "ZerosLike", "Divide", "StepPooling")


@dataclass(frozen=True)
class KeptChannels:
    """The channels of a tensor, its last axis, that are left.

    Args:
        indices: Of those that are left.
        channels: How many there are.
        origin: Number of the narrowed layer whose channels they are, one for one; None after others were mixed in.
    """

    indices: np.ndarray
    channels: int
    origin: int | None = None

    @property
    def keeps_all(self) -> bool:
        return len(self.indices) == self.channels


@dataclass(frozen=True)
class LayerPairing:
    """A layer with weights in both networks, and which of its channels go in and come out of the narrower one."""

    layer: Any
    narrower: Any
    before: KeptChannels
    after: KeptChannels


@dataclass
class PrunedLayer:
    """A layer that loses channels.

    Args:
        weights: All whose last axis is that of the channels: the kernel first, then bias and normalization.
    """

    channels: int
    kept: int
    weights: list[Any] = field(default_factory=list)


ChannelSelector = Callable[[Any, int], np.ndarray]
"""Which channels of a layer are left, of how many there shall be; their places in order."""


def find_pruned_layers(model: keras.Model, narrower: keras.Model) -> list[PrunedLayer]:
    """The layers that lose channels.

    Raises:
        BmcliError: What follows such a layer is no longer the same without the channels, even if they are all 0.
    """
    found: dict[int, PrunedLayer] = {}
    for pair in _pair_layers(model, narrower, lambda layer, left: np.arange(left)):
        if isinstance(pair.layer, KERNEL_LAYERS) and pair.after.origin is not None:
            kept = [pair.layer.kernel, *([pair.layer.bias] if pair.layer.use_bias else [])]
            found[pair.after.origin] = PrunedLayer(pair.after.channels, len(pair.after.indices), kept)
        elif pair.before.origin is not None and not isinstance(pair.layer, KERNEL_LAYERS):
            found[pair.before.origin].weights += _channel_weights(pair.layer)
    return list(found.values())


def _channel_weights(layer: Any) -> list[Any]:
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
    for pair in _pair_layers(model, narrower, select_largest_channels):
        if isinstance(pair.layer, KERNEL_LAYERS):
            kernel = pair.layer.kernel.numpy()[..., pair.before.indices, :][..., pair.after.indices]
            bias = [pair.layer.bias.numpy()[pair.after.indices]] if pair.layer.use_bias else []
            pair.narrower.set_weights([kernel, *bias])
        elif isinstance(pair.layer, _DEPTHWISE):
            kernel = pair.layer.kernel.numpy()[..., pair.before.indices, :]
            bias = [pair.layer.bias.numpy()[pair.before.indices]] if pair.layer.use_bias else []
            pair.narrower.set_weights([kernel, *bias])
        elif isinstance(pair.layer, keras.layers.BatchNormalization):
            pair.narrower.set_weights([value[pair.before.indices] for value in pair.layer.get_weights()])
        else:
            pair.narrower.set_weights(pair.layer.get_weights())


def select_largest_channels(layer: Any, left: int) -> np.ndarray:
    """The channels of a layer with the largest sums of magnitudes (Li et al. 2017, section 3.1), in order."""
    sizes = np.abs(layer.kernel.numpy()).sum(axis=tuple(range(len(layer.kernel.shape) - 1)))
    return np.sort(np.argsort(-sizes, kind="stable")[:left])


def _pair_layers(model: keras.Model, narrower: keras.Model, select_channels: ChannelSelector) -> Iterator[LayerPairing]:
    """All layers with weights, from the inputs on."""
    flows: dict[int, KeptChannels] = {}
    for number, (layer, other) in enumerate(zip(model.operations, narrower.operations, strict=True)):
        node = private_api.get_only_node(layer)
        given = [flows[id(tensor)] for tensor in node.input_tensors]
        after = _propagate_channels(layer, other, given, node.outputs[0], number, select_channels)
        for tensor in node.outputs:
            flows[id(tensor)] = after if tensor is node.outputs[0] else _keep_all_channels(tensor)
        if getattr(layer, "weights", None):
            yield LayerPairing(layer, other, given[0], after)


def _propagate_channels(
    layer: Any, other: Any, given: list[KeptChannels], output: Any, number: int, select_channels: ChannelSelector
) -> KeptChannels:
    """The channels of a layer's output that are left."""
    if isinstance(layer, KERNEL_LAYERS):
        channels, left = layer.kernel.shape[-1], other.kernel.shape[-1]
        if left == channels:
            return _keep_all_channels(output)
        return KeptChannels(select_channels(layer, left), channels, number)
    if all(flow.keeps_all for flow in given):
        return _keep_all_channels(output)
    if isinstance(layer, keras.layers.Flatten):
        return _flatten_channels(given[0], output)
    if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(output.shape) - 1):
        return _concatenate_channels(given)
    if isinstance(layer, keras.layers.Activation):
        _require_zero_at_zero(layer)
        return given[0]
    narrowed = next(flow for flow in given if not flow.keeps_all)
    if isinstance(layer, _CHANNELWISE_LAYERS) or type(layer).__name__ in _CHANNELWISE_NAMES:
        return narrowed
    if isinstance(layer, (keras.layers.BatchNormalization, *_DEPTHWISE)) and narrowed.origin is not None:
        return narrowed
    hint = "Take batch normalization, or none." if "Normalization" in type(layer).__name__ else "Prune weights."
    raise BmcliError(
        f"channels before {type(layer).__name__} cannot be removed: it looks at all of them at once.",
        path="train.prune", suggestion=hint,
    )  # fmt: skip


def _keep_all_channels(tensor: Any) -> KeptChannels:
    channels = tensor.shape[-1] or 1
    return KeptChannels(np.arange(channels), channels)


def _flatten_channels(flow: KeptChannels, output: Any) -> KeptChannels:
    """Channels at all places of a picture or sequence, side by side."""
    width = output.shape[-1]
    starts = np.arange(width // flow.channels) * flow.channels
    return KeptChannels((starts[:, None] + flow.indices).ravel(), width)


def _concatenate_channels(flows: list[KeptChannels]) -> KeptChannels:
    starts = np.cumsum([0, *(flow.channels for flow in flows)])
    places = [start + flow.indices for start, flow in zip(starts[:-1], flows, strict=True)]
    return KeptChannels(np.concatenate(places), int(starts[-1]))


def _require_zero_at_zero(layer: Any) -> None:
    """Refuses an activation that makes something of a channel that is 0."""
    if float(np.abs(keras.ops.convert_to_numpy(layer.activation(keras.ops.zeros((1, 1))))).max()):
        raise BmcliError(
            f"channels before {layer.activation.__name__} cannot be removed: it turns 0 into something else.",
            path="model.activation", suggestion="Take relu, gelu, silu or tanh.",
        )  # fmt: skip
