"""The loss of a step, from the labels; distillation replaces the provider by one that also has teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.networks.network import Network
from bmcli.objectives import TargetObjective
from bmcli.quoting import quoted
from bmcli.specs import Split
from bmcli.training.objective_batch import Arrays, prepare_examples, run_network

_NO_SCALES: Mapping[str, Any] = MappingProxyType({})
_MAX_CONSTANT_ROWS = 100_000  # about the number of rows by which the loss of constant outputs is measured


class UnitLosses(NamedTuple):
    """Losses of a target that counts units.

    Args:
        losses: Sum over the units of each example, `(batch,)`, with the weights of target and example.
        units: Number of units of each example, `(batch,)`.
    """

    losses: Any
    units: Any


class ExampleLosses(NamedTuple):
    """Losses of some examples, with the weights of targets and examples.

    Args:
        by_example: Sum over all targets whose unit is an example, `(batch,)`.
        by_unit: Losses of each other target.
    """

    by_example: Any
    by_unit: Mapping[str, UnitLosses]

    def map(self, function: Callable[[Any], Any]) -> ExampleLosses:
        """Apply a function to every array."""
        by_unit = {name: UnitLosses(*map(function, each)) for name, each in self.by_unit.items()}
        return ExampleLosses(function(self.by_example), by_unit)

    def sum(self, size: Any, divisors: Mapping[str, Any]) -> Any:
        """Sum the losses, divided by the number of examples in the whole batch, or by the number of units."""
        total = tf.reduce_sum(self.by_example) / size
        for name, each in self.by_unit.items():
            total = total + tf.reduce_sum(each.losses) / divisors[name]
        return total


def compute_label_losses(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> ExampleLosses:
    """Compute the losses of prepared examples.

    Mixed examples have the losses of both partners, weighted with their shares of the mixture.
    """
    by_unit = {
        name: UnitLosses(_sum_losses(network, examples, outputs, [name]), units)
        for name, units in examples.get("units", {}).items()
    }
    plain = [name for name in network.objectives if name not in by_unit]
    if plain:
        return ExampleLosses(_sum_losses(network, examples, outputs, plain), by_unit)
    return ExampleLosses(tf.zeros_like(next(iter(by_unit.values())).losses), by_unit)


def compute_losses(
    network: Network, examples: Arrays, outputs: Mapping[str, Any], scales: Mapping[str, Any] = _NO_SCALES
) -> Any:
    """Compute the loss of each example over all targets, `(batch,)`.

    Args:
        scales: Examples per unit in the whole batch, of each target that counts units. With them the loss of the batch
            is the mean over its examples.
    """
    losses = compute_label_losses(network, examples, outputs)
    total = losses.by_example
    for name, each in losses.by_unit.items():
        total = total + scales[name] * each.losses
    return total


def _sum_losses(network: Network, examples: Arrays, outputs: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Sum the losses of some targets for each example, `(batch,)`."""
    own = _label_losses(network, examples, outputs, names)
    if "others" not in examples:
        return own
    share = examples["share"]
    return share * own + (1.0 - share) * _label_losses(network, examples["others"], outputs, names)


def _label_losses(network: Network, examples: Arrays, outputs: Mapping[str, Any], names: Iterable[str]) -> Any:
    targets, objectives = examples["targets"], network.objectives
    losses = {name: objectives[name].weight * objectives[name].loss(targets[name], outputs[name]) for name in names}
    if "labelled" in examples:
        # An objective that learns from inputs alone counts on rows without labels, too.
        labelled = {
            name: loss * examples["labelled"] for name, loss in losses.items() if name not in network.unlabelled
        }
        losses |= labelled
    total = tf.add_n(list(losses.values()))
    return total * examples["weights"] if "weights" in examples else total


def example_weights(examples: Arrays, like: Any) -> Any:
    """Compute the weight of each example, `(batch,)`; mixed ones have the mean by their shares of the mixture.

    Args:
        like: Any tensor of shape `(batch,)`; ones of its shape are returned where the data has no weights.
    """
    own = examples["weights"] if "weights" in examples else tf.ones_like(like)
    if "others" not in examples or "weights" not in examples:
        return own
    return examples["share"] * own + (1.0 - examples["share"]) * examples["others"]["weights"]


def regularization_loss(network: Network) -> Any:
    """Sum the losses that layers add, such as those of regularizers."""
    # In mixed precision they may have 16 bits, and `add_n` needs one type and at least one tensor.
    return tf.add_n([tf.cast(loss, tf.float32) for loss in network.model.losses] or [tf.zeros(())])


def _compute_constant_loss(objective: TargetObjective, train: Split, rows: Split, name: str) -> float | None:
    """Compute the weighted mean loss of the best constant output of one target; None if it has none."""
    targets, weights = _sample_targets(train, name)
    outputs = objective.list_constant_outputs(targets, weights)
    if outputs is None:
        return None
    fitted = [_average_loss(objective, targets, weights, output) for output in outputs]
    best = outputs[int(np.argmin(fitted))]
    return objective.weight * _average_loss(objective, *_sample_targets(rows, name), best)


