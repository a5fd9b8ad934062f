"""Options of the kinds of tokens, as far as the recipe language reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bmcli.recipe.fields import Kind, PartField


class TokenOptions(Kind):
    """Base class of the options of every kind of tokens."""

    @property
    def keeps_order(self) -> bool:
        """Whether tokens follow each other as in the text, which those of n-grams of several lengths do not."""
        return True


@dataclass(frozen=True)
class TokensField(PartField):
    """A kind of tokens, or null for the one that suits the texts."""

    room: str = "tokens"

    def check(self, value: Any) -> Any:
        return None if value is None else super().check(value)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [*super().json_schema()["anyOf"], {"type": "null"}]}
