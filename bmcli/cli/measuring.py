"""Commands that measure trained models: evaluate, explain, compare, report."""

from __future__ import annotations

from pathlib import Path

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
    if not (split or data) and _retrain(run, overrides, learning_curve, workers, root):
        return
    if workers:
        raise click.UsageError("--workers requires --folds or --learning-curve.")
    from bmcli.commands.evaluate import evaluate
    from bmcli.runs import make_cache_folder

    console = get_console()
    measured = evaluate(run, overrides, split, data, root, make_cache_folder(), console.log)
    console.measured(measured)
    measured.require_gates()


def _check_evaluation(split: str | None, data: Path | None, folds: int | None, learning_curve: bool) -> None:
    if split and data:
        raise click.UsageError("--split and --data exclude each other.")
    if folds and learning_curve:
        raise click.UsageError("--folds and --learning-curve exclude each other.")
    if (folds or learning_curve) and (split or data):
        raise click.UsageError("--folds and --learning-curve retrain the recipe and exclude --split and --data.")


def _retrain(run: str, overrides: tuple[str, ...], curve: bool, workers: int | None, root: Path) -> bool:
    """Compute a learning curve or cross-validate, and return True; return False if neither is requested."""
    from bmcli.commands.folds import cross_validate
    from bmcli.commands.learning_curve import measure_learning_curve
    from bmcli.runs import make_cache_folder
    from bmcli.tuning.retraining import RetrainingContext, find_recipe

    console = get_console()
    anew = find_recipe(run, overrides, root)
    setting = RetrainingContext(root, make_cache_folder(), workers, console.print_job_end, console.log)
    if curve:
        console.print_learning_curves(measure_learning_curve(anew, setting))
        return True
    if anew.loaded.recipe.evaluate.folds is None:
        return False
    found = cross_validate(anew, setting)
    console.print_cross_validation(found)
    found.require_gates()
    return True


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

    console = get_console()
    console.print_explanation(
        explain(run, ExplanationRequest(split, rows, repeats, examples), root, make_cache_folder(), console.log)
    )


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

    out = get_console()
    out.print_comparison(compare(names, split, metric, output, root, make_cache_folder(), out.log), output)


@click.command(cls=ResumableCommand, epilog=RUN_EPILOG)
@run_argument
@split_option("Split to show in detail; by default evaluate.split of the recipe.")
@runs_option
@output_options
def report_command(run: str, split: str | None, root: Path) -> None:
    """Regenerate the HTML report of a run."""
    from bmcli.commands.report import report
    from bmcli.console import clean
    from bmcli.disk import format_path
    from bmcli.runs import make_cache_folder

    console = get_console()
    written = report(run, split, root, make_cache_folder(), console.log).report
    console.result({"report": str(written)})
    console.text(clean(f"wrote {format_path(written)}"))


COMMANDS = (evaluate_command, explain_command, compare_command, report_command)
