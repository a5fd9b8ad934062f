"""Custom Keras layers, one per module, and Keras objects made from recipes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bmcli import parts, plugins
from bmcli.native_output import hide_native_stderr

if TYPE_CHECKING:
    import keras

# Preparing pictures or texts may import TensorFlow first: it writes lines from C++ while it is imported.
with hide_native_stderr():
    import tensorflow as tf

__all__ = ["AddedLayers", "list_added", "register", "tf"]


class AddedLayers(Protocol):
    """Interface of a part of this room, which only plug-ins add; the modules of this folder are layers themselves."""

    def list_layers(self) -> Sequence[type[keras.layers.Layer]]:
        """Import and list the layers that files of networks may have; each registers itself with Keras."""


def register() -> None:
    """Register every layer of this folder and of plug-ins with Keras, which loading a saved network needs."""
    # A layer registers itself when its module is imported.
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    list_added()


def list_added() -> frozenset[type]:
    """List the layers that plug-ins add, beside which networks from files may have none that is not built in.

    Raises:
        BmcliError: A plug-in cannot be loaded.
    """
    added: list[AddedLayers] = [parts.load("layers", kind) for kind in plugins.list_kinds("layers")]
    return frozenset(layer for part in added for layer in part.list_layers())
