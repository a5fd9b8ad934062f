"""Keras layers of our own, one a module, and Keras objects made from recipes."""

from __future__ import annotations

import importlib
import pkgutil

from bmcli.native_output import hide_native_stderr

with hide_native_stderr():  # Whoever prepares pictures or texts may be the first to start it.
    import tensorflow as tf

__all__ = ["register", "tf"]


def register() -> None:
    """Makes every layer of this folder known to Keras, as loading a saved network needs."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
