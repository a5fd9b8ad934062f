"""Encoder of raw cells for the network of an artefact; it only needs NumPy, and Pillow for files of pictures.

    columns = {column["name"]: column for column in json.load(open("preprocessing.json"))["inputs"]}
    encoded = encode(columns["age"], [34, None, 51])

Cells are strings for texts, and for categories, dates and booleans that are text, with "" for a missing value; numbers
otherwise, with NaN or None for a missing value. Pictures of a model that was trained on files are the bytes of such a
file, or its path, with b"" or None for a missing value; others are arrays `(height, width)` or `(height, width,
channels)`, of any size. A file can also be given as the array of its pixels: upright, with transparency, in uint8, or
in uint16 if `column["state"]["bits"]` is 16.

This folder is copied to every artefact with preprocessing outside the model, with a module for each kind of input.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_added: dict[str, ModuleType] = {}  # modules of kinds that are no part of this folder


def encode(column: Mapping[str, Any], cells: Any) -> np.ndarray:
    """Encode cells of one column as an array `(rows, *column["shape"])` of `column["dtype"]`."""
    kind = column["kind"]
    module = _added.get(kind) or importlib.import_module(f".{kind}", __name__)
    return np.asarray(module.encode(column, cells), column["dtype"]).reshape(-1, *column["shape"])


def add_encoder(kind: str, file: Path) -> None:
    """Add a file as the encoder of a kind: its function `encode` takes a column and its cells."""
    spec = importlib.util.spec_from_file_location(f"{__name__}.{kind}", file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a .py file always has a spec
    spec.loader.exec_module(module)  # type: ignore[union-attr]  # and a loader
    _added[kind] = module
