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
from bmcli.cli.options import output_options


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS, no_args_is_help=True)
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
def cli(plugins: tuple[Path, ...]) -> None:
    """Train, tune, evaluate, distill and export Keras models from one YAML recipe.

    \b
      bmcli init table.csv                write a recipe for your own data
      bmcli train recipe.yaml             train it
      bmcli evaluate recipe.yaml          evaluate its latest run
      bmcli predict recipe.yaml new.csv   predict new rows with that run
      bmcli export recipe.yaml            export its model for serving

    `bmcli COMMAND --help` explains a command.
    """
    if plugins:
        from bmcli.plugins import add_files

        add_files(plugins)


cli.add_section("Prepare", preparing.COMMANDS)
cli.add_section("Train", training.COMMANDS)
cli.add_section("Evaluate", measuring.COMMANDS)
cli.add_section("Deploy", deploying.COMMANDS)
cli.add_section("Recipes, runs and installation", library.COMMANDS)
