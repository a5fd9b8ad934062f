"""Channel pruning: a network and a narrower one of the same layers, the channels that it keeps, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bmcli import private_api
from bmcli.errors import BmcliError

KERNEL_LAYERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
"""Layers whose kernels end with the axes of input and output channels."""

# Convolutions of each channel separately, whose kernels end with the axes of channels and of filters per channel.
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

# Layers that process every channel separately, and leave one that is 0 as it is.
_CHANNELWISE_LAYERS = (
    keras.layers.Dropout, keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
)  # fmt: skip
# Operations and layers of bmcli with the same property, by the names of their classes: they set padding to one value.
_CHANNELWISE_NAMES = ("Where", "FullLike", "ZerosLike", "Divide", "StepPooling")


@dataclass(frozen=True)
class KeptChannels:
    """The channels of a tensor, its last axis, that are kept.

    Args:
        indices: Indices of the kept channels.
        channels: Number of channels before pruning.
        origin: Number of the pruned layer that computes these channels; None once they are flattened or concatenated.
    """

    indices: np.ndarray
    channels: int
    origin: int | None = None

    @property
    def keeps_all(self) -> bool:
        return len(self.indices) == self.channels


@dataclass(frozen=True)
class LayerPairing:
    """A layer with weights in both networks, and the input and output channels that the narrower one keeps."""

    layer: Any
    narrower: Any
    before: KeptChannels
    after: KeptChannels


@dataclass
class PrunedLayer:
    """A layer that loses channels.

    Args:
        channels: Number of channels before pruning.
        kept: Number of channels after pruning.
        weights: All weights whose last axis are the channels: the kernel first, then bias and normalization.
    """

    channels: int
    kept: int
    weights: list[Any] = field(default_factory=list)


ChannelSelector = Callable[[Any, int], np.ndarray]
"""Selects the channels of a layer to keep, given the layer and their number; returns ascending indices."""


def find_pruned_layers(model: keras.Model, narrower: keras.Model) -> list[PrunedLayer]:
    """Find the layers that lose channels.

    Raises:
        BmcliError: A following layer would compute something else without the channels, even if they are all 0.
    """
    pruned: dict[int, PrunedLayer] = {}
    # The number of kept channels is known, and which ones does not matter here: the first are as good as any.
    for pair in _pair_layers(model, narrower, lambda layer, count: np.arange(count)):
        if isinstance(pair.layer, KERNEL_LAYERS) and pair.after.origin is not None:
            weights = [pair.layer.kernel, *([pair.layer.bias] if pair.layer.use_bias else [])]
            pruned[pair.after.origin] = PrunedLayer(pair.after.channels, len(pair.after.indices), weights)
        elif pair.before.origin is not None and not isinstance(pair.layer, KERNEL_LAYERS):
            pruned[pair.before.origin].weights += _channel_weights(pair.layer)
    return list(pruned.values())


def _channel_weights(layer: Any) -> list[Any]:
    """Weights of a following layer whose last axis are the channels, and which must be 0 too."""
    # With scale and offset of a normalization, or the bias of a depthwise convolution, at 0, a channel that is 0 stays
    # 0; the kernel of a depthwise convolution only multiplies it.
    if isinstance(layer, _DEPTHWISE):
        return [layer.bias] if layer.use_bias else []
    weights: list[Any] = layer.trainable_variables
    return weights


def copy_weights(model: keras.Model, narrower: keras.Model) -> None:
    """Copy the weights of a network to another of the same layers; of pruned layers those of the largest channels.

    Where all other channels are 0, both networks compute the same.
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


def select_largest_channels(layer: Any, count: int) -> np.ndarray:
    """Select the channels of a layer with the largest sums of magnitudes (Li et al. 2017, section 3.1)."""
    # A stable sort, so that the choice among equal channels is always the same.
    sizes = np.abs(layer.kernel.numpy()).sum(axis=tuple(range(len(layer.kernel.shape) - 1)))
    return np.sort(np.argsort(-sizes, kind="stable")[:count])


