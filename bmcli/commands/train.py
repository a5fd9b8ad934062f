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
from bmcli.commands.evaluate import Measured, drop_damaged_evaluations, elsewhere, measure
from bmcli.errors import BmcliError, Fault, Interrupted, RunFailed, WorkerLost
from bmcli.quoting import quoted
from bmcli.recipe.check import dotted, read_steps
from bmcli.recipe.load import Loaded, load
from bmcli.recipe.train import WarmUp
from bmcli.run_data import data_of, keep_data
from bmcli.runs import Run
from bmcli.specs import DataSpec, Prepared
from bmcli.workflows import report_data
from bmcli.workflows import session as sessions
from bmcli.workflows.evaluation import check_evaluation
from bmcli.workflows.session import Session

if TYPE_CHECKING:
    from bmcli.distribution.strategy import Placement
    from bmcli.networks.network import Network
    from bmcli.training.progress import ProgressCallback
    from bmcli.training.train_step import Compilation
    from bmcli.training.trainer import Outcome, Trainer


class Told(Protocol):
    """Where sentences about the work go; `level` 0 is for everybody, 1 for the curious."""

    def __call__(self, text: str, level: int = 0) -> None: ...


Watch = Callable[[str], contextlib.AbstractContextManager["ProgressCallback"]]

_MOST_NAMED = 10

# What may be another when a run goes on: how long and on what it trains, not what it learns.
CHANGEABLE = ("train.epochs", "train.stop", "train.checkpoint", "train.tensorboard", "runtime", "evaluate")


@dataclass(frozen=True)
class Setting:
    """Where a training works, and whom it tells.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        watch: Makes a progress display from a title; it is entered while training.
        told: Takes a sentence for each stage; with level 1 what only the curious want to know.
        profile: Write a trace of some seconds of training.
        into: A new and empty run directory to use, made by who started this process.
    """

    root: Path
    cache: Path
    watch: Watch
    told: Told
    profile: bool = False
    into: Path | None = None


@dataclass(frozen=True)
class Trained:
    """A finished training: its run, how it went, and what the evaluation found.

    Args:
        run: None on a worker that writes nothing.
        unwritten: Why the file system refused the run's page, which is all that it lacks.
    """

    run: Run | None
    outcome: Outcome
    measured: Measured | None
    unwritten: Fault | None = None

    def require_report(self) -> None:
        """Raises RunFailed if the file system refused the page of the run."""
        if self.unwritten is not None:
            raise RunFailed(self.unwritten)

    def metrics(self) -> dict[str, float]:
        return {**self.outcome.metrics, **(self.measured.metrics() if self.measured else {})}


def train(target: str, overrides: Sequence[str], setting: Setting) -> Trained:
    """Trains a recipe in a new run.

    Raises:
        RunFailed: The loss or the weights became infinite; the last good weights are kept.
        Interrupted: A signal came; the run can be resumed.
    """
    loaded = load(target, overrides)
    try:
        return train_loaded(loaded, setting)
    except BmcliError as error:
        raise loaded.locate(error) from None


def train_loaded(loaded: Loaded, setting: Setting) -> Trained:
    """The same of a recipe that is loaded; faults are not placed yet."""
    recipe = loaded.recipe
    session = sessions.begin(loaded, setting.cache, lambda spec: check_evaluation(recipe, spec))
    setting.told(f"{recipe.name}: {_summary(session.prepared.spec)}")
    if not session.placement.chief:
        with _watching_peers(session.placement, lambda: _of_chief(setting, recipe.name)):
            return _finish(None, session, session.trainer(None, setting.profile), setting)
    run = Run(setting.into) if setting.into else runs.create(setting.root, recipe.name)
    with run.hold(), _watching_peers(session.placement, lambda: run):
        try:
            with stopping.guarded(_nothing_to_go_on_with, lambda sentence: runs.discard(run)):
                trainer = session.trainer(run, setting.profile)
                session.describe(trainer, run)
        except BaseException:
            runs.discard(run)  # nothing was trained yet
            raise
        setting.told(f"run {run.shown}")
        _tell_details(trainer, session.prepared, setting.told)
        _check_data(session.prepared, run, setting.told)
        return _finish(run, session, trainer, setting)


def _nothing_to_go_on_with() -> None:
    """The run is discarded."""


