"""Run one trial: train the candidate of a task and measure its objectives."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bmcli import disk, distillations
from bmcli.errors import BmcliError, Interrupted, RunFailed
from bmcli.messages import write_message
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.run_data import read_data_spec, write_data_spec
from bmcli.runs import Run
from bmcli.training.progress import LineProgress
from bmcli.trials import SearchObjective, Task, TrialResult, TrialState
from bmcli.tuning.study import Study, find_epoch_objective
from bmcli.workflows.session import Session, start_session

if TYPE_CHECKING:
    from pathlib import Path

    from bmcli.training.trainer import Trainer, TrainingOutcome

PAUSED, HOPELESS = "paused", "median"  # stop reasons of trials

# Trials appear in the report of their search; writing events of hundreds of them takes longer than short trainings.
OVERRIDES = {"train.tensorboard": False}


class _Diverged(RunFailed):
    """A loss, a weight or a metric is no longer a finite number."""


def run_trial(study: Study, task: Task, cache: Path) -> TrialResult:
    """Train and measure a candidate, or resume its interrupted training.

    Args:
        cache: Folder of prepared data and of measurements of this machine.

    Raises:
        Interrupted: A signal came, or another process still runs the trial; the task can be claimed again.
    """
    start = time.monotonic()
    run = study.run(task.name)
    run.folder.mkdir(parents=True, exist_ok=True)
    with _lock_run(run):
        try:
            result = _train_and_measure(study, task, run, cache)
        except Interrupted as error:
            run.set_status("interrupted", reason=str(error))
            raise
        except BmcliError as error:
            reason = " ".join(
                f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in error.faults
            )
            result = _fail_trial(task, run, _classify_error(error), reason)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            result = _fail_trial(task, run, "failed", "out of memory.")
    return replace(result, seconds=round(time.monotonic() - start, 3))


@contextlib.contextmanager
def _lock_run(run: Run) -> Iterator[None]:
    """Prevent other processes from writing a trial while the body runs.

    A worker that was silent for too long counts as dead, but may still run.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run.acquire_lock())
        except BmcliError as error:
            raise Interrupted(*error.faults) from None
        yield


def _classify_error(error: BmcliError) -> TrialState:
    if isinstance(error, _Diverged):
        return "diverged"
    return "failed" if isinstance(error, RunFailed) else "refused"


def _fail_trial(task: Task, run: Run, state: TrialState, reason: str) -> TrialResult:
    """Record the failure of a trial, and return its result."""
    run.set_status("failed", reason=reason)
    return TrialResult(
        task.name, state, epochs=max((row["epoch"] for row in run.read_epochs()), default=0), reason=reason
    )


def _is_out_of_memory(error: Exception) -> bool:
    import tensorflow as tf

    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def _train_and_measure(study: Study, task: Task, run: Run, cache: Path) -> TrialResult:
    objectives = study.objectives()
    epoch_objective = find_epoch_objective(objectives)
    loaded = _load_recipe(study, task, run)
    session = start_session(loaded, cache, known_spec=read_data_spec(run) if run.data.exists() else None)
    trainer = _build_trainer(session, run)
    run.set_status("running")
    outcome = trainer.train(LineProgress(write_message), lambda row: _find_stop_reason(task, epoch_objective, run, row))
    if outcome.divergence is not None:
        raise _Diverged(f"training stopped: {outcome.divergence}.")
    result = _measure_trial(task, run, session, trainer, outcome, objectives)
    if task.keeps_model:
        _keep_model(run, session, trainer, outcome)
    elif not _is_resumable(task, trainer):
        study.remove_checkpoints(task.name)
    run.set_status(
        "done", epochs=outcome.epochs, selected_epoch=outcome.selected_epoch, stop_reason=outcome.stop_reason,
        seconds=round(outcome.train_s, 3), metrics=dict(outcome.metrics),
    )  # fmt: skip
    return result


def _keep_model(run: Run, session: Session, trainer: Trainer, outcome: TrainingOutcome) -> None:
    """Calibrate the network on validation rows, and save it."""
    from bmcli.networks.network import save_network
    from bmcli.workflows.decisions import calibrate_network

    calibrated = calibrate_network(trainer.recipe, outcome.network, session.prepared, trainer.placement, write_message)
    calibrated.save(run)
    save_network(calibrated.network, calibrated.spec, run.model)
    write_data_spec(run, calibrated.spec, with_model=True)


def _load_recipe(study: Study, task: Task, run: Run) -> LoadedRecipe:
    """Load the recipe of a trial: its lock if it was started before, or if it continues another trial.

    A damaged trial is trained from the start, which gives the same result.
    """
    if not _was_started(run):
        for remainder in (run.data, run.lock, run.checkpoints):
            disk.try_to_remove(remainder)
        if task.continues is not None:
            _copy_state(study.run(task.continues), run)
    if _was_started(run):
        return load_recipe(str(run.lock))
    return distillations.resolve_student(study.load_candidate({**OVERRIDES, **task.values}))


