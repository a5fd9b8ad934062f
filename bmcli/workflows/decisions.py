"""Calibrate a trained network on validation rows: temperatures and thresholds of its targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.distribution.strategy import Placement
from bmcli.evaluation.calibration import fit_temperature, rescale_probabilities
from bmcli.evaluation.decisions import Decision, measure_temperature_scaling
from bmcli.evaluation.threshold import ThresholdChoice, maximize_f1, maximize_recall, minimize_cost
from bmcli.networks.network import Network
from bmcli.recipe.fields import Kind
from bmcli.recipe.schema import Recipe
from bmcli.redaction import introduce
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec, PreparedData, Split
from bmcli.training.predictor import predict
from bmcli.workflows.callbacks import ReportCallback


@dataclass(frozen=True)
class CalibratedNetwork:
    """A trained network with the temperatures and thresholds of its targets.

    Args:
        spec: Description of the data, with temperatures and thresholds in the states of the targets' columns.
        decisions: The choice of each on validation rows, with its effect.
    """

    network: Network
    spec: DataSpec
    decisions: tuple[Decision, ...] = ()

    def save(self, run: Run) -> None:
        """Write the decisions into the run; the spec of the data does not hold them."""
        if self.decisions:
            run.write(run.decisions, {"decisions": [decision.to_json() for decision in self.decisions]})


def calibrate_network(
    recipe: Recipe, network: Network, prepared: PreparedData, placement: Placement, log: ReportCallback
) -> CalibratedNetwork:
    """Choose the temperature and the threshold of each target whose objective has the option.

    They are kept in the data's spec, with which a run is evaluated, predicts and is exported.
    """
    spec, options_by_target = prepared.spec, recipe.decisions()
    if not options_by_target:
        return CalibratedNetwork(network, spec)
    rows = prepared.split("validation")
    predictions = predict(network, rows, recipe.runtime, placement) if recipe.decides_on_validation() else {}
    calibrated = {
        name: _calibrate_target(spec.target(name), options, rows, predictions.get(name), log)
        for name, options in options_by_target.items()
    }
    columns = {name: column for name, (column, _) in calibrated.items()}
    spec = replace(spec, targets=tuple(columns.get(column.name, column) for column in spec.targets))
    # Any, since the protocol of objectives cannot state that each of them is a dataclass.
    objectives: dict[str, Any] = dict(network.objectives)
    objectives |= {name: replace(objectives[name], target=column) for name, column in columns.items()}
    decisions = tuple(decision for _, decision in calibrated.values())
    return CalibratedNetwork(replace(network, objectives=objectives), spec, decisions)


def _calibrate_target(
    column: Column, options: Kind, rows: Split, predictions: np.ndarray | None, log: ReportCallback
) -> tuple[Column, Decision]:
    """Choose temperature and threshold of a target.

    Returns:
        Its column with both in its state, and the decision.
    """
    state, decision = dict(column.state), Decision(column.name, 0)
    threshold = getattr(options, "threshold", None)
    if predictions is None:
        return replace(column, state={**state, "threshold": threshold}), decision
    truth = target_kinds.kind_of(column).decode(rows.targets[column.name], column)
    decision = replace(decision, rows=len(truth))
    if getattr(options, "calibrate", "none") == "temperature":
        independent = column.kind == "labels"  # a sigmoid for each label, no softmax over all
        state["temperature"] = temperature = fit_temperature(truth, predictions, independent)
        scaled = rescale_probabilities(predictions, temperature, independent)
        decision = replace(
            decision, temperature_scaling=measure_temperature_scaling(column, truth, predictions, scaled, temperature)
        )
        predictions = scaled
        log(introduce(column.name, f"temperature {temperature:.3f}, fitted on {len(truth):,} validation rows"))
    if isinstance(threshold, float):
        state["threshold"] = threshold
    elif threshold is not None:
        # After the temperature, since the threshold applies to scaled probabilities.
        chosen = _choose_threshold(threshold, truth == 1, predictions[:, 1])
        state["threshold"] = chosen.value
        decision = replace(decision, positive=column.classes[1], threshold=chosen)
        log(introduce(column.name, decision.summary))
    return replace(column, state=state), decision


def _choose_threshold(options: Any, positive: np.ndarray, scores: np.ndarray) -> ThresholdChoice:
    if options.goal == "f1":
        return maximize_f1(positive, scores)
    if options.goal == "cost":
        return minimize_cost(positive, scores, options.false_positive, options.false_negative)
    return maximize_recall(positive, scores, options.precision)
