"""Meters: loss and metrics of one pass, accumulated in variables on the devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.distribution.strategy import Placement
from bmcli.metrics.weighted_metrics import name_row_weighted
from bmcli.networks.network import Network
from bmcli.objectives import Direction, Metric
from bmcli.recipe.fields import KerasObject
from bmcli.training.loss import ExampleLosses


class MeanPerUnit(keras.metrics.Metric):
    """Mean of losses over the units of all examples, such as their tokens."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.total = self.add_variable((), "zeros", name="total")
        self.units = self.add_variable((), "zeros", name="units")

    def update_state(self, losses: Any, units: Any) -> None:
        """Add the losses and the numbers of units of some examples, `(batch,)`."""
        self.total.assign_add(tf.reduce_sum(losses))
        self.units.assign_add(tf.reduce_sum(units))

    def result(self) -> Any:
        return tf.math.divide_no_nan(tf.convert_to_tensor(self.total), tf.convert_to_tensor(self.units))


class Meters:
    """Mean loss and every metric of every target; each replica accumulates its own examples.

    The loss of a target that counts units is the mean over the units of all examples. It includes the weights of the
    rows, whereas metrics count each row once; with weights there is a second set of metrics that include them, such as
    `row_weighted_accuracy`.

    The names of metrics are plain with one target (`accuracy`), and begin with the target with several
    (`label/accuracy`).

    Args:
        extra: Keras metrics by target, in addition to those of the objective.
        terms: Names of the summands of the loss; the mean of `soft` is reported as `soft_loss`.
        has_row_weights: Whether the rows have weights.
    """

    def __init__(
        self,
        network: Network,
        extra: Mapping[str, Sequence[KerasObject]],
        placement: Placement,
        terms: Sequence[str] = (),
        has_row_weights: bool = False,
    ) -> None:
        self._placement = placement
        with placement.strategy.scope():
            self._loss = keras.metrics.Mean(name="loss")
            self._unlabelled = frozenset(network.unlabelled)
            several = len(network.objectives) > 1

            def make_metrics() -> dict[tuple[str, str], Metric]:
                return {
                    (target, f"{target}/{name}" if several else name): metric
                    for target, objective in network.objectives.items()
                    for name, metric in objective.metrics(tuple(extra.get(target, ()))).items()
                }

            self._metrics = make_metrics()
            weighted = make_metrics() if has_row_weights else {}
            self._weighted = {(target, name_row_weighted(name)): metric for (target, name), metric in weighted.items()}
            self._unit_losses = {
                target: MeanPerUnit(f"{target}_loss_per_unit")
                for target, objective in network.objectives.items()
                if objective.counts_units
            }
            self._terms = {name: keras.metrics.Mean(name=f"{name}_loss") for name in terms}
        run = placement.strategy.run
        self._run_gather_state = tf.function(lambda: run(self._gather_state), autograph=False)
        self._run_load_state = tf.function(lambda state: run(self._load_state, args=(state,)), autograph=False)

    def update(
        self,
        losses: ExampleLosses,
        penalty: Any,
        targets: Mapping[str, Any],
        predictions: Mapping[str, Any],
        counts: Any = None,
        terms: Mapping[str, Any] | None = None,
        labelled: Any = None,
        row_weights: Any = None,
    ) -> None:
        """Add some examples.

        Args:
            losses: 0 for examples that do not count, as their numbers of units.
            penalty: Loss of the regularizers, which is added to that of every example.
            counts: 1 or 0 for each example, or None if all count.
            terms: Summands of the losses by name.
            labelled: Above 0 for each example whose targets are known, or None if all are.
            row_weights: Weight of each example; needed only if the rows have weights.
        """
        self._loss.update_state(losses.by_example + penalty, sample_weight=counts)
        for target, each in losses.by_unit.items():
            self._unit_losses[target].update_state(each.losses, each.units)
        for name, values in (terms or {}).items():
            self._terms[name].update_state(values, sample_weight=counts)
        with_label = counts
        if labelled is not None:
            known = tf.cast(labelled > 0, tf.float32)
            with_label = known if counts is None else known * counts
        for (target, _), metric in self._metrics.items():
            metric.update(targets[target], predictions[target], counts if target in self._unlabelled else with_label)
        for (target, _), metric in self._weighted.items():
            counted = counts if target in self._unlabelled else with_label
            weights = row_weights if counted is None else row_weights * counted
            metric.update(targets[target], predictions[target], weights)

    def results(self) -> dict[str, float]:
        values = {name: metric.keras_metric.result() for (_, name), metric in self._all_metrics.items()}
        return {
            "loss": self.loss(),
            **{name: float(tf.reduce_mean(v)) for name, v in values.items()},
            **{f"{name}_loss": float(term.result()) for name, term in self._terms.items()},
        }

    def loss(self) -> float:
        """Mean loss so far."""
        return float(self._loss.result()) + sum(float(each.result()) for each in self._unit_losses.values())

    def reset(self) -> None:
        for metric in self._list_metrics():
            metric.reset_state()

    def directions(self) -> dict[str, Direction | None]:
        """Direction in which each metric is better, by name; None if in neither."""
        own: dict[str, Direction | None] = {name: metric.direction for (_, name), metric in self._all_metrics.items()}
        return {"loss": "min", **own, **{f"{name}_loss": "min" for name in self._terms}}

    @property
    def variables(self) -> list[Any]:
        return [variable for metric in self._list_metrics() for variable in metric.variables]

    @property
    def _all_metrics(self) -> dict[tuple[str, str], Metric]:
        return {**self._metrics, **self._weighted}

    def _list_metrics(self) -> list[keras.metrics.Metric]:
        metrics = [metric.keras_metric for metric in self._all_metrics.values()]
        return [self._loss, *self._unit_losses.values(), *metrics, *self._terms.values()]

    def state(self) -> list[np.ndarray]:
        """Accumulated values of every replica, one array per variable, `(replicas, ...)`."""
        if self._placement.replicas == 1:
            return [variable.numpy()[None] for variable in self.variables]
        gathered = self._run_gather_state()
        return [np.asarray(self._placement.strategy.experimental_local_results(each)[0]) for each in gathered]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Continue from a state, which may be of another number of replicas."""
        replicas = self._placement.replicas
        if len(state[0]) != replicas:
            # All values are sums over examples, so that it does not matter which replica has them.
            state = [np.stack([each.sum(axis=0), *[np.zeros_like(each[0])] * (replicas - 1)]) for each in state]
        if replicas == 1:
            for variable, values in zip(self.variables, state, strict=True):
                variable.assign(values[0])
            return
        self._run_load_state([tf.constant(each) for each in state])

    def _gather_state(self) -> list[Any]:
        # Outside of a replica such a variable reads as the sum over all replicas. A resumed training needs the value of
        # each: other partial sums would change the last bits of the metrics.
        context = tf.distribute.get_replica_context()
        is_own = tf.range(self._placement.replicas) == context.replica_id_in_sync_group
        return [
            context.all_reduce(
                tf.distribute.ReduceOp.SUM,
                tf.where(tf.reshape(is_own, [-1] + [1] * len(v.shape)), v.value[None], tf.zeros((), v.dtype)),
            )
            for v in self.variables
        ]

    def _load_state(self, state: Sequence[Any]) -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        for variable, values in zip(self.variables, state, strict=True):
            variable.value.assign(values[number])