def _sample_targets(rows: Split, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Take encoded targets and weights of rows in equal distances, if there are many."""
    every = max(1, len(rows) // _MAX_CONSTANT_ROWS)
    targets = np.asarray(rows.targets[name][::every])
    weights = np.ones(len(targets), "float32") if rows.weights is None else np.asarray(rows.weights[::every])
    return targets, weights


def _average_loss(objective: TargetObjective, targets: np.ndarray, weights: np.ndarray, output: np.ndarray) -> float:
    encoded = tf.constant(targets)
    losses = weights * objective.loss(encoded, tf.tile(output[np.newaxis], [len(targets), 1])).numpy()
    # As in the meters: per unit, such as a token, or per example.
    divisor = weights @ objective.count_units(encoded).numpy() if objective.counts_units else len(targets)
    return float(losses.sum(dtype="float64") / divisor)


class StepLosses(NamedTuple):
    """Outputs and losses of some examples.

    Args:
        outputs: Outputs of the network by target.
        losses: Losses including weights.
        terms: Summands of the losses by name, each `(batch,)` including weights; empty if there is only one.
    """

    outputs: Mapping[str, Any]
    losses: ExampleLosses
    terms: Mapping[str, Any]


class LossProvider:
    """Provider of the loss of each example; this one computes it from the labels, by the objectives of a network.

    Args:
        network: The network to train.
        seed: That of the recipe, for the random numbers of objectives.

    Raises:
        BmcliError: The network has several objectives, and one of them needs several rows for each example, or hides
            parts of it.
    """

    term_names: tuple[str, ...] = ()
    """Names of the summands of the loss, if there are several."""
    runs_teachers = False
    """Whether every step computes the outputs of teachers."""
    steps_per_epoch = 1
    cost_key: Any = None
    """A JSON value of everything beside the network that decides how fast a step is."""
    note = ""
    """A sentence for the user, or an empty text."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.seed = network, seed
        objectives = network.objectives
        self.changes_batch = any(objective.changes_batch for objective in objectives.values())
        """Whether an objective changes examples before the network computes them."""
        self.compares_examples = any(objective.couples_examples for objective in objectives.values())
        """Whether the loss of an example depends on the others of its batch."""
        lonely = [name for name, objective in objectives.items() if objective.views > 1 or objective.hides_inputs]
        if len(objectives) > 1 and lonely:
            name = lonely[0]
            what = "compares several views of" if objectives[name].views > 1 else "hides parts of"
            raise BmcliError(
                f"the objective of target {quoted(name)} {what} each example, so it must be the "
                f"only one; the network has {len(objectives)}.",
                path="objective", suggestion="Leave out the other targets.",
            )  # fmt: skip

    @property
    def extra_weights(self) -> list[Any]:
        """Weights that are trained with those of the network, and not kept."""
        return []

    def compute_constant_loss(self, train: Split, rows: Split) -> float | None:
        """Compute the mean loss of the best outputs that are the same for all rows.

        Args:
            train: Training rows, to which the outputs are fitted.
            rows: Those to measure.

        Returns:
            None if an objective has no such outputs or no target, or the loss has other terms than those of the labels.
        """
        if self.changes_batch or self.compares_examples or self.network.unlabelled or self.network.model.losses:
            return None
        losses = [
            _compute_constant_loss(objective, train, rows, name) for name, objective in self.network.objectives.items()
        ]
        return None if None in losses else float(sum(loss for loss in losses if loss is not None))

    def prepare(self, examples: Arrays, step: Any, size: Any, places: Any) -> Arrays:
        """Let the objectives change some examples of a batch, as `prepare_examples` does."""
        return prepare_examples(self.network, examples, self.seed, step, size, places, training=True)

    def extend(self, examples: Arrays) -> Arrays:
        """Add arrays that the loss needs beside the labels, such as outputs of teachers."""
        return examples

    def forward(self, examples: Arrays) -> Any:
        """Run the network on prepared examples in training mode.

        Returns:
            All that `compute` needs of it: any structure of tensors, `(batch, ...)`.
        """
        return run_network(self.network, examples, training=True)

    def compute(self, examples: Arrays, results: Any, size: Any, step: Any, divisors: Mapping[str, Any]) -> StepLosses:
        """Compute the losses of some examples of a batch, or of all if they are compared with each other.

        Args:
            examples: Prepared and extended; their inputs are not used.
            results: Returned by `forward`.
            size: Number of examples in the whole batch.
            step: Optimizer steps done.
            divisors: Number of units in the whole batch, of each target that counts them.
        """
        return StepLosses(results, compute_label_losses(self.network, examples, results), {})
