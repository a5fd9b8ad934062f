"""The `evaluate` section: how a trained model is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bmcli.recipe.fields import Gate, Options, fault_at

_WORDS = ("auto", "none")
SplitName = Literal["train", "validation", "test"]


class IntervalOptions(Options):
    """How intervals around metrics are made."""

    level: Annotated[float, Field(ge=0.5, le=0.999)] = Field(
        default=0.95, description="How often an interval is to hold the true value."
    )
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(
        default=1000, description="Samples drawn from the rows, each as large as they are."
    )
    group: Literal["auto", "none"] | str = Field(
        default="auto",
        description="A column whose equal cells tell rows that belong together, as those of one patient, which are "
        "then drawn together. `auto` takes `data.split.group`.",
    )


class SliceOptions(Options):
    """A way to divide the rows that are measured."""

    of: tuple[str, ...] = Field(min_length=1, max_length=2, description="A column, or two of which each pair counts.")
    bins: Annotated[int, Field(ge=2, le=20)] = Field(
        default=4, description="Parts of equally many rows that a column of many numbers is divided into."
    )


class FairnessOptions(Options):
    """Groups that a model is to treat alike."""

    of: tuple[str, ...] = Field(min_length=1, description="Columns that tell groups, as sex; numbers in four parts.")
    target: str | None = Field(default=None, description="The target, if there are several.")
    positive: str | None = Field(
        default=None, description="The class that rows are selected for; by default the last one."
    )


class EvaluateOptions(Options):
    """How a trained model is measured."""

    split: SplitName = Field(default="test", description="The rows to measure on.")
    top_k: Annotated[int, Field(ge=2)] = Field(
        default=5, description="k of top-k accuracy, where there are more classes."
    )
    gates: Mapping[str, Gate] = Field(
        default={},
        description="Limits on metrics, as {accuracy: '>= 0.9'}; a missed one ends with exit code 3.",
    )
    intervals: IntervalOptions = Field(default=IntervalOptions(), description="How intervals around metrics are made.")
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None,
        description="`bmcli evaluate` trains the recipe anew on so many folds of the training and validation rows, and "
        "tests each row once (cross-validation).",
    )
    slices: Literal["all"] | tuple[str | tuple[str, ...] | SliceOptions, ...] = Field(
        default=(),
        description="Parts of the rows to measure each by itself, by columns as Home, pairs as [Home, Marital], or "
        "{of: [Age], bins: 4}; `all` looks at every column and pair for the worst.",
    )
    fairness: FairnessOptions | None = Field(
        default=None,
        description="Groups to compare: how often each is selected, rightly and wrongly. The differences and ratios "
        "are metrics, as fairness/sex/selection_rate_ratio.",
    )

    def slicings(self) -> tuple[SliceOptions, ...]:
        """The slices that are named."""
        if self.slices == "all":
            return ()
        spelled = ((each,) if isinstance(each, str) else each for each in self.slices)
        return tuple(each if isinstance(each, SliceOptions) else SliceOptions(of=each) for each in spelled)

    @field_validator("slices")
    @classmethod
    def _slices_can_be_read(cls, value: Any) -> Any:
        for position, each in enumerate(value if value != "all" else ()):
            if isinstance(each, tuple) and not 1 <= len(each) <= 2:
                raise fault_at((position,), f"expected one column or two, received {len(each)}.")
        return value

    def columns(self) -> dict[str, str]:
        """Every column that is named, by its place in the recipe."""
        found = {"evaluate.intervals.group": self.intervals.group} if self.intervals.group not in _WORDS else {}
        for position, each in enumerate(self.slicings()):
            found |= {f"evaluate.slices.{position}.{place}": name for place, name in enumerate(each.of)}
        for position, name in enumerate(() if self.fairness is None else self.fairness.of):
            found[f"evaluate.fairness.of.{position}"] = name
        return found
