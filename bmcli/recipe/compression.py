"""The parts of `train` that make a network smaller while it learns: pruning, and quantisation-aware training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.recipe.fields import ChoiceField, Kind, Options, fault_at

Sparsity = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1)]
Widths = tuple[Width, ...] | Annotated[float, Field(gt=0)]
# Activations that turn 0 into something else, so that a unit of zeros is not as if it were not there.
_NONZERO_AT_ZERO = ("sigmoid", "hard_sigmoid", "softplus", "exponential", "softmax", "log_softmax", "log_sigmoid")


class PruningSchedule(Kind):
    """When what is pruned rises from nothing to its share, along a cubic curve (Zhu and Gupta 2017, equation 1)."""

    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.25, description="Fraction of all steps before the first pruning."
    )
    end: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.75,
        description="Fraction of all steps before the last pruning; the remaining weights continue to train.",
    )
    updates: Annotated[int, Field(ge=1)] = Field(
        default=50, description="Number of pruning updates from `start` to `end`."
    )

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> PruningSchedule:
        if self.end <= self.start:
            raise fault_at(("start",), f"pruning would start at {self.start:g} and end at {self.end:g} of the steps.",
                           "Give a smaller `start`, or a larger `end`.")  # fmt: skip
        return self


class WeightPruning(PruningSchedule):
    """Magnitude pruning: single weights of small magnitude become and stay 0. This shrinks compressed files only."""

    kind: Literal["weights"] = Field(default="weights", description="Single weights become 0.")
    sparsity: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.8, description="Final fraction of zeros among the weights of all kernels."
    )
    scope: Literal["network", "kernel"] = Field(
        default="network",
        description="Scope of the comparison: `network` prunes the smallest weights of all kernels, so that small "
        "layers, which need most of their weights, keep them; `kernel` prunes the same fraction of each kernel.",
    )
    layers: Mapping[str, Sparsity] = Field(
        default={},
        description="Sparsity by patterns of weight names, such as {'dense_2/*': 0}; * matches any text, and the "
        "last matching pattern applies.",
    )


class ChannelPruning(PruningSchedule):
    """Channel pruning: units and filters with small weights become 0 during training and are removed at its end.

    The result is an ordinary, narrower network of the same family, which needs fewer computations.
    """

    kind: Literal["channels"] = Field(default="channels", description="Units of layers and filters are removed.")
    sparsity: Sparsity = Field(
        default=0.5, description="Fraction of the units or filters of each hidden layer to remove."
    )
    widths: Mapping[str, Widths] = Field(
        default={},
        description="Remaining units or filters, by options of the model, instead of those that follow from "
        "`sparsity`: {filters: [8, 24], dense: [60, 84]}, or {mlp_ratio: 1.5} for a transformer.",
    )

    def resolve_widths(self, model: Kind) -> dict[str, Widths]:
        """Widths that are left, by the options of the model that tell them."""
        share = 1 - self.sparsity
        return {
            **{name: _scale_widths(getattr(model, name), share) for name in get_width_options(model)},
            **self.widths,
        }


PRUNING = ChoiceField((WeightPruning, ChannelPruning), default_kind="weights")


class QuantizeAwareOptions(Options):
    """Quantisation-aware training: rounded weights and rounded inputs of layers."""

    weights: Literal["int8", "int4"] = Field(
        default="int8",
        description="Integer type of the kernels of dense and convolutional layers, with one scale per channel.",
    )
    activations: Literal["int8", "float32"] = Field(
        default="int8",
        description="Type of the inputs of these layers, over their usual range; float32 does not round them.",
    )
    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="Fraction of all steps before rounding begins."
    )


def get_width_options(model: Kind | type[Kind]) -> tuple[str, ...]:
    """The options of a family that tell how wide its layers are, if they can be pruned by channels.

    Their values are numbers of units, one for each layer, or one multiple of some other width.
    """
    return getattr(model, "WIDTHS", ())


def _scale_widths(widths: Widths, share: float) -> Widths:
    if isinstance(widths, tuple):
        return tuple(max(1, round(share * width)) for width in widths)
    return round(share * widths, 6)


Problem = tuple[tuple[str | int, ...], str, str]
"""Place below `train.prune`, message and suggestion."""


def find_model_problem(pruning: Any, model: Kind) -> Problem | None:
    """The first reason why this network cannot be pruned so."""
    if not isinstance(pruning, ChannelPruning):
        return None
    known = get_width_options(model)
    if not known:
        return (
            ("kind",),
            f"channels of {model.kind} cannot be removed.",
            f"Those of {_list_prunable_families()} can; or prune weights.",
        )
    problem = next(
        (each for name, left in pruning.widths.items() if (each := _find_widths_problem(name, left, model))), None
    )
    return problem or _find_layer_problem(model) or _find_result_problem(pruning, model)


def _list_prunable_families() -> str:
    """The families whose channels can be removed, as a list in a sentence."""
    names = [name for name in parts.names("models") if get_width_options(parts.load("models", name).Options)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _find_widths_problem(name: str, left: Widths, model: Kind) -> Problem | None:
    """What is wrong with widths that a recipe tells."""
    known = get_width_options(model)
    if name not in known:
        return ("widths", name), f"{model.kind} has no widths '{name}'.", parts.did_you_mean(name, known)
    given = getattr(model, name)
    hint = f"Those of the model: {list(given) if isinstance(given, tuple) else given}."
    if isinstance(given, tuple) != isinstance(left, tuple):
        expected = "a list of widths" if isinstance(given, tuple) else "one number"
        return ("widths", name), f"expected {expected}.", hint
    before, after = (value if isinstance(value, tuple) else (value,) for value in (given, left))
    if len(before) != len(after):
        return ("widths", name), f"{len(after)} widths for {len(before)} layers.", hint
    wider = [width for width, old in zip(after, before, strict=True) if width > old]
    if wider:
        return ("widths", name), f"pruning cannot make a layer wider, as {wider[0]}.", hint
    return None


def _find_layer_problem(model: Kind) -> Problem | None:
    """What makes something of channels that are 0, or looks at all of them at once."""
    normalization = getattr(model, "normalization", None)
    if normalization in ("layer", "group") and not getattr(model, "NORMALIZES_WHOLE", False):
        message = f"channels before {normalization} normalization cannot be removed: it looks at all of them at once."
        return (), message, "Take `model.normalization: batch`, or prune weights."
    activation = getattr(model, "dense_activation", getattr(model, "activation", None))
    if activation is not None and activation.kind in _NONZERO_AT_ZERO:
        message = f"channels before {activation.kind} cannot be removed: it turns 0 into something else."
        return (), message, "Take `model.activation: relu`, gelu, silu or tanh."
    if getattr(model, "share", False):
        return (), "channels of layers that share their weights cannot be removed.", "Prune weights."
    return None


def _find_result_problem(pruning: ChannelPruning, model: Kind) -> Problem | None:
    left = pruning.resolve_widths(model)
    for name, least in getattr(model, "WIDTHS_ABOVE", {}).items():
        if left[name] <= least:
            message = f"{left[name]:g} would be left of {name} {getattr(model, name):g}, expected more than {least:g}."
            return (), message, "Lower `sparsity`."
    if all(getattr(model, name) == widths for name, widths in left.items()):
        return (), "no channel would be removed.", "Raise `sparsity`."
    return None
