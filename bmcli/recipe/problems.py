"""Mistakes in parts of a recipe, before the place of that part in the recipe is known."""

from __future__ import annotations

from typing import NamedTuple

from bmcli.recipe.nodes import KeyPath


class Problem(NamedTuple):
    """A mistake in a value that is checked.

    Args:
        place: Path from that value to the mistake.
        message: The mistake, as a sentence.
        suggestion: The next step, as a sentence; empty if there is none.
    """

    place: KeyPath
    message: str
    suggestion: str = ""

    def below(self, *steps: str | int) -> Problem:
        """The same problem, seen from a value that contains the checked one at these steps."""
        return self._replace(place=(*steps, *self.place))
