"""A network cut in two: from encoded inputs to the features inside, and from there to the outputs."""

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
        columns: The inputs that it is made of.
        widths: Of the numbers of each column, if they stand side by side; empty if they are mixed.
    """

    columns: tuple[str, ...]
    tensor: Any
    widths: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return " & ".join(self.columns)


def find_features(network: Network) -> list[FeatureTensor]:
    """Where each input, or combination of inputs, first is a real number that a gradient reaches.

    That is an input of numbers itself, the scaled pixels of a picture, a one-hot vector, an embedding. What only
    tells padding is none.
    """
    known = {
        id(tensor): _TensorOrigin((name,), _is_real(tensor), False) for name, tensor in network.model.input.items()
    }
    found = [FeatureTensor((name,), tensor) for name, tensor in network.model.input.items() if _is_real(tensor)]
    for made, taken in _iterate_operations(network.model):
        origins = [known[id(tensor)] for tensor in taken if id(tensor) in known]
        if not origins:
            continue
        columns = tuple(dict.fromkeys(name for origin in origins for name in origin.columns))
        real_before = any(origin.real for origin in origins)
        masks = any(origin.masks for origin in origins)
        for tensor in made:
            is_first = _is_real(tensor) and not real_before and not masks
            known[id(tensor)] = _TensorOrigin(columns, real_before or is_first, masks or tensor.dtype == "bool")
            if is_first:
                layer = private_api.get_operation(tensor)
                found.append(
                    FeatureTensor(columns, tensor, tuple(layer.widths) if isinstance(layer, OneHotColumns) else ())
                )
    return found


@dataclass(frozen=True)
class _TensorOrigin:
    """Of a tensor: the inputs it is made of, whether a real number was on the way, and whether it tells padding."""

    columns: tuple[str, ...]
    real: bool
    masks: bool


def find_last_maps(network: Network) -> Any | None:
    """What the last convolution gives, `(batch, height, width, channels)` or `(batch, steps, channels)`; None if none.

    It is taken behind its activation, and before pooling makes it smaller.
    """
    last, maps = None, None
    for made, taken in _iterate_operations(network.model):
        for tensor in made:
            if _is_convolution(tensor) or _is_network_of_maps(tensor):
                last = tensor
            same = last is not None and maps is not None and tensor.shape == last.shape
            follows = same and any(before is maps for before in taken)
            if tensor is last or (follows and not _is_dropout(tensor)):
                maps = tensor
    if maps is None or all(size in (None, 1) for size in maps.shape[1:-1]):
        return None
    return maps


def find_embedding(network: Network) -> Any:
    """What the head of the first target judges, `(batch, width)`."""
    target = next(iter(network.model.output.values()))
    return next(
        taken[0] for made, taken in _iterate_operations(network.model) if any(tensor is target for tensor in made)
    )


def build_front(network: Network, tensors: Sequence[Any]) -> keras.Model:
    """From encoded inputs by name to some tensors inside, `{"0": ..., "1": ...}`."""
    with models.allow_column_names():
        return keras.Model(dict(network.model.input), {str(i): tensor for i, tensor in enumerate(tensors)})


@dataclass(frozen=True)
class BackNetwork:
    """From some tensors inside a network, and its encoded inputs, to its outputs by target."""

    model: keras.Model
    columns: tuple[str, ...]

    def __call__(self, values: Sequence[Any], encoded: Mapping[str, Any]) -> Mapping[str, Any]:
        outputs: Mapping[str, Any] = self.model([*values, *(encoded[name] for name in self.columns)], training=False)
        return outputs


def build_back(network: Network, tensors: Sequence[Any]) -> BackNetwork:
    """The rest of the network behind some tensors; encoded inputs are asked for where they are still needed."""
    cut = {id(tensor) for tensor in tensors}
    others = {name: tensor for name, tensor in network.model.input.items() if id(tensor) not in cut}
    model = keras.Model([*tensors, *others.values()], dict(network.model.output))
    return BackNetwork(model, tuple(others))


def list_layer_outputs(network: Network) -> list[tuple[keras.layers.Layer, Any]]:
    """The layers that have weights or an activation, with what they give, in the order of the data flow."""
    found = []
    for made, _ in _iterate_operations(network.model):
        layer = private_api.get_operation(made[0])
        learns = isinstance(layer, keras.layers.Layer) and (layer.weights or isinstance(layer, keras.layers.Activation))
        if learns and _is_real(made[0]) and len(made[0].shape) > 1:
            found.append((layer, made[0]))
    return found


def _iterate_operations(model: keras.Model) -> Iterator[tuple[list[Any], list[Any]]]:
    """What each operation of a network makes, and what it takes, in the order of the data flow."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield keras.tree.flatten(node.outputs), list(node.input_tensors)


def _is_real(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)


def _is_convolution(tensor: Any) -> bool:
    operation = private_api.get_operation(tensor)
    return isinstance(operation, keras.layers.Layer) and "Conv" in type(operation).__name__


def _is_network_of_maps(tensor: Any) -> bool:
    return isinstance(private_api.get_operation(tensor), keras.Model) and len(tensor.shape) == 4


def _is_dropout(tensor: Any) -> bool:
    return "Dropout" in type(private_api.get_operation(tensor)).__name__
