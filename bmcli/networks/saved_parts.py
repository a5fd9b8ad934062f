"""Whether a saved serving model encodes rows, and reads its network's outputs, as the data of its run says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from bmcli.inputs import NETWORK_NAME
from bmcli.quoting import quoted

_TENSOR = "__keras_tensor__"


def find_difference(model: keras.Model, saved: Mapping[str, Any], compare_outputs: bool) -> str:
    """The first input column or target around the network that a saved model treats otherwise, or an empty text.

    Args:
        model: The serving model as its run describes it.
        saved: Configuration of the saved one, from anywhere.
        compare_outputs: Compare what comes after the network too, and not what comes before it alone.
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
        return "what lies around the network"  # the saved configuration is of no serving model
    return ""


class _GraphComparison:
    """The layers of two models by name, compared from an output to the inputs.

    Names that Keras makes up are not compared, nor options that only one version of Keras writes.
    """

    def __init__(self, ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        self._ours, self._saved = ({each["name"]: each for each in of["config"]["layers"]} for of in (ours, saved))
        self._matched_names: dict[str, str] = {NETWORK_NAME: NETWORK_NAME}

    @staticmethod
    def inputs(of: Mapping[str, Any]) -> Mapping[str, Any]:
        """Encoded tensors by column, as the network takes them."""
        network = next(each for each in of["config"]["layers"] if each["name"] == NETWORK_NAME)
        given: Mapping[str, Any] = network["inbound_nodes"][0]["args"][0]
        return given

    def is_equal(self, mine: Any, other: Any) -> bool:
        if isinstance(mine, dict):
            if not isinstance(other, dict):
                return False
            if mine.get("class_name") == _TENSOR:
                (name, *place), (other_name, *other_place) = (each["config"]["keras_history"] for each in (mine, other))
                return place == other_place and self._same_layer(name, other_name)
            shared = mine.keys() & other.keys() - {"shared_object_id"}
            return all(self.is_equal(mine[key], other[key]) for key in shared)
        if isinstance(mine, list):
            return isinstance(other, list) and len(mine) == len(other) and all(map(self.is_equal, mine, other))
        return bool(mine == other)

    def _same_layer(self, name: str, other_name: str) -> bool:
        if name in self._matched_names:
            return self._matched_names[name] == other_name
        self._matched_names[name] = other_name
        mine, other = self._ours[name], self._saved[other_name]
        if mine["class_name"] != other["class_name"]:
            return False
        if mine["class_name"] == "InputLayer" and name != other_name:
            return False
        options = [{key: value for key, value in each["config"].items() if key != "name"} for each in (mine, other)]
        return self.is_equal(*options) and self.is_equal(mine["inbound_nodes"], other["inbound_nodes"])


def _describe_tensor(history: Any) -> dict[str, Any]:
    return {"class_name": _TENSOR, "config": {"keras_history": history}}
