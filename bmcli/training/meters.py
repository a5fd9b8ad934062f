"""Loss and metrics gathered over one pass, in variables on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from bmcli.recipe.fields import KerasObject
from bmcli.training.network import Network


class Meters:
    """Mean loss and every metric of every target.

    With one target metrics are called by their own names (`accuracy`), with several by target too (`label/accuracy`).

    Args:
        extra: Keras metrics by target, beside the objective's own.
    """

    def __init__(self, network: Network, extra: Mapping[str, Sequence[KerasObject]]) -> None:
        self._loss = keras.metrics.Mean(name="loss")
        several = len(network.objectives) > 1
        self._metrics = {
            (target, f"{target}/{name}" if several else name): metric
            for target, objective in network.objectives.items()
            for name, metric in objective.metrics(tuple(extra.get(target, ()))).items()
        }

    def update(self, loss: Any, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch; `loss` is its mean over the examples."""
        self._loss.update_state(loss, sample_weight=tf.shape(next(iter(targets.values())))[0])
        for (target, _), metric in self._metrics.items():
            metric.update(targets[target], predictions[target])

    def results(self) -> dict[str, float]:
        values = {name: metric.keras_metric.result() for (_, name), metric in self._metrics.items()}
        return {
            "loss": float(self._loss.result()),
            **{name: float(tf.reduce_mean(v)) for name, v in values.items()},
        }

    def loss(self) -> float:
        """Mean loss so far."""
        return float(self._loss.result())

    def reset(self) -> None:
        self._loss.reset_state()
        for metric in self._metrics.values():
            metric.keras_metric.reset_state()

    def directions(self) -> dict[str, Literal["min", "max"]]:
        """Which way is better, by name."""
        return {"loss": "min", **{name: metric.direction for (_, name), metric in self._metrics.items()}}

    @property
    def variables(self) -> list[Any]:
        metrics = [self._loss, *(metric.keras_metric for metric in self._metrics.values())]
        return [variable for metric in metrics for variable in metric.variables]
