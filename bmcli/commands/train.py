"""`bmcli train`: from a recipe to a run with a measured model."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bmcli import disk, runs, stopping
from bmcli.commands.evaluate import EvaluationResult, add_device_defaults, drop_damaged_evaluations, evaluate_rows
from bmcli.errors import BmcliError, Fault, Interrupted, RunFailed, WorkerLost
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.paths import join_steps, parse_steps
from bmcli.recipe.train import ScheduleOptions
from bmcli.run_data import read_data_spec, write_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData
from bmcli.workflows import report_data
from bmcli.workflows import session as sessions
from bmcli.workflows.evaluation import check_evaluation
from bmcli.workflows.session import Session

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.networks.network import Network
    from bmcli.training.progress import ProgressCallback
    from bmcli.training.train_step import Compilation
    from bmcli.training.trainer import Trainer, TrainingOutcome


class ReportCallback(Protocol):
    """Where sentences about the work go; `level` 0 is for everybody, 1 for the curious."""

    def __call__(self, text: str, level: int = 0) -> None: ...


ProgressFactory = Callable[[str], contextlib.AbstractContextManager["ProgressCallback"]]

_MOST_NAMED = 10

# What may be another when a run goes on: how long and on what it trains, not what it learns.
CHANGEABLE = ("train.epochs", "train.stop", "train.checkpoint", "train.tensorboard", "runtime", "evaluate")


@dataclass(frozen=True)
class TrainingContext:
    """Where a training works, and whom it tells.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        make_progress: Makes a progress display from a title; it is entered while training.
        log: Takes a sentence for each stage; with level 1 what only the curious want to know.
        profile: Write a trace of some seconds of training.
        run_folder: A new and empty run directory to use, made by who started this process.
    """

    root: Path
    cache: Path
    make_progress: ProgressFactory
    log: ReportCallback
    profile: bool = False
    run_folder: Path | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: its run, how it went, and what the evaluation found.

    Args:
        run: None on a worker that writes nothing.
        report_fault: Why the file system refused the run's page, which is all that it lacks.
    """

    run: Run | None
    outcome: TrainingOutcome
    measured: EvaluationResult | None
    report_fault: Fault | None = None

    def require_report(self) -> None:
        """Raises RunFailed if the file system refused the page of the run."""
        if self.report_fault is not None:
            raise RunFailed(self.report_fault)

    def metrics(self) -> dict[str, float]:
        return {**self.outcome.metrics, **(self.measured.metrics() if self.measured else {})}


