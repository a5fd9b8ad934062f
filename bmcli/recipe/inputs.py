"""Options of the kinds of inputs, as far as the recipe language reads them."""

from __future__ import annotations

from typing import ClassVar

from bmcli.recipe.fields import Kind


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
