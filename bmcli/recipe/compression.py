"""Compression: the sections `train.prune` and `train.quantize_aware`, and what methods for trained networks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.recipe.fields import ChoiceField, Kind, Options, fault_at
from bmcli.recipe.problems import Problem

Sparsity = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1)]
Widths = tuple[Width, ...] | Annotated[float, Field(gt=0)]
# Activations with f(0) != 0: a unit of zeros still has an effect on the next layer, so it cannot be removed.
_NONZERO_AT_ZERO = ("sigmoid", "hard_sigmoid", "softplus", "exponential", "softmax", "log_softmax", "log_sigmoid")


class MethodOptions(Kind):
    """Base class of the options of every method that makes a trained network smaller."""

    @property
    def label(self) -> str:
        """Part of the name of an artefact, by default the kind."""
        return self.kind


class PruningSchedule(Kind):
    """Schedule of the pruned fraction, from 0 along a cubic curve (Zhu and Gupta 2017, equation 1)."""

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
                           "Set a smaller `start`, or a larger `end`.")  # fmt: skip
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
        """The widths after pruning, by option of the model."""
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
    """The options of a model family that set the widths of its layers; none if its channels cannot be pruned.

    A value is a number of units for each layer, or one factor of another width.
    """
    return getattr(model, "WIDTHS", ())


def _scale_widths(widths: Widths, share: float) -> Widths:
    if isinstance(widths, tuple):
        return tuple(max(1, round(share * width)) for width in widths)
    return round(share * widths, 6)


def find_model_problem(pruning: Any, model: Kind) -> Problem | None:
    """Find the first reason why `train.prune` does not suit a model."""
    if not isinstance(pruning, ChannelPruning):
        return None
    options = get_width_options(model)
    if not options:
        hint = f"Those of {_list_prunable_families()} can; or prune weights."
        return Problem(("kind",), f"channels of {model.kind} cannot be removed.", hint)
    problem = next(
        (each for name, left in pruning.widths.items() if (each := _find_widths_problem(name, left, model))), None
    )
    return problem or _find_layer_problem(model) or _find_result_problem(pruning, model)


def _list_prunable_families() -> str:
    """Format the model families whose channels can be removed, as part of a sentence."""
    names = [name for name in parts.names("models") if get_width_options(parts.load("models", name).Options)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _find_widths_problem(name: str, left: Widths, model: Kind) -> Problem | None:
    """Find what is wrong with an entry of `widths`."""
    place, options = ("widths", name), get_width_options(model)
    if name not in options:
        return Problem(place, f"{model.kind} has no widths '{name}'.", parts.did_you_mean(name, options))
    widths = getattr(model, name)
    hint = f"Those of the model: {list(widths) if isinstance(widths, tuple) else widths}."
    if isinstance(widths, tuple) != isinstance(left, tuple):
        expected = "a list of widths" if isinstance(widths, tuple) else "one number"
        return Problem(place, f"expected {expected}.", hint)
    before, after = (value if isinstance(value, tuple) else (value,) for value in (widths, left))
    if len(before) != len(after):
        return Problem(place, f"{len(after)} widths for {len(before)} layers.", hint)
    wider = [(old, new) for old, new in zip(before, after, strict=True) if new > old]
    if wider:
        return Problem(place, f"pruning cannot make a layer wider: {wider[0][1]:g} instead of {wider[0][0]:g}.", hint)
    return None


def _find_layer_problem(model: Kind) -> Problem | None:
    """Find a layer on which channels of zeros have an effect, so that they cannot be removed."""
    normalization = getattr(model, "normalization", None)
    if normalization in ("layer", "group") and not getattr(model, "NORMALIZES_WHOLE", False):
        message = f"channels before {normalization} normalization cannot be removed: its statistics are of all of them."
        return Problem((), message, "Use `model.normalization: batch`, or prune weights.")
    activation = getattr(model, "dense_activation", getattr(model, "activation", None))
    if activation is not None and activation.kind in _NONZERO_AT_ZERO:
        message = f"channels before {activation.kind} cannot be removed: {activation.kind}(0) is not 0."
        return Problem((), message, "Use `model.activation: relu`, gelu, silu or tanh.")
    if getattr(model, "share", False):
        return Problem((), "channels of layers that share their weights cannot be removed.", "Prune weights.")
    return None


def _find_result_problem(pruning: ChannelPruning, model: Kind) -> Problem | None:
    left = pruning.resolve_widths(model)
    for name, least in getattr(model, "WIDTHS_ABOVE", {}).items():
        if left[name] <= least:
            message = f"{left[name]:g} would be left of {name} {getattr(model, name):g}, expected more than {least:g}."
            return Problem((), message, "Lower `sparsity`.")
    if all(getattr(model, name) == widths for name, widths in left.items()):
        return Problem((), "no channel would be removed.", "Raise `sparsity`.")
    return None
