"""The training loop: epochs over a reproducible order, many steps a call, selection, stopping, checkpoints."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from bmcli import disk, records, stopping
from bmcli.errors import Interrupted, RunFailed
from bmcli.networks.network import Network
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.training import checkpoint, compilation_cache
from bmcli.training.callbacks import KerasCallbacks
from bmcli.training.evaluator import Evaluator, PassStopped
from bmcli.training.feed import Feed
from bmcli.training.graph_ops import CALL_S
from bmcli.training.profile import Profiler
from bmcli.training.progress import ProgressCallback, ProgressUpdate, StopCondition, TrainingProgress, never_stop
from bmcli.training.sampler import Sampler
from bmcli.training.selection import Selection, is_overfit
from bmcli.training.train_step import NO_STEP, Compilation, CompiledSteps


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended.

    Args:
        network: What is kept: the network with the selected weights, or that which pruning and quantisation-aware
            training leave of it.
        metrics: Of the selected epoch, e.g. `{"validation/accuracy": 0.98}`.
        divergence: What became infinite or NaN and where, or None.
        examples_per_second: Of training alone.
    """

    network: Network = field(compare=False)
    epochs: int
    steps: int
    selected_epoch: int | None
    metrics: Mapping[str, float]
    ended_by: str
    divergence: str | None
    train_s: float
    examples_per_second: float


class DivergenceError(Exception):
    """A loss or a weight is no longer a finite number."""


