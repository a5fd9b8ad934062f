"""Layers of a network by name or by depth."""

from __future__ import annotations

import math
from typing import Any

import keras

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.quoting import quoted

_NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)
_DROPOUTS = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D)


def find_layer_output(model: keras.Model, selector: str | float, display_name: str, path: str) -> Any:
    """What a layer computes, as a symbolic tensor of the model.

    Args:
        selector: A layer's name; or a depth above 0 and up to 1, the share of the layers with weights that are passed,
            those of the outputs left out. What follows such a layer, as an activation, is part of it.
        display_name: What a user calls the network.
        path: Of the recipe, for faults.

    Raises:
        BmcliError: There is no such layer, or it computes several things.
    """
    layer = (
        _find_by_name(model, selector, display_name, path)
        if isinstance(selector, str)
        else _find_by_depth(model, selector, display_name, path)
    )
    try:
        tensor = layer.output
    except (AttributeError, ValueError):
        tensor = None
    if not isinstance(tensor, keras.KerasTensor) or None in tensor.shape[1:]:
        raise BmcliError(
            f"layer {quoted(layer.name)} of {display_name} does not compute one tensor of one size.", path=path
        )
    return tensor


def _find_by_name(model: keras.Model, name: str, shown: str, path: str) -> keras.layers.Layer:
    names = [layer.name for layer in model.layers]
    if name not in names:
        hint = parts.did_you_mean(name, names) or f"Some of its layers: {', '.join(names[-12:])}."
        raise BmcliError(f"{shown} has no layer {quoted(name)}.", path=path, suggestion=hint)
    return model.get_layer(name)


def _find_by_depth(model: keras.Model, depth: float, shown: str, path: str) -> keras.layers.Layer:
    outputs = {id(tensor) for tensor in keras.tree.flatten(model.output)}
    places = [
        place for place, layer in enumerate(model.layers) if _has_own_weights(layer) and not _is_output(layer, outputs)
    ]
    if not places:
        raise BmcliError(f"{shown} has no layer before its outputs.", path=path)
    passed = max(1, math.ceil(depth * len(places) - 1e-9))
    first, *later = places[passed - 1 :]
    end = later[0] if later else len(model.layers)
    chosen = model.layers[first]
    for layer in model.layers[first + 1 : end]:
        follows = not isinstance(layer, _DROPOUTS) and not _is_output(layer, outputs)
        if follows and _output_shape(layer) == _output_shape(chosen):
            chosen = layer
    return chosen


def _has_own_weights(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, _NORMALIZATIONS)


def _is_output(layer: keras.layers.Layer, outputs: set[int]) -> bool:
    return _output_tensor(layer) is not None and id(_output_tensor(layer)) in outputs


def _output_shape(layer: keras.layers.Layer) -> Any:
    tensor = _output_tensor(layer)
    return None if tensor is None else tuple(tensor.shape)


def _output_tensor(layer: keras.layers.Layer) -> Any:
    """What a layer computes, or None if it was not called just once."""
    try:
        tensor = layer.output
    except (AttributeError, ValueError):
        return None
    return tensor if isinstance(tensor, keras.KerasTensor) else None
