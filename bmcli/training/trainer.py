"""The training loop: epochs over a reproducible order, many steps a call, selection, stopping, checkpoints."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import keras
import numpy as np
import tensorflow as tf

from bmcli import disk, parts, stopping, training
from bmcli.compression.round import settle
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError, Interrupted, RunFailed
from bmcli.networks.network import Network
from bmcli.recipe.compression import ChannelPruning
from bmcli.recipe.schema import MOMENTUM, Recipe, TrainOptions, WarmUp
from bmcli.runs import Run
from bmcli.specs import Prepared
from bmcli.training import (
    augmentation,
    channel_pruning,
    checkpoint,
    compilation_cache,
    optimizers,
    pruning,
    quantization_aware,
)
from bmcli.training import feed as feeds
from bmcli.training.autotune import batch_size, compilation, learning_rate
from bmcli.training.averaging import Average, EpochMean, MovingAverage, ScheduleFree
from bmcli.training.batch_normalization import Estimation
from bmcli.training.callbacks import Callbacks, Directions, require_direction
from bmcli.training.meters import Meters
from bmcli.training.profile import Profile
from bmcli.training.sampler import Orders
from bmcli.training.train_step import CALL_S, NO_STEP, PLAIN, Compilation, Lesson, Pass, Steps, Stopped

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Moment:
    """Where a training is, for a progress display.

    Args:
        epoch: Counts from 1.
        step, steps: Done and to do in this epoch.
        loss: Mean over the epoch so far.
        examples_per_second: Of training alone, over the last call.
        seconds_left: For all epochs, if none stops early.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    examples_per_second: float
    seconds_left: float


class Watcher(Protocol):
    """What wants to know how a training goes on."""

    def moment(self, moment: Moment) -> None: ...

    def epoch(self, row: Mapping[str, Any], selected: bool) -> None: ...

    def note(self, text: str) -> None: ...


Halt = Callable[[Mapping[str, Any]], str | None]
"""Asked after each epoch, with its row of metrics: one word on why the training should end here, or None.

It is asked about the last epoch again where a training goes on.
"""


def never(row: Mapping[str, Any]) -> None:
    """Lets the training go on."""


@dataclass
class Progress:
    """All that changes while training, beside the variables."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the next one
    step: int = 0  # optimizer steps in all
    examples: int = 0  # examples in all
    train_s: float = 0.0
    epoch_s: float = 0.0
    averaged: int = 0  # the last epoch that the average of the weights took up
    best: float | None = None
    selected_epoch: int | None = None
    waited: int = 0  # epochs since the last improvement
    overfitted: int = 0  # epochs in a row that learned the training rows alone
    row: dict[str, Any] = field(default_factory=dict)  # the selected epoch's
    last: dict[str, Any] = field(default_factory=dict)  # the last epoch's
    ended_by: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Args:
        network: What is kept: the network with the selected weights, or that which pruning and quantisation-aware
            training leave of it.
        metrics: Of the selected epoch, e.g. `{"validation/accuracy": 0.98}`.
        diverged: What became infinite or NaN and where, or None.
        examples_per_second: Of training alone.
    """

    network: Network = field(compare=False)
    epochs: int
    steps: int
    selected_epoch: int | None
    metrics: Mapping[str, float]
    ended_by: str
    diverged: str | None
    train_s: float
    examples_per_second: float


class Diverged(Exception):
    """A loss or a weight is no longer a finite number."""


