"""Keras layers of our own, one a module, and Keras objects made from recipes."""

from __future__ import annotations

import importlib
import pkgutil


def register() -> None:
    """Makes every layer of this folder known to Keras, as loading a saved network needs."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