class Trainer:
    """Trains one network; made once for each run, by `assembly.build_trainer`.

    Args:
        recipe: With a learning rate in the place of `auto`.
        steps: The compiled steps.
        feed: The training rows.
        evaluator: Of the validation rows, if there are any.
        kept_network: Makes the network that is kept of the trained one.
        run: What is resumed from; None for a worker that has nothing to write.
        output: What this worker writes.
        writer: Writes the checkpoints of this worker.
        profile: Records a trace.
        cache: Folder of compiled programs.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        steps: CompiledSteps,
        feed: Feed,
        sampler: Sampler,
        evaluator: Evaluator | None,
        selection: Selection,
        callbacks: KerasCallbacks,
        kept_network: Callable[[], Network],
        run: Run | None,
        output: Run | None,
        writer: checkpoint.CheckpointWriter | None,
        profile: Profiler | None,
        cache: Path,
    ) -> None:
        self.recipe, self.steps, self.feed, self.sampler, self.evaluator = recipe, steps, feed, sampler, evaluator
        self.selection, self.callbacks, self._finish_network = selection, callbacks, kept_network
        self.run, self._output, self._writer, self._profile, self._cache = run, output, writer, profile, cache
        self.components = steps.components
        self.network, self.placement = self.components.network, self.components.placement
        self.batch = steps.batch
        self.steps_per_epoch = math.ceil(feed.count / steps.batch)
        self._check_finite = tf.function(lambda: _all_finite(self.network.model.weights), autograph=False)
        self.progress = TrainingProgress()
        self.selected_weights: list[np.ndarray] = []
        self._steps_per_call = 1
        self._called: set[str] = set()  # the functions that are traced and compiled
        self._step_s = 0.0
        self._saved_at_s = 0.0  # training time of the last checkpoint
        self._saved_at_step = 0

    @property
    def micro_batches(self) -> int:
        """How many parts a batch is computed in."""
        return self.steps.micro_batches

    def compile_steps(self, batch: int, compilation: Compilation, micro_batches: int | None = None) -> CompiledSteps:
        """Steps of this training with another batch, compiled in another way, or computed in other parts."""
        return CompiledSteps(self.components, batch, compilation, micro_batches or self.micro_batches)

    def train(self, callback: ProgressCallback, stop_condition: StopCondition = never_stop) -> TrainingOutcome:
        """Trains to the end, or until a signal.

        Args:
            stop_condition: May end the training before, in a state that resumes as if it had never ended; `ended_by`
                is its word.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint is there.
            RunFailed: The memory of the device is too small.
        """
        diverged = None
        with _collect_signals() as signals, self._explain_errors(), self._close_writers():
            try:
                self._train(callback, signals, stop_condition)
            except DivergenceError as error:
                self.progress.ended_by, diverged = "divergence", str(error)
        if self._profile is not None and not self._profile.recorded:
            callback.note("The training was too short for a trace: give it more epochs.")
        self.callbacks.finish()
        compilation_cache.seal_new_entries(compilation_cache.cache_folder(self._cache))
        return self._build_result(diverged)

    def _train(self, callback: ProgressCallback, signals: list[int], stop_condition: StopCondition) -> None:
        if self.recipe.train.batch_size == "auto" and self.progress.step == 0:
            self.save()  # to start again from, should the memory be too small
        self._drop_later_epochs()
        if self.progress.ended_by is None and self.progress.epoch:
            self.progress.ended_by = stop_condition(self.progress.last)  # a kill may have come before it was heard
        while self.progress.ended_by is None:
            try:
                self._train_epoch(callback, signals)
            except tf.errors.ResourceExhaustedError as error:
                if disk.find_write_failure(error) is not None or not self._can_split_batches():
                    raise
                self._split_batches(callback)
                continue
            cut_off = self.progress.batch < self.steps_per_epoch
            if cut_off:
                self.save()  # now, so that a larger budget goes on in the middle of this epoch
            try:
                self.progress.ended_by = self._finish_epoch(callback, cut_off, signals) or stop_condition(
                    self.progress.last
                )
            except PassStopped:
                self._interrupt(signals, saved=cut_off)  # the epoch is trained, and will be measured anew
            if self.progress.ended_by is not None and not cut_off:
                self.save()
        if self._is_stop_requested(signals):
            self._interrupt(signals, saved=True)

    def _can_split_batches(self) -> bool:
        return (
            self.recipe.train.batch_size == "auto"
            and self._output is not None
            and self.placement.workers == 1
            and (2 * self.micro_batches <= self.batch)
            and not self.components.loss.compares_examples
        )

    def _split_batches(self, callback: ProgressCallback) -> None:
        """Halves what is computed at once; goes back to the last checkpoint, since the step may be half done."""
        parts = 2 * self.micro_batches
        callback.note(
            f"The memory is too small for {self.batch} examples at once: each batch is computed in {parts} parts."
        )
        self.steps = self.compile_steps(self.batch, Compilation(self.steps.compilation.jit), parts)
        self._called.clear()
        if self._writer is not None:
            self._writer.wait()
        self.resume()
        self._drop_later_epochs()

    def _drop_later_epochs(self) -> None:
        """Rows of epochs that will be trained again."""
        if self._output and self._output.metrics.exists():
            self._output.truncate_epochs(self.progress.epoch)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turns what TensorFlow raises while training into words."""
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            if (failure := disk.find_write_failure(error)) is not None:
                raise failure from error
            raise RunFailed(
                f"the memory is too small for batches of {self.batch}"
                f"{f' in {self.micro_batches} parts' if self.micro_batches > 1 else ''}.",
                suggestion=f"Compute them in parts with train.gradient_accumulation={2 * self.micro_batches}, or lower "
                "train.batch_size.",
            ) from None

    @contextmanager
    def _close_writers(self) -> Iterator[None]:
        """Ends what goes on in the background, however the training ends."""
        try:
            yield
        finally:
            if self._profile is not None:
                self._profile.stop()
            if self._writer is not None:
                self._writer.close()

    def _train_epoch(self, callback: ProgressCallback, signals: list[int]) -> None:
        progress = self.progress
        if progress.batch == 0:
            self.components.meters.reset()
            progress.epoch_s = 0.0
        full = self.feed.count // self.batch
        self.feed.start_epoch(self.sampler.of(progress.epoch), self.batch, min(progress.batch, full - 1))
        while progress.batch < self.steps_per_epoch and not self.selection.is_out_of_budget(self.progress):
            if self._profile is not None:
                self._profile.on_call()
            start = time.perf_counter()
            count, bad = self._run_steps(full)
            if bad != NO_STEP:
                raise DivergenceError(
                    f"the loss of step {progress.step + bad + 1} (epoch {progress.epoch + 1}) is not a finite number"
                )
            self._agree_and_advance(count, time.perf_counter() - start, callback, signals)

    def _run_steps(self, full: int) -> tuple[int, int]:
        """Trains on the next batches; how many they were, and the first whose loss was not finite."""
        progress = self.progress
        if progress.batch >= full:
            with self._called_first("ragged"):
                return 1, self.steps.train_ragged_batch(self.feed.read_remainder())
        block = self.feed.read_block(progress.batch, self._count_call_batches(full))
        with self._called_first("many"):
            return block.count, self.steps.train_block(block)

    @contextmanager
    def _called_first(self, name: str) -> Iterator[None]:
        """Has a signal end the process in time while a function is called for the first time, with the state before it.

        To trace and compile it may take minutes. Later calls are as short as answers to signals have to be.
        """
        run = self._output
        if name in self._called or run is None or self.placement.workers > 1:
            yield
            return
        self._called.add(name)
        step, state = self.progress.step, self._state()

        def save() -> str | None:
            if not self._holds_finite_weights(state):
                return None  # an older checkpoint may be there
            if self._writer is not None:
                self._writer.wait()
            checkpoint.save(run.checkpoints, step, state)
            return stopping.format_resume_advice(run.resume_command)

        with stopping.interruptible(save):
            yield

    def _count_call_batches(self, full: int) -> int:
        """Batches of the next call: to the next checkpoint at most, but programs of several steps are never divided."""
        progress, each = self.progress, self.steps.compilation.steps_per_program
        every = self.recipe.train.checkpoint.steps
        to_checkpoint = every - (progress.step - self._saved_at_step) if every else 2**62
        end = progress.batch + min(self._steps_per_call, to_checkpoint)
        return min(-(-end // each) * each, full, progress.batch + self.selection.steps - progress.step) - progress.batch

    def _agree_and_advance(self, count: int, seconds: float, callback: ProgressCallback, signals: list[int]) -> None:
        """Moves on after a call; all workers go by the clock of the chief, and stop together."""
        (seconds,) = self.placement.broadcast_from_chief([seconds])
        self._advance(count, seconds, callback)
        if self._is_stop_requested(signals):
            self._interrupt(signals)
        if self._checkpoint_is_due():
            self.save()

    def _is_stop_requested(self, signals: list[int]) -> bool:
        """Whether a signal came to one of the workers; all have to ask at the same time."""
        return bool(self.placement.sum_over_workers([float(bool(signals))])[0])

    def _advance(self, count: int, seconds: float, callback: ProgressCallback) -> None:
        progress = self.progress
        examples = min(count * self.batch, self.feed.count - progress.batch * self.batch)
        progress.batch += count
        progress.step += count
        progress.examples += examples
        progress.train_s += seconds
        progress.epoch_s += seconds
        # At most doubled, because the first calls also trace and compile.
        self._steps_per_call = max(1, min(2 * self._steps_per_call, int(CALL_S * count / seconds)))
        callback.on_progress(self._build_update(examples, count, seconds))

    def _build_update(self, examples: int, count: int, seconds: float) -> ProgressUpdate:
        """The state of training after a call of `count` steps."""
        progress = self.progress
        if examples == count * self.batch or not self._step_s:
            self._step_s = seconds / count  # not of a ragged batch, which is an unusual one
        return ProgressUpdate(
            epoch=progress.epoch + 1,
            epochs=self.recipe.train.epochs,
            step=progress.batch,
            steps=self.steps_per_epoch,
            loss=self.components.meters.loss(),
            examples_per_second=self.batch / self._step_s,
            seconds_left=(self.selection.steps - progress.step) * self._step_s,
        )

    def _interrupt(self, signals: list[int], saved: bool = False) -> NoReturn:
        """Saves the state and ends the training; on a worker that got no signal, another did.

        Args:
            saved: The state to go on from was saved already.
        """
        if not saved:
            self.save()
        if self._writer is not None:
            self._writer.wait()
        name = signal.Signals(signals[0] if signals else signal.SIGTERM).name
        raise Interrupted(
            f"{name} after step {self.progress.step}: the state is saved.",
            suggestion=stopping.format_resume_advice(self.run.resume_command) if self.run else "",
        )

    def _checkpoint_is_due(self) -> bool:
        options, progress = self.recipe.train.checkpoint, self.progress
        by_time = options.time is not None and progress.train_s - self._saved_at_s > options.time
        by_steps = options.steps is not None and progress.step - self._saved_at_step >= options.steps
        return by_time or by_steps

    def _finish_epoch(self, callback: ProgressCallback, cut_off: bool, signals: list[int]) -> str | None:
        """Measures, selects, and says why training should stop now, if it should.

        Args:
            cut_off: A limit of steps or time ended the epoch before all its rows were trained on.

        Raises:
            PassStopped: A signal came while it measured, which can be done anew as if it had not been begun.
        """
        progress = self.progress

        def stops() -> bool:
            return bool(signals)

        self._require_finite_weights()
        if progress.averaged <= progress.epoch:
            for hook in self.components.hooks:
                hook.after_epoch(progress.epoch + 1)
            progress.averaged = progress.epoch + 1
        with self._called_first("validation"), ExitStack() as contexts:
            for hook in self.components.hooks:
                contexts.enter_context(hook.use_evaluation_weights(progress.epoch + 1, stops))
            row = self._collect_metrics(stops)
            selected = self.selection.is_best(progress, row, self._is_settled)
            kept = [weight.numpy() for weight in self.network.model.weights] if selected else []
        progress.epoch += 1
        progress.batch = 0
        progress.overfitted = progress.overfitted + 1 if is_overfit(row, progress.last) else 0
        progress.last = row
        if selected:
            progress.best = row.get(self.selection.metric) if self._is_settled else None
            progress.selected_epoch, progress.row = progress.epoch, row
            self.selected_weights = kept
        if self._output:
            self._output.append_epoch(row)
        callback.epoch(row, selected)
        callback_stops = self.callbacks.after_epoch(progress.epoch, row)
        if cut_off:
            return "steps" if progress.step >= self.selection.steps else "time"
        return "callback" if callback_stops else self.selection.stop_reason(progress, row, self._is_settled)

    def _collect_metrics(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        progress = self.progress
        row: dict[str, Any] = {"epoch": progress.epoch + 1, "step": progress.step}
        row |= {f"train/{name}": value for name, value in self.components.meters.results().items()}
        if self.evaluator is not None:
            row |= {f"validation/{name}": value for name, value in self.evaluator.measure(should_stop).items()}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.components.optimizer.learning_rate))
        examples = min(progress.batch * self.batch, self.feed.count)
        row["examples_per_second"] = round(examples / progress.epoch_s, 1) if progress.epoch_s else 0.0
        row["seconds"] = round(progress.train_s, 3)
        return {name: value if math.isfinite(value) else None for name, value in row.items()}

    @property
    def _is_settled(self) -> bool:
        """Whether all is pruned and rounded that will be, so that epochs can be compared with later ones."""
        return all(hook.is_settled(self.progress.step) for hook in self.components.hooks)

    def _require_finite_weights(self) -> None:
        # A NaN before ReLU and batch normalisation can leave the loss finite, so the weights are looked at too.
        finite = self._check_finite().numpy()
        if not finite.all():
            broken = self.network.model.weights[int(np.argmin(finite))].path
            raise DivergenceError(f"weight {broken} holds NaN or infinity after epoch {self.progress.epoch + 1}")

    def _holds_finite_weights(self, state: checkpoint.Checkpoint) -> bool:
        weights = {id(weight) for weight in self.network.model.weights}
        values = zip(self.components.variables, state.groups["variables"], strict=True)
        return all(bool(np.isfinite(value).all()) for variable, value in values if id(variable) in weights)

    def _build_result(self, diverged: str | None) -> TrainingOutcome:
        progress = self.progress
        if self.selected_weights:
            for weight, value in zip(self.network.model.weights, self.selected_weights, strict=True):
                weight.assign(value)
        return TrainingOutcome(
            network=self._finish_network(),
            epochs=progress.epoch,
            steps=progress.step,
            selected_epoch=progress.selected_epoch,
            metrics={name: value for name, value in progress.row.items() if "/" in name and value is not None},
            ended_by=progress.ended_by or "epochs",
            divergence=diverged,
            train_s=progress.train_s,
            examples_per_second=progress.examples / progress.train_s if progress.train_s else 0.0,
        )

    def save(self) -> None:
        """Writes a checkpoint; weights that are not finite are never written."""
        self._require_finite_weights()
        state = self._state()
        if self._writer is not None:
            self._writer.write(self.progress.step, state)
        self._saved_at_s, self._saved_at_step = self.progress.train_s, self.progress.step

    def _state(self) -> checkpoint.Checkpoint:
        """Copies of all that a run needs to go on from here; all workers have to ask for it at the same time."""
        variables, gathered = self.steps.snapshot()
        groups = {"variables": variables, "meters": gathered}
        if self.selected_weights:
            groups["selected"] = self.selected_weights
        run_id = self.run.id if self.run else ""
        values = {"run_id": run_id, "progress": asdict(self.progress), "callbacks": self.callbacks.state()}
        return checkpoint.Checkpoint(groups, values)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.ended_by is not None or self.selection.is_out_of_budget(self.progress)

    def resume(self) -> tuple[str, ...]:
        """Takes up the newest checkpoint of the run that is whole; names those that are not.

        What ended the training before may hold no more: more epochs, or other conditions to stop.
        """
        assert self.run is not None, "only a run can be resumed"
        state, damaged = checkpoint.restore(self.run.checkpoints, self.run.id)
        try:
            saved, progress = (
                state.groups["variables"],
                records.validate_as(TrainingProgress, state.values.get("progress")),
            )
        except (KeyError, disk.DamagedFile) as error:
            raise RunFailed(
                f"{self.run.checkpoints}: the checkpoint cannot be gone on with ({error}).",
                suggestion="Train again to make a new run.",
            ) from None
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in self.components.variables]:
            raise RunFailed(
                f"{self.run.checkpoints}: the checkpoint does not fit the network that the recipe describes.",
                suggestion="Resume with the versions in environment.json, or train again.",
            )
        self.steps.restore_snapshot((saved, state.groups["meters"]))
        self.selected_weights = list(state.groups.get("selected", ()))
        self.progress = progress
        self._saved_at_s, self._saved_at_step = self.progress.train_s, self.progress.step
        self.callbacks.restore(state.values["callbacks"])
        self.steps.catch_up()
        if self.progress.ended_by not in (None, "callback"):
            self.progress.ended_by = self.selection.stop_reason(progress, progress.last, self._is_settled)
        return damaged


def _all_finite(weights: list[Any]) -> Any:
    """For each weight whether all its numbers are finite, `(weights,)`."""
    return tf.stack([tf.reduce_all(tf.math.is_finite(tf.cast(weight.value, tf.float32))) for weight in weights])


@contextmanager
def _collect_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that a call of steps can end; a second one acts at once.

    Those that are ignored, as under nohup, stay so.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        with stopping.without_watchdog():
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:  # after it was asked about for the last time
        signal.raise_signal(received[0])
