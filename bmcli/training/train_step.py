"""One optimizer step, and many of them in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bmcli import private_api
from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.training.augmentation import Augmenter
from bmcli.training.feed import Block, gather_rows
from bmcli.training.graph_ops import (
    batch_rows,
    full_batches,
    graph_function,
    moving_statistics,
    repeat,
    replica_share,
    rest_rows,
    xla_function,
)
from bmcli.training.hooks import StepHook
from bmcli.training.loss import Arrays, LossProvider, regularization_loss
from bmcli.training.meters import Meters

NO_STEP = -1


class Compilation(NamedTuple):
    """How steps are compiled.

    Args:
        jit: With XLA. The loop around the steps stays plain: XLA around the whole loop is many times slower on CPUs.
            With several replicas only the gradients are compiled, because XLA cannot hold the exchange of gradients
            on CPUs.
        steps_per_program: Steps that XLA compiles, one after the other, as one program. They start at every such number
            of batches of a feed, and end with it; batches that do not fill a program are trained on one by one. Without
            XLA: steps whose examples are made, and shown to teachers, at once. The last bits of the weights depend on
            it, and so calls must not end within a program.
    """

    jit: bool = False
    steps_per_program: int = 1


PLAIN = Compilation()


@dataclass(frozen=True)
class StepComponents:
    """Everything that an optimizer step is made of.

    Args:
        loss: Computes the loss of each example.
        augmentation: Changes the examples, outside of what XLA compiles.
        hooks: Features that join, in the order in which they are called.
    """

    network: Network
    optimizer: keras.Optimizer
    meters: Meters
    placement: Placement
    loss: LossProvider
    augmentation: Augmenter | None = None
    hooks: tuple[StepHook, ...] = ()

    @property
    def weights(self) -> list[Any]:
        """The trained weights: those of the network, then those that only the loss needs."""
        return [*self.network.model.trainable_variables, *self.loss.extra_weights]

    @property
    def variables(self) -> list[Any]:
        """Everything that decides how training goes on and is the same on every replica, in a fixed order."""
        learned = [*self.network.model.variables, *self.loss.extra_weights]
        return [*learned, *self.optimizer.variables, *(each for hook in self.hooks for each in hook.variables)]

    @property
    def statistics(self) -> list[Any]:
        """Variables that each replica learns from its own examples, and that a step makes their mean."""
        return [*moving_statistics(self.network.model), *(each for hook in self.hooks for each in hook.statistics)]


class CompiledSteps:
    """The compiled optimizer steps of one network.

    A step is that of the whole batch, however many replicas and parts it is computed in: each of them adds up the
    losses of its examples, divided by the examples of the batch, and the gradients are added up before they are clipped
    and applied.

    Args:
        batch: Examples of a step, over all replicas.
        compilation: Several steps together need one replica and one part.
        micro_batches: How many parts a batch is computed in, one after the other.
    """

    def __init__(
        self, components: StepComponents, batch: int, compilation: Compilation = PLAIN, micro_batches: int = 1
    ) -> None:
        self.components, self.batch, self.compilation, self.micro_batches = (
            components,
            batch,
            compilation,
            micro_batches,
        )
        self.network, self.optimizer = components.network, components.optimizer
        self.meters, self.placement = components.meters, components.placement
        self._loss, self._augmentation, self._hooks = components.loss, components.augmentation, components.hooks
        placement = self.placement
        self._is_undivided = placement.replicas == 1 and micro_batches == 1
        # What is not compiled for one shape takes the ragged last batch as it comes, and is traced but once.
        self._accepts_any_size = (
            self._is_undivided and not compilation.jit and self._augmentation is None and placement.kind != "tpu"
        )
        if placement.replicas > 1:
            private_api.disable_gradient_reduction(self.optimizer)
        self._single_loop = graph_function(self._build_loop(self._build_step(compilation.jit), 1))
        several = (
            self._build_loop(self._build_program(), compilation.steps_per_program)
            if compilation.jit
            else self._train_groups
        )
        self._program_loop = graph_function(several)
        # The ragged last batch has a shape of its own; compiling it too would cost more than it saves.
        self._ragged_step = graph_function(self._distribute_step(self._build_step(False)))

    def train_block(self, block: Block) -> int:
        """Trains on the batches of a block; the first whose loss was not finite, or -1."""
        for first, count, loop in self._split_into_programs(block):
            bad = int(loop(block.data, block.rows, tf.constant(first), tf.constant(count)))
            if bad != NO_STEP:
                return first - block.first + bad
        return NO_STEP

    def _split_into_programs(self, block: Block) -> Iterator[tuple[int, int, Any]]:
        """First batch and number of batches that each compiled loop takes, one after the other."""
        first, last, each = block.first, block.first + block.count, self.compilation.steps_per_program
        if each > 1 and not self.compilation.jit:
            yield first, block.count, self._program_loop
            return
        start, end = -(-first // each) * each, last // each * each
        if each == 1 or start >= end:
            start = end = last
        for begin, stop, loop in (
            (first, start, self._single_loop),
            (start, end, self._program_loop),
            (end, last, self._single_loop),
        ):
            if begin < stop:
                yield begin, stop - begin, loop

    def train_ragged_batch(self, block: Block) -> int:
        """Trains on the one batch of a block, which is cut short; 0 if its loss was not finite, else -1."""
        if self._accepts_any_size:
            return self.train_block(block)
        return NO_STEP if bool(tf.math.is_finite(self._ragged_step(block.data, rest_rows(block, self.batch)))) else 0

    def snapshot(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The state of the variables, and of the meters on each replica."""
        return [variable.numpy() for variable in self.components.variables], self.meters.state()

    def restore_snapshot(self, snapshot: tuple[Sequence[np.ndarray], Sequence[np.ndarray]]) -> None:
        values, gathered = snapshot
        for variable, value in zip(self.components.variables, values, strict=True):
            variable.assign(value)
        self.meters.restore(gathered)

    @property
    def trace_count(self) -> int:
        """How often the steps were traced; more than once for each kind of step would be a waste."""
        loops = (self._single_loop, self._program_loop, self._ragged_step)
        return sum(int(loop.experimental_get_tracing_count()) for loop in loops)

    def _build_loop(self, step: Callable[..., Any], each: int) -> Callable[..., Any]:
        """Steps on some batches, `each` of them a turn."""

        def loop(data: Any, rows: Any, first: Any, count: Any) -> Any:
            def following(done: Any, bad: Any) -> tuple[Any, Any]:
                if self._accepts_any_size:
                    chosen = batch_rows(rows, first + done, self.batch)
                else:
                    chosen = full_batches(rows, first + done, self.batch, each)
                losses = tf.reshape(self._run_on_replicas(step, data, chosen), (each,))
                wrong = ~tf.math.is_finite(losses)
                at = done + tf.argmax(wrong, output_type=tf.int32)
                return done + each, tf.where((bad == NO_STEP) & tf.reduce_any(wrong), at, bad)

            return repeat(count, following, tf.constant(NO_STEP))[0]

        return loop

    def _train_groups(self, data: Any, rows: Any, first: Any, count: Any) -> Any:
        """Steps on some batches, the examples of several of which are made at once.

        A large network computes many rows in much less time than few at a time.
        """
        each = self.compilation.steps_per_program

        def following(done: Any, bad: Any) -> tuple[Any, Any]:
            places = tf.minimum((first + done) * self.batch + tf.range(each * self.batch), tf.size(rows) - 1)
            left = tf.minimum(each, count - done)
            return done + each, self._run_on_replicas(self._train_group, data, tf.gather(rows, places), left, done, bad)

        return repeat(count, following, tf.constant(NO_STEP))[0]

    def _train_group(self, data: Any, rows: Any, count: Any, done: Any, bad: Any) -> Any:
        """The first `count` of some steps, one after the other."""
        examples = self._gather_program_examples(data, rows)

        def following(number: Any, bad: Any) -> tuple[Any, Any]:
            batch = tf.nest.map_structure(lambda array: full_batches(array, number, self.batch), examples)
            wrong = ~tf.math.is_finite(self._train_examples(batch, None, self.batch, 1))
            return number + 1, tf.where((bad == NO_STEP) & wrong, done + number, bad)

        return repeat(count, following, bad)[0]

    def _build_program(self) -> Callable[..., Any]:
        """Several steps as one program: from the arrays and the places of all their batches to their losses."""

        def learn(examples: Arrays) -> Any:
            def batch(number: int) -> Any:
                first, last = number * self.batch, (number + 1) * self.batch
                return tf.nest.map_structure(lambda array: array[first:last], dict(examples))

            return tf.stack(
                [self._train_examples(batch(n), None, self.batch, 1) for n in range(self.compilation.steps_per_program)]
            )

        learn_all = xla_function(learn)
        return lambda data, rows: learn_all(self._gather_program_examples(data, rows))

    def _gather_program_examples(self, data: Any, rows: Any) -> Arrays:
        """The examples of the batches that are computed together, one after the other."""
        if self._augmentation is None:
            return self._loss.extend(gather_rows(data, rows))
        augment, step = self._augmentation, self.optimizer.iterations.value

        def make(number: Any) -> Any:
            return augment.augment_examples(data, full_batches(rows, number, self.batch), None, step + number)

        numbers = tf.range(self.compilation.steps_per_program, dtype=step.dtype)
        traced = graph_function(make).get_concrete_function(tf.TensorSpec((), step.dtype))
        kinds = tf.nest.map_structure(tf.TensorSpec.from_tensor, traced.structured_outputs)
        found = tf.map_fn(traced, numbers, fn_output_signature=kinds)
        return self._loss.extend(tf.nest.map_structure(_flatten_batches, found))

    def _gather_examples(self, data: Any, rows: Any, places: Any) -> Arrays:
        """The examples at some places of a batch, augmented if the recipe says so, with what is known of them.

        Args:
            rows: Where in `data` the examples of the whole batch lie.
            places: None for the whole batch.
        """
        if self._augmentation is not None:
            found = self._augmentation.augment_examples(data, rows, places, self.optimizer.iterations.value)
        else:
            found = gather_rows(data, rows if places is None else tf.gather(rows, places))
        return self._loss.extend(found)

    def _distribute_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda data, rows: self._run_on_replicas(step, data, rows)

    def _run_on_replicas(self, step: Callable[..., Any], *given: Any) -> Any:
        strategy = self.placement.strategy
        return strategy.experimental_local_results(strategy.run(step, args=given))[0]

    def _build_step(self, jit: bool) -> Callable[..., Any]:
        """A step of one replica: from the arrays and the places of the whole batch in them to the batch's loss."""
        learn = xla_function(self._train_examples) if jit else self._train_examples
        gradients = xla_function(self._compute_gradients) if jit else self._compute_gradients

        def step(data: Any, rows: Any) -> Any:
            size = tf.cast(tf.size(rows), tf.float32) if self._accepts_any_size else rows.shape[0]
            if self._is_undivided:
                return learn(self._gather_examples(data, rows, None), None, size, 1)
            places, counts = replica_share(tf.range(size), self.placement.replicas)
            taken = partial(self._gather_examples, data, rows)
            found, loss = self._accumulate_gradients(gradients, taken, places, counts, size)
            return self._apply_gradients(*self._reduce_gradients(found, loss))

        return step

    def _train_examples(self, examples: Arrays, counts: Any, size: Any, micro_batches: int) -> Any:
        return self._apply_gradients(*self._compute_gradients(examples, counts, size, micro_batches))

    def _compute_gradients(self, examples: Arrays, counts: Any, size: Any, micro_batches: int) -> tuple[list[Any], Any]:
        """Gradients and loss that some examples add to a batch.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
            size: Examples of the whole batch.
            micro_batches: How many parts this replica's share of the batch is computed in.
        """
        with tf.GradientTape() as tape, ExitStack() as contexts:
            for hook in self._hooks:
                contexts.enter_context(hook.forward_pass())
            found = self._loss.compute(examples, counts, size, self.optimizer.iterations.value)
            each = found.losses if counts is None else found.losses * counts
            own = regularization_loss(self.network)
            loss = tf.reduce_sum(each) / size + own / (self.placement.replicas * micro_batches)
            scaled = self.optimizer.scale_loss(loss)
        predictions = self.network.predict(found.outputs)
        self.meters.update(each, own, examples["targets"], predictions, counts, found.terms, examples.get("labelled"))
        return tape.gradient(scaled, self.components.weights), loss

    def _accumulate_gradients(
        self,
        gradients: Callable[..., Any],
        gather_examples: Callable[[Any], Arrays],
        places: Any,
        counts: Any,
        size: int,
    ) -> tuple[list[Any], Any]:
        """The sum of the gradients over the parts of this replica's examples.

        Args:
            gather_examples: From places in the batch to the examples there.
        """
        mine = places.shape[0]
        each = -(-mine // self.micro_batches)  # as many in every part but the last
        full, rest = divmod(mine, each)
        parts = full + (1 if rest else 0)
        if parts == 1:
            return gradients(gather_examples(places), counts, size, 1)

        def of(start: Any, length: int) -> tuple[list[Any], Any]:
            chosen = tf.ensure_shape(places[start : start + length], (length,))
            counted = None if counts is None else tf.ensure_shape(counts[start : start + length], (length,))
            return gradients(gather_examples(chosen), counted, size, parts)

        weights = self.components.weights
        total = [tf.zeros(weight.shape) for weight in weights]
        loss = tf.zeros(())
        has_gradient = [True] * len(weights)

        def add(number: Any, total: list[Any], loss: Any) -> tuple[Any, list[Any], Any]:
            found, more = of(number * each, each)
            has_gradient[:] = [gradient is not None for gradient in found]
            return number + 1, _add_gradients(total, found), loss + more

        total, loss = repeat(full, add, total, loss)
        if rest:
            found, more = of(full * each, rest)
            total, loss = _add_gradients(total, found), loss + more
        return [gradient if has else None for gradient, has in zip(total, has_gradient, strict=True)], loss

    def _reduce_gradients(self, gradients: Sequence[Any], loss: Any) -> tuple[list[Any], Any]:
        """Sums over the replicas; moving statistics become their means."""
        context = tf.distribute.get_replica_context()
        if self.placement.replicas == 1:
            return list(gradients), loss
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        averaged = self.components.statistics
        statistics = [statistic.value / self.placement.replicas for statistic in averaged]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [*dense, *statistics, loss])
        for statistic, value in zip(averaged, summed[len(dense) : -1], strict=True):
            statistic.assign(value)
        found = iter(summed)
        return [None if gradient is None else next(found) for gradient in gradients], summed[-1]

    def _apply_gradients(self, gradients: Sequence[Any], loss: Any) -> Any:
        noted = [hook.before_step() for hook in self._hooks]
        for hook in self._hooks:
            gradients = hook.transform_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.components.weights, strict=True))
        for hook, each in zip(self._hooks, noted, strict=True):
            hook.after_step(self.optimizer.iterations.value, each)
        return loss

    def catch_up(self) -> None:
        """Let the hooks do what is due by now, where another end of the training has moved it."""
        step = int(self.optimizer.iterations.numpy())
        for hook in self._hooks:
            self.placement.strategy.run(hook.catch_up, args=(tf.constant(step),))


def _flatten_batches(batches: Any) -> Any:
    """Arrays of several batches, `(batches, batch, ...)`, one after the other."""
    count, batch, *rest = batches.shape
    return tf.reshape(batches, (count * batch, *rest))


def _add_gradients(total: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    return [
        sum_ if gradient is None else sum_ + tf.convert_to_tensor(gradient)
        for sum_, gradient in zip(total, found, strict=True)
    ]
