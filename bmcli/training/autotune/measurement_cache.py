"""Cache of measurements of this machine, so that a recipe gets the same choices, and so the same bits, again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bmcli import disk, records
from bmcli.distribution import strategy
from bmcli.training.train_step import CompiledSteps


def make_key(steps: CompiledSteps, *more: Any) -> str:
    """Make the key of a training on this machine: a digest of everything that decides how fast a step is."""
    components, model = steps.components, steps.network.model
    properties = [strategy.describe_placement(steps.placement), tf.__version__, keras.__version__, model.to_json(),
                  type(steps.optimizer).__name__, steps.batch, steps.micro_batches, keras.config.dtype_policy().name,
                  *([components.augmentation.cost_key] if components.augmentation else []),
                  *([components.loss.cost_key] if components.loss.cost_key else []), *more]  # fmt: skip
    return hashlib.sha256(json.dumps(properties, sort_keys=True, default=str).encode()).hexdigest()[:24]


def read_value(folder: Path, key: str, name: str) -> Any:
    """Read a cached value; None if there is none or its file is damaged.

    The caller must check the type, because the file may have been changed.
    """
    try:
        return records.read_record(folder / f"{key}.json").get(name)
    except (OSError, disk.DamagedFile):
        return None


def write_values(folder: Path, key: str, values: Mapping[str, Any]) -> None:
    disk.make_private_folder(folder)
    records.write_record(folder / f"{key}.json", values)
