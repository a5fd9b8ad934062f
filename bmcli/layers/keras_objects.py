"""Keras objects from their description in a recipe."""

from __future__ import annotations

from typing import Any

import keras

from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject


def make_keras_object(family: str, config: KerasObject | None, **fixed: Any) -> Any:
    """The Keras object a recipe describes: `make("optimizers", KerasObject("adam"), learning_rate=1e-3)`.

    Activations come as functions, everything else as a new instance; None stays None.

    Raises:
        TypeError, ValueError: Keras refuses the options.
    """
    if config is None:
        return None
    room = keras.optimizers.schedules if family == "schedules" else getattr(keras, family)
    thing = getattr(room, catalogue.get_entry(family, config.kind)["object"])
    options = {name: _make_nested(name, value) for name, value in config.options.items()}
    return thing if family == "activations" else thing(**options, **fixed)


def _make_nested(option: str, value: Any) -> Any:
    """A nested description (`kernel_initializer: {kind: he_normal}`) as the object it describes."""
    family = catalogue.get_option_family(option)
    if family is None or value is None:
        return value
    if isinstance(value, str):
        return make_keras_object(family, KerasObject(value))
    return make_keras_object(family, KerasObject(value["kind"], {k: v for k, v in value.items() if k != "kind"}))
