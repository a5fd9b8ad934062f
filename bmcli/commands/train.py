"""`bmcli train`: from a recipe to a run with a measured model."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bmcli import disk, runs, training
from bmcli.commands.evaluate import Measured, check_gates, data_of, measure, require_same_data
from bmcli.data.preparation import prepare
from bmcli.data.resolution import resolved
from bmcli.errors import BmcliError, Interrupted, RunFailed
from bmcli.recipe.load import Loaded, load
from bmcli.recipe.render import render
from bmcli.runs import Run
from bmcli.specs import DataSpec, Prepared

if TYPE_CHECKING:
    from bmcli.training.loop import Outcome, Trainer, Watcher


class Told(Protocol):
    """Where sentences about the work go; `level` 0 is for everybody, 1 for the curious."""

    def __call__(self, text: str, level: int = 0) -> None: ...


Watch = Callable[[str], contextlib.AbstractContextManager["Watcher"]]


@dataclass(frozen=True)
class Trained:
    """A finished training: its run, how it went, and what the evaluation found."""

    run: Run
    outcome: Outcome
    measured: Measured | None

    def metrics(self) -> dict[str, float]:
        return {**self.outcome.metrics, **(self.measured.metrics() if self.measured else {})}


def train(target: str, overrides: Sequence[str], root: Path, cache: Path, watch: Watch, told: Told) -> Trained:
    """Trains a recipe in a new run below `root`.

    Args:
        cache: Prepared data and measurements of this machine.
        watch: Makes a progress display from a title; it is entered while training.
        told: Takes a sentence for each stage; with level 1 what only the curious want to know.

    Raises:
        RunFailed: The loss or the weights became infinite; the last good weights are kept.
        Interrupted: A signal came; the run can be resumed.
    """
    loaded = load(target, overrides)
    try:
        return _train(loaded, root, cache, watch, told)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _train(loaded: Loaded, root: Path, cache: Path, watch: Watch, told: Told) -> Trained:
    recipe = loaded.recipe
    prepared = prepare(recipe.data, recipe.targets(), recipe.seed, cache / "prepared")
    check_gates(recipe, prepared.spec)
    told(f"{recipe.name}: {_summary(prepared.spec)}")
    run = runs.create(root, recipe.name)
    with run.hold():
        try:
            trainer = _set_up(loaded, prepared, run, cache)
        except BaseException:
            runs.discard(run)  # nothing was trained yet
            raise
        told(f"run {run.shown}")
        _tell_details(trainer, prepared, told)
        return _finish(run, trainer, prepared, watch)


def _summary(spec: DataSpec) -> str:
    """Rows of each split, and what the columns were taken for."""
    counts = ", ".join(f"{count:,} {split}" for split, count in spec.counts.items() if count)
    kinds = Counter(column.kind for column in spec.inputs)
    inputs = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    targets = ", ".join(column.name for column in spec.targets)
    return f"{counts} rows; inputs: {inputs}; target: {targets}"


def resume(folder: str, root: Path, cache: Path, watch: Watch, told: Told) -> Trained:
    """Goes on with an interrupted run from its last checkpoint."""
    run = runs.find(root, folder)
    loaded = load(str(run.lock))
    with run.hold():
        if run.status().get("state") == "done":
            raise BmcliError(f"{run.shown} is finished.", suggestion="Train its recipe again to make a new run.")
        try:
            prepared = prepare(loaded.recipe.data, loaded.recipe.targets(), loaded.recipe.seed, cache / "prepared")
            require_same_data(data_of(run), prepared.spec)
            trainer = _build(loaded, prepared, run, cache)
            trainer.resume()
        except BmcliError as error:
            raise loaded.locate(error) from None
        told(f"run {run.shown}, from epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}")
        _tell_details(trainer, prepared, told)
        return _finish(run, trainer, prepared, watch)


def _tell_details(trainer: Trainer, prepared: Prepared, told: Told) -> None:
    from bmcli.training import strategy

    told(f"prepared data: {prepared.folder}", level=1)
    told(f"device: {strategy.device()}, XLA: {'on' if trainer.jit else 'off'}", level=1)
    told(
        f"{trainer.network.model.count_params():,} parameters; {trainer.steps_per_epoch:,} steps of {trainer.batch} "
        f"an epoch; selected by {trainer.select}",
        level=1,
    )


def _build(loaded: Loaded, prepared: Prepared, run: Run, cache: Path) -> Trainer:
    network = training.started(loaded.recipe, prepared.spec, prepared.split("train").targets)
    from bmcli.training.loop import Trainer  # after the start, which keeps TensorFlow quiet

    return Trainer(loaded.recipe, network, prepared, run, cache)


def _set_up(loaded: Loaded, prepared: Prepared, run: Run, cache: Path) -> Trainer:
    """The trainer, and every file of a run that is known before the first step."""
    trainer = _build(loaded, prepared, run, cache)  # first, because it keeps TensorFlow's start quiet
    from bmcli.training import environment

    shutil.copyfile(loaded.file, run.recipe)
    disk.write_json(run.data, prepared.spec.to_json())
    disk.write_json(run.environment, environment.record())
    found = {
        "runtime.strategy": "one_device",
        "runtime.jit": trainer.jit,
        "train.select.metric": trainer.select,
    }
    recipe = loaded.recipe.spelled_out().model_copy(
        update={"data": resolved(loaded.recipe.data, loaded.recipe.targets(), prepared.spec)}
    )
    disk.write_atomically(run.lock, render(recipe, loaded.tree, found).encode())
    return trainer


def _finish(run: Run, trainer: Trainer, prepared: Prepared, watch: Watch) -> Trained:
    """Trains, keeps the selected weights, and measures them."""
    from bmcli.training import network as networks

    run.set_status("running")
    with _failures_in_status(run):
        with watch(run.name) as watcher:
            outcome = trainer.train(watcher)
        if outcome.selected_epoch is not None:
            networks.save(trainer.network, prepared.spec, run.model)
        _require_convergence(outcome)
        trained = Trained(run, outcome, _measure(trainer, prepared, run))
    run.set_status(
        "done", epochs=outcome.epochs, selected_epoch=outcome.selected_epoch, ended_by=outcome.ended_by,
        seconds=round(outcome.train_s, 3), metrics=trained.metrics(),
    )  # fmt: skip
    return trained


@contextlib.contextmanager
def _failures_in_status(run: Run) -> Iterator[None]:
    """Writes into the run how it failed. The disk may be the reason, so a status that cannot be written is let go."""
    try:
        yield
    except KeyboardInterrupt:
        verb = "Measure it with `bmcli evaluate" if run.model.exists() else "Go on with `bmcli train --resume"
        interrupted = Interrupted("interrupted after training.", suggestion=f"{verb} {run.shown}`.")
        with contextlib.suppress(OSError):
            run.set_status("interrupted", reason=str(interrupted))
        raise interrupted from None
    except Exception as error:
        with contextlib.suppress(OSError):
            run.set_status("interrupted" if isinstance(error, Interrupted) else "failed", reason=str(error))
        if isinstance(error, OSError):
            raise _disk_failed(error, run) from None
        raise


def _disk_failed(error: OSError, run: Run) -> RunFailed:
    """What the file system refused, and how to go on once it does not."""
    saved = any(run.checkpoints.glob("step-*"))
    return RunFailed(
        f"{error.filename or run.shown}: {(error.strerror or str(error)).lower()}.",
        suggestion=f"What was written before is whole: make room, then `bmcli train --resume {run.shown}`."
        if saved
        else "Make room, then train again.",
    )


def _measure(trainer: Trainer, prepared: Prepared, run: Run) -> Measured | None:
    """The evaluation the recipe asks for; None if the data has no rows for it."""
    on = trainer.recipe.evaluate.split
    rows = prepared.split(on)
    return measure(trainer.recipe, trainer.network, prepared.spec, rows, on, run) if len(rows) else None


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
