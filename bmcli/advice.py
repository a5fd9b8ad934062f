"""Commands that messages advise: values that are written in one way, so that a user can copy each into a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from bmcli import plugins


@dataclass(frozen=True)
class Command:
    """A command of bmcli that a message advises.

    Args:
        arguments: The verb and its arguments, without quotes for a shell. Words in capitals, such as RECIPE, are left
            to the reader.
    """

    arguments: tuple[str, ...]

    def with_arguments(self, *more: str) -> Command:
        """Make the same command with more arguments."""
        return Command((*self.arguments, *more))

    @property
    def line(self) -> str:
        """The command line, quoted for a shell, with the `--plugin` options of this process."""
        options = [word for file in plugins.list_plugin_files() for word in ("--plugin", file)]
        return shlex.join(["bmcli", *options, *self.arguments])

    def __str__(self) -> str:
        """Format the command line in backticks."""
        return f"`{self.line}`"


def make_command(*arguments: object) -> Command:
    """Make a command that a message advises, such as `make_command("export", run.display_path)`."""
    return Command(tuple(map(str, arguments)))