class Trainer:
    """Trains one network; made once for each run.

    Args:
        run: Where to write; None for a worker that has nothing to write.
        cache: Where measurements of this machine are remembered.
        profile: Write a trace of some seconds of training for TensorBoard.
        lesson: What is learned from; by default the labels.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        prepared: Prepared,
        placement: Placement,
        run: Run | None,
        cache: Path,
        profile: bool = False,
        lesson: Lesson | None = None,
    ) -> None:
        train = recipe.train
        self.lesson = lesson or Lesson(network)
        self.recipe, self.network, self.placement, self._prepared = recipe, network, placement, prepared
        self.run, self._cache = run, cache
        self._kept = run if placement.chief else None  # what this worker writes
        self.augment = augmentation.build(recipe, prepared.spec)
        mixes = self.augment is not None and self.augment.mixes
        self.feed = feeds.make(prepared.split("train"), recipe.runtime, placement, whole=mixes)
        self.orders = Orders(recipe, prepared)
        self.meters = Meters(network, recipe.metrics(), placement, self.lesson.terms)
        self.validation = _validation(network, prepared, recipe, placement)
        self.directions = _directions(self.meters, self.validation)
        self.select = _known_metric(train.select.metric, self.directions, "train.select.metric")
        require_direction(self.select, self.directions, "train.select.metric")
        if train.stop.metric is not None:
            _known_metric(train.stop.metric, self.directions, "train.stop.metric")
        if train.stop.overfit is not None and self.validation is None:
            raise BmcliError(
                "no row validates, so `overfit` cannot be seen.",
                path="train.stop.overfit", suggestion="Give data.split a share for validation.",
            )  # fmt: skip
        self.parts = train.gradient_accumulation
        if self.lesson.compares and self.parts > 1:
            raise BmcliError(
                "a loss compares the examples of a batch with each other, so that it has to be computed at once.",
                path="train.gradient_accumulation", suggestion="Leave it out.",
            )  # fmt: skip
        self.batch = self._batch_size(cache)
        self.rates = optimizers.layer_rates(
            train.layer_rates, [variable.path for variable in network.model.trainable_variables]
        )
        self._find_rate()
        self.steps_per_epoch = math.ceil(self.feed.count / self.batch)
        self.lesson.steps_per_epoch = self.steps_per_epoch
        self.steps_in_all = min(train.epochs * self.steps_per_epoch, train.stop.steps or 2**62)
        self.optimizer = self._built_optimizer(self.steps_in_all)
        self.average = self._made_average()
        self.masks, self.rounding = self._made_masks(), self._made_rounding()
        # An exponential average follows the weights closely, so that their moving statistics do for it.
        estimates = train.swa is not None or train.schedule_free
        self._estimation = Estimation(network.model, self.feed, self.batch, placement) if estimates else None
        events = str(self._kept.events) if self._kept else None
        self.callbacks = Callbacks(train, network.model, self.optimizer, events, self.directions)
        self.steps = self._compiled(cache)
        self._finite_weights = tf.function(lambda: _all_finite(network.model.weights), autograph=False)
        self._writer = checkpoint.Writer(self._kept.checkpoints) if self._kept else None
        self._profile = Profile(str(self._kept.events)) if self._kept and profile else None
        self.progress = Progress()
        self.selected: list[np.ndarray] = []
        self._call_steps = 1
        self._called: set[str] = set()  # the functions that are traced and compiled
        self._step_s = 0.0
        self._saved_at_s = 0.0  # training time of the last checkpoint
        self._saved_at_step = 0

    def _batch_size(self, cache: Path) -> int:
        wanted = self.recipe.train.batch_size
        if wanted != "auto":
            return min(wanted, self.feed.count)
        trial, way = self._built_optimizer(10**6), Compilation(self.recipe.runtime.jit is True)

        def make(size: int) -> Steps:
            return Steps(
                self.network, trial, self.meters, self.placement, size, way, self.parts, augment=self.augment,
                lesson=self.lesson,
            )  # fmt: skip

        return batch_size.choose(make, self.feed, self.order_of(0), cache)

    def _find_rate(self) -> None:
        """Puts a measured learning rate in the place of `auto`."""
        if self.recipe.train.optimizer.options["learning_rate"] != "auto":
            return
        plain = optimizers.with_rate(self.recipe.train, learning_rate.LOWEST, WarmUp(kind="constant"))
        trial = self._built_optimizer(10**6, plain)
        steps = Steps(
            self.network, trial, self.meters, self.placement, self.batch, PLAIN, self.parts, None, self.rates,
            self.augment, self.lesson,
        )  # fmt: skip
        found = optimizers.with_rate(self.recipe.train, learning_rate.find(steps, self.feed, self.order_of(0)))
        self.recipe = self.recipe.model_copy(update={"train": found})

    def _built_optimizer(self, steps: int, options: TrainOptions | None = None) -> keras.Optimizer:
        with self.placement.strategy.scope():
            train = options or self.recipe.train
            optimizer = _refusable("train.optimizer", lambda: optimizers.build(train, steps))
            optimizer.build(self._weights())
        return optimizer

    def _weights(self) -> list[Any]:
        """What is learned: the weights of the network, then those of the lesson's helpers."""
        return [*self.network.model.trainable_variables, *self.lesson.helpers]

    def _made_average(self) -> Average | None:
        train, weights = self.recipe.train, self._weights()
        with self.placement.strategy.scope():
            if train.ema is not None:
                return MovingAverage(weights, train.ema)
            if train.schedule_free:
                _require_no_constraints(weights)
                options = train.optimizer.options
                beta = options[MOMENTUM[train.optimizer.kind]]
                return ScheduleFree(weights, self.optimizer, beta, options.get("beta_2", 0.0))
            if train.swa is None:
                return None
            epochs = math.ceil(self.steps_in_all / self.steps_per_epoch)
            return EpochMean(weights, math.floor(round(train.swa.start * epochs, 6)) + 1)

    def _made_masks(self) -> pruning.Masks | None:
        options = self.recipe.train.prune
        if options is None:
            return None
        kept = self._plain().model if isinstance(options, ChannelPruning) else None
        with self.placement.strategy.scope():
            return pruning.build(options, self.network.model, kept, self.steps_in_all)

    def _made_rounding(self) -> quantization_aware.Rounding | None:
        options = self.recipe.train.rounding
        if options is None:
            return None
        first = round(options.start * self.steps_in_all)
        with self.placement.strategy.scope():
            return quantization_aware.Rounding(self.network.model, options, first, self.optimizer.iterations)

    def _plain(self) -> Network:
        """A new network of what this training leaves."""
        targets = self._prepared.split("train").targets
        return training.built(self.recipe.kept(), self._prepared.spec, targets, self.placement)

    def _compiled(self, cache: Path) -> Steps:
        def make(way: Compilation) -> Steps:
            return self.steps_of(self.batch, way)

        return compilation.choose(make, self._ways(), self.feed, self.order_of(0), self.steps_in_all, cache)

    def _ways(self) -> list[Compilation]:
        """The ways to compile that the recipe allows, and that make sense for it."""
        runtime, model = self.recipe.runtime, self.recipe.model
        alone = self.placement.replicas == 1 and self.parts == 1
        # A limit of steps may lie within a program, and a later, higher limit would begin there.
        together = alone and self.feed.count // self.batch >= feeds.TOGETHER and self.recipe.train.stop.steps is None
        plain_way = Compilation(False, feeds.TOGETHER) if together and self.lesson.asks else PLAIN
        if runtime.jit is False:
            return [plain_way]
        if self.lesson.compares and self.placement.replicas > 1:
            if runtime.jit is True:
                raise BmcliError(
                    "a loss compares examples of several replicas, whose exchange XLA cannot hold.",
                    path="runtime.jit", suggestion="Leave it out.",
                )  # fmt: skip
            return [plain_way]
        convolves = parts.load("models", model.kind).convolves(model)
        if runtime.jit == "auto" and self.placement.on_cpu and convolves:
            return [plain_way]  # XLA's convolutions are always slower there
        plain = [plain_way] if runtime.jit == "auto" else []
        if runtime.jit_steps != "auto":
            if runtime.jit_steps > 1 and not alone:
                raise BmcliError(
                    "several steps are one program on one device alone, and where a batch is computed at once.",
                    path="runtime.jit_steps", suggestion="Leave it out.",
                )  # fmt: skip
            return [*plain, Compilation(True, runtime.jit_steps)]
        return [*plain, Compilation(True), *([Compilation(True, feeds.TOGETHER)] if together else [])]

    def steps_of(self, batch: int, compilation: Compilation) -> Steps:
        """Compiled steps of this training with another batch, or compiled in another way."""
        return Steps(
            self.network, self.optimizer, self.meters, self.placement, batch, compilation, self.parts, self.average,
            self.rates, self.augment, self.lesson, self.masks, self.rounding,
        )  # fmt: skip

    def order_of(self, epoch: int) -> tf.Tensor:
        """The rows in the order of an epoch, which counts from 0."""
        return self.orders.of(epoch)

    def train(self, watch: Watcher, halt: Halt = never) -> Outcome:
        """Trains to the end, or until a signal.

        Args:
            halt: May end the training before, in a state from which it goes on as if it had never ended; its word is
                what `ended_by` tells.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint is there.
            RunFailed: The memory of the device is too small.
        """
        diverged = None
        with _signals() as signals, self._explained(), self._written():
            try:
                self._train(watch, signals, halt)
            except Diverged as error:
                self.progress.ended_by, diverged = "divergence", str(error)
        if self._profile is not None and not self._profile.recorded:
            watch.note("The training was too short for a trace: give it more epochs.")
        self.callbacks.finish()
        compilation_cache.seal(compilation_cache.folder(self._cache))
        return self._outcome(diverged)

    def _train(self, watch: Watcher, signals: list[int], halt: Halt) -> None:
        if self.recipe.train.batch_size == "auto" and self.progress.step == 0:
            self.save()  # to start again from, should the memory be too small
        self._drop_later_rows()
        if self.progress.ended_by is None and self.progress.epoch:
            self.progress.ended_by = halt(self.progress.last)  # a kill may have come before it was heard
        while self.progress.ended_by is None:
            try:
                self._train_epoch(watch, signals)
            except tf.errors.ResourceExhaustedError as error:
                if disk.write_failure(error) is not None or not self._can_need_less_memory():
                    raise
                self._need_less_memory(watch)
                continue
            cut_off = self.progress.batch < self.steps_per_epoch
            if cut_off:
                self.save()  # now, so that a larger budget goes on in the middle of this epoch
            try:
                self.progress.ended_by = self._finish_epoch(watch, cut_off, signals) or halt(self.progress.last)
            except Stopped:
                self._stop(signals, saved=cut_off)  # the epoch is trained, and will be measured anew
            if self.progress.ended_by is not None and not cut_off:
                self.save()
        if self._is_to_stop(signals):
            self._stop(signals, saved=True)

    def _can_need_less_memory(self) -> bool:
        return (
            self.recipe.train.batch_size == "auto"
            and self._kept is not None
            and self.placement.workers == 1
            and (2 * self.parts <= self.batch)
            and not self.lesson.compares
        )

    def _need_less_memory(self, watch: Watcher) -> None:
        """Halves what is computed at once; goes back to the last checkpoint, since the step may be half done."""
        self.parts *= 2
        watch.note(
            f"The memory is too small for {self.batch} examples at once: each batch is computed in {self.parts} parts."
        )
        self.steps = self.steps_of(self.batch, Compilation(self.steps.compilation.jit))
        self._called.clear()
        if self._writer is not None:
            self._writer.wait()
        self.resume()
        self._drop_later_rows()

    def _drop_later_rows(self) -> None:
        """Rows of epochs that will be trained again."""
        if self._kept and self._kept.metrics.exists():
            self._kept.keep_rows(self.progress.epoch)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what TensorFlow raises while training into words."""
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            if (failure := disk.write_failure(error)) is not None:
                raise failure from error
            raise RunFailed(
                f"the memory is too small for batches of {self.batch}"
                f"{f' in {self.parts} parts' if self.parts > 1 else ''}.",
                suggestion=f"Compute them in parts with train.gradient_accumulation={2 * self.parts}, or lower "
                "train.batch_size.",
            ) from None

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Ends what goes on in the background, however the training ends."""
        try:
            yield
        finally:
            if self._profile is not None:
                self._profile.stop()
            if self._writer is not None:
                self._writer.close()

    def _train_epoch(self, watch: Watcher, signals: list[int]) -> None:
        progress = self.progress
        if progress.batch == 0:
            self.meters.reset()
            progress.epoch_s = 0.0
        full = self.feed.count // self.batch
        self.feed.open(self.order_of(progress.epoch), self.batch, min(progress.batch, full - 1))
        while progress.batch < self.steps_per_epoch and not self._out_of_budget():
            if self._profile is not None:
                self._profile.on_call()
            start = time.perf_counter()
            count, bad = self._call(full)
            if bad != NO_STEP:
                raise Diverged(
                    f"the loss of step {progress.step + bad + 1} (epoch {progress.epoch + 1}) is not a finite number"
                )
            self._agree_and_advance(count, time.perf_counter() - start, watch, signals)

    def _call(self, full: int) -> tuple[int, int]:
        """Trains on the next batches; how many they were, and the first whose loss was not finite."""
        progress = self.progress
        if progress.batch >= full:
            with self._called_first("ragged"):
                return 1, self.steps.ragged(self.feed.rest())
        block = self.feed.block(progress.batch, self._batches_of_a_call(full))
        with self._called_first("many"):
            return block.count, self.steps.many(block)

    @contextmanager
    def _called_first(self, name: str) -> Iterator[None]:
        """Has a signal end the process in time while a function is called for the first time, with the state before it.

        To trace and compile it may take minutes. Later calls are as short as answers to signals have to be.
        """
        run = self._kept
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
            return stopping.going_on(run.to_resume)

        with stopping.guarded(save):
            yield

    def _batches_of_a_call(self, full: int) -> int:
        """Batches of the next call: to the next checkpoint at most, but programs of several steps are never divided."""
        progress, each = self.progress, self.steps.compilation.together
        every = self.recipe.train.checkpoint.steps
        to_checkpoint = every - (progress.step - self._saved_at_step) if every else 2**62
        end = progress.batch + min(self._call_steps, to_checkpoint)
        return min(-(-end // each) * each, full, progress.batch + self.steps_in_all - progress.step) - progress.batch

    def _agree_and_advance(self, count: int, seconds: float, watch: Watcher, signals: list[int]) -> None:
        """Moves on after a call; all workers go by the clock of the chief, and stop together."""
        (seconds,) = self.placement.from_chief([seconds])
        self._advance(count, seconds, watch)
        if self._is_to_stop(signals):
            self._stop(signals)
        if self._checkpoint_is_due():
            self.save()

    def _is_to_stop(self, signals: list[int]) -> bool:
        """Whether a signal came to one of the workers; all have to ask at the same time."""
        return bool(self.placement.sum_over_workers([float(bool(signals))])[0])

    def _advance(self, count: int, seconds: float, watch: Watcher) -> None:
        progress = self.progress
        examples = min(count * self.batch, self.feed.count - progress.batch * self.batch)
        progress.batch += count
        progress.step += count
        progress.examples += examples
        progress.train_s += seconds
        progress.epoch_s += seconds
        # At most doubled, because the first calls also trace and compile.
        self._call_steps = max(1, min(2 * self._call_steps, int(CALL_S * count / seconds)))
        watch.moment(self._moment(examples, count, seconds))

    def _moment(self, examples: int, count: int, seconds: float) -> Moment:
        """The state of training after a call of `count` steps."""
        progress = self.progress
        if examples == count * self.batch or not self._step_s:
            self._step_s = seconds / count  # not of a ragged batch, which is an unusual one
        return Moment(
            epoch=progress.epoch + 1,
            epochs=self.recipe.train.epochs,
            step=progress.batch,
            steps=self.steps_per_epoch,
            loss=self.meters.loss(),
            examples_per_second=self.batch / self._step_s,
            seconds_left=(self.steps_in_all - progress.step) * self._step_s,
        )

    def _stop(self, signals: list[int], saved: bool = False) -> NoReturn:
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
            suggestion=stopping.going_on(self.run.to_resume) if self.run else "",
        )

    def _checkpoint_is_due(self) -> bool:
        options, progress = self.recipe.train.checkpoint, self.progress
        by_time = options.time is not None and progress.train_s - self._saved_at_s > options.time
        by_steps = options.steps is not None and progress.step - self._saved_at_step >= options.steps
        return by_time or by_steps

    def _finish_epoch(self, watch: Watcher, cut_off: bool, signals: list[int]) -> str | None:
        """Measures, selects, and says why training should stop now, if it should.

        Args:
            cut_off: A limit of steps or time ended the epoch before all its rows were trained on.

        Raises:
            Stopped: A signal came while it measured, which can be done anew as if it had not been begun.
        """
        progress = self.progress

        def stops() -> bool:
            return bool(signals)

        self._require_finite_weights()
        if self.average is not None and progress.averaged <= progress.epoch:
            self.average.after_epoch(progress.epoch + 1)
            progress.averaged = progress.epoch + 1
        with self._called_first("validation"), self._averaged(stops):
            row = self._row(stops)
            selected = self._improves(row)
            kept = [weight.numpy() for weight in self.network.model.weights] if selected else []
        progress.epoch += 1
        progress.batch = 0
        progress.overfitted = progress.overfitted + 1 if _overfits(row, progress.last) else 0
        progress.last = row
        if selected:
            progress.best = row.get(self.select) if self._is_formed else None
            progress.selected_epoch, progress.row = progress.epoch, row
            self.selected = kept
        if self._kept:
            self._kept.append_row(row)
        watch.epoch(row, selected)
        callback_stops = self.callbacks.after_epoch(progress.epoch, row)
        if cut_off:
            return "steps" if progress.step >= self.steps_in_all else "time"
        return "callback" if callback_stops else self._stop_reason(row)

    @contextmanager
    def _averaged(self, stops: Callable[[], bool]) -> Iterator[None]:
        """The network with the average of its weights after this epoch, if there is one."""
        if self.average is None or not self.average.begun(self.progress.epoch + 1):
            yield
            return
        self.average.swap()
        try:
            rows = self.orders.shuffled(self.progress.epoch)
            with self._estimation.estimated(rows, stops) if self._estimation else nullcontext():
                yield
        finally:
            self.average.swap()

    def _row(self, stops: Callable[[], bool]) -> dict[str, Any]:
        progress = self.progress
        row: dict[str, Any] = {"epoch": progress.epoch + 1, "step": progress.step}
        row |= {f"train/{name}": value for name, value in self.meters.results().items()}
        if self.validation is not None:
            row |= {f"validation/{name}": value for name, value in self.validation.measure(stops).items()}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        examples = min(progress.batch * self.batch, self.feed.count)
        row["examples_per_second"] = round(examples / progress.epoch_s, 1) if progress.epoch_s else 0.0
        row["seconds"] = round(progress.train_s, 3)
        return {name: value if math.isfinite(value) else None for name, value in row.items()}

    @property
    def _is_formed(self) -> bool:
        """Whether all is pruned and rounded that will be, so that epochs can be compared with later ones."""
        pruned = self.masks is None or self.progress.step >= self.masks.span.last
        return pruned and (self.rounding is None or self.progress.step > self.rounding.first)

    def _improves(self, row: Mapping[str, Any]) -> bool:
        """Whether an epoch is the best so far; counts the epochs waited for one that is better by `min_delta`."""
        if self.select == "last" or not self._is_formed:
            return True
        value, best = row[self.select], self.progress.best
        if value is None:
            self.progress.waited += 1
            return False
        gain = math.inf if best is None else (best - value if self.directions[self.select] == "min" else value - best)
        self.progress.waited = 0 if gain > self.recipe.train.stop.min_delta else self.progress.waited + 1
        return gain > 0

    def _stop_reason(self, row: Mapping[str, Any]) -> str | None:
        return (self._word_of_metrics(row) if self._is_formed else None) or self._word_of_budget()

    def _word_of_metrics(self, row: Mapping[str, Any]) -> str | None:
        stop, progress = self.recipe.train.stop, self.progress
        if stop.patience is not None and progress.waited >= stop.patience:
            return "patience"
        if stop.overfit is not None and progress.overfitted >= stop.overfit:
            return "overfit"
        value = row.get(stop.metric) if stop.metric else None
        if value is not None and (
            (stop.above is not None and value >= stop.above) or (stop.below is not None and value <= stop.below)
        ):
            return "metric"
        return None

    def _word_of_budget(self) -> str | None:
        progress = self.progress
        if progress.epoch >= self.recipe.train.epochs:
            return "epochs"
        if progress.step >= self.steps_in_all:
            return "steps"
        return "time" if self._out_of_budget() else None

    def _out_of_budget(self) -> bool:
        limit_s = self.recipe.train.stop.time
        return self.progress.step >= self.steps_in_all or (limit_s is not None and self.progress.train_s >= limit_s)

    def _require_finite_weights(self) -> None:
        # A NaN before ReLU and batch normalisation can leave the loss finite, so the weights are looked at too.
        finite = self._finite_weights().numpy()
        if not finite.all():
            broken = self.network.model.weights[int(np.argmin(finite))].path
            raise Diverged(f"weight {broken} holds NaN or infinity after epoch {self.progress.epoch + 1}")

    def _holds_finite_weights(self, state: checkpoint.State) -> bool:
        weights = {id(weight) for weight in self.network.model.weights}
        values = zip(self.steps.variables, state.groups["variables"], strict=True)
        return all(bool(np.isfinite(value).all()) for variable, value in values if id(variable) in weights)

    def _outcome(self, diverged: str | None) -> Outcome:
        progress = self.progress
        if self.selected:
            for weight, value in zip(self.network.model.weights, self.selected, strict=True):
                weight.assign(value)
        return Outcome(
            network=self._left(),
            epochs=progress.epoch,
            steps=progress.step,
            selected_epoch=progress.selected_epoch,
            metrics={name: value for name, value in progress.row.items() if "/" in name and value is not None},
            ended_by=progress.ended_by or "epochs",
            diverged=diverged,
            train_s=progress.train_s,
            examples_per_second=progress.examples / progress.train_s if progress.train_s else 0.0,
        )

    def _left(self) -> Network:
        """The network that is kept of the trained one."""
        train = self.recipe.train
        if not isinstance(train.prune, ChannelPruning) and train.rounding is None:
            return self.network
        kept = self._plain()
        if isinstance(train.prune, ChannelPruning):
            channel_pruning.copy(self.network.model, kept.model)
        else:
            kept.model.set_weights(self.network.model.get_weights())
        if train.rounding is not None:
            settle(kept.model, train.rounding.weights)
        return kept

    def save(self) -> None:
        """Writes a checkpoint; weights that are not finite are never written."""
        self._require_finite_weights()
        state = self._state()
        if self._writer is not None:
            self._writer.write(self.progress.step, state)
        self._saved_at_s, self._saved_at_step = self.progress.train_s, self.progress.step

    def _state(self) -> checkpoint.State:
        """Copies of all that a run needs to go on from here; all workers have to ask for it at the same time."""
        variables, gathered = self.steps.snapshot()
        groups = {"variables": variables, "meters": gathered}
        if self.selected:
            groups["selected"] = self.selected
        run_id = self.run.id if self.run else ""
        values = {"run_id": run_id, "progress": asdict(self.progress), "callbacks": self.callbacks.state()}
        return checkpoint.State(groups, values)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.ended_by is not None or self._out_of_budget()

    def resume(self) -> tuple[str, ...]:
        """Takes up the newest checkpoint of the run that is whole; names those that are not.

        What ended the training before may hold no more: more epochs, or other conditions to stop.
        """
        assert self.run is not None, "only a run can be resumed"
        state, damaged = checkpoint.restore(self.run.checkpoints, self.run.id)
        try:
            saved, progress = state.groups["variables"], disk.conform(Progress, state.values.get("progress"))
        except (KeyError, disk.Damaged) as error:
            raise RunFailed(
                f"{self.run.checkpoints}: the checkpoint cannot be gone on with ({error}).",
                suggestion="Train again to make a new run.",
            ) from None
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in self.steps.variables]:
            raise RunFailed(
                f"{self.run.checkpoints}: the checkpoint does not fit the network that the recipe describes.",
                suggestion="Resume with the versions in environment.json, or train again.",
            )
        self.steps.put_back((saved, state.groups["meters"]))
        self.selected = list(state.groups.get("selected", ()))
        self.progress = progress
        self._saved_at_s, self._saved_at_step = self.progress.train_s, self.progress.step
        self.callbacks.restore(state.values["callbacks"])
        self.steps.catch_up()
        if self.progress.ended_by not in (None, "callback"):
            self.progress.ended_by = self._stop_reason(self.progress.last)
        return damaged


