"""Gradients of a loss that compares the examples of a batch, where the batch is computed in parts or on replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from bmcli.training.graph_ops import gather_batch, replica_share, seed_states
from bmcli.training.loss import StepLosses, regularization_loss
from bmcli.training.micro_batches import MicroBatches
from bmcli.training.objective_batch import Arrays
from bmcli.training.step_components import StepComponents


class CoupledGradients:
    """Gradients of such a loss by a gradient cache (Gao et al. 2021, section 3.2).

    A first pass computes the outputs of all parts, and each replica gathers those of all replicas. The loss of the
    whole batch gives the gradient by each output. A second pass computes each part again, and propagates the gradients
    by its own outputs back to the weights. A replica with one part needs no second pass.

    Args:
        compile_: Compiles what lies between the exchanges of the replicas.
    """

    def __init__(self, components: StepComponents, compile_: Callable[..., Any]) -> None:
        self._components, self._replicas = components, components.placement.replicas
        self._loss, self._optimizer = components.loss, components.optimizer
        self._forward = compile_(self._run_forward)
        self._differentiate = compile_(self._differentiate_by_results)
        self._backpropagate = compile_(self._backpropagate_part)
        self._changed_by_forward = [*components.statistics, *seed_states(components.network.model)]

    def compute(
        self, batches: MicroBatches, examples: Arrays, counts: Any, size: int, divisors: Mapping[str, Any]
    ) -> tuple[list[Any], Any]:
        """Compute the gradients and the loss that the examples of this replica contribute to a batch.

        Args:
            batches: Division of the examples.
            counts, size, divisors: As for `CompiledSteps`.
        """
        examples = self._loss.extend(examples)
        contributions = self._replicas * batches.parts
        if batches.parts == 1:
            with tf.GradientTape() as tape:
                results, penalty = self._forward(examples)
                share = penalty / contributions
                scaled = self._optimizer.scale_loss(share)
            computed, by_results = self._compare(examples, results, counts, size, divisors)
            gradients = self._pull_back(tape, results, by_results, scaled)
        else:
            # The second pass draws the same masks of dropout, and only one of both updates moving statistics.
            before = [tf.identity(variable.value) for variable in self._changed_by_forward]
            results = batches.map(lambda part: self._forward(part)[0], examples)
            for variable, value in zip(self._changed_by_forward, before, strict=True):
                variable.assign(value)
            computed, by_results = self._compare(examples, results, counts, size, divisors)
            gradients, share = batches.sum_gradients(
                lambda part: self._backpropagate(*part, contributions),
                (examples, by_results),
                self._components.weights,
            )
        self._components.update_meters(examples, computed, share * self._replicas, counts)
        return gradients, computed.losses.sum(size, divisors) + share

    def _run_forward(self, examples: Arrays) -> tuple[Any, Any]:
        """Run the network; returns what the loss needs of it, and the loss of the regularizers."""
        with self._components.join_forward_pass():
            results = self._loss.forward(examples)
            return results, regularization_loss(self._components.network)

    def _compare(
        self, examples: Arrays, results: Any, counts: Any, size: int, divisors: Mapping[str, Any]
    ) -> tuple[StepLosses, Any]:
        """Compute the losses of this replica's examples, and the gradients of the batch's loss by its results."""
        compared = {name: arrays for name, arrays in examples.items() if name not in ("inputs", "stacks")}
        gathered = gather_batch((compared, results), counts, size, self._replicas)
        computed, by_results = self._differentiate(*gathered, size, divisors)
        own, _ = replica_share(tf.range(size), self._replicas)

        def select(values: Any) -> Any:
            return tf.gather(values, own)

        def select_counted(values: Any) -> Any:
            values = select(values)
            if counts is None:
                return values
            return values * tf.cast(tf.reshape(counts, [-1] + [1] * (len(values.shape) - 1)), values.dtype)

        outputs, terms = tf.nest.map_structure(select, (computed.outputs, computed.terms))
        losses = computed.losses.map(select_counted)
        return StepLosses(outputs, losses, terms), tf.nest.map_structure(select_counted, by_results)

    def _differentiate_by_results(
        self, examples: Arrays, results: Any, size: int, divisors: Mapping[str, Any]
    ) -> tuple[StepLosses, Any]:
        """Compute the losses of a whole batch, and the gradients of their scaled sum by the results of all examples."""
        with tf.GradientTape() as tape:
            tape.watch(results)
            computed = self._loss.compute(examples, results, size, self._optimizer.iterations.value, divisors)
            scaled = self._optimizer.scale_loss(computed.losses.sum(size, divisors))
        return computed, tape.gradient(scaled, results, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _backpropagate_part(self, examples: Arrays, by_results: Any, contributions: int) -> tuple[list[Any], Any]:
        """Compute a part again; returns the gradients by the weights, and its share of the loss of the regularizers."""
        with tf.GradientTape() as tape:
            results, penalty = self._run_forward(examples)
            share = penalty / contributions
            scaled = self._optimizer.scale_loss(share)
        return self._pull_back(tape, results, by_results, scaled), share

    def _pull_back(self, tape: tf.GradientTape, results: Any, by_results: Any, scaled_penalty: Any) -> list[Any]:
        """Compute the gradients by the weights from those by the results of a forward pass."""
        gradients: list[Any] = tape.gradient(
            [*tf.nest.flatten(results), scaled_penalty],
            self._components.weights,
            output_gradients=[*tf.nest.flatten(by_results), tf.ones_like(scaled_penalty)],
        )
        # The results themselves are not used, so that a weight would be read only for the gradients of layers before
        # it, and its own gradient may be complete earlier. Each waits for all, so that no weight changes before.
        return list(tf.tuple(gradients))