def _pair_layers(model: keras.Model, narrower: keras.Model, select_channels: ChannelSelector) -> Iterator[LayerPairing]:
    """Yield all layers with weights, from the inputs on."""
    flows: dict[int, KeptChannels] = {}
    paired: list[Any] = []
    nodes = zip(private_api.list_nodes(model), private_api.list_nodes(narrower), strict=True)
    for number, (node, narrower_node) in enumerate(nodes):
        layer, other = node.operation, narrower_node.operation
        inputs = [flows[id(tensor)] for tensor in node.input_tensors]
        after = _propagate_channels(layer, other, inputs, node.output_tensors[0], number, select_channels)
        for tensor in node.output_tensors:
            flows[id(tensor)] = after if tensor is node.output_tensors[0] else _keep_all_channels(tensor)
        if getattr(layer, "weights", None):
            if layer in paired:
                raise BmcliError(
                    f"{layer.name} is applied more than once, so its channels cannot be removed.", path="train.prune",
                    suggestion="Prune weights instead of channels.",
                )  # fmt: skip
            paired.append(layer)
            yield LayerPairing(layer, other, inputs[0], after)


def _propagate_channels(
    layer: Any, other: Any, inputs: list[KeptChannels], output: Any, number: int, select_channels: ChannelSelector
) -> KeptChannels:
    """Find the kept channels of a layer's output."""
    if isinstance(layer, KERNEL_LAYERS):
        channels, kept = layer.kernel.shape[-1], other.kernel.shape[-1]
        if kept == channels:
            return _keep_all_channels(output)
        return KeptChannels(select_channels(layer, kept), channels, number)
    if all(flow.keeps_all for flow in inputs):
        return _keep_all_channels(output)
    if isinstance(layer, keras.layers.Flatten):
        return _flatten_channels(inputs[0], output)
    if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(output.shape) - 1):
        return _concatenate_channels(inputs)
    if isinstance(layer, keras.layers.Activation):
        _require_zero_at_zero(layer)
        return inputs[0]
    narrowed = next(flow for flow in inputs if not flow.keeps_all)
    if isinstance(layer, _CHANNELWISE_LAYERS) or type(layer).__name__ in _CHANNELWISE_NAMES:
        return narrowed
    # Their own weights are pruned with the layer that computes the channels, so that layer must be known.
    if isinstance(layer, (keras.layers.BatchNormalization, *_DEPTHWISE)) and narrowed.origin is not None:
        return narrowed
    is_normalization = "Normalization" in type(layer).__name__
    raise BmcliError(
        f"channels before {type(layer).__name__} cannot be removed: it computes with all of them together.",
        path="train.prune",
        suggestion="Use batch normalization, or none." if is_normalization else "Prune weights instead of channels.",
    )


def _keep_all_channels(tensor: Any) -> KeptChannels:
    channels = tensor.shape[-1] or 1
    return KeptChannels(np.arange(channels), channels)


def _flatten_channels(flow: KeptChannels, output: Any) -> KeptChannels:
    """Kept features after all positions of a picture or sequence are flattened; channels are the fastest axis."""
    width = output.shape[-1]
    starts = np.arange(width // flow.channels) * flow.channels
    return KeptChannels((starts[:, None] + flow.indices).ravel(), width)


def _concatenate_channels(flows: list[KeptChannels]) -> KeptChannels:
    starts = np.cumsum([0, *(flow.channels for flow in flows)])
    places = [start + flow.indices for start, flow in zip(starts[:-1], flows, strict=True)]
    return KeptChannels(np.concatenate(places), int(starts[-1]))


def _require_zero_at_zero(layer: Any) -> None:
    """Refuse an activation that does not map 0 to 0, so that a pruned channel would still have an effect."""
    if float(np.abs(keras.ops.convert_to_numpy(layer.activation(keras.ops.zeros((1, 1))))).max()):
        raise BmcliError(
            f"channels before {layer.activation.__name__} cannot be removed: it does not map 0 to 0.",
            path="model.activation", suggestion="Use relu, gelu, silu or tanh.",
        )  # fmt: skip
