"""Learning objectives: what an output means, how wrong it is, and how it is measured while training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.recipe.fields import FieldType, KerasObject, Kind, check_mapping, fault, fault_at
from bmcli.recipe.nodes import format_value
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

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
        """Probabilities `(batch, classes)`, or numbers in the target's own unit, `(batch,)` or `(batch, quantiles)`."""

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
    def direction(self) -> Direction | None:
        """Which way is better; None if neither is, as of a share that has a right value."""

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        """Adds a batch: encoded targets, and what `predict` made of the outputs.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
        """


class ObjectiveKind(Protocol):
    """What a module in this folder offers."""

    Options: type[Kind]
    TARGETS: tuple[str, ...]  # kinds of target it can learn
    FORM: Literal["softmax", "sigmoid", "number"]  # logits of one distribution, of one for each output, or numbers
    METRICS: Mapping[str, Direction]  # Keras metrics that suit these targets, and which way each is better

    def width(self, options: Any, target: Column) -> int:
        """Numbers the network must give for each example."""

    def build(self, options: Any, target: Column, train_targets: Any) -> TargetObjective:
        """The objective for a target.

        Args:
            train_targets: Encoded targets of the training split, for weights derived from them.
        """


@dataclass(frozen=True)
class MetricAdapter:
    """A metric of an objective.

    Args:
        direction: Which way is better; None if neither is.
        arguments: From encoded targets and predictions to what the Keras metric takes.
    """

    keras_metric: keras.metrics.Metric
    direction: Direction | None
    arguments: Callable[[Any, Any], tuple[Any, ...]]

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        self.keras_metric.update_state(*self.arguments(target, prediction), sample_weight=counts)


NUMBER_METRICS: Mapping[str, Direction] = {
    "mean_absolute_error": "min",
    "mean_squared_error": "min",
    "root_mean_squared_error": "min",
    "mean_absolute_percentage_error": "min",
    "mean_squared_logarithmic_error": "min",
    "log_cosh_error": "min",
    "r2_score": "max",
}
"""Keras metrics of one number an example."""


@dataclass(frozen=True)
class ClassWeightsField(FieldType):
    """`balanced`, `effective`, or a weight for each class that differs from 1."""

    def check(self, value: Any) -> Any:
        if value is None or value in ("balanced", "effective"):
            return value
        if not isinstance(value, Mapping) or not value:
            raise fault(
                "class_weights",
                f"expected balanced, effective or weights by class, received {format_value(value)}.",
                "Write {CLASS: 2.0}; the other classes weigh 1.",
            )
        # Classes are text; YAML reads a class called 0 as a number.
        return {str(name): weight for name, weight in check_mapping(_check_weight, value).items()}

    def json_schema(self) -> dict[str, Any]:
        weights = {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0},
            "minProperties": 1,
        }
        return {"anyOf": [{"enum": ["balanced", "effective"]}, weights, {"type": "null"}]}


def _check_weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise fault("class_weight", f"expected a number of at least 0, received {format_value(value)}.")
    return float(value)


class ObjectiveOptions(Kind):
    """Options of every objective."""

    weight: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="Weight of this target's loss among those of several targets."
    )


class ClassOptions(ObjectiveOptions):
    """Options of objectives that tell classes."""

    class_weights: Annotated[Any, ClassWeightsField()] = Field(
        default=None,
        description="Class weights: a mapping from class to weight; `balanced`: rows / (classes * rows of the "
        "class) in training (King and Zeng 2001); or `effective`: (1 - beta) / (1 - beta^rows of the class), "
        "normalised to sum to the number of classes (Cui et al. 2019).",
    )
    beta: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="beta of effective class weights, by default 0.999; values nearer to 1 give more weight to rare "
        "classes.",
    )
    calibrate: Literal["none", "temperature"] = Field(
        default="none",
        description="`temperature`: after training, divide the logits by the temperature that maximises the "
        "likelihood of the validation rows (Guo et al. 2017). Exported models include it.",
    )

    @model_validator(mode="after")
    def _beta_has_an_effect(self) -> ClassOptions:
        if self.beta is not None and self.class_weights != "effective":
            raise fault_at(
                ("beta",), "`beta` does nothing without effective class weights.", "Write class_weights: effective."
            )
        return self


def apply_temperature(target: Column, output: Any) -> Any:
    """Logits in float32, divided by the temperature that was found for a target after training, if any."""
    from keras import ops

    logits, temperature = ops.cast(output, "float32"), target.state.get("temperature", 1.0)
    return logits if temperature == 1 else logits / temperature


def compute_class_weights(options: ClassOptions, target: Column, train_targets: Any) -> np.ndarray | None:
    """A weight for each class in the order of their indices, float32 `(classes,)`, or None if all weigh 1.

    Args:
        train_targets: Class indices of the training rows.

    Raises:
        BmcliError: A weight is of no class.
    """
    import numpy as np

    chosen = options.class_weights
    if chosen is None or isinstance(chosen, Mapping):
        return order_class_weights(chosen, target)
    return compute_balanced_weights(options, np.bincount(np.asarray(train_targets), minlength=len(target.classes)))


def order_class_weights(chosen: Mapping[str, float] | None, target: Column) -> np.ndarray | None:
    """Weights of a recipe in the order of the target's classes, 1 for those that are not named."""
    import numpy as np

    if chosen is None:
        return None
    for name in chosen:
        if name not in target.classes:
            raise BmcliError(
                f"there is no class {quoted(name)}.",
                path=f"objective.class_weights.{name}",
                suggestion=parts.did_you_mean(name, target.classes),
            )
    return np.array([chosen.get(name, 1.0) for name in target.classes], "float32")


