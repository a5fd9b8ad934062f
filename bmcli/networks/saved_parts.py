"""Whether a saved serving model encodes rows, and reads its network's outputs, as the data of its run says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from bmcli.inputs import NETWORK
from bmcli.quoting import quoted

_TENSOR = "__keras_tensor__"


def first_difference(model: keras.Model, saved: Mapping[str, Any], whole: bool) -> str:
    """The first input column or target around the network that a saved model treats otherwise, or an empty text.

    Args:
        model: The serving model as its run describes it.
        saved: Configuration of the saved one, from anywhere.
        whole: Compare what comes after the network too, and not what comes before it alone.
    """
    ours: Mapping[str, Any] = json.loads(model.to_json())
    try:
        graphs = _Graphs(ours, saved)
        kept = graphs.inputs(saved)
        for column, tensor in graphs.inputs(ours).items():
            if not graphs.agree(tensor, kept.get(column)):
                return f"the input {quoted(column)}"
        for target, output in ours["config"]["output_layers"].items() if whole else ():
            if not graphs.agree(_tensor(output), _tensor(saved["config"]["output_layers"].get(target))):
                return f"the target {quoted(target)}"
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return "what lies around the network"  # the saved configuration is of no serving model
    return ""


class _Graphs:
    """The layers of two models by name, compared from an output to the inputs.

    Names that Keras makes up are not compared, nor options that only one version of Keras writes.
    """

    def __init__(self, ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        self._ours, self._saved = ({each["name"]: each for each in of["config"]["layers"]} for of in (ours, saved))
        self._paired: dict[str, str] = {NETWORK: NETWORK}

    @staticmethod
    def inputs(of: Mapping[str, Any]) -> Mapping[str, Any]:
        """Encoded tensors by column, as the network takes them."""
        network = next(each for each in of["config"]["layers"] if each["name"] == NETWORK)
        given: Mapping[str, Any] = network["inbound_nodes"][0]["args"][0]
        return given

    def agree(self, mine: Any, other: Any) -> bool:
        if isinstance(mine, dict):
            if not isinstance(other, dict):
                return False
            if mine.get("class_name") == _TENSOR:
                (name, *place), (other_name, *other_place) = (each["config"]["keras_history"] for each in (mine, other))
                return place == other_place and self._same_layer(name, other_name)
            shared = mine.keys() & other.keys() - {"shared_object_id"}
            return all(self.agree(mine[key], other[key]) for key in shared)
        if isinstance(mine, list):
            return isinstance(other, list) and len(mine) == len(other) and all(map(self.agree, mine, other))
        return bool(mine == other)

    def _same_layer(self, name: str, other_name: str) -> bool:
        if name in self._paired:
            return self._paired[name] == other_name
        self._paired[name] = other_name
        mine, other = self._ours[name], self._saved[other_name]
        if mine["class_name"] != other["class_name"]:
            return False
        if mine["class_name"] == "InputLayer" and name != other_name:
            return False
        options = [{key: value for key, value in each["config"].items() if key != "name"} for each in (mine, other)]
        return self.agree(*options) and self.agree(mine["inbound_nodes"], other["inbound_nodes"])


def _tensor(history: Any) -> dict[str, Any]:
    return {"class_name": _TENSOR, "config": {"keras_history": history}}
