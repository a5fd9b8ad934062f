"""Commands that measure trained models: evaluate, explain, compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bmcli.cli.group import ResumableCommand
from bmcli.cli.options import (
    RUN_EPILOG,
    RunType,
    get_console,
    make_override,
    new_file_option,
    output_options,
    overrides_argument,
    run_argument,
    runs_option,
    split_option,
)

if TYPE_CHECKING:
    from bmcli.tuning.retraining import RecipeToRetrain


@click.command(
    cls=ResumableCommand, epilog=f"{RUN_EPILOG} KEY=VALUE may override values of evaluate, runtime and data.source."
)
@run_argument
@overrides_argument
@split_option("Split to evaluate; by default evaluate.split of the recipe.")
@click.option("--data", type=click.Path(path_type=Path), help="Evaluate all rows of this file instead of a split.")
@click.option(
    "--folds", type=click.IntRange(2, 100), metavar="N",
    help="N-fold cross-validation: retrain on each fold. Short for evaluate.folds=N.",
)  # fmt: skip
@click.option(
    "--learning-curve", is_flag=True,
    help="Retrain on 5 to 100 % of the training rows to see whether more data would help.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1), metavar="N",
    help="Number of parallel trainings with --folds or --learning-curve.  [default: number of cores]",
)  # fmt: skip
@runs_option
@output_options
def evaluate_command(
    run: str, overrides: tuple[str, ...], split: str | None, data: Path | None, folds: int | None,
    learning_curve: bool, workers: int | None, root: Path,
) -> None:  # fmt: skip
    """Evaluate a run, or cross-validate its recipe."""
    _check_evaluation(split, data, folds, learning_curve)
    overrides = (*overrides, *make_override("evaluate.folds", folds))
    recipe = None if split or data else _find_recipe_to_retrain(run, overrides, learning_curve, root)
    if recipe is not None:
        return _retrain(recipe, learning_curve, workers, root)
    if workers:
        raise click.UsageError("--workers requires --folds or --learning-curve.")
    _evaluate(run, overrides, split, data, root)


def _check_evaluation(split: str | None, data: Path | None, folds: int | None, learning_curve: bool) -> None:
    if split and data:
        raise click.UsageError("--split and --data exclude each other.")
    if folds and learning_curve:
        raise click.UsageError("--folds and --learning-curve exclude each other.")
    if (folds or learning_curve) and (split or data):
        raise click.UsageError("--folds and --learning-curve retrain the recipe and exclude --split and --data.")


def _evaluate(run: str, overrides: tuple[str, ...], split: str | None, data: Path | None, root: Path) -> None:
    from bmcli.commands.evaluate import evaluate
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import evaluation

    console = get_console()
    evaluated = evaluate(run, overrides, split, data, root, make_cache_folder(), console.log)
    console.present(evaluation, evaluated)
    evaluated.require_gates()


def _find_recipe_to_retrain(run: str, overrides: tuple[str, ...], curve: bool, root: Path) -> RecipeToRetrain | None:
    """Return the recipe for a learning curve or a cross-validation; None if neither is requested."""
    from bmcli.tuning.retraining import find_recipe

    found = find_recipe(run, overrides, root)
    return found if curve or found.loaded.recipe.evaluate.folds is not None else None


def _retrain(recipe: RecipeToRetrain, curve: bool, workers: int | None, root: Path) -> None:
    from bmcli.commands.folds import cross_validate
    from bmcli.commands.learning_curve import measure_learning_curve
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import cross_validation, learning_curve
    from bmcli.tuning.retraining import RetrainingContext

    console = get_console()
    context = RetrainingContext(root, make_cache_folder(), workers, console.log_job_end, console.log)
    if curve:
        return console.present(learning_curve, measure_learning_curve(recipe, context))
    validated = cross_validate(recipe, context)
    console.present(cross_validation, validated)
    validated.require_gates()


@click.command(cls=ResumableCommand, epilog=RUN_EPILOG)
@run_argument
@split_option("Split to explain; by default the first of validation, test and train that has rows.")
@click.option(
    "--rows", type=click.IntRange(2), default=2000, show_default=True, metavar="N",
    help="Maximum number of rows for permutation importance.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, metavar="N",
    help="Permutation repeats per column.",
)  # fmt: skip
@click.option(
    "--examples", type=click.IntRange(1, 50), default=6, show_default=True, metavar="N",
    help="Number of most wrong and of least confident predictions to explain.",
)  # fmt: skip
@runs_option
@output_options
def explain_command(run: str, split: str | None, rows: int, repeats: int, examples: int, root: Path) -> None:
    """Explain a run: feature importance, single predictions, layers."""
    from bmcli.commands.explain import ExplanationRequest, explain
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import explanation

    console = get_console()
    request = ExplanationRequest(split, rows, repeats, examples)
    console.present(explanation, explain(run, request, root, make_cache_folder(), console.log))


@click.command(cls=ResumableCommand, epilog=RUN_EPILOG)
@click.argument("names", type=RunType(), nargs=-1, required=True, metavar="RUN RUN...")
@split_option("Split to compare on; by default evaluate.split of the first run's recipe.")
@click.option(
    "--metric", metavar="NAME",
    help="Deciding metric; by default the first that all runs have, such as accuracy.",
)  # fmt: skip
@new_file_option("--output", "FILE.html", "Also write an HTML page to this new file.")
@runs_option
@output_options
def compare_command(
    names: tuple[str, ...], split: str | None, metric: str | None, output: Path | None, root: Path
) -> None:
    """Compare runs on the same rows and recommend one.

    Shows differences of recipes and metrics with confidence intervals, model sizes and costs.
    """
    from bmcli.commands.compare import compare
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import comparison

    console = get_console()
    console.present(comparison, compare(names, split, metric, output, root, make_cache_folder(), console.log))


@click.command(cls=ResumableCommand, epilog=RUN_EPILOG)
@run_argument
@split_option("Split to show in detail; by default evaluate.split of the recipe.")
@runs_option
@output_options
def report_command(run: str, split: str | None, root: Path) -> None:
    """Regenerate the HTML report of a run."""
    from bmcli.commands.report import report
    from bmcli.runs import make_cache_folder
    from bmcli.terminal.presenters import written_report

    console = get_console()
    console.present(written_report, report(run, split, root, make_cache_folder(), console.log))


COMMANDS = (evaluate_command, explain_command, compare_command, report_command)
