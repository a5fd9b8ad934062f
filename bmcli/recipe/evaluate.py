"""Section `evaluate`: metrics, intervals, slices and limits of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bmcli.recipe.fields import GateText, Options, fault_at

_WORDS = ("auto", "none")
SplitName = Literal["train", "validation", "test"]


class IntervalOptions(Options):
    """Confidence intervals of metrics, by bootstrap."""

    level: Annotated[float, Field(ge=0.5, le=0.999)] = Field(
        default=0.95, description="Confidence level of the intervals."
    )
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(
        default=1000, description="Number of bootstrap samples."
    )
    group: Literal["auto", "none"] | str = Field(
        default="auto",
        description="Column of groups of dependent rows, such as a patient, which are resampled together. `auto` "
        "uses `data.split.group`.",
    )


class SliceOptions(Options):
    """Slices of the rows to evaluate separately."""

    columns: tuple[str, ...] = Field(
        min_length=1, max_length=2, description="A column, or two columns whose value pairs define the slices."
    )
    bins: Annotated[int, Field(ge=2, le=20)] = Field(
        default=4, description="Number of equally large slices for a column with many numbers."
    )


class FairnessOptions(Options):
    """Groups that the model should treat alike."""

    columns: tuple[str, ...] = Field(
        min_length=1, description="Columns that define groups, such as sex; numbers are divided into quartiles."
    )
    target: str | None = Field(default=None, description="Target to check, if there are several.")
    positive: str | int | float | bool | None = Field(
        default=None,
        description="Class that counts as selection, in any spelling: 1 is also 1.0; by default the positive one of "
        "two (`objective.positive`), or the last one.",
    )


class EvaluateOptions(Options):
    """Evaluation of a trained model."""

    split: SplitName = Field(default="test", description="Split to evaluate.")
    top_k: Annotated[int, Field(ge=2)] = Field(
        default=5, description="k of top-k accuracy, where there are more than k classes."
    )
    gates: Mapping[str, GateText] = Field(
        default={},
        description="Limits on metrics, such as {accuracy: '>= 0.9'}; a missed limit ends with exit code 3. `unseen` "
        "is the largest share of a column's cells that are unlike those of the training rows.",
    )
    intervals: IntervalOptions = Field(default=IntervalOptions(), description="Confidence intervals of metrics.")
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None,
        description="Number of folds: `bmcli evaluate` retrains the recipe on folds of the training and validation "
        "rows and tests each row once (cross-validation).",
    )
    slices: Literal["all"] | tuple[str | tuple[str, ...] | SliceOptions, ...] = Field(
        default=(),
        description="Slices to evaluate separately: columns such as Home, pairs such as [Home, Marital], or {columns: "
        "[Age], bins: 4}; `all` searches all columns and pairs for the worst slices.",
    )
    fairness: FairnessOptions | None = Field(
        default=None,
        description="Groups to compare by selection rate and error rates. Differences and ratios are metrics, such "
        "as fairness/sex/selection_rate_ratio.",
    )

    def get_named_slices(self) -> tuple[SliceOptions, ...]:
        """The slices that are listed; none for `all`."""
        if self.slices == "all":
            return ()
        entries = ((each,) if isinstance(each, str) else each for each in self.slices)
        return tuple(each if isinstance(each, SliceOptions) else SliceOptions(columns=each) for each in entries)

    @field_validator("slices")
    @classmethod
    def _slices_can_be_read(cls, value: Any) -> Any:
        for position, each in enumerate(value if value != "all" else ()):
            if isinstance(each, tuple) and not 1 <= len(each) <= 2:
                raise fault_at((position,), f"expected one column or two, received {len(each)}.")
        return value

    def columns(self) -> dict[str, str]:
        """The columns that this section names, by their paths in the recipe."""
        columns = {} if self.intervals.group in _WORDS else {"evaluate.intervals.group": self.intervals.group}
        for position, each in enumerate(self.get_named_slices()):
            columns |= {f"evaluate.slices.{position}.{place}": name for place, name in enumerate(each.columns)}
        for position, name in enumerate(() if self.fairness is None else self.fairness.columns):
            columns[f"evaluate.fairness.columns.{position}"] = name
        return columns
