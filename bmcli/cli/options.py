"""Argument types, options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bmcli import parts
from bmcli.terminal.console import Console

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
SPLITS = ("train", "validation", "test")
RECIPE_EPILOG = (
    "RECIPE is a file or the name of a built-in recipe (`bmcli ls`). KEY=VALUE overrides a value of it, such as "
    "train.epochs=20."
)
RUN_EPILOG = "RUN is a run folder, the name of a run, or a recipe, which stands for its latest run."


class RecipeType(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """Recipe file, or the name of a built-in recipe."""

    name = "recipe"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from bmcli.recipe.load import list_built_in

        names = [CompletionItem(name) for name in list_built_in() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


class RunType(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """Run folder, name of a run, or recipe file."""

    name = "run"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        root = Path(ctx.params.get("root") or "runs")
        folders = root.iterdir() if root.is_dir() else ()
        names = [CompletionItem(folder.name) for folder in folders if folder.name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


_ROOM_OF_KIND = {"model.kind": "models", "objective.kind": "objectives", "data.source.kind": "data.sources"}
_CATALOGUE_OF_KIND = {"train.optimizer.kind": "optimizers", "train.schedule.kind": "schedules"}


class OverrideType(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """`key=value`; after `kind=`, completion offers the kinds of that section."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in value:
            from bmcli.recipe.addresses import allow_typed

            allow_typed(value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        key, equals, start = incomplete.partition("=")
        if not equals:
            keys = sorted({*_ROOM_OF_KIND, *_CATALOGUE_OF_KIND, "seed", "train.epochs", "train.batch_size"})
            return [CompletionItem(f"{known}=") for known in keys if known.startswith(incomplete)]
        return [CompletionItem(f"{key}={kind}") for kind in self._list_kinds(key) if kind.startswith(start)]

    def _list_kinds(self, key: str) -> list[str]:
        from bmcli.recipe import catalogue

        if key in _CATALOGUE_OF_KIND:
            return catalogue.list_kinds(_CATALOGUE_OF_KIND[key])
        room = _ROOM_OF_KIND.get(key)
        if key.startswith("data.inputs.") and key.endswith(".kind"):
            room = "inputs"
        if key.startswith("data.targets.") and key.endswith(".kind"):
            room = "data.targets"
        return list(parts.names(room)) if room else []


def get_console() -> Console:
    """Return the console of the running command."""
    return click.get_current_context().ensure_object(Console)


def make_override(key: str, value: object) -> tuple[str, ...]:
    """Return the override that an option stands for; none if the option is not given."""
    return () if value is None else (f"{key}={value}",)


def output_options(command: CommandFunction) -> CommandFunction:
    """Add --json, -q and -v, which set up the console."""

    def collect(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        console = ctx.ensure_object(Console)
        if param.name == "as_json":
            console.as_json = console.as_json or value
        elif value:
            console.verbosity = -1 if param.name == "quiet" else value
        return value

    options: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("-v", "--verbose"), {"count": True, "help": "Print more messages."}),
        (("-q", "--quiet"), {"is_flag": True, "help": "Print only results and errors."}),
        (("--json", "as_json"), {"is_flag": True, "help": "Print the result as one JSON object."}),
    ]
    for names, settings in options:
        command = click.option(*names, expose_value=False, callback=collect, is_eager=True, **settings)(command)
    return command


runs_option = click.option(
    "--runs", "root", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), envvar="BMCLI_RUNS",
    show_default=True, show_envvar=True, help="Folder of all runs.",
)  # fmt: skip

trust_option = click.option(
    "--trust-artefact", is_flag=True,
    help="Load an artefact that you did not export yourself. It may run arbitrary code with your permissions.",
)  # fmt: skip


def split_option(text: str) -> Callable[[CommandFunction], CommandFunction]:
    return click.option("--split", type=click.Choice(SPLITS), help=text)


def new_file_option(
    name: str, metavar: str, text: str, default: Path | None = None
) -> Callable[[CommandFunction], CommandFunction]:
    """Add an option that names a file to create; existing files are never overwritten."""
    path = click.Path(path_type=Path, dir_okay=False)
    return click.option(
        name, type=path, metavar=metavar, default=default, show_default=default is not None, help=text
    )  # fmt: skip


recipe_argument = click.argument("recipe", type=RecipeType())
optional_recipe_argument = click.argument("recipe", type=RecipeType(), required=False)
run_argument = click.argument("run", type=RunType())
overrides_argument = click.argument("overrides", nargs=-1, type=OverrideType(), metavar="[KEY=VALUE]...")
