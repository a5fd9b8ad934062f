"""Section `export`: the artefacts of a trained model, and how far they may deviate from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bmcli.recipe.fields import Kind, Options, PartField, fault_at

AgreementShare = Annotated[float, Field(ge=0, le=1)]
Limit = Annotated[float, Field(ge=0)]


class VerifyOptions(Options):
    """Comparison of an artefact with its model, in a separate process; beyond a limit it is rejected.

    `auto` limits depend on the precision of the format: float32, float16, or less.
    """

    samples: Annotated[int, Field(ge=1)] = Field(
        default=500, description="Number of evenly spaced rows of the split, in addition to generated edge cases."
    )
    agreement: Literal["auto"] | AgreementShare = Field(
        default="auto",
        description="Minimum fraction of rows in which artefact and model agree: the same class, or the same number "
        "to 0.01 (0.1 below float16) of the interquartile range of the model's predictions. `auto`: 1 with float32; "
        "0.995 with float16, and with int8 of images; else 0.99. Below 1, one row may differ however few rows there "
        "are.",
    )
    max_difference: Literal["auto", "none"] | Limit = Field(
        default="auto",
        description="Largest difference of a probability, or of a number in interquartile ranges of the model's "
        "predictions. `auto` is what rounding explains: 1e-5 of the largest output of the network, such as a logit, "
        "with float32, and from 1e-4 to 0.01; 2e-3 with float16, from 0.02 to 0.1; else `none`.",
    )
    model_r2: Literal["auto", "none"] | Annotated[float, Field(le=1)] = Field(
        default="auto",
        description="Least R2 of predicted numbers with the model's predictions as truth. `auto`: 0.9999 with float32, "
        "0.999 with float16, else 0.99.",
    )
    metric_drop: Literal["auto", "none"] | Limit = Field(
        default="auto",
        description="Largest decrease of accuracy or R2 on these rows. `auto`: 0.001 with float32, else 0.01.",
    )


class ExportOptions(Options):
    """Artefacts that `bmcli export` writes."""

    formats: Annotated[tuple[Annotated[Kind, PartField("export.formats")], ...], Field(min_length=1)] = Field(
        default=(PartField("export.formats").check("saved_model"),),
        description="Formats to write, such as [saved_model, {kind: litert, quantize: int8}].",
    )
    verify: VerifyOptions = Field(
        default=VerifyOptions(), description="How far an artefact may deviate from its model."
    )
    license: str | None = Field(
        default=None, min_length=1, description="Licence of the artefact, for its model card, such as CC-BY-4.0."
    )

    @field_validator("formats")
    @classmethod
    def _names_differ(cls, value: tuple[Kind, ...]) -> tuple[Kind, ...]:
        names = [each.name for each in value]  # type: ignore[attr-defined]  # every format has it, `Kind` does not
        for position, name in enumerate(names):
            if name in names[:position]:
                raise fault_at((position,), f"the artefact '{name}' is there twice.", "List it once.")
        return value