@contextlib.contextmanager
def _watching_peers(placement: Placement, find: Callable[[], Run | None]) -> Iterator[None]:
    """Ends this process if another worker of the training is lost meanwhile.

    Args:
        find: The run that they train together, as far as this worker knows it.
    """

    def ended(words: str) -> BmcliError:
        run = find()
        how = run.how_to_go_on if run is not None else None
        again = "No checkpoint was written yet: start all workers again."
        error = Interrupted(words, suggestion=how) if how else RunFailed(words, suggestion=again)
        if run is not None and placement.chief:
            with contextlib.suppress(OSError):
                run.set_status("interrupted" if how else "failed", reason=str(error))
        return error

    with placement.peers.watched(ended) if placement.peers else contextlib.nullcontext():
        yield


def _of_chief(setting: Setting, name: str) -> Run | None:
    """The run that the chief writes: the one we were told, or the latest of a name."""
    if setting.into is not None:
        return Run(setting.into)
    with contextlib.suppress(BmcliError):
        return runs.find(setting.root, name)
    return None


def _discard_empty(run: Run) -> None:
    """Removes a run that holds neither a checkpoint nor a model, which also frees its part of a full disk."""
    if run.how_to_go_on is None and not run.model.exists():
        runs.discard(run)


def _check_data(prepared: Prepared, run: Run, told: Told) -> None:
    """Warns of what is suspicious about the data, and keeps it with the run."""
    from bmcli.data.checks import findings

    found = findings(prepared)
    run.write(run.checks, {"findings": [each.to_json() for each in found]})
    for each in found:
        told(f"warning: {each}")


def _summary(spec: DataSpec) -> str:
    """Rows of each split, and what the columns were taken for."""
    counts = ", ".join(f"{count:,} {split}" for split, count in spec.counts.items() if count)
    kinds = Counter(column.kind for column in spec.inputs)
    inputs = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    targets = ", ".join(column.name for column in spec.targets)
    return f"{counts} rows; inputs: {inputs}; target: {targets}{_invalid(spec)}"


def _invalid(spec: DataSpec) -> str:
    """What became of records and cells that could not be read."""
    broken = f"; records left out that are no rows: {spec.broken:,}" if spec.broken else ""
    if not spec.invalid:
        return broken
    cells = ", ".join(f"{count:,} of {quoted(name)}" for name, count in islice(spec.invalid.items(), _MOST_NAMED))
    cells += ", ..." if len(spec.invalid) > _MOST_NAMED else ""
    return f"{broken}; cells that cannot be read: {cells}; rows left out for them: {spec.skipped:,}"


def resume(folder: str, overrides: Sequence[str], setting: Setting) -> Trained:
    """Goes on with an interrupted run from its last checkpoint, or with a finished one that may train longer now.

    Args:
        overrides: Changes to what may be another when a run goes on.
    """
    run = runs.find(setting.root, folder)
    _check_changes(overrides)
    moves = any(dotted(read_steps(argument)[0]) == "runtime.strategy" for argument in overrides)
    loaded = load(str(run.lock), elsewhere(overrides) if moves else overrides)
    try:
        return _resume(loaded, overrides, run, setting)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _resume(loaded: Loaded, overrides: Sequence[str], run: Run, setting: Setting) -> Trained:
    recipe = loaded.recipe
    try:
        session = sessions.begin(loaded, setting.cache, before=data_of(run))
    except WorkerLost as error:
        raise Interrupted(str(error), suggestion=run.how_to_go_on or "") from None
    placement = session.placement
    was = run.status()
    with run.hold() if placement.chief else contextlib.nullcontext(), _watching_peers(placement, lambda: run):
        trainer = session.trainer(run, setting.profile)
        damaged = trainer.resume()
        if trainer.is_over and was.get("state") == "done":
            raise BmcliError(
                f"{run.shown} is finished: {was.get('ended_by')} ended it.",
                suggestion=f"It goes on if it may, e.g. with train.epochs={2 * recipe.train.epochs}.",
            )
        for name in damaged:
            setting.told(f"checkpoint {name} is damaged; the one before is used.")
        setting.told(f"run {run.shown}, from epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}")
        for word in _differences(run, placement, loaded, was):
            setting.told(word)
        if placement.chief:
            _tell_damage(run, was, setting.told)
        _tell_details(trainer, session.prepared, setting.told)
        if overrides and placement.chief:
            session.write_lock(trainer, run)
        return _finish(run if placement.chief else None, session, trainer, setting)


