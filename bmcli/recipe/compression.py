"""The parts of `train` that make a network smaller while it learns: pruning, and quantisation-aware training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.recipe.fields import Kind, OneOf, Options, fault_at

Sparsity = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1)]


class Pruning(Kind):
    """When what is pruned rises from nothing to its share, along a cubic curve (Zhu and Gupta 2017, equation 1)."""

    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.25, description="Share of all steps that are over when the first are pruned."
    )
    end: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.75,
        description="Share of all steps that are over when the last are pruned. Those that are left learn on.",
    )
    updates: Annotated[int, Field(ge=1)] = Field(
        default=50, description="How often more are pruned, from `start` to `end`."
    )

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Pruning:
        if self.end <= self.start:
            raise fault_at(("start",), f"pruning would start at {self.start:g} and end at {self.end:g} of the steps.",
                           "Give a smaller `start`, or a larger `end`.")  # fmt: skip
        return self


class WeightPruning(Pruning):
    """Single weights of small magnitude become 0, and stay 0. They shrink compressed files, and nothing else."""

    kind: Literal["weights"] = Field(default="weights", description="Single weights become 0.")
    sparsity: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.8, description="Share of the weights of all kernels that are 0 in the end."
    )
    scope: Literal["network", "kernel"] = Field(
        default="network",
        description="Where the smallest are looked for: among the kernels of the whole network, so that small layers, "
        "which need most of their weights, keep them; or in each kernel, which then has this share of zeros.",
    )
    layers: Mapping[str, Sparsity] = Field(
        default={},
        description="Shares of their own by the names of weights, as {'dense_2/*': 0}; * stands for any text, and the "
        "last pattern that fits decides.",
    )


class ChannelPruning(Pruning):
    """Units and filters with small weights become 0 in the course of the training, and are removed at its end.

    What is kept is an ordinary, narrower network of the family, which needs fewer computations.
    """

    kind: Literal["channels"] = Field(default="channels", description="Units of layers and filters are removed.")
    sparsity: Sparsity = Field(default=0.5, description="Share of each hidden layer's units or filters that go.")
    widths: Mapping[str, tuple[Width, ...]] = Field(
        default={},
        description="Units or filters that are left, in the place of those that follow from `sparsity`, by options of "
        "the model: {filters: [8, 24], dense: [60, 84]}.",
    )

    def left(self, model: Kind) -> dict[str, tuple[int, ...]]:
        """Widths that are left, by the options of the model that tell them."""
        found = {
            name: tuple(max(1, round((1 - self.sparsity) * width)) for width in getattr(model, name))
            for name in widths_of(model)
        }
        return {**found, **self.widths}


PRUNING = OneOf((WeightPruning, ChannelPruning), usual="weights")


class QuantizeAwareOptions(Options):
    """What the network sees of itself while it learns: rounded weights, and rounded inputs of its layers."""

    weights: Literal["int8", "int4"] = Field(
        default="int8", description="Kernels of dense and convolutional layers, with a scale for each channel."
    )
    activations: Literal["int8", "float32"] = Field(
        default="int8", description="What such layers are given, within its usual range; float32 does not round it."
    )
    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="Share of all steps that are over when rounding begins."
    )


def widths_of(model: Kind) -> tuple[str, ...]:
    """The options of a family that tell how wide its layers are, if they can be pruned by channels."""
    return getattr(model, "WIDTHS", ())


def problem_with_model(pruning: Any, model: Kind) -> tuple[tuple[str | int, ...], str, str] | None:
    """Place below `train.prune`, message and suggestion of the first reason why this network cannot be pruned so."""
    if not isinstance(pruning, ChannelPruning):
        return None
    known = widths_of(model)
    if not known:
        return ("kind",), f"channels of {model.kind} cannot be removed.", "Those of mlp and cnn can; or prune weights."
    for name, widths in pruning.widths.items():
        if name not in known:
            return ("widths", name), f"{model.kind} has no widths '{name}'.", parts.did_you_mean(name, known)
        problem = _problem_of_widths(widths, getattr(model, name))
        if problem:
            return ("widths", name), problem, f"Those of the model: {list(getattr(model, name))}."
    if all(tuple(getattr(model, name)) == widths for name, widths in pruning.left(model).items()):
        return (), "no channel would be removed.", "Raise `sparsity`."
    return None


def _problem_of_widths(left: Sequence[int], given: Sequence[int]) -> str:
    if len(left) != len(given):
        return f"{len(left)} widths for {len(given)} layers."
    wider = [after for after, before in zip(left, given, strict=True) if after > before]
    return f"pruning cannot make a layer wider, as {wider[0]}." if wider else ""
