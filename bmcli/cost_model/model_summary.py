"""A network looked at from outside: its layers, the operations of a pass, and the memory it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import private_api
from bmcli.networks.network import Network
from bmcli.training.train_step import CompiledSteps

# Operations that make no new numbers: they pass on, describe or read what is there.
_FREE_OPERATIONS = {
    *("Const", "Placeholder", "Identity", "NoOp", "ReadVariableOp", "Reshape", "Shape", "ExpandDims", "Squeeze"),
    *("StopGradient", "StridedSlice", "Pack", "Unpack", "PartitionedCall", "StatefulPartitionedCall", "VarHandleOp"),
}


@dataclass(frozen=True)
class LayerSummary:
    """A layer of a network.

    Args:
        kind: Its Keras class.
        shape: Of its output without the batch axis; of the first one if it has several.
        parameters: Numbers in it, those of layers inside included.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    parameters: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step needs on one device, rows aside.

    Args:
        optimizer: Its slots, and averages of the weights.
        activations: What the forward pass computes for the examples of a part of a batch, all of it counted as kept for
            the backward pass. XLA fuses operations and needs less; workspaces of kernels come on top.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def summarize_layers(model: keras.Model) -> list[LayerSummary]:
    """Layers with outputs in the order of the data flow; those of models inside in the place of these."""
    found: list[LayerSummary] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.layers:
            found += summarize_layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            found.append(LayerSummary(layer.name, type(layer).__name__, _output_shape(layer), layer.count_params()))
    return found


def _output_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    outputs = keras.tree.flatten(private_api.get_first_outputs(layer))
    return tuple(outputs[0].shape[1:])


def shorten_layers(summaries: Sequence[LayerSummary], max_lines: int) -> list[LayerSummary]:
    """At most so many lines: the first and last layers, and one line for those between."""
    if len(summaries) <= max_lines:
        return list(summaries)
    first = (max_lines - 1) // 2
    last = max_lines - 1 - first
    between = summaries[first : len(summaries) - last]
    sum_ = LayerSummary(f"... {len(between)} more", "", (), sum(layer.parameters for layer in between))
    return [*summaries[:first], sum_, *summaries[len(summaries) - last :]]


def estimate_memory(steps: CompiledSteps) -> MemoryEstimate:
    """What a step of some training takes."""
    model = steps.network.model
    followed = [variable for hook in steps.components.hooks for variable in hook.variables]
    examples = -(-steps.batch // (steps.micro_batches * steps.placement.replicas))
    return MemoryEstimate(
        weights=sum(map(variable_bytes, model.variables)),
        gradients=sum(map(variable_bytes, model.trainable_variables)),
        optimizer=sum(map(variable_bytes, [*steps.optimizer.variables, *followed])),
        activations=examples * _activation_bytes(steps.network),
    )


def _activation_bytes(network: Network) -> int:
    """Bytes that the forward pass on one example makes."""
    total = 0
    for operation in build_forward_graph(network, training=True).get_operations():
        if operation.type not in _FREE_OPERATIONS:
            total += sum(_tensor_bytes(output) for output in operation.outputs)
    return total


def _tensor_bytes(tensor: Any) -> int:
    known = tensor.shape.rank is not None and tensor.shape.is_fully_defined()
    return int(np.prod(tensor.shape.as_list())) * tensor.dtype.size if known else 0


def variable_bytes(variable: Any) -> int:
    return int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size


def build_forward_graph(network: Network, training: bool) -> tf.Graph:
    """The graph of a forward pass on one example; recurrent layers are unrolled, so that each step is there."""
    inputs = {name: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for name, tensor in network.model.input.items()}
    with _unroll_recurrent_layers(network.model):
        forward = tf.function(lambda values: network.model(values, training=training), autograph=False)
        return forward.get_concrete_function(inputs).graph


@contextmanager
def _unroll_recurrent_layers(model: keras.Model) -> Iterator[None]:
    recurrent = [layer for layer in private_api.flatten_layers(model) if getattr(layer, "unroll", None) is False]
    for layer in recurrent:
        layer.unroll = True
    try:
        yield
    finally:
        for layer in recurrent:
            layer.unroll = False