def _tell_damage(run: Run, was: Mapping[str, Any], told: Told) -> None:
    """Tells which files of a run are damaged that it goes on without, and makes room for what it will measure."""
    for fault in run.read_rows()[1]:
        told(f"warning: {fault}")
    if was.get("state") == "damaged":
        told(f"warning: {was['reason']}")
    drop_damaged_evaluations(run, told)


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
    from bmcli.distribution.launch import launch

    if resumed is not None:
        run, into = runs.find(root, resumed), []
        _check_changes(overrides)
    else:
        run = runs.create(root, load(recipe or "", [*overrides, "runtime.strategy=multi_worker"]).recipe.name)
        into = ["--into", str(run.folder)]
    command = [sys.executable, "-m", "bmcli", *arguments, "--strategy", "multi_worker", *into]
    try:
        ended = launch(command, workers, run.logs)
        how = run.how_to_go_on
        if ended.interrupted and how:
            raise Interrupted("interrupted; what was saved is kept.", suggestion=how)
        if ended.loss is None:
            return ended.code
        raise ended.loss.error(run.to_resume if how else "")
    finally:
        if not run.lock.exists():
            runs.discard(run)  # nothing was trained


def _check_changes(overrides: Sequence[str]) -> None:
    """Refuses to change what would make it another training."""
    for argument in overrides:
        steps, _ = read_steps(argument)
        path = dotted(steps)
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in CHANGEABLE):
            raise BmcliError(
                f"{path} cannot change when a run goes on: it would be another training.",
                suggestion=f"What may change: {', '.join(CHANGEABLE)}. Train the recipe anew for the rest.",
            )


def _differences(run: Run, placement: Placement, loaded: Loaded, was: Mapping[str, Any]) -> list[str]:
    """What is another than when the run began, as far as it may show in the result."""
    from bmcli.distribution import environment

    words = []
    try:
        recorded = run.recorded()
    except BmcliError as error:
        words.append(f"warning: {error} {error.faults[0].suggestion}")
        recorded = {}
    changed = environment.differences(recorded, environment.record(placement))
    if changed:
        words.append(f"not bit-identical to an uninterrupted run, since these differ now: {', '.join(changed)}.")
    schedule = loaded.recipe.train.schedule
    by_shares = isinstance(schedule, WarmUp) and (schedule.kind != "constant" or schedule.warmup > 0)
    if was.get("state") == "done" and by_shares:
        words.append("the learning rate now follows its schedule over all epochs, the new ones included.")
    return words


def _tell_details(trainer: Trainer, prepared: Prepared, told: Told) -> None:
    placement = trainer.placement
    told(f"prepared data: {prepared.folder}", level=1)
    told(
        f"{placement.kind}, {placement.replicas} replicas on {placement.workers} workers, first device "
        f"{placement.device}, XLA: {_of_xla(trainer.steps.compilation)}",
        level=1,
    )
    if trainer.components.loss.note:
        told(trainer.components.loss.note)
    told(
        f"{trainer.network.model.count_params():,} parameters; {trainer.steps_per_epoch:,} steps of {trainer.batch} "
        f"an epoch; selected by {trainer.selection.metric}",
        level=1,
    )


def _of_xla(compilation: Compilation) -> str:
    if not compilation.jit:
        return "off"
    return f"{compilation.together} steps a program" if compilation.together > 1 else "on"


def _finish(run: Run | None, session: Session, trainer: Trainer, setting: Setting) -> Trained:
    """Trains, keeps the selected weights, and measures them; the chief alone has a run to write."""
    from bmcli.networks import network as networks
    from bmcli.workflows.decisions import decide

    prepared = session.prepared
    if run is None:
        with setting.watch(session.loaded.recipe.name) as watcher:
            outcome = trainer.train(watcher)
        of_chief = _of_chief(setting, session.loaded.recipe.name)
        with stopping.resumable(lambda: of_chief.how_to_go_on if of_chief else None):
            _require_convergence(outcome)
            decided = decide(trainer.recipe, outcome.network, prepared, trainer.placement, setting.told)
            spec = decided.spec
            return Trained(None, outcome, _measure(trainer, decided.network, replace(prepared, spec=spec), None))
    with _failures_in_status(run):
        run.set_status("running")
        parts = trainer.parts
        try:
            with setting.watch(run.name) as watcher:
                outcome = trainer.train(watcher)
        finally:
            if trainer.parts != parts:
                session.write_lock(trainer, run)
        network = outcome.network
        if outcome.selected_epoch is not None:
            decided = decide(trainer.recipe, network, prepared, trainer.placement, setting.told)
            network = decided.network
            prepared = replace(prepared, spec=decided.spec)
            decided.keep(run)
            networks.save(network, decided.spec, run.model)
            keep_data(run, decided.spec, with_model=True)
            for found in (run.explanation, run.validation):
                found.unlink(missing_ok=True)  # of the weights, or of the recipe, before the run went on
        _require_convergence(outcome)
        trained = Trained(run, outcome, _measure(trainer, network, prepared, run))
        weight = _weighed(trainer, outcome, setting.told)
        run.set_status(
            "done", epochs=outcome.epochs, selected_epoch=outcome.selected_epoch, ended_by=outcome.ended_by,
            seconds=round(outcome.train_s, 3), metrics=trained.metrics(), **weight,
        )  # fmt: skip
        if trained.measured is not None:
            unwritten = _report(trained.measured, run, replace(session, prepared=prepared), network, setting.told)
            trained = replace(trained, unwritten=unwritten)
    return trained