def train(target: str, overrides: Sequence[str], context: TrainingContext) -> TrainingResult:
    """Trains a recipe in a new run.

    Raises:
        RunFailed: The loss or the weights became infinite; the last good weights are kept.
        Interrupted: A signal came; the run can be resumed.
    """
    loaded = load_recipe(target, overrides)
    try:
        return train_recipe(loaded, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def train_recipe(loaded: LoadedRecipe, context: TrainingContext) -> TrainingResult:
    """The same of a recipe that is loaded; faults are not placed yet."""
    recipe = loaded.recipe
    session = sessions.start_session(loaded, context.cache, lambda spec: check_evaluation(recipe, spec))
    context.log(f"{recipe.name}: {_describe_data(session.prepared.spec)}")
    if not session.placement.is_chief:
        with _watch_peers(session.placement, lambda: _find_chief_run(context, recipe.name)):
            return _train_and_evaluate(None, session, session.build_trainer(None, context.profile), context)
    run = Run(context.run_folder) if context.run_folder else runs.create(context.root, recipe.name)
    with run.acquire_lock(), _watch_peers(session.placement, lambda: run):
        try:
            with stopping.interruptible(_nothing_to_go_on_with, lambda sentence: runs.discard(run)):
                trainer = session.build_trainer(run, context.profile)
                session.write_run_files(trainer, run)
        except BaseException:
            runs.discard(run)  # nothing was trained yet
            raise
        context.log(f"run {run.display_path}")
        _report_details(trainer, session.prepared, context.log)
        _check_data(session.prepared, run, context.log)
        return _train_and_evaluate(run, session, trainer, context)


def _nothing_to_go_on_with() -> None:
    """The run is discarded."""


@contextlib.contextmanager
def _watch_peers(placement: Placement, find_run: Callable[[], Run | None]) -> Iterator[None]:
    """Ends this process if another worker of the training is lost meanwhile.

    Args:
        find_run: The run that they train together, as far as this worker knows it.
    """

    def ended(words: str) -> BmcliError:
        run = find_run()
        how = run.resume_advice if run is not None else None
        again = "No checkpoint was written yet: start all workers again."
        error = Interrupted(words, suggestion=how) if how else RunFailed(words, suggestion=again)
        if run is not None and placement.is_chief:
            with contextlib.suppress(OSError):
                run.set_status("interrupted" if how else "failed", reason=str(error))
        return error

    with placement.peers.exit_on_loss(ended) if placement.peers else contextlib.nullcontext():
        yield


def _find_chief_run(context: TrainingContext, name: str) -> Run | None:
    """The run that the chief writes: the one we were told, or the latest of a name."""
    if context.run_folder is not None:
        return Run(context.run_folder)
    with contextlib.suppress(BmcliError):
        return runs.find(context.root, name)
    return None


def _discard_empty(run: Run) -> None:
    """Removes a run that holds neither a checkpoint nor a model, which also frees its part of a full disk."""
    if run.resume_advice is None and not run.model.exists():
        runs.discard(run)


def _check_data(prepared: PreparedData, run: Run, log: ReportCallback) -> None:
    """Warns of what is suspicious about the data, and keeps it with the run."""
    from bmcli.data.checks import check_prepared

    found = check_prepared(prepared)
    run.write(run.checks, {"findings": [each.to_json() for each in found]})
    for each in found:
        log(f"warning: {each}")


def _describe_data(spec: DataSpec) -> str:
    """Rows of each split, and what the columns were taken for."""
    counts = ", ".join(f"{count:,} {split}" for split, count in spec.counts.items() if count)
    kinds = Counter(column.kind for column in spec.inputs)
    inputs = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    targets = ", ".join(column.name for column in spec.targets)
    return f"{counts} rows; inputs: {inputs}; target: {targets}{_describe_invalid(spec)}"


def _describe_invalid(spec: DataSpec) -> str:
    """What became of records and cells that could not be read."""
    broken = f"; records left out that are no rows: {spec.broken:,}" if spec.broken else ""
    if not spec.invalid:
        return broken
    cells = ", ".join(f"{count:,} of {quoted(name)}" for name, count in islice(spec.invalid.items(), _MOST_NAMED))
    cells += ", ..." if len(spec.invalid) > _MOST_NAMED else ""
    return f"{broken}; cells that cannot be read: {cells}; rows left out for them: {spec.skipped:,}"


def resume(target: str, overrides: Sequence[str], context: TrainingContext) -> TrainingResult:
    """Goes on with an interrupted run from its last checkpoint, or with a finished one that may train longer now.

    Args:
        overrides: Changes to what may be another when a run goes on.
    """
    run = runs.find(context.root, target)
    _check_changes(overrides)
    moves = any(join_steps(parse_steps(argument)[0]) == "runtime.strategy" for argument in overrides)
    loaded = load_recipe(str(run.lock), add_device_defaults(overrides) if moves else overrides)
    try:
        return _resume(loaded, overrides, run, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _resume(loaded: LoadedRecipe, overrides: Sequence[str], run: Run, context: TrainingContext) -> TrainingResult:
    recipe = loaded.recipe
    try:
        session = sessions.start_session(loaded, context.cache, known_spec=read_data_spec(run))
    except WorkerLost as error:
        raise Interrupted(str(error), suggestion=run.resume_advice or "") from None
    placement = session.placement
    was = run.status()
    with run.acquire_lock() if placement.is_chief else contextlib.nullcontext(), _watch_peers(placement, lambda: run):
        trainer = session.build_trainer(run, context.profile)
        damaged = trainer.resume()
        if trainer.is_over and was.get("state") == "done":
            raise BmcliError(
                f"{run.display_path} is already completed; it ended by {was.get('ended_by')}.",
                suggestion=f"To continue, set a larger limit, such as train.epochs={2 * recipe.train.epochs}.",
            )
        for name in damaged:
            context.log(f"checkpoint {name} is damaged; the one before is used.")
        context.log(
            f"run {run.display_path}, from epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}"
        )
        for word in _find_differences(run, placement, loaded, was):
            context.log(word)
        if placement.is_chief:
            _report_damage(run, was, context.log)
        _report_details(trainer, session.prepared, context.log)
        if overrides and placement.is_chief:
            session.write_lock(trainer, run)
        return _train_and_evaluate(run if placement.is_chief else None, session, trainer, context)


def _report_damage(run: Run, old_status: Mapping[str, Any], log: ReportCallback) -> None:
    """Tells which files of a run are damaged that it goes on without, and makes room for what it will measure."""
    for fault in run.read_epochs_checked()[1]:
        log(f"warning: {fault}")
    if old_status.get("state") == "damaged":
        log(f"warning: {old_status['reason']}")
    drop_damaged_evaluations(run, log)


def train_in_workers(
    recipe: str | None,
    resumed: str | None,
    overrides: Sequence[str],
    workers: int,
    root: Path,
    arguments: Sequence[str],
) -> int:
    """Trains in worker processes on this machine; the exit code of the whole.

    Args:
        arguments: Of the command line, without those about workers; each worker is given the same.

    Raises:
        BmcliError: The recipe is at fault, or a worker was lost.
    """
    from bmcli.distribution.launch import launch_workers

    if resumed is not None:
        run, into = runs.find(root, resumed), []
        _check_changes(overrides)
    else:
        run = runs.create(root, load_recipe(recipe or "", [*overrides, "runtime.strategy=multi_worker"]).recipe.name)
        into = ["--into", str(run.folder)]
    command = [sys.executable, "-m", "bmcli", *arguments, "--strategy", "multi_worker", *into]
    try:
        ended = launch_workers(command, workers, run.logs)
        how = run.resume_advice
        if ended.interrupted and how:
            raise Interrupted("interrupted; what was saved is kept.", suggestion=how)
        if ended.loss is None:
            return ended.code
        raise ended.loss.to_error(run.resume_command if how else "")
    finally:
        if not run.lock.exists():
            runs.discard(run)  # nothing was trained


def _check_changes(overrides: Sequence[str]) -> None:
    """Refuses to change what would make it another training."""
    for argument in overrides:
        steps, _ = parse_steps(argument)
        path = join_steps(steps)
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in CHANGEABLE):
            raise BmcliError(
                f"{path} cannot change when a run goes on: it would be another training.",
                suggestion=f"What may change: {', '.join(CHANGEABLE)}. Train the recipe anew for the rest.",
            )


def _find_differences(run: Run, placement: Placement, loaded: LoadedRecipe, old_status: Mapping[str, Any]) -> list[str]:
    """What is another than when the run began, as far as it may show in the result."""
    from bmcli.distribution import environment

    words = []
    try:
        recorded = run.read_environment()
    except BmcliError as error:
        words.append(f"warning: {error} {error.faults[0].suggestion}")
        recorded = {}
    changed = environment.compare_environments(recorded, environment.describe_environment(placement))
    if changed:
        words.append(f"not bit-identical to an uninterrupted run, since these differ now: {', '.join(changed)}.")
    schedule = loaded.recipe.train.schedule
    by_shares = isinstance(schedule, ScheduleOptions) and (schedule.kind != "constant" or schedule.warmup > 0)
    if old_status.get("state") == "done" and by_shares:
        words.append("the learning rate now follows its schedule over all epochs, the new ones included.")
    return words


def _report_details(trainer: Trainer, prepared: PreparedData, log: ReportCallback) -> None:
    placement = trainer.placement
    log(f"prepared data: {prepared.folder}", level=1)
    log(
        f"{placement.kind}, {placement.replicas} replicas on {placement.workers} workers, first device "
        f"{placement.device}, XLA: {_describe_xla(trainer.steps.compilation)}",
        level=1,
    )
    if trainer.components.loss.note:
        log(trainer.components.loss.note)
    log(
        f"{trainer.network.model.count_params():,} parameters; {trainer.steps_per_epoch:,} steps of {trainer.batch} "
        f"an epoch; selected by {trainer.selection.metric}",
        level=1,
    )


def _describe_xla(compilation: Compilation) -> str:
    if not compilation.jit:
        return "off"
    return f"{compilation.steps_per_program} steps a program" if compilation.steps_per_program > 1 else "on"


def _train_and_evaluate(
    run: Run | None, session: Session, trainer: Trainer, context: TrainingContext
) -> TrainingResult:
    """Trains, keeps the selected weights, and measures them; the chief alone has a run to write."""
    from bmcli.networks import network as networks
    from bmcli.workflows.decisions import calibrate_network

    prepared = session.prepared
    if run is None:
        with context.make_progress(session.loaded.recipe.name) as watcher:
            outcome = trainer.train(watcher)
        of_chief = _find_chief_run(context, session.loaded.recipe.name)
        with stopping.resumable(lambda: of_chief.resume_advice if of_chief else None):
            _require_convergence(outcome)
            decided = calibrate_network(trainer.recipe, outcome.network, prepared, trainer.placement, context.log)
            spec = decided.spec
            return TrainingResult(
                None, outcome, _evaluate(trainer, decided.network, replace(prepared, spec=spec), None)
            )
    with _record_failure(run):
        run.set_status("running")
        parts = trainer.micro_batches
        try:
            with context.make_progress(run.name) as watcher:
                outcome = trainer.train(watcher)
        finally:
            if trainer.micro_batches != parts:
                session.write_lock(trainer, run)
        network = outcome.network
        if outcome.selected_epoch is not None:
            decided = calibrate_network(trainer.recipe, network, prepared, trainer.placement, context.log)
            network = decided.network
            prepared = replace(prepared, spec=decided.spec)
            decided.save(run)
            networks.save_network(network, decided.spec, run.model)
            write_data_spec(run, decided.spec, with_model=True)
            for found in (run.explanation, run.validation):
                found.unlink(missing_ok=True)  # of the weights, or of the recipe, before the run went on
        _require_convergence(outcome)
        trained = TrainingResult(run, outcome, _evaluate(trainer, network, prepared, run))
        weight = _measure_compression(trainer, outcome, context.log)
        run.set_status(
            "done", epochs=outcome.epochs, selected_epoch=outcome.selected_epoch, ended_by=outcome.ended_by,
            seconds=round(outcome.train_s, 3), metrics=trained.metrics(), **weight,
        )  # fmt: skip
        if trained.measured is not None:
            unwritten = _write_report(trained.measured, run, replace(session, prepared=prepared), network, context.log)
            trained = replace(trained, report_fault=unwritten)
    return trained


def _write_report(
    measured: EvaluationResult, run: Run, session: Session, network: Network, log: ReportCallback
) -> Fault | None:
    """Writes the report. The run is whole without, so what it lacks, as data that changed meanwhile, is but told.

    Returns:
        Why the file system refused it.
    """
    again = f"`bmcli report {run.display_path}` writes the page again."
    try:
        parameters = network.model.count_params()
        report_data.write_report(
            run, session.loaded.recipe, session.prepared, measured.predicted_rows, measured.evaluation, parameters, log
        )
    except BmcliError as error:
        log(f"no report was written: {error} {again}")
    except OSError as error:
        reason = disk.find_write_failure(error) or f"no report was written: {error}."
        return Fault(f"{reason} The run is done and kept.", suggestion=f"{disk.suggest_remedy(error)} {again}".strip())
    return None


def _measure_compression(trainer: Trainer, outcome: TrainingOutcome, log: ReportCallback) -> dict[str, Any]:
    """What is left of a network that was made smaller while it learned, for the run's status; else nothing."""
    if trainer.recipe.train.prune is None and trainer.recipe.train.rounding is None:
        return {}
    from bmcli.compression.methods import measure_model_size

    before, left = measure_model_size(trainer.network.model), measure_model_size(outcome.network.model)
    log(
        f"kept {left.parameters:,} of {before.parameters:,} parameters, {100 * left.nonzero_share:.1f} % of them "
        f"not 0: {left.bytes:,} of {before.bytes:,} bytes, {left.gzip_bytes:,} as gzip"
    )
    return {"weight": left.to_json()}


@contextlib.contextmanager
def _record_failure(run: Run) -> Iterator[None]:
    """Writes into the run how it failed. The disk may be the reason, so a status that cannot be written is let go.

    A run whose status still says that it is running, although nobody holds it, counts as crashed.
    """

    def leave(sentence: str | None) -> None:
        if run.resume_advice:
            run.set_status("interrupted", reason="interrupted; what was saved is kept.")
        _discard_empty(run)

    try:
        with stopping.resumable(lambda: run.resume_advice, leave):
            yield
    except KeyboardInterrupt:
        _discard_empty(run)
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            run.set_status("interrupted" if isinstance(error, Interrupted) else "failed", reason=str(error))
        failure = disk.find_write_failure(error)
        if failure is None:
            raise
        told = _make_write_error(failure, run)
        _discard_empty(run)
        raise told from None


def _make_write_error(failure: disk.WriteFailure, run: Run) -> RunFailed:
    """What the file system refused, and how to go on once it does not."""
    how = run.resume_advice
    kept = f"What was written before is whole. {disk.suggest_remedy(failure)} {how}"
    return RunFailed(str(failure), suggestion=kept if how else f"{disk.suggest_remedy(failure)} Then train again.")


def _evaluate(trainer: Trainer, network: Network, prepared: PreparedData, run: Run | None) -> EvaluationResult | None:
    """The evaluation the recipe asks for; None if the data has no rows for it."""
    on = trainer.recipe.evaluate.split
    rows = prepared.split(on)
    if not len(rows):
        return None
    return evaluate_rows(trainer.recipe, network, prepared.spec, rows, on, run, trainer.placement)


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
