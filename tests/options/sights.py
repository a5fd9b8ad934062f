"""What a recipe does: prepared arrays, a network before its first step, and a training of a few steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.distribution import strategy
from bmcli.networks.network import Network
from bmcli.recipe.schema import Recipe
from bmcli.specs import PreparedData
from bmcli.training import build_network, prepare_data
from tests.trainers import COLUMNS, table

SPLITS = ("train", "validation", "test")


def digest(*values: Any) -> str:
    """Digest arrays by their bits, and other values by their text."""
    hashed = hashlib.sha256()
    for value in values:
        if isinstance(value, (list, tuple)):
            hashed.update(digest(*value).encode())
        elif isinstance(value, Mapping):
            hashed.update(digest(*([str(key), each] for key, each in value.items())).encode())
        elif isinstance(value, np.ndarray):
            hashed.update(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
        else:
            hashed.update(f"{type(value).__name__} {value!r}".encode())
        hashed.update(b"|")
    return hashed.hexdigest()


def see_arrays(recipe: Recipe, cache: Path) -> str:
    """Digest the encoded rows of all splits, and the order of columns and classes."""
    return digest_arrays(prepare_data(recipe, cache))


def digest_arrays(prepared: PreparedData) -> str:
    columns = [(column.name, column.shape, column.dtype, column.classes) for column in prepared.spec.inputs]
    targets = [(column.name, column.classes) for column in prepared.spec.targets]
    rows = [
        (name, {key: np.asarray(array) for key, array in (*split.inputs.items(), *split.targets.items())},
         None if split.weights is None else np.asarray(split.weights))
        for name in SPLITS
        if prepared.spec.counts.get(name)
        for split in [prepared.split(name)]
    ]  # fmt: skip
    return digest(columns, targets, rows)


def make_network(recipe: Recipe, prepared: PreparedData) -> Network:
    placement = strategy.create_placement(recipe.runtime)
    return build_network(recipe, prepared.spec, prepared.split("train").targets, placement)


def see_network(recipe: Recipe, cache: Path) -> str:
    """Digest the layers of a network and its initial weights."""
    model = make_network(recipe, prepare_data(recipe, cache)).model
    regularizers = [str(layer.get_config()) for layer in model.layers]
    return digest(json.loads(model.to_json()), regularizers, [weight.numpy() for weight in model.weights])


@contextmanager
def eager_steps() -> Iterator[None]:
    """Run compiled functions one operation at a time: for a few steps tracing takes longer."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def make_archive(folder: Path, train: int = 17, validation: int = 9) -> Path:
    """An archive with columns of every kind, and a second one of texts of other lengths."""
    path = folder / "rows.npz"
    columns = {}
    for split, count in {"train": train, "validation": validation}.items():
        rows = table(count)
        columns |= {f"{name}_{split}": array for name, array in (rows | {"words": rows["text"][::-1]}).items()}
    np.savez(path, **columns)
    return path


def describe_archive(path: Path, columns: tuple[str, ...], target: str = "label", kind: str = "category") -> Any:
    """Section `data` of columns of the archive."""
    return {
        "source": {"kind": "npz", "path": str(path)},
        "inputs": {name: {"kind": COLUMNS[name]} for name in columns},
        "targets": {target: {"kind": kind}},
    }
