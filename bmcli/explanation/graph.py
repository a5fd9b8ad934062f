"""Cuts through a network: from encoded inputs to tensors inside, and from there to the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bmcli import models, private_api
from bmcli.layers.one_hot_columns import OneHotColumns
from bmcli.networks.network import Network


@dataclass(frozen=True)
class FeatureTensor:
    """A tensor inside a network.

    Args:
        columns: The inputs that it is computed from.
        widths: Number of elements of each column, if they are concatenated; empty if they are mixed.
    """

    columns: tuple[str, ...]
    tensor: Any
    widths: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return " & ".join(self.columns)


def find_features(network: Network) -> list[FeatureTensor]:
    """Find the first float tensor, which gradients reach, on the way from each input or combination of inputs.

    That is a number input itself, the scaled pixels of a picture, a one-hot vector, or an embedding. Padding masks do
    not count.
    """
    origins_by_tensor = {
        id(tensor): _TensorOrigin((name,), _is_real(tensor), False) for name, tensor in network.model.input.items()
    }
    features = [FeatureTensor((name,), tensor) for name, tensor in network.model.input.items() if _is_real(tensor)]
    for outputs, inputs in _iterate_operations(network.model):
        origins = [origins_by_tensor[id(tensor)] for tensor in inputs if id(tensor) in origins_by_tensor]
        if not origins:
            continue
        columns = tuple(dict.fromkeys(name for origin in origins for name in origin.columns))
        has_real = any(origin.is_real for origin in origins)
        is_mask = any(origin.is_mask for origin in origins)
        for tensor in outputs:
            is_first = _is_real(tensor) and not has_real and not is_mask
            origins_by_tensor[id(tensor)] = _TensorOrigin(
                columns, has_real or is_first, is_mask or tensor.dtype == "bool"
            )
            if is_first and _is_of_rows(tensor):
                layer = private_api.get_operation(tensor)
                features.append(
                    FeatureTensor(columns, tensor, tuple(layer.widths) if isinstance(layer, OneHotColumns) else ())
                )
    return features


@dataclass(frozen=True)
class _TensorOrigin:
    """Origin of a tensor: its inputs, whether a float tensor lies on the way, and whether it derives from a mask."""

    columns: tuple[str, ...]
    is_real: bool
    is_mask: bool


def find_last_maps(network: Network) -> Any | None:
    """Find the last feature maps, `(batch, height, width, channels)` or `(batch, steps, channels)`; None if none.

    They are taken after normalisation and activation, and before pooling, which reduces their size.
    """
    last_convolution, maps = None, None
    for outputs, inputs in _iterate_operations(network.model):
        for tensor in outputs:
            if _is_convolution(tensor) or _is_network_of_maps(tensor):
                last_convolution = tensor
            has_same_shape = (
                last_convolution is not None and maps is not None and tensor.shape == last_convolution.shape
            )
            is_continuation = has_same_shape and any(before is maps for before in inputs)
            if tensor is last_convolution or (is_continuation and not _is_dropout(tensor)):
                maps = tensor
    if maps is None or all(size in (None, 1) for size in maps.shape[1:-1]):
        return None
    return maps


def find_embedding(network: Network) -> Any:
    """Find the input of the first target's output layer, `(batch, width)`."""
    target = next(iter(network.model.output.values()))
    return next(
        inputs[0]
        for outputs, inputs in _iterate_operations(network.model)
        if any(tensor is target for tensor in outputs)
    )


def build_front(network: Network, tensors: Sequence[Any]) -> keras.Model:
    """Build the model from encoded inputs by name to some tensors inside, `{"0": ..., "1": ...}`."""
    with models.allow_column_names():
        return keras.Model(dict(network.model.input), {str(i): tensor for i, tensor in enumerate(tensors)})


@dataclass(frozen=True)
class BackNetwork:
    """The part of a network from some tensors inside, and its encoded inputs, to its outputs by target.

    Args:
        columns: Encoded inputs that the part also reads.
        matrices: From all encoded inputs to weights that are tensors of the graph, which the part also reads; None if
            there are none.
    """

    model: keras.Model
    columns: tuple[str, ...]
    matrices: keras.Model | None

    def __call__(self, values: Sequence[Any], encoded: Mapping[str, Any]) -> Mapping[str, Any]:
        matrices = [] if self.matrices is None else self.matrices(dict(encoded)).values()
        others = [encoded[name] for name in self.columns]
        outputs: Mapping[str, Any] = self.model([*values, *matrices, *others], training=False)
        return outputs


def build_back(network: Network, tensors: Sequence[Any]) -> BackNetwork:
    """Build the part of a network after some tensors; it also takes the encoded inputs that are not cut off."""
    cut = {id(tensor) for tensor in tensors}
    other_inputs = {name: tensor for name, tensor in network.model.input.items() if id(tensor) not in cut}
    # Keras cannot cut one call of a layer out of a graph that keeps another one, as of a tied embedding.
    matrices = [
        outputs[0]
        for outputs, inputs in _iterate_operations(network.model)
        if _is_real(outputs[0]) and not _is_of_rows(outputs[0]) and all(map(_is_of_rows, inputs))
    ]
    model = keras.Model([*tensors, *matrices, *other_inputs.values()], dict(network.model.output))
    return BackNetwork(model, tuple(other_inputs), build_front(network, matrices) if matrices else None)


def list_layer_outputs(network: Network) -> list[tuple[keras.layers.Layer, Any]]:
    """List the layers with weights or an activation, and their outputs, in topological order."""
    layers = []
    for outputs, _ in _iterate_operations(network.model):
        layer = private_api.get_operation(outputs[0])
        is_relevant = isinstance(layer, keras.layers.Layer) and (
            layer.weights or isinstance(layer, keras.layers.Activation)
        )
        if is_relevant and _is_real(outputs[0]) and _is_of_rows(outputs[0]) and len(outputs[0].shape) > 1:
            layers.append((layer, outputs[0]))
    return layers


def _iterate_operations(model: keras.Model) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield outputs and inputs of each operation of a network, in topological order."""
    for node in private_api.list_nodes(model):
        if not node.is_input:
            yield list(node.output_tensors), list(node.input_tensors)


def _is_real(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)


def _is_of_rows(tensor: Any) -> bool:
    """Whether a tensor has the axis of the batch; others are weights, such as the matrix of an embedding."""
    return len(tensor.shape) > 0 and tensor.shape[0] is None


def _is_convolution(tensor: Any) -> bool:
    operation = private_api.get_operation(tensor)
    return isinstance(operation, keras.layers.Layer) and "Conv" in type(operation).__name__


def _is_network_of_maps(tensor: Any) -> bool:
    return isinstance(private_api.get_operation(tensor), keras.Model) and len(tensor.shape) == 4


def _is_dropout(tensor: Any) -> bool:
    return "Dropout" in type(private_api.get_operation(tensor)).__name__
