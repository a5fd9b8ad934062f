"""What was measured on this machine, remembered, so that the same recipe gets the same answer and bits again."""

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
    """Names a training on this machine: everything that decides how fast a step is."""
    components, model = steps.components, steps.network.model
    described = [strategy.describe_placement(steps.placement), tf.__version__, keras.__version__, model.to_json(),
                 type(steps.optimizer).__name__, steps.batch, steps.micro_batches, keras.config.dtype_policy().name,
                 *([components.augmentation.cost_key] if components.augmentation else []),
                 *([components.loss.cost_key] if components.loss.cost_key else []), *more]  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:24]


def read_value(folder: Path, key: str, name: str) -> Any:
    """A value kept before, which may be of any type; None if there is none, or its file is damaged."""
    try:
        return records.read_record(folder / f"{key}.json").get(name)
    except (OSError, disk.DamagedFile):
        return None


def write_values(folder: Path, key: str, values: Mapping[str, Any]) -> None:
    disk.make_private_folder(folder)
    records.write_record(folder / f"{key}.json", values)
