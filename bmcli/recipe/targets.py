"""Options of the kinds of targets, as far as the recipe language reads them."""

from __future__ import annotations

from bmcli.recipe.fields import Kind


class TargetOptions(Kind):
    """Base class of the options of every kind of target."""

    def list_columns(self, name: str) -> tuple[str, ...]:
        """List the columns of the target, by default the one of its name."""
        return (name,)

    @property
    def words_of(self) -> str | None:
        """Text input, named by the option `input`, for each of whose words the target has a value; None for none.

        The kind then receives records of the cells of the target and of the text.
        """
        return None

    def list_read_columns(self, name: str) -> tuple[str, ...]:
        """List the columns from which the target is read: its own, and that of the text whose words it counts."""
        text = self.words_of
        return self.list_columns(name) if text is None else (*self.list_columns(name), text)
