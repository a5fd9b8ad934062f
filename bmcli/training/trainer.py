"""The training loop: epochs in a reproducible order, many steps per call, selection, stopping, checkpoints."""

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
from bmcli.networks.weights import TakenWeights
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.training import checkpoint, compilation_cache
from bmcli.training.callbacks import KerasCallbacks
from bmcli.training.early_check import EarlyCheck
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
    """Result of a training.

    Args:
        network: The network that is kept: with the selected weights, or what channel pruning and quantisation-aware
            training made of it.
        metrics: Metrics of the selected epoch, e.g. `{"validation/accuracy": 0.98}`.
        divergence: What became infinite or NaN and where, or None.
        examples_per_second: Mean speed without evaluation.
    """

    network: Network = field(compare=False)
    epochs: int
    steps: int
    selected_epoch: int | None
    metrics: Mapping[str, float]
    stop_reason: str
    divergence: str | None
    train_s: float
    examples_per_second: float


class DivergenceError(Exception):
    """A loss or a weight is no longer a finite number."""


class Trainer:
    """Trainer of one network, assembled for each run by `workflows.assembly.build_trainer`.

    Args:
        recipe: The recipe, with a number instead of a learning rate `auto`.
        steps: The compiled steps.
        feed: The training rows.
        evaluator: Evaluates the validation rows; None if there are none.
        finish_network: Makes the network to keep from the trained one.
        run: The run to resume from; None for a training without a run.
        output: The run that this worker writes; None for workers other than the chief.
        writer: Writer of checkpoints; None for a worker that writes none.
        profile: Recorder of a trace, or None.
        cache: Folder of compiled programs.
        start: Weights that the network took from another run.
        early_check: Check of the first epochs; None for a training that is not checked.
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
        finish_network: Callable[[], Network],
        run: Run | None,
        output: Run | None,
        writer: checkpoint.CheckpointWriter | None,
        profile: Profiler | None,
        cache: Path,
        start: TakenWeights | None = None,
        early_check: EarlyCheck | None = None,
    ) -> None:
        self.start = start
        self._early_check = early_check
        self.recipe, self.steps, self.feed, self.sampler, self.evaluator = recipe, steps, feed, sampler, evaluator
        self.selection, self.callbacks, self._finish_network = selection, callbacks, finish_network
        self.run, self._output, self._writer, self._profile, self._cache = run, output, writer, profile, cache
        self.components = steps.components
        self.network, self.placement = self.components.network, self.components.placement
        self.batch = steps.batch
        self.steps_per_epoch = math.ceil(feed.count / steps.batch)
        self._check_finite = tf.function(lambda: _all_finite(self.network.model.weights), autograph=False)
        self.progress = TrainingProgress()
        self.selected_weights: list[np.ndarray] = []
        self._steps_per_call = 1
        self._called: set[str] = set()  # names of functions that have been traced and compiled
        self._step_s = 0.0
        self._saved_at_s = 0.0  # training time of the last checkpoint
        self._saved_at_step = 0

    @property
    def micro_batches(self) -> int:
        """Number of parts in which a batch is computed."""
        return self.steps.micro_batches

    def compile_steps(self, batch: int, compilation: Compilation, micro_batches: int | None = None) -> CompiledSteps:
        """Compile steps of this training with another batch size, another compilation, or other micro-batches."""
        return CompiledSteps(self.components, batch, compilation, micro_batches or self.micro_batches)

    def train(self, callback: ProgressCallback, stop_condition: StopCondition = never_stop) -> TrainingOutcome:
        """Train to the end, or until a signal.

        Args:
            stop_condition: May end the training earlier, in a state from which it can be resumed as if it had never
                ended; its word becomes `stop_reason`.

        Raises:
            Interrupted: SIGINT or SIGTERM was received; a checkpoint has been written.
            RunFailed: The memory of the device is too small.
        """
        diverged = None
        with _collect_signals() as signals, self._explain_errors(), self._close_writers():
            try:
                self._train(callback, signals, stop_condition)
            except DivergenceError as error:
                self.progress.stop_reason, diverged = "divergence", str(error)
        if self._profile is not None and not self._profile.recorded:
            callback.on_note("The training was too short for a trace; raise train.epochs.")
        self.callbacks.finish()
        compilation_cache.seal_new_entries(compilation_cache.cache_folder(self._cache))
        return self._build_result(diverged)

    def _train(self, callback: ProgressCallback, signals: list[int], stop_condition: StopCondition) -> None:
        if self.recipe.train.batch_size == "auto" and self.progress.step == 0:
            self.save()  # `_split_batches` resumes from it if the memory is too small
        self._drop_later_epochs()
        if self.progress.stop_reason is None and self.progress.epoch:
            # The process may have been killed after the epoch's checkpoint and before this call.
            self.progress.stop_reason = stop_condition(self.progress.last)
        while self.progress.stop_reason is None:
            try:
                self._train_epoch(callback, signals)
            except tf.errors.ResourceExhaustedError as error:
                # TensorFlow raises the same class when a disk is full.
                if disk.find_write_failure(error) is not None or not self._can_split_batches():
                    raise
                self._split_batches(callback)
                continue
            cut_off = self.progress.batch < self.steps_per_epoch
            if cut_off:
                # Before the epoch is closed, so that a resume with a larger budget continues in the middle of it.
                self.save()
            try:
                self.progress.stop_reason = self._finish_epoch(callback, cut_off, signals) or stop_condition(
                    self.progress.last
                )
            except PassStopped:
                self._interrupt(signals, saved=cut_off)  # the epoch is trained; a resume evaluates it
            if self.progress.stop_reason is not None and not cut_off:
                self.save()
        if self._is_stop_requested(signals):
            self._interrupt(signals, saved=True)

    def _can_split_batches(self) -> bool:
        # Splitting resumes from a checkpoint: a run must hold one, and of several workers only the one that failed
        # would resume.
        return (
            self.recipe.train.batch_size == "auto"
            and self._output is not None
            and self.placement.workers == 1
            and (2 * self.micro_batches <= self.batch)
        )

    def _split_batches(self, callback: ProgressCallback) -> None:
        """Halve the part of a batch that is computed at once, and resume from the last checkpoint."""
        parts = 2 * self.micro_batches
        callback.on_note(
            f"The memory is too small for {self.batch} examples at once; each batch is now computed in {parts} parts."
        )
        self.steps = self.compile_steps(self.batch, Compilation(self.steps.compilation.jit), parts)
        self._called.clear()
        if self._writer is not None:
            self._writer.wait()
        self.resume()  # the step that failed may have changed some of the variables
        self._drop_later_epochs()

    def _drop_later_epochs(self) -> None:
        """Remove the metrics of epochs after the checkpoint, which will be trained again."""
        if self._output and self._output.metrics.exists():
            self._output.truncate_epochs(self.progress.epoch)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turn TensorFlow's errors of exhausted memory or disk into errors for the user."""
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            if (failure := disk.find_write_failure(error)) is not None:
                raise failure from error
            raise RunFailed(
                f"out of memory: batches of {self.batch}"
                f"{f' in {self.micro_batches} parts' if self.micro_batches > 1 else ''} are too large.",
                suggestion=f"Compute them in parts with train.gradient_accumulation={2 * self.micro_batches}, or lower "
                "train.batch_size.",
            ) from None

    @contextmanager
    def _close_writers(self) -> Iterator[None]:
        """Stop the profiler and the writer of checkpoints, however the training ends."""
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
        self.feed.start_epoch(self.sampler.epoch_order(progress.epoch), self.batch, min(progress.batch, full - 1))
        while progress.batch < self.steps_per_epoch and not self.selection.is_out_of_budget(self.progress):
            if self._profile is not None:
                self._profile.on_call()
            for hook in self.components.hooks:
                hook.before_call(progress.train_s)
            start = time.perf_counter()
            count, bad = self._run_steps(full)
            if bad != NO_STEP:
                # No checkpoint of these weights is ever written: a resume begins from the last good one.
                raise DivergenceError(
                    f"the loss of step {progress.step + bad + 1} (epoch {progress.epoch + 1}) is not a finite number"
                )
            self._agree_and_advance(count, time.perf_counter() - start, callback, signals)

    def _run_steps(self, full: int) -> tuple[int, int]:
        """Train on the next batches.

        Returns:
            The number of batches, and the first whose loss was not finite, or `NO_STEP`.
        """
        progress = self.progress
        if progress.batch >= full:
            with self._guard_first_call("ragged"):
                return 1, self.steps.train_ragged_batch(self.feed.read_remainder())
        block = self.feed.read_block(progress.batch, self._count_call_batches(full))
        with self._guard_first_call("many"):
            return block.count, self.steps.train_block(block)

    @contextmanager
    def _guard_first_call(self, name: str) -> Iterator[None]:
        """Let a signal during the first call of a function save the state before it and end the process."""
        # Tracing and compiling may take minutes, in which Python handles no signal. Later calls are short enough to
        # wait for their end. On several workers nothing is saved here, because copying the state is a collective
        # operation that all of them must start together.
        run = self._output
        if name in self._called or run is None or self.placement.workers > 1:
            yield
            return
        self._called.add(name)
        step, state = self.progress.step, self._state()

        def save() -> str | None:
            if not self._holds_finite_weights(state):
                return None  # an older checkpoint may exist
            if self._writer is not None:
                self._writer.wait()
            checkpoint.save(run.checkpoints, step, state)
            return stopping.format_resume_advice(run.resume_command)

        with stopping.interruptible(save):
            yield

    def _count_call_batches(self, full: int) -> int:
        """Number of batches of the next call: until the next checkpoint at most, but in whole programs."""
        # Rounded up: a program that is divided would compile other steps together, which changes the last bits.
        progress, each = self.progress, self.steps.compilation.steps_per_program
        every = self.recipe.train.checkpoint.steps
        to_checkpoint = every - (progress.step - self._saved_at_step) if every else 2**62
        end = progress.batch + min(self._steps_per_call, to_checkpoint)
        return min(-(-end // each) * each, full, progress.batch + self.selection.steps - progress.step) - progress.batch

    def _agree_and_advance(self, count: int, seconds: float, callback: ProgressCallback, signals: list[int]) -> None:
        """Update the progress after a call; stop or write a checkpoint if that is due."""
        # Time decides the size of calls, checkpoints and the end of the budget: all workers use the chief's clock,
        # since a worker that decided otherwise would leave the others waiting in a collective operation.
        (seconds,) = self.placement.broadcast_from_chief([seconds])
        self._advance(count, seconds, callback)
        if self._is_stop_requested(signals):
            self._interrupt(signals)
        if self._checkpoint_is_due():
            self.save()

    def _is_stop_requested(self, signals: list[int]) -> bool:
        """Whether any worker received a signal; all workers must call it at the same time."""
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
        """Describe the progress after a call of `count` steps."""
        progress = self.progress
        if examples == count * self.batch or not self._step_s:
            self._step_s = seconds / count  # the ragged last batch would not be typical
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
        """Save the state and end the training.

        Args:
            signals: Received signals; empty if only another worker received one.
            saved: The state to resume from has already been saved.
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
        """Evaluate and perhaps select the epoch.

        Args:
            cut_off: A limit of steps or time ended the epoch before all its rows were trained on.

        Returns:
            One word for the reason to end the training, or None.

        Raises:
            PassStopped: A signal was received during the evaluation, which can be repeated as if it had not begun.
        """
        progress = self.progress

        def should_stop() -> bool:
            return bool(signals)

        self._require_finite_weights()
        # If a signal interrupts the evaluation below, a resume comes here a second time: hooks are called only once.
        if progress.averaged <= progress.epoch:
            for hook in self.components.hooks:
                hook.after_epoch(progress.epoch + 1)
            progress.averaged = progress.epoch + 1
        with self._guard_first_call("validation"), ExitStack() as contexts:
            for hook in self.components.hooks:
                contexts.enter_context(hook.use_evaluation_weights(progress.epoch + 1, should_stop))
            row = self._collect_metrics(should_stop)
            selected = self.selection.is_best(progress, row, self._is_settled)
            # Inside the contexts, in which the network has averages of its weights if the recipe has any.
            kept = [weight.numpy() for weight in self.network.model.weights] if selected else []
        progress.epoch += 1
        progress.batch = 0
        progress.overfitted = progress.overfitted + 1 if is_overfit(row, progress.last) else 0
        progress.last = row
        for name in ("train/loss", "validation/loss"):
            if row.get(name) is not None:
                progress.lowest[name] = min(row[name], progress.lowest.get(name, math.inf))
        if selected:
            progress.best = row.get(self.selection.metric) if self._is_settled else None
            progress.selected_epoch, progress.row = progress.epoch, row
            self.selected_weights = kept
        if self._output:
            self._output.append_epoch(row)
        callback.on_epoch_end(row, selected)
        self._check_learning(callback)
        callback_stops = self.callbacks.after_epoch(progress.epoch, row)
        if cut_off:
            return "steps" if progress.step >= self.selection.steps else "time"
        return "callback" if callback_stops else self.selection.stop_reason(progress, row, self._is_settled)

    def _check_learning(self, callback: ProgressCallback) -> None:
        """Warn of a network that learns nothing in the first epochs, and keep the finding in the run."""
        finding = self._early_check.find(self.progress) if self._early_check else None
        if finding is None:
            return
        callback.on_note(f"warning: {finding}")
        if self._output:
            self._output.add_finding(finding.to_json())

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
        """Whether pruning and rounding are complete, so that epochs can be compared with later ones."""
        return all(hook.is_settled(self.progress.step) for hook in self.components.hooks)

    def _require_finite_weights(self) -> None:
        # A NaN before ReLU and batch normalization can leave the loss finite, so that the weights are checked too.
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
            stop_reason=progress.stop_reason or "epochs",
            divergence=diverged,
            train_s=progress.train_s,
            examples_per_second=progress.examples / progress.train_s if progress.train_s else 0.0,
        )

    def save(self) -> None:
        """Write a checkpoint; weights that are not finite are never written."""
        self._require_finite_weights()
        state = self._state()  # on every worker, even those that write nothing
        if self._writer is not None:
            self._writer.write(self.progress.step, state)
        self._saved_at_s, self._saved_at_step = self.progress.train_s, self.progress.step

    def _state(self) -> checkpoint.Checkpoint:
        """Copy the state that a resumed run needs; all workers must call it at the same time."""
        variables, meter_state = self.steps.snapshot()
        groups = {"variables": variables, "meters": meter_state}
        if self.selected_weights:
            groups["selected"] = self.selected_weights
        run_id = self.run.id if self.run else ""
        values = {"run_id": run_id, "progress": asdict(self.progress), "callbacks": self.callbacks.state()}
        return checkpoint.Checkpoint(groups, values)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.stop_reason is not None or self.selection.is_out_of_budget(self.progress)

    def suggest_changes(self) -> list[str]:
        """Suggest overrides of the recipe with which an ended training continues; empty if none can."""
        if self.progress.stop_reason == "callback":
            return []
        return self.selection.suggest_changes(self.progress, self._is_settled)

    def resume(self) -> tuple[str, ...]:
        """Continue from the newest intact checkpoint of the run.

        Returns:
            The names of newer checkpoints that are damaged.
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
                f"{self.run.checkpoints}: the training cannot be resumed from the checkpoint ({error}).",
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
        # The recipe may allow more epochs or have other stop conditions now. What a callback decided stays.
        if self.progress.stop_reason not in (None, "callback"):
            self.progress.stop_reason = self.selection.stop_reason(progress, progress.last, self._is_settled)
        return damaged


def _all_finite(weights: list[Any]) -> Any:
    """Whether each weight has only finite numbers, `(weights,)`."""
    # Cast, because the weights include integers, which `is_finite` does not accept.
    return tf.stack([tf.reduce_all(tf.math.is_finite(tf.cast(weight.value, tf.float32))) for weight in weights])


@contextmanager
def _collect_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a call of steps can end; a second signal takes effect immediately."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def collect(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # ignored by the user, for instance with nohup
            signal.signal(number, collect)
    try:
        with stopping.without_watchdog():
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:  # it came after the trainer checked for the last time, or the body raised nothing for it
        signal.raise_signal(received[0])
