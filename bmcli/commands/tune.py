"""`bmcli tune`: search for better values of a recipe; the results are a recipe, a run and a report."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bmcli import disk, distillations, runs
from bmcli.advice import make_command
from bmcli.errors import BmcliError
from bmcli.messages import write_message
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.paths import replace_overrides
from bmcli.recipe.space import load_search
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.training.progress import LineProgress
from bmcli.trials import RECIPE_TRIAL, SearchObjective, SearchResult, TrialState
from bmcli.tuning.pool import WorkerPool
from bmcli.tuning.study import Study, create_study, describe_search, find_study
from bmcli.workflows.evaluation import check_evaluation
from bmcli.workflows.opening import load_run_recipe
from bmcli.workflows.reporting import evaluate_and_report
from bmcli.workflows.run_evaluation import EvaluationResult
from bmcli.workflows.run_failures import record_end
from bmcli.workflows.session import start_session
from bmcli.workflows.teachers import train_missing_teachers
from bmcli.workflows.training import TrainingContext

if TYPE_CHECKING:
    from bmcli.evaluation.improvement import Improvement
    from bmcli.tuning.search import Search, SearchCallback, SearchWinner

# The extent of a search may change when it is resumed, but not its space and its recipe.
CHANGEABLE = ("tune.trials", "tune.workers", "tune.stop", "tune.confirm")

SearchProgressFactory = Callable[
    [SearchResult, int | None, float | None], contextlib.AbstractContextManager["SearchCallback"]
]
"""Make a progress display from the search so far, its limit of trials, and its time limit in seconds."""


@dataclass(frozen=True)
class SearchContext:
    """Folders of a search, and where its messages and progress go.

    Args:
        root: Folder of all runs.
        cache: Folder of prepared data and of measurements of this machine.
        log: Takes messages about the stages of the search.
    """

    root: Path
    cache: Path
    make_progress: SearchProgressFactory
    log: Callable[[str], None]


@dataclass(frozen=True)
class TuningResult:
    """A finished search and the evaluation of its winner.

    Args:
        evaluation: None if the data has no rows to evaluate on.
        improvement: Over the recipe as it is written; None if they cannot be compared, as `search.verdict` explains.
    """

    study: Study
    search: SearchResult
    evaluation: EvaluationResult | None
    improvement: Improvement | None


def tune(target: str, overrides: Sequence[str], context: SearchContext) -> TuningResult:
    """Search the space of a recipe in a new study.

    Raises:
        RunFailed: No trial could be measured.
        Interrupted: A signal came; the search can be resumed.
    """
    loaded = load_search(target, overrides)
    try:
        _require_search(loaded)
        if loaded.recipe.distill is not None:
            loaded = train_missing_teachers(loaded, _make_training_context(context))
        objectives, spec = _resolve_objectives(loaded, context)
        study = create_study(context.root, loaded, objectives, spec.fingerprint)
        return _run_search(study, loaded, objectives, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(search: str, overrides: Sequence[str], context: SearchContext, target: str | None = None) -> TuningResult:
    """Resume an interrupted search, or a finished one that may have more trials now.

    Args:
        search: The study's folder, or the name of its recipe.
        target: A recipe that must be the one of the search; None to take the one in the study.
    """
    study = find_study(context.root, search)
    study.require_recipes()
    loaded = load_search(str(study.search) if target is None else target, overrides)
    try:
        _require_search(loaded)
        objectives, spec = _resolve_objectives(loaded, context)
        _require_same_search(study, describe_search(loaded.recipe, objectives, spec.fingerprint))
        _require_unfinished(study, loaded, objectives, overrides)
        study.reopen()
        # The folder of the search has the values that it was started with: the changes are given again.
        changes = (*([target] if target else []), *overrides)
        return _run_search(study, loaded, objectives, context, changes)
    except BmcliError as error:
        raise loaded.locate(error) from None


def join(search: str, workers: int, context: SearchContext) -> None:
    """Train trials of a search whose chief is another process, maybe on another machine, until the search is over."""
    study = find_study(context.root, search)
    if study.is_over:
        raise BmcliError(
            f"{study.display_path} is over.",
            suggestion=f"To resume it: {make_command('tune', '--resume', study.display_path)}.",
        )
    context.log(f"{workers} workers join {study.display_path}")
    with WorkerPool(study, workers, context.cache) as pool:
        pool.run_until_over()


def _require_search(loaded: LoadedRecipe) -> None:
    if loaded.recipe.tune is None:
        raise BmcliError(
            "the recipe has no section tune, so there is nothing to search.",
            suggestion="Add tune: {space: {train.optimizer.learning_rate: {log: [1e-4, 1e-2]}}}.",
        )


def _resolve_objectives(loaded: LoadedRecipe, context: SearchContext) -> tuple[tuple[SearchObjective, ...], DataSpec]:
    """Return the objectives of a search and the spec of its data; faults that all trials would have are raised now."""
    # The chief only builds a trainer to learn the directions of its metrics. A TensorFlow that sees GPUs would take
    # their memory, which belongs to the workers.
    with _hide_gpus():
        student = distillations.resolve_student(loaded)
        recipe = student.recipe.without_tune().on_one_device()
        session = start_session(
            replace(student, recipe=recipe), context.cache, lambda spec: check_evaluation(recipe, spec)
        )
        directions = session.build_trainer(None).selection.directions
    objectives = tuple(_make_objective(name, directions) for name in loaded.recipe.search_objectives())
    return objectives, session.prepared.spec


def _make_training_context(context: SearchContext) -> TrainingContext:
    """Make the context of the trainings of teachers before the search."""

    def log(text: str, level: int = 0) -> None:
        if level == 0:
            context.log(text)

    return TrainingContext(context.root, context.cache, lambda title: LineProgress(write_message), log)


def _make_objective(name: str, directions: Mapping[str, Literal["min", "max"] | None]) -> SearchObjective:
    if not name.startswith("validation/"):
        return SearchObjective(name, "min")
    if name not in directions:
        known = [metric for metric in directions if metric.startswith("validation/")]
        suggestion = f"Known: {', '.join(known)}." if known else "Give data.split a share for validation."
        raise BmcliError(f"'{name}' is not measured during training.", path="tune.objective", suggestion=suggestion)
    direction = directions[name]
    if direction is None:
        raise BmcliError(
            f"neither more nor less of '{name}' is better.", path="tune.objective", suggestion="Name another metric."
        )
    return SearchObjective(name, direction)


@contextlib.contextmanager
def _hide_gpus() -> Iterator[None]:
    """Hide GPUs from a TensorFlow that starts in the body, but not from processes that start after it."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _require_same_search(study: Study, current: Mapping[str, Any]) -> None:
    """Refuse to resume a search with another recipe, space or data."""
    from bmcli.tuning.search import find_differences

    differences = [
        difference
        for difference in find_differences(study.read_start_record(), current)
        if not _is_changeable(difference.split(":")[0])
    ]
    if differences:
        raise BmcliError(
            f"{study.display_path} was started with other values: {'; '.join(differences)}.",
            suggestion=f"Start a new search. These can change: {', '.join(CHANGEABLE)}.",
        )


