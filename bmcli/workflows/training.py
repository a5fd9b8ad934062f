"""Train a recipe in a run, evaluate the selected weights and write the report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import runs, stopping
from bmcli.errors import BmcliError, Fault, Interrupted, RunFailed, WorkerLost
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.paths import join_steps, parse_steps, replace_overrides
from bmcli.redaction import introduce
from bmcli.run_data import read_data_spec, write_data_spec
from bmcli.runs import Run
from bmcli.specs import PreparedData
from bmcli.workflows.callbacks import LogCallback, ProgressFactory
from bmcli.workflows.evaluation import check_evaluation
from bmcli.workflows.opening import OpenedRun, load_run_recipe, warn_of_changed_plugins
from bmcli.workflows.reporting import report_training
from bmcli.workflows.run_evaluation import EvaluationResult, evaluate_rows
from bmcli.workflows.run_failures import record_failure
from bmcli.workflows.run_messages import (
    check_data,
    describe_data,
    describe_rates,
    describe_trainer,
    describe_unfinished_schedule,
    find_differences,
    report_damage,
)
from bmcli.workflows.session import Session, start_session

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.networks.network import Network
    from bmcli.training.trainer import Trainer, TrainingOutcome


@dataclass(frozen=True)
class TrainingContext:
    """Folders of a training, and where its messages and progress go.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        log: Takes a message for each stage.
        profile: Write a trace of some seconds of training.
        run_folder: New and empty run directory to use, created by the process that started this one.
    """

    root: Path
    cache: Path
    make_progress: ProgressFactory
    log: LogCallback
    profile: bool = False
    run_folder: Path | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: its run, its outcome and its evaluation.

    Args:
        run: None on a worker that writes nothing.
        evaluation: None if the data has no rows to evaluate on.
        report_fault: Why the file system refused the report; the run is complete without it.
    """

    run: Run | None
    outcome: TrainingOutcome
    evaluation: EvaluationResult | None
    report_fault: Fault | None = None

    def require_report(self) -> None:
        """Raise RunFailed if the file system refused the report."""
        if self.report_fault is not None:
            raise RunFailed(self.report_fault)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the selected epoch and of the evaluation, by full name."""
        return {**self.outcome.metrics, **(self.evaluation.metrics() if self.evaluation else {})}


def train_recipe(loaded: LoadedRecipe, context: TrainingContext) -> TrainingResult:
    """Train a loaded recipe in a new run.

    Raises:
        BmcliError: The recipe is at fault; its faults have no place in the file yet.
        RunFailed: The loss or the weights became infinite; the last good weights are kept.
        Interrupted: A signal came; the run can be resumed.
    """
    recipe = loaded.recipe
    session = start_session(loaded, context.cache, lambda spec: check_evaluation(recipe, spec))
    context.log(introduce(recipe.name, describe_data(session.prepared.spec)))
    for note in session.prepared.spec.notes:
        context.log(f"note: {note}")
    if not session.placement.is_chief:
        with _watch_peers(session.placement, lambda: _find_chief_run(context, recipe.name)):
            return _train_as_worker(session, session.build_trainer(None, context.profile), context)
    run = Run(context.run_folder) if context.run_folder else runs.create(context.root, recipe.name)
    with run.acquire_lock(), _watch_peers(session.placement, lambda: run):
        try:
            with stopping.interruptible(_no_resume_advice, lambda sentence: runs.discard(run)):
                trainer = session.build_trainer(run, context.profile)
                session.write_run_files(trainer, run)
        except BaseException:
            runs.discard(run)  # nothing was trained yet
            raise
        context.log(f"run {run.display_path}")
        describe_trainer(trainer, session.prepared, context.log)
        describe_rates(trainer, context.log)
        check_data(session.prepared, run, context.log)
        return _train_as_chief(run, session, trainer, context)


def _no_resume_advice() -> None:
    """Give no advice: the run is discarded."""


def resume_run(run: Run, overrides: Sequence[str], context: TrainingContext) -> TrainingResult:
    """Resume an interrupted run from its last checkpoint, or a finished one that may train longer now.

    Args:
        overrides: Changes to its recipe that leave it the same training.
    """
    # Another strategy starts from default device options, since those in the lock belong to the old one.
    changes_strategy = any(join_steps(parse_steps(argument)[0]) == "runtime.strategy" for argument in overrides)
    loaded = load_run_recipe(run, overrides) if changes_strategy else load_recipe(str(run.lock), overrides)
    if not changes_strategy:
        warn_of_changed_plugins(loaded)
    try:
        return _resume(loaded, overrides, run, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _resume(loaded: LoadedRecipe, overrides: Sequence[str], run: Run, context: TrainingContext) -> TrainingResult:
    try:
        session = start_session(loaded, context.cache, known_spec=read_data_spec(run))
    except WorkerLost as error:
        raise Interrupted(str(error), suggestion=run.resume_advice or "") from None
    placement = session.placement
    old_status = run.status()
    with run.acquire_lock() if placement.is_chief else contextlib.nullcontext(), _watch_peers(placement, lambda: run):
        trainer = session.build_trainer(run, context.profile)
        damaged_checkpoints = trainer.resume()
        if trainer.is_over and old_status.get("state") == "done":
            raise BmcliError(
                f"{run.display_path} is already completed (stop reason: {old_status.get('stop_reason')}).",
                suggestion=_advise_longer_training(run, trainer, overrides),
            )
        for name in damaged_checkpoints:
            context.log(f"checkpoint {name} is damaged; the one before is used.")
        progress = trainer.progress
        context.log(f"run {run.display_path}, from epoch {progress.epoch + 1}, step {progress.step + 1}")
        for message in find_differences(run, trainer, loaded):
            context.log(message)
        if placement.is_chief:
            report_damage(run, old_status, context.log)
        describe_trainer(trainer, session.prepared, context.log)
        if not placement.is_chief:
            return _train_as_worker(session, trainer, context)
        if overrides:
            session.write_lock(trainer, run)
        return _train_as_chief(run, session, trainer, context)


def _advise_longer_training(run: Run, trainer: Trainer, overrides: Sequence[str]) -> str:
    """Describe how to continue a completed run, which keeps to the overrides that it was resumed with."""
    changes = trainer.suggest_changes()
    if not changes:
        return "One of train.callbacks ended it. To train longer, train a new run without that callback."
    arguments = replace_overrides(overrides, changes)
    return f"To continue, change what ended it, for example: {run.resume_command.with_arguments(*arguments)}."


def _train_as_worker(session: Session, trainer: Trainer, context: TrainingContext) -> TrainingResult:
    """Train and evaluate beside the chief, which alone writes."""
    name = session.loaded.recipe.name
    with context.make_progress(name) as progress:
        outcome = trainer.train(progress)
    run = _find_chief_run(context, name)
    with stopping.resumable(lambda: run.resume_advice if run else None):
        _require_convergence(outcome)
        network, prepared = _calibrate(trainer, outcome, session.prepared, None, context.log)
        return TrainingResult(None, outcome, _evaluate(trainer, network, prepared, None))


def _train_as_chief(run: Run, session: Session, trainer: Trainer, context: TrainingContext) -> TrainingResult:
    """Train, save the selected weights, evaluate them and write the report."""
    from bmcli.networks.network import save_network

    with record_failure(run):
        run.set_status("running")
        micro_batches = trainer.micro_batches
        try:
            with context.make_progress(run.name) as progress:
                outcome = trainer.train(progress)
        finally:
            # More micro-batches were needed to fit into memory: a resumed run must not try the old number again.
            if trainer.micro_batches != micro_batches:
                session.write_lock(trainer, run)
        describe_unfinished_schedule(trainer, context.log)
        network, prepared = outcome.network, session.prepared
        if outcome.selected_epoch is not None:
            network, prepared = _calibrate(trainer, outcome, prepared, run, context.log)
            save_network(network, prepared.spec, run.model)
            write_data_spec(run, prepared.spec, with_model=True)
            for outdated in (run.explanation, run.validation):
                outdated.unlink(missing_ok=True)  # about the weights, or the recipe, before the run was resumed
        _require_convergence(outcome)
        result = TrainingResult(run, outcome, _evaluate(trainer, network, prepared, run))
        model_size = _measure_compression(trainer, outcome, context.log)
        run.set_status(
            "done", epochs=outcome.epochs, selected_epoch=outcome.selected_epoch, stop_reason=outcome.stop_reason,
            seconds=round(outcome.train_s, 3), metrics=result.metrics(), **model_size,
        )  # fmt: skip
        if result.evaluation is None:
            return result
        opened = OpenedRun(run, session.loaded.recipe, prepared, network, trainer.placement)
        return replace(result, report_fault=report_training(opened, result.evaluation, context.log))


def _calibrate(
    trainer: Trainer, outcome: TrainingOutcome, prepared: PreparedData, run: Run | None, log: LogCallback
) -> tuple[Network, PreparedData]:
    """Choose temperatures and thresholds on validation rows.

    Returns:
        The network and the data with them.
    """
    from bmcli.workflows.decisions import calibrate_network

    calibrated = calibrate_network(trainer.recipe, outcome.network, prepared, trainer.placement, log)
    if run is not None:
        calibrated.save(run)
    return calibrated.network, replace(prepared, spec=calibrated.spec)


def _evaluate(trainer: Trainer, network: Network, prepared: PreparedData, run: Run | None) -> EvaluationResult | None:
    """Evaluate on the split that the recipe names; None if it has no rows."""
    split = trainer.recipe.evaluate.split
    rows = prepared.split(split)
    if not len(rows):
        return None
    return evaluate_rows(trainer.recipe, network, prepared.spec, rows, split, run, trainer.placement)


def _measure_compression(trainer: Trainer, outcome: TrainingOutcome, log: LogCallback) -> dict[str, Any]:
    """Measure the size of a network that was compressed during training, for the status of the run."""
    if trainer.recipe.train.prune is None and trainer.recipe.train.rounding is None:
        return {}
    from bmcli.compression.methods import measure_model_size

    before, after = measure_model_size(trainer.network.model), measure_model_size(outcome.network.model)
    log(
        f"kept {after.parameters:,} of {before.parameters:,} parameters, {100 * after.nonzero_share:.1f} % of them "
        f"not 0: {after.bytes:,} of {before.bytes:,} bytes, {after.gzip_bytes:,} as gzip"
    )
    return {"model_size": after.to_json()}


def _require_convergence(outcome: TrainingOutcome) -> None:
    if outcome.divergence is None:
        return
    kept = (
        f"The weights of epoch {outcome.selected_epoch} are kept."
        if outcome.selected_epoch
        else "No epoch ended well, so no weights are kept."
    )
    raise RunFailed(
        f"training stopped: {outcome.divergence}. {kept}",
        suggestion="Lower train.optimizer.learning_rate, or limit gradients with its option global_clipnorm.",
    )


@contextlib.contextmanager
def _watch_peers(placement: Placement, find_run: Callable[[], Run | None]) -> Iterator[None]:
    """End this process if another worker of the training is lost in the body.

    Args:
        find_run: Finds the run that they train together; a worker knows it only after the chief has created it.
    """

    def make_error(reason: str) -> BmcliError:
        run = find_run()
        advice = run.resume_advice if run is not None else None
        if advice:
            error: BmcliError = Interrupted(reason, suggestion=advice)
        else:
            error = RunFailed(reason, suggestion="No checkpoint was written yet: start all workers again.")
        if run is not None and placement.is_chief:
            with contextlib.suppress(OSError):  # a full disk must not hide the reason
                run.set_status("interrupted" if advice else "failed", reason=str(error))
        return error

    with placement.peers.exit_on_loss(make_error) if placement.peers else contextlib.nullcontext():
        yield


def _find_chief_run(context: TrainingContext, name: str) -> Run | None:
    """Find the run that the chief writes: the given folder, or the latest run of a name."""
    if context.run_folder is not None:
        return Run(context.run_folder)
    with contextlib.suppress(BmcliError):
        return runs.find(context.root, name)
    return None
