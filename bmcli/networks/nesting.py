"""Two views of one network: a single graph of all layers, or a backbone and heads as models of their own.

The single graph is trained, explained, pruned and exported, because all of these look at layers; models of their own
can be taken from a saved network. Both consist of the same layers and compute the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from bmcli import inputs, models, private_api
from bmcli.models import Features


@dataclass(frozen=True)
class TensorPlace:
    """Place of a tensor in a graph, which is the same in every copy of the graph.

    Args:
        node: Index of the call of an operation that computes it.
        output: Its index among the outputs of that call.
    """

    node: int
    output: int


Boundary = Mapping[str, TensorPlace]
"""The tensors of a backbone that one head reads, by name."""


def find_boundaries(
    model: keras.Model, features: Mapping[str, Features], forms: Mapping[str, str]
) -> dict[str, Boundary]:
    """Find for each target where its head begins: at the features, or at tensors from which these are computed.

    Args:
        features, forms: Features of each target, and their name.
    """
    names: dict[int, str] = {}
    for target, each in features.items():
        for suffix, tensor in (("", each.tensor), ("_mask", each.mask), ("_embedding", each.embedding)):
            for number, one in enumerate(keras.tree.flatten(tensor)):
                names.setdefault(id(one), f"{forms[target]}{suffix}{number or ''}")
    places = {
        id(tensor): TensorPlace(index, output)
        for index, node in enumerate(private_api.list_nodes(model))
        for output, tensor in enumerate(node.output_tensors)
    }
    boundaries: dict[str, Boundary] = {}
    for target, each in features.items():
        read = _find_read_tensors(
            model.output[target], _list_upstream(keras.tree.flatten((each.tensor, each.mask, each.embedding)))
        )
        for tensor in read:
            names.setdefault(id(tensor), f"{forms[target]}_{len(names)}")
        boundaries[target] = {names[id(tensor)]: places[id(tensor)] for tensor in read}
    return boundaries


def _list_upstream(tensors: Iterable[Any]) -> set[int]:
    """List the ids of tensors, and of all those from which they are computed."""
    found: set[int] = set()
    pending = [tensor for tensor in tensors if tensor is not None]
    while pending:
        tensor = pending.pop()
        if id(tensor) not in found:
            found.add(id(tensor))
            pending += private_api.get_sources(tensor)
    return found


def _find_read_tensors(outputs: Any, upstream: set[int]) -> list[Any]:
    """Find the tensors of a backbone from which the outputs of a head are computed."""
    read: dict[int, Any] = {}
    seen: set[int] = set()
    pending = keras.tree.flatten(outputs)
    while pending:
        tensor = pending.pop(0)
        sources = private_api.get_sources(tensor)
        if id(tensor) in upstream or not sources:
            read[id(tensor)] = tensor
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            pending += sources
    return list(read.values())


def nest_network(model: keras.Model, boundaries: Mapping[str, Boundary]) -> keras.Model:
    """Build the model of a backbone and a head for each target, of the layers of a single graph.

    The backbone maps encoded inputs to the tensors that heads read, by name.
    """
    nodes = private_api.list_nodes(model)
    tensors = {
        name: nodes[place.node].output_tensors[place.output]
        for boundary in boundaries.values()
        for name, place in boundary.items()
    }
    names = inputs.make_unique_names(
        [f"head_{target}" for target in boundaries], [inputs.BACKBONE_NAME, *(tensor.name for tensor in model.inputs)]
    )
    outputs = {}
    with models.allow_column_names():
        backbone = keras.Model(dict(model.input), tensors, name=inputs.BACKBONE_NAME)
        features = backbone(dict(model.input))
        for target, boundary in boundaries.items():
            head = keras.Model([tensors[name] for name in boundary], model.output[target], name=names[f"head_{target}"])
            outputs[target] = head([features[name] for name in boundary])
    return models.create_keras_model(model.input, outputs)
