"""Custom Keras layers, one per module, and Keras objects made from recipes."""

from __future__ import annotations

import importlib
import pkgutil

from bmcli.native_output import hide_native_stderr

# Preparing pictures or texts may import TensorFlow first: it writes lines from C++ while it is imported.
with hide_native_stderr():
    import tensorflow as tf

__all__ = ["register", "tf"]


def register() -> None:
    """Register every layer of this folder with Keras, which loading a saved network needs."""
    # A layer registers itself when its module is imported.
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
