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
    """Find the output of a layer, as a symbolic tensor of the model.

    Args:
        selector: A layer's name; or a relative depth above 0 and up to 1: a share of the layers with weights, without
            output layers. Layers of the same shape after such a layer, such as an activation, belong to it.
        display_name: Name of the network for messages.
        path: Of the recipe, for faults.

    Raises:
        BmcliError: There is no such layer, or it has several outputs.
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
            f"layer {quoted(layer.name)} of {display_name} does not have exactly one output of a fixed size.", path=path
        )
    return tensor


def _find_by_name(model: keras.Model, name: str, display_name: str, path: str) -> keras.layers.Layer:
    names = [layer.name for layer in model.layers]
    if name not in names:
        hint = parts.did_you_mean(name, names) or f"Some of its layers: {', '.join(names[-12:])}."
        raise BmcliError(f"{display_name} has no layer {quoted(name)}.", path=path, suggestion=hint)
    return model.get_layer(name)


def _find_by_depth(model: keras.Model, depth: float, display_name: str, path: str) -> keras.layers.Layer:
    outputs = {id(tensor) for tensor in keras.tree.flatten(model.output)}
    indices = [
        index for index, layer in enumerate(model.layers) if _has_own_weights(layer) and not _is_output(layer, outputs)
    ]
    if not indices:
        raise BmcliError(f"{display_name} has no layer before its outputs.", path=path)
    # Less a little, so that rounding does not make a third of three layers two.
    number = max(1, math.ceil(depth * len(indices) - 1e-9))
    first, *later = indices[number - 1 :]
    end = later[0] if later else len(model.layers)
    output_layer = model.layers[first]
    for layer in model.layers[first + 1 : end]:
        is_continuation = not isinstance(layer, _DROPOUTS) and not _is_output(layer, outputs)
        if is_continuation and _get_output_shape(layer) == _get_output_shape(output_layer):
            output_layer = layer
    return output_layer


def _has_own_weights(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, _NORMALIZATIONS)


def _is_output(layer: keras.layers.Layer, outputs: set[int]) -> bool:
    return _get_output(layer) is not None and id(_get_output(layer)) in outputs


def _get_output_shape(layer: keras.layers.Layer) -> Any:
    tensor = _get_output(layer)
    return None if tensor is None else tuple(tensor.shape)


def _get_output(layer: keras.layers.Layer) -> Any:
    """Get the output of a layer, None unless it was called exactly once."""
    try:
        tensor = layer.output
    except (AttributeError, ValueError):
        return None
    return tensor if isinstance(tensor, keras.KerasTensor) else None
