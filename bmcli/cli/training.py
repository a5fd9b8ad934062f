"""Commands that train: train, tune, distill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bmcli.cli.group import ResumableCommand
from bmcli.cli.options import (
    RECIPE_EPILOG,
    STRATEGIES,
    get_console,
    make_override,
    optional_recipe_argument,
    output_options,
    overrides_argument,
    runs_option,
)

if TYPE_CHECKING:
    from bmcli.workflows.training import TrainingContext


@click.command(
    cls=ResumableCommand,
    epilog=f"{RECIPE_EPILOG} A resumed run allows train.epochs, train.stop, train.schedule.span, train.checkpoint, "
    "train.tensorboard, runtime and evaluate.",
)
@optional_recipe_argument
@overrides_argument
@click.option("--resume", metavar="RUN", help="Resume a run, given by folder or name.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of worker processes on this machine.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Devices to use; short for runtime.strategy=...")
@click.option(
    "--replicas", type=click.IntRange(1), metavar="N", help="Number of devices; short for runtime.replicas=N."
)
@click.option("--profile", is_flag=True, help="Record a profile of a few seconds of training for TensorBoard.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), hidden=True)
@runs_option
@output_options
def train_command(
    recipe: str | None, overrides: tuple[str, ...], resume: str | None, workers: int | None, strategy: str | None,
    replicas: int | None, profile: bool, into: Path | None, root: Path,
) -> int | None:  # fmt: skip
    """Train the model of a recipe and evaluate it."""
    from bmcli.commands import train
    from bmcli.terminal.presenters import training

    recipe, overrides = _separate_recipe(recipe, resume, overrides)
    overrides = (*overrides, *make_override("runtime.strategy", strategy), *make_override("runtime.replicas", replicas))
    if workers is not None:
        arguments = _list_worker_arguments(recipe, resume, overrides, profile, root)
        return train.train_in_workers(recipe, resume, overrides, workers, root, arguments)
    context = _make_context(root, profile, into)
    trained = train.resume(resume, overrides, context) if resume else train.train(recipe or "", overrides, context)
    get_console().present(training, trained)
    trained.require_report()
    if trained.evaluation:
        trained.evaluation.require_gates()
    return None


def _make_context(root: Path, profile: bool = False, run_folder: Path | None = None) -> TrainingContext:
    from bmcli.runs import make_cache_folder
    from bmcli.workflows.training import TrainingContext

    console = get_console()
    return TrainingContext(root, make_cache_folder(), console.make_progress, console.log, profile, run_folder)


def _list_worker_arguments(
    recipe: str | None, resume: str | None, overrides: tuple[str, ...], profile: bool, root: Path
) -> list[str]:
    """List the arguments of this command for its workers, without those about workers."""
    target = [recipe] if recipe else ["--resume", resume or ""]
    flags = [*get_console().list_flags(), *(["--profile"] if profile else [])]
    return ["train", *target, *overrides, "--runs", str(root), *flags]


def _separate_recipe(
    recipe: str | None, resume: str | None, overrides: tuple[str, ...]
) -> tuple[str | None, tuple[str, ...]]:
    """Return recipe and overrides; with --resume every argument is an override."""
    if resume and recipe:
        return None, (recipe, *overrides)
    if not (recipe or resume):
        raise click.UsageError("RECIPE or --resume RUN is required.")
    return recipe, overrides


@click.command(
    cls=ResumableCommand,
    epilog=f"{RECIPE_EPILOG} SEARCH is the folder of a search, or the name of its recipe. A RECIPE given with --resume "
    "must be the one that the search was started with.",
)
@optional_recipe_argument
@overrides_argument
@click.option("--resume", metavar="SEARCH", help="Resume a search.")
@click.option("--join", metavar="SEARCH", help="Train trials of a search that another process runs.")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Number of trials to train in parallel on this machine."
)
@runs_option
@output_options
def tune_command(
    recipe: str | None, overrides: tuple[str, ...], resume: str | None, join: str | None, workers: int | None,
    root: Path,
) -> None:  # fmt: skip
    """Search the hyperparameters of a recipe (section `tune`)."""
    from bmcli.commands import tune
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import search

    recipe, overrides = _separate_search(recipe, overrides, resume, join)
    console = get_console()
    context = tune.SearchContext(root, make_cache_folder(), console.make_search_progress, console.log)
    if join:
        return tune.join(join, workers or 1, context)
    overrides = (*overrides, *make_override("tune.workers", workers))
    tuned = tune.resume(resume, overrides, context, recipe) if resume else tune.tune(recipe or "", overrides, context)
    console.present(search, tuned)
    if tuned.evaluation:
        tuned.evaluation.require_gates()


def _separate_search(
    recipe: str | None, overrides: tuple[str, ...], resume: str | None, join: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Return recipe and overrides; with --resume an argument such as KEY=VALUE is an override."""
    if resume and recipe and "=" in recipe:
        overrides, recipe = (recipe, *overrides), None
    if not (recipe or resume or join):
        raise click.UsageError("RECIPE, --resume SEARCH or --join SEARCH is required.")
    if join and (recipe or overrides or resume):
        raise click.UsageError("--join excludes RECIPE, KEY=VALUE and --resume.")
    return recipe, overrides


@click.command(
    cls=ResumableCommand,
    epilog=f"{RECIPE_EPILOG} DISTILLATION is the folder of a distillation, or the name of its recipe.",
)
@optional_recipe_argument
@overrides_argument
@click.option("--resume", metavar="DISTILLATION", help="Resume a distillation.")
@runs_option
@output_options
def distill_command(recipe: str | None, overrides: tuple[str, ...], resume: str | None, root: Path) -> None:
    """Distill teachers into a student (section `distill`).

    A baseline, the same student trained without teachers, shows the gain of distillation.
    """
    from bmcli.commands import distill
    from bmcli.terminal.presenters import distillation

    _check_distillation(recipe, overrides, resume)
    context = _make_context(root)
    distilled = distill.resume(resume, context) if resume else distill.distill(recipe or "", overrides, context)
    get_console().present(distillation, distilled)
    distilled.require_gain()


def _check_distillation(recipe: str | None, overrides: tuple[str, ...], resume: str | None) -> None:
    if not (recipe or resume):
        raise click.UsageError("RECIPE or --resume DISTILLATION is required.")
    if resume and (recipe or overrides):
        raise click.UsageError("--resume excludes RECIPE and KEY=VALUE.")


COMMANDS = (train_command, tune_command, distill_command)
