"""Learning objectives: what an output means, how wrong it is, and how it is measured while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.recipe.fields import KerasObject, Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras

Direction = Literal["min", "max"]


class TargetObjective(Protocol):
    """The objective of one target, built. All its methods work on eager, graph and symbolic Keras tensors."""

    @property
    def weight(self) -> float:
        """Of this target's loss beside those of others."""

    def loss(self, target: Any, output: Any) -> Any:
        """Loss of each example, `(batch,)` in float32, weights of classes included.

        Args:
            target: Encoded target, `(batch, ...)`.
            output: The network's raw output, `(batch, width)`.
        """

    def predict(self, output: Any) -> Any:
        """Probabilities `(batch, classes)`, or numbers in the target's own unit `(batch,)`."""

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> Mapping[str, Metric]:
        """Fresh metrics by name, for one pass over a split: the objective's own, then those asked for.

        Raises:
            BmcliError: A metric does not suit the target.
        """


class Metric(Protocol):
    """A Keras metric and how it wants its arguments."""

    @property
    def keras_metric(self) -> keras.metrics.Metric: ...

    @property
    def direction(self) -> Direction: ...

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        """Adds a batch: encoded targets, and what `predict` made of the outputs.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
        """


class ObjectiveKind(Protocol):
    """What a module in this folder offers."""

    Options: type[Kind]
    TARGETS: tuple[str, ...]  # kinds of target it can learn
    METRICS: Mapping[str, Direction]  # Keras metrics that suit these targets, and which way each is better

    def width(self, target: Column) -> int:
        """Numbers the network must give for each example."""

    def build(self, options: Any, target: Column, train_targets: Any) -> TargetObjective:
        """The objective for a target.

        Args:
            train_targets: Encoded targets of the training split, for weights derived from them.
        """


@dataclass(frozen=True)
class Measure:
    """A metric of an objective.

    Args:
        arguments: From encoded targets and predictions to what the Keras metric takes.
    """

    keras_metric: keras.metrics.Metric
    direction: Direction
    arguments: Callable[[Any, Any], tuple[Any, Any]]

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        self.keras_metric.update_state(*self.arguments(target, prediction), sample_weight=counts)


def check_loss(loss: KerasObject | None, suitable: Sequence[str], objective: str) -> KerasObject | None:
    """The loss, if it suits; raises fault() if it does not."""
    if loss is None:
        return None
    if loss.kind not in suitable:
        raise fault("loss", f"{loss.kind} does not suit {objective}.", f"Suitable: {', '.join(sorted(suitable))}.")
    if "axis" in loss.options:
        raise fault("loss", f"{loss.kind}: `axis` has no other value than -1 here.", "Leave it out.")
    return loss


def check_metrics(extra: Sequence[KerasObject], suitable: Mapping[str, Any], target: Column) -> None:
    """Every metric must suit the target.

    Raises:
        BmcliError: For the first that does not.
    """
    for position, metric in enumerate(extra):
        if metric.kind not in suitable:
            near = parts.nearest(metric.kind, suitable)
            hint = f"Did you mean '{near}'? " if near else ""
            raise BmcliError(
                f"{metric.kind} does not suit target '{target.name}' of kind {target.kind}.",
                path=f"train.metrics.{position}",
                suggestion=f"{hint}Suitable: {', '.join(sorted(suitable))}.",
            )


def create_variables(measure: Measure, target: Any, prediction: Any) -> None:
    """Some Keras metrics create variables with the first batch; a compiled step needs them before.

    Args:
        target, prediction: Any batch.
    """
    if hasattr(measure.keras_metric, "_build"):
        measure.update(target, prediction)
        measure.keras_metric.reset_state()


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or with a number behind it if there is a metric of that name: `precision_2`."""
    number = 2
    free = name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free
