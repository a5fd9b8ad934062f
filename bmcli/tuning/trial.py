"""One trial: a candidate laid over the study's recipe, trained as far as its task says, and measured."""

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
from bmcli.workflows import session as sessions
from bmcli.workflows.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from bmcli.training.trainer import Trainer, TrainingOutcome

PAUSED, HOPELESS = "paused", "median"

# A trial is looked at in the report of its search; events of hundreds of trials would cost more than the short ones.
OVERRIDES = {"train.tensorboard": False}


def run_trial(study: Study, task: Task, cache: Path) -> TrialResult:
    """Trains and measures a candidate, from the beginning or from where it was interrupted.

    Args:
        cache: Prepared data and measurements of this machine.

    Raises:
        Interrupted: A signal came, or another process is still at it; the task can be taken up again.
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
            reason = " ".join(f"{f.path}: {f.message}" if f.path else f.message for f in error.faults)
            result = _fail_trial(task, run, "failed" if isinstance(error, RunFailed) else "refused", reason)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            result = _fail_trial(task, run, "failed", "the memory is too small.")
    return replace(result, seconds=round(time.monotonic() - start, 3))


@contextlib.contextmanager
def _lock_run(run: Run) -> Iterator[None]:
    """Keeps other processes from writing a trial; one that was taken for dead may still be at it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run.acquire_lock())
        except BmcliError as error:
            raise Interrupted(*error.faults) from None
        yield


def _fail_trial(task: Task, run: Run, state: TrialState, reason: str) -> TrialResult:
    """The result of a trial that ended before it could be measured."""
    run.set_status("failed", reason=reason)
    return TrialResult(task.name, state, epochs=max((row["epoch"] for row in run.rows()), default=0), reason=reason)


def _is_out_of_memory(error: Exception) -> bool:
    import tensorflow as tf

    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def _train_and_measure(study: Study, task: Task, run: Run, cache: Path) -> TrialResult:
    objectives = study.objectives()
    judged = find_epoch_objective(objectives)
    loaded = _load_recipe(study, task, run)
    session = sessions.start_session(loaded, cache, known_spec=read_data_spec(run) if run.data.exists() else None)
    trainer = _build_trainer(session, run)
    run.set_status("running")
    outcome = trainer.train(LineProgress(write_message), lambda row: _find_stop_reason(task, judged, run, row))
    if outcome.divergence is not None:
        raise RunFailed(f"training stopped: {outcome.divergence}.")
    result = _measure_trial(task, run, session, trainer, outcome, objectives)
    if task.keeps_model:
        _keep_model(run, session, trainer, outcome)
    elif not _is_resumable(task, trainer):
        study.remove_checkpoints(task.name)
    run.set_status(
        "done", epochs=outcome.epochs, selected_epoch=outcome.selected_epoch, ended_by=outcome.ended_by,
        seconds=round(outcome.train_s, 3), metrics=dict(outcome.metrics),
    )  # fmt: skip
    return result


def _keep_model(run: Run, session: Session, trainer: Trainer, outcome: TrainingOutcome) -> None:
    """Writes the model, with what its recipe has to be decided on validation rows."""
    from bmcli.networks import network as networks
    from bmcli.workflows.decisions import calibrate_network

    decided = calibrate_network(trainer.recipe, outcome.network, session.prepared, trainer.placement, write_message)
    decided.save(run)
    networks.save_network(decided.network, decided.spec, run.model)
    write_data_spec(run, decided.spec, with_model=True)


def _load_recipe(study: Study, task: Task, run: Run) -> LoadedRecipe:
    """The recipe of a trial: its lock if it was begun before, or if it goes on with another.

    One that is damaged is trained from its beginning, to the same result.
    """
    if not _is_begun(run):
        for left in (run.data, run.lock, run.checkpoints):
            disk.try_to_remove(left)
        if task.continues is not None:
            _copy_state(study.run(task.continues), run)
    if _is_begun(run):
        return load_recipe(str(run.lock))
    return distillations.resolve_student(study.load_candidate({**OVERRIDES, **task.values}))