def _was_started(run: Run) -> bool:
    """Whether a trial was started and can be resumed."""
    try:
        return bool(read_data_spec(run)) and run.lock.exists()
    except BmcliError:
        return False


def _copy_state(previous: Run, run: Run) -> None:
    """Copy the state of a trial to the run that continues it; `data.json` comes last, since it marks the start.

    Without a checkpoint nothing is copied, and the trial is trained from the start, which gives the same result.
    """
    if not any(previous.checkpoints.glob("step-*")) or not _was_started(previous):
        return
    files = (
        (previous.recipe, run.recipe), (previous.environment, run.environment), (previous.metrics, run.metrics),
        (previous.lock, run.lock), (previous.data, run.data),
    )  # fmt: skip
    if not all(source.is_file() for source, _ in files):
        return
    # Checkpoints never change after they are written, so links do instead of copies.
    shutil.copytree(previous.checkpoints, run.checkpoints, copy_function=_link)
    for source, target in files:
        shutil.copy(source, target)  # also copies the mode: some files are readable only by the user


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _build_trainer(session: Session, run: Run) -> Trainer:
    """Build a trainer that resumes the trial; without an undamaged checkpoint it starts from the beginning."""
    trainer = session.build_trainer(run)
    if any(run.checkpoints.glob("step-*")):
        try:
            trainer.resume()
            _require_rows(run, trainer.progress.epoch)
        except RunFailed as error:
            write_message(f"{error} The trial is trained from the start.")
            disk.try_to_remove(run.checkpoints)
            return session.build_trainer(run)
    elif not run.data.exists():
        session.write_run_files(trainer, run)
    return trainer


def _require_rows(run: Run, epochs: int) -> None:
    """Refuse to resume a run whose epochs are not all recorded, since the best of them is searched for."""
    if not {row["epoch"] for row in run.read_epochs()} >= set(range(1, epochs + 1)):
        raise RunFailed(f"{disk.format_path(run.metrics)}: damaged (some of {epochs} epochs are missing).")


def _find_stop_reason(task: Task, objective: SearchObjective | None, run: Run, row: Mapping[str, Any]) -> str | None:
    """Return the reason to stop a trial after an epoch; None to train on."""
    epoch = int(row["epoch"])
    bound = task.bounds[epoch - 1] if epoch <= len(task.bounds) else None
    if objective is not None and bound is not None:
        best = _best_score(score_curve(run, objective))
        if best is None or best > bound:
            return HOPELESS
    return PAUSED if task.until is not None and epoch >= task.until else None


def score_curve(run: Run, objective: SearchObjective | None) -> tuple[float | None, ...]:
    """Compute the score of an objective after each epoch of a run; lower is better."""
    if objective is None:
        return ()
    values = [row.get(objective.name) for row in run.read_epochs()]
    return tuple(None if value is None else objective.score(value) for value in values)


def _best_score(scores: Sequence[float | None]) -> float | None:
    return min((score for score in scores if score is not None), default=None)


def _measure_trial(
    task: Task,
    run: Run,
    session: Session,
    trainer: Trainer,
    outcome: TrainingOutcome,
    objectives: Sequence[SearchObjective],
) -> TrialResult:
    values = {objective.name: _measure_objective(objective.name, session, outcome) for objective in objectives}
    curve = score_curve(run, find_epoch_objective(objectives))
    result = TrialResult(task.name, "done", values, curve, dict(outcome.metrics), outcome.epochs)
    return (
        result
        if outcome.stop_reason != HOPELESS
        else replace(result, state="stopped", reason=_explain_stop(task, result))
    )


def _explain_stop(task: Task, result: TrialResult) -> str:
    bound, best = task.bounds[result.epochs - 1], _best_score(result.curve)
    assert bound is not None, "only a bound stops a training as hopeless"
    reached = "no epoch had a finite score" if best is None else f"the best score was {best:.4g}"
    return (
        f"{reached}; the median of other trials after {result.epochs} epochs was {bound:.4g} (a lower score is better)."
    )


def _is_resumable(task: Task, trainer: Trainer) -> bool:
    """Whether another trial may continue this one."""
    return task.until is not None and task.until < trainer.recipe.train.epochs


def _measure_objective(name: str, session: Session, outcome: TrainingOutcome) -> float:
    """Measure an objective of a trained network.

    Raises:
        _Diverged: A metric was not a finite number after any epoch.
    """
    model = outcome.network.model
    if name == "parameters":
        return float(model.count_params())
    if name == "size":
        return float(sum(weight.numpy().nbytes for weight in model.weights))
    if name == "latency":
        from bmcli.training.predictor import measure_latency_s

        return measure_latency_s(outcome.network, session.prepared.split("train"))
    if name not in outcome.metrics:
        raise _Diverged(f"{name} was not a finite number after any epoch.")
    return outcome.metrics[name]