def _report(measured: Measured, run: Run, session: Session, network: Network, told: Told) -> Fault | None:
    """Writes the report. The run is whole without, so what it lacks, as data that changed meanwhile, is but told.

    Returns:
        Why the file system refused it.
    """
    again = f"`bmcli report {run.shown}` writes the page again."
    try:
        parameters = network.model.count_params()
        report_data.write(
            run, session.loaded.recipe, session.prepared, measured.judged, measured.evaluation, parameters, told
        )
    except BmcliError as error:
        told(f"no report was written: {error} {again}")
    except OSError as error:
        reason = disk.write_failure(error) or f"no report was written: {error}."
        return Fault(f"{reason} The run is done and kept.", suggestion=f"{disk.way_out(error)} {again}".strip())
    return None


def _weighed(trainer: Trainer, outcome: Outcome, told: Told) -> dict[str, Any]:
    """What is left of a network that was made smaller while it learned, for the run's status; else nothing."""
    if trainer.recipe.train.prune is None and trainer.recipe.train.rounding is None:
        return {}
    from bmcli.compression.methods import weigh

    before, left = weigh(trainer.network.model), weigh(outcome.network.model)
    told(
        f"kept {left.parameters:,} of {before.parameters:,} parameters, {100 * left.nonzero_share:.1f} % of them "
        f"not 0: {left.bytes:,} of {before.bytes:,} bytes, {left.gzip_bytes:,} as gzip"
    )
    return {"weight": left.to_json()}


@contextlib.contextmanager
def _failures_in_status(run: Run) -> Iterator[None]:
    """Writes into the run how it failed. The disk may be the reason, so a status that cannot be written is let go.

    A run whose status still says that it is running, although nobody holds it, counts as crashed.
    """

    def leave(sentence: str | None) -> None:
        if run.how_to_go_on:
            run.set_status("interrupted", reason="interrupted; what was saved is kept.")
        _discard_empty(run)

    try:
        with stopping.resumable(lambda: run.how_to_go_on, leave):
            yield
    except KeyboardInterrupt:
        _discard_empty(run)
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            run.set_status("interrupted" if isinstance(error, Interrupted) else "failed", reason=str(error))
        failure = disk.write_failure(error)
        if failure is None:
            raise
        told = _refused(failure, run)
        _discard_empty(run)
        raise told from None


def _refused(failure: disk.WriteFailure, run: Run) -> RunFailed:
    """What the file system refused, and how to go on once it does not."""
    how = run.how_to_go_on
    kept = f"What was written before is whole. {disk.way_out(failure)} {how}"
    return RunFailed(str(failure), suggestion=kept if how else f"{disk.way_out(failure)} Then train again.")


def _measure(trainer: Trainer, network: Network, prepared: Prepared, run: Run | None) -> Measured | None:
    """The evaluation the recipe asks for; None if the data has no rows for it."""
    on = trainer.recipe.evaluate.split
    rows = prepared.split(on)
    if not len(rows):
        return None
    return measure(trainer.recipe, network, prepared.spec, rows, on, run, trainer.placement)


def _require_convergence(outcome: Outcome) -> None:
    if outcome.diverged is None:
        return
    kept = (
        f"The weights of epoch {outcome.selected_epoch} are kept."
        if outcome.selected_epoch
        else "No epoch ended well, so no weights are kept."
    )
    raise RunFailed(
        f"training stopped: {outcome.diverged}. {kept}",
        suggestion="Lower train.optimizer.learning_rate, or limit gradients with its option global_clipnorm.",
    )