def _is_changeable(path: str) -> bool:
    return any(path == f"recipe.{allowed}" or path.startswith(f"recipe.{allowed}.") for allowed in CHANGEABLE)


def _run_search(
    study: Study,
    loaded: LoadedRecipe,
    objectives: tuple[SearchObjective, ...],
    context: SearchContext,
    changes: Sequence[str] = (),
) -> TuningResult:
    """Run the trials of a search that are left, and train its winner.

    Args:
        changes: Arguments with which it was resumed.
    """
    options = loaded.recipe.tune
    assert options is not None, "the recipe has a search"
    context.log(f"search {study.display_path}")
    with study.acquire_lock(), _record_end(study, changes):
        with WorkerPool(study, options.workers, context.cache) as pool:
            from bmcli.tuning.search import Search

            with contextlib.closing(Search(study, loaded, objectives, pool.restart_dead_workers)) as search:
                study.set_status("running")
                with context.make_progress(search.summarize(), options.max_trials, options.stop.time) as callback:
                    winner = search.run(callback)
                study.finish()
                result = _publish_winner(study, search, winner, context)
        study.set_status("done", winner=winner.trial.task.name, run=result.search.run)
        return result


def _require_unfinished(
    study: Study, loaded: LoadedRecipe, objectives: tuple[SearchObjective, ...], overrides: Sequence[str]
) -> None:
    """Refuse to resume a search that is complete and may not have more trials.

    Args:
        overrides: Those of `loaded`.
    """
    if not study.report.exists():  # the report is the last file of a search
        return
    from bmcli.tuning.search import Search

    with contextlib.closing(Search(study, loaded, objectives, lambda: None)) as search:
        if search.is_over:
            changes = search.suggest_changes()
            arguments = replace_overrides(overrides, changes)
            command = make_command("tune", "--resume", study.display_path, *arguments)
            raise BmcliError(
                " ".join([f"{study.display_path} is already completed.", *search.summarize().stop_reasons]),
                suggestion=f"To continue, change what ended it, for example: {command}."
                if changes
                else "Start a new search over a wider space.",
            )
    study.report.unlink()


