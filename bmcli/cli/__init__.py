"""Command line: parse, call one function, print one result.

Modules of commands import the code they call inside of functions: `--help` must not pay for pydantic, nor `validate`
for TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

import click

from bmcli import __version__
from bmcli.cli import deploying, library, measuring, preparing, training
from bmcli.cli.group import CONTEXT_SETTINGS, CommandGroup
from bmcli.cli.options import get_console, output_options


@click.group(
    cls=CommandGroup, context_settings=CONTEXT_SETTINGS, invoke_without_command=True,
    epilog="Environment: BMCLI_RUNS names the folder of all runs (by default runs), BMCLI_CACHE that of prepared data "
    "and compiled programs (by default bmcli in the cache folder of the user).",
)  # fmt: skip
@click.version_option(__version__, prog_name="bmcli")
@click.option(
    "--plugin",
    "plugins",
    metavar="FILE.py",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Python file with parts of your own, such as a model family; may be given several times.",
)
@output_options
@click.pass_context
def cli(ctx: click.Context, plugins: tuple[Path, ...]) -> None:
    """Train, tune, evaluate, distill and export Keras models from one YAML recipe.

    \b
      bmcli init table.csv               write a recipe
      bmcli train recipe.yaml            train its model
      bmcli evaluate recipe.yaml         evaluate its run
      bmcli predict recipe.yaml new.csv  predict new rows
      bmcli generate recipe.yaml "Once"  continue a text
      bmcli export recipe.yaml           export its model

    `bmcli COMMAND --help` explains a command.
    """
    if ctx.invoked_subcommand is None:
        if get_console().as_json:
            raise click.UsageError("COMMAND is required.")
        click.echo(ctx.get_help())
        ctx.exit(2)
    if plugins:
        from bmcli.plugins import add_files

        add_files(plugins)


cli.add_section("Prepare", preparing.COMMANDS)
cli.add_section("Train", training.COMMANDS)
cli.add_section("Evaluate", measuring.COMMANDS)
cli.add_section("Deploy", deploying.COMMANDS)
cli.add_section("Recipes, runs and installation", library.COMMANDS)