def _is_begun(run: Run) -> bool:
    """Whether a trial can be gone on with."""
    try:
        return bool(read_data_spec(run)) and run.lock.exists()
    except BmcliError:
        return False


def _copy_state(before: Run, run: Run) -> None:
    """Copies what another trial can be gone on with from; `data.json`, which tells that it was begun, comes last.

    Without a checkpoint there is nothing to copy, and the trial is trained from its beginning to the same result.
    """
    if not any(before.checkpoints.glob("step-*")) or not _is_begun(before):
        return
    files = (
        (before.recipe, run.recipe), (before.environment, run.environment), (before.metrics, run.metrics),
        (before.lock, run.lock), (before.data, run.data),
    )  # fmt: skip
    if not all(source.is_file() for source, _ in files):
        return
    # Checkpoints are never changed once they are written, so that links are as good as copies.
    shutil.copytree(before.checkpoints, run.checkpoints, copy_function=_link)
    for source, target in files:
        shutil.copy(source, target)  # with its mode, since some are for the user alone


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _build_trainer(session: Session, run: Run) -> Trainer:
    """A trainer at the place where the trial was left; at its beginning if no checkpoint of it is whole."""
    trainer = session.build_trainer(run)
    if any(run.checkpoints.glob("step-*")):
        try:
            trainer.resume()
            _require_rows(run, trainer.progress.epoch)
        except RunFailed as error:
            write_message(f"{error} The trial is trained from its beginning.")
            disk.try_to_remove(run.checkpoints)
            return session.build_trainer(run)
    elif not run.data.exists():
        session.write_run_files(trainer, run)
    return trainer


def _require_rows(run: Run, epochs: int) -> None:
    """Refuses to go on from epochs that are not written down, since the best of them is looked for."""
    if not {row["epoch"] for row in run.rows()} >= set(range(1, epochs + 1)):
        raise RunFailed(f"{disk.format_path(run.metrics)}: damaged (not all of {epochs} epochs are in it).")


def _find_stop_reason(task: Task, objective: SearchObjective | None, run: Run, row: Mapping[str, Any]) -> str | None:
    """Why a trial should end after an epoch, if it should."""
    epoch = int(row["epoch"])
    bound = task.bounds[epoch - 1] if epoch <= len(task.bounds) else None
    if objective is not None and bound is not None:
        best = _best_score(score_curve(run, objective))
        if best is None or best > bound:
            return HOPELESS
    return PAUSED if task.until is not None and epoch >= task.until else None


def score_curve(run: Run, objective: SearchObjective | None) -> tuple[float | None, ...]:
    """The objective as a score after each epoch of a run."""
    if objective is None:
        return ()
    values = [row.get(objective.name) for row in run.rows()]
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
    found = {objective.name: _measure_objective(objective.name, session, outcome) for objective in objectives}
    judged = find_epoch_objective(objectives)
    result = TrialResult(task.name, "done", found, score_curve(run, judged), dict(outcome.metrics), outcome.epochs)
    return (
        result if outcome.ended_by != HOPELESS else replace(result, state="stopped", reason=_explain_stop(task, result))
    )


def _explain_stop(task: Task, result: TrialResult) -> str:
    bound, best = task.bounds[result.epochs - 1], _best_score(result.curve)
    assert bound is not None, "only a bound ends a training as hopeless"
    found = "no epoch had a finite score" if best is None else f"the best score so far was {best:.4g}"
    return f"{found}, and that of others after {result.epochs} epochs {bound:.4g}; lower is better."


def _is_resumable(task: Task, trainer: Trainer) -> bool:
    """Whether another trial may take up the state of this one."""
    return task.until is not None and task.until < trainer.recipe.train.epochs


def _measure_objective(name: str, session: Session, outcome: TrainingOutcome) -> float:
    """What a trained network measures of an objective.

    Raises:
        RunFailed: It was never a finite number.
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
        raise RunFailed(f"{name} was not a finite number after any epoch.")
    return outcome.metrics[name]
