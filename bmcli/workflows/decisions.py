"""What is decided on the validation rows once a network is trained: temperatures and thresholds of its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.distribution.strategy import Placement
from bmcli.evaluation import threshold as thresholds
from bmcli.evaluation.calibration import fit_temperature, rescale_probabilities
from bmcli.evaluation.decisions import Decision, measure_temperature_scaling
from bmcli.networks.network import Network
from bmcli.recipe.fields import Kind
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec, PreparedData, Split
from bmcli.training.predictor import predict

ReportCallback = Callable[[str], object]


@dataclass(frozen=True)
class CalibratedNetwork:
    """A trained network with what was decided about its targets.

    Args:
        spec: Of the data, with temperatures and thresholds in the states of the targets' columns.
        decisions: What was found on validation rows.
    """

    network: Network
    spec: DataSpec
    decisions: tuple[Decision, ...] = ()

    def save(self, run: Run) -> None:
        """Writes what is not in the data's spec into the run."""
        if self.decisions:
            run.write(run.decisions, {"decisions": [each.to_json() for each in self.decisions]})


def calibrate_network(
    recipe: Recipe, network: Network, prepared: PreparedData, placement: Placement, log: ReportCallback
) -> CalibratedNetwork:
    """Finds the temperature and the threshold of each target that asks for one.

    They are kept in the data's spec, with which a run is evaluated, predicts and is exported.
    """
    spec, asking = prepared.spec, recipe.decisions()
    if not asking:
        return CalibratedNetwork(network, spec)
    rows = prepared.split("validation")
    found = predict(network, rows, recipe.runtime, placement) if recipe.decides_on_validation() else {}
    decided = {
        name: _calibrate_target(spec.target(name), options, rows, found.get(name), log)
        for name, options in asking.items()
    }
    columns = {name: column for name, (column, _) in decided.items()}
    spec = replace(spec, targets=tuple(columns.get(column.name, column) for column in spec.targets))
    objectives: dict[str, Any] = {
        name: replace(objective, target=columns[name]) if name in columns else objective  # type: ignore[type-var]
        for name, objective in network.objectives.items()
    }
    return CalibratedNetwork(replace(network, objectives=objectives), spec, tuple(each for _, each in decided.values()))


def _calibrate_target(
    column: Column, options: Kind, rows: Split, predictions: np.ndarray | None, log: ReportCallback
) -> tuple[Column, Decision]:
    """The target's column with what was decided about it, and by what."""
    state, decision = dict(column.state), Decision(column.name, 0)
    threshold = getattr(options, "threshold", None)
    if predictions is None:
        return replace(column, state={**state, "threshold": threshold}), decision
    truth = target_kinds.kind_of(column).decode(rows.targets[column.name], column)
    decision = replace(decision, rows=len(truth))
    if getattr(options, "calibrate", "none") == "temperature":
        independent = column.kind == "labels"
        state["temperature"] = temperature = fit_temperature(truth, predictions, independent)
        scaled = rescale_probabilities(predictions, temperature, independent)
        decision = replace(
            decision, temperature_scaling=measure_temperature_scaling(column, truth, predictions, scaled, temperature)
        )
        predictions = scaled
        log(f"{column.name}: temperature {temperature:.3f}, fitted on {len(truth):,} validation rows")
    if isinstance(threshold, float):
        state["threshold"] = threshold
    elif threshold is not None:
        chosen = _choose_threshold(threshold, truth == 1, predictions[:, 1])
        state["threshold"] = chosen.value
        decision = replace(decision, positive=column.classes[1], threshold=chosen)
        log(f"{column.name}: {decision.summary}")
    return replace(column, state=state), decision


def _choose_threshold(options: Any, positive: np.ndarray, scores: np.ndarray) -> thresholds.ThresholdChoice:
    if options.goal == "f1":
        return thresholds.maximize_f1(positive, scores)
    if options.goal == "cost":
        return thresholds.minimize_cost(positive, scores, options.false_positive, options.false_negative)
    return thresholds.maximize_recall(positive, scores, options.precision)
