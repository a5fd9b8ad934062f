"""What is decided on the validation rows once a network is trained: temperatures and thresholds of its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.evaluation import threshold as thresholds
from bmcli.evaluation.calibration import fit_temperature, soften
from bmcli.recipe.fields import Kind
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, Prepared, Split
from bmcli.training.network import Network
from bmcli.training.predict import predict
from bmcli.training.strategy import Placement

Told = Callable[[str], object]


def decide(
    recipe: Recipe, network: Network, prepared: Prepared, placement: Placement, told: Told
) -> tuple[Network, DataSpec]:
    """The network and the data with the temperature and the threshold of each target that asks for one.

    They are of the data's spec, in the state of the target's column: with it a run is evaluated, predicts and is
    exported.
    """
    spec, asking = prepared.spec, recipe.decisions()
    if not asking:
        return network, spec
    rows = prepared.split("validation")
    found = predict(network, rows, recipe.runtime, placement) if recipe.decides_on_validation() else {}
    columns = {
        name: _decided(spec.target(name), options, rows, found.get(name), told) for name, options in asking.items()
    }
    spec = replace(spec, targets=tuple(columns.get(column.name, column) for column in spec.targets))
    decided: dict[str, Any] = {
        name: replace(objective, target=columns[name]) if name in columns else objective  # type: ignore[type-var]
        for name, objective in network.objectives.items()
    }
    return replace(network, objectives=decided), spec


def _decided(column: Column, options: Kind, rows: Split, found: np.ndarray | None, told: Told) -> Column:
    """The target's column with what was decided about it."""
    state = dict(column.state)
    threshold = getattr(options, "threshold", None)
    if found is None:
        return replace(column, state={**state, "threshold": threshold})
    truth = target_kinds.kind_of(column).decode(rows.targets[column.name], column)
    if getattr(options, "calibrate", "none") == "temperature":
        independent = column.kind == "labels"
        temperature = fit_temperature(truth, found, independent)
        found = soften(found, temperature, independent)
        state["temperature"] = temperature
        told(f"{column.name}: temperature {temperature:.3f}, fitted on {len(truth):,} validation rows")
    if isinstance(threshold, float):
        state["threshold"] = threshold
    elif threshold is not None:
        chosen = _chosen(threshold, truth == 1, found[:, 1])
        state["threshold"] = chosen.value
        told(
            f"{column.name}: '{column.classes[1]}' is predicted from a probability of {chosen.value:.4f} on, for "
            f"{chosen.goal} of {len(truth):,} validation rows"
        )
    return replace(column, state=state)


def _chosen(options: Any, positive: np.ndarray, scores: np.ndarray) -> thresholds.Chosen:
    if options.goal == "f1":
        return thresholds.best_f1(positive, scores)
    if options.goal == "cost":
        return thresholds.lowest_cost(positive, scores, options.false_positive, options.false_negative)
    return thresholds.most_recall(positive, scores, options.precision)
