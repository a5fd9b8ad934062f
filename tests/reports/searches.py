"""Searches as they come out, without training anything."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bmcli.recipe.search import SearchParameter
from bmcli.trials import SearchObjective, SearchResult, Task, Trial, TrialResult

ACCURACY = SearchObjective("validation/accuracy", "max")
LOSS = SearchObjective("validation/loss", "min")
PARAMETERS = SearchObjective("parameters", "min")

RATE, HIDDEN, DROPOUT = "train.optimizer.learning_rate", "model.hidden", "model.dropout"
SPACE: dict[str, SearchParameter] = {
    RATE: SearchParameter("float", low=1e-4, high=1e-1, scale="log"),
    HIDDEN: SearchParameter("choice", ([16], [32, 32], [64, 64, 64], [128, 128, 128, 128])),
    DROPOUT: SearchParameter("float", low=0.0, high=0.5),
    "train.batch_size": SearchParameter("int", low=16, high=256, scale="log"),
    "train.optimizer.kind": SearchParameter("choice", ("adam", "adamw", "sgd")),
    "train.optimizer.momentum": SearchParameter("float", low=0.0, high=0.99, when={"train.optimizer.kind": ("sgd",)}),
    "model.batch_normalization": SearchParameter("bool", (False, True)),
}


def drawn(space: Mapping[str, SearchParameter], chance: random.Random) -> dict[str, Any]:
    """A candidate, conditions kept."""
    values: dict[str, Any] = {}
    for path, one in space.items():
        if one.is_active(values):
            values[path] = _value(one, chance)
    return values


def _value(one: SearchParameter, chance: random.Random) -> Any:
    if one.low is None or one.high is None:
        return chance.choice(one.values)
    low, high = (math.log(one.low), math.log(one.high)) if one.scale == "log" else (one.low, one.high)
    value = chance.uniform(low, high)
    value = math.exp(value) if one.scale == "log" else value
    return round(value) if one.kind == "int" else value


def accuracy(values: dict[str, Any], chance: random.Random) -> float:
    """Made so that the learning rate matters most, then the size; the rest is noise."""
    off = math.log10(values.get(RATE, 3e-3)) - math.log10(3e-3)
    size = sum(values.get(HIDDEN, [32]))
    return 0.93 - 0.08 * off**2 - 0.4 / size**0.7 + chance.gauss(0, 0.005)


def search(
    count: int,
    space: Mapping[str, SearchParameter] = SPACE,
    objectives: tuple[SearchObjective, ...] = (ACCURACY,),
    seed: int = 0,
    measure: Callable[[dict[str, Any], random.Random], float] = accuracy,
    fail: float = 0.0,
    stop: float = 0.0,
) -> SearchResult:
    """A search of which each trial is measured by a function of its values, or fails."""
    chance = random.Random(seed)
    trials = []
    for number in range(count):
        values = drawn(space, chance)
        name = f"{number:04}"
        value = measure(values, chance)
        fate = chance.random()
        size = 1e3 + 50.0 * sum(values.get(HIDDEN, [32])) ** 2
        if fate < fail:
            result = TrialResult(
                name, "failed", reason="killed by SIGKILL, as happens when memory runs out", seconds=2.0
            )
        else:
            state = "stopped" if fate < fail + stop else "done"
            epochs = 4 if state == "stopped" else 12
            measured = {one.name: size if one is PARAMETERS else value for one in objectives}
            sign = -1 if objectives[0].direction == "max" else 1
            curve = tuple(sign * value * (1 - 0.6 * math.exp(-0.5 * epoch)) for epoch in range(1, epochs + 1))
            result = TrialResult(name, state, measured, curve, epochs=epochs, seconds=3.0 + chance.random())
        trials.append(Trial(Task(name, values), result))
    searched = SearchResult("digits", "random", objectives, space, tuple(trials), seconds=count * 3.5)
    best = searched.best()
    return replace(searched, winner=best.task.name if best else None)
