"""Artefacts of somebody else: whoever makes one writes all of its digests, but no seal of this user."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bmcli import disk, records
from bmcli.export import card

DEEP: Any = json.loads("[" * 400 + "]" * 400)
Path_ = tuple[str | int, ...]


def forge(folder: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> None:
    """Rewrite the card of an artefact with the current digests of its files.

    Args:
        change: Of the card, after the digests.
    """
    values = json.loads((folder / card.CARD).read_bytes())
    del values["sha256"]
    for file in values["files"]:
        if (folder / file["path"]).is_file():
            file["sha256"] = disk.compute_sha256(folder / file["path"])
    if change is not None:
        change(values)
    records.write_record(folder / card.CARD, values)


def forge_preprocessing(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the fitted preprocessing, with a matching card."""
    values = json.loads((folder / card.PREPROCESSING).read_bytes())
    del values["sha256"]
    change(values)
    records.write_record(folder / card.PREPROCESSING, values)
    forge(folder)


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Every field of JSON values; of maps by free names, and of lists but that of the inputs, the first alone."""
    if path:
        yield path
    if isinstance(value, Mapping):
        free = path[-1:] in {("metrics",), ("intervals",)}
        for key in list(value)[:1] if free else value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        for position in range(len(value) if path == ("inputs",) else 1):
            yield from places(value[position], (*path, position))


def put(values: Any, path: Path_, what: Any) -> None:
    """Replace a field."""
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = what


def wrong_type(value: Any) -> Any:
    """A value that no field which holds such a value may hold."""
    if value is None:
        return [7]
    return 7 if isinstance(value, (str, list, Mapping)) else "7"


def value_at(values: Any, path: Path_) -> Any:
    for key in path:
        values = values[key]
    return values


def whole(**changes: Any) -> dict[str, Any]:
    """Every field of a card, of a network that was never trained."""
    weight = {"parameters": 1, "nonzero_share": 1.0, "bytes": 4, "gzip_bytes": 4}
    signature = {
        "name": "serving_default",
        "inputs": [{"name": "x", "column": "x", "form": "raw", "shape": [], "dtype": "float32"}],
        "outputs": [{"name": "y", "target": "y", "role": "number", "shape": [], "dtype": "float32"}],
    }
    verification = {
        "split": "test", "samples": 1, "edge_cases": [], "agreement": 1.0, "max_difference": 0.0, "metrics": {},
        "limits": None, "failures": [], "verified": True, "outputs": {}, "summary": [],
    }  # fmt: skip
    lineage = {
        "run": "a/1", "recipe": "a", "recipe_sha256": "0" * 64, "model_sha256": "0" * 64, "data_fingerprint": "",
        "rows": {}, "seed": 0, "trained_with": {}, "teachers": [],
    }  # fmt: skip
    return {
        "format": "litert",
        "kind": "litert",
        "options": {"compress": [], "quantize": None},
        "precision": "float32",
        "runtime": "litert",
        "model": "model.tflite",
        "modules": [],
        "signatures": [signature],
        "writing": None,
        "bmcli_card": card.CARD_VERSION,
        "name": "a",
        "created": "2026-01-31T12:00:00+0000",
        "license": None,
        "targets": [{"name": "y", "kind": "number", "classes": [], "decision": "the number itself", "state": {}}],
        "columns": [{"name": "x", "kind": "number", "meaning": "a number", "preprocessing": "inside"}],
        "notes": [],
        "example": "",
        "generation": None,
        "request": None,
        "weights": {"model": weight, "compressed": None},
        "evaluation": {},
        "versions": {},
        "bytes": 1,
        "gzip_bytes": 1,
        "model_bytes": 1,
        "model_gzip_bytes": 1,
        "files": [{"path": "model.tflite", "bytes": 1, "sha256": "0" * 64}],
        "seal": None,
        **changes,
        "verification": {**verification, **changes.get("verification", {})},
        "lineage": {**lineage, **changes.get("lineage", {})},
    }
