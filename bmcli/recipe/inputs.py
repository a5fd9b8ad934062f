"""Options of the kinds of inputs, as far as the recipe language reads them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bmcli.recipe.fields import Kind

MissingCells = Annotated[
    tuple[str, ...],
    Field(
        description="Further texts that mark a missing value, in any case, beside empty cells and the usual ones such "
        "as NULL, n/a, #N/A, unknown and -."
    ),
]
"""Option `missing_cells` of kinds that read numbers, booleans or dates from text."""


class InputOptions(Kind):
    """Base class of the options of every kind of input."""

    AUGMENTED_AS: ClassVar[str | None] = None
    """Form of the values that augmentations change: `image`, pixels `(height, width, channels)` from 0 to 1; `number`,
    encoded numbers; or a word of a plug-in. None for a kind that no augmentation fits."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns from all rows of which `DerivedKind.derive` makes the cells; empty if they are those of one column.

        The cells of the first one are those that the kind checks.
        """
        return ()

    @property
    def can_be_crossed(self) -> bool:
        """Whether each cell is encoded as one of a known number of positions, so that crosses can combine them."""
        return False
