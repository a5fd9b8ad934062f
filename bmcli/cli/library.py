"""Commands over what is there already: ls and cp of built-in recipes, runs, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from bmcli.cli.group import ResumableCommand
from bmcli.cli.options import get_console, output_options, recipe_argument, runs_option


@click.command("ls", cls=ResumableCommand)
@output_options
def list_recipes() -> None:
    """List the built-in recipes."""
    from itertools import groupby

    from bmcli.commands.recipes import describe_built_in

    recipes = describe_built_in()
    console = get_console()
    console.result({"recipes": recipes})
    for folder, entries in groupby(recipes, key=lambda entry: entry["folder"]):
        console.table("", [folder, "description"], [[entry["name"], entry["headline"]] for entry in entries])


@click.command(
    "cp", cls=ResumableCommand, epilog="RECIPE is the name of a built-in recipe; DESTINATION is a file or a folder."
)
@recipe_argument
@click.argument("destination", type=click.Path(path_type=Path))
@output_options
def copy_recipe(recipe: str, destination: Path) -> None:
    """Copy a built-in recipe, and any data that it includes."""
    from bmcli.commands.recipes import copy_built_in
    from bmcli.console import clean
    from bmcli.disk import format_path

    written = copy_built_in(recipe, destination)
    console = get_console()
    console.result({"written": [str(path) for path in written]})
    console.text("\n".join(clean(f"wrote {format_path(path)}") for path in written))


@click.command("runs", cls=ResumableCommand)
@click.argument("name", required=False)
@runs_option
@output_options
def list_runs(name: str | None, root: Path) -> None:
    """List runs, newest last; with NAME only those of that recipe."""
    from bmcli.commands.runs import describe_runs

    runs = describe_runs(root, name)
    console = get_console()
    console.result({"runs": runs})
    rows = [[run["name"], run["id"], run["state"], run["epochs"], run["headline"], run["seconds"]] for run in runs]
    console.table("", ["recipe", "run", "state", "epochs", "metric", "seconds"], rows)
    for run in runs:
        if run["fault"]:
            console.log(f"warning: {run['fault']}")
    if not runs:
        console.log(f"no runs in {root} yet; `bmcli train digits` creates one.")


@click.command(cls=ResumableCommand)
@output_options
def doctor_command() -> None:
    """Check versions, devices and optional dependencies."""
    from bmcli.commands.doctor import check_machine

    checks = check_machine()
    console = get_console()
    console.result({"checks": [vars(check) for check in checks]})
    console.table("", ["", "check", "found", "advice"], [[c.mark, c.name, c.found, c.advice] for c in checks])
    if any(check.mark == "missing" for check in checks):
        raise click.exceptions.Exit(1)


COMMANDS = (list_recipes, copy_recipe, list_runs, doctor_command)
