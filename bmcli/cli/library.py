"""Commands over what is there already: ls and cp of built-in recipes, runs, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from bmcli.cli.group import ResumableCommand
from bmcli.cli.options import get_console, output_options, recipe_argument, runs_option


@click.command(
    "ls",
    cls=ResumableCommand,
    epilog="ROOM is a group of kinds, such as models; without one, recipes are listed.",
)
@click.argument("room", required=False)
@output_options
def list_recipes(room: str | None) -> None:
    """List the built-in recipes, or the kinds of a room.

    Kinds of plug-ins are listed, too.
    """
    if room is not None:
        from bmcli.commands.kinds import list_kinds
        from bmcli.terminal.presenters import kinds

        get_console().present(kinds, list_kinds(room))
        return
    from bmcli.commands.recipes import describe_built_in
    from bmcli.terminal.presenters import built_in_recipes

    get_console().present(built_in_recipes, describe_built_in())


@click.command(
    "cp", cls=ResumableCommand, epilog="RECIPE is the name of a built-in recipe; DESTINATION is a file or a folder."
)
@recipe_argument
@click.argument("destination", type=click.Path(path_type=Path))
@output_options
def copy_recipe(recipe: str, destination: Path) -> None:
    """Copy a built-in recipe, and any data that it includes."""
    from bmcli.commands.recipes import copy_built_in
    from bmcli.terminal.presenters import copied_recipe

    get_console().present(copied_recipe, copy_built_in(recipe, destination))


@click.command("runs", cls=ResumableCommand)
@click.argument("name", required=False)
@runs_option
@output_options
def list_runs(name: str | None, root: Path) -> None:
    """List runs, newest last; with NAME only those of that recipe."""
    from bmcli.commands.runs import describe_runs
    from bmcli.terminal.presenters import runs

    get_console().present(runs, describe_runs(root, name))


@click.command(cls=ResumableCommand)
@output_options
def doctor_command() -> None:
    """Check versions, devices and optional dependencies."""
    from bmcli.commands.doctor import check_machine
    from bmcli.terminal.presenters import machine_checks

    checks = check_machine()
    get_console().present(machine_checks, checks)
    if any(check.mark == "missing" for check in checks):
        raise click.exceptions.Exit(1)


COMMANDS = (list_recipes, copy_recipe, list_runs, doctor_command)
