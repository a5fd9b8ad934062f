"""Comparison of a saved serving model with its run: how it encodes rows, and how it interprets outputs.

Weights of the network alone do not show that a file was swapped: with another vocabulary or other classes, predictions
would be wrong without an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from bmcli.inputs import NETWORK_NAME
from bmcli.quoting import quoted

_TENSOR = "__keras_tensor__"


def find_difference(model: keras.Model, saved: Mapping[str, Any], compare_outputs: bool) -> str:
    """Find the first input column or target that a saved model processes differently outside of the network.

    Args:
        model: The serving model as its run describes it.
        saved: Configuration of the saved model, from an untrusted file.
        compare_outputs: Also compare the layers after the network, not only those before it.

    Returns:
        The input or target for a message; an empty text if there is no difference.
    """
    ours: Mapping[str, Any] = json.loads(model.to_json())
    try:
        graphs = _GraphComparison(ours, saved)
        kept = graphs.inputs(saved)
        for column, tensor in graphs.inputs(ours).items():
            if not graphs.is_equal(tensor, kept.get(column)):
                return f"the input {quoted(column)}"
        for target, output in ours["config"]["output_layers"].items() if compare_outputs else ():
            if not graphs.is_equal(
                _describe_tensor(output), _describe_tensor(saved["config"]["output_layers"].get(target))
            ):
                return f"the target {quoted(target)}"
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return "the structure of the model"  # the saved configuration is not that of a serving model
    return ""


class _GraphComparison:
    """Comparison of the layers of two models, from an output to the inputs."""

    # Layers are matched by their place in the graph: Keras numbers names by what a process has built before. Options
    # that only one version of Keras writes are skipped, so that older files still load.

    def __init__(self, ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        self._ours, self._saved = ({each["name"]: each for each in of["config"]["layers"]} for of in (ours, saved))
        self._matched_names: dict[str, str] = {NETWORK_NAME: NETWORK_NAME}

    @staticmethod
    def inputs(of: Mapping[str, Any]) -> Mapping[str, Any]:
        """Encoded tensors by column, which are the inputs of the network."""
        network = next(each for each in of["config"]["layers"] if each["name"] == NETWORK_NAME)
        tensors: Mapping[str, Any] = network["inbound_nodes"][0]["args"][0]
        return tensors

    def is_equal(self, ours: Any, other: Any) -> bool:
        if isinstance(ours, dict):
            if not isinstance(other, dict):
                return False
            if ours.get("class_name") == _TENSOR:
                (name, *place), (other_name, *other_place) = (each["config"]["keras_history"] for each in (ours, other))
                return place == other_place and self._same_layer(name, other_name)
            shared = ours.keys() & other.keys() - {"shared_object_id"}
            return all(self.is_equal(ours[key], other[key]) for key in shared)
        if isinstance(ours, list):
            return isinstance(other, list) and len(ours) == len(other) and all(map(self.is_equal, ours, other))
        return bool(ours == other)

    def _same_layer(self, name: str, other_name: str) -> bool:
        if name in self._matched_names:
            return self._matched_names[name] == other_name
        # Recorded before its inputs are compared, so that a layer that several others share is compared once, and a
        # cycle in the saved configuration ends.
        self._matched_names[name] = other_name
        ours, other = self._ours[name], self._saved[other_name]
        if ours["class_name"] != other["class_name"]:
            return False
        if ours["class_name"] == "InputLayer" and name != other_name:
            return False
        options = [{key: value for key, value in each["config"].items() if key != "name"} for each in (ours, other)]
        return self.is_equal(*options) and self.is_equal(ours["inbound_nodes"], other["inbound_nodes"])


def _describe_tensor(history: Any) -> dict[str, Any]:
    return {"class_name": _TENSOR, "config": {"keras_history": history}}