def _overfits(row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the training loss fell from one epoch to the next while the validation loss rose."""

    def change(name: str) -> float:
        now, then = row.get(name), before.get(name)
        return 0.0 if now is None or then is None else now - then

    return change("train/loss") < 0 < change("validation/loss")


def _all_finite(weights: list[Any]) -> Any:
    """For each weight whether all its numbers are finite, `(weights,)`."""
    return tf.stack([tf.reduce_all(tf.math.is_finite(tf.cast(weight.value, tf.float32))) for weight in weights])


def _validation(network: Network, prepared: Prepared, recipe: Recipe, placement: Placement) -> Pass | None:
    if not prepared.spec.counts.get("validation"):
        return None
    feed = feeds.make(prepared.split("validation"), recipe.runtime, placement)
    meters = Meters(network, recipe.metrics(), placement)
    return Pass(network, feed, min(EVALUATION_BATCH, feed.count), placement, meters)


def _directions(meters: Meters, validation: Pass | None) -> Directions:
    by_split = {"train": meters} if validation is None else {"train": meters, "validation": validation.meters}
    return {
        f"{split}/{name}": way for split, each in by_split.items() if each for name, way in each.directions().items()
    }


def _known_metric(metric: str, directions: Directions, path: str) -> str:
    """The metric by its full name; `auto` is the validation loss, or the training loss without validation rows."""
    if metric == "auto":
        return "validation/loss" if "validation/loss" in directions else "train/loss"
    if metric != "last" and metric not in directions:
        hint = parts.did_you_mean(metric, directions)
        if metric.startswith("validation/") and "validation/loss" not in directions:
            hint = "There are no validation rows; give data.split a validation share."
        raise BmcliError(f"no metric '{metric}' is measured while training.", path=path, suggestion=hint)
    return metric


def _require_no_constraints(weights: Sequence[Any]) -> None:
    """Refuses weights with constraints, which the mean of schedule-free steps would not keep."""
    bound = [weight.path for weight in weights if weight.constraint is not None]
    if bound:
        raise BmcliError(
            f"weight '{bound[0]}' has a constraint, which the mean of schedule-free steps would not keep.",
            path="train.schedule_free", suggestion="Leave one of them out.",
        )  # fmt: skip


def _refusable(path: str, build: Any) -> Any:
    """What `build` makes; options that Keras refuses become a fault of the recipe."""
    try:
        return build()
    except (ValueError, TypeError) as error:
        raise BmcliError(f"Keras refuses this: {str(error).splitlines()[0]}", path=path) from None


@contextmanager
def _signals() -> Iterator[list[int]]:
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
        with stopping.awaited():
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:  # after it was asked about for the last time
        signal.raise_signal(received[0])
