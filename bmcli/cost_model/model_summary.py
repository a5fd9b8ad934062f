"""Summary of a network: its layers, the operations of a forward pass, and the memory of a training step."""

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

# Operations whose outputs need no memory: they pass tensors on, describe them, or read variables.
_FREE_OPERATIONS = {
    *("Const", "Placeholder", "Identity", "NoOp", "ReadVariableOp", "Reshape", "Shape", "ExpandDims", "Squeeze"),
    *("StopGradient", "StridedSlice", "Pack", "Unpack", "PartitionedCall", "StatefulPartitionedCall", "VarHandleOp"),
}


@dataclass(frozen=True)
class LayerSummary:
    """A layer of a network.

    Args:
        kind: Its Keras class.
        shape: Shape of its first output without the batch axis.
        parameters: Number of its weights, including those of layers inside.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    parameters: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step needs on one device, in addition to the rows.

    Args:
        optimizer: Slots of the optimizer, and averages of the weights.
        activations: Outputs of all operations of the forward pass for one micro-batch, as if all were kept for the
            backward pass. XLA fuses operations and needs less; kernels need workspaces in addition.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def summarize_layers(model: keras.Model) -> list[LayerSummary]:
    """List the layers in the order of the data flow; nested models are replaced by their layers."""
    summaries: list[LayerSummary] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.layers:
            summaries += summarize_layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            summaries.append(LayerSummary(layer.name, type(layer).__name__, _output_shape(layer), layer.count_params()))
    return summaries


def _output_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    outputs = keras.tree.flatten(private_api.get_first_outputs(layer))
    return tuple(outputs[0].shape[1:])


def shorten_layers(summaries: Sequence[LayerSummary], max_lines: int) -> list[LayerSummary]:
    """Shorten a summary to at most `max_lines`: the first and last layers, and one line for those between."""
    if len(summaries) <= max_lines:
        return list(summaries)
    first = (max_lines - 1) // 2
    last = max_lines - 1 - first
    between = summaries[first : len(summaries) - last]
    sum_ = LayerSummary(f"... {len(between)} more", "", (), sum(layer.parameters for layer in between))
    return [*summaries[:first], sum_, *summaries[len(summaries) - last :]]


def estimate_memory(steps: CompiledSteps) -> MemoryEstimate:
    """Estimate the memory of a training step."""
    model = steps.network.model
    hook_variables = [variable for hook in steps.components.hooks for variable in hook.variables]
    examples = -(-steps.batch // (steps.micro_batches * steps.placement.replicas))
    return MemoryEstimate(
        weights=sum(map(variable_bytes, model.variables)),
        gradients=sum(map(variable_bytes, model.trainable_variables)),
        optimizer=sum(map(variable_bytes, [*steps.optimizer.variables, *hook_variables])),
        activations=examples * _activation_bytes(steps.network),
    )


def _activation_bytes(network: Network) -> int:
    """Count the bytes of all outputs of operations in the forward pass on one example."""
    total = 0
    for operation in build_forward_graph(network, training=True).get_operations():
        if operation.type not in _FREE_OPERATIONS:
            total += sum(_tensor_bytes(output) for output in operation.outputs)
    return total


def _tensor_bytes(tensor: Any) -> int:
    is_static = tensor.shape.rank is not None and tensor.shape.is_fully_defined()
    return int(np.prod(tensor.shape.as_list())) * tensor.dtype.size if is_static else 0


def variable_bytes(variable: Any) -> int:
    return int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size


def build_forward_graph(network: Network, training: bool) -> tf.Graph:
    """Trace the graph of a forward pass on one example."""
    inputs = {name: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for name, tensor in network.model.input.items()}
    # In a loop a recurrent layer has the operations of one step, however many steps it runs.
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
