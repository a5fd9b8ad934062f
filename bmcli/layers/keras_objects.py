"""Keras objects made from their description in a recipe."""

from __future__ import annotations

from typing import Any

import keras

from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject


def make_keras_object(family: str, config: KerasObject | None, **fixed: Any) -> Any:
    """Make the Keras object that a recipe describes.

    For example `make_keras_object("optimizers", KerasObject("adam"), learning_rate=1e-3)`.

    Args:
        fixed: Options that the recipe cannot set.

    Returns:
        A function for activations, a new instance for everything else; None for None.

    Raises:
        TypeError, ValueError: Keras refuses the options.
    """
    if config is None:
        return None
    module = keras.optimizers.schedules if family == "schedules" else getattr(keras, family)
    member = getattr(module, catalogue.get_entry(family, config.kind)["object"])
    options = {name: _make_nested(name, value) for name, value in config.options.items()}
    if family == "activations":
        return member
    # An attribute of every layer, but not an argument of all, such as SpatialDropout1D.
    is_frozen = family == "layers" and not options.pop("trainable", True)
    made = member(**options, **fixed)
    if is_frozen:
        made.trainable = False
    return made


def _make_nested(option: str, value: Any) -> Any:
    """Make the object of a nested description, such as `kernel_initializer: {kind: he_normal}`."""
    family = catalogue.get_option_family(option)
    if family is None or value is None:
        return value
    if isinstance(value, str):
        return make_keras_object(family, KerasObject(value))
    return make_keras_object(family, KerasObject(value["kind"], {k: v for k, v in value.items() if k != "kind"}))
