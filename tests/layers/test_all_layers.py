"""Laws of every custom layer."""

from __future__ import annotations

import importlib
import pkgutil

import keras

from bmcli import layers


def test_all_layers_are_registered() -> None:
    layers.register()
    modules = [importlib.import_module(f"bmcli.layers.{m.name}") for m in pkgutil.iter_modules(layers.__path__)]
    own = [
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, keras.layers.Layer) and thing.__module__ == module.__name__
    ]
    assert own
    for layer in own:
        assert keras.saving.get_registered_name(layer) == f"bmcli>{layer.__name__}"
        assert layer.__doc__
