"""Options by which kinds of inputs and targets read numbers that are written in another notation."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from bmcli.notation import DecimalMark, NumberNotation, ThousandsMark
from bmcli.recipe.fields import Kind, fault


class NotationOptions(Kind):
    """Base class of the options of kinds that read numbers from text."""

    decimal: DecimalMark = Field(default=".", description='Mark before the fraction: "." or ",".')
    thousands: ThousandsMark = Field(
        default="",
        description='Mark between groups of three digits, as in 1,234.50: ",", ".", a blank or "\'", of any kind; by '
        "default there are no groups.",
    )
    unit: str = Field(
        default="",
        description='Text before or after the numbers, such as "$", "EUR", "%" or "kg". Numbers without it are read, '
        'too, unless it is "%".',
    )

    @field_validator("unit")
    @classmethod
    def _check_unit(cls, value: str) -> str:
        if any(character.isdigit() for character in value):
            raise fault("unit", f"expected a text without digits, received {value!r}.")
        return value.strip()

    @model_validator(mode="after")
    def _check_marks(self) -> NotationOptions:
        if self.decimal == self.thousands:
            raise fault("thousands", f"{self.decimal!r} is the mark before the fraction, too.", "Set `decimal`.")
        return self

    @property
    def notation(self) -> NumberNotation:
        return NumberNotation(self.decimal, self.thousands, self.unit)