def compute_balanced_weights(options: ClassOptions, counts: np.ndarray) -> np.ndarray:
    """Weights that make up for how many rows each class has, float32, by `options.class_weights`.

    Args:
        counts: Training rows of each class, along the last axis.
    """
    import numpy as np

    rows = np.maximum(counts, 1).astype("float64")
    if options.class_weights == "balanced":
        weights = counts.sum(axis=-1, keepdims=True) / (counts.shape[-1] * rows)
    else:
        beta = 0.999 if options.beta is None else options.beta
        # 1 - beta^n; written so that a beta next to 1 loses no digits.
        weights = -1 / np.expm1(rows * math.log(beta))
        weights *= counts.shape[-1] / weights.sum(axis=-1, keepdims=True)
    return weights.astype("float32")


def find_median_index(quantiles: Sequence[float]) -> int:
    """Where the median is among quantiles, or what is nearest to it."""
    return min(range(len(quantiles)), key=lambda at: abs(quantiles[at] - 0.5))


def compute_binary_crossentropy(truth: Any, logits: Any, options: Mapping[str, Any]) -> Any:
    """What Keras' binary_crossentropy and binary_focal_crossentropy (Lin et al. 2017) are of each number.

    From the logits: Keras clips probabilities, and where they are clipped there is no gradient.

    Args:
        truth: 0 or 1, float32.
        logits: Float32 of the same shape.
        options: Of the Keras loss, with its defaults.
    """
    from keras import ops

    truth = truth * (1 - options["label_smoothing"]) + options["label_smoothing"] / 2
    losses = truth * ops.softplus(-logits) + (1 - truth) * ops.softplus(logits)
    if "gamma" not in options:
        return losses
    wrong = truth * ops.sigmoid(-logits) + (1 - truth) * ops.sigmoid(logits)
    losses = losses * _compute_focal_factor(wrong, options["gamma"])
    if not options["apply_class_balancing"]:
        return losses
    return losses * (truth * options["alpha"] + (1 - truth) * (1 - options["alpha"]))


def compute_categorical_focal_crossentropy(truth: Any, logits: Any, options: Mapping[str, Any]) -> Any:
    """What Keras' categorical_focal_crossentropy is of each example, `(batch,)`, from the logits for the same reason.

    Args:
        truth: One row of shares a class, `(batch, classes)` in float32.
        options: Of the Keras loss, with its defaults.
    """
    from keras import ops

    truth = truth * (1 - options["label_smoothing"]) + options["label_smoothing"] / truth.shape[-1]
    logs = ops.log_softmax(logits)
    losses = -truth * logs * _compute_focal_factor(1 - ops.exp(logs), options["gamma"])
    return options["alpha"] * ops.sum(losses, axis=-1)


def _compute_focal_factor(wrong: Any, gamma: float) -> Any:
    """Factors of the focal loss: small where little probability is on the wrong side."""
    from keras import ops

    # A power of 0 has no gradient if gamma is below 1.
    return ops.power(ops.maximum(wrong, 1e-7), gamma)


def unscale_target(target: Column, encoded: Any) -> Any:
    """A number target's encoded values, tensors of any shape, in its own unit and float32."""
    from keras import ops

    values = ops.cast(encoded, "float32") * float(target.state["scale"]) + float(target.state["mean"])
    if not target.state.get("log"):
        return values
    # Not expm1, which few formats for serving know; and e^89 is no float32.
    return ops.exp(ops.minimum(values, 80.0)) - 1


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
            hint = f"Did you mean {quoted(near)}? " if near else ""
            raise BmcliError(
                f"{metric.kind} does not suit target {quoted(target.name)} of kind {target.kind}.",
                path=f"train.metrics.{position}",
                suggestion=f"{hint}Suitable: {', '.join(sorted(suitable))}.",
            )


def check_class_limits(described: KerasObject, target: Column, position: int) -> None:
    """Options that count classes must not go beyond them.

    Args:
        position: The metric's place in `train.metrics`.
    """
    count = len(target.classes)
    for limit in ("k", "class_id", "top_k"):
        if (described.options.get(limit) or 0) >= count:
            raise BmcliError(
                f"{described.kind}: {limit} is {described.options[limit]}, but {quoted(target.name)} "
                f"has {count} classes.",
                path=f"train.metrics.{position}",
                suggestion=f"Write {limit}: {count - 1}." if count > 2 else "Leave it out.",
            )


def collect_metrics(
    own: Mapping[str, KerasObject], extra: Sequence[KerasObject], make: Callable[[KerasObject, str, int], MetricAdapter]
) -> dict[str, MetricAdapter]:
    """The objective's own metrics, then those asked for, each under a name of its own.

    Args:
        make: From a metric's description, its name, and its place in `train.metrics`.
    """
    metrics = {name: make(described, name, 0) for name, described in own.items()}
    for position, described in enumerate(extra):
        name = find_free_name(described.kind, metrics)
        metrics[name] = make(described, name, position)
    return metrics


def make_keras_metric(described: KerasObject, name: str, position: int) -> keras.metrics.Metric:
    """A Keras metric; a fault at its place in `train.metrics` if Keras refuses the options."""
    from bmcli.layers.keras_objects import make_keras_object

    try:
        return make_keras_object("metrics", described, name=name)
    except (ValueError, TypeError) as error:
        raise BmcliError(f"{described.kind}: {error}", path=f"train.metrics.{position}") from error


def create_metric_variables(measure: MetricAdapter, target: Any, prediction: Any) -> None:
    """Some Keras metrics create variables with the first batch; a compiled step needs them before.

    Args:
        target, prediction: Any batch.
    """
    if hasattr(measure.keras_metric, "_build"):
        measure.update(target, prediction)
        measure.keras_metric.reset_state()


def find_free_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or with a number behind it if there is a metric of that name: `precision_2`."""
    number = 2
    free = name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free
