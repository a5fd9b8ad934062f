"""Whether XLA makes the step of a model faster here: measured once, then remembered."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bmcli import disk
from bmcli.training import strategy
from bmcli.training.step import Steps

WORTHWHILE_S = 20.0  # Compiling takes 2 to 5 s on a CPU; a shorter training cannot win it back.
ROUNDS = 4
FASTER = 1.15  # XLA must win by more than the noise of a measurement.


def choose(make: Callable[[bool], Steps], order: tf.Tensor, steps_in_all: int, cache: Path) -> tuple[bool, Steps]:
    """XLA or not for this machine and model, and the steps compiled so.

    The first answer is remembered below `cache`, so that the same recipe gives the same bits again: XLA and plain
    kernels round differently.
    """
    plain = make(False)
    if strategy.device().endswith("CPU:0") and _has_convolutions(plain.network.model):
        return False, plain  # always slower there
    memory = cache / "jit" / f"{_key(plain, steps_in_all)}.json"
    remembered = _recall(memory)
    if remembered is None:
        remembered = _measure(plain, make, order, steps_in_all)
        memory.parent.mkdir(parents=True, exist_ok=True)
        disk.write_json(memory, remembered)
    return remembered["jit"], make(True) if remembered["jit"] else plain


def _measure(plain: Steps, make: Callable[[bool], Steps], order: tf.Tensor, steps_in_all: int) -> dict[str, Any]:
    if len(order) < plain.batch:
        return {"jit": False, "plain_s": None, "xla_s": None}
    (plain_s,) = _seconds_a_step([plain], order)
    xla_s = None
    if plain_s * steps_in_all > WORTHWHILE_S:
        plain_s, xla_s = _seconds_a_step([plain, make(True)], order)
    return {"jit": xla_s is not None and plain_s > FASTER * xla_s, "plain_s": plain_s, "xla_s": xla_s}


def _seconds_a_step(ways: Sequence[Steps], order: tf.Tensor) -> list[float]:
    """Seconds of one step of each way once compiled; every variable is as before afterwards.

    The ways take turns and the best of each counts, so that other work on the machine does not decide.
    """
    first = ways[0]
    variables = [*first.network.model.variables, *first.optimizer.variables, *first.meters.variables]
    before = [variable.numpy() for variable in variables]
    count = min(8, len(order) // first.batch)
    for steps in ways:
        steps.many(order, 0, 1)
    best = [math.inf] * len(ways)
    for _ in range(ROUNDS):
        for way, steps in enumerate(ways):
            start = time.perf_counter()
            steps.many(order, 0, count)
            best[way] = min(best[way], (time.perf_counter() - start) / count)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return best


def _has_convolutions(model: keras.Model) -> bool:
    return any("Conv" in type(layer).__name__ for layer in model._flatten_layers())


def _key(steps: Steps, steps_in_all: int) -> str:
    machine = strategy.describe()
    model = steps.network.model
    described = [machine, tf.__version__, keras.__version__, model.to_json(), type(steps.optimizer).__name__,
                 steps.batch, steps.feed.count, steps_in_all, keras.config.dtype_policy().name]  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _recall(memory: Path) -> dict[str, Any] | None:
    try:
        remembered = json.loads(memory.read_text())
        return remembered if isinstance(remembered["jit"], bool) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
