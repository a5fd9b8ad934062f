"""Commands that write and check recipes: init, validate, plan, show, schema."""

from __future__ import annotations

from pathlib import Path

import click

from bmcli.cli.group import ResumableCommand
from bmcli.cli.options import (
    RECIPE_EPILOG,
    RecipeType,
    get_console,
    new_file_option,
    output_options,
    overrides_argument,
    recipe_argument,
    runs_option,
)


@click.command(
    cls=ResumableCommand,
    epilog="DATA is a table (such as CSV or Parquet), an archive of arrays (.npz), or a folder of tables or pictures.",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--target", metavar="COLUMN", help="Column to predict; by default detected, where only one is plausible.")
@click.option(
    "--encoding", metavar="NAME", help="Text encoding of a table, such as gbk or shift_jis; by default detected."
)
@new_file_option(
    "--output", "FILE", "Recipe to write; existing files are never overwritten.", default=Path("recipe.yaml")
)
@output_options
def init_command(data: Path, target: str | None, encoding: str | None, output: Path) -> None:
    """Inspect data and write a recipe that trains on it."""
    from bmcli.commands.init import init
    from bmcli.terminal.presenters import draft

    get_console().present(draft, init(data, target, output, encoding))


@click.command(cls=ResumableCommand, epilog=RECIPE_EPILOG)
@recipe_argument
@overrides_argument
@click.option("--deep", is_flag=True, help="Also read the data and build the model.")
@output_options
def validate_command(recipe: str, overrides: tuple[str, ...], deep: bool) -> None:
    """Check a recipe and list all errors at once."""
    from bmcli.commands.validate import validate
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import validation

    get_console().present(validation, validate(recipe, overrides, make_cache_folder() if deep else None))


@click.command(cls=ResumableCommand, epilog=RECIPE_EPILOG)
@recipe_argument
@overrides_argument
@click.option(
    "--replicas", multiple=True, type=click.IntRange(1), metavar="N",
    help="Predict the time of a step on N replicas; repeatable.  [default: 1, 2, 8, 64, 1024]",
)  # fmt: skip
@new_file_option("--pictures", "FILE.png", "Also draw some training pictures as the network will see them.")
@output_options
def plan_command(recipe: str, overrides: tuple[str, ...], replicas: tuple[int, ...], pictures: Path | None) -> None:
    """Estimate columns, layers, memory and training time."""
    from bmcli.commands.plan import REPLICAS, plan
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import training_plan

    chosen = sorted(set(replicas)) or REPLICAS
    get_console().present(training_plan, plan(recipe, overrides, chosen, make_cache_folder(), pictures))


@click.command(cls=ResumableCommand, epilog=f"{RECIPE_EPILOG} RUN is a run folder or the name of a run.")
@click.argument("target", type=RecipeType(), metavar="RECIPE|RUN")
@overrides_argument
@click.option("--why", metavar="KEY", help="Show only where the value of this key comes from, such as train.epochs.")
@runs_option
@output_options
def show_command(target: str, overrides: tuple[str, ...], why: str | None, root: Path) -> None:
    """Print a resolved recipe and the origin of each value."""
    from bmcli.commands.show import show
    from bmcli.terminal.presenters import resolved_recipe

    get_console().present(resolved_recipe, show(target, overrides, why, root))


@click.command(cls=ResumableCommand)
@output_options
def schema_command() -> None:
    """Print the JSON schema of recipes, for editors."""
    from bmcli.recipe.json_schema import make_recipe_schema
    from bmcli.terminal.presenters import schema

    get_console().present(schema, make_recipe_schema())


COMMANDS = (init_command, validate_command, plan_command, show_command, schema_command)
