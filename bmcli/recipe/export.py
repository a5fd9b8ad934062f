"""The `export` section: which artefacts are made of a trained model, and how far they may be from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bmcli.recipe.fields import Kind, Options, PartOf, fault_at

Share = Annotated[float, Field(ge=0, le=1)]
Limit = Annotated[float, Field(ge=0)]


class VerifyOptions(Options):
    """How an artefact is compared with its model, in a process of its own; one that is beyond a limit is rejected.

    `auto` limits follow from how exactly a format computes: float32, float16, or less.
    """

    samples: Annotated[int, Field(ge=1)] = Field(
        default=500, description="Rows of the split, evenly spread; awkward rows of our making come on top."
    )
    agreement: Literal["auto"] | Share = Field(
        default="auto",
        description="Share of the rows in which artefact and model decide alike: the same class, or the same number to "
        "a hundredth of the deviation, with less than float16 to a tenth. `auto`: 1 with float32; 0.995 with float16, "
        "and int8 of pictures; else 0.99, and below 1 one row may differ however few rows there are.",
    )
    max_difference: Literal["auto", "none"] | Limit = Field(
        default="auto",
        description="Largest difference of a probability, or of a number in deviations of the predictions. "
        "`auto`: 1e-4 with float32, 0.02 with float16, else `none`.",
    )
    metric_drop: Literal["auto", "none"] | Limit = Field(
        default="auto",
        description="How much lower accuracy or R2 may be on these rows. `auto`: 0.001 with float32, else 0.01.",
    )


class ExportOptions(Options):
    """What `bmcli export` writes."""

    formats: Annotated[tuple[Annotated[Kind, PartOf("export.formats")], ...], Field(min_length=1)] = Field(
        default=(PartOf("export.formats").check("saved_model"),),
        description="Artefacts to write, as [saved_model, {kind: litert, quantize: int8}].",
    )
    verify: VerifyOptions = Field(default=VerifyOptions(), description="How far an artefact may be from its model.")
    licence: str | None = Field(
        default=None, min_length=1, description="Under which others may use the artefact, for its card: CC-BY-4.0."
    )

    @field_validator("formats")
    @classmethod
    def _names_differ(cls, value: tuple[Kind, ...]) -> tuple[Kind, ...]:
        names = [each.name for each in value]  # type: ignore[attr-defined]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise fault_at((position,), f"the artefact '{name}' is there twice.", "Leave it in once.")
        return value
