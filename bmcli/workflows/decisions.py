"""Decide on validation rows what the predictions of a trained network depend on: temperatures and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bmcli.answers.decisions import Decision
from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.objectives import open_answers
from bmcli.recipe.schema import Recipe
from bmcli.redaction import introduce
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.training.predictor import predict
from bmcli.workflows.callbacks import ReportCallback


@dataclass(frozen=True)
class CalibratedNetwork:
    """A trained network with the temperatures and thresholds of its outputs.

    Args:
        spec: Description of the data, with temperatures and thresholds in the states of the outputs.
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
    """Decide the temperature and the threshold of each output whose objective has the option.

    They are kept in the data's spec, with which a run is evaluated, predicts and is exported.
    """
    spec, options_by_target = prepared.spec, recipe.decisions()
    if not options_by_target:
        return CalibratedNetwork(network, spec)
    answers, rows = open_answers(spec), prepared.split("validation")
    predictions: Mapping[str, np.ndarray] = {}
    if recipe.decides_on_validation():
        predictions = predict(network, rows, recipe.runtime, placement)
    objectives, decisions = dict(network.objectives), []
    for name, options in options_by_target.items():
        truth = answers[name].read_truth(rows) if predictions else None
        calibrated = answers[name].calibrate(options, truth, predictions.get(name))
        for message in calibrated.messages:
            log(introduce(name, message))
        spec = spec.with_output(calibrated.output)
        objectives[name] = objectives[name].with_output(calibrated.output)
        decisions.append(calibrated.decision)
    return CalibratedNetwork(replace(network, objectives=objectives), spec, tuple(decisions))