def _publish_winner(study: Study, search: Search, winner: SearchWinner, context: SearchContext) -> TuningResult:
    """Copy the run of the winner beside the other runs, evaluate it, and write the recipe, table and report."""
    from bmcli.reports.trials_csv import render_trials_csv
    from bmcli.reports.tune import render_search

    run = runs.create(context.root, search.summarize().name)
    shutil.copytree(study.run(winner.task.name).folder, run.folder, dirs_exist_ok=True)
    _write_best_recipe(study, winner, run)
    improvement, verdict = compare_with_recipe(study, search.summarize(), winner, context)
    summary = replace(search.summarize(), verdict=verdict)
    run.write(run.origin, {"sentences": _describe_origin(study, summary, winner)})
    evaluation = _evaluate_run(run, context)
    summary = replace(
        summary,
        run=run.display_path,
        test={} if evaluation is None else evaluation.metrics(),
        seconds=search.summarize().seconds,
    )
    disk.write_atomically(study.table, render_trials_csv(summary).encode())
    disk.write_atomically(study.report, render_search(summary, improvement).encode(), disk.PRIVATE_MODE)
    return TuningResult(study, summary, evaluation, improvement)


def _write_best_recipe(study: Study, winner: SearchWinner, run: Run) -> None:
    """Write the recipe of the winner, with the seeds of its run; training it gives the weights of that run."""
    values = dict(winner.task.values)
    if winner.trial.is_recipe:
        values = {path: value for path, value in values.items() if path not in winner.trial.task.values}
    name = "The recipe as it was written" if winner.trial.is_recipe else f"Trial {winner.trial.task.name}"
    study.write_best(values, f"{name}, the winner of {study.display_path}, as trained in {run.display_path}")


def compare_with_recipe(
    study: Study, search: SearchResult, winner: SearchWinner, context: SearchContext
) -> tuple[Improvement | None, tuple[str, ...]]:
    """Compare the winner with the recipe as it is written, on the rows of the evaluation.

    Returns:
        The comparison, None if there is none; and its result in sentences, or the reason why there is none.
    """
    if winner.trial.is_recipe:
        return None, ("No trial was better than the recipe as it is written, which is the winner itself.",)
    if winner.recipe_task is None:
        return None, (f"The winner cannot be compared with the recipe as it is written, {_explain_missing(search)}",)
    run = study.run(winner.task.name)
    split = load_run_recipe(run).recipe.evaluate.split
    if not read_data_spec(run).counts.get(split):
        return None, (f"There are no {split} rows to compare the winner with the recipe as it is written.",)
    from bmcli.workflows.improvement import measure_improvement

    context.log("comparing the winner with the recipe as it is written")
    objective = search.first.name.removeprefix("validation/")
    improvement = measure_improvement(study.run(winner.recipe_task.name), run, objective, split, context.cache)
    if improvement is None:
        return None, (f"The {split} rows of the winner are not those of the recipe as it is written: no comparison.",)
    return improvement, improvement.describe()


def _explain_missing(search: SearchResult) -> str:
    """Explain why the recipe as it is written has no run, as the end of a sentence."""
    result = search.trial(RECIPE_TRIAL).result
    assert result is not None, "every trial has ended"
    if result.state == "done":
        return "whose training with other seeds failed."
    return f"whose training {_ENDS[result.state]}: {result.reason}"


_ENDS: Mapping[TrialState, str] = {
    "stopped": "was stopped", "diverged": "diverged", "failed": "failed", "refused": "was refused",
}  # fmt: skip


def _describe_origin(study: Study, search: SearchResult, winner: SearchWinner) -> list[str]:
    """Describe the search of the winner in sentences, for the report of its run."""
    name, first = winner.trial.task.name, search.first
    sentences = [
        f"The winner of the search {study.display_path}: {len(search.trials):,} trials of "
        f"{', '.join(search.parameters)}.",
        *(["It is the recipe as it was written."] if winner.trial.is_recipe else []),
        *(f"{path} = {write_scalar(value)}" for path, value in winner.trial.task.values.items()),
    ]
    measured = winner.trial.measured(first)
    if measured is not None:
        # The best of many noisy values is better than a new measurement of the same candidate.
        sentences.append(
            f"Its trial reached {first.name} {measured:.4f}; as the best of all trials, that is optimistic."
        )
    for candidate in search.confirmed:
        if candidate.trial == name:
            sentences.append(
                f"Trained again with {len(candidate.values)} new seeds, it reached {candidate.mean:.4f} on average."
            )
    return [*sentences, *search.verdict, f"The report of the search is {disk.format_path(study.report)}."]


def _evaluate_run(run: Run, context: SearchContext) -> EvaluationResult | None:
    """Evaluate the run of the winner on the split that the recipe names; None if it has no rows."""
    loaded = load_run_recipe(run)
    split = loaded.recipe.evaluate.split
    if not read_data_spec(run).counts.get(split):
        return None
    return evaluate_and_report(loaded, run, split, context.cache, context.log)


def _record_end(study: Study, changes: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    command = make_command("tune", "--resume", study.display_path, *changes)
    return record_end(study, command, "the search was interrupted; its trials are saved.")
